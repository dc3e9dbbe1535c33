#!/usr/bin/env bash
# title: Double encryption against ChaCha20-Poly1305 alone
# goal: >= 0.80 at 64 KiB
# measures: share of raw ChaCha20-Poly1305
# why: where AES-GCM takes more than a quarter of ChaCha20-Poly1305's time the two ciphers alone fall short; the benchmark prints what they reach (docs/DESIGN.md, section 12)
source "$(dirname "$0")/../common.sh"
bench_rows ratio P8 "" "$ids"
