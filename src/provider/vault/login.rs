//! How we sign in: what to send where, and where the secret comes from. Imports: `provider`.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::provider::ProviderError;

/// A token, a secret id or a JWT. Wiped when dropped. Intentionally not comparable; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

/// How a [`VaultTransit`](super::VaultTransit) signs in. Each form takes its secret from a value or from a callback;
/// a callback is asked at every login, so that a secret may change while we run.
///
/// A callback runs on the thread that makes a KMS call and should take milliseconds. Its failure is silence, not a
/// refusal.
#[derive(Clone)]
pub struct Login {
    pub(super) kind: Kind,
    /// Of the auth method, without slashes around it.
    pub(super) mount: String,
    source: Arc<dyn Fn() -> io::Result<SecretText> + Send + Sync>,
}

/// What the secret is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    AppRole { role_id: String },
    Jwt { role: String },
}

impl SecretText {
    /// Takes `text` over; leading and trailing white space, as files end with, does not count.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        let bare = text.trim();
        if bare.len() == text.len() { Self(text) } else { Self(Zeroizing::new(bare.to_owned())) }
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl Login {
    /// A token that somebody else obtained. It is renewed while it is renewable; afterwards every call is refused.
    #[must_use]
    pub fn token(token: SecretText) -> Self {
        Self::token_from(move || Ok(token.clone()))
    }

    /// A token that `source` obtains: for example Vault Agent's sink file, read anew.
    #[must_use]
    pub fn token_from(source: impl Fn() -> io::Result<SecretText> + Send + Sync + 'static) -> Self {
        Self { kind: Kind::Token, mount: "token".to_owned(), source: Arc::new(source) }
    }

    /// The AppRole method, mounted at `approle`.
    #[must_use]
    pub fn app_role(role_id: impl Into<String>, secret_id: SecretText) -> Self {
        Self::app_role_from(role_id, move || Ok(secret_id.clone()))
    }

    /// The same, with a secret id that may change.
    #[must_use]
    pub fn app_role_from(
        role_id: impl Into<String>,
        source: impl Fn() -> io::Result<SecretText> + Send + Sync + 'static,
    ) -> Self {
        let kind = Kind::AppRole { role_id: role_id.into() };
        Self { kind, mount: "approle".to_owned(), source: Arc::new(source) }
    }

    /// The Kubernetes method, mounted at `kubernetes`, with the pod's service account token, which is read from
    /// its usual file at every login: the kubelet replaces it.
    #[must_use]
    pub fn kubernetes(role: impl Into<String>) -> Self {
        Self::jwt_file(role, SERVICE_ACCOUNT_TOKEN).at_mount("kubernetes")
    }

    /// The JWT method, mounted at `jwt`, with the JWT in the file at `path`, read at every login.
    #[must_use]
    pub fn jwt_file(role: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::jwt_from(role, move || fs::read_to_string(&path).map(SecretText::new))
    }

    /// The JWT method, mounted at `jwt`, with a JWT that `source` gives.
    #[must_use]
    pub fn jwt_from(
        role: impl Into<String>,
        source: impl Fn() -> io::Result<SecretText> + Send + Sync + 'static,
    ) -> Self {
        Self { kind: Kind::Jwt { role: role.into() }, mount: "jwt".to_owned(), source: Arc::new(source) }
    }

    /// Signs in at an auth method that is mounted elsewhere, for example `k8s/cluster-7`. Of no effect for a token.
    #[must_use]
    pub fn at_mount(mut self, mount: impl AsRef<str>) -> Self {
        self.mount = mount.as_ref().trim_matches('/').to_owned();
        self
    }

    /// Names the credential for an authority without telling it. A digest stands for what is half a secret.
    pub(super) fn credential_name(&self) -> String {
        let digest = |text: &str| URL_SAFE_NO_PAD.encode(&Sha256::digest(text)[..6]);
        match &self.kind {
            Kind::Token => "token".to_owned(),
            Kind::AppRole { role_id } => format!("{}:{}", self.mount, digest(role_id)),
            Kind::Jwt { role } => format!("{}:{role}", self.mount),
        }
    }

    /// The secret as it is now.
    ///
    /// # Errors
    /// `Transient` when the source fails: it may be another agent that restarts. `Misconfigured` when it is
    /// empty, or no text that a header can carry.
    pub(super) fn secret(&self) -> Result<SecretText, ProviderError> {
        let secret = (self.source)().map_err(|error| {
            // Its kind only: whoever wrote the callback may have put anything into the message.
            let what = format!("the source of the login's secret failed: {}", error.kind());
            ProviderError::transient(&what)
        })?;
        let text = secret.expose();
        if text.is_empty() || text.len() > MAX_SECRET || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ProviderError::misconfigured(
                "the login's secret is empty, longer than 16384 bytes, or not printable ASCII",
            ));
        }
        Ok(secret)
    }

    /// Where to sign in, and with which body; `None` for a token, which needs no login.
    pub(super) fn request(&self, secret: &SecretText) -> Option<(String, Zeroizing<Vec<u8>>)> {
        let body = match &self.kind {
            Kind::Token => return None,
            Kind::AppRole { role_id } => json(&AppRoleBody { role_id, secret_id: secret.expose() }),
            Kind::Jwt { role } => json(&JwtBody { role, jwt: secret.expose() }),
        };
        Some((format!("auth/{}/login", self.mount), body))
    }
}

#[derive(Serialize)]
struct AppRoleBody<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Serialize)]
struct JwtBody<'a> {
    role: &'a str,
    jwt: &'a str,
}

/// `value` as JSON, in a buffer that is wiped. It is counted first and written second: a buffer that grows leaves
/// copies behind.
pub(super) fn json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value)
        .expect("counting cannot fail, and every body here has text keys");
    let mut body = Zeroizing::new(Vec::with_capacity(counter.0));
    serde_json::to_writer(&mut *body, value)
        .expect("writing to memory cannot fail, and it went well just before");
    body
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Login").field(&self.credential_name()).finish()
    }
}

/// Where Kubernetes puts it by default.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Bytes. Generous for a JWT with many claims, and as much as one header may take.
const MAX_SECRET: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_shows_no_secret() {
        let login = Login::app_role("MARK-role-id", SecretText::new("MARK-secret-id"));
        let shown = format!("{login:?} {:?} {}", login.secret().unwrap(), login.credential_name());
        assert!(!shown.contains("MARK"), "{shown}");
        assert!(shown.contains("approle:"), "{shown}");
    }

    #[test]
    fn a_body_is_written_without_growing() {
        let secret = SecretText::new(" s-\"quoted\" \n");
        let (path, body) = Login::jwt_from("r", || Err(io::ErrorKind::NotFound.into()))
            .at_mount("/k8s/one/")
            .request(&secret)
            .unwrap();
        assert_eq!(path, "auth/k8s/one/login");
        assert_eq!(body.as_slice(), br#"{"role":"r","jwt":"s-\"quoted\""}"#);
        assert_eq!(body.capacity(), body.len());
    }

    #[test]
    fn a_source_that_fails_is_silence_and_an_empty_secret_a_mistake() {
        use crate::provider::ErrorClass;
        let failing = Login::jwt_from("r", || Err(io::Error::other("MARK")));
        let error = failing.secret().unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(!error.to_string().contains("MARK"));
        for wrong in ["", " \n", "two words", "\u{e9}"] {
            let error = Login::token(SecretText::new(wrong)).secret().unwrap_err();
            assert_eq!(error.class(), ErrorClass::Misconfigured, "{wrong:?}");
        }
    }
}
