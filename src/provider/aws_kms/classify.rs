//! What a failed call to AWS KMS means for a lease: by the service's error code, never by the status alone.
//!
//! ```text
//! answer with the service's error shape (`__type`)  ─► its code decides; an unknown code below 500 is a refusal
//! any other answer: a proxy's page, a 5xx            ─► transient: not the KMS said it
//! a success that cannot be parsed, or is too long    ─► integrity
//! no answer, no connection, no credentials           ─► transient; what the login service refused is a refusal
//! ```
//! Imports: `provider`, `error`.

use std::error::Error as StdError;

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use http_body_util::LengthLimitError;

use crate::error::Refusal;
use crate::provider::ProviderError;

/// Why `call`, for example `kms:Decrypt`, failed.
pub(super) fn failure<E>(call: &str, error: &SdkError<E, HttpResponse>) -> ProviderError
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    let classified = match error {
        SdkError::ServiceError(context) => {
            let (said, status) = (error.meta(), context.raw().status().as_u16());
            match said.code().filter(|_| is_of_the_service(context.raw())) {
                Some(code) => answered(call, status, code, said.message().unwrap_or_default()),
                None => by_another(call, status),
            }
        }
        SdkError::ResponseError(context) if in_chain::<LengthLimitError>(error).is_some() => {
            let message = format!("{call}: an answer longer than any of AWS KMS");
            if context.raw().status().is_success() {
                ProviderError::integrity(&message)
            } else {
                ProviderError::transient(&message)
            }
        }
        SdkError::ResponseError(_) => ProviderError::transient(&format!("{call}: the answer broke off")),
        SdkError::TimeoutError(_) => ProviderError::transient(&format!("{call}: no answer in time")),
        SdkError::ConstructionFailure(_) => {
            ProviderError::misconfigured(&format!("{call}: the client could not build the request"))
        }
        _ => not_sent(call, error),
    };
    match error.request_id() {
        Some(id) => classified.with_request_id(id),
        None => classified,
    }
}

/// An answer in the service's own words.
fn answered(call: &str, status: u16, code: &str, said: &str) -> ProviderError {
    let message = message(call, code);
    let refused = |refusal| ProviderError::refused(refusal, &message);
    match code {
        "DisabledException" => refused(Refusal::KeyDisabled),
        "NotFoundException" => refused(Refusal::KeyGone),
        "KMSInvalidStateException" => invalid_state(&message, said),
        "AccessDeniedException"
        | "AccessDenied"
        | "NotAuthorized"
        | "OptInRequired"
        | "InvalidGrantTokenException" => refused(Refusal::PermissionRemoved),
        // Clock skew is told as an invalid signature.
        "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "TokenRefreshRequired" => refused(Refusal::CredentialRejected),
        // Throttling has status 400.
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "KMSInternalException"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServiceException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => ProviderError::transient(&message),
        "InvalidCiphertextException" | "IncorrectKeyException" => ProviderError::integrity(&message),
        "InvalidKeyUsageException"
        | "InvalidArnException"
        | "UnsupportedOperationException"
        | "ValidationException"
        | "ValidationError"
        | "SerializationException"
        | "UnknownOperationException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "DryRunOperationException" => ProviderError::misconfigured(&message),
        _ if status >= 500 => ProviderError::transient(&message),
        _ => refused(Refusal::Unrecognised),
    }
}

/// The key's state is wrong, or a custom key store's, or an external key manager's behind one: only the message tells.
/// What it does not tell is a refusal.
fn invalid_state(message: &str, said: &str) -> ProviderError {
    let said = said.to_ascii_lowercase();
    let tells = |words: &[&str]| words.iter().any(|words| said.contains(words));
    let proxys = said.contains("external key store proxy");
    if proxys && tells(PROXY_IS_SILENT) {
        ProviderError::transient(&format!("{message}: the external key manager did not answer AWS"))
    } else if proxys && tells(&["corrupted, missing, or otherwise invalid"]) {
        ProviderError::integrity(&format!(
            "{message}: the external key manager says that the wrap is damaged"
        ))
    } else if proxys && tells(&["denied access"]) {
        ProviderError::refused(Refusal::PermissionRemoved, &format!("{message}: by the external key manager"))
    } else if proxys && tells(&["could not find the external key"]) {
        ProviderError::refused(Refusal::KeyGone, &format!("{message}: no such external key"))
    } else if tells(&["pending deletion", "pending replica deletion", "pendingdeletion"]) {
        ProviderError::refused(Refusal::KeyGone, &format!("{message}: the key is pending deletion"))
    } else if tells(&["pending import", "pendingimport"]) {
        ProviderError::refused(
            Refusal::KeyGone,
            &format!("{message}: the key material is gone; import it again"),
        )
    } else {
        ProviderError::refused(Refusal::KeyDisabled, message)
    }
}

/// An answer that does not have the service's error shape.
fn by_another(call: &str, status: u16) -> ProviderError {
    if (200..300).contains(&status) {
        return ProviderError::integrity(&format!("{call}: a success that cannot be read"));
    }
    // A refusal by whoever stands between is none of the customer's.
    ProviderError::transient(&format!("{call}: status {status}, and not in AWS KMS's words"))
}

/// Nothing was sent: no connection, or no credentials to sign with.
fn not_sent<E>(call: &str, error: &SdkError<E, HttpResponse>) -> ProviderError
where
    E: StdError + 'static,
{
    let SdkError::DispatchFailure(failure) = error else {
        return ProviderError::transient(&format!("{call}: failed without an answer"));
    };
    // Signing in at STS may need a call of its own, and STS may refuse: the role is gone, or trusts us no longer.
    if let Some(code) = in_chain::<ErrorMetadata>(error).and_then(ErrorMetadata::code) {
        let message = message("to obtain credentials", code);
        return match code {
            "AccessDenied" | "AccessDeniedException" => {
                ProviderError::refused(Refusal::PermissionRemoved, &message)
            }
            "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "InvalidIdentityToken"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "UnauthorizedException" => ProviderError::refused(Refusal::CredentialRejected, &message),
            _ => ProviderError::transient(&message),
        };
    }
    let why = if failure.is_timeout() {
        "connecting took too long"
    } else if failure.is_io() {
        "no connection, or it broke"
    } else {
        "no credentials to be had, or no connection"
    };
    ProviderError::transient(&format!("{call}: {why}"))
}

/// Whether the service itself wrote this answer: proxies answer with pages, or with JSON of another shape.
fn is_of_the_service(answer: &HttpResponse) -> bool {
    if answer.headers().get("x-amzn-errortype").is_some() {
        return true;
    }
    let body = answer.body().bytes().unwrap_or_default();
    serde_json::from_slice::<ErrorBody>(body).is_ok_and(|body| !body.code.is_empty())
}

#[derive(serde::Deserialize)]
struct ErrorBody {
    #[serde(rename = "__type")]
    code: String,
}

/// Codes are the service's own identifiers; only such are repeated.
fn message(call: &str, code: &str) -> String {
    let plain =
        code.len() <= MAX_CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    format!("{call}: {}", if plain { code } else { "an error code in an unknown form" })
}

fn in_chain<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    // Bounded, because a source chain may be a cycle in somebody else's code.
    for _ in 0..MAX_CHAIN {
        let current = next?;
        if let Some(found) = current.downcast_ref::<T>() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// From "Troubleshooting external key stores" in the AWS KMS Developer Guide: what is no decision of the key manager's.
const PROXY_IS_SILENT: &[&str] = &[
    "cannot communicate with",
    "did not respond",
    "high request rate",
    "unhealthy state",
    "cannot interpret the response",
];
const MAX_CODE: usize = 64;
const MAX_CHAIN: usize = 32;
