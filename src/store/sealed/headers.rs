//! Headers that were proven, so that a range of an object that was read before costs one request (contract F4).
//!
//! An entry is used only for the very object that it was made for: the answer to the request says which one that is.
//! No plaintext and no key is kept. Imports: `object::proven`, `format::object`, `id`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::format::object::Context;
use crate::id::AccountId;
use crate::object::proven::Proven;

/// What tells one version of a stored object from the next, in the store's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) e_tag: Option<String>,
    pub(crate) version: Option<String>,
    /// In microseconds since 1970.
    pub(crate) modified: i64,
    /// Bytes stored.
    pub(crate) size: u64,
}

impl Identity {
    /// Size and time alone may be those of two objects.
    const fn is_certain(&self) -> bool {
        self.e_tag.is_some() || self.version.is_some()
    }
}

/// The headers of the objects that were used last, at most as many as it was told.
pub(crate) struct Headers {
    limit: usize,
    entries: Mutex<Entries>,
}

/// Two halves: the older one is dropped as a whole when the newer one is full.
#[derive(Default)]
struct Entries {
    newer: HashMap<String, Entry>,
    older: HashMap<String, Entry>,
}

struct Entry {
    identity: Identity,
    context: Context,
    proven: Proven,
}

impl Headers {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    /// The header last proven at `path`, for an account that `fits` and this context, and of which object it was.
    pub(crate) fn at(
        &self,
        path: &str,
        fits: impl FnOnce(AccountId) -> bool,
        context: &Context,
    ) -> Option<(Identity, Proven)> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.older.remove(path) {
            entries.insert(path.to_owned(), entry, self.limit);
        }
        let entry = entries.newer.get(path)?;
        if entry.context != *context {
            return None;
        }
        let found = (entry.identity.clone(), entry.proven);
        // Others' locks are not taken under this one.
        drop(entries);
        fits(found.1.info().account).then_some(found)
    }

    pub(crate) fn keep(&self, path: &str, identity: &Identity, context: &Context, proven: Proven) {
        if self.limit == 0 || !identity.is_certain() {
            return;
        }
        let entry = Entry { identity: identity.clone(), context: *context, proven };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.older.remove(path);
        entries.insert(path.to_owned(), entry, self.limit);
    }

    /// For an object under which a frame did not open, or that is gone.
    pub(crate) fn forget(&self, path: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.newer.remove(path);
        entries.older.remove(path);
    }
}

impl Entries {
    fn insert(&mut self, path: String, entry: Entry, limit: usize) {
        if self.newer.len() >= limit.div_ceil(2) && !self.newer.contains_key(&path) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(path, entry);
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").field("limit", &self.limit).finish_non_exhaustive()
    }
}
