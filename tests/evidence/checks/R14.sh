#!/usr/bin/env bash
# title: The Nth provider, store and file operation fails, for every N
# goal: 0 silent corruption, 0 lost acknowledged writes
# measures: operations failed
# open: the check is not written yet; tests fail each operation of rotation and creation, not yet each system call
source "$(dirname "$0")/../common.sh"
echo "There is no check yet."
