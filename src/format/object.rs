//! The sealed object on disk: its header, and the arithmetic between plain and stored lengths.
//!
//! ```text
//! object = header80 | frame 0 | frame 1 | ... | frame n-1
//! MAC32  = HMAC(Expand(PRK, "SRH1"), name || 0 || header48 || SHA-256(context))
//! frame  = header8 | R24 | ciphertext | tags                     48 bytes over its plaintext, 64 in suite 2
//! ```
//! All frames but the last carry exactly one block; the last carries 1 byte to one block and the
//! final flag. An empty object is exactly one empty final frame. Everything else is
//! [`ErrorKind::Format`]: so lengths are arithmetic, and no length is stored that could lie. Numbers are
//! big-endian. Imports: `frame`, `derive`, `id`, `error`.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::derive::Kind;
use crate::error::{Error, ErrorKind};
use crate::format::frame::{self, MAX_BLOCK};
use crate::id::{AccountId, Generation, ObjectId, Suite};

/// How many bytes of plaintext one frame of a sealed object carries: a power of two from 4 KiB to 16 MiB.
///
/// The unit of random access: reading one byte costs one block. Small blocks suit point reads and
/// cost more per byte (48 bytes and about 0.25 microseconds each; 64 and 0.6 under double encryption); large ones suit scans.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockSize {
    log2: u8,
}

impl BlockSize {
    /// 4 KiB, the least.
    pub const MIN: Self = Self { log2: 12 };
    /// 16 MiB, the most: what a reader has to hold before it may release any of it.
    pub const MAX: Self = Self { log2: 24 };
    /// 64 KiB: within a tenth of the speed of an unprotected cipher, and still cheap to read at random.
    pub const DEFAULT: Self = Self { log2: 16 };

    /// The block size of `bytes` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] unless `bytes` is a power of two from 4 KiB to 16 MiB.
    pub const fn new(bytes: usize) -> Result<Self, Error> {
        let mut log2 = Self::MIN.log2;
        while log2 <= Self::MAX.log2 {
            if bytes == 1 << log2 {
                return Ok(Self { log2 });
            }
            log2 += 1;
        }
        Err(Error::new(ErrorKind::Misuse, "a block size is a power of two from 4 KiB to 16 MiB"))
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.log2
    }

    const fn from_log2(log2: u8) -> Option<Self> {
        if log2 >= Self::MIN.log2 && log2 <= Self::MAX.log2 { Some(Self { log2 }) } else { None }
    }

    /// Which block holds plaintext byte `offset`.
    const fn index_of(self, offset: u64) -> u64 {
        offset >> self.log2
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockSize({})", self.bytes())
    }
}

/// What an object is, as its first 80 bytes claim: anyone can read it, and anyone could have
/// written it. Only a reader proves it, with the account's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// The account whose key opens the object.
    pub account: AccountId,
    /// The generation of that key.
    pub generation: Generation,
    /// The algorithms of that generation.
    pub suite: Suite,
    /// The object's own random id, part of every block's key.
    pub object: ObjectId,
    /// The size of its blocks.
    pub block_size: BlockSize,
}

impl ObjectInfo {
    pub(crate) const fn layout(&self) -> Layout {
        Layout { block_size: self.block_size, suite: self.suite }
    }
}

/// How plaintext is cut into frames: what the arithmetic of lengths needs to know of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) block_size: BlockSize,
    pub(crate) suite: Suite,
}

impl Layout {
    /// Plaintext of a full frame, in bytes.
    pub(crate) const fn block_len(self) -> usize {
        self.block_size.bytes()
    }

    /// What a frame adds to its plaintext: header, R and tags.
    pub(crate) const fn overhead(self) -> usize {
        frame::overhead(Kind::ObjectFrame, self.suite)
    }

    /// How long the frame of a block of `plain_len` bytes is.
    pub(crate) const fn frame_len(self, plain_len: usize) -> usize {
        plain_len + self.overhead()
    }

    /// Where frame `index` starts in the stored object.
    pub(crate) const fn frame_at(self, index: u64) -> u64 {
        HEADER_LEN as u64 + index * self.frame_len(self.block_len()) as u64
    }
}

/// Where an object belongs, in the caller's terms: which store, which path, which version of it.
///
/// Bound into the object and never stored, so an object that was moved or renamed behind the
/// caller's back does not open. What is not in here is not noticed: an older object put back at the same
/// path opens, unless a version is part of the context (contract F6).
///
/// `SHA-256(len_be8(part 1) || part 1 || len_be8(part 2) || part 2 ...)`; the lengths keep `["ab", "c"]`
/// and `["a", "bc"]` apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Context([u8; 32]);

impl Context {
    /// The context made of these parts, in this order.
    ///
    /// ```
    /// # use strongroom::Context;
    /// let context = Context::new(&[b"orders-bucket", b"2026/11/part-0001"]);
    /// # assert!(context != Context::new(&[b"orders-bucket2026/11/part-0001"]));
    /// ```
    #[must_use]
    pub fn new(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // OK because a slice is never longer than 2^64 - 1 bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Context {
    /// Shows nothing: paths can be guessed from their hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Context(..)")
    }
}

/// A header's 80 bytes as they came from a store: its fields are hints until the MAC is compared.
pub(crate) struct UnverifiedHeader {
    info: ObjectInfo,
    bytes: [u8; HEADER_LEN],
}

impl UnverifiedHeader {
    /// # Errors
    /// [`ErrorKind::Format`] for another magic, version, suite, block size or generation zero, and
    /// for a reserved byte that is not zero.
    pub(crate) fn parse(bytes: [u8; HEADER_LEN]) -> Result<Self, Error> {
        if field::<MAGIC_AT, { MAGIC.len() }>(&bytes) != MAGIC {
            return Err(Error::new(ErrorKind::Format, "not a sealed object"));
        }
        if bytes[VERSION_AT] != VERSION {
            return Err(Error::new(ErrorKind::Format, "a sealed object of an unknown version"));
        }
        let suite = Suite::from_number(bytes[SUITE_AT])
            .ok_or_else(|| Error::new(ErrorKind::Format, "a sealed object of an unknown suite"))?;
        let block_size = BlockSize::from_log2(bytes[BLOCK_SIZE_AT])
            .ok_or_else(|| Error::new(ErrorKind::Format, "a sealed object with a block size out of range"))?;
        if bytes[RESERVED_AT] != 0 {
            return Err(Error::new(ErrorKind::Format, "a sealed object with unknown flags"));
        }
        let generation = Generation::new(u32::from_be_bytes(field::<GENERATION_AT, 4>(&bytes)))
            .ok_or_else(|| Error::new(ErrorKind::Format, "a sealed object of generation zero"))?;
        let account = AccountId::from_bytes(field::<ACCOUNT_AT, 16>(&bytes));
        let object = ObjectId::from_bytes(field::<OBJECT_AT, 16>(&bytes));
        Ok(Self { info: ObjectInfo { account, generation, suite, object, block_size }, bytes })
    }

    pub(crate) const fn info(&self) -> ObjectInfo {
        self.info
    }

    /// The bytes that the MAC covers, before the context's hash.
    pub(crate) fn authenticated(&self) -> &[u8] {
        &self.bytes[..MAC_AT]
    }

    pub(crate) fn mac(&self) -> [u8; 32] {
        field::<MAC_AT, 32>(&self.bytes)
    }
}

/// The 48 bytes before the MAC.
pub(crate) fn header_bytes(info: &ObjectInfo) -> [u8; MAC_AT] {
    let ObjectInfo { account, generation, suite, object, block_size } = info;
    let mut bytes = [0; MAC_AT];
    bytes[MAGIC_AT..VERSION_AT].copy_from_slice(&MAGIC);
    bytes[VERSION_AT] = VERSION;
    bytes[SUITE_AT] = suite.number();
    bytes[BLOCK_SIZE_AT] = block_size.log2;
    bytes[GENERATION_AT..ACCOUNT_AT].copy_from_slice(&generation.number().to_be_bytes());
    bytes[ACCOUNT_AT..OBJECT_AT].copy_from_slice(account.as_bytes());
    bytes[OBJECT_AT..MAC_AT].copy_from_slice(object.as_bytes());
    bytes
}

/// Where every block of an object lies, given its layout and one of its two lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectGeometry {
    layout: Layout,
    plain_len: u64,
}

impl ObjectGeometry {
    /// # Errors
    /// [`ErrorKind::Limit`] above [`MAX_PLAIN_LEN`].
    pub(crate) const fn of_plain(plain_len: u64, layout: Layout) -> Result<Self, Error> {
        if plain_len > MAX_PLAIN_LEN {
            return Err(Error::new(ErrorKind::Limit, "an object holds at most 2^60 bytes"));
        }
        Ok(Self { layout, plain_len })
    }

    /// # Errors
    /// [`ErrorKind::Format`] for a length that no object of this layout has.
    pub(crate) const fn of_stored(stored_len: u64, layout: Layout) -> Result<Self, Error> {
        let Some(body) = stored_len.checked_sub(HEADER_LEN as u64) else {
            return Err(Error::new(ErrorKind::Format, "shorter than a sealed object's header"));
        };
        let full = layout.frame_len(layout.block_len()) as u64;
        let (full_frames, rest) = (body / full, body % full);
        let tail = match rest.checked_sub(layout.overhead() as u64) {
            // An empty frame is the whole object or does not exist.
            Some(0) if full_frames > 0 => None,
            None if rest > 0 || full_frames == 0 => None,
            None => Some(0),
            tail => tail,
        };
        let Some(tail) = tail else {
            return Err(Error::new(
                ErrorKind::Format,
                "no sealed object has this length: it was cut or added to",
            ));
        };
        // OK because `full` exceeds the block size: the plain length is below the stored one.
        let plain_len = full_frames * layout.block_len() as u64 + tail;
        if plain_len > MAX_PLAIN_LEN {
            return Err(Error::new(ErrorKind::Format, "longer than any sealed object"));
        }
        Ok(Self { layout, plain_len })
    }

    pub(crate) const fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) const fn plain_len(&self) -> u64 {
        self.plain_len
    }

    pub(crate) const fn stored_len(&self) -> u64 {
        let frames = self.last_index() + 1;
        // OK because 2^60 bytes of plaintext and 64 for each 4 KiB of them stay far below 2^64.
        HEADER_LEN as u64 + self.plain_len + frames * self.layout.overhead() as u64
    }

    /// The index of the frame that carries the final flag.
    pub(crate) const fn last_index(&self) -> u64 {
        self.layout.block_size.index_of(self.plain_len.saturating_sub(1))
    }

    /// Which block holds plaintext byte `offset`, and where in it.
    pub(crate) const fn locate(&self, offset: u64) -> (u64, usize) {
        let within = offset & (self.layout.block_len() as u64 - 1);
        #[expect(clippy::cast_possible_truncation, reason = "below the block size")]
        (self.layout.block_size.index_of(offset), within as usize)
    }

    /// How many bytes of plaintext block `index` holds.
    pub(crate) const fn block_len(&self, index: u64) -> usize {
        let start = index << self.layout.block_size.log2;
        let left = self.plain_len.saturating_sub(start);
        let full = self.layout.block_len();
        #[expect(clippy::cast_possible_truncation, reason = "below the block size")]
        if left < full as u64 { left as usize } else { full }
    }

    /// Where frame `index` starts in the stored object.
    pub(crate) const fn frame_at(&self, index: u64) -> u64 {
        self.layout.frame_at(index)
    }

    /// How long frame `index` is.
    pub(crate) const fn frame_len(&self, index: u64) -> usize {
        self.layout.frame_len(self.block_len(index))
    }
}

fn field<const AT: usize, const LEN: usize>(bytes: &[u8; HEADER_LEN]) -> [u8; LEN] {
    let mut value = [0; LEN];
    value.copy_from_slice(&bytes[AT..AT + LEN]);
    value
}

// ```text
//  0        8  9  10 11 12       16              32              48              80
//  +--------+--+--+--+--+--------+---------------+---------------+---------------+
//  | magic  |v |s |b |0 | gen    | account       | object        | MAC           |
//  +--------+--+--+--+--+--------+---------------+---------------+---------------+
// ```
// v version, s suite, b log2 of the block size, 0 reserved and zero.
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = MAGIC_AT + MAGIC.len();
const SUITE_AT: usize = VERSION_AT + 1;
const BLOCK_SIZE_AT: usize = SUITE_AT + 1;
const RESERVED_AT: usize = BLOCK_SIZE_AT + 1;
const GENERATION_AT: usize = RESERVED_AT + 1;
const ACCOUNT_AT: usize = GENERATION_AT + 4;
const OBJECT_AT: usize = ACCOUNT_AT + 16;
const MAC_AT: usize = OBJECT_AT + 16;

/// The length of an object's header.
pub(crate) const HEADER_LEN: usize = MAC_AT + 32;

/// The most that one object holds: 1 EiB, the limit of a generation.
pub(crate) const MAX_PLAIN_LEN: u64 = 1 << 60;

/// Like PNG's: a byte above 127 and both line ends, so that text tools and transfers in text mode show.
const MAGIC: [u8; 8] = *b"\x89SRO\r\n\x1a\n";
const VERSION: u8 = 1;

const _: () = assert!(MAC_AT == 48 && HEADER_LEN == 80, "docs/FORMAT.md says so");
const _: () =
    assert!(BlockSize::MAX.bytes() == MAX_BLOCK, "every block fits one frame, and no larger one does");

#[cfg(test)]
mod tests {
    use super::*;

    const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::Double];
    const HEADER: u64 = HEADER_LEN as u64;

    fn info() -> ObjectInfo {
        ObjectInfo {
            account: AccountId::from_bytes(*b"account id, 16 b"),
            generation: Generation::FIRST,
            suite: Suite::Aes256Gcm,
            object: ObjectId::from_bytes(*b"object id, 16 by"),
            block_size: BlockSize::DEFAULT,
        }
    }

    fn sample() -> [u8; HEADER_LEN] {
        let mut bytes = [0xA5; HEADER_LEN];
        bytes[..MAC_AT].copy_from_slice(&header_bytes(&info()));
        bytes
    }

    fn parse_kind(bytes: [u8; HEADER_LEN]) -> Result<(), ErrorKind> {
        UnverifiedHeader::parse(bytes).map(|_| ()).map_err(|error| error.kind())
    }

    #[test]
    fn f1_the_header_is_these_bytes() {
        let mut expected = b"\x89SRO\r\n\x1a\n\x01\x01\x10\x00\x00\x00\x00\x01".to_vec();
        expected.extend_from_slice(b"account id, 16 bobject id, 16 by");
        assert_eq!(header_bytes(&info()).as_slice(), expected);
        let header = UnverifiedHeader::parse(sample()).expect("parses");
        assert_eq!((header.info(), header.mac()), (info(), [0xA5; 32]));
        assert_eq!(header.authenticated(), expected);
    }

    #[test]
    fn f1_unknown_magic_version_suite_block_size_reserved_and_generation_are_errors() {
        for at in MAGIC_AT..VERSION_AT {
            let mut bytes = sample();
            bytes[at] ^= 1;
            assert_eq!(parse_kind(bytes), Err(ErrorKind::Format));
        }
        for value in 0..=u8::MAX {
            for (at, valid) in
                [(VERSION_AT, 1..=1), (SUITE_AT, 1..=2), (BLOCK_SIZE_AT, 12..=24), (RESERVED_AT, 0..=0)]
            {
                let mut bytes = sample();
                bytes[at] = value;
                assert_eq!(parse_kind(bytes).is_ok(), valid.contains(&value), "byte {at} = {value}");
            }
        }
        let mut bytes = sample();
        bytes[GENERATION_AT..ACCOUNT_AT].fill(0);
        assert_eq!(parse_kind(bytes), Err(ErrorKind::Format));
    }

    #[test]
    fn f2_block_sizes_are_powers_of_two_within_bounds() {
        for bad in [0, 1, 4095, 4097, 2048, 65_535, 3 << 14, 1 << 25, usize::MAX] {
            assert_eq!(BlockSize::new(bad).expect_err("out of range").kind(), ErrorKind::Misuse, "{bad}");
        }
        for log2 in 12..=24 {
            assert_eq!(BlockSize::new(1 << log2).expect("in range").bytes(), 1 << log2);
        }
    }

    fn each_layout(block_size: BlockSize, test: impl Fn(Layout, u64)) {
        for (suite, overhead) in SUITES.into_iter().zip([48, 64]) {
            test(Layout { block_size, suite }, overhead);
        }
    }

    #[test]
    fn f3_a6_every_stored_length_is_one_object_or_none() {
        each_layout(BlockSize::MIN, |layout, overhead| {
            let block = layout.block_len() as u64;
            let full = block + overhead;
            let mut objects = 0;
            for stored in 0..HEADER + 3 * full + 100 {
                match ObjectGeometry::of_stored(stored, layout) {
                    Ok(geometry) => {
                        assert_eq!(geometry.stored_len(), stored);
                        assert_eq!(
                            ObjectGeometry::of_plain(geometry.plain_len(), layout).ok(),
                            Some(geometry)
                        );
                        assert_eq!(geometry.plain_len(), objects, "each plain length once, in order");
                        objects += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Format),
                }
            }
            let in_the_fourth_frame = 100 - overhead - 1;
            assert_eq!(objects, 1 + 3 * block + in_the_fourth_frame);
        });
    }

    #[test]
    fn f3_a6_geometry_at_the_boundaries() {
        each_layout(BlockSize::DEFAULT, |layout, overhead| {
            let block = layout.block_len() as u64;
            for (plain, last, last_len) in [
                (0, 0, 0),
                (1, 0, 1),
                (block - 1, 0, block - 1),
                (block, 0, block),
                (block + 1, 1, 1),
                (2 * block, 1, block),
            ] {
                let geometry = ObjectGeometry::of_plain(plain, layout).expect("small");
                assert_eq!(geometry.last_index(), last);
                assert_eq!(geometry.block_len(last) as u64, last_len);
                assert_eq!(geometry.frame_len(last) as u64, last_len + overhead);
                assert_eq!(geometry.stored_len(), geometry.frame_at(last) + last_len + overhead);
            }
            let geometry = ObjectGeometry::of_plain(3 * block, layout).expect("small");
            assert_eq!(geometry.locate(2 * block + 5), (2, 5));
        });
    }

    #[test]
    fn f2_lengths_have_a_limit() {
        each_layout(BlockSize::MIN, |layout, _| {
            let most = ObjectGeometry::of_plain(MAX_PLAIN_LEN, layout).expect("the most");
            assert_eq!(ObjectGeometry::of_stored(most.stored_len(), layout).ok(), Some(most));
            let more = ObjectGeometry::of_plain(MAX_PLAIN_LEN + 1, layout).expect_err("too long");
            assert_eq!(more.kind(), ErrorKind::Limit);
            for stored in [most.stored_len() + 1, u64::MAX] {
                assert_eq!(
                    ObjectGeometry::of_stored(stored, layout).expect_err("too long").kind(),
                    ErrorKind::Format
                );
            }
        });
    }

    #[test]
    fn f3_context_parts_do_not_run_together() {
        let hash = |parts: &[&[u8]]| *Context::new(parts).as_bytes();
        let all = [hash(&[]), hash(&[b""]), hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]), hash(&[b"abc"])];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one));
        }
    }
}
