#!/usr/bin/env bash
# title: Staleness after a revocation, with a real key service, r = 6 s
# goal: max <= J + c + 100 ms; 0 of 10^8 racing reads released whose final check began after lock() had returned
# measures: racing reads
# open: the check is not written yet; tests/kms measures single stories against OpenBao, tests/threads.rs races reads in small numbers
source "$(dirname "$0")/../common.sh"
echo "There is no check yet."
