# Sourced by ./run and ./test: puts what they need on this machine, by name,
# from apt, cargo and pip; does nothing (and asks nobody) when it is there.
# shellcheck shell=bash

# Built dependencies are kept outside the clone, so that the next clone builds
# in seconds; nothing depends on their being there.
HEADROOM_CACHE=${HEADROOM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headroom}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$HEADROOM_CACHE/target}
mkdir -p "$HEADROOM_CACHE" "$CARGO_TARGET_DIR"
# Cargo tells a changed source by its time alone: another clone's build must not
# pass for this one's, so a change of clone makes every source new.
if [ "$(cat "$CARGO_TARGET_DIR/clone" 2>/dev/null)" != "$PWD" ]; then
    find . \( -name target -o -name .git \) -prune -o -type f -exec touch {} +
    echo "$PWD" >"$CARGO_TARGET_DIR/clone"
fi
# rustup's proxy would try to download components that rust-toolchain files or
# a new channel ask for; the installed stable is what we build with.
export RUSTUP_AUTO_INSTALL=0
[ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# apt_need COMMAND-OR-PATH PACKAGE...: installs the packages unless it is there.
apt_need() {
    local there=$1
    shift
    if command -v "$there" >/dev/null 2>&1 || [ -e "$there" ]; then return 0; fi
    echo "installing $*" >&2
    local log=$HEADROOM_CACHE/install.log
    if ! apt_install "$@" >"$log" 2>&1; then
        cat "$log" >&2
        echo "apt-get could not install $*: its reason stands above" >&2
        exit 1
    fi
}

apt_install() {
    if [ -z "${apt_updated:-}" ]; then
        as_root apt-get update -qq || return
        apt_updated=1
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

need_build() {
    # aws-lc and zstd compile C and C++; Rust links with cc.
    apt_need c++ gcc g++ libc6-dev
    if ! command -v cargo >/dev/null 2>&1; then
        echo "cargo is missing: install Rust 1.95 or later from https://rustup.rs and run this again" >&2
        exit 1
    fi
    local have
    have=$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    if [ -n "$have" ] && [ "$have" -lt 95 ]; then
        echo "rustc 1.$have is too old, 1.95 is needed: rustup update stable" >&2
        exit 1
    fi
}

need_tests() {
    need_build
    apt_need qemu-system-x86_64 qemu-system-x86
    apt_need chromium chromium
    # By its path: a psql of another place may be another version.
    apt_need /usr/bin/psql postgresql-client
    apt_need openssl openssl
    apt_need /usr/sbin/runqlat libbpf-tools
    apt_need setpriv util-linux
    # With promtool. Started by the tests, on ports of their own.
    apt_need promtool prometheus
    apt_need python3 python3
    # The VM lab packs these into its machines: the static busybox, not any.
    apt_need /usr/share/doc/busybox-static busybox-static
    apt_need xz xz-utils
    HEADROOM_VENV=$HEADROOM_CACHE/venv
    export HEADROOM_VENV
    # DuckDB's Delta reader comes as a package too, of exactly DuckDB's version.
    local packages="duckdb==1.5.5 duckdb-extensions==1.5.5 duckdb-extension-delta==1.5.5 jsonschema==4.26.0 standardwebhooks==1.1.0"
    if [ "$(cat "$HEADROOM_VENV/packages" 2>/dev/null)" != "$packages" ]; then
        echo "installing for the tests: $packages" >&2
        if ! python3 -m venv --clear "$HEADROOM_VENV" 2>/dev/null; then
            apt_need /usr/share/doc/python3-venv python3-venv
            python3 -m venv --clear "$HEADROOM_VENV"
        fi
        # shellcheck disable=SC2086
        "$HEADROOM_VENV/bin/pip" install --quiet $packages
        echo "$packages" >"$HEADROOM_VENV/packages"
    fi
}
