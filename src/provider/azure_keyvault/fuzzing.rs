//! What the fuzz target `azure_answers` holds of an answer. Imports: `provider`, `error`, this provider's own files.

use std::sync::LazyLock;

use azure_core::error::ErrorKind;
use azure_core::http::headers::{Headers, WWW_AUTHENTICATE};
use azure_core::http::{RawResponse, StatusCode, Url};
use azure_security_keyvault_keys::models::Key;
use serde::de::IgnoredAny;

use super::Kind;
use super::classify::{self, Operation};
use super::describe::of_key;
use super::wire::{Place, parsed};
use crate::provider::{ErrorClass, KekUri, ProviderError};

/// Only the service's own words refuse, and of those only codes are repeated; what is read of a success is about the very key.
pub(crate) fn answer(asked: u8, status: u16, body: &[u8]) {
    let operation =
        [Operation::Wrap, Operation::Unwrap, Operation::Describe][usize::from(asked % 4).saturating_sub(1)];
    let mut headers = Headers::new();
    let challenged = asked >= 128;
    if challenged {
        headers.insert(WWW_AUTHENTICATE, "Bearer resource=\"https://vault.azure.net\"");
    }
    let status = 100 + status % 500;
    let code = StatusCode::from(status);
    let response = RawResponse::from_bytes(code, headers, body.to_vec());
    let kind =
        ErrorKind::HttpResponse { status: code, error_code: None, raw_response: Some(Box::new(response)) };
    let error = azure_core::Error::new(kind, "fuzz");
    let spoken = is_json_structure(body);
    let judged = classify::call(operation, &error);
    if matches!(judged.class(), ErrorClass::Refused(_)) {
        assert!(spoken || status == 401 && challenged, "{judged}");
        assert!(!matches!(status, 200..=299 | 408 | 429 | 500..), "{judged}");
    }
    says_words_only(&judged);
    let token = classify::token(&error);
    assert!(spoken || token.class() == ErrorClass::Transient, "{token}");
    says_words_only(&token);
    success(body);
}

/// What alone can be the service's words. What stands in fields that are not read need not be valid text.
fn is_json_structure(body: &[u8]) -> bool {
    let begins = body.trim_ascii_start().first().is_some_and(|byte| matches!(byte, b'{' | b'['));
    begins && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

fn says_words_only(error: &ProviderError) {
    let plain = |c: char| c.is_ascii_alphanumeric() || " _:;,.'()".contains(c);
    assert!(error.message().chars().all(plain), "{error}");
}

fn success(body: &[u8]) {
    if let Ok(outcome) = parsed(body, &PLACE, NAME) {
        let kid = format!("{HOST}/keys/{NAME}/{}", outcome.version.as_str());
        assert_eq!(PLACE.version_of(&kid, NAME).ok(), Some(outcome.version), "a version is one of this key");
    }
    let Ok(key) = serde_json::from_slice::<Key>(body) else { return };
    for kind in [Kind::Vault, Kind::ManagedHsm, Kind::ManagedHsmRsa] {
        let uri = KekUri::new("azure-keyvault://fuzz/orders").expect("short");
        if let Ok(info) = of_key(&key, kind, &PLACE, NAME, uri, NOW) {
            assert!(!info.purge_protection || info.soft_delete);
            assert!(kind == Kind::Vault || info.hsm_backed == Some(true));
        }
    }
}

static PLACE: LazyLock<Place> = LazyLock::new(|| Place::of(&Url::parse(HOST).expect("a URL")));
const HOST: &str = "https://contoso.vault.azure.net";
const NAME: &str = "orders";
const NOW: u64 = 1_790_000_000_000_000_000;
