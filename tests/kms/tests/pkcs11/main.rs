//! PKCS#11 against SoftHSM: each test in a process of its own, with a token of its own.

mod answers;
mod conformance;
#[path = "../../../evidence/report.rs"]
mod evidence;
mod key_wrap;
mod life;
#[cfg(target_os = "linux")]
mod residue;
mod service;
mod setup;
mod world;
