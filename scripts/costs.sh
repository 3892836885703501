#!/bin/sh
# Counts what an event, a delivery and a join cost a release build: instructions, allocations and system calls,
# by valgrind's callgrind. Fails where that is not what tests/costs.toml says, or where traces of 1 % of the events
# make a delivery more than 1 % dearer.
#
#   scripts/costs.sh [update]   takes what was counted for what it says from now on
set -eu
cd "$(dirname "$0")/.."

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "Costs are not counted: tests/costs.toml is of Linux on x86-64."
    exit 0
fi
command -v valgrind >/dev/null || {
    echo "valgrind is missing (Debian: apt install valgrind)." >&2
    exit 1
}
[ -n "${HERALD_TEST_NATS_SERVER:-}" ] || scripts/nats-server.sh --binary

cargo build --locked --release
export HERALD_TEST_GATEWAY="${HERALD_TEST_GATEWAY:-${CARGO_TARGET_DIR:-$PWD/target}/release/herald}"
export HERALD_TEST_NATS=binary
[ "${1:-}" != update ] || export HERALD_COSTS_UPDATE=1
exec cargo test --locked --test it -- --ignored --nocapture --test-threads=1 costs::
