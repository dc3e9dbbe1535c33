//! What an answer, or the want of one, means for a lease. Imports: `provider`, `error`.
//!
//! ```text
//! 403, 404, 409 in Key Vault's own words          refused
//! 401 after the token was renewed                 refused
//! 400 and the like                                misconfigured; of an unwrap: integrity
//! 408, 429, 5xx, no connection, no answer         transient
//! 4xx in nobody's words (a gateway, a proxy)      transient: it is not the KMS that said no
//! ```
//! For tokens: what the login service rejects is refused, its silence is transient.

use std::error::Error as StdError;

use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::{HeaderName, Headers, WWW_AUTHENTICATE};
use serde::Deserialize;

use crate::error::Refusal;
use crate::provider::{ErrorClass, ProviderError};

/// What was asked for: a malformed request has another meaning where the bytes come from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Wrap,
    Unwrap,
    Describe,
}

/// An error of Microsoft's client, in a call to the vault.
pub(super) fn call(operation: Operation, error: &azure_core::Error) -> ProviderError {
    if let Some(own) = chain(error).find_map(|link| link.downcast_ref::<ProviderError>()) {
        return own.clone();
    }
    match error.kind() {
        ErrorKind::HttpResponse { status, raw_response, .. } => match raw_response.as_deref() {
            Some(response) => answer(operation, response),
            None => ProviderError::transient(&format!(
                "an answer of status {} without content",
                u16::from(*status)
            )),
        },
        ErrorKind::Connection => ProviderError::transient("no connection to Key Vault"),
        ErrorKind::Io => ProviderError::transient("the connection to Key Vault broke"),
        ErrorKind::Credential => ProviderError::transient("the credential gives no token"),
        ErrorKind::DataConversion => ProviderError::integrity("Key Vault's answer has not the form of one"),
        // Above all a challenge whose resource is not the vault's domain: nothing is sent to such a host.
        ErrorKind::Other => ProviderError::integrity("Microsoft's client refused the answer"),
    }
}

/// An answer that is no success.
fn answer(operation: Operation, response: &RawResponse) -> ProviderError {
    let status = u16::from(response.status());
    let words = Words::of(response.body());
    let class = class_of(operation, status, words.as_ref(), response.headers());
    let said = words.map_or_else(|| "without Key Vault's words".to_owned(), |words| words.to_string());
    let error = ProviderError::new(class, &format!("Key Vault answered {status}: {said}"));
    match request_id(response.headers()) {
        Some(id) => error.with_request_id(id),
        None => error,
    }
}

fn class_of(operation: Operation, status: u16, words: Option<&Words>, headers: &Headers) -> ErrorClass {
    if matches!(status, 408 | 429 | 500..) {
        return ErrorClass::Transient;
    }
    if (200..300).contains(&status) {
        return ErrorClass::Integrity;
    }
    if status == 401 && (words.is_some() || headers.get_optional_str(&WWW_AUTHENTICATE).is_some()) {
        return ErrorClass::Refused(Refusal::CredentialRejected);
    }
    let Some(words) = words else { return ErrorClass::Transient };
    match (words.innermost(), operation) {
        ("Throttled", _) => ErrorClass::Transient,
        ("KeyDisabled" | "KeyExpired" | "KeyNotYetValid" | "KeyOperationForbidden", _) => {
            ErrorClass::Refused(Refusal::KeyDisabled)
        }
        (
            "AccessDenied"
            | "Forbidden"
            | "ForbiddenByPolicy"
            | "ForbiddenByRbac"
            | "ForbiddenByFirewall"
            | "ForbiddenByConnection",
            _,
        ) => ErrorClass::Refused(Refusal::PermissionRemoved),
        ("KeyNotFound" | "ObjectIsBeingDeleted" | "ObjectIsDeletedButRecoverable", _) => {
            ErrorClass::Refused(Refusal::KeyGone)
        }
        // The bytes of an unwrap come from a record: damaged, or wrapped by another version.
        (_, Operation::Unwrap) if is_malformed(status) => ErrorClass::Integrity,
        _ if is_malformed(status) => ErrorClass::Misconfigured,
        _ => ErrorClass::Refused(Refusal::Unrecognised),
    }
}

const fn is_malformed(status: u16) -> bool {
    matches!(status, 400 | 405 | 411 | 413 | 414 | 415)
}

/// Whether the vault rejected the token that was sent.
pub(super) fn is_rejected_token(error: &azure_core::Error) -> bool {
    error.http_status().is_some_and(|status| u16::from(status) == 401)
}

/// Whether an answer said how to authenticate; the client then has asked for another token by itself.
pub(super) fn has_challenge(error: &azure_core::Error) -> bool {
    let ErrorKind::HttpResponse { raw_response: Some(response), .. } = error.kind() else { return false };
    response.headers().get_optional_str(&WWW_AUTHENTICATE).is_some()
}

/// For the operator of the vault.
pub(super) fn request_id(headers: &Headers) -> Option<&str> {
    headers.get_optional_str(&REQUEST_ID)
}

/// An error of a credential that was asked for a token.
pub(super) fn token(error: &azure_core::Error) -> ProviderError {
    let answered = chain(error).find_map(|link| match link.downcast_ref::<azure_core::Error>()?.kind() {
        ErrorKind::HttpResponse { status, raw_response, .. } => {
            Some((u16::from(*status), raw_response.as_deref()))
        }
        _ => None,
    });
    // Also an answer that cannot be read is none: the credentials of `azure_identity` do not tell its status then.
    let Some((status, response)) = answered else {
        return ProviderError::transient("no token: the login service does not answer, or not as one");
    };
    let Some(rejection) = response.and_then(|response| Rejection::of(response.body())) else {
        return ProviderError::transient(&format!(
            "no token: status {status}, without the login service's words"
        ));
    };
    let class = match (status, rejection.error.as_str()) {
        // An identity service that is starting up or being updated says 404 and 410.
        (404 | 408 | 410 | 429 | 500.., _)
        | (_, "temporarily_unavailable" | "server_error" | "slow_down") => ErrorClass::Transient,
        (_, "invalid_scope" | "invalid_resource" | "invalid_target" | "unsupported_grant_type") => {
            ErrorClass::Misconfigured
        }
        _ => ErrorClass::Refused(Refusal::CredentialRejected),
    };
    ProviderError::new(class, &format!("the login service answered {status}: {rejection}"))
}

/// `{"error":{"code":"Forbidden","message":"..","innererror":{"code":"KeyDisabled"}}}`: the codes, never the message,
/// which names callers and resources.
#[derive(Debug)]
struct Words {
    code: String,
    inner: Option<String>,
}

impl Words {
    fn of(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Outer {
            error: Details,
        }
        #[derive(Deserialize)]
        struct Details {
            code: String,
            #[serde(alias = "innerError")]
            innererror: Option<Inner>,
        }
        #[derive(Deserialize)]
        struct Inner {
            code: Option<String>,
        }
        let Outer { error } = serde_json::from_slice(body).ok()?;
        let inner = error.innererror.and_then(|inner| inner.code);
        Some(Self { code: code(&error.code)?, inner: inner.as_deref().and_then(code) })
    }

    fn innermost(&self) -> &str {
        self.inner.as_deref().unwrap_or(&self.code)
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.inner {
            Some(inner) => write!(f, "{} ({inner})", self.code),
            None => f.write_str(&self.code),
        }
    }
}

/// `{"error":"invalid_client","error_codes":[7000222],..}` (RFC 6749, section 5.2, and Entra ID's numbers).
#[derive(Debug)]
struct Rejection {
    error: String,
    number: Option<u64>,
}

impl Rejection {
    fn of(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            error: String,
            #[serde(default)]
            error_codes: Vec<u64>,
        }
        let Answer { error, error_codes } = serde_json::from_slice(body).ok()?;
        Some(Self { error: code(&error)?, number: error_codes.first().copied() })
    }
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            Some(number) => write!(f, "{} (AADSTS{number})", self.error),
            None => f.write_str(&self.error),
        }
    }
}

/// A code is a word; what is none is not repeated in an error.
fn code(text: &str) -> Option<String> {
    let is_word = (1..=MAX_CODE).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word.then(|| text.to_owned())
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |link| (*link).source()).take(MAX_CHAIN)
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const MAX_CODE: usize = 64;
const MAX_CHAIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_word_is_not_repeated() {
        for (body, expected) in [
            (
                r#"{"error":{"code":"Forbidden","innererror":{"code":"KeyDisabled"}}}"#,
                Some("Forbidden (KeyDisabled)"),
            ),
            (
                r#"{"error":{"code":"Forbidden","innerError":{"code":"KeyDisabled"}}}"#,
                Some("Forbidden (KeyDisabled)"),
            ),
            (r#"{"error":{"code":"Forbidden","innererror":null}}"#, Some("Forbidden")),
            (r#"{"error":{"code":"Forbidden","innererror":{"code":"a b"}}}"#, Some("Forbidden")),
            (r#"{"error":{"code":"for bidden"}}"#, None),
            (r#"{"error":{"code":""}}"#, None),
            (r#"{"error":"invalid_client"}"#, None),
            ("[]", None),
            ("", None),
            ("<html>", None),
        ] {
            assert_eq!(
                Words::of(body.as_bytes()).map(|words| words.to_string()).as_deref(),
                expected,
                "{body}"
            );
        }
        let long = format!(r#"{{"error":{{"code":"{}"}}}}"#, "a".repeat(MAX_CODE + 1));
        assert!(Words::of(long.as_bytes()).is_none());
    }

    #[test]
    fn every_status_has_a_class_and_only_the_services_own_words_refuse() {
        let headers = Headers::new();
        let unknown = Words { code: "Fresh".to_owned(), inner: Some("Fresher".to_owned()) };
        for status in 200..600 {
            for operation in [Operation::Wrap, Operation::Unwrap, Operation::Describe] {
                let silent = class_of(operation, status, None, &headers);
                assert!(!matches!(silent, ErrorClass::Refused(_)), "{status}");
                let spoken = class_of(operation, status, Some(&unknown), &headers);
                let refuses = matches!(spoken, ErrorClass::Refused(_));
                let may_refuse =
                    (300..500).contains(&status) && !matches!(status, 408 | 429) && !is_malformed(status);
                assert_eq!(refuses, may_refuse, "{status}");
            }
        }
    }
}
