//! What the verification of all records came to, and with it which KEK versions can be retired (contract E5).
//! Imports: `cache::verify`, `provider`, `error`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{CheckedRecord, RecordCheck, WhichRecord};
use crate::error::ErrorKind;
use crate::provider::{KekUri, KekVersion};

/// What the verification of a whole store came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Accounts that were verified, whatever came of it.
    pub accounts: u64,
    /// Those whose newest record is authentic, and whose KEK answered.
    pub authentic: u64,
    /// Purged accounts: those with a tombstone. Whether somebody else than you put one there cannot be told.
    pub purged: u64,
    /// Authentic records that are kept, besides the newest ones.
    pub kept: u64,
    /// Whether kept records were verified too: [`VerifyAll::with_history`](super::VerifyAll::with_history).
    pub with_history: bool,
    /// What is not authentic, or could not be asked for.
    pub failures: Vec<RecordCheck>,
    /// When the oldest AEK was made, of the authentic newest records.
    pub oldest_aek: Option<SystemTime>,
    /// How many authentic records need each version of each KEK, for their wrap or for their standby wrap.
    pub needed: BTreeMap<(KekUri, KekVersion), KekNeed>,
}

/// How many authentic records need one version of a KEK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekNeed {
    /// Newest records: without the version these accounts are revoked.
    pub newest: u64,
    /// Kept records: without the version they cannot be put back.
    pub kept: u64,
}

/// Whether a version of a KEK can be retired, as far as one record store tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retirement {
    /// No record of this store needs it, kept ones included. A copy elsewhere may: a mirror, a backup.
    NotNeeded,
    /// So many do.
    Needed(KekNeed),
    /// None that is authentic does, but these failures may, or [`VerifyReport::with_history`] is false.
    Unknown {
        /// How many failures there are. Which versions they name is no proof, so each of them counts for every version.
        failures: u64,
    },
}

impl VerifyReport {
    pub(super) fn new(with_history: bool) -> Self {
        Self { with_history, ..Self::default() }
    }

    /// Whether `version` of `kek` can be retired. After a rotation wait until
    /// [`Retire::SafeAfter`](crate::Retire::SafeAfter) besides: machines use the record before until then.
    #[must_use]
    pub fn retirement(&self, kek: &KekUri, version: &KekVersion) -> Retirement {
        match self.needed.get(&(kek.clone(), version.clone())) {
            Some(need) => Retirement::Needed(*need),
            None if self.failures.is_empty() && self.with_history => Retirement::NotNeeded,
            None => Retirement::Unknown { failures: self.failures.len() as u64 },
        }
    }

    pub(super) fn add(&mut self, check: RecordCheck) {
        let is_newest = check.which == WhichRecord::Newest;
        self.accounts += u64::from(is_newest);
        let CheckedRecord { sequence: _, kek, versions, second, outer, account_created: _, aek_created } =
            match check.result {
                Ok(checked) => checked,
                Err(error) if is_newest && error.kind() == ErrorKind::Deleted => {
                    self.purged += 1;
                    return;
                }
                Err(_) => return self.failures.push(check),
            };
        if is_newest {
            self.authentic += 1;
            self.oldest_aek = Some(self.oldest_aek.map_or(aek_created, |oldest| oldest.min(aek_created)));
        } else {
            self.kept += 1;
        }
        let outer = second
            .into_iter()
            .chain(outer)
            .flat_map(|(kek, versions)| versions.into_iter().map(move |version| (kek.clone(), version)));
        for needed in versions.into_iter().map(|version| (kek.clone(), version)).chain(outer) {
            let need = self.needed.entry(needed).or_default();
            need.newest += u64::from(is_newest);
            need.kept += u64::from(!is_newest);
        }
    }
}
