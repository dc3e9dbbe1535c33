//! The AEKs of older generations, sealed under the newest generation's keys, as a record carries them (contract E4).
//!
//! ```text
//! sealed = R24 || ciphertext || tag16
//! key    = HKDF-Expand(PRK of the newest, "SRG1" || be4(older) || R24, 32)        used once
//! nonce  = R24[12..24]
//! AAD    = "strongroom/v1 older" || account16 || be4(newest) || be4(older) || suite1
//! ```
//! Under double encryption that is sealed once more, by ChaCha20-Poly1305 under the key of the second PRK, and ends in a second tag.
//! Imports: `block`, `derive`, `engine`, `secret`, `random`, `id`, `error`.

use zeroize::Zeroizing;

use super::GenerationKeys;
use crate::derive::{Nonce24, OLDER_AAD, Prk, Secrets};
use crate::engine::{Aead, Bound, Tag};
use crate::error::Error;
use crate::id::{Generation, Suite};
use crate::random;
use crate::secret::Dek;

/// The AEK of one generation, as the record's newest one gave it out. Wiped when dropped, and on the heap, because a move
/// would leave a copy.
pub(crate) struct OlderSecrets {
    /// The AEK, or under joint custody both of its shares, and behind it under double encryption the second one.
    bytes: Zeroizing<Vec<u8>>,
    suite: Suite,
}

impl OlderSecrets {
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not as long as the AEKs of its suite.
    pub(crate) fn secrets(&self) -> Result<Secrets<'_>, Error> {
        let (inner, outer) = match self.suite {
            Suite::Aes256Gcm => (self.bytes.as_slice(), None),
            Suite::Double => {
                let (inner, outer) = self.bytes.split_last_chunk().ok_or_else(Error::corrupt)?;
                (inner, Some(outer))
            }
        };
        // One secret, or two shares of it: which of them, the custody of the record tells.
        match inner.len() {
            32 | 64 => Ok(Secrets { inner, outer }),
            _ => Err(Error::corrupt()),
        }
    }
}

impl GenerationKeys {
    /// Seals the AEKs of generation `older` of the same account.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) when the engine could not work.
    pub(crate) fn seal_older(&self, older: Generation, secrets: Secrets<'_>) -> Result<Vec<u8>, Error> {
        let mut r = [0; Nonce24::LEN];
        random::fill(&mut r);
        self.seal_older_with(older, secrets, r)
    }

    /// The same, with an `r` that nothing else was sealed with: for vectors a fixed one.
    pub(crate) fn seal_older_with(
        &self,
        older: Generation,
        secrets: Secrets<'_>,
        r: [u8; Nonce24::LEN],
    ) -> Result<Vec<u8>, Error> {
        let outer = secrets.outer.map_or(&[][..], <[u8; 32]>::as_slice);
        // As long as it will be: growth would leave a copy of an AEK behind.
        let mut sealed = Vec::with_capacity(r.len() + secrets.inner.len() + outer.len() + 2 * Tag::LEN);
        sealed.extend_from_slice(&r);
        sealed.extend_from_slice(secrets.inner);
        sealed.extend_from_slice(outer);
        let r = Nonce24::from_bytes(r);
        for (aead, prk) in self.layers() {
            let tag = self.with_older(prk, older, &r, |dek, bound| {
                self.engine.seal_in_place(aead, dek, bound, &mut sealed[Nonce24::LEN..])
            });
            match tag {
                Ok(Tag(tag)) => sealed.extend_from_slice(&tag),
                Err(error) => {
                    super::wipe(&mut sealed);
                    return Err(error);
                }
            }
        }
        Ok(sealed)
    }

    /// The AEKs of generation `older`, as [`Self::seal_older`] sealed them.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when they were not sealed by these keys for that generation.
    pub(crate) fn open_older(&self, older: Generation, sealed: &[u8]) -> Result<OlderSecrets, Error> {
        let (r, sealed) = sealed.split_first_chunk().ok_or_else(Error::corrupt)?;
        let r = Nonce24::from_bytes(*r);
        let mut secrets = OlderSecrets { bytes: Zeroizing::new(sealed.to_vec()), suite: self.suite() };
        for (aead, prk) in self.layers().rev() {
            let (data, tag) = secrets.bytes.split_last_chunk_mut().ok_or_else(Error::corrupt)?;
            let (tag, len) = (Tag(*tag), data.len());
            self.with_older(prk, older, &r, |dek, bound| {
                self.engine.open_in_place(aead, dek, bound, &tag, data)
            })?;
            secrets.bytes.truncate(len);
        }
        Ok(secrets)
    }

    /// What lies around an older AEK, the innermost first.
    fn layers(&self) -> impl DoubleEndedIterator<Item = (Aead, &Prk)> {
        let outer = self.prks.outer().map(|prk| (Aead::ChaCha20Poly1305, prk));
        [(Aead::Aes256Gcm, self.prks.inner())].into_iter().chain(outer)
    }

    fn with_older<T>(
        &self,
        prk: &Prk,
        older: Generation,
        r: &Nonce24,
        call: impl FnOnce(&Dek, Bound<'_>) -> T,
    ) -> T {
        let mut dek = Dek::empty();
        prk.older_key(older, r, &mut dek);
        let mut aad = Vec::with_capacity(OLDER_AAD.len() + 16 + 4 + 4 + 1);
        aad.extend_from_slice(OLDER_AAD);
        aad.extend_from_slice(self.account.as_bytes());
        aad.extend_from_slice(&self.generation.number().to_be_bytes());
        aad.extend_from_slice(&older.number().to_be_bytes());
        aad.push(self.suite().number());
        call(&dek, Bound { nonce: r.aead_nonce(), aad: &aad })
    }
}
