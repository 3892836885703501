#!/bin/sh
# Runs every test once: with nats-server in Docker where an engine answers, as a process otherwise. With
# Docker, a small part runs on the binary, too, where there is one. Arguments go to `cargo test`.
# HERALD_TEST_NATS=docker or =binary decides otherwise.
set -eu
cd "$(dirname "$0")/.."

backend=${HERALD_TEST_NATS:-}
if [ -z "$backend" ]; then
    if docker version >/dev/null 2>&1; then backend=docker; else backend=binary; fi
fi
case $backend in
    docker) echo "Tests run with nats-server in Docker." ;;
    binary)
        echo "Tests run with the nats-server binary."
        [ -n "${HERALD_TEST_NATS_SERVER:-}" ] || scripts/nats-server.sh --binary
        ;;
    *)
        echo "HERALD_TEST_NATS is $backend: set docker or binary, or nothing." >&2
        exit 2
        ;;
esac
export HERALD_TEST_NATS="$backend"

# Each test that is skipped adds a line here.
HERALD_TEST_SKIPPED=$(mktemp)
export HERALD_TEST_SKIPPED
# Also where a test fails.
count_skipped() {
    sort -u "$HERALD_TEST_SKIPPED"
    echo "Skipped: $(sort -u "$HERALD_TEST_SKIPPED" | wc -l) tests. CONTRIBUTING.md says what they need."
    rm -f "$HERALD_TEST_SKIPPED"
}
trap count_skipped EXIT

# Most tests wait most of their time. Those that need a processor take turns.
[ "$(getconf _NPROCESSORS_ONLN)" -gt 4 ] || export RUST_TEST_THREADS="${RUST_TEST_THREADS:-5}"

# The tests themselves install what their JavaScript and Python clients need.
cargo test --locked --workspace "$@"

if [ "$backend" = docker ] && { [ -n "${HERALD_TEST_NATS_SERVER:-}" ] || [ -x .tools/bin/nats-server ] ||
    [ -x .tools/nats-server ] || command -v nats-server >/dev/null; }; then
    echo "The smoke test on the nats-server binary."
    HERALD_TEST_NATS=binary cargo test --locked --test it delivery::
fi
