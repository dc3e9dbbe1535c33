//! What a KMS is to this library: the trait, what passes through it, and its typed errors.
//!
//! A provider is called on the library's own threads only; it may block, may hold a runtime
//! of its own, may hang. It never sees data, only the 56 bytes that carry an AEK. Imports: `id`, `error`.

#[cfg(unix)]
mod local;
mod preflight;

use std::fmt;
use std::time::SystemTime;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::{Error, ErrorKind, Refusal};
use crate::id::{AccountId, Generation, Suite};

#[cfg(all(fuzzing, unix))]
pub(crate) use local::fuzzing as local_fuzzing;
#[cfg(unix)]
pub use local::{KeyOptions, KeySummary, LocalKms, VersionSummary};
pub(crate) use preflight::preflight_at;
pub use preflight::{PreflightOutcome, PreflightReport, PreflightStep, Recoverability, Verdict, preflight};

/// A connection to a KMS: it wraps, unwraps and describes (contract B1).
///
/// Implement these three calls, name your [`Authority`], and run `testing::conformance` over the result (feature
/// `testing`). Keep calls shorter than the cache's call deadline where the KMS allows it: a call that
/// outlives the deadline counts as silence, and its late answer never renews a lease.
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// Wraps `secret` under `kek`, in its current version or in the pinned one, binding `context` as
    /// additional data where the KMS has such a thing.
    ///
    /// # Errors
    /// Typed by [`ProviderError`]. A disabled key may still wrap at some services: the library
    /// judges a key by `unwrap` only.
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError>;

    /// Unwraps what `wrap` gave, with the *exact* version named in `wrapped`: never "latest".
    ///
    /// # Errors
    /// Typed by [`ProviderError`]. A URI of another endpoint is [`ErrorClass::Misconfigured`], and must not be
    /// followed: it comes from a record that anyone may have replaced.
    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError>;

    /// The KEK's state (contract B8).
    ///
    /// # Errors
    /// Typed by [`ProviderError`].
    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError>;

    /// Which endpoint and credential the calls go to. Accounts with equal authorities share an in-flight
    /// cap and a circuit breaker, and nothing else is shared (contract B12). Constant for a provider's life.
    fn authority(&self) -> Authority;

    /// Whether `unwrap` proves that the wrap was made by somebody with the right to use the KEK.
    /// False for public-key wraps such as RSA-OAEP, where anyone can mint one.
    fn wrap_is_authentic(&self) -> bool {
        true
    }
}

/// The kind of provider, its endpoint and the credential used there: the bulkhead key, and the
/// first half of every [`KekUri`]. Names only, no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    provider: String,
    endpoint: String,
    credential: String,
}

impl Authority {
    /// The provider's kind (`local`, `vault`, ...) at `endpoint` (a host, a vault name, a file's id).
    #[must_use]
    pub fn new(provider: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self { provider: provider.into(), endpoint: endpoint.into(), credential: String::new() }
    }

    /// Tells apart connections that use different credentials at one endpoint. A name, never the credential.
    #[must_use]
    pub fn with_credential_name(mut self, name: impl Into<String>) -> Self {
        self.credential = name.into();
        self
    }

    /// The provider's kind, as it stands in records.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The URI of the KEK called `name` here. Pure: no call to the KMS.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`] when the URI would exceed [`KekUri::MAX_LEN`] bytes or be empty.
    pub fn uri_of(&self, name: &str) -> Result<KekUri, ProviderError> {
        if name.is_empty() {
            return Err(ProviderError::misconfigured("the KEK has no name"));
        }
        KekUri::new(format!("{}://{}/{name}", self.provider, self.endpoint))
    }

    /// The name of the KEK that `uri` points to.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`] when `uri` belongs to another provider or endpoint.
    pub fn name_of<'u>(&self, uri: &'u KekUri) -> Result<&'u str, ProviderError> {
        uri.as_str()
            .strip_prefix(self.provider.as_str())
            .and_then(|rest| rest.strip_prefix("://"))
            .and_then(|rest| rest.strip_prefix(self.endpoint.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|name| !name.is_empty())
            .ok_or_else(|| ProviderError::misconfigured("the KEK's URI belongs to another endpoint"))
    }
}

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $max:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The longest that is accepted, in bytes.
            pub const MAX_LEN: usize = $max;

            /// Checks that `text` is not empty, not longer than [`Self::MAX_LEN`] and without control characters.
            ///
            /// # Errors
            /// [`ErrorClass::Misconfigured`] otherwise.
            pub fn new(text: impl Into<String>) -> Result<Self, ProviderError> {
                let text = text.into();
                if text.is_empty() || text.len() > Self::MAX_LEN || text.chars().any(char::is_control) {
                    return Err(ProviderError::misconfigured(concat!(
                        $what, " is empty, longer than ", stringify!($max), " bytes, or has control characters"
                    )));
                }
                Ok(Self(text))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

bounded_text! {
    /// Where a KEK is: `provider://endpoint/name`. Built by [`Authority::uri_of`].
    KekUri, 1024, "a KEK's URI"
}

bounded_text! {
    /// One exact version of a KEK, in the provider's own words.
    KekVersion, 256, "a KEK's version"
}

bounded_text! {
    /// How a KMS wrapped, in the provider's own words: `AES-256-GCM`, `RSA-OAEP-256`.
    WrapAlgorithm, 64, "a wrap algorithm"
}

/// A KEK as the embedder names it, and which of its versions to wrap with (contract E2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kek {
    name: String,
    pinned: Option<KekVersion>,
}

impl Kek {
    /// Follows the KEK: new versions are found and adopted.
    #[must_use]
    pub fn latest(name: impl Into<String>) -> Self {
        Self { name: name.into(), pinned: None }
    }

    /// Uses exactly `version` until told otherwise. When that version is disabled the account is
    /// revoked, even though a newer one may exist.
    #[must_use]
    pub fn pinned(name: impl Into<String>, version: KekVersion) -> Self {
        Self { name: name.into(), pinned: Some(version) }
    }

    /// The KEK's name at its provider.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version to wrap with; `None` for the current one.
    #[must_use]
    pub const fn version(&self) -> Option<&KekVersion> {
        self.pinned.as_ref()
    }
}

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
    /// A throw-away value that [`preflight`] wraps and unwraps; never an AEK.
    Preflight,
}

impl WrapRole {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inner => 1,
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
        let mut bytes = [0; WrapInput::LEN];
        bytes[0] = INPUT_VERSION;
        bytes[1] = self.suite.number();
        bytes[2] = self.role.number();
        bytes[3] = self.share;
        bytes[4..8].copy_from_slice(&self.generation.number().to_be_bytes());
        bytes[8..24].copy_from_slice(self.account.as_bytes());
        bytes[24..].copy_from_slice(secret);
        WrapInput(bytes)
    }
}

/// The 56 bytes that a KMS wraps: `ver1 suite1 role1 share1 gen4 account16 secret32`. A multiple of
/// 8 for AES-KW, short enough for RSA-OAEP.
///
/// Wiped when dropped. Intentionally neither `Clone` nor comparable; `Debug` shows no byte.
///
/// ```compile_fail,E0599
/// fn copy(secret: &strongroom::provider::WrapInput) { let _copy: strongroom::provider::WrapInput = secret.clone(); }
/// ```
/// ```
/// fn borrow(secret: &strongroom::provider::WrapInput) { let _view: &strongroom::provider::WrapInput = secret; }
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct WrapInput([u8; Self::LEN]);

impl WrapInput {
    /// Its only length, in bytes.
    pub const LEN: usize = 56;

    /// What a provider got back from its KMS. Wipe your own copy.
    ///
    /// # Errors
    /// [`ErrorClass::Integrity`] when it is not exactly [`Self::LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ProviderError> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(ProviderError::integrity("the KMS unwrapped something that is not an AEK")),
        }
    }

    /// The bytes to wrap. They contain the AEK: hand them to the KMS and nowhere else.
    #[must_use]
    pub const fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The AEK, if everything around it is what `context` says.
    pub(crate) fn secret_for(&self, context: &WrapContext) -> Option<&[u8; 32]> {
        let (head, secret) = self.0.split_first_chunk::<24>()?;
        let expected = context.input(&[0; 32]);
        if head == expected.0.first_chunk::<24>()? { secret.first_chunk::<32>() } else { None }
    }
}

impl fmt::Debug for WrapInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrapInput(..)")
    }
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

/// What a KMS says of a KEK (contract B8).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekInfo {
    /// Where it is.
    pub uri: KekUri,
    /// The exact version that a wrap would use now.
    pub version: KekVersion,
    /// Whether that version may be used.
    pub enabled: bool,
    /// When it expires, if ever.
    pub expires: Option<SystemTime>,
    /// Whether a deleted key can be brought back for some time.
    pub soft_delete: bool,
    /// Whether nobody can cut that time short.
    pub purge_protection: bool,
    /// Whether the KEK lives in a hardware security module; `None` where the KMS does not say.
    pub hsm_backed: Option<bool>,
}

impl KekInfo {
    /// An enabled KEK without expiry or recovery; set the public fields that differ.
    #[must_use]
    pub const fn new(uri: KekUri, version: KekVersion) -> Self {
        Self {
            uri,
            version,
            enabled: true,
            expires: None,
            soft_delete: false,
            purge_protection: false,
            hsm_backed: None,
        }
    }

    /// Whether an accidental or hostile deletion can be undone: soft delete *and* purge protection.
    #[must_use]
    pub const fn recoverable(&self) -> bool {
        self.soft_delete && self.purge_protection
    }
}

/// A KMS call that failed, in one of four classes (contract B1). The class decides about customers'
/// data: choose it with care, and never by HTTP status alone.
#[derive(Clone)]
pub struct ProviderError {
    class: ErrorClass,
    message: String,
    request_id: Option<String>,
}

/// What a failed call means for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The KMS answered and refused: the lease ends at once.
    Refused(Refusal),
    /// No answer, a 5xx, throttling, connection trouble: the lease lives on within its bounds, and grace is earned.
    Transient,
    /// An answer that cannot be right: a wrong AEK, a success that cannot be parsed. No renewal, no grace, an alarm.
    Integrity,
    /// Our own request or set-up is wrong. Treated like [`Self::Integrity`], with another message.
    Misconfigured,
}

impl ProviderError {
    /// The longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 512;

    /// An error of `class`. `message` is for people: no token, no key, no raw response body. It is
    /// cut at [`Self::MAX_MESSAGE`] bytes and freed of control characters.
    #[must_use]
    pub fn new(class: ErrorClass, message: &str) -> Self {
        let end = message.floor_char_boundary_compat(Self::MAX_MESSAGE);
        let message = message[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { class, message, request_id: None }
    }

    /// The KMS answered and refused.
    #[must_use]
    pub fn refused(refusal: Refusal, message: &str) -> Self {
        Self::new(ErrorClass::Refused(refusal), message)
    }

    /// The KMS did not answer, or could not just now.
    #[must_use]
    pub fn transient(message: &str) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// The answer cannot be right.
    #[must_use]
    pub fn integrity(message: &str) -> Self {
        Self::new(ErrorClass::Integrity, message)
    }

    /// Our own request or set-up is wrong.
    #[must_use]
    pub fn misconfigured(message: &str) -> Self {
        Self::new(ErrorClass::Misconfigured, message)
    }

    /// Adds the KMS's id of the request, for its operator's logs.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        let end = id.floor_char_boundary_compat(MAX_REQUEST_ID);
        self.request_id = Some(id[..end].chars().filter(|c| !c.is_control()).collect());
        self
    }

    /// What it means for a lease.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        self.class
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What a control call that met this error returns to its caller.
    pub(crate) fn into_error(self) -> Error {
        let error = match self.class {
            ErrorClass::Refused(refusal) => {
                Error::new(ErrorKind::Revoked, "the customer's KMS refused").with_refusal(refusal)
            }
            ErrorClass::Transient => Error::new(ErrorKind::Unavailable, "the KMS did not answer"),
            ErrorClass::Integrity => {
                Error::new(ErrorKind::Untrusted, "the KMS gave an answer that cannot be right")
            }
            ErrorClass::Misconfigured => Error::new(ErrorKind::Misuse, "the provider is misconfigured"),
        };
        error.with_detail(self.message).with_request_id(self.request_id)
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            ErrorClass::Refused(refusal) => write!(f, "refused ({refusal}): {}", self.message),
            ErrorClass::Transient => write!(f, "transient: {}", self.message),
            ErrorClass::Integrity => write!(f, "integrity: {}", self.message),
            ErrorClass::Misconfigured => write!(f, "misconfigured: {}", self.message),
        }
    }
}

impl fmt::Debug for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderError({self})")
    }
}

impl std::error::Error for ProviderError {}

/// `str::floor_char_boundary` is newer than the MSRV.
trait FloorCharBoundary {
    fn floor_char_boundary_compat(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_compat(&self, at: usize) -> usize {
        (0..=at.min(self.len())).rev().find(|&i| self.is_char_boundary(i)).unwrap_or(0)
    }
}

const CONTEXT_LABEL: &[u8] = b"strongroom/v1 wrap";
const INPUT_VERSION: u8 = 1;
const MAX_REQUEST_ID: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_of_another_endpoint_has_no_name_here() {
        let here = Authority::new("local", "abc");
        let uri = here.uri_of("team/orders").expect("fits");
        assert_eq!(uri.as_str(), "local://abc/team/orders");
        assert_eq!(here.name_of(&uri).expect("ours"), "team/orders");
        for other in
            [Authority::new("local", "ab"), Authority::new("vault", "abc"), Authority::new("local", "abcd")]
        {
            let error = other.name_of(&uri).expect_err("not theirs");
            assert_eq!(error.class(), ErrorClass::Misconfigured);
        }
    }

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
        ];
        for other in elsewhere {
            assert_eq!(input.secret_for(&other), None);
            assert_ne!(context.to_bytes(), other.to_bytes());
        }
    }

    #[test]
    fn messages_are_bounded_and_printable() {
        let error = ProviderError::transient(&"é\n".repeat(1000));
        assert!(error.message().len() <= ProviderError::MAX_MESSAGE && !error.message().contains('\n'));
    }

    #[test]
    fn debug_shows_no_secret() {
        let input = WrapInput::from_slice(&[0xAB; WrapInput::LEN]).expect("right length");
        assert_eq!(format!("{input:?}"), "WrapInput(..)");
        assert!(WrapInput::from_slice(&[0; 55]).is_err());
    }
}
