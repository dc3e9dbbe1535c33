#!/usr/bin/env bash
# title: Every history of the lease machine and of two accounts on a keeper, to a depth; thread schedules of snapshot, epoch and guards
# goal: >= 10^6 schedules, 0 violations of an invariant
# measures: moves of a lease from cold; lease states from cold; moves of a lease from later; lease states from later; moves of a lease with a second provider from cold; states of a lease with a second provider from cold; moves of a lease with a second provider from later; states of a lease with a second provider from later; moves of a lease with shares from cold; states of a lease with shares from cold; moves of a lease with shares from later; states of a lease with shares from later; rounds of two accounts; histories of two accounts, all there are; times that an account was looked at; histories of two providers, all there are; thread schedules of one reader, all there are; thread schedules
source "$(dirname "$0")/../common.sh"
cargo_tests --lib lease::tests::explore -- --nocapture
cargo_tests --test contract r7_ -- --nocapture
# Compiled apart: the flag is every crate's.
RUSTFLAGS="--cfg shuttle" cargo_tests --no-default-features --lib schedules \
  --target-dir "${CARGO_TARGET_DIR:-target}/shuttle" -- --nocapture
