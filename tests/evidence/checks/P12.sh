#!/usr/bin/env bash
# title: Round trips to the KMS, from attaching to the first read and for each refresh, of an account with one custody slot and one generation
# goal: exactly 1 each
# measures: round trips from attach to first read; refreshes in an hour; round trips for each refresh
source "$(dirname "$0")/../common.sh"
bench_rows fleet P12 testing P12
