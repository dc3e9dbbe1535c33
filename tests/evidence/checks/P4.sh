#!/usr/bin/env bash
# title: Nanoseconds over the bare cipher for each 4 KiB block
# goal: <= 285 one by one, <= 240 in a batch
# measures: ns over raw, one by one; ns over raw, in a batch
# why: what a fresh key costs in the crates that do it takes most of it on this machine; docs/DESIGN.md, section 12, has the parts
source "$(dirname "$0")/../common.sh"
bench_rows ratio P4 "" "$ids"
