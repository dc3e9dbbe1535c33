#!/usr/bin/env bash
# title: A fleet in one process, r = 30 s, at one KMS and at a KMS for each account, which answer in 1 ms; and under a cap on calls
# goal: 100,000 accounts: <= 2 KiB each, all refreshed within 60 s when all are due at once, <= 5 % of a core; 0 calls over the cap; too low a cap refused
# measures: accounts at one KMS; bytes for each, one KMS; seconds for all, one KMS; % of a core for 100,000, one KMS; accounts at a KMS each; bytes for each, a KMS each; seconds for all, a KMS each; % of a core for 100,000, a KMS each; calls over the cap; failed under the cap; refreshes that the cap put off; refused by half the cap
source "$(dirname "$0")/../common.sh"
bench_rows fleet P11 testing P11
