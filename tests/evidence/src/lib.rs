//! What the checks of this workspace share.

/// How a figure is handed to `tests/evidence.sh`.
#[path = "../report.rs"]
pub mod report;

pub mod counting;
pub mod fork;
pub mod leak;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod tracer;
