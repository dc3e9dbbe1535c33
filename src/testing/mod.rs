//! What users link into their own tests: a clock that they move, a provider that answers as
//! scripted, and the conformance suite that any provider runs (feature `testing`).

pub use crate::clock::ManualClock;

mod unmanaged;
pub use unmanaged::UnmanagedAccount;
