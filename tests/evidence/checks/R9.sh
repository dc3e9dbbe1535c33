#!/usr/bin/env bash
# title: KMS silent: outages with suspends and clock jumps on virtual time, and a proxy that drops, delays, garbles
# goal: unusable by F + G, wiped within one block operation, no exception in 10^6 simulated outages
# measures: simulated outages; of them with suspends; of them with clock jumps; of them in which grace was lived on; longest use, share of F + G; outages through a proxy; accounts in them; of them served in grace; longest use through a proxy, share of F + G; releases past F + G
source "$(dirname "$0")/../common.sh"
source "$(dirname "$0")/../history.sh"
cargo_tests --lib r9_ -- --nocapture
history_figures R9
