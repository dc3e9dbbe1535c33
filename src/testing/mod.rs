//! What users link into their own tests: clocks that they move, a provider that answers as
//! scripted, and the conformance suites that any provider and any record store runs (feature `testing`).

pub mod conformance;
mod memory_kms;
pub mod record_stores;
mod script;
mod scripted;
pub mod virtual_time;

pub use crate::clock::{ManualClock, SteppedWall};
pub use script::{Answer, Call};
pub use scripted::{CallRecord, ReleaseOnDrop, ScriptedProvider};
