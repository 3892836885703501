#!/bin/sh
# Runs the fault harness: nats-servers, gateways and clients as real processes, faults from a seed, and an
# audit of what came.
#
#   scripts/faults.sh [seeds] [seconds]   `7`, or `1..20`; 60 seconds each
#   scripts/faults.sh upgrade BINARY      a rolling upgrade from that build of another version, and back
#   scripts/faults.sh more                rolling restart, pairs, storms, thin lines, memory, lists of sessions: half an hour
#
# The gateways are release builds. With BLIND=1 the servers answer none of their direct gets of events, so that
# they can neither repair nor sweep, and losses are expected: the auditor has to see them.
set -eu
cd "$(dirname "$0")/.."

[ "${HERALD_TEST_NATS:-}" = docker ] || [ -n "${HERALD_TEST_NATS_SERVER:-}" ] || scripts/nats-server.sh --binary
export HERALD_TEST_NATS="${HERALD_TEST_NATS:-binary}"
if [ "$(ulimit -n)" -lt 20000 ]; then ulimit -n 20000; fi

[ -z "${BLIND:-}" ] || export HERALD_FAULTS_BLIND=1
cargo build --locked --release
export HERALD_TEST_GATEWAY="${CARGO_TARGET_DIR:-$PWD/target}/release/herald"
cargo build --locked --tests
if [ "${1:-}" = upgrade ]; then
    export HERALD_TEST_OTHER_VERSION="$2"
    exec cargo test --locked --test it -- --ignored --exact --nocapture \
        faults::rolling::a_rolling_upgrade_and_a_rollback_lose_nobody_and_nothing
fi
if [ "${1:-}" = more ]; then
    exec cargo test --locked --test it -- --ignored --nocapture --test-threads 1 faults:: \
        --skip faults::nothing_is_lost_or_twice_under_faults --skip rolling_upgrade
fi
export HERALD_FAULTS_SEEDS="${1:-1..20}" HERALD_FAULTS_SECONDS="${2:-60}"
exec cargo test --locked --test it -- --ignored --exact --nocapture \
    faults::nothing_is_lost_or_twice_under_faults
