#!/usr/bin/env bash
# title: Project Wycheproof's vectors, on every engine
# goal: all pass, sizes that are not ours are refused
# measures: AES-256-GCM Fastest; AES-256-GCM Portable; ChaCha20-Poly1305 Fastest; ChaCha20-Poly1305 Portable; HKDF-SHA-256; HMAC-SHA-256; AES-KW, SoftHSM; AES-KWP, SoftHSM; AES-KWP, SoftHSM, only unwrapped
source "$(dirname "$0")/../common.sh"
cargo_tests --lib r1_ -- --nocapture --test-threads=1
# Tokens wrap by AES key wrap, we do not. In the profile of the tests, in which the gate has compiled the services' clients already.
tests/kms/install.sh softhsm
log=$(mktemp)
cargo test --locked --manifest-path tests/kms/Cargo.toml --test pkcs11 -- key_wrap:: --nocapture 2>&1 | tee "$log"
grep -q '^test result: ok. 2 passed' "$log"
rm -f "$log"
