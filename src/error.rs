//! What went wrong, and what the caller does about it.
//!
//! One public error. Its [`ErrorKind`] is chosen by what the caller has to do, not by which
//! part of the library noticed. Errors that the data plane returns carry no heap data, so that a closed
//! account costs its callers nothing. Imports: `id`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::id::AccountId;

/// Any failure of this crate. Cheap to clone, so that one failure can answer many waiters.
///
/// It never carries key bytes, plaintext, tokens or a provider's raw answer.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: &'static str,
    account: Option<AccountId>,
    refusal: Option<Refusal>,
    detail: Option<Arc<Detail>>,
}

#[derive(Debug, Default, Clone)]
struct Detail {
    text: Option<String>,
    request_id: Option<String>,
    batch_index: Option<usize>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What the caller does about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The KMS answered and refused. Only the customer can change that; the account recovers
    /// by itself once they do. [`Error::refusal`] tells what the KMS said.
    Revoked,
    /// The KMS did not answer and grace is used up, or a control call found it silent. Retry
    /// later; the account recovers by itself.
    Unavailable,
    /// No verified key yet, or the refresher was held up. Wait with `ready`, then retry.
    NotReady,
    /// Closed by `lock`. Stays closed until `unlock`.
    Locked,
    /// The account is deleted. `recover` brings it back within its retention.
    Deleted,
    /// The block was written under a generation that the account's record does not know: a
    /// stale record, or a block of another account's history.
    UnknownGeneration,
    /// Authentication failed: damaged or changed data, or data of another place or account.
    /// Deliberately without detail.
    Corrupt,
    /// The bytes are not of a format this version knows: truncated, trailing bytes, an unknown
    /// version, suite, kind or flag.
    Format,
    /// The record is not the one that the embedder expects: another account or KEK, rolled
    /// back, or not authentic. Nothing of it was adopted.
    Untrusted,
    /// Somebody else changed the record first. Load it again and retry.
    Conflict,
    /// The call or the configuration is wrong; the message says how.
    Misuse,
    /// A named limit would be exceeded.
    Limit,
    /// Reading or writing failed underneath; see [`std::error::Error::source`].
    Io,
}

/// Why a KMS refused (contract B1). Every one of them revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The key exists but is disabled, expired or barred from this use.
    KeyDisabled,
    /// The key, or the version that wrapped the AEK, is deleted or pending deletion.
    KeyGone,
    /// Our identity may no longer use the key.
    PermissionRemoved,
    /// The KMS rejected our credential itself, also after it was renewed once.
    CredentialRejected,
    /// An authenticated answer that refuses in words this version does not know.
    Unrecognised,
}

impl Error {
    pub(crate) const fn new(kind: ErrorKind, message: &'static str) -> Self {
        Self { kind, message, account: None, refusal: None, detail: None }
    }

    pub(crate) const fn corrupt() -> Self {
        Self::new(ErrorKind::Corrupt, "authentication failed")
    }

    pub(crate) fn io(message: &'static str, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, message).with_source(source)
    }

    pub(crate) const fn with_account(mut self, account: AccountId) -> Self {
        self.account = Some(account);
        self
    }

    pub(crate) const fn with_refusal(mut self, refusal: Refusal) -> Self {
        self.refusal = Some(refusal);
        self
    }

    /// Adds what a person needs to act, for example the file or the KEK by name. Never a secret.
    pub(crate) fn with_detail(mut self, text: impl Into<String>) -> Self {
        self.detail_mut().text = Some(text.into());
        self
    }

    pub(crate) fn with_request_id(mut self, id: Option<String>) -> Self {
        if id.is_some() {
            self.detail_mut().request_id = id;
        }
        self
    }

    pub(crate) fn with_batch_index(mut self, index: usize) -> Self {
        self.detail_mut().batch_index = Some(index);
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.detail_mut().source = Some(Arc::new(source));
        self
    }

    fn detail_mut(&mut self) -> &mut Detail {
        Arc::make_mut(self.detail.get_or_insert_default())
    }

    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What the KMS said, where [`Self::kind`] is [`ErrorKind::Revoked`].
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The account concerned, where there is one.
    #[must_use]
    pub const fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// The KMS's own id of the request that failed, for its operator's logs.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.detail.as_ref()?.request_id.as_deref()
    }

    /// Which job of a batch failed, counted from zero.
    #[must_use]
    pub fn batch_index(&self) -> Option<usize> {
        self.detail.as_ref()?.batch_index
    }

    /// Finds this crate's error inside another crate's wrapping of it, along the source chain
    /// and through [`std::io::Error`].
    ///
    /// ```
    /// # use strongroom::{AccountId, Error};
    /// let ours = "not hexadecimal".parse::<AccountId>().unwrap_err();
    /// let wrapped = std::io::Error::other(ours);
    /// assert!(Error::find(&wrapped).is_some());
    /// ```
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        // Bounded, because a source chain may be a cycle in somebody else's code.
        let mut next = Some(error);
        for _ in 0..MAX_SOURCE_DEPTH {
            let current = next?;
            if let Some(found) = current.downcast_ref::<Self>() {
                return Some(found);
            }
            // `io::Error::source` skips the error that it wraps; `get_ref` does not.
            next = match current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner as &(dyn StdError + 'static)),
                None => current.source(),
            };
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)?;
        if let Some(refusal) = self.refusal {
            write!(f, " ({refusal})")?;
        }
        if let Some(detail) = &self.detail {
            if let Some(text) = &detail.text {
                write!(f, ": {text}")?;
            }
            if let Some(index) = detail.batch_index {
                write!(f, " [job {index} of the batch]")?;
            }
            if let Some(id) = &detail.request_id {
                write!(f, " [request {id}]")?;
            }
        }
        if let Some(account) = self.account {
            write!(f, " [account {account}]")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.detail.as_ref()?.source.as_deref()?;
        Some(source)
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
            Self::NotReady => "not ready",
            Self::Locked => "locked",
            Self::Deleted => "deleted",
            Self::UnknownGeneration => "unknown generation",
            Self::Corrupt => "corrupt",
            Self::Format => "format",
            Self::Untrusted => "untrusted record",
            Self::Conflict => "conflict",
            Self::Misuse => "misuse",
            Self::Limit => "limit",
            Self::Io => "io",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyDisabled => "key disabled",
            Self::KeyGone => "key gone",
            Self::PermissionRemoved => "permission removed",
            Self::CredentialRejected => "our credential was rejected",
            Self::Unrecognised => "refused in words not known here",
        })
    }
}

const MAX_SOURCE_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_digs_through_wrappers() {
        let inner = Error::new(ErrorKind::Revoked, "the KMS refused").with_refusal(Refusal::KeyDisabled);
        let outer = std::io::Error::other(std::io::Error::other(inner));
        let found = Error::find(&outer).expect("is inside");
        assert_eq!((found.kind(), found.refusal()), (ErrorKind::Revoked, Some(Refusal::KeyDisabled)));
        assert!(Error::find(&std::io::Error::other("else")).is_none());
    }

    #[test]
    fn a_clone_keeps_its_own_detail() {
        let first = Error::corrupt().with_batch_index(3);
        let second = first.clone().with_batch_index(4);
        assert_eq!((first.batch_index(), second.batch_index()), (Some(3), Some(4)));
    }
}
