#!/usr/bin/env bash
# title: KMS silent: dropped, delayed, garbled
# goal: unusable by F + G, wiped within one block operation, no exception in 10^6 simulated outages with suspends and clock jumps
# measures: simulated outages
# open: the check is not written yet; tests/kms measures single stories through a proxy
source "$(dirname "$0")/../common.sh"
echo "There is no check yet."
