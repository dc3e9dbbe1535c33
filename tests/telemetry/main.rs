//! What operators are told, and that it is what docs/OPERATIONS.md says (contract H1).
#![cfg(all(feature = "testing", feature = "tracing", feature = "metrics"))]
#![allow(clippy::unwrap_used)]

mod documents;
mod ears;
mod readings;
mod story;
