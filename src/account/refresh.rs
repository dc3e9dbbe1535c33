//! One refresh of one account: read the newest record, unwrap, verify, derive. Runs on a worker.
//!
//! ```text
//! store.load ─► Expect::admit ─► provider.unwrap ─► AEK ─► PRK ─► KCV and record MAC verified ─► keys
//! ```
//! Exactly one provider call for each of the account's secrets, unless it is refused and the record has changed meanwhile (contract D12).
//! Imports: `unwrap`, `block`, `format`, `provider`, `record_store`, `expect`, `keeper`, `clock`, `error`.

use std::sync::Arc;
use std::time::Duration;

use super::AccountInner;
use super::failover::renewal_of;
use super::unwrap::{Asked, Raw, Unwrapped, older_keys, unwrap_keys};
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind, Refusal};
use crate::format::record::{AccountRecord, RecordAtRest, RecordState, Sequence, VerifiedRecord};
use crate::format::tombstone::Tombstone;
use crate::keeper::Report;
use crate::record_store::{Loaded, RecordTag};

/// What came of a refresh.
#[derive(Debug)]
pub(crate) enum Refreshed {
    Verified(Box<Adopt>),
    /// No answer of the KMS.
    Silent(Error),
    /// No answer of the record store. To the lease it is silence; of the KMS it says nothing.
    NoRecord(Error),
    /// An answer that cannot be right: another AEK, a record that is not the expected one.
    Wrong(Error),
    Refused(Refusal, Error),
    /// The record, verified, says that the account is deleted.
    Deleted(Known),
    /// There is a tombstone in the place of the record. The KMS was not asked.
    Purged,
    /// The KMS has unwrapped one share, which alone opens nothing.
    OneShare,
}

/// What a verified unwrap brings into use.
#[derive(Debug)]
pub(crate) struct Adopt {
    pub(crate) started: Moment,
    pub(crate) ring: Arc<KeyRing>,
    pub(crate) known: Known,
    /// G, as cache and customer together allow it.
    pub(crate) grace: Duration,
    /// What a failover custody has to say anew: that the first provider unwraps.
    pub(crate) renewal: Option<VerifiedRecord>,
}

/// The record that an account goes by.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) record: Arc<AccountRecord>,
    /// Its tag in the record store, where there is one.
    pub(crate) tag: Option<RecordTag>,
    /// The same record, once the AEK has authenticated it.
    pub(crate) verified: Option<VerifiedRecord>,
}

/// The same, while the account is at rest.
pub(super) struct KnownAtRest {
    record: RecordAtRest,
    tag: Option<RecordTag>,
}

impl KnownAtRest {
    pub(super) fn of(known: Known) -> Self {
        Self { record: RecordAtRest::of(&known.record, known.verified.as_ref()), tag: known.tag }
    }

    pub(super) fn wake(&self) -> Known {
        let (record, verified) = self.record.wake();
        Known { record, tag: self.tag.clone(), verified }
    }

    /// The sequence of a record that is authentic.
    pub(super) fn verified_sequence(&self) -> Option<Sequence> {
        self.record.is_verified().then(|| self.record.sequence())
    }

    /// Goes by `next`, which is authentic, from now on: unless this is, and is newer, or another one of the same sequence, which was acknowledged
    /// first. What nobody authenticated yet may claim any sequence. False where nothing was done.
    pub(super) fn yield_to(&mut self, next: Known) -> bool {
        let yields = self.verified_sequence().is_none_or(|sequence| next.record.sequence() > sequence)
            || self.record.is(&next.record);
        if yields {
            *self = Self::of(next);
        }
        yields
    }
}

impl AccountInner {
    /// Refreshes once.
    pub(crate) async fn refresh(&self, report: &Report) -> Result<Refreshed, Refreshed> {
        let known = self.known();
        let newest = self.newest(&known)?;
        let first = match self.unwrap_newest(&known, &newest, Some(report)).await {
            Err(Refreshed::Refused(refusal, error)) if self.store().is_some() => {
                report.refused(refusal);
                // Another machine may have re-wrapped under a version that this one does not know yet.
                match self.newest(&newest) {
                    Ok(again) if again.record.wraps() != newest.record.wraps() => {
                        let unwrapped =
                            self.unwrap_newest(&known, &again, Some(report)).await.inspect_err(|failed| {
                                // Nothing that comes of the new wraps unsays it; of a purged account there is no record any more.
                                if !matches!(failed, Refreshed::Purged) {
                                    self.record_refusal(again.clone());
                                }
                            })?;
                        return Ok(self.adopt(unwrapped, again.tag));
                    }
                    Ok(again) => self.record_refusal(again),
                    Err(_) => self.record_refusal(newest),
                }
                return Err(Refreshed::Refused(refusal, error));
            }
            Err(refused @ Refreshed::Refused(..)) => {
                self.record_refusal(newest);
                return Err(refused);
            }
            other => other?,
        };
        Ok(self.adopt(first, newest.tag))
    }

    /// The newest record: the store's, or the one that the caller keeps.
    pub(crate) fn newest(&self, known: &Known) -> Result<Known, Refreshed> {
        let Some(store) = self.store() else { return Ok(known.clone()) };
        // A record's age obeys the same clock as the lease: without it, no refresh.
        let loaded = store.load(self.id(), known.tag.as_ref()).map_err(|error| match error.kind() {
            // It has answered: the record was taken back, or is none.
            ErrorKind::Untrusted | ErrorKind::Format => Refreshed::Wrong(error),
            _ => Refreshed::NoRecord(error),
        })?;
        match loaded {
            Loaded::Unchanged => Ok(known.clone()),
            Loaded::Absent => Err(Refreshed::Wrong(
                Error::new(ErrorKind::Untrusted, "the account's record is gone from its store")
                    .with_account(self.id()),
            )),
            Loaded::Found { bytes, .. } if Tombstone::is_one(&bytes) => Err(self.take_tombstone(&bytes)),
            Loaded::Found { bytes, tag } => {
                let record = AccountRecord::parse(&bytes).map_err(Refreshed::Wrong)?;
                // The same bytes under another tag are no news.
                if record == *known.record {
                    return Ok(Known { tag: Some(tag), ..known.clone() });
                }
                Ok(Known { record: Arc::new(record), tag: Some(tag), verified: None })
            }
        }
    }

    /// A tombstone is believed as it is: nothing could authenticate it, and it gives nobody anything.
    fn take_tombstone(&self, bytes: &[u8]) -> Refreshed {
        match Tombstone::parse(bytes) {
            Ok(tombstone) if tombstone.account == self.id() => Refreshed::Purged,
            Ok(_) => Refreshed::Wrong(
                Error::new(ErrorKind::Untrusted, "the tombstone of another account").with_account(self.id()),
            ),
            Err(error) => Refreshed::Wrong(error.with_account(self.id())),
        }
    }

    /// Unwraps `newest`, by the wraps in use, and believes it by what comes out.
    pub(crate) async fn unwrap_newest(
        &self,
        known: &Known,
        newest: &Known,
        report: Option<&Report>,
    ) -> Result<Unwrapped, Refreshed> {
        let providers = self.admit(known, &newest.record).map_err(Refreshed::Wrong)?;
        // In turns: where one KMS is silent and holds the thread, a refusal by the other is heard by the attempt that follows.
        let held = newest.record.held();
        let wraps = newest.record.wraps();
        let asked = Asked { providers: &providers, held: &held, wraps: &wraps, first: self.next_turn() };
        self.unwrap_wraps(asked, known, newest, report).await
    }

    /// Unwraps wraps of `newest`'s, one for each secret, and believes `newest` by what comes out. `known` is what this process went by so far.
    /// `report` is of the call that this is a part of, where that is a refresh.
    pub(crate) async fn unwrap_wraps(
        &self,
        asked: Asked<'_>,
        known: &Known,
        newest: &Known,
        report: Option<&Report>,
    ) -> Result<Unwrapped, Refreshed> {
        let record = &newest.record;
        let unwrap = unwrap_keys(self.clock(), self.settings(), asked, record);
        let Raw { started, inputs, keys } = match report {
            Some(report) => report.asking(unwrap).await?,
            None => unwrap.await?,
        };
        let verified = believe(known, newest, &keys).map_err(Refreshed::Wrong)?;
        let older = older_keys(self.settings(), &verified, &keys).map_err(Refreshed::Wrong)?;
        if let Some(store) = self.store() {
            store.authenticated(self.id(), verified.record().sequence()).map_err(Refreshed::NoRecord)?;
        }
        Ok(Unwrapped { started, inputs, keys, older, verified })
    }

    pub(super) fn adopt(&self, unwrapped: Unwrapped, tag: Option<RecordTag>) -> Refreshed {
        let (started, verified) = (unwrapped.started, unwrapped.verified.clone());
        let renewal = renewal_of(&verified, &unwrapped.keys, started);
        let grace = self.settings().grace.allowed_by(verified.policy());
        let deleted = verified.state() != RecordState::Active;
        let known = Known { record: verified.share(), tag, verified: Some(verified) };
        if deleted {
            return Refreshed::Deleted(known);
        }
        let ring = Arc::new(unwrapped.into_ring());
        Refreshed::Verified(Box::new(Adopt { started, ring, known, grace, renewal }))
    }
}

/// Believes `newest` by its keys, as what follows `known` where that was believed before.
pub(crate) fn believe(known: &Known, newest: &Known, keys: &GenerationKeys) -> Result<VerifiedRecord, Error> {
    let next = Arc::clone(&newest.record);
    match &known.verified {
        Some(current) if *current.record() != *next => current.verify_successor(next, keys.prks()),
        _ => VerifiedRecord::of(next, keys.prks()),
    }
}

impl Refreshed {
    /// What a caller who asked for this is told, where it is not a key.
    pub(crate) fn failure(&self) -> Option<&Error> {
        match self {
            Self::Verified(_) | Self::Deleted(_) | Self::Purged | Self::OneShare => None,
            Self::Silent(error) | Self::NoRecord(error) | Self::Wrong(error) | Self::Refused(_, error) => {
                Some(error)
            }
        }
    }

    pub(crate) fn into_failure(self) -> Error {
        match self {
            Self::Silent(error) | Self::NoRecord(error) | Self::Wrong(error) | Self::Refused(_, error) => {
                error
            }
            Self::Purged => Error::new(ErrorKind::Deleted, "the account was purged: its key is destroyed"),
            Self::Verified(_) | Self::Deleted(_) | Self::OneShare => {
                Error::new(ErrorKind::Conflict, "the account changed meanwhile: retry")
            }
        }
    }
}
