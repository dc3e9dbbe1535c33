#!/usr/bin/env bash
# title: What a second thread adds, against what it adds to the bare cipher
# goal: >= 0.97
# why: virtual cores of a machine that others share: another machine's figures stand below
# measures: 4 KiB, gain as a share of raw's; 64 KiB, gain as a share of raw's
source "$(dirname "$0")/../common.sh"
bench_rows ratio P5 "" "$ids"
