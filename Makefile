# What one does with Reprieve. Everything here can be run again and again.

export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help setup demo test bench conformance fuzz screenshots ci

FUZZ_SECONDS ?= 60
SCREENSHOTS ?= target/screenshots

help:            ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*##/  make \1\t/' | expand -t 24

setup:           ## install what is missing on a fresh Debian 12
	@scripts/setup.sh

demo: setup      ## a throw-away PostgreSQL, agents that try to destroy it, and what is held (DEMO=--worst-case: the disk, too)
	cargo build --release --package reprieve
	target/release/reprieve demo $(DEMO)

test: setup      ## every test
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace; \
	else \
		cargo test --workspace --lib --bins --tests; \
	fi

bench: setup     ## side by side: direct, PgBouncer, Reprieve; then nginx, mitmproxy, Reprieve (BENCH="--seconds 10 --rounds 3", see bench/README.md)
	cargo build --release --package reprieve
	bench/run $(BENCH)
	bench/recovery
	bench/http $(BENCH_HTTP)
	bench/console

conformance: setup ## other people's test suites, direct and through Reprieve (CONFORMANCE="SUITE… --routes gateway")
	conformance/run $(CONFORMANCE)

fuzz: setup      ## every fuzz target, FUZZ_SECONDS each
	scripts/fuzz.sh $(FUZZ_SECONDS)

screenshots: setup ## every page of the console, both themes, desktop and phone, into SCREENSHOTS
	cargo build --package reprieve
	REPRIEVE_SCREENSHOTS=$(abspath $(SCREENSHOTS)) cargo test --package reprieve-tests --test console -- --ignored screenshots

ci: setup        ## what the build machine checks
	.ci/run
