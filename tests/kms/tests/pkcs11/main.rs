//! PKCS#11 against SoftHSM: each test in a process of its own, with a token of its own.

mod answers;
mod conformance;
mod life;
mod service;
mod setup;
mod world;
