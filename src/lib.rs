//! Envelope encryption for storage engines, under keys that your customer holds and can take away.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod account;
mod block;
mod clock;
mod derive;
mod engine;
mod error;
mod format;
mod id;
mod object;
pub mod provider;
mod random;
mod secret;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use account::batch::{OpenJob, SealJob};
pub use account::permit::Permit;
pub use account::state::{Status, UnavailableCause};
pub use block::MAX_AAD;
pub use derive::Kind;
pub use engine::Engine;
pub use error::{Error, ErrorKind, Refusal};
pub use format::frame::{Detached, FrameInfo, MAX_BLOCK, peek, sealed_len};
pub use format::object::{BlockSize, Context, ObjectInfo};
pub use id::{Aad, AccountId, BlockId, Epoch, Generation, ObjectId, Suite};
pub use object::{ObjectLen, ObjectOptions, ObjectReader, ObjectWriter, ReadAt, SealedObject};
pub use secret::{MemoryLock, Protections};
