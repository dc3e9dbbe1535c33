#!/usr/bin/env bash
# title: Own format vectors, frozen, opened or refused with the error that they name
# goal: >= 300 valid, >= 300 invalid
# measures: valid; invalid
source "$(dirname "$0")/../common.sh"
cargo_tests --lib f1_frozen_vectors -- --nocapture
