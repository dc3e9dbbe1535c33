//! `SealedStore` over stores that behave and stores that do not (contract G1, F3, F4, D11).
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    reason = "tests: helpers unwrap too; sizes of a few MiB; lists of ranges, some of one"
)]

use strongroom::store::{Artifacts, SealedStore, StoreReseal};

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
