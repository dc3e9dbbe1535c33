#!/usr/bin/env bash
# title: What a block costs beside cryptography, one by one and in batches, both engines, also beside busy control calls
# goal: 0 system calls (so no lock that waits), 0 heap allocations of ours for each 4 KiB block
# measures: heap allocations of ours; blocks under strace; system calls
source "$(dirname "$0")/../common.sh"

if ! command -v strace; then
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends strace
fi

blocks=$(by_counts 20000 1000000)
# The counts below are of all eight passes: two engines, two ways, alone and beside control calls.
trace=$(mktemp)
trap 'rm -f "$trace"' EXIT
cargo build --locked --release --manifest-path tests/evidence/Cargo.toml --bin hot_path
program=${CARGO_TARGET_DIR:-tests/evidence/target}/release/hot_path
"$program" "$blocks"
strace -f -o "$trace" "$program" "$blocks" >/dev/null

# Only the thread that seals counts: it is the one that writes the marks.
awk -v blocks="$blocks" '
  /write\(2, "hot path begins/ { thread = $1; passes++; next }
  /write\(2, "hot path ends/ { ends++; thread = ""; next }
  / resumed>/ { next }
  thread != "" && $1 == thread { calls++; print > "/dev/stderr" }
  END {
    if (passes != ends) { print "marks are missing"; exit 1 }
    print "evidence P6 | blocks under strace | " passes * blocks " | >= | " 8 * blocks
    print "evidence P6 | system calls | " calls + 0 " | = | 0"
  }' "$trace"
