//! The outer layer of suite 2 (contract A6).
//!
//! ```text
//! C1 || T1 = AES-256-GCM(DEK1, nonce, AAD, plaintext)                        the inner layer: suite 1
//! T'       = T1 xor HKDF-Expand(PRK2, "SRT2" || info, 32)[..16]              a one-time pad
//! C2 || T2 = ChaCha20-Poly1305(DEK2, nonce, AAD || T', C1)                   DEK2 = HKDF-Expand(PRK2, "SRD2" || info, 32)
//! stored     C2 | T' | T2
//! ```
//! `info`, nonce and AAD are those of suite 1; PRK2 comes from a secret of its own. Without PRK2 nothing stored tells of C1 or of
//! T1, so that the outer layer alone hides and authenticates the plaintext, as the inner one alone does. T' is masked apart,
//! rather than encrypted behind C1, so that both layers work within the plaintext's length: in place where pages keep what is
//! around the ciphertext elsewhere, and without memory of our own (FORMAT.md, DESIGN.md section 5).
//!
//! Opening goes the other way round: T2 first, then T1. Imports: those of `block`.

use super::{GenerationKeys, Place};
use crate::derive::{DekUse, Prk};
use crate::engine::{Aead, Bound, Tag};
use crate::error::Error;
use crate::format::frame::{Head, Tags};
use crate::secret::Dek;

impl GenerationKeys {
    /// Seals what the inner layer made of a block once more, in place.
    #[inline(never)]
    pub(super) fn cover_with(
        &self,
        outer: &Prk,
        place: &Place<'_>,
        head: &Head,
        inner: Tag,
        data: &mut [u8],
    ) -> Result<Tags, Error> {
        let masked = self.mask(outer, place, head, inner.0);
        let last = self.with_outer_bound(outer, head, place, masked, |dek, bound| {
            self.engine.seal_in_place(Aead::ChaCha20Poly1305, dek, bound, data)
        })?;
        Ok(Tags { masked: Some(masked), last })
    }

    /// Verifies and removes the outer layer, in place. The inner tag, for the layer below.
    #[inline(never)]
    pub(super) fn uncover_in_place(
        &self,
        outer: &Prk,
        place: &Place<'_>,
        head: &Head,
        tags: &Tags,
        data: &mut [u8],
    ) -> Result<Tag, Error> {
        let masked = tags.masked.ok_or_else(Error::corrupt)?;
        self.with_outer_bound(outer, head, place, masked, |dek, bound| {
            self.engine.open_in_place(Aead::ChaCha20Poly1305, dek, bound, &tags.last, data)
        })?;
        Ok(Tag(self.mask(outer, place, head, masked)))
    }

    /// The same, from `sealed` to `out`, which is as long.
    #[inline(never)]
    pub(super) fn uncover_to(
        &self,
        outer: &Prk,
        place: &Place<'_>,
        head: &Head,
        tags: &Tags,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<Tag, Error> {
        let masked = tags.masked.ok_or_else(Error::corrupt)?;
        self.with_outer_bound(outer, head, place, masked, |dek, bound| {
            self.engine.open_to(Aead::ChaCha20Poly1305, dek, bound, &tags.last, sealed, out)
        })?;
        Ok(Tag(self.mask(outer, place, head, masked)))
    }

    fn with_outer_bound<T>(
        &self,
        outer: &Prk,
        head: &Head,
        place: &Place<'_>,
        masked: [u8; Tag::LEN],
        call: impl FnOnce(&Dek, Bound<'_>) -> T,
    ) -> T {
        let mut dek = Dek::empty();
        outer.dek(DekUse::Outer, self.suite(), place.kind, place.id, &head.r, &mut dek);
        self.with_aad(head, place, masked, |bound| call(&dek, bound))
    }

    /// Hides the inner tag, and uncovers it again.
    fn mask(&self, outer: &Prk, place: &Place<'_>, head: &Head, tag: [u8; Tag::LEN]) -> [u8; Tag::LEN] {
        let mut pad = Dek::empty();
        outer.dek(DekUse::Mask, self.suite(), place.kind, place.id, &head.r, &mut pad);
        let mut masked = tag;
        masked.iter_mut().zip(pad.expose()).for_each(|(byte, pad)| *byte ^= pad);
        masked
    }
}
