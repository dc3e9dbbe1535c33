//! A KMS in memory, for tests: keys, versions, their states, and a table of what was wrapped.
//!
//! It encrypts nothing. What `wrap` hands out is a random handle into the table, so a changed handle is
//! found nowhere and a right one under another context is refused, as authenticated encryption
//! would. Imports: `provider`, `error`, `random`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::SystemTime;

use crate::error::Refusal;
use crate::provider::{
    Authority, Kek, KekInfo, KekVersion, ProviderError, WrapAlgorithm, WrapContext, WrapInput, Wrapped,
};
use crate::random;

/// The table. It knows no endpoint: whoever owns it passes the [`Authority`].
#[derive(Default)]
pub(crate) struct MemoryKms {
    keys: BTreeMap<String, Key>,
    wraps: HashMap<[u8; HANDLE_LEN], Wrap>,
}

/// A KEK and all that can be said of it.
pub(crate) struct Key {
    /// Index `i` is version `i + 1`; whether it is enabled.
    versions: Vec<bool>,
    pub(crate) enabled: bool,
    pub(crate) deleted: bool,
    pub(crate) recoverable: bool,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) hsm_backed: Option<bool>,
}

struct Wrap {
    key: String,
    version: usize,
    context: WrapContext,
    secret: WrapInput,
}

impl MemoryKms {
    /// Makes the key `name` with its first version: enabled and recoverable.
    pub(crate) fn add_key(&mut self, name: &str) {
        let key = Key {
            versions: vec![true],
            enabled: true,
            deleted: false,
            recoverable: true,
            expires: None,
            hsm_backed: None,
        };
        self.keys.insert(name.to_owned(), key);
    }

    /// The key `name`, to change its state; `None` if there never was one.
    pub(crate) fn key_mut(&mut self, name: &str) -> Option<&mut Key> {
        self.keys.get_mut(name)
    }

    pub(crate) fn wrap(
        &mut self,
        authority: &Authority,
        kek: &Kek,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> Result<Wrapped, ProviderError> {
        let uri = authority.uri_of(kek.name())?;
        let key = self.usable_key(kek.name())?;
        let version = match kek.version() {
            Some(pinned) => key.usable_version(pinned)?,
            None => key.usable_version(&version_name(key.versions.len()))?,
        };
        let mut handle = [0; HANDLE_LEN];
        random::fill(&mut handle);
        let secret = WrapInput::from_slice(secret.expose())?;
        let wrap = Wrap { key: kek.name().to_owned(), version, context: *context, secret };
        self.wraps.insert(handle, wrap);
        Wrapped::new(uri, version_name(version), algorithm(), handle.to_vec())
    }

    pub(crate) fn unwrap(
        &self,
        authority: &Authority,
        wrapped: &Wrapped,
        context: &WrapContext,
    ) -> Result<WrapInput, ProviderError> {
        let name = authority.name_of(wrapped.kek())?;
        let version = self.usable_key(name)?.usable_version(wrapped.version())?;
        <[u8; HANDLE_LEN]>::try_from(wrapped.bytes())
            .ok()
            .and_then(|handle| self.wraps.get(&handle))
            .filter(|wrap| wrap.key == name && wrap.version == version && wrap.context == *context)
            .filter(|_| *wrapped.algorithm() == algorithm())
            .ok_or_else(|| ProviderError::integrity("the wrapped bytes do not authenticate"))
            .and_then(|wrap| WrapInput::from_slice(wrap.secret.expose()))
    }

    pub(crate) fn describe(&self, authority: &Authority, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let key = self.key(kek.name())?;
        let version = match kek.version() {
            Some(pinned) => key.number_of(pinned)?,
            None => key.versions.len(),
        };
        let mut info = KekInfo::new(authority.uri_of(kek.name())?, version_name(version));
        info.enabled = key.enabled && key.versions[version - 1];
        info.expires = key.expires;
        info.soft_delete = key.recoverable;
        info.purge_protection = key.recoverable;
        info.hsm_backed = key.hsm_backed;
        Ok(info)
    }

    fn key(&self, name: &str) -> Result<&Key, ProviderError> {
        self.keys
            .get(name)
            .filter(|key| !key.deleted)
            .ok_or_else(|| ProviderError::refused(Refusal::KeyGone, "no such key"))
    }

    fn usable_key(&self, name: &str) -> Result<&Key, ProviderError> {
        let key = self.key(name)?;
        if key.enabled {
            Ok(key)
        } else {
            Err(ProviderError::refused(Refusal::KeyDisabled, "the key is disabled"))
        }
    }
}

impl Key {
    /// Adds a version, enabled; it becomes the current one.
    pub(crate) fn add_version(&mut self) -> KekVersion {
        self.versions.push(true);
        version_name(self.versions.len())
    }

    /// Enables or disables one version; false if there is none of that name.
    pub(crate) fn set_version_enabled(&mut self, version: &KekVersion, enabled: bool) -> bool {
        match self.number_of(version) {
            Ok(number) => {
                self.versions[number - 1] = enabled;
                true
            }
            Err(_) => false,
        }
    }

    /// The version's number: at least 1, at most `versions.len()`.
    fn number_of(&self, version: &KekVersion) -> Result<usize, ProviderError> {
        version
            .as_str()
            .parse::<usize>()
            .ok()
            .filter(|number| (1..=self.versions.len()).contains(number))
            .filter(|number| version_name(*number) == *version)
            .ok_or_else(|| ProviderError::refused(Refusal::KeyGone, "no such version of the key"))
    }

    fn usable_version(&self, version: &KekVersion) -> Result<usize, ProviderError> {
        let number = self.number_of(version)?;
        if self.versions[number - 1] {
            Ok(number)
        } else {
            Err(ProviderError::refused(Refusal::KeyDisabled, "the key's version is disabled"))
        }
    }
}

impl fmt::Debug for MemoryKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryKms").field("keys", &self.keys.len()).field("wraps", &self.wraps.len()).finish()
    }
}

fn version_name(number: usize) -> KekVersion {
    KekVersion::new(number.to_string()).expect("a number is short and printable")
}

fn algorithm() -> WrapAlgorithm {
    WrapAlgorithm::new("TEST-TABLE").expect("a short literal")
}

const HANDLE_LEN: usize = 24;
