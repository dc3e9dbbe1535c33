//! Sealed stores of `object_store` 0.14 over real servers.

use strongroom::store::{Artifacts, SealedStore};
use strongroom_stores_tests::{azurite_store, s3_store};

mod suite;
