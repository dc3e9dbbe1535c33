//! What a power cut would take: bytes that were written and not flushed, names that were made and whose directory was not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What the kernel holds in memory only.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    bytes: BTreeSet<PathBuf>,
    names: BTreeSet<PathBuf>,
    /// Files that took another's place before their bytes were flushed: a power cut leaves neither.
    pub(crate) renamed_too_early: usize,
}

/// A call that changes something, once it has succeeded.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Wrote(PathBuf),
    Made(PathBuf),
    Flushed(PathBuf),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

impl Disk {
    pub(crate) fn took(&mut self, change: Change) {
        match change {
            Change::Wrote(path) => drop(self.bytes.insert(path)),
            Change::Made(path) => drop(self.names.insert(path)),
            Change::Flushed(path) => {
                self.names.retain(|name| name.parent() != Some(&path));
                self.bytes.remove(&path);
            }
            Change::Renamed(from, to) => {
                self.renamed_too_early += usize::from(self.bytes.contains(&from));
                if self.bytes.remove(&from) {
                    self.bytes.insert(to.clone());
                } else {
                    self.bytes.remove(&to);
                }
                self.names.remove(&from);
                self.names.insert(to);
            }
            Change::Removed(path) => {
                self.bytes.remove(&path);
                self.names.remove(&path);
            }
        }
    }

    /// Whether `path` is there after a power cut, with its bytes and under its name.
    pub(crate) fn keeps(&self, path: &Path) -> bool {
        !self.bytes.contains(path) && !path.ancestors().any(|part| self.names.contains(part))
    }
}
