//! The tests of `main.rs` over `object_store` 0.13. Everything that says `object_store` here means that.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "tests: helpers unwrap too; sizes of a few MiB; lists of ranges, some of one"
)]

extern crate object_store_0_13 as object_store;

use strongroom::store::object_store_0_13::{Artifacts, SealedStore, StoreReseal};

mod acknowledged;
mod artifacts;
mod conformance;
mod copies;
mod deletions;
mod directory;
#[path = "../evidence/report.rs"]
mod evidence;
mod faults;
mod haunted;
mod hostile;
mod model;
mod requests;
mod reseal;
mod scope_world;
mod scopes;
mod scopes_under_load;
mod takeover;
mod takeover_attacks;
mod takeover_model;
mod tenants;
mod uploads;
mod world;
