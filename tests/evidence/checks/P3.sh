#!/usr/bin/env bash
# title: The same, 1 MiB
# goal: >= 0.985 of raw
# measures: share of raw
source "$(dirname "$0")/../common.sh"
bench_rows ratio P3 "" "$ids"
