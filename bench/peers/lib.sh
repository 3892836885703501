# Read by each `run`: where things are, and how a target ends. Bash.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
built=${CARGO_TARGET_DIR:-$root/target}/peers/release
PATH=$PATH:$root/.tools/bin:/usr/sbin
# Ten thousand sockets are ten thousand open files.
ulimit -n "$(ulimit -Hn)"
pids=()

# missing <why> <how to get it>: the report leaves this target out, and says why.
missing() {
  printf '{"missing":"%s: %s"}\n' "$1" "$2"
  exit 0
}

# need <file> [how]: ends with `missing` where it is not there.
need() {
  command -v "$1" >/dev/null || missing "$(basename "$1") is not installed" "${2:-make bench-peers}"
}

end() {
  trap - EXIT TERM INT
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}
trap end EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# start <log> <command…>: in the background; `$started` is its process.
start() {
  "${@:2}" >"$1" 2>&1 </dev/null &
  started=$!
  pids+=("$started")
}

# until_ready <what> <command…>: waits for the command to succeed, for 10 seconds at most, or until what was started ends.
until_ready() {
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    if [ $((tries += 1)) -gt 500 ] || ! kill -0 "$started" 2>/dev/null; then
      echo "$what did not become ready:" >&2
      tail -n 5 "$BENCH_DIR"/*.log >&2
      exit 1
    fi
    sleep 0.02
  done
}

# bridge <form> <address>: the bridge from NATS to the peer; `$bridge` is its process.
bridge() {
  start "$BENCH_DIR/bridge.log" "$built/bridge" "$1" "$BENCH_NATS_URL" "$2"
  bridge=$started
  until_ready bridge grep -q ready "$BENCH_DIR/bridge.log"
}

accepts() { (: >"/dev/tcp/127.0.0.1/$1"); }

# serve <JSON>: says that the target is ready, and ends with the standard input or with the first that ends by itself.
serve() {
  echo "$1"
  # Bash gives a command in the background no input of its own accord.
  exec 3<&0
  cat <&3 >/dev/null &
  pids+=($!)
  local input=$! first rc=0
  wait -n -p first "${pids[@]}" || rc=$?
  if [ "${first:-}" != "$input" ]; then
    echo "a part of the target ended by itself ($rc):" >&2
    tail -n 5 "$BENCH_DIR"/*.log >&2
    exit 1
  fi
}
