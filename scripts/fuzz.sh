#!/bin/sh
# Fuzzes each target of fuzz/, one after the other.
#
#   scripts/fuzz.sh [seconds] [target…]   300 seconds each; all targets
#   scripts/fuzz.sh keep [target…]        puts into fuzz/corpus what was found since and reaches new code
#
# What is found goes to fuzz/found, an input that fails to fuzz/artifacts. Needs cargo-fuzz, and a C++ compiler
# for libFuzzer. Without a sanitizer: Herald is safe Rust, and so the stable compiler builds the targets.
set -eu
cd "$(dirname "$0")/.."

cargo fuzz --version >/dev/null 2>&1 || {
    echo "cargo-fuzz is missing: cargo install --locked cargo-fuzz" >&2
    exit 1
}

what=${1:-300}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(cargo fuzz list)
cargo fuzz build --sanitizer none
failed=
for target in "$@"; do
    found=fuzz/found/$target
    mkdir -p "$found"
    if [ "$what" = keep ]; then
        cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "$found" -- \
            -set_cover_merge=1 -use_counters=0 -use_cmp=0 -max_len=256
        continue
    fi
    echo "== $target, $what s"
    # An input that takes 10 s or 1 GiB fails.
    cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="$what" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 || failed="$failed $target"
done
[ -z "$failed" ] || {
    echo "These fail, and fuzz/artifacts has the inputs:$failed" >&2
    exit 1
}
