//! What the checks of this workspace share.

/// How a figure is handed to `tests/evidence.sh`.
#[path = "../report.rs"]
pub mod report;

pub mod counting;
pub mod fork;
pub mod leak;
