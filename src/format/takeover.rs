//! The manifest of a takeover: which objects under a prefix are still plaintext. Its bytes are the plaintext of sealed objects
//! with contexts of their own, so what is parsed here was proven before. Imports: `format::codec`, `format::object`, `id`, `error`.

use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::format::object::Context;
use crate::id::ObjectId;

/// The one object that says whether a takeover has begun, and of how many segments its manifest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Drawn by each attempt to begin, so that no segment of another attempt fits.
    pub(crate) takeover: ObjectId,
    /// Counts the changes of the root; not zero.
    pub(crate) version: u64,
    pub(crate) state: RootState,
    pub(crate) segments: u32,
    /// What was plaintext when it began.
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootState {
    /// Segments are being written. Nothing is taken for plaintext.
    Beginning,
    UnderWay,
    /// Nothing is plaintext any more.
    Finished,
}

/// A part of the manifest that is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentBody {
    /// Counts the changes of the segment; not zero.
    pub(crate) version: u64,
    /// In ascending order of their paths, each path once.
    pub(crate) entries: Vec<Entry>,
}

/// An object that was plaintext when the takeover began: its path, and what told it from every other object there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Box<str>,
    pub(crate) size: u64,
    /// In seconds since 1970: a listing may tell more, an answer does not.
    pub(crate) modified: u64,
    /// The entity tag without the quotation marks around it, which some listings leave out.
    pub(crate) e_tag: Box<str>,
    /// Where the listing tells one.
    pub(crate) version: Option<Box<str>>,
}

impl Root {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let Self { takeover, version, state, segments, objects, bytes } = self;
        let mut out = Writer::default();
        out.u8(VERSION);
        out.put(takeover.as_bytes());
        out.u64(version);
        out.u8(match state {
            RootState::Beginning => 1,
            RootState::UnderWay => 2,
            RootState::Finished => 3,
        });
        out.u32(segments);
        out.u64(objects);
        out.u64(bytes);
        out.into_bytes()
    }

    /// # Errors
    /// [`ErrorKind::Format`] for whatever [`Self::to_bytes`] does not write.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader)?;
        let takeover = ObjectId::from_bytes(reader.array()?);
        let version = not_zero(reader.u64()?)?;
        let state = match reader.u8()? {
            1 => RootState::Beginning,
            2 => RootState::UnderWay,
            3 => RootState::Finished,
            _ => return Err(Error::new(ErrorKind::Format, "a takeover's state is unknown")),
        };
        let (segments, objects, bytes) = (reader.u32()?, reader.u64()?, reader.u64()?);
        reader.finish()?;
        if segments > MAX_SEGMENTS || objects > MAX_OBJECTS {
            return Err(Error::new(ErrorKind::Format, "a takeover is above its limits"));
        }
        Ok(Self { takeover, version, state, segments, objects, bytes })
    }
}

impl SegmentBody {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u64(self.version);
        out.u16(u16::try_from(self.entries.len()).expect("a segment has at most MAX_SEGMENT_ENTRIES"));
        for Entry { path, size, modified, e_tag, version } in &self.entries {
            out.prefixed(path.as_bytes());
            out.u64(*size);
            out.u64(*modified);
            out.prefixed(e_tag.as_bytes());
            out.flag(version.is_some());
            if let Some(version) = version {
                out.prefixed(version.as_bytes());
            }
        }
        out.into_bytes()
    }

    /// # Errors
    /// [`ErrorKind::Format`] for whatever [`Self::to_bytes`] does not write.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_SEGMENT_LEN {
            return Err(Error::new(ErrorKind::Format, "a segment is above its limit"));
        }
        let mut reader = Reader::new(bytes);
        check_version(&mut reader)?;
        let version = not_zero(reader.u64()?)?;
        let count = usize::from(reader.u16()?);
        if count > MAX_SEGMENT_ENTRIES {
            return Err(Error::new(ErrorKind::Format, "a segment has more entries than its limit"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = Entry::read(&mut reader)?;
            if entries.last().is_some_and(|before| before.path >= entry.path) {
                return Err(Error::new(ErrorKind::Format, "a segment's entries are not in order"));
            }
            entries.push(entry);
        }
        reader.finish()?;
        Ok(Self { version, entries })
    }
}

impl Entry {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let path = reader.prefixed_text(MAX_PATH_LEN)?.into();
        let (size, modified) = (reader.u64()?, reader.u64()?);
        let e_tag = reader.prefixed_text(MAX_TAG_LEN)?.into();
        let version = match reader.flag()? {
            true => Some(reader.prefixed_text(MAX_TAG_LEN)?.into()),
            false => None,
        };
        Ok(Self { path, size, modified, e_tag, version })
    }

    /// How many bytes it takes in a segment.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] for texts that are empty or too long for a manifest.
    pub(crate) fn encoded_len(&self) -> Result<usize, Error> {
        let Self { path, size: _, modified: _, e_tag, version } = self;
        let texts = [(Some(path), MAX_PATH_LEN), (Some(e_tag), MAX_TAG_LEN), (version.as_ref(), MAX_TAG_LEN)];
        let mut len = 2 * size_of::<u64>() + 1;
        for (text, limit) in texts.into_iter().filter_map(|(text, limit)| Some((text?, limit))) {
            if text.is_empty() || text.len() > limit {
                let message = "an object's path, entity tag or version is empty or too long for a manifest";
                return Err(Error::new(ErrorKind::Limit, message).with_detail(&**path));
            }
            len += size_of::<u16>() + text.len();
        }
        Ok(len)
    }
}

/// Cuts entries, which are in ascending order of their paths, into segments within the limits.
///
/// # Errors
/// [`ErrorKind::Limit`] for an entry that none takes, or more of them than a manifest has.
pub(crate) fn cut(entries: Vec<Entry>) -> Result<Vec<SegmentBody>, Error> {
    if entries.len() as u64 > MAX_OBJECTS {
        return Err(too_many());
    }
    let mut segments: Vec<SegmentBody> = Vec::new();
    let mut room = 0;
    for entry in entries {
        let len = entry.encoded_len()?;
        match segments.last_mut().filter(|last| last.entries.len() < MAX_SEGMENT_ENTRIES && len <= room) {
            Some(last) => last.entries.push(entry),
            None => {
                segments.push(SegmentBody { version: 1, entries: vec![entry] });
                room = MAX_SEGMENT_LEN - SEGMENT_HEAD_LEN;
            }
        }
        room -= len;
    }
    if segments.len() > MAX_SEGMENTS as usize {
        return Err(too_many());
    }
    Ok(segments)
}

/// What the root's object is bound to: four parts, where an ordinary object has two.
pub(crate) fn root_context(store: &str, prefix: &str) -> Context {
    Context::new(&[store.as_bytes(), prefix.as_bytes(), MANIFEST, b"root"])
}

/// What a segment's object is bound to: five parts.
pub(crate) fn segment_context(store: &str, prefix: &str, takeover: ObjectId, number: u32) -> Context {
    let parts =
        [store.as_bytes(), prefix.as_bytes(), MANIFEST, &takeover.as_bytes()[..], &number.to_be_bytes()];
    Context::new(&parts)
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), Error> {
    match reader.u8()? {
        VERSION => Ok(()),
        _ => Err(Error::new(ErrorKind::Format, "a manifest's version is unknown")),
    }
}

const fn not_zero(version: u64) -> Result<u64, Error> {
    if version == 0 {
        return Err(Error::new(ErrorKind::Format, "a manifest's count of changes is zero"));
    }
    Ok(version)
}

const fn too_many() -> Error {
    Error::new(
        ErrorKind::Limit,
        "more objects than one manifest lists: take them over by more than one prefix",
    )
}

const VERSION: u8 = 1;
const MANIFEST: &[u8] = b"plaintext manifest";

/// The root is of one length.
pub(crate) const ROOT_LEN: usize = 1 + 16 + 8 + 1 + 4 + 8 + 8;

/// Version, count of changes, number of entries.
const SEGMENT_HEAD_LEN: usize = 1 + 8 + 2;

/// Entries of one segment.
pub(crate) const MAX_SEGMENT_ENTRIES: usize = 1000;

/// A segment, before it is sealed, in bytes.
pub(crate) const MAX_SEGMENT_LEN: usize = 1024 * 1024;

/// Segments of one manifest.
pub(crate) const MAX_SEGMENTS: u32 = 4096;

/// Objects that one manifest lists.
pub(crate) const MAX_OBJECTS: u64 = 1_000_000;

/// A path in a manifest, in bytes.
pub(crate) const MAX_PATH_LEN: usize = 4096;

/// An entity tag or a version in a manifest, in bytes.
pub(crate) const MAX_TAG_LEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        let version = path.ends_with('v').then(|| "7".into());
        Entry { path: path.into(), size: 3, modified: 1_790_000_000, e_tag: "0x8D".into(), version }
    }

    fn root() -> Root {
        let takeover = ObjectId::from_bytes([7; 16]);
        Root { takeover, version: 2, state: RootState::UnderWay, segments: 1, objects: 2, bytes: 6 }
    }

    #[test]
    fn f1_a_manifest_parses_to_what_was_written_and_nothing_else_does() {
        for state in [RootState::Beginning, RootState::UnderWay, RootState::Finished] {
            let root = Root { state, ..root() };
            assert_eq!(root.to_bytes().len(), ROOT_LEN);
            assert_eq!(Root::parse(&root.to_bytes()).unwrap(), root);
        }
        let body = SegmentBody { version: 9, entries: vec![entry("a/1"), entry("a/1v"), entry("b")] };
        let bytes = body.to_bytes();
        assert_eq!(SegmentBody::parse(&bytes).unwrap(), body);
        let lens: usize = body.entries.iter().map(|entry| entry.encoded_len().unwrap()).sum();
        assert_eq!(bytes.len(), SEGMENT_HEAD_LEN + lens);
        let empty = SegmentBody { version: 1, entries: Vec::new() };
        assert_eq!(SegmentBody::parse(&empty.to_bytes()).unwrap(), empty);

        for bytes in [bytes, root().to_bytes()] {
            let parse =
                |bytes: &[u8]| SegmentBody::parse(bytes).map(drop).or_else(|_| Root::parse(bytes).map(drop));
            for len in 0..bytes.len() {
                assert_eq!(parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::Format, "cut at {len}");
            }
            assert!(parse(&[&bytes[..], &[0]].concat()).is_err(), "a byte after the end");
        }
    }

    #[test]
    fn f1_unknown_versions_states_and_orders_are_refused() {
        let bad = |at: usize, value: u8| {
            let mut bytes = root().to_bytes();
            bytes[at] = value;
            Root::parse(&bytes).map(drop)
        };
        for (at, value) in [(0, 0), (0, 2), (24, 0), (25, 0), (25, 4), (26, 1), (30, 1)] {
            assert_eq!(bad(at, value).unwrap_err().kind(), ErrorKind::Format, "{at} {value}");
        }
        let refused =
            |entries: Vec<Entry>| SegmentBody::parse(&SegmentBody { version: 1, entries }.to_bytes());
        assert!(refused(vec![entry("b"), entry("a")]).is_err(), "not in order");
        assert!(refused(vec![entry("a"), entry("a")]).is_err(), "twice");
        assert!(SegmentBody::parse(&SegmentBody { version: 0, entries: Vec::new() }.to_bytes()).is_err());
    }

    #[test]
    fn f2_counts_and_lengths_of_a_manifest_are_bounded() {
        let mut bytes = SegmentBody { version: 1, entries: Vec::new() }.to_bytes();
        bytes[9..11].copy_from_slice(&1001_u16.to_be_bytes());
        assert_eq!(SegmentBody::parse(&bytes).unwrap_err().kind(), ErrorKind::Format);
        assert!(SegmentBody::parse(&vec![1; MAX_SEGMENT_LEN + 1]).is_err());
        assert_eq!(entry(&"p".repeat(MAX_PATH_LEN + 1)).encoded_len().unwrap_err().kind(), ErrorKind::Limit);
        assert!(Entry { e_tag: "".into(), ..entry("a") }.encoded_len().is_err());

        let short: Vec<Entry> = (0..2500).map(|n| entry(&format!("{n:05}"))).collect();
        let lens: Vec<usize> = cut(short).unwrap().iter().map(|segment| segment.entries.len()).collect();
        assert_eq!(lens, [1000, 1000, 500]);
        let long: Vec<Entry> = (0..600).map(|n| entry(&format!("{n:05}{}", "p".repeat(4000)))).collect();
        let segments = cut(long).unwrap();
        assert!(
            segments.len() > 2 && segments.iter().all(|segment| segment.to_bytes().len() <= MAX_SEGMENT_LEN)
        );
        assert!(cut(Vec::new()).unwrap().is_empty());
    }
}
