#!/usr/bin/env bash
# Installs what building and testing Reprieve needs on a fresh Debian 12, and says what it does.
# Silent when nothing is missing. Run as root, or with sudo at hand.
set -euo pipefail

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup: this needs root: $*" >&2
        return 1
    fi
}

has() { command -v "$1" >/dev/null 2>&1; }

# Debian's python3 has the module but not the wheels it unpacks, so ask for those.
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

has_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || compgen -G '/usr/lib/*/libclang*.so*' >/dev/null; }

has_postgres() {
    local program version
    for program in /usr/lib/postgresql/*/bin/initdb; do
        version=${program#/usr/lib/postgresql/}
        version=${version%%/*}
        if [ -x "$program" ] && [ "$version" -ge 15 ] 2>/dev/null; then return 0; fi
    done
    return 1
}

packages=()
has_postgres || packages+=(postgresql)
has pgbouncer || [ -x /usr/sbin/pgbouncer ] || packages+=(pgbouncer)
has pgbackrest || packages+=(pgbackrest)
has_libclang || packages+=(libclang-dev)
has clang || packages+=(clang)
has gcc || packages+=(gcc libc6-dev)
has make || packages+=(make)
has pkg-config || packages+=(pkg-config)
has openssl || packages+=(openssl)
has curl || packages+=(curl ca-certificates)
has python3 || packages+=(python3)
has npm || packages+=(nodejs npm)
# A bucket that enforces object lock, for the tests of copies: 69 MB to fetch, 270 MB on the disk.
for program in ceph-mon ceph-osd radosgw; do has "$program" || packages+=("$program"); done
has chromium || packages+=(chromium fonts-liberation)
if ! has python3 || ! has_venv; then packages+=(python3-venv python3-pip); fi

if [ "${#packages[@]}" -gt 0 ]; then
    if ! has apt-get; then
        echo "setup: missing ${packages[*]}, and this is not Debian: please install them by hand" >&2
        exit 1
    fi
    case " ${packages[*]} " in
    *" postgresql "*)
        # Tests start servers of their own; the package must not start one too.
        if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
            echo "setup: telling Debian's PostgreSQL not to start a server of its own"
            as_root mkdir -p /etc/postgresql-common
            echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
        fi
        ;;
    esac
    policy_layer=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        # Nor may PgBouncer's package start its service: ours run on ports of their own.
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod +x /usr/sbin/policy-rc.d
        policy_layer=ours
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    echo "setup: installing ${packages[*]}"
    install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null; }
    # The lists may be absent or stale; fetch them only then.
    if ! install >/tmp/reprieve-setup.$$ 2>&1; then
        echo "setup: refreshing the package lists"
        as_root apt-get update -qq </dev/null
        if ! install >/tmp/reprieve-setup.$$ 2>&1; then
            cat /tmp/reprieve-setup.$$ >&2
            rm -f /tmp/reprieve-setup.$$
            exit 1
        fi
    fi
    rm -f /tmp/reprieve-setup.$$
    if [ -n "$policy_layer" ]; then
        as_root rm -f /usr/sbin/policy-rc.d
        trap - EXIT
    fi
fi

if ! has cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
fi
if ! has cargo; then
    echo "setup: Rust is missing; install it from https://rustup.rs (1.95 or later)" >&2
    exit 1
fi

if ! cargo nextest --version >/dev/null 2>&1; then
    echo "setup: building cargo-nextest, once"
    # Not a reason to fail: `make test` falls back to `cargo test`.
    cargo install --locked --quiet cargo-nextest </dev/null || echo "setup: no cargo-nextest; \`cargo test\` will do" >&2
fi
