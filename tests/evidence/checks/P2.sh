#!/usr/bin/env bash
# title: The same, 64 KiB
# goal: >= 0.92 of raw
# why: it depends on the processor: another machine's figures stand below, and docs/DESIGN.md, section 12, has the parts
# measures: share of raw
source "$(dirname "$0")/../common.sh"
bench_rows ratio P2 "" "$ids"
