#!/usr/bin/env bash
# Measures what the project claims about reliability and security, and judges it by the goals. Run it as
# `tests/evidence.sh`.
#
#   tests/evidence.sh             every check with its full counts: hours
#   tests/evidence.sh R3 R5       only these; the other rows of the table stay as they were
#   tests/evidence.sh --quick     every check with smaller counts, which it states; what the gate runs
#   tests/evidence.sh --beside P1 P4    on another machine than the table's: full counts, kept beside the table's own
#
# Each check is a script of its own, tests/evidence/checks/ID.sh. It prints what it measured; nothing else
# makes a figure. A full run keeps each check's figures, with machine, commit, date and time taken, in
# docs/evidence/ and writes docs/EVIDENCE.md from them. A quick run keeps them under target/evidence/quick/.
# That the checks can fail is shown apart, by tests/evidence/planted.py.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TERM_COLOR=never
export PATH=$CARGO_TARGET_DIR/tools/bin:$root/target/tools/bin:$HOME/.cargo/bin:$PATH
export STRONGROOM_PYTHON=${STRONGROOM_PYTHON:-$root/target/venv/bin/python}
export STRONGROOM_EVIDENCE=full
niceness=0
results=$root/docs/evidence
case ${1:-} in
  --quick)
    shift
    STRONGROOM_EVIDENCE=quick
    results=$root/target/evidence/quick
    ;;
  --beside)
    shift
    results=$root/docs/evidence/beside
    ;;
esac

main() {
  local id status=0
  # For what several checks share, so that it is made once, and never taken from another run.
  STRONGROOM_EVIDENCE_RUN=$(mktemp -d)
  export STRONGROOM_EVIDENCE_RUN
  trap 'rm -rf "$STRONGROOM_EVIDENCE_RUN"' EXIT
  local ids=("$@")
  if [ "${#ids[@]}" -eq 0 ]; then
    mapfile -t ids < <(cd tests/evidence/checks && printf '%s\n' *.sh | sed 's/\.sh$//' | sort -V)
  fi
  # So that a benchmark of several goals measures those alone.
  export STRONGROOM_EVIDENCE_IDS=${ids[*]}
  mkdir -p "$results" "$root/target/evidence/logs"
  for id in "${ids[@]}"; do
    # After the measurements of speed, which want the machine for themselves.
    if [ "$id" = R1 ] && [ "$STRONGROOM_EVIDENCE" = quick ] && [[ " ${ids[*]} " = *" R8 "* ]]; then begin_history; fi
    check "$id" || status=1
  done
  if [ "$STRONGROOM_EVIDENCE" = full ]; then
    python3 tests/evidence/table.py page docs/evidence >docs/EVIDENCE.md.new && mv docs/EVIDENCE.md.new docs/EVIDENCE.md || status=1
  fi
  return "$status"
}

# In a quick run, what waits for minutes waits beside the checks before its turn. They make way for it, so that it is as punctual as alone.
begin_history() {
  bash tests/evidence/history.sh begin </dev/null &
  niceness=10
}

# Runs one check, keeps its figures and prints its line.
check() {
  local id=$1 begun=$SECONDS status=0
  local log=$root/target/evidence/logs/$STRONGROOM_EVIDENCE-$id.log
  if [ ! -e "tests/evidence/checks/$id.sh" ]; then
    echo "there is no check $id" >&2
    return 1
  fi
  nice -n "$niceness" bash "tests/evidence/checks/$id.sh" >"$log" 2>&1 </dev/null || status=$?
  {
    echo "commit: $(commit)"
    echo "date: $(date -u +%Y-%m-%d)"
    echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r | cut -d- -f1)"
    echo "counts: $STRONGROOM_EVIDENCE"
    echo "seconds: $((SECONDS - begun))"
    echo "status: $status"
    # A test's name may stand before what it prints on the same line.
    sed -n 's/^.*\(evidence [A-Z][0-9]* | \)/\1/p' "$log"
  } >"$results/$id.txt"
  if ! python3 tests/evidence/table.py line "$results/$id.txt"; then
    echo "---- $id: the end of its log"
    tail -n 40 "$log"
    echo "----"
    return 1
  fi
}

# What was measured: the commit, and whether anything but the results differs from it.
commit() {
  local changed=
  [ -z "$(git status --porcelain -- . ':!docs/evidence' ':!docs/EVIDENCE.md' ':!tests/evidence/runs')" ] || changed=", changed"
  echo "$(git rev-parse --short=9 HEAD)$changed"
}

main "$@"
