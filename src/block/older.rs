//! The AEKs of older generations, sealed under the newest generation's keys, as a record carries them (contract E4).
//!
//! ```text
//! sealed = R24 || ciphertext || tag16
//! key    = HKDF-Expand(PRK of the newest, "SRG1" || be4(older) || R24, 32)        used once
//! nonce  = R24[12..24]
//! AAD    = "strongroom/v1 older" || account16 || be4(newest) || be4(older) || suite1
//! ```
//! Imports: `block`, `derive`, `engine`, `secret`, `random`, `id`, `error`.

use zeroize::Zeroizing;

use super::GenerationKeys;
use crate::derive::{Nonce24, OLDER_AAD, Secrets};
use crate::engine::{Bound, Tag};
use crate::error::Error;
use crate::id::Generation;
use crate::random;
use crate::secret::Dek;

/// The AEK of one generation, as the record's newest one gave it out. Wiped when dropped, and on the heap, because a move
/// would leave a copy.
pub(crate) struct OlderSecrets(Zeroizing<Vec<u8>>);

impl OlderSecrets {
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not as long as an AEK.
    pub(crate) fn secrets(&self) -> Result<Secrets<'_>, Error> {
        self.0.as_slice().try_into().map(Secrets::single).map_err(|_| Error::corrupt())
    }
}

impl GenerationKeys {
    /// Seals the AEK of generation `older` of the same account.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) when the engine could not work.
    pub(crate) fn seal_older(&self, older: Generation, secrets: Secrets<'_>) -> Result<Vec<u8>, Error> {
        let mut r = [0; Nonce24::LEN];
        random::fill(&mut r);
        let mut sealed = r.to_vec();
        // As long as it will be: growth would leave a copy of the AEK behind.
        sealed.reserve_exact(secrets.inner.len() + Tag::LEN);
        sealed.extend_from_slice(secrets.inner);
        let tag = self.with_older(older, &Nonce24::from_bytes(r), |dek, bound| {
            self.engine.seal_in_place(dek, bound, &mut sealed[Nonce24::LEN..])
        });
        match tag {
            Ok(Tag(tag)) => {
                sealed.extend_from_slice(&tag);
                Ok(sealed)
            }
            Err(error) => {
                super::wipe(&mut sealed);
                Err(error)
            }
        }
    }

    /// The AEK of generation `older`, as [`Self::seal_older`] sealed it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it was not sealed by these keys for that generation.
    pub(crate) fn open_older(&self, older: Generation, sealed: &[u8]) -> Result<OlderSecrets, Error> {
        let (r, rest) = sealed.split_first_chunk().ok_or_else(Error::corrupt)?;
        let (sealed, tag) = rest.split_last_chunk().ok_or_else(Error::corrupt)?;
        let mut secrets = OlderSecrets(Zeroizing::new(sealed.to_vec()));
        self.with_older(older, &Nonce24::from_bytes(*r), |dek, bound| {
            self.engine.open_in_place(dek, bound, &Tag(*tag), &mut secrets.0)
        })?;
        Ok(secrets)
    }

    fn with_older<T>(&self, older: Generation, r: &Nonce24, call: impl FnOnce(&Dek, Bound<'_>) -> T) -> T {
        let mut dek = Dek::empty();
        self.prks.inner().older_key(older, r, &mut dek);
        let mut aad = Vec::with_capacity(OLDER_AAD.len() + 16 + 4 + 4 + 1);
        aad.extend_from_slice(OLDER_AAD);
        aad.extend_from_slice(self.account.as_bytes());
        aad.extend_from_slice(&self.generation.number().to_be_bytes());
        aad.extend_from_slice(&older.number().to_be_bytes());
        aad.push(self.suite().number());
        call(&dek, Bound { nonce: r.aead_nonce(), aad: &aad })
    }
}
