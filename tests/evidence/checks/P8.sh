#!/usr/bin/env bash
# title: Double encryption against ChaCha20-Poly1305 alone
# goal: >= 0.80 at 64 KiB
# measures: share of raw ChaCha20-Poly1305
source "$(dirname "$0")/../common.sh"
bench_rows ratio P8
