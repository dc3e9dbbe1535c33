//! The PRKs of one generation, and what is computed under all of them.
//!
//! ```text
//! one key     KCV = KCV1                                          MAC = MAC1(name || 0 || bytes)
//! two keys    KCV = SHA-256("strongroom/v1 both" || KCV1 || KCV2) MAC = MAC2(name || 0 || bytes || MAC1(name || 0 || bytes))
//! ```
//! So whoever names or authenticates something never asks how many keys there are. Imports: `derive`, `id`, `secret`, `error`.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{BOTH_LABEL, Family, Kcv, MacUse, Prk};
use crate::error::Error;
use crate::id::{AccountId, Generation, Suite};
use crate::secret::MemoryLock;

/// What was unwrapped of one generation. Borrowed: whoever holds the secrets wipes them.
#[derive(Clone, Copy)]
pub(crate) struct Secrets<'a> {
    /// 32 bytes, or 64 under joint custody: both shares.
    pub(crate) inner: &'a [u8],
    /// The second AEK, where the suite is double.
    pub(crate) outer: Option<&'a [u8; 32]>,
}

impl<'a> Secrets<'a> {
    /// Those of suite 1.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn single(inner: &'a [u8; 32]) -> Self {
        Self { inner, outer: None }
    }
}

impl fmt::Debug for Secrets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// The keys of one generation: one PRK, or in suite 2 two that are independent of each other. Intentionally not `Clone`.
#[derive(Debug)]
pub(crate) struct Prks {
    inner: Prk,
    outer: Option<Prk>,
}

impl Prks {
    /// HKDF-Extract of each AEK. Draws a new lease salt. The caller wipes `secrets`.
    ///
    /// # Errors
    /// As [`Prk::extract`].
    pub(crate) fn extract(
        account: AccountId,
        generation: Generation,
        secrets: Secrets<'_>,
        lock: MemoryLock,
    ) -> Result<Self, Error> {
        let inner = Prk::extract(account, generation, Family::Inner, secrets.inner, lock)?;
        let outer = match secrets.outer {
            Some(outer) => Some(Prk::extract(account, generation, Family::Outer, outer, lock)?),
            None => None,
        };
        Ok(Self { inner, outer })
    }

    /// The suite follows from how many keys there are: one cannot be had with the keys of another.
    pub(crate) const fn suite(&self) -> Suite {
        match self.outer {
            None => Suite::Aes256Gcm,
            Some(_) => Suite::Double,
        }
    }

    #[inline]
    pub(crate) const fn inner(&self) -> &Prk {
        &self.inner
    }

    #[inline]
    pub(crate) const fn outer(&self) -> Option<&Prk> {
        self.outer.as_ref()
    }

    /// Names all keys of the generation.
    pub(crate) fn kcv(&self) -> Kcv {
        match &self.outer {
            None => self.inner.kcv(),
            Some(outer) => self.inner.kcv().and(&outer.kcv()),
        }
    }

    /// The MAC under all keys: to forge it takes all of them.
    pub(crate) fn mac(&self, purpose: MacUse, name: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        match &self.outer {
            None => self.inner.mac(purpose, name, parts),
            Some(outer) => {
                let inner = Zeroizing::new(self.inner.mac(purpose, name, parts));
                outer.mac_and(purpose, name, parts, inner.as_slice())
            }
        }
    }

    /// Compares in constant time.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when `tag` is not the MAC of just that under these keys.
    pub(crate) fn verify_mac(
        &self,
        purpose: MacUse,
        name: &[u8],
        parts: &[&[u8]],
        tag: &[u8; 32],
    ) -> Result<(), Error> {
        let expected = Zeroizing::new(self.mac(purpose, name, parts));
        if expected.ct_eq(tag).into() { Ok(()) } else { Err(Error::corrupt()) }
    }
}

impl Kcv {
    /// Names two keys by one value: another pair has another one, by the collision resistance of SHA-256.
    pub(crate) fn and(&self, outer: &Self) -> Self {
        let both = Sha256::new().chain_update(BOTH_LABEL).chain_update(self.0).chain_update(outer.0);
        Self(both.finalize().into())
    }
}
