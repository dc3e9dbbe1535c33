#!/usr/bin/env bash
# title: Recovery after access returns
# goal: p99 <= r + 1 s
# measures: p99
# open: the check is not written yet; tests/kms measures single stories
source "$(dirname "$0")/../common.sh"
echo "There is no check yet."
