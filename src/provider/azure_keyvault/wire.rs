//! Requests and answers of key operations, in memory that is wiped; names, versions and key identifiers. Imports: `provider`.

use std::borrow::Cow;

use azure_core::Bytes;
use azure_core::base64::{decode_url_safe, encode_url_safe};
use azure_core::http::{RequestContent, Response, Url};
use azure_security_keyvault_keys::ResourceId;
use azure_security_keyvault_keys::models::{KeyOperationParameters, KeyOperationResult};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use super::classify;
use super::transport::wiped;
use crate::provider::{KekVersion, ProviderError};

/// Where this provider's keys are: scheme, host and port, as key identifiers begin.
#[derive(Debug)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn of(url: &Url) -> Self {
        Self(format!("{}://{}", url.scheme(), url.authority()))
    }

    /// The version in `kid`, `https://host/keys/name/version`, if it is of the key called `name` here.
    pub(super) fn version_of(&self, kid: &str, name: &str) -> Result<KekVersion, ProviderError> {
        let id: ResourceId =
            kid.parse().map_err(|_| ProviderError::integrity("Key Vault's answer names no key"))?;
        // Names of keys are compared without case by the service.
        if id.vault_url != self.0 || !id.name.eq_ignore_ascii_case(name) {
            return Err(ProviderError::integrity("Key Vault's answer is about another key"));
        }
        let version =
            id.version.ok_or_else(|| ProviderError::integrity("Key Vault's answer names no version"))?;
        if !is_version(&version) {
            return Err(ProviderError::integrity("Key Vault's answer names a version that is none"));
        }
        KekVersion::new(version)
    }
}

/// What a wrap or an unwrap gave.
pub(super) struct Outcome {
    pub(super) version: KekVersion,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

/// The name of a key: it becomes a part of a path, and the client escapes nothing.
/// <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#object-identifiers>
pub(super) fn key_name(name: &str) -> Result<&str, ProviderError> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits {
        return Ok(name);
    }
    Err(ProviderError::misconfigured(
        "the KEK's name is none of Key Vault's: 1 to 127 letters, digits and hyphens",
    ))
}

/// As [`key_name`].
pub(super) fn key_version(version: &KekVersion) -> Result<&str, ProviderError> {
    if is_version(version.as_str()) {
        return Ok(version.as_str());
    }
    Err(ProviderError::misconfigured("the KEK's version is none of Key Vault's: letters and digits"))
}

fn is_version(text: &str) -> bool {
    (1..=MAX_VERSION).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `{"alg":"...","value":"<base64url>"}`.
pub(super) fn request(algorithm: &str, value: &[u8]) -> RequestContent<KeyOperationParameters> {
    let value = Zeroizing::new(encode_url_safe(value));
    let parts = [r#"{"alg":""#, algorithm, r#"","value":""#, value.as_str(), r#""}"#];
    // Of its full length at once: a vector that grows leaves copies behind.
    let mut json = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        json.extend_from_slice(part.as_bytes());
    }
    wiped(json).into()
}

/// The result of an operation with the key called `name`.
pub(super) fn result(
    answer: Response<KeyOperationResult>,
    place: &Place,
    name: &str,
) -> Result<Outcome, ProviderError> {
    let id = classify::request_id(answer.headers()).map(str::to_owned);
    let body = Bytes::from(answer.into_body());
    let result = parsed(&body, place, name);
    // Microsoft's client copied the answer into memory of its own, which is now ours alone.
    if let Ok(mut memory) = body.try_into_mut() {
        memory.zeroize();
    }
    result.map_err(|error| match id {
        Some(id) => error.with_request_id(&id),
        None => error,
    })
}

pub(super) fn parsed(body: &[u8], place: &Place, name: &str) -> Result<Outcome, ProviderError> {
    let Answer { kid, value } = serde_json::from_slice(body)
        .map_err(|_| ProviderError::integrity("Key Vault's answer is not the result of a key operation"))?;
    let version = place.version_of(&kid, name)?;
    let bytes = decode_url_safe(value)
        .map_err(|_| ProviderError::integrity("Key Vault's answer holds a value that is not base64url"))?;
    Ok(Outcome { version, bytes: Zeroizing::new(bytes) })
}

/// Borrows `value` from the answer, which is wiped: base64url needs no escapes.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    kid: Cow<'a, str>,
    value: &'a str,
}

const MAX_NAME: usize = 127;
/// The service's have 32.
const MAX_VERSION: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_cannot_leave_their_place_in_a_path() {
        for good in ["a", "Orders-2", &"a".repeat(127)] {
            assert_eq!(key_name(good).unwrap(), good);
        }
        for bad in
            ["", "a/b", "..", "a b", "a%2fb", "a?b", "a#b", "{key-version}", "\u{e4}", &"a".repeat(128)]
        {
            assert!(key_name(bad).is_err(), "{bad}");
        }
        for (text, good) in [("0123456789abcdef0123456789abcdef", true), ("../x", false), ("a-b", false)] {
            assert_eq!(key_version(&KekVersion::new(text).unwrap()).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn an_identifier_names_a_version_of_the_very_key() {
        let place = Place::of(&Url::parse("https://Contoso.vault.azure.net:443/").unwrap());
        let version = |kid: &str| place.version_of(kid, "orders");
        assert_eq!(version("https://contoso.vault.azure.net/keys/orders/1a").unwrap().as_str(), "1a");
        assert_eq!(version("https://CONTOSO.vault.azure.net/keys/Orders/1a").unwrap().as_str(), "1a");
        for bad in [
            "",
            "orders/1a",
            "http://contoso.vault.azure.net/keys/orders/1a",
            "https://fabrikam.vault.azure.net/keys/orders/1a",
            "https://contoso.vault.azure.net:8443/keys/orders/1a",
            "https://contoso.vault.azure.net/secrets/orders/1a",
            "https://contoso.vault.azure.net/keys/invoices/1a",
            "https://contoso.vault.azure.net/keys/orders",
            "https://contoso.vault.azure.net/keys/orders/",
            "https://contoso.vault.azure.net/keys/orders/1%0a",
        ] {
            assert_eq!(version(bad).expect_err(bad).class(), crate::provider::ErrorClass::Integrity);
        }
    }

    #[test]
    fn an_answer_is_parsed_or_refused() {
        let place = Place::of(&Url::parse("https://contoso.vault.azure.net").unwrap());
        let kid = "https://contoso.vault.azure.net/keys/orders/1a";
        let good = format!(r#"{{"kid":"{kid}","value":"AQL_","more":{{}}}}"#);
        let outcome = parsed(good.as_bytes(), &place, "orders").unwrap();
        assert_eq!((outcome.version.as_str(), outcome.bytes.as_slice()), ("1a", &[1, 2, 255][..]));
        for end in 0..good.len() {
            assert!(parsed(&good.as_bytes()[..end], &place, "orders").is_err());
        }
        for bad in [
            format!(r#"{{"kid":"{kid}"}}"#),
            format!(r#"{{"kid":"{kid}","value":7}}"#),
            format!(r#"{{"kid":"{kid}","value":"+/=="}}"#),
            format!(r#"[["{kid}","AQL_"]]"#),
        ] {
            assert!(parsed(bad.as_bytes(), &place, "orders").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_is_json_of_exactly_the_length_that_was_taken_for_it() {
        let content = request("A256KW", &[0xFB; 56]);
        let azure_core::http::Body::Bytes(json) = content.body() else { unreachable!("made of bytes") };
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(value["alg"], "A256KW");
        assert_eq!(decode_url_safe(value["value"].as_str().unwrap()).unwrap(), [0xFB; 56]);
    }
}
