#!/bin/sh
# Runs the fault harness: nats-servers, gateways and clients as real processes, faults from a seed, and an
# audit of what came. `scripts/faults.sh [seeds] [seconds]`: `7`, or `1..20`; 60 seconds each.
# BLIND=1 builds a gateway that neither repairs nor sweeps, and expects losses: the auditor has to see them.
set -eu
cd "$(dirname "$0")/.."

[ "${HERALD_TEST_NATS:-}" = docker ] || [ -n "${HERALD_TEST_NATS_SERVER:-}" ] || scripts/nats-server.sh --binary
export HERALD_TEST_NATS="${HERALD_TEST_NATS:-binary}"
export HERALD_FAULTS_SEEDS="${1:-1..20}" HERALD_FAULTS_SECONDS="${2:-60}"
features=
[ -z "${BLIND:-}" ] || features="--features blind"
# shellcheck disable=SC2086 # no feature is no argument
exec cargo test --locked --release $features --test it -- --ignored --exact --nocapture \
    faults::nothing_is_lost_or_twice_under_faults
