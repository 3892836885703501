#!/bin/sh
# Checks that vendor/async-nats is the released crate and exactly vendor/async-nats.patch on top of it.
# `scripts/check-vendor.sh --write` writes that patch anew, below its first lines, which say why.
set -eu
cd "$(dirname "$0")/.."
vendored=$PWD/vendor/async-nats
patch=$PWD/vendor/async-nats.patch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$vendored/Cargo.toml" | head -n 1)
mkdir -p "$work/probe/src"
: >"$work/probe/src/lib.rs"
cat >"$work/probe/Cargo.toml" <<TOML
[package]
name = "probe"
version = "0.0.0"
edition = "2021"

[dependencies]
async-nats = { version = "=$version", default-features = false }
TOML
# cargo looks whether what it got is what the registry's index names.
cargo vendor --quiet --manifest-path "$work/probe/Cargo.toml" "$work/crates" >/dev/null

# Only what is built: no tests, examples, benchmarks.
mkdir -p "$work/a" "$work/b"
cp -R "$work/crates/async-nats/Cargo.toml" "$work/crates/async-nats/src" "$work/a"
cp -R "$vendored/." "$work/b"
if [ "${1:-}" = --write ]; then
    sed '/^diff --git /,$d' "$patch" >"$work/head"
    # 1 says that they differ.
    (cd "$work" && git -c core.fileMode=false diff --no-index --no-prefix --no-color --no-ext-diff a b >"$work/body") || [ $? = 1 ]
    cat "$work/head" "$work/body" >"$patch"
fi
(cd "$work/a" && git apply -p1 "$patch")
if ! diff -r "$work/a" "$work/b"; then
    echo "vendor/async-nats is not async-nats $version with vendor/async-nats.patch." >&2
    exit 1
fi
echo "vendor/async-nats is async-nats $version with vendor/async-nats.patch."
