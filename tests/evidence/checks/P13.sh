#!/usr/bin/env bash
# title: Noisy neighbours: 5,000 accounts at 20 authorities, 8 of which hang for ever, healthy calls of 15 ms, 32 threads, no grace, virtual time
# goal: 0 failed operations on healthy accounts in 30 minutes, r = 6 s and 60 s
# measures: failed on healthy accounts, r = 6 s; dark accounts closed, r = 6 s; minutes, r = 6 s; failed on healthy accounts, r = 60 s; dark accounts closed, r = 60 s; minutes, r = 60 s
source "$(dirname "$0")/../common.sh"
bench_rows fleet P13 testing
