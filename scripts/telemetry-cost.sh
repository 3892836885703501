#!/usr/bin/env bash
# Measures what traces cost the gateway in CPU time for each delivery: telemetry off, a 1% sampler and
# 100%, at a fan-out of 100 and of 1, several interleaved runs of each. Prints the median of each and how
# much more it is than off in the median of the paired runs.
#
#   scripts/telemetry-cost.sh [runs]        (default 7)
#
# Builds a release, starts a nats-server (NATS_SERVER, PATH or .tools/), a collector that takes everything
# and, for each run, a gateway of its own, all on free ports of the loopback. Ends everything it started.
set -euo pipefail
cd "$(dirname "$0")/.."
nats=${NATS_SERVER:-$(PATH="$PATH:$PWD/.tools:$PWD/.tools/bin" command -v nats-server || true)}
[ -n "$nats" ] || { echo "no nats-server: put one on PATH or in .tools/" >&2; exit 1; }
[ -d tests/clients/node_modules ] || (cd tests/clients && npm ci --silent)
cargo build --release --locked --quiet
exec node scripts/telemetry-cost.mjs "${CARGO_TARGET_DIR:-target}/release/herald" "$nats" "${1:-7}"
