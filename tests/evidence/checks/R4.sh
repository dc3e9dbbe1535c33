#!/usr/bin/env bash
# title: Every bit of a sealed 4 KiB block, of small objects, of records flipped
# goal: all rejected
# measures: flips of a 4 KiB block rejected, Fastest; flips of a 4 KiB block rejected, Portable; flips of three objects of each suite rejected; flips of two records rejected; flips of three records of two KEKs rejected
source "$(dirname "$0")/../common.sh"
cargo_tests --lib r4_ -- --nocapture --test-threads=1
