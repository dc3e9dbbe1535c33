//! Envelope encryption for storage engines, under keys that your customer holds and can take away.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod atomic_file;
mod block;
mod cache;
mod clock;
mod derive;
mod engine;
mod error;
mod expect;
mod format;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod keeper;
mod lease;
mod object;
pub mod provider;
mod random;
mod record_store;
mod rotate;
mod secret;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod wycheproof_tests;

pub use account::Account;
pub use account::batch::{OpenJob, SealJob};
pub use account::events::{Events, Transition};
pub use account::guard::{Fence, Guarded};
pub use account::permit::Permit;
pub use account::settings::{OutageGrace, RefreshWindow};
pub use account::state::{Status, UnavailableCause};
pub use block::MAX_AAD;
pub use cache::{AccountSpec, AekCache, AekCacheBuilder, CacheStats};
pub use derive::Kind;
pub use engine::Engine;
pub use error::{Error, ErrorKind, Refusal};
pub use expect::Expect;
pub use format::frame::{Detached, FrameInfo, MAX_BLOCK, peek, sealed_len};
pub use format::object::{BlockSize, Context, ObjectInfo};
pub use format::policy::{GenerationLimits, RecordPolicy, VersionPolicy};
pub use format::record::{AccountRecord, KeyFingerprint, Sequence};
pub use id::{Aad, AccountId, BlockId, Epoch, Generation, ObjectId, Suite};
pub use keeper::Pending;
pub use object::{ObjectLen, ObjectOptions, ObjectReader, ObjectWriter, ReadAt, SealedObject};
pub use record_store::{Loaded, MemoryRecordStore, RecordStore, RecordTag};
pub use rotate::{Retire, RotateTo};
pub use secret::{MemoryLock, Protections};
pub use store::file::FileRecordStore;
