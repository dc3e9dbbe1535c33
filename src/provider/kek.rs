//! KEKs as the embedder, the record and the KMS name them. Imports: `provider::error`.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

#[cfg(doc)]
use super::ErrorClass;
use super::ProviderError;

/// A text from outside: bounded, not empty, printable. Stands first, because macros are known from here on.
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
pub(super) use bounded_text;

/// The kind of provider, its endpoint and the credential used there: the bulkhead key, and the
/// first half of every [`KekUri`]. Names only, no secret.
///
/// Cheap to clone: each account holds several.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority(Arc<Names>);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Names {
    provider: Box<str>,
    endpoint: Box<str>,
    credential: Box<str>,
}

impl Authority {
    /// The provider's kind (`local`, `vault`, ...) at `endpoint` (a host, a vault name, a file's id).
    #[must_use]
    pub fn new(provider: impl Into<String>, endpoint: impl Into<String>) -> Self {
        let (provider, endpoint) = (provider.into().into(), endpoint.into().into());
        Self(Arc::new(Names { provider, endpoint, credential: Box::default() }))
    }

    /// Tells apart connections that use different credentials at one endpoint. A name, never the credential.
    #[must_use]
    pub fn with_credential_name(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).credential = name.into().into();
        self
    }

    /// The provider's kind, as it stands in records.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.0.provider
    }

    /// The endpoint that the calls go to.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// The URI of the KEK called `name` here. Pure: no call to the KMS.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`] when the URI would exceed [`KekUri::MAX_LEN`] bytes, when the name is empty, and
    /// when the provider or the endpoint contains a slash, which would make URIs ambiguous.
    pub fn uri_of(&self, name: &str) -> Result<KekUri, ProviderError> {
        if name.is_empty() {
            return Err(ProviderError::misconfigured("the KEK has no name"));
        }
        // Otherwise endpoint `a` with the name `b/c` and endpoint `a/b` with the name `c` would be one URI.
        let Names { provider, endpoint, credential: _ } = &*self.0;
        if provider.contains([':', '/']) || endpoint.contains('/') {
            return Err(ProviderError::misconfigured("a provider or endpoint with a slash has no KEKs"));
        }
        KekUri::new(format!("{provider}://{endpoint}/{name}"))
    }

    /// The name of the KEK that `uri` points to.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`] when `uri` belongs to another provider or endpoint.
    pub fn name_of<'u>(&self, uri: &'u KekUri) -> Result<&'u str, ProviderError> {
        uri.as_str()
            .strip_prefix(&*self.0.provider)
            .and_then(|rest| rest.strip_prefix("://"))
            .and_then(|rest| rest.strip_prefix(&*self.0.endpoint))
            .and_then(|rest| rest.strip_prefix('/'))
            .filter(|name| !name.is_empty())
            .ok_or_else(|| ProviderError::misconfigured("the KEK's URI belongs to another endpoint"))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Names { provider, endpoint, credential } = &*self.0;
        f.debug_struct("Authority")
            .field("provider", provider)
            .field("endpoint", endpoint)
            .field("credential", credential)
            .finish()
    }
}

bounded_text! {
    /// Where a KEK is: `provider://endpoint/name`. Built by [`Authority::uri_of`].
    KekUri, 1024, "a KEK's URI"
}

bounded_text! {
    /// One exact version of a KEK, in the provider's own words.
    KekVersion, 256, "a KEK's version"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;

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
    fn a8_no_two_endpoints_share_a_uri() {
        assert!(Authority::new("vault", "a").uri_of("b/c").is_ok());
        for ambiguous in
            [Authority::new("vault", "a/b"), Authority::new("vault:", "a"), Authority::new("v/w", "a")]
        {
            let error = ambiguous.uri_of("c").expect_err("ambiguous");
            assert_eq!(error.class(), ErrorClass::Misconfigured);
        }
    }
}
