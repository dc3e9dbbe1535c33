//! The AEADs: the only file that names their crates.
//!
//! AES-256-GCM (NIST SP 800-38D) and ChaCha20-Poly1305 (RFC 8439), each with a 96-bit nonce and a 128-bit tag, and each twice, with
//! identical bytes: `aws-lc-rs` behind the feature `aws-lc`, and the portable, pure Rust `aes-gcm` and `chacha20poly1305`, which are
//! always there. A [`Dek`] serves one use, and stays where it was derived; the cipher contexts made from it are wiped by their crates
//! when dropped (`aws-lc-rs` frees through `OPENSSL_free`, which cleanses; the portable ones with their feature `zeroize`). The only
//! heap allocations on the path of a block are `aws-lc-rs`'s own, one for each context.
//!
//! Lengths are bounded by the callers, far below what either crate refuses. Imports: `secret`, `error`.

use aes_gcm::aead::inout::InOutBuf;

use crate::error::{Error, ErrorKind};
use crate::secret::{Dek, wash_stack};

/// Which implementation seals and opens. Both give the same bytes: it is a choice of speed, never of format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// `aws-lc-rs` where the feature `aws-lc` is on, which it is by default; else the portable one.
    #[default]
    Fastest,
    /// `aes-gcm` and `chacha20poly1305`: pure Rust.
    Portable,
}

/// Which algorithm. Chosen by the suite, in `block`; no choice of a caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aead {
    Aes256Gcm,
    ChaCha20Poly1305,
}

/// What an AEAD call is about, apart from the key and the data.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    pub(crate) nonce: &'a [u8; 12],
    pub(crate) aad: &'a [u8],
}

/// An authentication tag. Compared by the engines only, in constant time; hence no `PartialEq`.
#[derive(Clone, Copy)]
pub(crate) struct Tag(pub(crate) [u8; Tag::LEN]);

impl Tag {
    pub(crate) const LEN: usize = 16;
}

impl Engine {
    /// Encrypts `data` in place.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when the engine could not work, for want of memory. `data` is then unspecified.
    #[inline]
    pub(crate) fn seal_in_place(
        self,
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        data: &mut [u8],
    ) -> Result<Tag, Error> {
        match self {
            #[cfg(feature = "aws-lc")]
            Self::Fastest => aws_lc::seal_in_place(aead, dek, bound, data),
            _ => portable_seal(aead, dek, bound, data.into()),
        }
    }

    /// Encrypts `plain` to `out`, which is as long.
    ///
    /// # Errors
    /// As [`Self::seal_in_place`].
    #[inline]
    pub(crate) fn seal_to(
        self,
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<Tag, Error> {
        match self {
            #[cfg(feature = "aws-lc")]
            Self::Fastest => aws_lc::seal_to(aead, dek, bound, plain, out),
            _ => portable_seal(aead, dek, bound, in_out(plain, out)),
        }
    }

    /// Verifies and decrypts `data` in place.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`]. `data` is then unspecified: the caller wipes it.
    #[inline]
    pub(crate) fn open_in_place(
        self,
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        tag: &Tag,
        data: &mut [u8],
    ) -> Result<(), Error> {
        match self {
            #[cfg(feature = "aws-lc")]
            Self::Fastest => aws_lc::open_in_place(aead, dek, bound, tag, data),
            _ => portable_open(aead, dek, bound, tag, data.into()),
        }
    }

    /// Verifies `sealed` and decrypts it to `out`, which is as long.
    ///
    /// # Errors
    /// As [`Self::open_in_place`], of `out`.
    #[inline]
    pub(crate) fn open_to(
        self,
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        tag: &Tag,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), Error> {
        match self {
            #[cfg(feature = "aws-lc")]
            Self::Fastest => aws_lc::open_to(aead, dek, bound, tag, sealed, out),
            _ => portable_open(aead, dek, bound, tag, in_out(sealed, out)),
        }
    }
}

fn portable_seal(aead: Aead, dek: &Dek, bound: Bound<'_>, data: InOutBuf<'_, '_, u8>) -> Result<Tag, Error> {
    let sealed = portable::seal(aead, dek, bound, data);
    wash_stack::<{ portable::STACK }>();
    sealed
}

fn portable_open(
    aead: Aead,
    dek: &Dek,
    bound: Bound<'_>,
    tag: &Tag,
    data: InOutBuf<'_, '_, u8>,
) -> Result<(), Error> {
    let opened = portable::open(aead, dek, bound, tag, data);
    wash_stack::<{ portable::STACK }>();
    opened
}

fn in_out<'a, 'b>(from: &'a [u8], to: &'b mut [u8]) -> InOutBuf<'a, 'b, u8> {
    InOutBuf::new(from, to).expect("callers give an output as long as the input")
}

const fn engine_failed() -> Error {
    Error::new(ErrorKind::Limit, "the cipher could not work, for want of memory")
}

/// The portable ciphers are wiped when they are dropped, but not the copies that moving them left on the stack: the key and, of AES,
/// half of the key schedule. Kept out of line, so that all of that lies below the callers, who wash it away.
mod portable {
    use aes_gcm::aead::consts::{U12, U16, U32};
    use aes_gcm::aead::inout::InOutBuf;
    use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, KeySizeUser};
    use chacha20poly1305::ChaCha20Poly1305;

    use super::{Aead, Bound, Dek, Error, Tag, engine_failed};

    /// How deep it goes, with room to spare; unoptimised code goes deeper.
    pub(super) const STACK: usize = if cfg!(debug_assertions) { 64 * 1024 } else { 4 * 1024 };

    #[inline(never)]
    pub(super) fn seal(
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<Tag, Error> {
        match aead {
            Aead::Aes256Gcm => seal_with::<Aes256Gcm>(dek, bound, data),
            Aead::ChaCha20Poly1305 => seal_with::<ChaCha20Poly1305>(dek, bound, data),
        }
    }

    #[inline(never)]
    pub(super) fn open(
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        tag: &Tag,
        data: InOutBuf<'_, '_, u8>,
    ) -> Result<(), Error> {
        match aead {
            Aead::Aes256Gcm => open_with::<Aes256Gcm>(dek, bound, tag, data),
            Aead::ChaCha20Poly1305 => open_with::<ChaCha20Poly1305>(dek, bound, tag, data),
        }
    }

    fn seal_with<A>(dek: &Dek, bound: Bound<'_>, data: InOutBuf<'_, '_, u8>) -> Result<Tag, Error>
    where
        A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + KeySizeUser<KeySize = U32>,
    {
        let tag = A::new(dek.expose().into())
            .encrypt_inout_detached(bound.nonce.into(), bound.aad, data)
            .map_err(|_| engine_failed())?;
        Ok(Tag(tag.into()))
    }

    fn open_with<A>(dek: &Dek, bound: Bound<'_>, tag: &Tag, data: InOutBuf<'_, '_, u8>) -> Result<(), Error>
    where
        A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + KeySizeUser<KeySize = U32>,
    {
        A::new(dek.expose().into())
            .decrypt_inout_detached(bound.nonce.into(), bound.aad, data, (&tag.0).into())
            .map_err(|_| Error::corrupt())
    }
}

#[cfg(feature = "aws-lc")]
mod aws_lc {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    use super::{Aead, Bound, Dek, Error, Tag, engine_failed};

    pub(super) fn seal_in_place(
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        data: &mut [u8],
    ) -> Result<Tag, Error> {
        let mut tag = [0; Tag::LEN];
        key(aead, dek)?
            .seal_in_place_scatter(nonce(bound), Aad::from(bound.aad), data, &[], &mut tag)
            .map_err(|_| engine_failed())?;
        Ok(Tag(tag))
    }

    pub(super) fn seal_to(
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<Tag, Error> {
        let mut tag = [0; Tag::LEN];
        key(aead, dek)?
            .seal_out_of_place_scatter(nonce(bound), Aad::from(bound.aad), plain, out, &[], &mut tag)
            .map_err(|_| engine_failed())?;
        Ok(Tag(tag))
    }

    pub(super) fn open_in_place(
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        tag: &Tag,
        data: &mut [u8],
    ) -> Result<(), Error> {
        key(aead, dek)?
            .open_in_place_separate_tag(nonce(bound), Aad::from(bound.aad), &tag.0, data)
            .map(|_| ())
            .map_err(|_| Error::corrupt())
    }

    pub(super) fn open_to(
        aead: Aead,
        dek: &Dek,
        bound: Bound<'_>,
        tag: &Tag,
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<(), Error> {
        key(aead, dek)?
            .open_separate_gather(nonce(bound), Aad::from(bound.aad), sealed, &tag.0, out)
            .map_err(|_| Error::corrupt())
    }

    /// "Less safe" because its nonces are the caller's: each DEK here sees one invocation.
    fn key(aead: Aead, dek: &Dek) -> Result<LessSafeKey, Error> {
        let algorithm = match aead {
            Aead::Aes256Gcm => &AES_256_GCM,
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        UnboundKey::new(algorithm, dek.expose()).map(LessSafeKey::new).map_err(|_| engine_failed())
    }

    fn nonce(bound: Bound<'_>) -> Nonce {
        Nonce::assume_unique_for_key(*bound.nonce)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENGINES: [Engine; 2] = [Engine::Fastest, Engine::Portable];
    const AEADS: [Aead; 2] = [Aead::Aes256Gcm, Aead::ChaCha20Poly1305];

    proptest! {
        #[test]
        fn both_engines_give_the_same_bytes_in_every_form(
            key: [u8; 32], nonce: [u8; 12],
            aad in prop::collection::vec(any::<u8>(), 0..100),
            plain in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let bound = Bound { nonce: &nonce, aad: &aad };
            for aead in AEADS {
                let mut reference = plain.clone();
                let tag = Engine::Portable.seal_in_place(aead, &Dek::for_tests(key), bound, &mut reference).unwrap();
                for engine in ENGINES {
                    let mut in_place = plain.clone();
                    let tag_in_place = engine.seal_in_place(aead, &Dek::for_tests(key), bound, &mut in_place).unwrap();
                    let mut apart = vec![0; plain.len()];
                    let tag_apart = engine.seal_to(aead, &Dek::for_tests(key), bound, &plain, &mut apart).unwrap();
                    prop_assert_eq!((&in_place, tag_in_place.0), (&reference, tag.0));
                    prop_assert_eq!((&apart, tag_apart.0), (&reference, tag.0));

                    engine.open_in_place(aead, &Dek::for_tests(key), bound, &tag, &mut in_place).unwrap();
                    let mut out = vec![0; plain.len()];
                    engine.open_to(aead, &Dek::for_tests(key), bound, &tag, &reference, &mut out).unwrap();
                    prop_assert_eq!((&in_place, &out), (&plain, &plain));
                }
            }
        }

        #[test]
        fn both_engines_refuse_what_was_changed(
            key: [u8; 32], nonce: [u8; 12], plain in prop::collection::vec(any::<u8>(), 1..300),
            at: prop::sample::Index, bit in 0..8_u32,
        ) {
            let bound = Bound { nonce: &nonce, aad: b"aad" };
            for aead in AEADS {
                let mut sealed = plain.clone();
                let mut tag = Engine::Portable.seal_in_place(aead, &Dek::for_tests(key), bound, &mut sealed).unwrap();
                let flipped = at.index(sealed.len() + Tag::LEN);
                match flipped.checked_sub(sealed.len()) {
                    Some(i) => tag.0[i] ^= 1 << bit,
                    None => sealed[flipped] ^= 1 << bit,
                }
                for engine in ENGINES {
                    let opened = engine.open_in_place(aead, &Dek::for_tests(key), bound, &tag, &mut sealed.clone());
                    prop_assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corrupt);
                    let opened = engine.open_to(aead, &Dek::for_tests(key), bound, &tag, &sealed, &mut vec![0; sealed.len()]);
                    prop_assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corrupt);
                }
            }
        }
    }
}
