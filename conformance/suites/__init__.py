"""The suites: each module has NAME, prepare(cache, tree) -> state, run(state, target, direct) -> {test: outcome}."""
