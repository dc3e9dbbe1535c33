#!/usr/bin/env bash
# title: Mutation testing of what the default build has, with the unit tests; the key services over a network or an HSM are not in it
# goal: >= 95 % caught; in derive, format, lease no survivor that is not explained
# measures: mutants tried; caught, %; caught in derive, format, lease, %; survivors in derive, format, lease without a reason; survivors explained; reasons for what does not survive; files not tried as they are; mutants tried at this commit; of them missed
#
# A full run takes hours, so it can be made in parts: R15_MINUTES=60 ends after an hour and the next one goes on. What is known
# of each file is in tests/evidence/runs/R15.txt and the survivors are in R15-missed.txt beside it; a file is tried anew when its
# code changes. tests/evidence/survivors.txt says of survivors why nothing that they change can be observed. Every run also
# tries some mutants of derive, format and lease at its own commit, quick or full.
#
# The shares are of all mutants that compile, those that are explained among them: what cannot be caught counts as not caught.
source "$(dirname "$0")/../common.sh"
target=${CARGO_TARGET_DIR:-$PWD/target}

cargo mutants --version || cargo install cargo-mutants --locked --version 27.1.0 --root "$target/tools"
if [ "$STRONGROOM_EVIDENCE" = full ]; then
  if [ -n "$(git status --porcelain -- src Cargo.toml Cargo.lock .cargo)" ]; then
    echo "commit first: what is tried is that of a commit"
    exit 1
  fi
  python3 tests/evidence/mutants run "${R15_MINUTES:-100000}"
fi
python3 tests/evidence/mutants figures
python3 tests/evidence/mutants sample "$(by_counts 40 100)"
