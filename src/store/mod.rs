//! Where things are kept: one file or folder for each kind of store, none importing another.
//!
//! With the feature `object-store`, `SealedStore` encrypts whatever goes through an `object_store`. `docs/STORES.md` is its
//! guide.

pub(crate) mod file;
#[cfg(feature = "object-store")]
mod route;
#[cfg(feature = "object-store")]
mod sealed;
#[cfg(feature = "object-store")]
mod v0_14;

#[cfg(feature = "object-store")]
pub use route::{Binding, ByPrefix, OneAccount, Route, Router, Routing};
#[cfg(feature = "object-store")]
pub use v0_14::{SealedStore, SealedStoreBuilder};
