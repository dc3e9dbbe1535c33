#!/usr/bin/env bash
# title: Project Wycheproof's vectors, on every engine
# goal: all pass, sizes that are not ours are refused
# measures: AES-256-GCM Fastest; AES-256-GCM Portable; HKDF-SHA-256; HMAC-SHA-256; ChaCha20-Poly1305; AES-KW
# open: ChaCha20-Poly1305 comes with the second suite, which is not in the crate yet; AES-KW is done by tokens only, not by us
source "$(dirname "$0")/../common.sh"
cargo_tests --lib r1_ -- --nocapture --test-threads=1
