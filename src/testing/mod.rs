//! What users link into their own tests: a clock that they move, a provider that answers as
//! scripted, and the conformance suite that any provider runs (feature `testing`).

mod memory_kms;
mod scripted;
pub mod virtual_time;

pub use crate::clock::ManualClock;
pub use scripted::{Answer, Call, CallRecord, ReleaseOnDrop, ScriptedProvider};
