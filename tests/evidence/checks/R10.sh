#!/usr/bin/env bash
# title: Recovery after access returns, from a refusal or from silence
# goal: p99 <= r + 1 s, r = 6 s
# measures: recoveries; median, s; p99, s; longest, s
source "$(dirname "$0")/../common.sh"
source "$(dirname "$0")/../history.sh"
history_figures R10
