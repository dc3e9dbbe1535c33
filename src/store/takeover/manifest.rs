//! A manifest as this process has it: which segment a path is in, and what is left. Imports: `format::takeover`, `id`, `error`,
//! `store::takeover`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::segment::{Segment, Write};
use super::{TakeoverMark, TakeoverProgress, rolled_back};
use crate::error::{Error, ErrorKind};
use crate::format::takeover::{Entry, Root, RootState};
use crate::id::ObjectId;
use crate::store::sealed::headers::Identity;

/// The plaintext under one prefix. About 200 bytes for each object, and its path.
pub(crate) struct Manifest {
    prefix: String,
    root: Mutex<Root>,
    segments: Vec<Segment>,
    /// The first path of each segment that lists any, and which segment it is.
    firsts: Vec<(Box<str>, usize)>,
    /// Why objects could not be sealed; of more than [`MAX_FAILURES`] only the first ones'.
    failures: Mutex<BTreeMap<String, Error>>,
}

impl Manifest {
    /// # Errors
    /// - [`ErrorKind::Format`]: segments that overlap, or have a path of another prefix
    /// - [`ErrorKind::Untrusted`]: older than `mark`
    pub(crate) fn new(
        prefix: &str,
        root: Root,
        segments: Vec<Segment>,
        mark: Option<&TakeoverMark>,
    ) -> Result<Self, Error> {
        let mut firsts: Vec<(Box<str>, usize)> = Vec::new();
        let mut before: Option<Box<str>> = None;
        for (at, segment) in segments.iter().enumerate() {
            let (Some(first), Some(last)) = (segment.first(), segment.last()) else { continue };
            let ordered = before.is_none_or(|before| before < first);
            if !ordered || !is_below(prefix, &first) || !is_below(prefix, &last) {
                return Err(Error::new(ErrorKind::Format, "a manifest's segments do not fit together"));
            }
            firsts.push((first, at));
            before = Some(last);
        }
        let manifest = Self {
            prefix: prefix.to_owned(),
            root: Mutex::new(root),
            segments,
            firsts,
            failures: Mutex::default(),
        };
        match mark {
            Some(mark) if !manifest.mark().reaches(mark) => Err(rolled_back()),
            _ => Ok(manifest),
        }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn takeover(&self) -> ObjectId {
        self.root().takeover
    }

    pub(crate) fn root(&self) -> Root {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// [`ErrorKind::Untrusted`] for a root that does not follow ours.
    pub(crate) fn set_root(&self, root: Root) -> Result<(), Error> {
        let mut ours = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        let same = *ours == root;
        if !same && (root.takeover != ours.takeover || root.version <= ours.version) {
            return Err(rolled_back());
        }
        *ours = root;
        Ok(())
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segment that lists `path`, or none does.
    pub(crate) fn segment_of(&self, path: &str) -> Option<&Segment> {
        let at = self.firsts.partition_point(|(first, _)| **first <= *path).checked_sub(1)?;
        self.segments.get(self.firsts[at].1)
    }

    pub(crate) fn plain(&self, path: &str) -> Option<Entry> {
        self.segment_of(path)?.plain(path)
    }

    pub(crate) fn listed(&self, path: &str, identity: &Identity) -> bool {
        self.segment_of(path).is_some_and(|segment| segment.listed(path, identity))
    }

    pub(crate) fn begin_write(&self, path: &str) -> Write {
        self.segment_of(path).map_or(Write::NotListed, |segment| segment.begin_write(path))
    }

    pub(crate) fn end_write(&self, path: &str) {
        if let Some(segment) = self.segment_of(path) {
            segment.end_write(path);
        }
    }

    pub(crate) fn progress(&self) -> TakeoverProgress {
        let root = self.root();
        let mut progress = TakeoverProgress {
            objects: root.objects,
            bytes: root.bytes,
            objects_left: 0,
            bytes_left: 0,
            failed: 0,
            finished: root.state == RootState::Finished,
        };
        for segment in &self.segments {
            let (objects, bytes) = segment.left();
            progress.objects_left += objects;
            progress.bytes_left = progress.bytes_left.saturating_add(bytes);
        }
        if self.has_failures() {
            progress.failed = self.segments.iter().map(Segment::failed).sum();
        }
        progress
    }

    pub(crate) fn mark(&self) -> TakeoverMark {
        let Root { takeover, version, .. } = self.root();
        TakeoverMark {
            takeover,
            root: version,
            segments: self.segments.iter().map(Segment::version).collect(),
        }
    }

    pub(crate) fn fail(&self, segment: &Segment, path: &str, error: Error) {
        segment.set_failed(path, true);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < MAX_FAILURES {
            failures.insert(path.to_owned(), error);
        }
    }

    pub(crate) fn failures(&self) -> Vec<(String, Error)> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().map(|(path, error)| (path.clone(), error.clone())).collect()
    }

    pub(crate) fn forget_failures(&self) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.segments.iter().for_each(Segment::forget_failures);
    }

    fn has_failures(&self) -> bool {
        !self.failures.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl TakeoverMark {
    /// Whether this is of the same takeover, and nowhere behind the other. Of a finished one no segment is read.
    fn reaches(&self, least: &Self) -> bool {
        let Self { takeover, root, segments } = self;
        let behind = segments.iter().zip(&least.segments).any(|(ours, least)| ours < least);
        let as_many =
            segments.is_empty() || segments.len() == least.segments.len() || least.segments.is_empty();
        *takeover == least.takeover && *root >= least.root && as_many && !behind
    }
}

pub(crate) fn is_below(prefix: &str, path: &str) -> bool {
    prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

const MAX_FAILURES: usize = 1000;
