//! The tests of `main.rs` over `object_store` 0.13. Everything that says `object_store` here means that.

extern crate object_store_0_13 as object_store;

use strongroom::store::object_store_0_13::{Artifacts, SealedStore};
use strongroom_stores_tests::v0_13::{azurite_store, s3_store};

mod suite;
