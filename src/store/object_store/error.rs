//! Our failures as `object_store`'s. Imports: `error`, the layer.

use std::error::Error as StdError;

use super::upstream;
use crate::error::{Error, ErrorKind};

/// Ours inside of theirs: `strongroom::Error::find` digs it out.
pub(super) fn ours(error: Error) -> upstream::Error {
    generic(error)
}

pub(super) fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> upstream::Error {
    upstream::Error::Generic { store: STORE, source: source.into() }
}

/// What a route of `Deny` answers.
pub(super) fn denied(path: &str) -> upstream::Error {
    let source = Error::new(ErrorKind::Misuse, "the router denies this path");
    upstream::Error::PermissionDenied { path: path.to_owned(), source: source.into() }
}

/// What a path of some takeover's manifest answers.
pub(super) fn reserved(path: &str) -> upstream::Error {
    let source = Error::new(ErrorKind::Misuse, "this path is reserved for the manifest of a takeover");
    upstream::Error::PermissionDenied { path: path.to_owned(), source: source.into() }
}

pub(super) const STORE: &str = "SealedStore";
