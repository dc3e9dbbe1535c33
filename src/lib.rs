//! Envelope encryption for storage engines, under keys that your customer holds and can take away.
//!
//! A storage engine links this crate to keep its customers' data encrypted at rest. The *customer* holds a key-encryption
//! key (KEK) in their own KMS. The KEK wraps one account encryption key (AEK) for each account; this crate caches the
//! AEK for a bounded time, the *lease*, and asks the KMS again every 6 to 60 s. When the KMS **refuses**, the account
//! closes at once: keys are wiped, reads and writes fail with [`ErrorKind::Revoked`]. When the KMS is **silent**,
//! service goes on for a bounded *grace*. When access **returns**, the account recovers by itself.
//!
//! ```
//! use std::sync::Arc;
//! use strongroom::provider::{Kek, KeyOptions, LocalKms};
//! use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ObjectId};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("kms.json");
//!
//! let kms = LocalKms::create(&path)?; // the customer's side: a KMS in one file, and a key in it
//! kms.create_key("orders", KeyOptions::default())?;
//!
//! let cache = AekCache::builder().build()?; // refreshed every 30 s, 30 minutes of grace
//! let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
//! let record = account.record().to_bytes(); // persist it: the wrapped AEK, no secret in the clear
//!
//! let id = BlockId::new(ObjectId::random(), 7);
//! let sealed = account.seal(id, Aad::new(b"tenant-42"), b"hello")?; // a key of its own for each block
//! assert_eq!(account.open(id, Aad::new(b"tenant-42"), &sealed)?, b"hello");
//! # assert!(account.open(BlockId::new(id.object(), 8), Aad::new(b"tenant-42"), &sealed).is_err());
//! # assert!(!record.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where things are
//!
//! | to | see |
//! |---|---|
//! | set up the cache: refresh interval, grace, deadlines | [`AekCache`], [`AekCacheBuilder`], [`OutageGrace`] |
//! | create an account, or attach one by its record | [`AccountSpec`], [`AccountRecord`], [`Expect`], [`RecordStore`] |
//! | notice a record or a record store that was put back | [`AnchoredRecordStore`], [`Anchor`] |
//! | serve many accounts, each attached when it is used | [`Directory`] |
//! | seal and open blocks | [`Account`], and [`Permit`] for the forms without extra copies |
//! | seal and open files | [`SealedObject`] |
//! | move data between a key of yours and a customer's | [`store::Scope`] |
//! | seal an engine's temporary files | [`SpillFile`] |
//! | seal whatever goes through an `object_store` | [`store`] (feature `object-store`) |
//! | wait, lock, ask for the state | [`Account::ready`], [`Account::lock`], [`Status`], [`Pending`] |
//! | drop cached plaintext in time, fence a commit | [`Events`], [`Guarded`], [`Fence`] |
//! | rotate the KEK | [`RotateTo`], [`Retire`] |
//! | rotate the AEK, destroy an old one | [`Account::rotate_aek`], [`Account::destroy_generation`] |
//! | delete an account, recover it, destroy its key | [`Account::delete`], [`Account::recover`], [`Account::purge`], [`AekCache::shred`] |
//! | change the customer's terms | [`Account::set_policy`], [`RecordPolicy`] |
//! | wrap all accounts anew, purge all that are due | [`AekCache::rewrap_all`], [`AekCache::purge_all`] |
//! | run long work that survives a restart | [`Operations`], [`OperationRun`] |
//! | verify all records, mirror them, put one back | [`AekCache::verify_all`], [`AekCache::mirror`], [`AekCache::restore`] |
//! | connect a KMS | [`provider`], [`provider::KeyProvider`], [`provider::preflight`] |
//! | understand a failure | [`Error`], [`ErrorKind`], [`Refusal`] |
//! | test your engine against a KMS that fails | the module `testing` (feature `testing`) |
//!
//! # What to know first
//!
//! - **Sealing and opening never wait.** They do no I/O, take no lock, make no system call. Without a valid lease they
//!   fail at once. Waiting is done by name: [`Account::ready`], [`Account::wait_ready`].
//! - **Revoked is not unavailable.** [`ErrorKind::Revoked`]: the KMS answered and refused. [`ErrorKind::Unavailable`]:
//!   it did not answer, and grace is used up. Both end by themselves once the KMS allows it.
//! - **How late a revocation can be is a formula.** With interval r, `J = min(1.1 r, 60 s)` and call deadline c:
//!   [`AekCache::staleness_bound`] is `J + c`, [`AekCache::fresh_for`] is `F = J + 6 s + c`, and
//!   [`AekCache::usable_for`] is `F + G` with the grace G. Nothing outlives the last.
//! - **No nonce, key or tag appears in the interface.** Each block written gets a key of its own, derived with fresh
//!   randomness; overwriting a block repeats nothing.
//! - **A record is not believed because it is there.** [`Expect`] says which account and which KEK it may name.
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `aws-lc` | yes | AES-256-GCM from `aws-lc-rs`; without it everything is pure Rust, with the same bytes |
//! | `object-store` | no | [`store`]: an `object_store` 0.14 in which everything is sealed; with `tokio`, records in one |
//! | `object-store-0-13` | no | the same for `object_store` 0.13 |
//! | `tracing` | no | spans and events: the module `telemetry` |
//! | `metrics` | no | gauges, counters and histograms: the module `telemetry` |
//! | `testing` | no | a scripted provider, a clock that tests move, stores that fail, conformance suites, a revocation drill |
//!
//! # Reading on
//!
//! In the repository: `README.md`, then `docs/DESIGN.md` for how and why, `docs/FORMAT.md` for every byte that is
//! stored, `docs/PROVIDER.md` for connecting a KMS, `SECURITY.md` for what is protected and what is not.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod atomic_file;
#[cfg(test)]
mod attack_tests;
mod block;
mod cache;
mod change;
mod clock;
mod delete;
mod derive;
#[cfg(test)]
mod differential_tests;
mod engine;
mod error;
#[cfg(test)]
#[path = "../tests/evidence/report.rs"]
mod evidence;
mod expect;
mod format;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod generations;
mod id;
mod keeper;
mod lease;
mod object;
mod operation;
pub mod provider;
#[cfg(test)]
#[path = "../tests/independent/python.rs"]
mod python;
mod random;
mod record_store;
mod reseal;
mod rotate;
#[cfg(feature = "tokio")]
mod runtime;
mod secret;
#[cfg(test)]
mod shown_tests;
pub mod store;
#[cfg(any(feature = "tracing", feature = "metrics"))]
pub mod telemetry;
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
pub use account::usage::{GenerationUse, LimitWarning};
pub use block::MAX_AAD;
pub use cache::{
    AccountSpec, AekCache, AekCacheBuilder, CacheStats, CheckedRecord, DeleteReport, DestroyForGood,
    Directory, DirectoryBuilder, KekNeed, MirrorReport, PurgeReport, RecordCheck, RestoreSpec, Restored,
    Retirement, RewrapReport, VerifyAll, VerifyReport, WhichRecord,
};
pub use delete::{Deletion, Retention};
pub use derive::Kind;
pub use engine::Engine;
pub use error::{Error, ErrorKind, Refusal};
pub use expect::Expect;
pub use format::frame::{Detached, FrameInfo, MAX_BLOCK, peek, sealed_len};
pub use format::object::{BlockSize, Context, ObjectInfo};
pub use format::operation::{OperationKind, OperationProgress, OperationStatus};
pub use format::policy::{GenerationLimits, RecordPolicy, VersionPolicy};
pub use format::record::{AccountRecord, KeyFingerprint, Sequence};
pub use generations::{AekRotation, NothingRefersToIt};
pub use id::{
    Aad, AccountId, BlockId, Epoch, Generation, ObjectId, OperationId, OperationTarget, ScopeId, Suite,
};
pub use keeper::Pending;
pub use object::{
    ObjectLen, ObjectOptions, ObjectReader, ObjectWriter, ReadAt, SealedObject, SpillFile, SpillWriter,
};
pub use operation::{Operation, OperationRun, Operations};
pub use record_store::archive::{
    DEFAULT_HISTORY, KeptRecord, LISTED_AT_ONCE, Listed, RecordArchive, RecordCursor,
};
pub use record_store::{Loaded, MemoryRecordStore, RecordStore, RecordTag};
pub use reseal::{Reseal, ResealItems, ResealLimits, ResealStep, Resealed};
pub use rotate::{Retire, RotateTo};
pub use secret::{MemoryLock, Protections};
pub use store::anchored::{Anchor, AnchoredRecordStore, StoredAnchor};
pub use store::file::FileRecordStore;

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;

/// The guide for providers compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../docs/PROVIDER.md")]
struct ProviderDoctests;

/// The page of key services compiles.
#[cfg(all(doctest, feature = "vault", feature = "aws-kms", feature = "azure-keyvault", feature = "pkcs11"))]
#[doc = include_str!("../docs/PROVIDERS.md")]
struct ProvidersDoctests;

/// The page of stores compiles.
#[cfg(all(doctest, feature = "object-store"))]
#[doc = include_str!("../docs/STORES.md")]
struct StoresDoctests;
