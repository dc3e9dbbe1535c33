//! What a KMS is to this library: the trait, what passes through it, and its typed errors.
//!
//! A provider is called on the library's own threads only; it may block, may hold a runtime
//! of its own, may hang. It never sees data, only the 56 bytes that carry an AEK. Imports: `id`, `error`.

#[cfg(feature = "tokio")]
mod asynchronous;
#[cfg(feature = "aws-kms")]
pub mod aws_kms;
#[cfg(feature = "azure-keyvault")]
pub mod azure_keyvault;
mod call;
mod error;
mod gate;
mod kek;
#[cfg(unix)]
mod local;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod observed;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
mod preflight;
#[cfg(feature = "vault")]
pub mod vault;
mod wrap;

use std::fmt;

#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncKeyProvider, OnTokio};
pub use call::Asynchronous;
#[cfg(any(test, feature = "testing"))]
pub(crate) use call::{Answer, Calls};
pub(crate) use call::{Caller, block_on, together};
pub use error::{ErrorClass, ProviderError};
pub(crate) use gate::{Gate, Gated};
pub use kek::{Authority, Kek, KekInfo, KekUri, KekVersion};
pub use wrap::{WrapAlgorithm, WrapContext, WrapInput, WrapRole, Wrapped};

use kek::bounded_text;

#[cfg(all(fuzzing, feature = "aws-kms"))]
pub(crate) use aws_kms::fuzzing as aws_kms_fuzzing;
#[cfg(all(fuzzing, feature = "azure-keyvault"))]
pub(crate) use azure_keyvault::fuzzing as azure_fuzzing;
#[cfg(all(fuzzing, unix))]
pub(crate) use local::fuzzing as local_fuzzing;
#[cfg(unix)]
pub use local::{KeyOptions, KeySummary, LocalKms, VersionSummary};
#[cfg(all(fuzzing, feature = "pkcs11"))]
pub(crate) use pkcs11::fuzzing as pkcs11_fuzzing;
pub(crate) use preflight::preflight_at;
pub use preflight::{PreflightOutcome, PreflightReport, PreflightStep, Recoverability, Verdict, preflight};
#[cfg(all(fuzzing, feature = "vault"))]
pub(crate) use vault::fuzzing as vault_fuzzing;

/// A connection to a KMS: it wraps, unwraps and describes (contract B1).
///
/// Implement these three calls, name your [`Authority`], and run `testing::conformance` over the result (feature
/// `testing`). Keep calls shorter than the cache's call deadline where the KMS allows it: a call that
/// outlives the deadline counts as silence, and its late answer never renews a lease. See to it that it ends at all,
/// by a timeout of your own: an authority that holds four calls which never return is not asked again until one does.
///
/// A KMS of one key, in a process's own memory; `docs/PROVIDER.md` in the repository has one before a client.
///
/// ```
/// use strongroom::Refusal;
/// use strongroom::provider::{
///     Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapAlgorithm, WrapContext, WrapInput, Wrapped,
/// };
///
/// /// For a test of an engine, say. A real one encrypts, and binds `context`.
/// #[derive(Debug)]
/// struct OneKey;
///
/// impl KeyProvider for OneKey {
///     fn wrap(&self, kek: &Kek, _: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
///         if kek.name() != "only" {
///             return Err(ProviderError::refused(Refusal::KeyGone, "there is no such key"));
///         }
///         let uri = self.authority().uri_of(kek.name())?;
///         let bytes = secret.expose().map(|byte| !byte).to_vec();
///         Wrapped::new(uri, KekVersion::new("1")?, WrapAlgorithm::new("NOT")?, bytes)
///     }
///
///     fn unwrap(&self, wrapped: &Wrapped, _: &WrapContext) -> Result<WrapInput, ProviderError> {
///         self.authority().name_of(wrapped.kek())?; // refuses a URI of another endpoint
///         let bytes: Vec<u8> = wrapped.bytes().iter().map(|byte| !byte).collect();
///         WrapInput::from_slice(&bytes)
///     }
///
///     fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
///         Ok(KekInfo::new(self.authority().uri_of(kek.name())?, KekVersion::new("1")?))
///     }
///
///     fn authority(&self) -> Authority {
///         Authority::new("example", "one-key")
///     }
/// }
///
/// use strongroom::provider::{Verdict, preflight};
/// assert_eq!(preflight(&OneKey, &Kek::latest("only")).verdict(), Verdict::NotRecoverable);
/// ```
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

    /// The same calls without a thread each, where the provider is asynchronous underneath. Not to be implemented:
    /// nobody outside of this crate can make an [`Asynchronous`]; wrap your `AsyncKeyProvider` in an `OnTokio` (feature `tokio`).
    #[doc(hidden)]
    fn asynchronous(&self) -> Option<Asynchronous<'_>> {
        None
    }
}
