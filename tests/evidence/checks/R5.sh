#!/usr/bin/env bash
# title: Genuine pieces of blocks, objects and records spliced, reordered, repeated, cut, moved, rolled back or downgraded
# goal: 10^6 tried, 0 accepted
# measures: tried; attack kinds; accepted
source "$(dirname "$0")/../common.sh"
cargo_tests --lib r5_what_is_put_together_from_genuine_pieces_is_refused -- --nocapture
