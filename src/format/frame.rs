//! The block frame: one sealed block, by itself or within a sealed object.
//!
//! ```text
//! header8            ver1 | suite1 | kind1 | flags1 (bit 0: last of its object; the rest zero) | generation_be4
//! standalone block   header8 | R24 | KCV[..16] | ciphertext | tags       64 bytes over the plaintext
//! object frame       header8 | R24 | ciphertext | tags                   48 bytes over the plaintext
//! tags               suite 1: tag16        suite 2: the inner tag, masked16 | tag16, so 16 bytes more
//! ```
//! An unknown version, suite, kind or flag is an error, and so is a length that no frame of the kind can have (contract
//! F1, F2). Nothing here is authenticated yet: that is `block`'s. Imports: `derive`, `engine`, `id`, `error`.

use std::fmt;
use std::ops::{Deref, Range};

use crate::derive::{Kcv, Kind, Nonce24};
use crate::engine::Tag;
use crate::error::{Error, ErrorKind};
use crate::id::{Generation, Suite};

/// The longest plaintext of one block, in bytes: 16 MiB.
pub const MAX_BLOCK: usize = 16 * 1024 * 1024;

/// How long a standalone block is, sealed: 64 bytes more than its plaintext, 80 under double encryption.
#[must_use]
pub const fn sealed_len(plain_len: usize, suite: Suite) -> usize {
    plain_len.saturating_add(overhead(Kind::Block, suite))
}

/// What a frame says of itself, before anything of it is verified. For routing and reports.
///
/// # Errors
/// [`ErrorKind::Format`] when the bytes are not a frame of a version, suite and kind known here, or too short for one;
/// [`ErrorKind::Limit`] when they are longer than any frame.
pub fn peek(frame: &[u8]) -> Result<FrameInfo, Error> {
    let header = Header::parse(frame.first_chunk().ok_or_else(truncated)?)?;
    let (_, sealed, _) = split(header.kind, frame)?;
    Ok(FrameInfo { header, plain_len: sealed.len() })
}

/// What [`peek`] found. Not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameInfo {
    header: Header,
    plain_len: usize,
}

impl FrameInfo {
    /// The generation that the frame says it was sealed under.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.header.generation
    }

    /// Its algorithms.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.header.suite
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.header.kind
    }

    /// How long the plaintext is, in bytes.
    #[must_use]
    pub const fn plain_len(&self) -> usize {
        self.plain_len
    }
}

/// The first 8 bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) suite: Suite,
    pub(crate) kind: Kind,
    /// The last block of its object. A standalone block has no such flag.
    pub(crate) last: bool,
    pub(crate) generation: Generation,
}

impl Header {
    pub(crate) const LEN: usize = 8;

    #[inline]
    pub(crate) fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, Error> {
        let [version, suite, kind, flags, generation @ ..] = *bytes;
        if version != VERSION {
            return Err(Error::new(ErrorKind::Format, "not a frame of a version known here"));
        }
        let suite = Suite::from_number(suite)
            .ok_or_else(|| Error::new(ErrorKind::Format, "a frame of a suite not known here"))?;
        let kind = Kind::from_number(kind)
            .ok_or_else(|| Error::new(ErrorKind::Format, "a frame of a kind not known here"))?;
        let last = match (kind, flags) {
            (_, 0) => false,
            (Kind::ObjectFrame, FLAG_LAST) => true,
            _ => return Err(Error::new(ErrorKind::Format, "a frame with a flag not known here")),
        };
        let generation = Generation::new(u32::from_be_bytes(generation))
            .ok_or_else(|| Error::new(ErrorKind::Format, "a frame of generation zero"))?;
        Ok(Self { suite, kind, last, generation })
    }

    #[inline]
    pub(crate) const fn to_bytes(self) -> [u8; Self::LEN] {
        let Self { suite, kind, last, generation } = self;
        let flags = if last { FLAG_LAST } else { 0 };
        let [a, b, c, d] = generation.number().to_be_bytes();
        [VERSION, suite.number(), kind.number(), flags, a, b, c, d]
    }
}

/// What stands before the ciphertext.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) header: Header,
    pub(crate) r: Nonce24,
    /// The prefix of the key check value: in a standalone block, and only there.
    pub(crate) commitment: Option<[u8; Kcv::PREFIX_LEN]>,
}

impl Head {
    /// Writes the head to `out`, which is exactly [`head_len`] of its kind.
    #[inline]
    pub(crate) fn write(&self, out: &mut [u8]) {
        debug_assert_eq!(out.len(), head_len(self.header.kind));
        out[HEAD_HEADER].copy_from_slice(&self.header.to_bytes());
        out[HEAD_R].copy_from_slice(self.r.as_bytes());
        if let Some(commitment) = &self.commitment {
            out[HEAD_COMMITMENT].copy_from_slice(commitment);
        }
    }

    /// Parses the head of a frame that has to be of `kind`.
    #[inline]
    fn parse(kind: Kind, bytes: &[u8]) -> Result<Self, Error> {
        let (header, rest) = bytes.split_first_chunk().ok_or_else(truncated)?;
        let header = Header::parse(header)?;
        if header.kind != kind {
            return Err(Error::new(ErrorKind::Format, "a frame of another kind than is opened here"));
        }
        let (r, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
        let commitment = match kind {
            Kind::Block => Some(*rest.first_chunk().ok_or_else(truncated)?),
            Kind::ObjectFrame => None,
        };
        Ok(Self { header, r: Nonce24::from_bytes(*r), commitment })
    }
}

/// What stands after the ciphertext.
#[derive(Clone, Copy)]
pub(crate) struct Tags {
    /// The tag of AES-256-GCM, masked: in suite 2, and only there.
    pub(crate) masked: Option<[u8; Tag::LEN]>,
    /// The tag that ends the frame: that of the algorithm that was applied last.
    pub(crate) last: Tag,
}

impl Tags {
    /// Those of suite 1.
    #[inline]
    pub(crate) const fn one(tag: Tag) -> Self {
        Self { masked: None, last: tag }
    }

    /// How many bytes they take.
    #[inline]
    pub(crate) const fn len(suite: Suite) -> usize {
        match suite {
            Suite::Aes256Gcm => Tag::LEN,
            Suite::Double => 2 * Tag::LEN,
        }
    }

    /// Writes them to `out`, which is exactly as long.
    #[inline]
    pub(crate) fn write(&self, out: &mut [u8]) {
        match &self.masked {
            None => out.copy_from_slice(&self.last.0),
            Some(masked) => {
                let (first, last) = out.split_at_mut(Tag::LEN);
                first.copy_from_slice(masked);
                last.copy_from_slice(&self.last.0);
            }
        }
    }
}

/// Takes a frame of `kind` apart: head, ciphertext, tags.
///
/// # Errors
/// [`ErrorKind::Format`], and [`ErrorKind::Limit`] beyond [`MAX_BLOCK`].
#[inline]
pub(crate) fn split(kind: Kind, frame: &[u8]) -> Result<(Head, &[u8], Tags), Error> {
    let head = Head::parse(kind, frame)?;
    let (rest, last) =
        frame.get(head_len(kind)..).and_then(|rest| rest.split_last_chunk()).ok_or_else(truncated)?;
    let (sealed, masked) = match head.header.suite {
        Suite::Aes256Gcm => (rest, None),
        Suite::Double => {
            let (sealed, masked) = rest.split_last_chunk().ok_or_else(truncated)?;
            (sealed, Some(*masked))
        }
    };
    check_len(sealed.len())?;
    Ok((head, sealed, Tags { masked, last: Tag(*last) }))
}

/// As [`split`], with the ciphertext to decrypt in place.
///
/// # Errors
/// As [`split`].
#[inline]
pub(crate) fn split_mut(kind: Kind, frame: &mut [u8]) -> Result<(Head, &mut [u8], Tags), Error> {
    let (head, sealed, tags) = split(kind, frame)?;
    let end = head_len(kind) + sealed.len();
    Ok((head, &mut frame[head_len(kind)..end], tags))
}

/// # Errors
/// [`ErrorKind::Limit`] when a block would have more plaintext than [`MAX_BLOCK`].
#[inline]
pub(crate) const fn check_len(plain_len: usize) -> Result<(), Error> {
    if plain_len > MAX_BLOCK {
        return Err(Error::new(ErrorKind::Limit, "a block is at most 16 MiB (MAX_BLOCK): use more blocks"));
    }
    Ok(())
}

/// Bytes before the ciphertext.
pub(crate) const fn head_len(kind: Kind) -> usize {
    match kind {
        Kind::Block => HEAD_COMMITMENT.end,
        Kind::ObjectFrame => HEAD_R.end,
    }
}

/// Bytes that a frame is longer than its plaintext.
pub(crate) const fn overhead(kind: Kind, suite: Suite) -> usize {
    head_len(kind) + Tags::len(suite)
}

/// The part of a standalone block that is not ciphertext, for page formats that keep the ciphertext in a place of its
/// own: [`Self::len_of`] the account's suite, whatever the block's size.
///
/// It is public: it may be stored next to the ciphertext. Its first 48 bytes are a standalone block's head, the rest
/// its tags.
#[derive(Clone, Copy)]
pub struct Detached {
    pub(crate) head: Head,
    pub(crate) tags: Tags,
}

impl Detached {
    /// Its length in bytes: 64, or 80 under double encryption.
    #[must_use]
    pub const fn len_of(suite: Suite) -> usize {
        overhead(Kind::Block, suite)
    }

    /// The bytes to store.
    #[must_use]
    pub fn to_bytes(&self) -> DetachedBytes {
        let mut bytes = [0; DetachedBytes::MAX_LEN];
        let len = Self::len_of(self.head.header.suite);
        let (head, tags) = bytes[..len].split_at_mut(head_len(Kind::Block));
        self.head.write(head);
        self.tags.write(tags);
        DetachedBytes { bytes, len }
    }

    /// Reads what [`Self::to_bytes`] wrote. Authenticity shows when the block is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when the bytes are not of a version, suite and kind known here, or not as many as their suite has.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        match split(Kind::Block, bytes)? {
            (head, [], tags) => Ok(Self { head, tags }),
            _ => Err(Error::new(ErrorKind::Format, "too long for the head and the tags of a block")),
        }
    }
}

/// The bytes of a [`Detached`]: a slice that needs no heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DetachedBytes {
    bytes: [u8; Self::MAX_LEN],
    len: usize,
}

impl DetachedBytes {
    /// The most that any suite has, in bytes.
    pub const MAX_LEN: usize = Detached::len_of(Suite::Double);
}

impl Deref for DetachedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for DetachedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for DetachedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DetachedBytes({} bytes)", self.len)
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detached({:?})", self.head.header)
    }
}

const fn truncated() -> Error {
    Error::new(ErrorKind::Format, "too short for a frame")
}

const VERSION: u8 = 1;
const FLAG_LAST: u8 = 1;

// The head: header8 | R24 | KCV[..16], the last one in standalone blocks only.
const HEAD_HEADER: Range<usize> = 0..Header::LEN;
const HEAD_R: Range<usize> = HEAD_HEADER.end..HEAD_HEADER.end + Nonce24::LEN;
const HEAD_COMMITMENT: Range<usize> = HEAD_R.end..HEAD_R.end + Kcv::PREFIX_LEN;
const _: () =
    assert!(overhead(Kind::Block, Suite::Aes256Gcm) == 64 && overhead(Kind::Block, Suite::Double) == 80);
const _: () = assert!(overhead(Kind::ObjectFrame, Suite::Aes256Gcm) == 48);
const _: () = assert!(overhead(Kind::ObjectFrame, Suite::Double) == 64, "as documented");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::Double];

    fn header(suite: Suite, kind: Kind, last: bool) -> Header {
        Header { suite, kind, last, generation: Generation::new(0x0102_0304).expect("not zero") }
    }

    #[test]
    fn f1_headers_are_as_documented() {
        for (suite, number) in SUITES.into_iter().zip(1..) {
            assert_eq!(header(suite, Kind::Block, false).to_bytes(), [1, number, 1, 0, 1, 2, 3, 4]);
            assert_eq!(header(suite, Kind::ObjectFrame, true).to_bytes(), [1, number, 2, 1, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn f1_whatever_is_not_known_is_refused() {
        let good = [1, 1, 1, 0, 0, 0, 0, 1];
        assert!(Header::parse(&good).is_ok());
        let bad: [&[(usize, u8)]; 12] = [
            &[(0, 0)],
            &[(0, 2)],
            &[(1, 0)],
            &[(1, 3)],
            &[(2, 0)],
            &[(2, 3)],
            &[(2, 4)],
            &[(3, 1)],
            &[(3, 2)],
            &[(2, 2), (3, 3)],
            &[(2, 2), (3, 128)],
            &[(7, 0)],
        ];
        for changes in bad {
            let mut bytes = good;
            changes.iter().for_each(|(at, to)| bytes[*at] = *to);
            let error = Header::parse(&bytes).expect_err("is not known");
            assert_eq!(error.kind(), ErrorKind::Format, "{changes:?}");
        }
    }

    proptest! {
        #[test]
        fn f1_a_header_that_parses_writes_the_same_bytes(bytes: [u8; 8]) {
            // Most random bytes are no header; steer half of the cases towards one.
            for bytes in [bytes, [1, 1 + bytes[1] % 2, 1 + bytes[2] % 2, bytes[3] % 3, bytes[4], bytes[5], bytes[6], bytes[7]]] {
                if let Ok(header) = Header::parse(&bytes) {
                    prop_assert_eq!(header.to_bytes(), bytes);
                }
            }
        }

        #[test]
        fn f2_peek_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = peek(&bytes);
        }
    }

    #[test]
    fn f2_lengths_are_bounded_on_both_sides() {
        let one = [(Suite::Aes256Gcm, Kind::Block, 64), (Suite::Aes256Gcm, Kind::ObjectFrame, 48)];
        let both = [(Suite::Double, Kind::Block, 80), (Suite::Double, Kind::ObjectFrame, 64)];
        for (suite, kind, overhead) in one.into_iter().chain(both) {
            let mut frame = vec![0; overhead + MAX_BLOCK + 1];
            frame[..8].copy_from_slice(&header(suite, kind, false).to_bytes());
            assert_eq!(peek(&frame).expect_err("too long").kind(), ErrorKind::Limit);
            assert_eq!(peek(&frame[..frame.len() - 1]).expect("fits").plain_len(), MAX_BLOCK);
            assert_eq!(peek(&frame[..overhead]).expect("an empty block").plain_len(), 0);
            for short in 0..overhead {
                assert_eq!(peek(&frame[..short]).expect_err("too short").kind(), ErrorKind::Format);
            }
        }
        assert_eq!((sealed_len(4096, Suite::Aes256Gcm), sealed_len(4096, Suite::Double)), (4160, 4176));
        assert_eq!(sealed_len(usize::MAX, Suite::Aes256Gcm), usize::MAX);
    }

    #[test]
    fn a_detached_head_reads_back() {
        for (suite, masked) in SUITES.into_iter().zip([None, Some([10; 16])]) {
            let head = Head {
                header: header(suite, Kind::Block, false),
                r: Nonce24::from_bytes([7; 24]),
                commitment: Some([8; 16]),
            };
            let bytes = Detached { head, tags: Tags { masked, last: Tag([9; 16]) } }.to_bytes();
            assert_eq!(AsRef::<[u8]>::as_ref(&bytes), &*bytes);
            let end = bytes.len() - 16;
            assert_eq!(
                (&bytes[8..32], &bytes[32..48], &bytes[end..]),
                (&[7; 24][..], &[8; 16][..], &[9; 16][..])
            );
            assert_eq!(&bytes[48..end], masked.as_ref().map_or(&[][..], |masked| &masked[..]));
            assert_eq!(Detached::from_bytes(&bytes).expect("ours").to_bytes(), bytes);
            let longer = [&bytes[..], &[0]].concat();
            for wrong in [&bytes[..end], &bytes[1..], &longer] {
                assert_eq!(
                    Detached::from_bytes(wrong).expect_err("another length").kind(),
                    ErrorKind::Format
                );
            }
            assert_eq!(format!("{bytes:?}"), format!("DetachedBytes({} bytes)", end + 16));
        }
    }
}
