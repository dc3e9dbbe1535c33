#!/usr/bin/env bash
# title: The Nth call of the KMS, of the record store, of a sealed object's sink or source, of the store under a sealed one, and the Nth system call on files fails, for every N
# goal: 0 silent corruption, 0 lost acknowledged writes
# measures: provider calls failed; provider calls that hung or came too late; record store calls failed; calls of two providers failed; record store calls failed under two KEKs; writes of objects failed; reads of objects failed or cut short; object store calls failed; crashes of a takeover; system calls on files in the lives; calls failed with EIO; calls failed with ENOSPC; calls done and reported as failed; short reads and writes; torn writes; kills between two calls; planned faults that did not strike; outcomes that a fresh process verified; silent corruptions; lost acknowledged writes; acknowledged or renamed before it was flushed; lives and next writers that did not recover
#
# Providers and stores are failed within a process, on virtual time, and a loss there fails the test; system calls are failed under
# a real process, and what is lost is counted.
source "$(dirname "$0")/../common.sh"
export RUST_BACKTRACE=0
cargo_tests --lib --test contract --test object_store -- r14_ --nocapture
cargo run --locked --release --manifest-path tests/evidence/Cargo.toml --bin fail_the_nth
