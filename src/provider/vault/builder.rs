//! Setting up a [`VaultTransit`]. Imports: `provider`, `clock`.

use std::fmt;
use std::time::Duration;

use ureq::http::HeaderValue;
use zeroize::Zeroizing;

use super::VaultTransit;
use super::address::{Address, Plaintext, is_path};
use super::classify::Sealed;
use super::client::Client;
use super::login::{Login, SecretText};
use super::session::Session;
use super::wire::TlsFiles;
use crate::clock::Clock;
use crate::provider::{Authority, ProviderError};

/// Sets up a [`VaultTransit`]. Nothing is asked of Vault until the first call.
///
/// Nothing is taken from the environment either: no `VAULT_ADDR`, no proxy. The system's root certificates are
/// the exception, where no CA is given; `SSL_CERT_FILE` may name them.
#[derive(Clone)]
#[must_use]
pub struct VaultTransitBuilder {
    address: String,
    login: Login,
    namespace: String,
    mount: String,
    credential: Option<String>,
    tls: TlsFiles,
    plaintext: Plaintext,
    sealed: Sealed,
    connect_within: Duration,
    call_within: Duration,
}

impl VaultTransitBuilder {
    pub(super) fn new(address: String, login: Login) -> Self {
        Self {
            address,
            login,
            namespace: String::new(),
            mount: "transit".to_owned(),
            credential: None,
            tls: TlsFiles::default(),
            plaintext: Plaintext::default(),
            sealed: Sealed::default(),
            connect_within: Duration::from_secs(2),
            call_within: Duration::from_secs(4),
        }
    }

    /// The namespace that the Transit engine and the auth method are in; the root namespace by default.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Where the Transit engine is mounted; `transit` by default.
    pub fn mount(mut self, mount: impl Into<String>) -> Self {
        self.mount = mount.into();
        self
    }

    /// Trusts the CA certificates in `pem` and no others, instead of the system's.
    pub fn ca_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.roots = Some(pem.into());
        self
    }

    /// Shows a certificate of our own in TLS: its chain and its private key, as PEM.
    pub fn client_certificate(mut self, chain: impl Into<Vec<u8>>, key: SecretText) -> Self {
        self.tls.client = Some((chain.into(), Zeroizing::new(key.expose().as_bytes().to_vec())));
        self
    }

    /// How long connecting and a whole call may take, a login on its way included; 2 s and 4 s by default, at most 60 s.
    /// A call that outlives the cache's call deadline counts as silence.
    pub const fn timeouts(mut self, connect: Duration, call: Duration) -> Self {
        self.connect_within = connect;
        self.call_within = call;
        self
    }

    /// Names the credential in the provider's [`Authority`]. The default tells the login's kind and role.
    pub fn credential_name(mut self, name: impl Into<String>) -> Self {
        self.credential = Some(name.into());
        self
    }

    /// Takes "sealed" for a refusal: whoever seals their Vault revokes at once. By default it is silence, because Vault
    /// is sealed after every restart until somebody unseals it.
    pub const fn sealed_counts_as_refused(mut self) -> Self {
        self.sealed = Sealed::Refused;
        self
    }

    /// Allows `http://` to other machines. Tokens and AEKs are then sent in the clear.
    pub const fn allow_plaintext_http(mut self) -> Self {
        self.plaintext = Plaintext::Anywhere;
        self
    }

    /// Checks everything that can be checked without asking Vault.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`](crate::provider::ErrorClass::Misconfigured), saying what is wrong.
    pub fn build(self) -> Result<VaultTransit, ProviderError> {
        let Self {
            address,
            login,
            namespace,
            mount,
            credential,
            tls,
            plaintext,
            sealed,
            connect_within,
            call_within,
        } = self;
        if connect_within.is_zero() || call_within < connect_within || call_within > LONGEST_CALL {
            return Err(ProviderError::misconfigured(
                "the timeouts are above zero, for the call no shorter than for connecting, and at most 60 s",
            ));
        }
        if !is_path(&login.mount) {
            return Err(ProviderError::misconfigured("the login's mount is no path"));
        }
        let address = Address::parse(&address, &namespace, &mount, plaintext)?;
        let namespace = match &address.namespace {
            Some(path) => Some(
                HeaderValue::from_str(path)
                    .map_err(|_| ProviderError::misconfigured("the namespace cannot be sent as a header"))?,
            ),
            None => None,
        };
        let credential = credential.unwrap_or_else(|| login.credential_name());
        Ok(VaultTransit {
            authority: Authority::new("vault", address.endpoint.as_str()).with_credential_name(credential),
            client: Client::new(address.base.clone(), namespace, &tls, connect_within)?,
            session: Session::new(login, sealed, call_within),
            address,
            sealed,
            call_within,
            clock: Clock::System,
        })
    }
}

impl fmt::Debug for VaultTransitBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultTransitBuilder")
            .field("address", &self.address)
            .field("login", &self.login)
            .field("namespace", &self.namespace)
            .field("mount", &self.mount)
            .finish_non_exhaustive()
    }
}

const LONGEST_CALL: Duration = Duration::from_secs(60);
