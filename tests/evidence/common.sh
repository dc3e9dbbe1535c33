# What the checks share; sourced by each. A check prints lines of this form, and fails when it could not be made:
#
#   evidence R3 | valid vectors | 353 | >= | 300
#
# that is id, what was measured, the figure, the relation, the goal at the counts of this run. The head of a
# check's file names its title, the goal in words, every measure that has to appear, and, where goals
# cannot be reached yet, of which of them (`open measures:`), and why (`open:`). All others stay red.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

: "${STRONGROOM_EVIDENCE:=quick}"
export STRONGROOM_EVIDENCE

# by_counts QUICK FULL: the one that this run asks for.
by_counts() {
  if [ "$STRONGROOM_EVIDENCE" = full ]; then echo "$2"; else echo "$1"; fi
}

# Of which goals a run of tests/evidence.sh measures: a benchmark of several goals leaves the others out. Nothing says all.
ids=${STRONGROOM_EVIDENCE_IDS:-}

# measured ID WHAT FIGURE RELATION GOAL
measured() {
  echo "evidence $1 | $2 | $3 | $4 | $5"
}

# Optimised tests, shown with what they print. At least one has to run.
cargo_tests() {
  local log status=0
  log=$(mktemp)
  cargo test --locked --release --features testing,object-store "$@" 2>&1 | tee "$log" || status=$?
  grep -q '^test result: ok. [1-9]' "$log" || { echo "no test ran"; status=1; }
  rm -f "$log"
  return "$status"
}

# bench_rows BENCH ID [FEATURES [PART]]: runs a benchmark, or a part of it, and hands on the figures of one goal. Where several goals are
# measured by one run, the first of them to be checked in a run of tests/evidence.sh makes it, and the others read what it printed.
# A quick run uses the build of the gate, without optimisation across crates, and easier goals: report.rs says which.
bench_rows() {
  local kept=${STRONGROOM_EVIDENCE_RUN:-$(mktemp -d)}/$1${4:-}
  if [ ! -e "$kept" ]; then
    if [ "$STRONGROOM_EVIDENCE" = full ]; then
      cargo bench --locked ${3:+--features "$3"} --bench "$1" -- ${4:+"$4"} >"$kept.new" || return
    else
      cargo bench --locked --profile release --features testing,object-store --bench "$1" -- ${4:+"$4"} >"$kept.new" || return
    fi
    mv "$kept.new" "$kept"
  fi
  sed -n "/^evidence/!p; /^evidence $2 /p" "$kept"
}
