//! What an answer of Vault means for a lease: status and body in, class out. Imports: `provider`, `error`.
//!
//! Only Vault itself says `{"errors": [...]}`. A 403 in HTML comes from a load balancer or a captive portal that stands
//! before it, knows nothing of the key and may be there because Vault is not: it is silence. Revoking by such
//! means works, after grace.

use super::answer::Errors;
use super::client::Reply;
use crate::error::Refusal;
use crate::provider::ProviderError;

/// What was asked for: the same words may be an answer to one request and an absurdity as an answer to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To unwrap: bytes from a record.
    Decrypt,
    /// To wrap: bytes of our own.
    Encrypt,
    /// About a key.
    Describe,
    /// About our own token: `lookup-self`, `renew-self`.
    Token,
    /// For a new token.
    Login,
}

/// How a request went.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A 2xx: read it.
    Success,
    /// 403 in Vault's words: the token may be bad, or a policy may deny. `lookup-self` tells.
    Denied,
    /// Anything else.
    Failed(ProviderError),
}

/// Whether a sealed Vault is silence or an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sealed {
    #[default]
    Transient,
    Refused,
}

pub(super) fn classify(asked: Asked, reply: &Reply, sealed: Sealed) -> Outcome {
    let said = Errors::parse(&reply.body);
    let error = match (reply.status, said) {
        (200..=299, _) => return Outcome::Success,
        (403, Some(_)) if asked != Asked::Login => return Outcome::Denied,
        (503, Some(errors)) if errors.say("sealed") => match sealed {
            Sealed::Transient => ProviderError::transient("Vault is sealed"),
            Sealed::Refused => ProviderError::refused(Refusal::KeyDisabled, "Vault is sealed"),
        },
        (429, _) => ProviderError::transient("Vault throttles: its rate limit or quota is used up"),
        (472 | 473, _) => ProviderError::transient("a standby answered, and serves no requests"),
        // Vault Enterprise: this node does not have our token yet.
        (412, _) => ProviderError::transient("this node of Vault lags behind the one that we wrote to"),
        (408, _) => ProviderError::transient("Vault gave up waiting for the request"),
        (300..=399, _) => ProviderError::transient(
            "Vault redirects, and redirects are not followed: give the address of the active node or of a load balancer",
        ),
        (400..=499, None) => {
            ProviderError::transient("something before Vault answered in its stead, and not in its words")
        }
        (400..=499, Some(_)) if asked == Asked::Login => {
            ProviderError::refused(Refusal::CredentialRejected, "Vault refused the login")
        }
        (400, Some(errors)) => bad_request(asked, &errors),
        // The key, the engine that held it, or the whole namespace.
        (404, Some(_)) => {
            ProviderError::refused(Refusal::KeyGone, "there is no such key, mount or namespace")
        }
        (400..=499, Some(_)) => {
            ProviderError::refused(Refusal::Unrecognised, "refused in words that are not known here")
        }
        (500..=599, _) => ProviderError::transient("Vault could not answer"),
        _ => ProviderError::transient("what answered does not speak HTTP as Vault does"),
    };
    Outcome::Failed(with_status(&error, reply.status))
}

/// Status 400 covers a deleted key, a barred version and damaged bytes alike; only the words tell them apart.
fn bad_request(asked: Asked, errors: &Errors) -> ProviderError {
    let refused = |refusal, what| ProviderError::refused(refusal, what);
    if errors.say("encryption key not found") {
        return refused(Refusal::KeyGone, "the key is deleted");
    }
    if errors.say("soft-deleted") {
        return refused(Refusal::KeyGone, "the key is soft-deleted");
    }
    if errors.say("disallowed by policy") {
        return refused(Refusal::KeyDisabled, "the key's version is below its min_decryption_version");
    }
    if errors.say("less than the minimum encryption key version") {
        return refused(Refusal::KeyDisabled, "the key's version is below its min_encryption_version");
    }
    if errors.say("no such key version") || errors.say("higher than the latest key version") {
        return refused(Refusal::KeyGone, "the key has no such version");
    }
    match asked {
        // Also what a key that was deleted and made anew under the same name says.
        Asked::Decrypt if errors.say("message authentication failed") => {
            ProviderError::integrity("the wrapped bytes do not authenticate")
        }
        Asked::Decrypt => ProviderError::integrity("the wrapped bytes are no ciphertext of this key"),
        _ => ProviderError::misconfigured("Vault calls our request malformed"),
    }
}

/// A 403 that `lookup-self` has shown to be a policy's.
pub(super) fn permission_removed() -> ProviderError {
    let error =
        ProviderError::refused(Refusal::PermissionRemoved, "the token is good, and its policies deny this");
    with_status(&error, 403)
}

fn with_status(error: &ProviderError, status: u16) -> ProviderError {
    ProviderError::new(error.class(), &format!("{} (HTTP {status})", error.message()))
}
