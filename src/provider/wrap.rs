//! What a KMS wraps, what it is bound to, and what comes back. Imports: `provider::{error, kek}`, `id`.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

#[cfg(doc)]
use super::ErrorClass;
use super::{KekUri, KekVersion, ProviderError, bounded_text};
use crate::id::{AccountId, Generation, Suite};

/// What a wrap is bound to (contract A4): account, generation, suite, and which secret of them it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WrapContext {
    account: AccountId,
    generation: Generation,
    suite: Suite,
    role: WrapRole,
    share: u8,
}

/// Which of an account's secrets a wrap holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WrapRole {
    /// The AEK.
    Inner,
    /// The second AEK, of an account under double encryption.
    Outer,
    /// A throw-away value that [`preflight`](super::preflight()) wraps and unwraps; never an AEK.
    Preflight,
}

impl WrapRole {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inner => 1,
            Self::Outer => 2,
            Self::Preflight => 255,
        }
    }
}

impl WrapContext {
    /// Length of [`Self::to_bytes`].
    pub const LEN: usize = CONTEXT_LABEL.len() + 16 + 4 + 1 + 1 + 1;

    pub(crate) const fn new(
        account: AccountId,
        generation: Generation,
        suite: Suite,
        role: WrapRole,
    ) -> Self {
        Self { account, generation, suite, role, share: 0 }
    }

    /// The same of another generation.
    pub(crate) const fn of_generation(self, generation: Generation) -> Self {
        Self { generation, ..self }
    }

    /// The same of one share of a secret.
    pub(crate) const fn with_share(self, share: u8) -> Self {
        Self { share, ..self }
    }

    /// A context for tests of a provider.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn for_tests(account: AccountId, generation: Generation) -> Self {
        Self::new(account, generation, Suite::Aes256Gcm, WrapRole::Inner)
    }

    /// The account.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The AEK's generation.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The suite that the AEK is used with.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    pub(crate) const fn role(&self) -> WrapRole {
        self.role
    }

    /// The additional data, for a KMS that takes bytes: label, account, generation (big-endian),
    /// suite, role, share.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let (label, rest) = out.split_at_mut(CONTEXT_LABEL.len());
        label.copy_from_slice(CONTEXT_LABEL);
        rest[..16].copy_from_slice(self.account.as_bytes());
        rest[16..20].copy_from_slice(&self.generation.number().to_be_bytes());
        rest[20] = self.suite.number();
        rest[21] = self.role.number();
        rest[22] = self.share;
        out
    }

    /// The additional data, for a KMS that takes names and values.
    #[must_use]
    pub fn to_pairs(&self) -> [(&'static str, String); 5] {
        [
            ("strongroom-account", self.account.to_string()),
            ("strongroom-generation", self.generation.to_string()),
            ("strongroom-suite", self.suite.number().to_string()),
            ("strongroom-role", self.role.number().to_string()),
            ("strongroom-share", self.share.to_string()),
        ]
    }

    /// The plaintext to wrap: this context and the AEK, so that a swapped wrap is seen also where
    /// the KMS binds no additional data.
    pub(crate) fn input(&self, secret: &[u8; 32]) -> WrapInput {
        let mut input = WrapInput::empty();
        let bytes = &mut input.0;
        bytes[0] = INPUT_VERSION;
        bytes[1] = self.suite.number();
        bytes[2] = self.role.number();
        bytes[3] = self.share;
        bytes[4..8].copy_from_slice(&self.generation.number().to_be_bytes());
        bytes[8..24].copy_from_slice(self.account.as_bytes());
        bytes[24..].copy_from_slice(secret);
        input
    }
}

/// The 56 bytes that a KMS wraps: `ver1 suite1 role1 share1 gen4 account16 secret32`. A multiple of
/// 8 for AES-KW, short enough for RSA-OAEP.
///
/// Wiped when dropped, and on the heap, because every move of bytes on the stack leaves a copy behind that nobody
/// wipes. Intentionally neither `Clone` nor comparable; `Debug` shows no byte.
///
/// ```compile_fail,E0507
/// fn copy(secret: &strongroom::provider::WrapInput) -> strongroom::provider::WrapInput { *secret }
/// ```
/// ```compile_fail,E0277
/// fn copy<T: Clone>(_: T) {}
/// fn example(secret: strongroom::provider::WrapInput) { copy(secret) }
/// ```
/// ```
/// fn give<T>(_: T) {}
/// fn example(secret: strongroom::provider::WrapInput) { give(secret) }
/// ```
pub struct WrapInput(Box<[u8; Self::LEN]>);

impl WrapInput {
    /// Its only length, in bytes.
    pub const LEN: usize = 56;

    /// What a provider got back from its KMS. Wipe your own copy.
    ///
    /// # Errors
    /// [`ErrorClass::Integrity`] when it is not exactly [`Self::LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ProviderError> {
        if bytes.len() != Self::LEN {
            return Err(ProviderError::integrity("the KMS unwrapped something that is not an AEK"));
        }
        let mut input = Self::empty();
        input.0.copy_from_slice(bytes);
        Ok(input)
    }

    /// The bytes to wrap. They contain the AEK: hand them to the KMS and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// For a call that outlives the borrow it was made with.
    #[cfg(feature = "tokio")]
    pub(crate) fn copy_of(other: &Self) -> Self {
        let mut input = Self::empty();
        input.0.copy_from_slice(other.0.as_slice());
        input
    }

    /// Where bytes are to be filled in, at the place that they will keep.
    fn empty() -> Self {
        Self(Box::new([0; Self::LEN]))
    }

    /// The AEK, if everything around it is what `context` says.
    pub(crate) fn secret_for(&self, context: &WrapContext) -> Option<&[u8; 32]> {
        let (head, secret) = self.0.split_first_chunk::<24>()?;
        let expected = context.input(&[0; 32]);
        if head == expected.0.first_chunk::<24>()? { secret.first_chunk::<32>() } else { None }
    }
}

impl Drop for WrapInput {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for WrapInput {}

impl fmt::Debug for WrapInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrapInput(..)")
    }
}

bounded_text! {
    /// How a KMS wrapped, in the provider's own words: `AES-256-GCM`, `RSA-OAEP-256`.
    WrapAlgorithm, 64, "a wrap algorithm"
}

/// A wrapped AEK: ciphertext, and the exact KEK version that made it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Wrapped {
    kek: KekUri,
    version: KekVersion,
    algorithm: WrapAlgorithm,
    bytes: Vec<u8>,
}

impl Wrapped {
    /// The longest wrapped AEK that is accepted, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// The KMS's answer to a wrap.
    ///
    /// # Errors
    /// [`ErrorClass::Integrity`] when `bytes` is empty or longer than [`Self::MAX_LEN`].
    pub fn new(
        kek: KekUri,
        version: KekVersion,
        algorithm: WrapAlgorithm,
        bytes: Vec<u8>,
    ) -> Result<Self, ProviderError> {
        if bytes.is_empty() || bytes.len() > Self::MAX_LEN {
            return Err(ProviderError::integrity("the wrapped AEK is empty or longer than 4096 bytes"));
        }
        Ok(Self { kek, version, algorithm, bytes })
    }

    /// Which KEK wrapped.
    #[must_use]
    pub const fn kek(&self) -> &KekUri {
        &self.kek
    }

    /// Which version of it, exactly.
    #[must_use]
    pub const fn version(&self) -> &KekVersion {
        &self.version
    }

    /// How.
    #[must_use]
    pub const fn algorithm(&self) -> &WrapAlgorithm {
        &self.algorithm
    }

    /// The ciphertext.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrapped")
            .field("kek", &self.kek)
            .field("version", &self.version)
            .field("algorithm", &self.algorithm)
            .field("len", &self.bytes.len())
            .finish()
    }
}

const CONTEXT_LABEL: &[u8] = b"strongroom/v1 wrap";
const INPUT_VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a4_wrapped_plaintext_binds_account_generation_and_suite() {
        let account = AccountId::from_bytes([7; 16]);
        let context = WrapContext::for_tests(account, Generation::FIRST);
        let input = context.input(&[9; 32]);
        assert_eq!(input.secret_for(&context), Some(&[9; 32]));
        let elsewhere = [
            WrapContext::for_tests(AccountId::from_bytes([8; 16]), Generation::FIRST),
            WrapContext::for_tests(account, Generation::new(2).expect("not zero")),
            WrapContext::new(account, Generation::FIRST, Suite::Aes256Gcm, WrapRole::Preflight),
            WrapContext::new(account, Generation::FIRST, Suite::Aes256Gcm, WrapRole::Outer),
            WrapContext::new(account, Generation::FIRST, Suite::Double, WrapRole::Inner),
        ];
        for other in elsewhere {
            assert_eq!(input.secret_for(&other), None);
            assert_ne!(context.to_bytes(), other.to_bytes());
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let input = WrapInput::from_slice(&[0xAB; WrapInput::LEN]).expect("right length");
        assert_eq!(format!("{input:?}"), "WrapInput(..)");
        assert!(WrapInput::from_slice(&[0; 55]).is_err());
    }
}
