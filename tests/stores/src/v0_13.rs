//! The stores in the servers that are started here, of `object_store` 0.13.

use ::object_store_0_13 as upstream;

#[expect(clippy::duplicate_mod, reason = "the same clients of either version")]
#[path = "clients.rs"]
mod clients;

pub use clients::{azurite_store, s3_store};
