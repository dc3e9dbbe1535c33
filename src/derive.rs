//! Every key derivation: the labels, what goes into each, and nothing else.
//!
//! ```text
//! PRK = HKDF-Extract(salt = SHA-256("strongroom/v1" || account16 || gen_be4 || family1), ikm = secret32)
//! KCV = HKDF-Expand(PRK, "SRK1", 32)
//! DEK = HKDF-Expand(PRK, label || suite1 || kind1 || object16 || index_be8 || R24, 32)
//! MAC = HMAC(HKDF-Expand(PRK, label, 32), name || 0 || bytes)
//! ```
//! HKDF is RFC 5869 and HMAC RFC 2104, both with SHA-256. PRK is used in HKDF-Expand and nowhere else.
//!
//! HMAC is written out here on `sha2`'s block function, and proven equal to the `hkdf` and `hmac` crates by the
//! tests below. Those crates keep their states where they can neither be locked into memory nor
//! wiped for sure; here what outlives a call is one [`Slot`], and a DEK costs exactly two
//! compressions. Imports: `secret`, `random`, `clock`, `id`, `error`.

use std::fmt;
use std::ops::Range;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zerocopy::{IntoBytes, transmute, transmute_mut, transmute_ref};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::clock::Moment;
use crate::error::Error;
use crate::id::{AccountId, BlockId, Generation, Suite};
use crate::random;
use crate::secret::{Dek, MemoryLock, Slot, wash_stack};

mod prks;

pub(crate) use prks::{Prks, Secrets};

/// Which of the independent secrets of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// The AEK that blocks are sealed under.
    Inner,
    /// The second AEK, of suite 2, that what is sealed is sealed under once more.
    Outer,
}

impl Family {
    const fn number(self) -> u8 {
        match self {
            Self::Inner => 1,
            Self::Outer => 2,
        }
    }
}

/// What a block's DEK is for. Each has a label of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DekUse {
    /// AES-256-GCM, under the inner PRK.
    Inner,
    /// ChaCha20-Poly1305, under the outer PRK.
    Outer,
    /// The 16 bytes that hide the inner tag, under the outer PRK.
    Mask,
}

impl DekUse {
    #[inline]
    const fn label(self) -> &'static [u8; 4] {
        match self {
            Self::Inner => b"SRD1",
            Self::Outer => b"SRD2",
            Self::Mask => b"SRT2",
        }
    }
}

/// What a frame is. Part of the DEK's derivation, so that a frame of one kind never opens as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A block that stands alone and carries its own commitment to the key.
    Block,
    /// A block of a sealed object, whose header carries the commitment.
    ObjectFrame,
}

impl Kind {
    /// The kind's number in every format.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::ObjectFrame => 2,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Block),
            2 => Some(Self::ObjectFrame),
            _ => None,
        }
    }
}

/// What a MAC key authenticates. Each has a label of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MacUse {
    /// An account record, under its newest generation.
    Record,
    /// A sealed object's header, which commits the object to its key.
    ObjectHeader,
    /// The state of a data scope, under the service-managed account's newest generation.
    Scope,
    /// What is noted of an operation, under the account that it is noted under.
    Operation,
    /// A generation, under the one before it, whose AEK its maker held.
    Link,
}

impl MacUse {
    const fn label(self) -> &'static [u8; 4] {
        match self {
            Self::Record => b"SRR1",
            Self::ObjectHeader => b"SRH1",
            Self::Scope => b"SRS1",
            Self::Operation => b"SRW1",
            Self::Link => b"SRL1",
        }
    }
}

/// `R`: what makes each write's DEK and nonce its own. Stored in the frame; not secret.
///
/// In words, so that it travels in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonce24([u64; 3]);

impl Nonce24 {
    pub(crate) const LEN: usize = 24;

    #[inline]
    pub(crate) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(transmute!(bytes))
    }

    #[inline]
    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        transmute_ref!(&self.0)
    }

    /// The AEAD's nonce: `R[12..24]`.
    #[inline]
    pub(crate) fn aead_nonce(&self) -> &[u8; 12] {
        self.as_bytes().last_chunk().expect("24 bytes end in 12")
    }
}

/// Key check value: tells one AEK from another without giving anything of it away (contract A5).
/// Intentionally without `PartialEq`: it is compared in constant time.
#[derive(Clone, Copy)]
pub(crate) struct Kcv([u8; 32]);

impl Kcv {
    pub(crate) const PREFIX_LEN: usize = 16;

    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What a standalone block carries of it.
    pub(crate) fn prefix16(&self) -> &[u8; Self::PREFIX_LEN] {
        self.0.first_chunk().expect("32 bytes begin with 16")
    }

    #[must_use]
    pub(crate) fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Kcv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kcv(..)")
    }
}

/// One generation's PRK, as the HMAC state made from it, with the lease salt beside it: all in one locked
/// slot, wiped when dropped. Intentionally not `Clone`.
pub(crate) struct Prk {
    slot: Slot,
}

impl Prk {
    /// HKDF-Extract of an AEK. Draws a new lease salt. The caller wipes `secret`.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) and [`ErrorKind::Io`](crate::ErrorKind::Io) as [`Slot::new`].
    pub(crate) fn extract(
        account: AccountId,
        generation: Generation,
        family: Family,
        secret: &[u8],
        lock: MemoryLock,
    ) -> Result<Self, Error> {
        let salt = Sha256::new()
            .chain_update(EXTRACT_LABEL)
            .chain_update(account.as_bytes())
            .chain_update(generation.number().to_be_bytes())
            .chain_update([family.number()])
            .finalize();
        let mut prk = Zeroizing::new([0; 32]);
        let mut extract = HmacStream::empty();
        extract.states.set_key(&salt.into());
        extract.update(secret);
        extract.finish(&mut prk);
        let mut states = Hmac::empty();
        states.set_key(&prk);
        let mut words = Zeroizing::new([0; Slot::WORDS]);
        words[INNER_WORDS].copy_from_slice(&states.inner);
        words[OUTER_WORDS].copy_from_slice(&states.outer);
        let mut salt = Zeroizing::new([0; Nonce24::LEN]);
        random::fill(&mut *salt);
        let salt_words: [u64; 3] = transmute!(*salt);
        words[SALT_WORDS.start..SALT_WORDS.end].copy_from_slice(&salt_words);
        Ok(Self { slot: Slot::new(&words, lock)? })
    }

    /// The key check value of this generation.
    pub(crate) fn kcv(&self) -> Kcv {
        Kcv(*self.expand(LABEL_KCV))
    }

    /// Derives the key of one block write to where it will lie.
    #[inline]
    pub(crate) fn dek(
        &self,
        purpose: DekUse,
        suite: Suite,
        kind: Kind,
        id: BlockId,
        r: &Nonce24,
        to: &mut Dek,
    ) {
        let mut block = [0; 64];
        block[INFO_LABEL].copy_from_slice(purpose.label());
        block[INFO_SUITE] = suite.number();
        block[INFO_KIND] = kind.number();
        block[INFO_OBJECT].copy_from_slice(id.object().as_bytes());
        block[INFO_INDEX].copy_from_slice(&id.index().to_be_bytes());
        block[INFO_NONCE].copy_from_slice(r.as_bytes());
        block[INFO_LEN] = FIRST_OUTPUT_BLOCK;
        // SHA-256 padding of 64 bytes of key block, the info and the counter byte.
        block[INFO_LEN + 1] = 0x80;
        block[62..].copy_from_slice(&INFO_BITS.to_be_bytes());
        let mut states = Hmac::empty();
        self.load_states(&mut states);
        states.compress_inner(&block);
        states.finish_outer();
        to.set(states.output());
    }

    /// A fresh `R`: the thread's generator, which is seeded anew in a forked child, masked with the lease salt and the
    /// boot-time clock, so that a cloned machine does not repeat it for long either.
    #[inline]
    pub(crate) fn fresh_nonce(&self, now: Moment) -> Nonce24 {
        let mut words: [u64; 3] = random::fast_words();
        let salt = self.slot.load::<{ SALT_WORDS.start }, 3>();
        for (word, salt) in words.iter_mut().zip(salt) {
            *word ^= salt;
        }
        words[0] ^= now.boot_nanos();
        Nonce24(words)
    }

    /// `HMAC(Expand(PRK, label), name || 0 || parts..)`.
    fn mac(&self, purpose: MacUse, name: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        self.mac_and(purpose, name, parts, &[])
    }

    /// `HMAC(Expand(PRK, label), name || 0 || parts.. || last)`.
    fn mac_and(&self, purpose: MacUse, name: &[u8], parts: &[&[u8]], last: &[u8]) -> [u8; 32] {
        debug_assert!(!name.contains(&0), "the zero byte ends a name");
        let key = self.expand(purpose.label());
        let mut mac = HmacStream::empty();
        mac.states.set_key(&key);
        mac.update(name);
        mac.update(&[0]);
        parts.iter().for_each(|part| mac.update(part));
        mac.update(last);
        let mut out = [0; 32];
        mac.finish(&mut out);
        out
    }

    /// Derives the key that the AEK of generation `older` is sealed under, once.
    pub(crate) fn older_key(&self, older: Generation, r: &Nonce24, to: &mut Dek) {
        let key = self.expand_parts(&[LABEL_OLDER, &older.number().to_be_bytes(), r.as_bytes()]);
        let words: Zeroizing<[u64; 4]> = Zeroizing::new(transmute!(*key));
        to.set(&words);
    }

    /// HKDF-Expand to 32 bytes under a bare label.
    fn expand(&self, label: &[u8; 4]) -> Zeroizing<[u8; 32]> {
        self.expand_parts(&[label])
    }

    fn expand_parts(&self, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0; 32]);
        let mut stream = HmacStream::empty();
        self.load_states(&mut stream.states);
        info.iter().for_each(|part| stream.update(part));
        stream.update(&[FIRST_OUTPUT_BLOCK]);
        stream.finish(&mut out);
        out
    }

    #[inline]
    fn load_states(&self, to: &mut Hmac) {
        self.slot.load_to::<{ INNER_WORDS.start }, 4>(&mut to.inner);
        self.slot.load_to::<{ OUTER_WORDS.start }, 4>(&mut to.outer);
    }
}

impl fmt::Debug for Prk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prk(..)")
    }
}

/// HMAC-SHA-256 (RFC 2104) as the two SHA-256 states that its key leads to. Wiped when dropped.
///
/// Made empty and filled where it lies: moving it would leave a copy of the key's states behind on the stack.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Hmac {
    inner: [u64; 4],
    outer: [u64; 4],
}

impl Hmac {
    #[inline]
    const fn empty() -> Self {
        Self { inner: [0; 4], outer: [0; 4] }
    }

    /// Starts from a key that is exactly 32 bytes; longer ones do not occur.
    fn set_key(&mut self, key: &[u8; 32]) {
        let mut block = Zeroizing::new([0; 64]);
        for (state, pad) in [(&mut self.inner, 0x36), (&mut self.outer, 0x5c)] {
            block.fill(pad);
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            *words_of(state) = SHA256_INITIAL;
            compress256(words_of(state), std::slice::from_ref(&*block));
        }
    }

    #[inline]
    fn compress_inner(&mut self, block: &[u8; 64]) {
        compress256(words_of(&mut self.inner), std::slice::from_ref(block));
    }

    /// `outer` becomes the HMAC, once `inner` is the inner hash.
    #[inline]
    fn finish_outer(&mut self) {
        let mut block = OUTER_BLOCK;
        for (to, word) in block.iter_mut().zip(&*words_of(&mut self.inner)) {
            *to = word.to_be();
        }
        let bytes: &[u8; 64] = transmute_ref!(&block);
        compress256(words_of(&mut self.outer), std::slice::from_ref(bytes));
        // Behind the hash there is padding only.
        block[..8].zeroize();
        for word in words_of(&mut self.outer) {
            *word = word.to_be();
        }
    }

    /// The HMAC, once it is finished.
    #[inline]
    const fn output(&self) -> &[u64; 4] {
        &self.outer
    }
}

/// A state as SHA-256 has it.
#[inline]
fn words_of(state: &mut [u64; 4]) -> &mut [u32; 8] {
    transmute_mut!(state)
}

/// HMAC-SHA-256 as it is computed here, for published vectors.
#[cfg(test)]
pub(crate) fn hmac_for_tests(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut stream = HmacStream::empty();
    stream.states.set_key(key);
    parts.iter().for_each(|part| stream.update(part));
    let mut out = [0; 32];
    stream.finish(&mut out);
    out
}

/// An HMAC over bytes that arrive in pieces. Wiped when dropped: what is authenticated is stored in the clear, but Extract
/// streams a secret through here.
#[derive(ZeroizeOnDrop)]
struct HmacStream {
    states: Hmac,
    block: [u8; 64],
    len: u64,
}

impl HmacStream {
    const fn empty() -> Self {
        Self { states: Hmac::empty(), block: [0; 64], len: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = self.filled();
            let (now, later) = bytes.split_at(bytes.len().min(64 - filled));
            self.block[filled..filled + now.len()].copy_from_slice(now);
            self.len += now.len() as u64;
            if self.filled() == 0 {
                self.states.compress_inner(&self.block);
            }
            bytes = later;
        }
    }

    /// Writes the HMAC to `out`. Nothing can be added then.
    fn finish(&mut self, out: &mut [u8; 32]) {
        let bits = 8 * (64 + self.len);
        self.update(&[0x80]);
        let filled = self.filled();
        self.block[filled..].fill(0);
        if filled > 56 {
            self.states.compress_inner(&self.block);
            self.block.fill(0);
        }
        self.block[56..].copy_from_slice(&bits.to_be_bytes());
        self.states.compress_inner(&self.block);
        self.states.finish_outer();
        out.copy_from_slice(self.states.output().as_bytes());
        // `sha2` leaves copies of the states below. Whatever is built there next may be moved on to other threads with the bytes
        // that it does not use, out of reach of the washing that ends a thread's job.
        wash_stack::<STACK>();
    }

    /// How much of `block` waits to be compressed.
    fn filled(&self) -> usize {
        usize::try_from(self.len % 64).expect("less than 64")
    }
}

/// How deep hashing goes, with room to spare; unoptimised code goes deeper.
const STACK: usize = if cfg!(debug_assertions) { 16 * 1024 } else { 1024 };

const EXTRACT_LABEL: &[u8] = b"strongroom/v1";
const BOTH_LABEL: &[u8] = b"strongroom/v1 both";
const LABEL_KCV: &[u8; 4] = b"SRK1";
const LABEL_OLDER: &[u8; 4] = b"SRG1";
/// What the AAD of an older generation's sealed AEK begins with.
pub(crate) const OLDER_AAD: &[u8] = b"strongroom/v1 older";

/// HKDF-Expand numbers its output blocks from 1; 32 bytes are the first one.
const FIRST_OUTPUT_BLOCK: u8 = 1;

/// FIPS 180-4, section 5.3.3.
const SHA256_INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The block that the outer hash ends with: room for the inner hash, then the padding of 64 + 32 bytes.
const OUTER_BLOCK: [u32; 16] = {
    let mut block = [0; 16];
    block[8] = 0x8000_0000_u32.to_be();
    block[15] = (8_u32 * (64 + 32)).to_be();
    block
};

// The DEK's info: label4 || suite1 || kind1 || object16 || index_be8 || R24.
const INFO_LABEL: Range<usize> = 0..4;
const INFO_SUITE: usize = INFO_LABEL.end;
const INFO_KIND: usize = INFO_SUITE + 1;
const INFO_OBJECT: Range<usize> = INFO_KIND + 1..INFO_KIND + 17;
const INFO_INDEX: Range<usize> = INFO_OBJECT.end..INFO_OBJECT.end + 8;
const INFO_NONCE: Range<usize> = INFO_INDEX.end..INFO_INDEX.end + Nonce24::LEN;
const INFO_LEN: usize = INFO_NONCE.end;
const _: () = assert!(INFO_LEN == 54, "the documented length");
// Counter byte, 0x80 and the 8-byte length have to fit as well: that is the most that one compression takes.
const _: () = assert!(INFO_LEN + 1 + 1 + 8 == 64);
/// What the inner hash has seen by then, in bits: the key block, the info and the counter byte.
const INFO_BITS: u16 = 8 * (64 + 54 + 1);

// The slot: inner state, outer state, lease salt.
const INNER_WORDS: Range<usize> = 0..4;
const OUTER_WORDS: Range<usize> = INNER_WORDS.end..INNER_WORDS.end + 4;
const SALT_WORDS: Range<usize> = OUTER_WORDS.end..OUTER_WORDS.end + 3;
const _: () = assert!(SALT_WORDS.end <= Slot::WORDS);

#[cfg(test)]
mod tests;
