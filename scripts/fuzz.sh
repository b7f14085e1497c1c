#!/usr/bin/env bash
# Runs every fuzz target for some seconds (first argument, 60 by default). Stops at the first finding.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
if [ ! -f fuzz/Cargo.toml ]; then
    echo "fuzz: there is no fuzz/Cargo.toml" >&2
    exit 1
fi
if ! rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    echo "fuzz: needs a nightly Rust: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: building cargo-fuzz, once"
    cargo install --locked --quiet cargo-fuzz </dev/null
fi
targets=$(cargo +nightly fuzz list)
[ -n "$targets" ] || { echo "fuzz: fuzz/Cargo.toml names no target" >&2; exit 1; }
for target in $targets; do
    echo "fuzz: $target, $seconds s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048
done
