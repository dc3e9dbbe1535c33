#!/usr/bin/env bash
# title: Mutation testing of what the default build has; not the sealed stores, nor the key services over a network or an HSM
# goal: >= 95 % caught; 100 % in derive, format, lease but for what is explained to change nothing
# why: the files that are left are tried in parts, derive, format and lease first
# measures: mutants tried; caught, %; caught in derive, format, lease, %; the same but for what is explained, %; survivors in derive, format, lease without a reason; survivors explained; reasons for what does not survive; files not tried as they are; mutants tried at this commit; of them missed
#
# A full run takes hours, so it can be made in parts: R15_MINUTES=60 ends after an hour and the next one goes on, also on another
# machine. What is known of each file is in tests/evidence/runs/R15.txt, the survivors are in R15-missed.txt beside it, and what was tried
# of files that are not done in R15-begun.txt; a file is tried anew when its code changes, and what survived without a reason is tried
# again by every full run. tests/evidence/survivors.txt says of survivors why nothing that they change can be observed. Every run,
# quick or full, also tries some mutants of derive, format and lease at its own commit.
#
# A full run wants every file tried as it is. A quick one judges what is known, so that a change can land before its file is
# tried again. The shares are of all mutants that compile, what is explained among them, where they do not say otherwise.
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
python3 tests/evidence/mutants sample "$(by_counts 20 100)"
