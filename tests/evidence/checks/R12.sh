#!/usr/bin/env bash
# title: Key residue in process memory after a revocation, searched by a parent that alone knows the needles
# goal: 0 hits over both engines, debug and release; the positive control hits every time
# measures: needles searched, Fastest Blocking release; hits after revocation, Fastest Blocking release; needles searched, Portable Blocking release; hits after revocation, Portable Blocking release; needles searched, Fastest Blocking debug; hits after revocation, Fastest Blocking debug; needles searched, Portable Blocking debug; hits after revocation, Portable Blocking debug; needles searched, Fastest Blocking double release; hits after revocation, Fastest Blocking double release; needles searched, Portable Blocking double release; hits after revocation, Portable Blocking double release; needles searched, Fastest Blocking double debug; hits after revocation, Fastest Blocking double debug; needles searched, Portable Blocking double debug; hits after revocation, Portable Blocking double debug
source "$(dirname "$0")/../common.sh"
# A control that hits nothing fails the test.
cargo_tests --test residue -- --nocapture --test-threads=1
# Debug throughout: the profile of the tests optimises the crates of cryptography.
cargo test --locked --profile dev --features testing,object-store,object-store-0-13 --test residue -- --nocapture --test-threads=1
