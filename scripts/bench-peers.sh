#!/bin/sh
# Gets what `make bench` compares Herald with, each by its own registry: `ws` from npm, Centrifugo from
# its Go module into .tools/bin, nchan from Debian. What cannot be had here is named, and left out of the run.
set -eu
cd "$(dirname "$0")/.."

centrifugo=v6.9.1

scripts/nats-server.sh --binary || echo "NATS' websocket will be left out." >&2

if command -v npm >/dev/null; then
    npm ci --prefix bench/peers/node --ignore-scripts --no-audit --no-fund --loglevel=error
else
    echo "npm is missing: the Node bridge will be left out." >&2
fi

if .tools/bin/centrifugo version 2>/dev/null | grep -q "${centrifugo}"; then
    :
elif command -v go >/dev/null; then
    GOBIN=$PWD/.tools/bin go install -ldflags "-s -w -X github.com/centrifugal/centrifugo/v6/internal/build.Version=${centrifugo#v}" \
        "github.com/centrifugal/centrifugo/v6@$centrifugo"
else
    echo "Go is missing: Centrifugo will be left out." >&2
fi

debian="apt-get install --yes --no-install-recommends nginx-light libnginx-mod-nchan"
if [ -f /usr/lib/nginx/modules/ngx_nchan_module.so ]; then
    :
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    $debian >&2
else
    echo "nchan is missing and will be left out. As root: $debian" >&2
fi
