# One history of readers against OpenBao serves R8, R9 and R10. It is made once in a run of tests/evidence.sh, which names
# an empty folder for what its checks share; a check that runs alone makes its own. Sourced after common.sh.
#
# Run with the word `begin`, this makes the history of a run while other checks of it go on: it mostly waits for a clock.

# make_history FOLDER: status 1 says that a figure misses its goal: the table judges that.
make_history() {
  local status=0
  : >"$1/history.begun"
  cargo run --locked --release --manifest-path tests/kms/Cargo.toml --no-default-features --features vault \
    --bin history -- "$(by_counts 1 25)" >"$1/history" 2>&1 || status=$?
  echo "$status" >"$1/history.status"
}

# history_figures ID: the figures of one of them.
history_figures() {
  local kept=${STRONGROOM_EVIDENCE_RUN:-$(mktemp -d)} waited=0
  [ -e "$kept/history.begun" ] || make_history "$kept"
  while [ ! -e "$kept/history.status" ] && [ "$waited" -lt 600 ]; do
    sleep 1
    waited=$((waited + 1))
  done
  grep -v "^evidence " "$kept/history" || true
  [ "$(cat "$kept/history.status")" -le 1 ] && grep "^evidence $1 " "$kept/history"
}

if [ "${1:-}" = begin ]; then
  source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
  make_history "$STRONGROOM_EVIDENCE_RUN"
fi
