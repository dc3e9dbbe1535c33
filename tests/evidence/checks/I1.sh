#!/usr/bin/env bash
# title: Instructions for one block of 4 KiB, counted by callgrind, against those kept in the repository
# goal: none grows by more than 5 %
# measures: instructions to seal, aws-lc; to open, aws-lc; instructions to seal, portable; to open, portable
source "$(dirname "$0")/../common.sh"
command -v valgrind || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends valgrind; }
python3 tests/evidence/instructions.py
