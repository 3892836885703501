#!/bin/sh
# For machines that cannot pull images: starts a Docker engine if none answers, and builds the image of the
# tests around a nats-server binary if it is missing. Prints the id of the engine's process if it started
# one, which is then the caller's to end.
#
#   .ci/nats-image.sh [path of a nats-server binary]
set -eu
cd "$(dirname "$0")/.."

image=nats:2.15-alpine

if ! docker version >/dev/null 2>&1; then
    log=${TMPDIR:-/tmp}/herald-ci-dockerd.log
    nohup dockerd >"$log" 2>&1 </dev/null &
    engine=$!
    tries=0
    until docker version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 60 ] || ! kill -0 "$engine" 2>/dev/null; then
            echo "The Docker engine does not start:" >&2
            tail -n 5 "$log" >&2
            exit 1
        fi
        sleep 1
    done
    echo "$engine"
fi

# Whether the image is there and is a server: one around a launcher script, say, is none.
runs() {
    docker image inspect "$image" >/dev/null 2>&1 &&
        docker run --rm --network none "$image" --version 2>/dev/null | grep -q 'v2\.15\.'
}

if runs; then
    exit 0
fi
if docker pull --quiet "$image" >/dev/null 2>&1; then
    exit 0
fi

binary=${1:-}
for candidate in .tools/bin/nats-server .tools/nats-server "$(command -v nats-server || true)"; do
    if [ -z "$binary" ] && [ -x "$candidate" ]; then binary=$candidate; fi
done
if [ -z "$binary" ]; then
    echo "No nats-server binary to build $image from: scripts/nats-server.sh --binary gets one." >&2
    exit 1
fi
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$binary" "$context/nats-server"
mkdir "$context/tmp"
cat >"$context/Dockerfile" <<'END'
FROM scratch
COPY nats-server /usr/local/bin/nats-server
# JetStream's default folder lies in it.
COPY tmp /tmp
EXPOSE 4222
ENTRYPOINT ["/usr/local/bin/nats-server"]
END
# The old builder needs no other image.
DOCKER_BUILDKIT=0 docker build --quiet --tag "$image" "$context" >&2
if ! runs; then
    echo "The image built around $binary does not run." >&2
    exit 1
fi
