#!/usr/bin/env bash
# title: The portable engine against raw aes-gcm
# goal: >= 0.80 at 4 KiB, >= 0.97 at 64 KiB
# why: the stack is washed of what aes-gcm leaves on it (docs/DESIGN.md, section 10), and it depends on the processor: another machine's figures stand below
# measures: 4 KiB, share of raw aes-gcm; 64 KiB, share of raw aes-gcm
source "$(dirname "$0")/../common.sh"
bench_rows ratio P7 "" "$ids"
