//! Envelope encryption for storage engines, under keys that your customer holds and can take away.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod error;
mod id;
mod lease;
pub mod provider;
mod random;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::{Error, ErrorKind, Refusal};
pub use id::{Aad, AccountId, BlockId, Epoch, Generation, ObjectId, Suite};
