//! Sealing and opening one block under a generation's keys.
//!
//! ```text
//! R     = fresh for every write                              in the frame
//! DEK   = HKDF-Expand(PRK, .. suite, kind, object, index, R)  used once, wiped
//! nonce = R[12..24]
//! AAD   = header8 || account16 || object16 || index_be8 || caller's
//! ```
//! In suite 2 what comes out is sealed once more, under the outer key (`double`).
//!
//! The block's place is in its key and in its AAD, so a block opens in its own place only (contract F3), and a
//! standalone block carries the prefix of its key check value, compared before decryption, so that it opens
//! under one AEK only (F5; AES-GCM by itself does not promise that).
//!
//! Nothing decrypted is released before `release` has agreed; whatever fails after the first byte was
//! decrypted wipes the output (D4). Imports: `format`, `derive`, `engine`, `secret`, `clock`, `id`, `error`.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::clock::Moment;
use crate::derive::{DekUse, Kcv, Kind, MacUse, Nonce24, Prks, Secrets};
use crate::engine::{Aead, Bound, Engine, Tag};
use crate::error::{Error, ErrorKind};
use crate::format::frame::{Head, Header, Tags, check_len};
use crate::id::{Aad, AccountId, BlockId, Generation, Suite};
use crate::secret::{Dek, MemoryLock};

mod double;
mod older;
mod ring;

pub(crate) use ring::KeyRing;

/// The longest [`Aad`], in bytes: 4 KiB. A longer context goes in as its hash.
///
/// Up to 80 bytes cost least; none is ever put on the heap.
pub const MAX_AAD: usize = 4096;

/// What seals and opens under one AEK, made at each verified unwrap. Wiped when dropped. Intentionally not `Clone`.
pub(crate) struct GenerationKeys {
    account: AccountId,
    generation: Generation,
    engine: Engine,
    prks: Prks,
    kcv: Kcv,
}

impl GenerationKeys {
    /// Derives the keys of a generation, whose suite follows from its secrets, and draws a lease salt. The caller wipes them.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] and [`ErrorKind::Io`] when there is no memory of the kind that `lock` asks for.
    pub(crate) fn new(
        account: AccountId,
        generation: Generation,
        secrets: Secrets<'_>,
        lock: MemoryLock,
    ) -> Result<Self, Error> {
        let prks = Prks::extract(account, generation, secrets, lock)?;
        let kcv = prks.kcv();
        Ok(Self { account, generation, engine: Engine::default(), prks, kcv })
    }

    /// The same keys, used by another implementation of the suite.
    #[must_use]
    pub(crate) fn with_engine(self, engine: Engine) -> Self {
        Self { engine, ..self }
    }

    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) const fn suite(&self) -> Suite {
        self.prks.suite()
    }

    /// Names all keys of the generation.
    #[cfg(test)]
    pub(crate) const fn kcv(&self) -> &Kcv {
        &self.kcv
    }

    /// What a record is sealed and verified under.
    pub(crate) const fn prks(&self) -> &Prks {
        &self.prks
    }

    /// The MAC of `name` and `parts` under all keys of the generation.
    pub(crate) fn mac(&self, purpose: MacUse, name: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        self.prks.mac(purpose, name, parts)
    }

    /// Compares in constant time.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when `tag` is another MAC.
    pub(crate) fn verify_mac(
        &self,
        purpose: MacUse,
        name: &[u8],
        parts: &[&[u8]],
        tag: &[u8; 32],
    ) -> Result<(), Error> {
        self.prks.verify_mac(purpose, name, parts, tag)
    }

    /// The head of one write at `place`, with a fresh `R`. Intentionally apart from sealing, which copies less that way; one
    /// head is for one seal.
    #[inline]
    pub(crate) fn fresh_head(&self, place: &Place<'_>, now: Moment) -> Head {
        self.head(place, self.prks.inner().fresh_nonce(now))
    }

    /// Encrypts `data` in place, under a head that no other data was sealed under. The tags are for the caller to store.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] beyond [`MAX_BLOCK`](crate::MAX_BLOCK) or [`MAX_AAD`], with `data` untouched, or when
    /// the engine could not work, with `data` wiped.
    #[inline]
    pub(crate) fn seal_in_place(
        &self,
        place: &Place<'_>,
        head: &Head,
        data: &mut [u8],
    ) -> Result<Tags, Error> {
        place.check(data.len())?;
        let inner = self.with_bound(head, place, |dek, bound| {
            self.engine.seal_in_place(Aead::Aes256Gcm, dek, bound, data)
        });
        let sealed = self.cover(place, head, inner, data);
        wipe_unless_ok(sealed, data)
    }

    /// As [`Self::seal_in_place`], from `plain` to `out`, which is as long.
    ///
    /// # Errors
    /// As there, of `out`.
    #[inline]
    pub(crate) fn seal_to(
        &self,
        place: &Place<'_>,
        head: &Head,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<Tags, Error> {
        place.check(plain.len())?;
        let inner = self.with_bound(head, place, |dek, bound| {
            self.engine.seal_to(Aead::Aes256Gcm, dek, bound, plain, out)
        });
        let sealed = self.cover(place, head, inner, out);
        wipe_unless_ok(sealed, out)
    }

    /// As [`Self::seal_with`], for vectors with an `R` that never changes.
    #[cfg(test)]
    pub(crate) fn seal_with_for_tests(
        &self,
        place: &Place<'_>,
        r: Nonce24,
        data: &mut [u8],
    ) -> Result<(Head, Tags), Error> {
        let head = self.head(place, r);
        self.seal_in_place(place, &head, data).map(|tags| (head, tags))
    }

    /// Verifies and decrypts `data` in place, then asks `release`.
    ///
    /// # Errors
    /// As [`Self::open_to`], of `data`.
    #[inline]
    pub(crate) fn open_in_place(
        &self,
        place: &Place<'_>,
        head: &Head,
        tags: &Tags,
        data: &mut [u8],
        release: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        place.check(data.len())?;
        self.check_head(place, head)?;
        let inner = self.uncover(place, head, tags, data);
        let opened = inner.and_then(|tag| self.open_inner(place, head, &tag, data)).and_then(|()| release());
        wipe_unless_ok(opened, data)
    }

    /// Verifies `sealed` and decrypts it to `out`, which is as long, then asks `release`.
    ///
    /// # Errors
    /// With `out` untouched: [`ErrorKind::UnknownGeneration`] when the block was sealed under another AEK (contract A5),
    /// [`ErrorKind::Corrupt`] when its header is not of its place, [`ErrorKind::Limit`] as for sealing. With `out` wiped:
    /// [`ErrorKind::Corrupt`] when it is not authentic, and whatever `release` says.
    #[inline]
    pub(crate) fn open_to(
        &self,
        place: &Place<'_>,
        head: &Head,
        tags: &Tags,
        sealed: &[u8],
        out: &mut [u8],
        release: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        place.check(sealed.len())?;
        self.check_head(place, head)?;
        let opened = match self.prks.outer() {
            None => self.with_bound(head, place, |dek, bound| {
                self.engine.open_to(Aead::Aes256Gcm, dek, bound, &tags.last, sealed, out)
            }),
            Some(outer) => self
                .uncover_to(outer, place, head, tags, sealed, out)
                .and_then(|tag| self.open_inner(place, head, &tag, out)),
        };
        wipe_unless_ok(opened.and_then(|()| release()), out)
    }

    /// The inner layer, in place.
    #[inline]
    fn open_inner(&self, place: &Place<'_>, head: &Head, tag: &Tag, data: &mut [u8]) -> Result<(), Error> {
        self.with_bound(head, place, |dek, bound| {
            self.engine.open_in_place(Aead::Aes256Gcm, dek, bound, tag, data)
        })
    }

    /// What follows the inner layer: in suite 1 nothing.
    #[inline]
    fn cover(
        &self,
        place: &Place<'_>,
        head: &Head,
        inner: Result<Tag, Error>,
        data: &mut [u8],
    ) -> Result<Tags, Error> {
        match (inner, self.prks.outer()) {
            (Ok(tag), None) => Ok(Tags::one(tag)),
            (Ok(tag), Some(outer)) => self.cover_with(outer, place, head, tag, data),
            (Err(error), _) => Err(error),
        }
    }

    /// What comes before the inner layer is opened, and its tag: in suite 1 nothing.
    #[inline]
    fn uncover(&self, place: &Place<'_>, head: &Head, tags: &Tags, data: &mut [u8]) -> Result<Tag, Error> {
        match self.prks.outer() {
            None => Ok(tags.last),
            Some(outer) => self.uncover_in_place(outer, place, head, tags, data),
        }
    }

    #[inline]
    fn head(&self, place: &Place<'_>, r: Nonce24) -> Head {
        let Place { kind, last, id: _, aad: _ } = *place;
        let header = Header { suite: self.suite(), kind, last, generation: self.generation };
        let commitment = match kind {
            Kind::Block => Some(*self.kcv.prefix16()),
            Kind::ObjectFrame => None,
        };
        Head { header, r, commitment }
    }

    /// Refuses a head that is not of this place and these keys, before anything is decrypted.
    #[inline]
    fn check_head(&self, place: &Place<'_>, head: &Head) -> Result<(), Error> {
        let expected = self.head(place, head.r);
        // The suite is pinned by the generation: a frame cannot choose its own.
        if head.header != expected.header {
            return Err(Error::corrupt());
        }
        match (&head.commitment, &expected.commitment) {
            (None, None) => Ok(()),
            (Some(theirs), Some(ours)) if bool::from(theirs.ct_eq(ours)) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::UnknownGeneration,
                "sealed under another AEK: the block is of another account, or of another history of this one",
            )),
        }
    }

    /// Derives the block's inner DEK and puts its AAD together, on the stack.
    #[inline]
    fn with_bound<T>(&self, head: &Head, place: &Place<'_>, call: impl FnOnce(&Dek, Bound<'_>) -> T) -> T {
        let mut dek = Dek::empty();
        self.prks.inner().dek(DekUse::Inner, self.suite(), place.kind, place.id, &head.r, &mut dek);
        self.with_aad(head, place, [], |bound| call(&dek, bound))
    }

    /// The AAD of a layer; `last` is what the outer one adds.
    #[inline]
    fn with_aad<const L: usize, T>(
        &self,
        head: &Head,
        place: &Place<'_>,
        last: [u8; L],
        call: impl FnOnce(Bound<'_>) -> T,
    ) -> T {
        if place.aad.as_bytes().len() + L <= SHORT_AAD {
            self.with_aad_in::<{ AAD_HEAD + SHORT_AAD }, L, T>(head, place, last, call)
        } else {
            self.with_long_aad(head, place, last, call)
        }
    }

    /// Apart, so that the usual path has no frame of 4 KiB.
    #[cold]
    #[inline(never)]
    fn with_long_aad<const L: usize, T>(
        &self,
        head: &Head,
        place: &Place<'_>,
        last: [u8; L],
        call: impl FnOnce(Bound<'_>) -> T,
    ) -> T {
        self.with_aad_in::<{ AAD_HEAD + MAX_AAD + Tag::LEN }, L, T>(head, place, last, call)
    }

    #[inline]
    fn with_aad_in<const N: usize, const L: usize, T>(
        &self,
        head: &Head,
        place: &Place<'_>,
        last: [u8; L],
        call: impl FnOnce(Bound<'_>) -> T,
    ) -> T {
        let callers = place.aad.as_bytes();
        let mut aad = [0; N];
        aad[..8].copy_from_slice(&head.header.to_bytes());
        aad[8..24].copy_from_slice(self.account.as_bytes());
        aad[24..40].copy_from_slice(place.id.object().as_bytes());
        aad[40..AAD_HEAD].copy_from_slice(&place.id.index().to_be_bytes());
        let end = AAD_HEAD + callers.len();
        aad[AAD_HEAD..end].copy_from_slice(callers);
        aad[end..end + L].copy_from_slice(&last);
        call(Bound { nonce: head.r.aead_nonce(), aad: &aad[..end + L] })
    }
}

impl fmt::Debug for GenerationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GenerationKeys({} generation {})", self.account, self.generation)
    }
}

/// Everything that a block is bound to beside its account, generation and suite, which its keys know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) kind: Kind,
    /// The last frame of its object; false for standalone blocks.
    pub(crate) last: bool,
    pub(crate) id: BlockId,
    pub(crate) aad: Aad<'a>,
}

impl<'a> Place<'a> {
    pub(crate) const fn block(id: BlockId, aad: Aad<'a>) -> Self {
        Self { kind: Kind::Block, last: false, id, aad }
    }

    pub(crate) const fn object_frame(id: BlockId, last: bool) -> Self {
        Self { kind: Kind::ObjectFrame, last, id, aad: Aad::EMPTY }
    }

    /// # Errors
    /// [`ErrorKind::Limit`] beyond [`MAX_BLOCK`](crate::MAX_BLOCK) or [`MAX_AAD`].
    #[inline]
    pub(crate) const fn check(&self, plain_len: usize) -> Result<(), Error> {
        if self.aad.as_bytes().len() > MAX_AAD {
            return Err(Error::new(
                ErrorKind::Limit,
                "an AAD is at most 4096 bytes (MAX_AAD): hash a longer one",
            ));
        }
        check_len(plain_len)
    }
}

/// Takes the result apart, rather than pass it on whole: an error is large, and copying it costs most where there is none.
#[inline]
fn wipe_unless_ok<T>(result: Result<T, Error>, data: &mut [u8]) -> Result<T, Error> {
    match result {
        Ok(done) => Ok(done),
        Err(error) => {
            wipe(data);
            Err(error)
        }
    }
}

/// Zeroes `data` so that no compiler leaves it out.
#[cold]
pub(crate) fn wipe(data: &mut [u8]) {
    data.zeroize();
}

/// header8 || account16 || object16 || index_be8
const AAD_HEAD: usize = Header::LEN + 16 + 16 + 8;

/// What callers usually bind; keeps the buffer at 128 bytes.
const SHORT_AAD: usize = 80;

#[cfg(test)]
mod tests;
