//! The JSON that Vault answers with, read in place: nothing of a secret is copied. Imports: `provider`.

use serde::Deserialize;

use crate::provider::ProviderError;

/// `{"data": ...}`.
#[derive(Deserialize)]
pub(super) struct Data<T> {
    pub(super) data: T,
}

/// `{"auth": ...}`.
#[derive(Deserialize)]
pub(super) struct Auth<T> {
    pub(super) auth: T,
}

/// Of `transit/encrypt`.
#[derive(Deserialize)]
pub(super) struct Encrypted<'a> {
    pub(super) ciphertext: &'a str,
}

/// Of `transit/decrypt`. Intentionally not `Debug`: base64 of an AEK.
#[derive(Deserialize)]
pub(super) struct Decrypted<'a> {
    pub(super) plaintext: &'a str,
}

/// Of `transit/keys`.
#[derive(Deserialize)]
pub(super) struct Key<'a> {
    pub(super) name: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) derived: bool,
    pub(super) latest_version: u32,
    pub(super) min_decryption_version: u32,
    pub(super) min_encryption_version: u32,
    pub(super) deletion_allowed: bool,
    /// OpenBao only: Vault has no soft delete.
    pub(super) soft_deleted: Option<bool>,
}

/// Of a login and of `auth/token/renew-self`. Intentionally not `Debug`: a token.
#[derive(Deserialize)]
pub(super) struct Granted<'a> {
    pub(super) client_token: &'a str,
    /// Seconds; 0 for a token that does not expire.
    pub(super) lease_duration: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// Of `auth/token/lookup-self`.
#[derive(Deserialize)]
pub(super) struct TokenFacts {
    /// Seconds that are left; 0 for a token that does not expire.
    pub(super) ttl: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// What a failed request gets: `{"errors": [...]}`. Nothing that is not Vault answers like that by chance.
#[derive(Deserialize)]
pub(super) struct Errors {
    pub(super) errors: Vec<String>,
}

impl Errors {
    /// `None` when the answer is not Vault's own.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Whether one of them contains `words`.
    pub(super) fn say(&self, words: &str) -> bool {
        self.errors.iter().any(|error| error.contains(words))
    }
}

/// # Errors
/// `Integrity`: a success that cannot be read is an answer that cannot be right.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ProviderError> {
    // The parser's own message may quote what it read.
    serde_json::from_slice(body)
        .map_err(|_| ProviderError::integrity("Vault's answer is a success that cannot be read"))
}
