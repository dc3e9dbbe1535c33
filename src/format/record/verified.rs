//! A record that is believed, and what follows from one. Imports: `record`, `derive`, `error`, `format::policy`.

use std::sync::Arc;

use super::{AccountRecord, RecordDraft, RecordState, Sequence, Standing, Terms, Timestamp};
use crate::derive::Prks;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::format::policy::RecordPolicy;

/// A record whose every byte the AEK has authenticated. Intentionally without a public constructor from parts:
/// it comes from [`AccountRecord::verify`] or from [`RecordDraft::seal`].
#[derive(Clone, Debug)]
pub(crate) struct VerifiedRecord(pub(super) Arc<AccountRecord>);

impl VerifiedRecord {
    /// As [`AccountRecord::verify`].
    pub(crate) fn of(record: Arc<AccountRecord>, prks: &Prks) -> Result<Self, Error> {
        record.check(prks)?;
        Ok(Self(record))
    }

    pub(crate) fn record(&self) -> &AccountRecord {
        &self.0
    }

    /// The record, to be kept.
    pub(crate) fn share(&self) -> Arc<AccountRecord> {
        Arc::clone(&self.0)
    }

    pub(crate) fn policy(&self) -> &RecordPolicy {
        &self.0.draft.policy
    }

    pub(crate) fn state(&self) -> RecordState {
        self.0.draft.state
    }

    /// The next record, which says that the first KEK of a failover custody has unwrapped at `confirmed`: the second one is barred no
    /// longer. `None` for another custody.
    ///
    /// # Errors
    /// As [`Self::successor`].
    pub(crate) fn confirmed(&self, confirmed: Timestamp) -> Result<Option<RecordDraft>, Error> {
        let mut draft = self.successor()?;
        let Some(terms) = draft.custody.terms_mut() else { return Ok(None) };
        *terms = Terms { confirmed, standing: Standing::UNSEALED, ..*terms };
        Ok(Some(draft))
    }

    /// As [`AccountRecord::barred`]: its MAC is in this record, so it is authentic because this one is.
    pub(crate) fn barred(&self) -> Option<Self> {
        self.0.barred().map(|barred| Self(Arc::new(barred)))
    }

    /// The next record of the same account, to be changed and sealed.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] after 2^64 - 1 changes.
    pub(crate) fn successor(&self) -> Result<RecordDraft, Error> {
        let sequence = self.0.sequence_after(self.0.draft.sequence)?;
        Ok(RecordDraft { sequence, ..self.0.draft.clone() })
    }

    /// This record's content once more, as the one that follows both this and the one of `sequence` (contract E10).
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] after 2^64 - 1 changes.
    pub(crate) fn again_after(&self, sequence: Sequence) -> Result<RecordDraft, Error> {
        let sequence = self.0.sequence_after(self.0.draft.sequence.max(sequence))?;
        Ok(RecordDraft { sequence, ..self.0.draft.clone() })
    }

    /// Believes `next`, a reloaded record, as the one that follows this one: the same account and key, a
    /// higher sequence, authentic. `prks` are of the generation that both name.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] otherwise; this record stays the one to go by.
    pub(crate) fn verify_successor(
        &self,
        next: impl Into<Arc<AccountRecord>>,
        prks: &Prks,
    ) -> Result<Self, Error> {
        let next = next.into();
        let (old, new) = (&self.0.draft, &next.draft);
        if new.account != old.account {
            return Err(self.0.untrusted("the record is of another account"));
        }
        if new.sequence <= old.sequence {
            return Err(self
                .0
                .untrusted("the record is not newer than the one in use: rolled back, or replayed"));
        }
        if new.created != old.created || !new.keeps_generations_of(old) {
            return Err(self.0.untrusted("the record changes a generation that is in use"));
        }
        Self::of(next, prks)
    }
}
