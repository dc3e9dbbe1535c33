#!/usr/bin/env bash
# title: R, which makes each write's key and nonce its own, over forks, kills and restarts that seal the same places
# goal: 10^8 seals, 0 repeats, also when the clock's share is left out
# measures: seals of the same places; by processes forked from a state that others go on from; by processes killed or started again; repeats of R; repeats but for the clock
source "$(dirname "$0")/../common.sh"
cargo run --locked --release --manifest-path tests/evidence/Cargo.toml --bin uniqueness -- "$(by_counts 5000000 100000000)"
