#!/usr/bin/env bash
# title: Fuzzing of every parser, the lease machine and the object model, under the address sanitizer
# goal: >= 10 targets, >= 10^8 runs of each, 0 crashes, no allocation above 1 MiB
# why: the runs of most targets take hours each, and are made in parts
# measures: targets; targets that reached the count; least runs of a target; least runs of a target at this commit; crashes
#
# A full run takes days, so it can be made in parts: R6_MINUTES=60 ends after an hour and the next one goes on. After every
# minute of a target its count is in tests/evidence/runs/R6.txt and the inputs that it found are under the target directory.
#
# How runs are summed. A row of that file is `target runs code since until date`: so many runs of the target whose code has
# that hash, from commit `since` to commit `until`. What is fuzzed may change in between, which is why a run also fuzzes every
# target at its own commit, first of all with every input that was ever found, and tells that count apart. When the target's own
# code changes, or a run ends in a crash, its row goes and the count begins at zero.
source "$(dirname "$0")/../common.sh"

goal=$(by_counts 10000 100000000)
at_least=10000
kept=tests/evidence/runs/R6.txt
built=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
inputs=$built/inputs/$STRONGROOM_EVIDENCE
programs=$(mktemp -d)
# Of each target, in a file of its own, since they run side by side: now.TARGET, its runs in this run; speed.TARGET, how many a second;
# crashed.TARGET, where it did.
told=$(mktemp -d)
found=$PWD/target/evidence/crashes
# What prints a panic's backtrace takes more memory than is allowed here, and would hide the panic.
export RUST_BACKTRACE=0
ends=$((SECONDS + 60 * ${R6_MINUTES:-1000000}))
trap 'rm -rf "$programs" "$told"' EXIT

main() {
  if [ "$STRONGROOM_EVIDENCE" = full ] && [ -n "$(git status --porcelain -- src fuzz Cargo.toml Cargo.lock)" ]; then
    echo "commit first: runs are those of a commit"
    return 1
  fi
  cargo +nightly fuzz build --target-dir "$built"
  mapfile -t targets < <(sed -n '/^\[\[bin\]\]/,$s/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml)
  # A build meanwhile changes nothing.
  cp "${targets[@]/#/$built/x86_64-unknown-linux-gnu/release/}" "$programs/"
  each first "${targets[@]}"
  if [ "$STRONGROOM_EVIDENCE" = full ]; then
    # The fastest first: most targets get there soonest.
    # shellcheck disable=SC2046 # several words
    each others $(for target in "${targets[@]}"; do echo "$(cat "$told/speed.$target") $target"; done | sort -rn | cut -d' ' -f2)
  fi
  figures
}

# each FUNCTION TARGET...: calls it for each, so many at once as there are cores.
each() {
  local call=$1 target
  shift
  for target in "$@"; do
    [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
    "$call" "$target" &
  done
  wait
}

first() {
  part "$1" "$at_least"
}

others() {
  while [ ! -e "$told/crashed.$1" ] && [ "$(total "$1")" -lt "$goal" ] && [ "$SECONDS" -lt "$ends" ]; do
    part "$1" "$((goal - $(total "$1")))"
  done
}

# part TARGET RUNS: goes on from every input found so far, for so many runs or a minute.
part() {
  local target=$1 log status=0 ran began
  log=$(mktemp)
  began=$(date +%s%3N)
  mkdir -p "$inputs/$target" "$found"
  # shellcheck disable=SC2046 # several words
  "$programs/$target" "$inputs/$target" "fuzz/seeds/$target" $(cat fuzz/options) -seed="$(by_counts 1 0)" -runs="$2" -max_total_time=60 \
    -artifact_prefix="$found/$target-" -print_final_stats=1 >"$log" 2>&1 || status=$?
  ran=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  : "${ran:=0}"
  echo "$((ran * 1000 / ($(date +%s%3N) - began + 1)))" >"$told/speed.$target"
  echo "$(($(now "$target") + ran))" >"$told/now.$target"
  if [ "$status" -ne 0 ]; then
    touch "$told/crashed.$target"
    echo 0 >"$told/now.$target"
    tail -n 60 "$log"
    echo "$target: the input is in $found"
  fi
  if [ "$STRONGROOM_EVIDENCE" = full ]; then keep "$target" "$ran"; fi
  echo "$(date -u +%H:%M:%S) $target: $(total "$target") runs, $(cat "$told/speed.$target") a second"
  rm -f "$log"
}

now() {
  cat "$told/now.$1" 2>/dev/null || echo 0
}

# The target's own code: what it feeds and what it holds of the outcome.
code() {
  local files=("fuzz/fuzz_targets/$1.rs" "src/fuzzing/$1.rs") door
  for door in $(sed -n 's/^use crate::provider::\(.*\)_fuzzing;$/\1/p' "src/fuzzing/$1.rs"); do
    files+=("$(echo src/provider/"$door"*/fuzzing.rs)")
  done
  cat "${files[@]}" | sha256sum | cut -c1-9
}

# All runs of the target as it is.
total() {
  if [ "$STRONGROOM_EVIDENCE" = full ] && [ -e "$kept" ]; then
    awk -v name="$1" -v code="$(code "$1")" '$1 == name && $3 == code { print $2; seen = 1 } END { if (!seen) print 0 }' "$kept"
  else
    now "$1"
  fi
}

# Under a lock: the targets share the file.
keep() {
  local commit date runs since
  exec 9>"$told/lock"
  flock 9
  commit=$(git rev-parse --short=9 HEAD)
  date=$(date -u +%Y-%m-%d)
  mkdir -p "$(dirname "$kept")"
  touch "$kept"
  runs=$(($(total "$1") + $2))
  since=$(awk -v name="$1" -v code="$(code "$1")" '$1 == name && $3 == code { print $4 }' "$kept")
  {
    grep -v "^$1 " "$kept" || true
    [ -e "$told/crashed.$1" ] || echo "$1 $runs $(code "$1") ${since:-$commit} $commit $date"
  } | sort >"$kept.new"
  mv "$kept.new" "$kept"
  exec 9>&-
}

figures() {
  local target least='' least_now='' reached=0
  for target in "${targets[@]}"; do
    if [ "$(total "$target")" -ge "$goal" ]; then reached=$((reached + 1)); fi
    if [ -z "$least" ] || [ "$(total "$target")" -lt "$least" ]; then least=$(total "$target"); fi
    if [ -z "$least_now" ] || [ "$(now "$target")" -lt "$least_now" ]; then least_now=$(now "$target"); fi
  done
  measured R6 targets "${#targets[@]}" ">=" 10
  measured R6 "targets that reached the count" "$reached" ">=" "${#targets[@]}"
  measured R6 "least runs of a target" "$least" ">=" "$goal"
  measured R6 "least runs of a target at this commit" "$least_now" ">=" "$at_least"
  measured R6 crashes "$(find "$told" -name 'crashed.*' | wc -l)" "=" 0
}

main
