//! The contract of the control plane, line by line: each test's name begins with the id of the line that it shows.
//! Through the public surface only, on virtual time but where real threads are the point.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

mod anchor;
mod bulk;
mod bulk_delete;
mod bulkheads;
mod calls;
mod common;
mod custody;
mod deletion;
mod directory;
mod double;
mod events;
#[path = "../evidence/report.rs"]
mod evidence;
mod fail_either;
mod fail_the_nth;
mod faults;
mod fleet;
mod generations;
mod grace;
mod limits;
mod lock;
mod machines;
mod mistakes;
mod operations;
mod policy;
mod purge;
mod records;
mod reseal;
mod retirement;
mod revocation;
mod rotation;
mod schedule;
mod survival;
mod two_accounts;
mod two_providers;
