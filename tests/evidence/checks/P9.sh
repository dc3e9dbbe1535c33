#!/usr/bin/env bash
# title: A sealed object in memory, written and read through, against its blocks one by one; the worst of five block sizes
# goal: >= 0.85
# why: the sealed bytes are copied to the sink, which costs most where memory is slow and blocks are large; another machine's figures stand below
# measures: write, share of the blocks'; read, share of the blocks'
source "$(dirname "$0")/../common.sh"
bench_rows object P9
