//! HashiCorp Vault and OpenBao, through their Transit engine (contract B5). Imports: `provider`, `clock`, `error`, `secret`.

mod address;
mod answer;
mod builder;
mod classify;
mod client;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod login;
mod session;
mod wire;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use ureq::http::Method;
use zeroize::Zeroizing;

use self::address::{Address, is_key_name};
use self::answer::{Data, Decrypted, Encrypted, Key, parse};
pub use self::builder::VaultTransitBuilder;
use self::classify::{Asked, Outcome, Sealed, classify, permission_removed};
use self::client::{Ask, Client, Reply};
use self::login::json;
pub use self::login::{Login, SecretText};
use self::session::{Denied, Session, Token};
use super::{
    Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapAlgorithm, WrapContext, WrapInput,
    Wrapped,
};
use crate::clock::{Clock, Moment};
use crate::error::Refusal;
use crate::secret::wash_stack;

/// Keys in a Transit engine of HashiCorp Vault or OpenBao.
///
/// `wrap` is `transit/encrypt`, `unwrap` is `transit/decrypt`, `describe` reads the key; the context is their
/// associated data. The key is an `aes256-gcm96`, `chacha20-poly1305` or `xchacha20-poly1305` one, not derived. Names a
/// KEK as Transit names the key.
///
/// Every call ends by itself within the time that [`timeouts`](VaultTransitBuilder::timeouts) sets, logins included. Blocks its
/// caller; inside of an async service the library calls it on threads of its own.
///
/// What is wiped: our copies of tokens, secret ids and JWTs, the requests, the answers, the buffers of the
/// connections, and the stack. What is not: the pieces that rustls decrypts, until the connection carries its next answer or ends.
///
/// ```no_run
/// use strongroom::provider::vault::{Login, VaultTransit};
///
/// let kms = VaultTransit::builder("https://vault.example.com:8200", Login::kubernetes("orders-service"))
///     .namespace("team-a")
///     .build()?;
/// # Ok::<(), strongroom::provider::ProviderError>(())
/// ```
pub struct VaultTransit {
    address: Address,
    authority: Authority,
    client: Client,
    session: Session,
    sealed: Sealed,
    call_within: Duration,
    clock: Clock,
}

impl VaultTransit {
    /// Begins with `address`, such as `https://vault.example.com:8200`, and a way to sign in there.
    pub fn builder(address: impl Into<String>, login: Login) -> VaultTransitBuilder {
        VaultTransitBuilder::new(address.into(), login)
    }

    fn deadline(&self) -> Moment {
        self.clock.now().plus(self.call_within)
    }

    /// Asks, as whoever we are, and once more after a 403 that a new login may heal. Gives the answer to a success.
    fn call(&self, asked: Asked, path: &str, body: &[u8], deadline: Moment) -> Result<Reply, ProviderError> {
        let method = if asked == Asked::Describe { Method::GET } else { Method::POST };
        let send = |token: &Token| {
            let ask = Ask { method: method.clone(), path, token: Some(&token.header), body };
            let reply = self.client.ask(&ask, deadline)?;
            Ok((classify(asked, &reply, self.sealed), reply))
        };
        let token = self.session.token(&self.client, deadline)?;
        let (mut outcome, mut reply) = send(&token)?;
        if matches!(outcome, Outcome::Denied) {
            match self.session.denied(&token, &self.client, deadline)? {
                Denied::Retry(newer) => (outcome, reply) = send(&newer)?,
                Denied::ByPolicy => {}
            }
        }
        match outcome {
            Outcome::Success => Ok(reply),
            Outcome::Denied => Err(permission_removed()),
            Outcome::Failed(error) => Err(error),
        }
    }

    /// The key as it is now, in the version that `kek` means.
    fn look_at(&self, kek: &Kek, deadline: Moment) -> Result<Found, ProviderError> {
        let name = key_name(kek.name())?;
        let wanted = kek.version().map(version_number).transpose()?;
        let reply =
            self.call(Asked::Describe, &format!("{}/keys/{name}", self.address.mount), b"", deadline)?;
        Found::of(&reply.body, name, wanted, &self.authority)
    }
}

/// A key, seen.
struct Found {
    info: KekInfo,
    number: u32,
    algorithm: WrapAlgorithm,
}

impl Found {
    /// From the description of the key called `name`, in the version `wanted` or else the latest.
    fn of(
        body: &[u8],
        name: &str,
        wanted: Option<u32>,
        authority: &Authority,
    ) -> Result<Self, ProviderError> {
        let key = parse::<Data<Key<'_>>>(body)?.data;
        if key.name != name {
            return Err(ProviderError::integrity("Vault described another key than the one asked for"));
        }
        if !KINDS.contains(&key.kind) || key.derived {
            return Err(ProviderError::misconfigured(
                "the key must be of type aes256-gcm96, chacha20-poly1305 or xchacha20-poly1305, and not derived",
            ));
        }
        if key.soft_deleted == Some(true) {
            return Err(ProviderError::refused(Refusal::KeyGone, "the key is soft-deleted"));
        }
        let number = wanted.unwrap_or(key.latest_version);
        if number == 0 || number > key.latest_version {
            return Err(ProviderError::refused(Refusal::KeyGone, "the key has no such version"));
        }
        // Of a wrap that cannot be unwrapped nobody has any use, so both minima count.
        let enabled = number >= key.min_decryption_version && number >= key.min_encryption_version;
        let mut info = KekInfo::new(authority.uri_of(name)?, KekVersion::new(number.to_string())?);
        info.enabled = enabled;
        info.soft_delete = key.soft_deleted.is_some();
        // What is soft-deleted stays for ever, unless deletion proper is allowed.
        info.purge_protection = info.soft_delete && !key.deletion_allowed;
        Ok(Self { info, number, algorithm: WrapAlgorithm::new(key.kind)? })
    }
}

#[derive(Serialize)]
struct EncryptBody<'a> {
    plaintext: &'a str,
    associated_data: &'a str,
    key_version: u32,
}

#[derive(Serialize)]
struct DecryptBody<'a> {
    ciphertext: &'a str,
    associated_data: &'a str,
}

impl KeyProvider for VaultTransit {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        let answer = self.encrypt(kek, context, secret);
        wash_stack::<STACK>();
        answer
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let answer = self.decrypt(wrapped, context);
        wash_stack::<STACK>();
        answer
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.look_at(kek, self.deadline()).map(|found| found.info)
    }

    fn authority(&self) -> Authority {
        self.authority.clone()
    }
}

/// The calls that carry an AEK, whose stack their callers wash.
impl VaultTransit {
    fn encrypt(
        &self,
        kek: &Kek,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> Result<Wrapped, ProviderError> {
        let deadline = self.deadline();
        // Looked at first, because `encrypt` makes a key that does not exist, if its policy lets it.
        let found = self.look_at(kek, deadline)?;
        if !found.info.enabled {
            return Err(ProviderError::refused(
                Refusal::KeyDisabled,
                "the key's version is below its min_decryption_version or min_encryption_version",
            ));
        }
        let mut plaintext = Zeroizing::new(String::with_capacity(base64_len(WrapInput::LEN)));
        STANDARD.encode_string(secret.expose(), &mut plaintext);
        let body = json(&EncryptBody {
            plaintext: &plaintext,
            associated_data: &STANDARD.encode(context.to_bytes()),
            key_version: found.number,
        });
        let path = format!("{}/encrypt/{}", self.address.mount, key_name(kek.name())?);
        let reply = self.call(Asked::Encrypt, &path, &body, deadline)?;
        let ciphertext = parse::<Data<Encrypted<'_>>>(&reply.body)?.data.ciphertext;
        if version_of(ciphertext) != Some(found.number) {
            return Err(ProviderError::integrity(
                "Vault wrapped with another version than the one asked for",
            ));
        }
        Wrapped::new(found.info.uri, found.info.version, found.algorithm, ciphertext.as_bytes().to_vec())
    }

    fn decrypt(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let deadline = self.deadline();
        let name = key_name(self.authority.name_of(wrapped.kek())?)?;
        let ciphertext = std::str::from_utf8(wrapped.bytes())
            .ok()
            .filter(|text| {
                version_of(text).is_some_and(|number| number.to_string() == wrapped.version().as_str())
            })
            .ok_or_else(|| {
                ProviderError::integrity(
                    "the wrapped bytes are not Transit's, or of another version than the record says",
                )
            })?;
        let associated_data = STANDARD.encode(context.to_bytes());
        let body = json(&DecryptBody { ciphertext, associated_data: &associated_data });
        let path = format!("{}/decrypt/{name}", self.address.mount);
        let reply = self.call(Asked::Decrypt, &path, &body, deadline)?;
        unwrapped(&reply.body)
    }
}

/// The plaintext in an answer to `transit/decrypt`.
fn unwrapped(body: &[u8]) -> Result<WrapInput, ProviderError> {
    let encoded = parse::<Data<Decrypted<'_>>>(body)?.data.plaintext;
    let mut plaintext = Zeroizing::new([0; 64]);
    let length = STANDARD
        .decode_slice(encoded, plaintext.as_mut_slice())
        .map_err(|_| ProviderError::integrity("Vault unwrapped something that is not an AEK"))?;
    WrapInput::from_slice(&plaintext[..length])
}

/// `name`, if it can be a key's.
fn key_name(name: &str) -> Result<&str, ProviderError> {
    if is_key_name(name) {
        return Ok(name);
    }
    Err(ProviderError::misconfigured("a key of Transit has letters, digits, `-`, `_` and `.` in its name"))
}

fn version_number(version: &KekVersion) -> Result<u32, ProviderError> {
    let text = version.as_str();
    text.parse()
        .ok()
        .filter(|number: &u32| *number > 0 && number.to_string() == text)
        .ok_or_else(|| ProviderError::misconfigured("a version at Transit is a number from 1 on"))
}

/// The version that made `ciphertext`, if it is exactly what Transit writes: `vault:vN:` and canonical base64 of a
/// nonce, the input and a tag. Base64 that Vault reads more leniently would be a second name for the same bytes.
fn version_of(ciphertext: &str) -> Option<u32> {
    let (number, encoded) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    let number = number.parse().ok().filter(|parsed: &u32| *parsed > 0 && parsed.to_string() == number)?;
    let bytes = STANDARD.decode(encoded).ok()?;
    (bytes.len() >= SHORTEST_NONCE + WrapInput::LEN + TAG).then_some(number)
}

const fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

impl fmt::Debug for VaultTransit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultTransit")
            .field("base", &self.address.base)
            .field("namespace", &self.address.namespace)
            .field("mount", &self.address.mount)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// Types that take associated data, of 256 bits: an AEK is that strong too.
const KINDS: [&str; 3] = ["aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// As deep as the HTTP client and the copying of its buffers reach, and some more, in bytes.
const STACK: usize = 64 * 1024;

const SHORTEST_NONCE: usize = 12;
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_transit_writes_has_a_version() {
        let bytes = STANDARD.encode([7; SHORTEST_NONCE + WrapInput::LEN + TAG]);
        assert_eq!(version_of(&format!("vault:v12:{bytes}")), Some(12));
        let wrong = [
            String::new(),
            bytes.clone(),
            format!("vault:v0:{bytes}"),
            format!("vault:v01:{bytes}"),
            format!("vault:v-1:{bytes}"),
            format!("vault:v99999999999:{bytes}"),
            format!("vault:v1{bytes}"),
            format!("Vault:v1:{bytes}"),
            format!("vault:v1:{bytes}\n"),
            format!("vault:v1:{bytes}="),
            format!("vault:v1:{}", &bytes[4..]),
        ];
        for wrong in wrong {
            assert_eq!(version_of(&wrong), None, "{wrong:?}");
        }
    }
}
