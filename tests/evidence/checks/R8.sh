#!/usr/bin/env bash
# title: Staleness after a revocation with a real key service, r = 6 s; reads that race lock()
# goal: max <= J + c + 100 ms; 0 of 10^8 racing reads released whose final check began after lock() had returned
# measures: racing reads; of them begun after lock() had returned; of these released; staleness with OpenBao, s
# open: the stories against OpenBao in tests/kms measure staleness one by one, and are not gathered here yet
source "$(dirname "$0")/../common.sh"
cargo_tests --test contract d5_no_open_that_starts_after -- --nocapture
