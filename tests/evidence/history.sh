# One history of readers against OpenBao serves R8, R9 and R10. It is made once in a run of tests/evidence.sh, which names
# an empty folder for what its checks share; a check that runs alone makes its own. Sourced after common.sh.

# history_figures ID: the figures of one of them. Status 1 of the history says that one misses its goal: the table judges that.
history_figures() {
  local kept=${STRONGROOM_EVIDENCE_RUN:-$(mktemp -d)} status=0
  if [ ! -e "$kept/history" ]; then
    cargo run --locked --release --manifest-path tests/kms/Cargo.toml --no-default-features --features vault \
      --bin history -- "$(by_counts 1 25)" >"$kept/history" 2>&1 || status=$?
    echo "$status" >"$kept/history.status"
  fi
  grep -v "^evidence " "$kept/history" || true
  [ "$(cat "$kept/history.status")" -le 1 ] && grep "^evidence $1 " "$kept/history"
}
