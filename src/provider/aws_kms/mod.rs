//! AWS KMS (contract B4). Imports: `provider`, `clock`, `error`.

mod classify;
mod connection;
mod describe;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod name;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use zeroize::Zeroizing;

use self::connection::{Budget, Connection};
use self::describe::Described;
pub use self::describe::RotationStatus;
use self::name::{KeyArn, Name, Version};
use crate::provider::{
    AsyncKeyProvider, Authority, Kek, KekInfo, ProviderError, WrapAlgorithm, WrapContext, WrapInput, Wrapped,
};

/// AWS KMS through the official SDK: symmetric encryption keys, with the [`WrapContext`] as encryption context.
///
/// It is asynchronous: hand it to [`OnTokio`](crate::provider::OnTokio). The client is yours, with your region,
/// credentials, endpoint and transport; what is done to it is said at [`Self::new`].
///
/// # Names
/// A KEK is named as AWS names keys: key id, key ARN, `alias/NAME` or alias ARN; `mrk-` keys likewise. A bare id or alias
/// means the account of the client's credentials: use ARNs for keys of other accounts, and wherever one process holds
/// credentials of several. Records hold the name as it was given, in a URI with the client's region:
/// `aws-kms://eu-west-1/alias/orders`.
///
/// # Versions
/// The version in a record is the id of the key that wrapped, and of its key material where the service says it:
/// `KEY-ID/KEY-MATERIAL-ID`. Unwrapping addresses that key and no other, whatever an alias points to by now, and the
/// account is the name's. So an alias that is pointed to another key shows as a new version, and so does a rotation of
/// the key material; accounts that follow the latest version are re-wrapped. To wrap under older key material is not
/// possible at AWS and is [`Misconfigured`](crate::provider::ErrorClass::Misconfigured).
///
/// # Permissions
/// `kms:DescribeKey`, `kms:Encrypt`, `kms:Decrypt` on the key itself (not on the alias); [`Self::rotation`] alone needs
/// `kms:GetKeyRotationStatus`. A wrap takes three requests (describe, encrypt, and a decryption that tells the key
/// material), everything else one.
///
/// # Secrets
/// Plaintexts that the SDK hands over are wiped. Those in its own buffers (request and response bodies, TLS) are
/// freed unwiped: the SDK gives no hold on them.
///
/// ```no_run
/// use std::sync::Arc;
/// use strongroom::provider::aws_kms::AwsKms;
/// use strongroom::provider::{Kek, KeyProvider, OnTokio};
/// use strongroom::{AccountId, AccountSpec, AekCache};
/// # async fn example(client: aws_sdk_kms::Client) -> Result<(), Box<dyn std::error::Error>> {
/// // In a tokio service; elsewhere `OnTokio::with_own_runtime(kms)?`.
/// let kms = OnTokio::new(AwsKms::new(&client)?, tokio::runtime::Handle::current());
/// let kms: Arc<dyn KeyProvider> = Arc::new(kms);
/// let kek = Kek::latest("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab");
/// let cache = AekCache::builder().build()?;
/// println!("{}", cache.begin_preflight(Arc::clone(&kms), kek.clone()).await?);
/// let account = cache.begin_create(AccountSpec::new(AccountId::random(), kms, kek)).await?;
/// # Ok(())
/// # }
/// ```
pub struct AwsKms {
    connection: Connection,
    region: String,
    credential: String,
    grant_tokens: Vec<String>,
    timeout: Duration,
}

impl AwsKms {
    /// How long a call may take with all its requests, unless [`Self::timeout`] says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(4);

    /// A provider over `client`, which is copied and not changed.
    ///
    /// In the copy, retries are off, because the library retries by itself, spaced and within its deadlines; operation and
    /// connect time-outs are [`Self::timeout`]; and an answer of more than 64 KiB is an error. All else stays as you set
    /// it: region, credentials and their cache, endpoint (FIPS, dual stack, VPC endpoint), HTTP client, interceptors. When
    /// the service rejects the credentials, they are asked for anew, past the cache, once for a call and at most every 5 s.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`](crate::provider::ErrorClass::Misconfigured) when the client has no region.
    pub fn new(client: &Client) -> Result<Self, ProviderError> {
        let region = client.config().region().map(ToString::to_string).filter(|region| !region.contains('/'));
        Ok(Self {
            connection: Connection::new(client),
            region: region.ok_or_else(|| ProviderError::misconfigured("the AWS client has no region"))?,
            credential: String::new(),
            grant_tokens: Vec::new(),
            timeout: Self::DEFAULT_TIMEOUT,
        })
    }

    /// How long a call may take with all its requests: more than zero. The cache's call deadline counts before it.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tells this connection apart from others with other credentials in the same region, so that one's silence does not
    /// hold up the other. A name, never the credential.
    #[must_use]
    pub fn credential_name(mut self, name: impl Into<String>) -> Self {
        self.credential = name.into();
        self
    }

    /// Grant tokens, at most ten, to send with every request until the grants have spread, which takes minutes at most.
    #[must_use]
    pub fn grant_tokens(mut self, tokens: impl IntoIterator<Item = String>) -> Self {
        self.grant_tokens = tokens.into_iter().collect();
        self
    }

    /// How the KEK's key material is rotated. For people: nothing in this library depends on it. Needs the permission
    /// `kms:GetKeyRotationStatus`, and `kms:DescribeKey` for an alias.
    ///
    /// # Errors
    /// As [`KeyProvider::describe`](crate::provider::KeyProvider::describe).
    pub async fn rotation(&self, kek: &Kek) -> Result<RotationStatus, ProviderError> {
        let budget = Budget::of(self.timeout);
        let name = self.name(kek.name())?;
        // The service takes no alias here.
        let described = self.describe_key(budget, &name, name.as_str()).await?;
        let address = name.address_of(&described.version)?;
        let answer = self
            .connection
            .request("kms:GetKeyRotationStatus", budget, |client, config| {
                client.get_key_rotation_status().key_id(&address).customize().config_override(config).send()
            })
            .await?;
        Ok(RotationStatus::new(&answer))
    }

    fn name(&self, text: &str) -> Result<Name, ProviderError> {
        Name::parse(text, &self.region)
    }

    async fn describe_key(
        &self,
        budget: Budget,
        name: &Name,
        address: &str,
    ) -> Result<Described, ProviderError> {
        let answer = self
            .connection
            .request("kms:DescribeKey", budget, |client, config| {
                client
                    .describe_key()
                    .key_id(address)
                    .set_grant_tokens(self.tokens())
                    .customize()
                    .config_override(config)
                    .send()
            })
            .await?;
        Described::new(answer.key_metadata, name, &self.region)
    }

    async fn encrypt(
        &self,
        budget: Budget,
        name: &Name,
        version: &Version,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> Result<Vec<u8>, ProviderError> {
        let address = name.address_of(version)?;
        let answer = self
            .connection
            .request("kms:Encrypt", budget, |client, config| {
                client
                    .encrypt()
                    .key_id(&address)
                    .plaintext(Blob::new(secret.expose().as_slice()))
                    .set_encryption_context(Some(pairs(context)))
                    .set_grant_tokens(self.tokens())
                    .customize()
                    .config_override(config)
                    .send()
            })
            .await?;
        self.check_answered(name, version, answer.key_id.as_deref())?;
        answer
            .ciphertext_blob
            .map(Blob::into_inner)
            .ok_or_else(|| ProviderError::integrity("kms:Encrypt: the answer holds no ciphertext"))
    }

    /// What was wrapped, and the key material that did so where the service says it.
    async fn decrypt(
        &self,
        budget: Budget,
        name: &Name,
        version: &Version,
        context: &WrapContext,
        bytes: &[u8],
    ) -> Result<(WrapInput, Option<String>), ProviderError> {
        let address = name.address_of(version)?;
        let answer = self
            .connection
            .request("kms:Decrypt", budget, |client, config| {
                client
                    .decrypt()
                    // Without it the ciphertext, which anyone may have replaced, would say which key is used.
                    .key_id(&address)
                    .ciphertext_blob(Blob::new(bytes))
                    .set_encryption_context(Some(pairs(context)))
                    .set_grant_tokens(self.tokens())
                    .customize()
                    .config_override(config)
                    .send()
            })
            .await?;
        let secret = answer.plaintext.map(Blob::into_inner).map(Zeroizing::new);
        self.check_answered(name, version, answer.key_id.as_deref())?;
        let secret =
            secret.ok_or_else(|| ProviderError::integrity("kms:Decrypt: the answer holds no plaintext"))?;
        Ok((WrapInput::from_slice(&secret)?, answer.key_material_id))
    }

    fn check_answered(&self, name: &Name, version: &Version, arn: Option<&str>) -> Result<(), ProviderError> {
        let arn = KeyArn::parse(arn)?;
        name.check(&arn, &self.region)?;
        if arn.key_id == version.key_id {
            return Ok(());
        }
        Err(ProviderError::integrity("another key answered than the one that was addressed"))
    }

    fn tokens(&self) -> Option<Vec<String>> {
        (!self.grant_tokens.is_empty()).then(|| self.grant_tokens.clone())
    }
}

impl AsyncKeyProvider for AwsKms {
    async fn wrap(
        &self,
        kek: &Kek,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> Result<Wrapped, ProviderError> {
        let uri = self.authority().uri_of(kek.name())?;
        let budget = Budget::of(self.timeout);
        let name = self.name(kek.name())?;
        let mut version = match kek.version() {
            Some(pinned) => Version::parse(pinned)?,
            None => self.describe_key(budget, &name, name.as_str()).await?.version,
        };
        let bytes = self.encrypt(budget, &name, &version, context, secret).await?;
        // Encrypt does not say which key material it took, and it may have been rotated since it was described:
        // the ciphertext itself is asked.
        if version.material.is_some() {
            let (_, material) = self.decrypt(budget, &name, &version, context, &bytes).await?;
            if kek.version().is_some() && differ(&version.material, &material) {
                return Err(ProviderError::misconfigured(
                    "the KEK's version is not its current key material, and AWS KMS wraps with that only",
                ));
            }
            version = Version::new(&version.key_id, material.or(version.material).as_deref())?;
        }
        Wrapped::new(uri, version.to_kek_version()?, WrapAlgorithm::new(ALGORITHM)?, bytes)
    }

    async fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let authority = self.authority();
        let name = self.name(authority.name_of(wrapped.kek())?)?;
        let version = Version::parse(wrapped.version())?;
        if wrapped.algorithm().as_str() != ALGORITHM {
            return Err(ProviderError::integrity("AWS KMS did not wrap this: it names another algorithm"));
        }
        let budget = Budget::of(self.timeout);
        let (secret, material) = self.decrypt(budget, &name, &version, context, wrapped.bytes()).await?;
        if differ(&version.material, &material) {
            return Err(ProviderError::integrity("other key material unwrapped than the record names"));
        }
        Ok(secret)
    }

    async fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let uri = self.authority().uri_of(kek.name())?;
        let budget = Budget::of(self.timeout);
        let name = self.name(kek.name())?;
        match kek.version() {
            Some(pinned) => {
                let version = Version::parse(pinned)?;
                let address = name.address_of(&version)?;
                let described = self.describe_key(budget, &name, &address).await?;
                if described.version.key_id != version.key_id {
                    return Err(ProviderError::integrity(
                        "another key answered than the one that was addressed",
                    ));
                }
                described.info(uri, &version)
            }
            None => {
                let described = self.describe_key(budget, &name, name.as_str()).await?;
                described.info(uri, &described.version)
            }
        }
    }

    /// `aws-kms`, the client's region, and [`Self::credential_name`].
    fn authority(&self) -> Authority {
        let authority = Authority::new("aws-kms", self.region.as_str());
        if self.credential.is_empty() {
            authority
        } else {
            authority.with_credential_name(self.credential.as_str())
        }
    }
}

impl fmt::Debug for AwsKms {
    /// Neither the client, which holds credentials, nor the grant tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms")
            .field("region", &self.region)
            .field("credential", &self.credential)
            .field("grant_tokens", &self.grant_tokens.len())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn pairs(context: &WrapContext) -> HashMap<String, String> {
    context.to_pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Where one side does not name the key material there is nothing to compare; the key itself was compared.
fn differ(one: &Option<String>, other: &Option<String>) -> bool {
    one.is_some() && other.is_some() && one != other
}

const ALGORITHM: &str = "SYMMETRIC_DEFAULT";
