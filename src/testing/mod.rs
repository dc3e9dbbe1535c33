//! What users link into their own tests: clocks that they move, a provider that answers as
//! scripted, stores that fail, the conformance suites that any provider and any record store runs, and a revocation drill for
//! storage engines (feature `testing`).

pub mod conformance;
mod drill;
#[cfg(feature = "object-store")]
mod faulty_objects;
mod faulty_records;
mod memory_kms;
pub mod record_stores;
mod script;
mod scripted;
pub mod virtual_time;

pub use crate::clock::{ManualClock, SteppedWall};
pub use drill::{DrillEngine, DrillFailure, DrillReport, DrillStep, RevocationDrill};
#[cfg(feature = "object-store")]
pub use faulty_objects::{FaultyObjectStore, ObjectCall, ObjectFault};
pub use faulty_records::{FaultyRecordStore, StoreFault};
pub use script::{Answer, Call};
pub use scripted::{CallRecord, ReleaseOnDrop, ScriptedProvider};
