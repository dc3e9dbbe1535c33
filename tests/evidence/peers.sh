#!/usr/bin/env bash
# Ours beside what others ship: runs benches/peers, and keeps what it printed and its plot. It is no row of
# docs/EVIDENCE.md: how fast others are is no goal of ours.
#
#   tests/evidence/peers.sh            with all rounds, to docs/evidence/peers.txt and docs/evidence/peers.svg
#   tests/evidence/peers.sh --quick    with a sixteenth of them, to target/evidence/quick
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TERM_COLOR=never
export STRONGROOM_EVIDENCE=full
results=$root/docs/evidence
if [ "${1:-}" = --quick ]; then
  STRONGROOM_EVIDENCE=quick
  results=$root/target/evidence/quick
fi

main() {
  # Before anything is written, so that it tells of what was measured.
  local commit begun=$SECONDS measured
  commit=$(commit)
  install_gocryptfs
  cargo bench --locked --manifest-path benches/peers/Cargo.toml --no-run
  mkdir -p "$results"
  begun=$SECONDS
  measured=$(cargo bench --quiet --locked --manifest-path benches/peers/Cargo.toml -- --plot "$results/peers.svg")
  {
    echo "commit: $commit"
    echo "date: $(date -u +%Y-%m-%d)"
    echo "machine: $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r | cut -d- -f1)"
    echo "counts: $STRONGROOM_EVIDENCE"
    echo "seconds: $((SECONDS - begun))"
    echo
    echo "$measured"
  } >"$results/peers.txt"
  cat "$results/peers.txt"
}

# As tests/evidence.sh has it.
commit() {
  local changed=
  [ -z "$(git status --porcelain -- . ':!docs/evidence' ':!docs/EVIDENCE.md' ':!tests/evidence/runs')" ] || changed=", changed"
  echo "$(git rev-parse --short=9 HEAD)$changed"
}

# The one that is no crate. Without it the rest is measured all the same, and the table says that it is missing.
install_gocryptfs() {
  if ! command -v gocryptfs && command -v apt-get && [ "$(id -u)" -eq 0 ]; then
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends gocryptfs ||
      echo "gocryptfs cannot be installed here"
  fi
}

main
