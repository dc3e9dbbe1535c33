#!/usr/bin/env bash
# title: Staleness after a revocation with a real key service, r = 6 s, with stopped readers and stepped clocks; reads that race lock()
# goal: max <= J + c + 100 ms, F + G for who is stopped or cut off; 0 of 10^8 racing reads released whose final check began after lock() had returned
# measures: racing reads; of them begun after lock() had returned; of these released; revocations seen by undisturbed readers; staleness with OpenBao, s; of readers stopped or cut off, s; stops of readers; steps of wall clocks; logged releases; of them past a bound
source "$(dirname "$0")/../common.sh"
source "$(dirname "$0")/../history.sh"
cargo_tests --test contract d5_no_open_that_starts_after -- --nocapture
history_figures R8
