#!/bin/sh
# Names everything that `make test` needs and this machine lacks, all at once.
set -eu

missing=0
lacks() {
    echo "$1" >&2
    missing=1
}

command -v cargo >/dev/null || lacks "Rust is missing: install it from https://rustup.rs (1.91.1 or newer)."
# Also where Docker runs nats-server: some of the tests' clients are Python.
if ! python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    lacks "Python 3.10 or newer with venv is missing (Debian: apt install python3-venv python3-pip)."
fi
if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number);
    process.exit(a > 20 || (a === 20 && b >= 10) ? 0 : 1)' 2>/dev/null; then
    lacks "Node 20.10 or newer is missing."
elif ! command -v npm >/dev/null; then
    lacks "npm is missing, which comes with Node."
fi
exit "$missing"
