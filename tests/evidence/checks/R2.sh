#!/usr/bin/env bash
# title: Generated blocks, sealed and opened by both engines and by OpenSSL under keys that Python derived
# goal: 10^7 cases, 0 differences
# measures: cases; differences
source "$(dirname "$0")/../common.sh"
cargo_tests --lib r2_three_implementations_agree -- --nocapture
