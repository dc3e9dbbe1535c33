//! Where things are kept: one file or folder for each kind of store, none importing another.
//!
//! With the feature `object-store`, `SealedStore` encrypts whatever goes through an `object_store`. `docs/STORES.md` is its
//! guide. The feature `object-store-0-13` does so for the version of `object_store` before. With `object-store` and
//! `tokio`, `ObjectRecordStore` keeps account records in an object store.

pub(crate) mod anchored;
pub(crate) mod file;
#[cfg(all(feature = "object-store", feature = "tokio"))]
mod object_records;
#[cfg(feature = "object-store-0-13")]
pub mod object_store_0_13;
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
mod route;
pub(crate) mod scope;
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
mod sealed;
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
mod takeover;
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
mod tenants;
#[cfg(feature = "object-store")]
mod v0_14;

pub use crate::format::scope::ScopeState;
#[cfg(all(feature = "object-store", feature = "tokio"))]
pub use object_records::ObjectRecordStore;
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
pub use route::{Binding, ByPrefix, OneAccount, Route, Router, Routing};
pub use scope::{Accounts, Moved, Scope, ScopeBuilder, ScopeWriter};
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
pub use sealed::artifact::{Artifact, ArtifactInfo, ArtifactVersion};
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
pub use takeover::{TakeoverLimits, TakeoverMark, TakeoverProgress};
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
pub use tenants::ByTenant;
#[cfg(feature = "object-store")]
pub use v0_14::{Artifacts, SealedStore, SealedStoreBuilder, StoreReseal, Takeover};
