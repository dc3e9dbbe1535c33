#!/usr/bin/env bash
# title: Seal and open a 4 KiB block with all that belongs to it, against the bare cipher
# goal: >= 0.52 of raw one by one, >= 0.55 in a batch
# why: it depends on the processor: another machine's figures stand below, and docs/DESIGN.md, section 12, has the parts
# measures: one by one, share of raw; in a batch, share of raw
source "$(dirname "$0")/../common.sh"
bench_rows ratio P1 "" "$ids"
