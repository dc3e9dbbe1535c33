#!/usr/bin/env bash
# title: A sealed store over one in memory: a streamed read of 64 MiB beside raw opens into fresh 1 MiB chunks; a random 4 KiB range
# goal: >= 0.80 of raw; at most 2 blocks and 1 request when the header is known, 2 requests at the same time when not
# measures: streamed get of 64 MiB, share of raw; warm 4 KiB range, requests at most; blocks at most; cold, requests at the same time
source "$(dirname "$0")/../common.sh"
bench_rows store P10 object-store
