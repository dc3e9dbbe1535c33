//! A KMS call that failed, and what that means for a lease. Imports: `error`.

use std::fmt;

use crate::error::{Error, ErrorKind, Refusal};

/// A KMS call that failed, in one of four classes (contract B1). The class decides about customers'
/// data: choose it with care, and never by HTTP status alone.
#[derive(Clone)]
pub struct ProviderError {
    class: ErrorClass,
    message: String,
    request_id: Option<String>,
}

/// What a failed call means for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The KMS answered and refused: the lease ends at once.
    Refused(Refusal),
    /// No answer, a 5xx, throttling, connection trouble: the lease lives on within its bounds, and grace is earned.
    Transient,
    /// An answer that cannot be right: a wrong AEK, a success that cannot be parsed. No renewal, no grace, an alarm.
    Integrity,
    /// Our own request or set-up is wrong. Treated like [`Self::Integrity`], with another message.
    Misconfigured,
}

impl ProviderError {
    /// The longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 512;

    /// An error of `class`. `message` is for people: no token, no key, no raw response body. It is
    /// cut at [`Self::MAX_MESSAGE`] bytes and freed of control characters.
    #[must_use]
    pub fn new(class: ErrorClass, message: &str) -> Self {
        let end = message.floor_char_boundary_compat(Self::MAX_MESSAGE);
        let message = message[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { class, message, request_id: None }
    }

    /// The KMS answered and refused.
    #[must_use]
    pub fn refused(refusal: Refusal, message: &str) -> Self {
        Self::new(ErrorClass::Refused(refusal), message)
    }

    /// The KMS did not answer, or could not just now.
    #[must_use]
    pub fn transient(message: &str) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// The answer cannot be right.
    #[must_use]
    pub fn integrity(message: &str) -> Self {
        Self::new(ErrorClass::Integrity, message)
    }

    /// Our own request or set-up is wrong.
    #[must_use]
    pub fn misconfigured(message: &str) -> Self {
        Self::new(ErrorClass::Misconfigured, message)
    }

    /// Adds the KMS's id of the request, for its operator's logs.
    #[must_use]
    pub fn with_request_id(mut self, id: &str) -> Self {
        let end = id.floor_char_boundary_compat(MAX_REQUEST_ID);
        self.request_id = Some(id[..end].chars().filter(|c| !c.is_control()).collect());
        self
    }

    /// What it means for a lease.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        self.class
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The KMS's id of the request, where it gave one.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// What a control call that met this error returns to its caller.
    pub(crate) fn into_error(self) -> Error {
        let error = match self.class {
            ErrorClass::Refused(refusal) => {
                Error::new(ErrorKind::Revoked, "the customer's KMS refused").with_refusal(refusal)
            }
            ErrorClass::Transient => Error::new(ErrorKind::Unavailable, "the KMS did not answer"),
            ErrorClass::Integrity => {
                Error::new(ErrorKind::Untrusted, "the KMS gave an answer that cannot be right")
            }
            ErrorClass::Misconfigured => Error::new(ErrorKind::Misuse, "the provider is misconfigured"),
        };
        error.with_detail(self.message).with_request_id(self.request_id)
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            ErrorClass::Refused(refusal) => write!(f, "refused ({refusal}): {}", self.message),
            ErrorClass::Transient => write!(f, "transient: {}", self.message),
            ErrorClass::Integrity => write!(f, "integrity: {}", self.message),
            ErrorClass::Misconfigured => write!(f, "misconfigured: {}", self.message),
        }
    }
}

impl fmt::Debug for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderError({self})")
    }
}

impl std::error::Error for ProviderError {}

/// `str::floor_char_boundary` is newer than the MSRV.
trait FloorCharBoundary {
    fn floor_char_boundary_compat(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_compat(&self, at: usize) -> usize {
        (0..=at.min(self.len())).rev().find(|&i| self.is_char_boundary(i)).unwrap_or(0)
    }
}

const MAX_REQUEST_ID: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_and_printable() {
        let error = ProviderError::transient(&"é\n".repeat(1000));
        assert!(error.message().len() <= ProviderError::MAX_MESSAGE && !error.message().contains('\n'));
    }
}
