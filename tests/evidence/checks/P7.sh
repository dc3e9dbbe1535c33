#!/usr/bin/env bash
# title: The portable engine against raw aes-gcm
# goal: >= 0.80 at 4 KiB, >= 0.97 at 64 KiB
# measures: 4 KiB, share of raw aes-gcm; 64 KiB, share of raw aes-gcm
source "$(dirname "$0")/../common.sh"
bench_rows ratio P7 "" "$ids"
