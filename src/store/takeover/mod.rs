//! Taking over plaintext, apart from talking to a store: what a person configures and sees of it, and a process's copy of the
//! manifest. Nothing here names a version of anybody's trait. Imports: `format`, `id`, `error`, `store::sealed`.

pub(crate) mod manifest;
pub(crate) mod segment;

use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::format::takeover::MAX_SEGMENTS;
use crate::id::ObjectId;

/// How much of a takeover is done. What counts as sealed is what the manifest no longer lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TakeoverProgress {
    /// Objects that were plaintext when it began.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that the manifest still lists.
    pub objects_left: u64,
    /// Their bytes.
    pub bytes_left: u64,
    /// Objects among those left that could not be sealed, since the process began or last tried again.
    pub failed: u64,
    /// Whether the storage knows that nothing is plaintext any more.
    pub finished: bool,
}

/// How a takeover goes about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct TakeoverLimits {
    pub(crate) batch: usize,
    pub(crate) at_once: usize,
    pub(crate) one_request: u64,
    pub(crate) in_parts: bool,
}

impl TakeoverLimits {
    /// 256 objects in a batch, 8 at once, 64 MiB in one request, larger ones left alone.
    pub const DEFAULT: Self = Self { batch: 256, at_once: 8, one_request: 64 * 1024 * 1024, in_parts: false };

    /// How many objects are sealed before the manifest is written, 1 to 1000: so many at most are looked at again after a
    /// crash, and so many one step seals.
    pub const fn batch(mut self, objects: usize) -> Self {
        self.batch = if objects == 0 { 1 } else { objects };
        self
    }

    /// How many objects are read and written at the same time.
    pub const fn at_once(mut self, objects: usize) -> Self {
        self.at_once = if objects == 0 { 1 } else { objects };
        self
    }

    /// Up to how many bytes an object is replaced by one conditional request, which needs that much memory, once for each object at
    /// a time. Azure takes 5000 MiB, S3 5 GiB.
    pub const fn one_request(mut self, bytes: u64) -> Self {
        self.one_request = bytes;
        self
    }

    /// Has larger objects replaced by an upload in parts, in the memory of a part. No store lets that be conditional, so this is the
    /// word of the caller: **no other process overwrites or deletes such an object meanwhile.** Writes through the same
    /// `SealedStore` may go on; they take turns with it.
    pub const fn large_objects_in_parts(mut self) -> Self {
        self.in_parts = true;
        self
    }
}

impl Default for TakeoverLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How far a manifest had come: what a process keeps where storage cannot reach it, so that its next run notices an older manifest.
///
/// About 8 bytes for each thousand objects. See `docs/FORMAT.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeoverMark {
    pub(crate) takeover: ObjectId,
    pub(crate) root: u64,
    pub(crate) segments: Vec<u64>,
}

impl TakeoverMark {
    /// The longest mark, in bytes.
    pub const MAX_LEN: usize = MARK_HEAD_LEN + 8 * MAX_SEGMENTS as usize;

    /// The bytes to keep.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(MARK_VERSION);
        out.put(self.takeover.as_bytes());
        out.u64(self.root);
        // OK because a manifest has at most MAX_SEGMENTS.
        out.u32(u32::try_from(self.segments.len()).unwrap_or(u32::MAX));
        self.segments.iter().for_each(|version| out.u64(*version));
        out.into_bytes()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != MARK_VERSION {
            return Err(Error::new(ErrorKind::Format, "a mark's version is unknown"));
        }
        let (takeover, root) = (ObjectId::from_bytes(reader.array()?), reader.u64()?);
        let count = reader.u32()?;
        if count > MAX_SEGMENTS {
            return Err(Error::new(ErrorKind::Format, "a mark has more segments than a manifest"));
        }
        let segments = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { takeover, root, segments })
    }
}

/// The folder of a prefix that holds its manifest.
pub(crate) const RESERVED: &str = ".strongroom-takeover";

/// Whether a path belongs to some manifest: it is neither shown nor given to anybody.
pub(crate) fn is_reserved(path: &str) -> bool {
    // Nearly no path has the word, and looking for it is the fastest way to know.
    path.contains(RESERVED) && path.split('/').any(|part| part == RESERVED)
}

pub(crate) fn root_path(prefix: &str) -> String {
    below(prefix, "root")
}

/// The prefix whose manifest `path` belongs to, and the name in it: of the root, or of a segment; `None` for any other path.
pub(crate) fn within_manifest(path: &str) -> Option<(&str, &str)> {
    if let Some(name) = path.strip_prefix(RESERVED).and_then(|rest| rest.strip_prefix('/')) {
        return Some(("", name));
    }
    let (prefix, rest) = path.split_once(&format!("/{RESERVED}/"))?;
    Some((prefix, rest))
}

pub(crate) fn segment_path(prefix: &str, takeover: ObjectId, number: u32) -> String {
    below(prefix, &format!("{takeover}/{number:08}"))
}

fn below(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { format!("{RESERVED}/{name}") } else { format!("{prefix}/{RESERVED}/{name}") }
}

/// `path` and the folders above it, up to the empty one.
pub(crate) fn upwards(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rfind('/') {
        Some(at) => Some(&path[..at]),
        None if path.is_empty() => None,
        None => Some(""),
    })
}

/// Storage showed an older manifest than it did before.
pub(crate) const fn rolled_back() -> Error {
    Error::new(ErrorKind::Untrusted, "the manifest of plaintext was set back: nothing of it is believed")
}

const MARK_VERSION: u8 = 1;
const MARK_HEAD_LEN: usize = 1 + 16 + 8 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f1_a_mark_parses_to_what_was_written() {
        let mark = TakeoverMark { takeover: ObjectId::from_bytes([3; 16]), root: 2, segments: vec![1, 9] };
        let bytes = mark.to_bytes();
        assert_eq!(TakeoverMark::parse(&bytes).unwrap(), mark);
        for len in 0..bytes.len() {
            assert!(TakeoverMark::parse(&bytes[..len]).is_err(), "{len}");
        }
        let mut many = bytes[..MARK_HEAD_LEN].to_vec();
        many[MARK_HEAD_LEN - 4..].copy_from_slice(&(MAX_SEGMENTS + 1).to_be_bytes());
        assert_eq!(TakeoverMark::parse(&many).unwrap_err().kind(), ErrorKind::Format);
    }

    #[test]
    fn folders_are_climbed_and_names_are_whole() {
        assert_eq!(upwards("a/b/c").collect::<Vec<_>>(), ["a/b/c", "a/b", "a", ""]);
        assert_eq!(upwards("").collect::<Vec<_>>(), [""]);
        for (path, reserved) in [
            (".strongroom-takeover/root", true),
            ("a/.strongroom-takeover/x/00000001", true),
            ("a/.strongroom-takeover", true),
            ("a/b.strongroom-takeover", false),
            ("a/.strongroom-takeovers/x", false),
        ] {
            assert_eq!(is_reserved(path), reserved, "{path}");
        }
        assert_eq!(root_path(""), ".strongroom-takeover/root");
        assert_eq!(root_path("a/b"), "a/b/.strongroom-takeover/root");
        for prefix in ["", "a", "a/b"] {
            assert_eq!(within_manifest(&root_path(prefix)), Some((prefix, "root")));
            let id = ObjectId::from_bytes([1; 16]);
            let segment = segment_path(prefix, id, 0);
            assert_eq!(within_manifest(&segment), Some((prefix, &*format!("{id}/00000000"))));
        }
        assert_eq!(within_manifest("x.strongroom-takeover/root"), None);
    }
}
