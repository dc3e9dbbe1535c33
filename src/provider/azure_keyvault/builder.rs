//! What a connection to a vault is made of, and which hosts it may go to. Imports: `provider`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::policies::Policy;
use azure_core::http::{ClientOptions, RetryOptions, Transport, Url};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};

use super::credential::{Credential, Source};
use super::transport::Bounded;
use super::wire::Place;
use super::{AzureKeyVault, Kind};
use crate::provider::{Authority, ProviderError};

/// Makes an [`AzureKeyVault`].
#[must_use = "nothing is connected until it is built"]
pub struct AzureKeyVaultBuilder {
    kind: Kind,
    url: String,
    credential: Arc<dyn TokenCredential>,
    source: Option<Source>,
    credential_name: Option<String>,
    call_timeout: Duration,
    options: ClientOptions,
    any_host: bool,
}

impl AzureKeyVaultBuilder {
    pub(super) fn new(kind: Kind, url: String, credential: Arc<dyn TokenCredential>) -> Self {
        Self {
            kind,
            url,
            credential,
            source: None,
            credential_name: None,
            call_timeout: DEFAULT_CALL_TIMEOUT,
            options: ClientOptions::default(),
            any_host: false,
        }
    }

    /// How long a call may take as a whole, tokens included: 100 ms to 60 s, by default 4 s. A call that takes longer is
    /// silence of the service.
    pub const fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Transport, logging and telemetry of Microsoft's client. Its retries are switched off whatever this says: the cache
    /// retries, spaced and bounded.
    pub fn client_options(mut self, options: ClientOptions) -> Self {
        self.options = options;
        self
    }

    /// Where a new credential comes from when the service rejects the token of the present one.
    ///
    /// The credentials of `azure_identity` keep a token until five minutes before it ends, and cannot be told that it was
    /// rejected. With this, a new credential, whose cache is empty, is tried once before the rejection counts as the
    /// customer's; without it, the account is closed until the token in the cache has ended.
    pub fn renew_credential_with(
        mut self,
        source: impl Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Tells apart providers that use different credentials at one vault ([`Authority::with_credential_name`]).
    pub fn credential_name(mut self, name: impl Into<String>) -> Self {
        self.credential_name = Some(name.into());
        self
    }

    /// Allows a host that is none of Azure's clouds, for a private cloud or a server of your own. The tokens of
    /// your credential are sent there, if its challenge names a resource that the host belongs to.
    pub const fn allow_host_outside_of_azure(mut self) -> Self {
        self.any_host = true;
        self
    }

    /// Checks all that and makes the provider. Connects to nothing.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`](crate::provider::ErrorClass::Misconfigured) when the URL is not `https://host` or
    /// `https://host:port`, when the host is not one of Azure's for this kind of service, when the timeout is out of
    /// range, and when the client refuses its options.
    pub fn build(self) -> Result<AzureKeyVault, ProviderError> {
        let Self { kind, url, credential, source, credential_name, call_timeout, mut options, any_host } =
            self;
        if !(LEAST_CALL_TIMEOUT..=MOST_CALL_TIMEOUT).contains(&call_timeout) {
            return Err(ProviderError::misconfigured("the call timeout is not between 100 ms and 60 s"));
        }
        let url = checked_url(&url, kind, any_host)?;
        let provider = if kind.is_hsm() { "azure-managed-hsm" } else { "azure-keyvault" };
        let mut authority = Authority::new(provider, url.authority());
        if let Some(name) = credential_name {
            authority = authority.with_credential_name(name);
        }
        options.retry = RetryOptions::none();
        let inner = options.transport.take().unwrap_or_default();
        let bounded: Arc<dyn Policy> = Arc::new(Bounded::new(inner));
        options.transport = Some(Transport::with_policy(bounded));
        let credential = Arc::new(Credential::new(credential, source, call_timeout));
        let tokens: Arc<dyn TokenCredential> = Arc::clone(&credential) as Arc<dyn TokenCredential>;
        let client_options = KeyClientOptions { client_options: options, ..KeyClientOptions::default() };
        let client = KeyClient::new(url.as_str(), tokens, Some(client_options)).map_err(|_| {
            ProviderError::misconfigured("Microsoft's client refuses the vault's URL or options")
        })?;
        Ok(AzureKeyVault { client, credential, kind, place: Place::of(&url), authority, call_timeout })
    }
}

impl fmt::Debug for AzureKeyVaultBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureKeyVaultBuilder")
            .field("kind", &self.kind)
            .field("call_timeout", &self.call_timeout)
            .field("any_host", &self.any_host)
            .finish_non_exhaustive()
    }
}

fn checked_url(text: &str, kind: Kind, any_host: bool) -> Result<Url, ProviderError> {
    let url = Url::parse(text).map_err(|_| ProviderError::misconfigured("the vault's URL is none"))?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    let Some(host) = url.host_str().filter(|_| bare && url.scheme() == "https") else {
        return Err(ProviderError::misconfigured("the vault's URL is not https://host or https://host:port"));
    };
    if !(any_host || url.port().is_none() && is_of_azure(host, kind)) {
        return Err(ProviderError::misconfigured(
            "the host is not one of Azure's for this kind of service: see allow_host_outside_of_azure",
        ));
    }
    Ok(url)
}

/// One label before the domain of a cloud: what a vault's name is.
fn is_of_azure(host: &str, kind: Kind) -> bool {
    let domains: &[&str] = if kind.is_hsm() { &HSM_DOMAINS } else { &VAULT_DOMAINS };
    host.split_once('.').is_some_and(|(name, domain)| !name.is_empty() && domains.contains(&domain))
}

/// Azure, Azure in China (21Vianet), Azure Government.
/// <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates>
const VAULT_DOMAINS: [&str; 3] = ["vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net"];
const HSM_DOMAINS: [&str; 3] =
    ["managedhsm.azure.net", "managedhsm.azure.cn", "managedhsm.usgovcloudapi.net"];

const LEAST_CALL_TIMEOUT: Duration = Duration::from_millis(100);
const MOST_CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Shorter than the longest call deadline of a cache (5 s), so that a call has ended when it is given up.
const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_azure_are_allowed_without_a_word() {
        for (kind, good) in [
            (Kind::Vault, "https://contoso.vault.azure.net"),
            (Kind::Vault, "https://CONTOSO.vault.azure.net/"),
            (Kind::Vault, "https://contoso.vault.azure.net:443"),
            (Kind::Vault, "https://contoso.vault.azure.cn"),
            (Kind::Vault, "https://contoso.vault.usgovcloudapi.net"),
            (Kind::ManagedHsm, "https://contoso.managedhsm.azure.net"),
            (Kind::ManagedHsmRsa, "https://contoso.managedhsm.azure.cn"),
        ] {
            assert!(checked_url(good, kind, false).is_ok(), "{good}");
        }
        for (kind, bad) in [
            (Kind::Vault, "https://contoso.managedhsm.azure.net"),
            (Kind::ManagedHsm, "https://contoso.vault.azure.net"),
            (Kind::Vault, "https://vault.azure.net"),
            (Kind::Vault, "https://.vault.azure.net"),
            (Kind::Vault, "https://a.b.vault.azure.net"),
            (Kind::Vault, "https://contosovault.azure.net"),
            (Kind::Vault, "https://contoso.vault.azure.net.example.com"),
            (Kind::Vault, "https://contoso.vault.azure.net:8443"),
            (Kind::Vault, "https://localhost:8443"),
        ] {
            assert!(checked_url(bad, kind, false).is_err(), "{bad}");
        }
        assert!(checked_url("https://localhost:8443", Kind::Vault, true).is_ok());
    }

    #[test]
    fn a_url_of_more_than_a_host_is_refused_always() {
        for bad in [
            "",
            "contoso.vault.azure.net",
            "http://contoso.vault.azure.net",
            "https://user@contoso.vault.azure.net",
            "https://user:secret@contoso.vault.azure.net",
            "https://contoso.vault.azure.net/keys/orders",
            "https://contoso.vault.azure.net?a=b",
            "https://contoso.vault.azure.net#a",
        ] {
            let error = checked_url(bad, Kind::Vault, true).expect_err(bad);
            assert!(!error.to_string().contains("secret"));
        }
    }
}
