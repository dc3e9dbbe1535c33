//! Azure Key Vault and Managed HSM (contract B3), through Microsoft's own client and the credential of the user's choice.
//!
//! ```text
//! OnTokio ── AzureKeyVault ── KeyClient ── token policy ── bounded transport ── HTTPS
//!                                             └── the user's TokenCredential, bounded in time
//! ```
//! Imports: `provider`, `error`, `clock`.

mod builder;
mod classify;
mod credential;
mod describe;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod transport;
mod wire;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::Response;
use azure_security_keyvault_keys::KeyClient;
use azure_security_keyvault_keys::models::{KeyClientGetKeyOptions, KeyClientWrapKeyOptions};

pub use azure_core;
pub use builder::AzureKeyVaultBuilder;

use crate::provider::{
    AsyncKeyProvider, Authority, Kek, KekInfo, ProviderError, WrapAlgorithm, WrapContext, WrapInput, Wrapped,
};
use classify::Operation;
use credential::Credential;
use wire::{Outcome, Place};

/// A vault or a Managed HSM, as a [`KeyProvider`](crate::provider::KeyProvider) inside of an
/// [`OnTokio`](crate::provider::OnTokio).
///
/// The credential is yours: any `TokenCredential` of `azure_core` 1.x. Those of the crate `azure_identity` cover managed
/// identities, workload identities and client secrets; `docs/PROVIDERS.md` shows all three, and the roles to grant.
///
/// ```
/// use std::sync::Arc;
/// use strongroom::provider::azure_keyvault::{AzureKeyVault, azure_core::credentials::TokenCredential};
/// use strongroom::provider::{KeyProvider, OnTokio, ProviderError};
/// use tokio::runtime::Handle;
///
/// fn connect(credential: Arc<dyn TokenCredential>, handle: Handle) -> Result<Arc<dyn KeyProvider>, ProviderError> {
///     let vault = AzureKeyVault::vault("https://contoso.vault.azure.net", credential).build()?;
///     Ok(Arc::new(OnTokio::new(vault, handle)))
/// }
/// ```
///
/// | constructor | key | algorithm | a wrap proves that its maker may use the key |
/// |---|---|---|---|
/// | [`Self::vault`] | RSA 2048, 3072, 4096, in software or HSM | RSA-OAEP-256 (RFC 8017, SHA-256) | no: anybody with the public key can make one |
/// | [`Self::managed_hsm`] | oct-HSM 256 | A256KW (RFC 3394) | yes |
/// | [`Self::managed_hsm_rsa`] | RSA-HSM | RSA-OAEP-256 | no |
///
/// Where it proves nothing, attach records with their key's fingerprint
/// ([`Expect::fingerprint`](crate::Expect::fingerprint)). Neither algorithm takes additional data: what is wrapped
/// carries its context inside. A record that names another algorithm is not followed, nor one of another host.
///
/// Versions are the service's own, 32 hexadecimal digits; a wrap takes the version that the service says it used, and an
/// unwrap names it and sees to it that the service used no other. A key's expiry does not stop the service from unwrapping:
/// it is reported in [`KekInfo::expires`]. A disabled key still wraps there, and no longer unwraps.
///
/// Nothing is retried, but for one new token where the service rejects the one that was sent. Calls end by themselves
/// ([`AzureKeyVaultBuilder::call_timeout`]). The runtime needs its timers and I/O (`enable_all`).
///
/// Requests that hold the secret, and the answers that this module and Microsoft's client read, are wiped.
/// Copies of them in the buffers of the transport (`reqwest`, TLS) are not, nor are access tokens, which the
/// client and the credential keep in plain strings for as long as they are valid.
pub struct AzureKeyVault {
    client: KeyClient,
    credential: Arc<Credential>,
    kind: Kind,
    place: Place,
    authority: Authority,
    call_timeout: Duration,
}

/// What the constructor chose: constant for a provider's life, because `wrap_is_authentic` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Vault,
    ManagedHsm,
    ManagedHsmRsa,
}

impl Kind {
    /// The only one that is asked for, and the only one that is accepted in a record.
    const fn algorithm(self) -> &'static str {
        match self {
            Self::Vault | Self::ManagedHsmRsa => "RSA-OAEP-256",
            Self::ManagedHsm => "A256KW",
        }
    }

    const fn is_hsm(self) -> bool {
        matches!(self, Self::ManagedHsm | Self::ManagedHsmRsa)
    }
}

impl AzureKeyVault {
    /// A vault, for example `https://contoso.vault.azure.net`, with RSA keys.
    pub fn vault(
        url: impl Into<String>,
        credential: Arc<dyn azure_core::credentials::TokenCredential>,
    ) -> AzureKeyVaultBuilder {
        AzureKeyVaultBuilder::new(Kind::Vault, url.into(), credential)
    }

    /// A Managed HSM, for example `https://contoso.managedhsm.azure.net`, with AES keys (oct-HSM, 256 bits).
    pub fn managed_hsm(
        url: impl Into<String>,
        credential: Arc<dyn azure_core::credentials::TokenCredential>,
    ) -> AzureKeyVaultBuilder {
        AzureKeyVaultBuilder::new(Kind::ManagedHsm, url.into(), credential)
    }

    /// A Managed HSM with RSA keys, whose wraps anybody can make: prefer [`Self::managed_hsm`].
    pub fn managed_hsm_rsa(
        url: impl Into<String>,
        credential: Arc<dyn azure_core::credentials::TokenCredential>,
    ) -> AzureKeyVaultBuilder {
        AzureKeyVaultBuilder::new(Kind::ManagedHsmRsa, url.into(), credential)
    }

    /// One call, with one new credential where the service rejects the token, bounded in time as a whole.
    async fn ask<T, F>(
        &self,
        operation: Operation,
        send: impl Fn() -> F + Send,
    ) -> Result<Response<T>, ProviderError>
    where
        F: Future<Output = azure_core::Result<Response<T>>> + Send,
        T: Send,
    {
        let twice = async {
            match send().await {
                Err(error) if classify::is_rejected_token(&error) && self.may_ask_again(&error) => {
                    send().await
                }
                answer => answer,
            }
        };
        match tokio::time::timeout(self.call_timeout, twice).await {
            Ok(answer) => answer.map_err(|error| classify::call(operation, &error)),
            Err(_) => Err(ProviderError::transient("Key Vault did not answer in time")),
        }
    }

    /// The client has asked the credential for a token once more already where the answer carried a challenge. What is left
    /// is a credential that hands out the same token from a cache, and an answer without a challenge.
    fn may_ask_again(&self, error: &azure_core::Error) -> bool {
        self.credential.renew() || !classify::has_challenge(error)
    }
}

impl AsyncKeyProvider for AzureKeyVault {
    async fn wrap(&self, kek: &Kek, _: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        let name = wire::key_name(kek.name())?;
        let version = kek.version().map(wire::key_version).transpose()?.map(str::to_owned);
        let algorithm = self.kind.algorithm();
        let send = || {
            let options = KeyClientWrapKeyOptions {
                key_version: version.clone(),
                ..KeyClientWrapKeyOptions::default()
            };
            self.client.wrap_key(name, wire::request(algorithm, secret.expose()), Some(options))
        };
        let answer = self.ask(Operation::Wrap, send).await?;
        let Outcome { version: used, bytes } = wire::result(answer, &self.place, name)?;
        if kek.version().is_some_and(|pinned| *pinned != used) {
            return Err(ProviderError::integrity(
                "Key Vault wrapped with another version than the one asked for",
            ));
        }
        let uri = self.authority.uri_of(kek.name())?;
        Wrapped::new(uri, used, WrapAlgorithm::new(algorithm)?, bytes.to_vec())
    }

    async fn unwrap(&self, wrapped: &Wrapped, _: &WrapContext) -> Result<WrapInput, ProviderError> {
        let name = wire::key_name(self.authority.name_of(wrapped.kek())?)?;
        let version = wire::key_version(wrapped.version())?;
        let algorithm = self.kind.algorithm();
        // A record is anybody's words until its MAC verifies: above all it does not choose a weaker algorithm.
        if wrapped.algorithm().as_str() != algorithm {
            return Err(ProviderError::misconfigured(&format!(
                "the record names another algorithm than {algorithm}, which is the only one that is used here"
            )));
        }
        let send = || self.client.unwrap_key(name, version, wire::request(algorithm, wrapped.bytes()), None);
        let answer = self.ask(Operation::Unwrap, send).await?;
        let Outcome { version: used, bytes } = wire::result(answer, &self.place, name)?;
        if used != *wrapped.version() {
            return Err(ProviderError::integrity(
                "Key Vault unwrapped with another version than the record's",
            ));
        }
        WrapInput::from_slice(&bytes)
    }

    async fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let name = wire::key_name(kek.name())?;
        let version = kek.version().map(wire::key_version).transpose()?.map(str::to_owned);
        let send = || {
            let options =
                KeyClientGetKeyOptions { key_version: version.clone(), ..KeyClientGetKeyOptions::default() };
            self.client.get_key(name, Some(options))
        };
        let answer = self.ask(Operation::Describe, send).await?;
        let uri = self.authority.uri_of(kek.name())?;
        let info = describe::info(answer, self.kind, &self.place, name, uri)?;
        if kek.version().is_some_and(|pinned| *pinned != info.version) {
            return Err(ProviderError::integrity(
                "Key Vault described another version than the one asked for",
            ));
        }
        Ok(info)
    }

    fn authority(&self) -> Authority {
        self.authority.clone()
    }

    fn wrap_is_authentic(&self) -> bool {
        self.kind == Kind::ManagedHsm
    }
}

impl fmt::Debug for AzureKeyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client and the credential may show what they like; it is not shown here.
        f.debug_struct("AzureKeyVault")
            .field("kind", &self.kind)
            .field("authority", &self.authority)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}
