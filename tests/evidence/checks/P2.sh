#!/usr/bin/env bash
# title: The same, 64 KiB
# goal: >= 0.92 of raw
# measures: share of raw
source "$(dirname "$0")/../common.sh"
bench_rows ratio P2 "" "$ids"
