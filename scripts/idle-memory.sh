#!/usr/bin/env bash
# Measures what an idle connection costs the gateway in user-space memory.
#
#   scripts/idle-memory.sh [count]        (default 10000 sockets, each of its own user, one workspace)
#
# Builds a release, starts a nats-server (NATS_SERVER, PATH or .tools/) and a gateway of its own on free
# ports, opens the sockets from one Node process over loopback, and compares the gateway's resident
# memory (VmRSS of /proc/<pid>/status) before the first and after the last. Sockets in the kernel
# are not part of it. Ends everything it started.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-10000}
nats=${NATS_SERVER:-$(PATH="$PATH:$PWD/.tools:$PWD/.tools/bin" command -v nats-server || true)}
[ -n "$nats" ] || { echo "no nats-server: put one on PATH or in .tools/" >&2; exit 1; }
if [ "$(ulimit -n)" -lt $((count + 200)) ]; then ulimit -n $((count + 200)); fi

cargo build --release --locked --quiet
herald=${CARGO_TARGET_DIR:-target}/release/herald
dir=$(mktemp -d)
pids=()
end() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}
trap end EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port) http=$(free_port) admin=$(free_port)
"$nats" -a 127.0.0.1 -p "$port" -js -sd "$dir/js" >"$dir/nats.log" 2>&1 &
pids+=($!)
export HERALD_NATS__URL=nats://127.0.0.1:$port HERALD_SERVER__LISTEN=127.0.0.1:$http
export HERALD_SERVER__ADMIN_LISTEN=127.0.0.1:$admin HERALD_SOCKETS__PING=300s
# All come as fast as they can.
export HERALD_SOCKETS__CONNECT_RATE=0
export HERALD_AUTH__HMAC_SECRET=only-for-this-measurement-0123456789
"$herald" serve >"$dir/herald.log" 2>&1 &
gateway=$!
pids+=("$gateway")
ready() { curl -fs -o /dev/null "http://127.0.0.1:$http/readyz"; }
for _ in $(seq 100); do ready && break; sleep 0.1; done
ready || { cat "$dir/herald.log" >&2; exit 1; }

python3 - "$count" >"$dir/tokens" <<'PY'
import base64, hashlib, hmac, json, os, sys, time
key = os.environ["HERALD_AUTH__HMAC_SECRET"].encode()
b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
head = b64(b'{"alg":"HS256","typ":"JWT"}')
for number in range(int(sys.argv[1])):
    claims = {"sub": f"user-{number}", "workspaces": "acme", "exp": int(time.time()) + 3600}
    text = head + "." + b64(json.dumps(claims).encode())
    print(text + "." + b64(hmac.new(key, text.encode(), hashlib.sha256).digest()))
PY
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$gateway/status"; }
# One socket first: rooms, subscriptions and code pages are not what is measured.
head -n 1 "$dir/tokens" >"$dir/first"
node scripts/idle-memory.mjs "ws://127.0.0.1:$http/" 1 <"$dir/first" >"$dir/one" &
pids+=($!)
for _ in $(seq 100); do [ -s "$dir/one" ] && break; sleep 0.1; done
before=$(rss)
node scripts/idle-memory.mjs "ws://127.0.0.1:$http/" "$count" <"$dir/tokens" >"$dir/all" &
pids+=($!)
for _ in $(seq 1200); do [ -s "$dir/all" ] && break; sleep 0.1; done
[ -s "$dir/all" ] || { echo "the sockets did not open" >&2; tail "$dir/herald.log" >&2; exit 1; }
# Claims still come back and are answered for a moment.
sleep 5
after=$(rss)
open=$(curl -fs "http://127.0.0.1:$admin/metrics" | awk '/^herald_connections /{ print $2 }')
echo "sockets=$open before=${before}KiB after=${after}KiB per_socket=$(((after - before) * 1024 / count))B"
