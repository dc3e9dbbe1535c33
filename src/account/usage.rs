//! How far a generation's limits are used up, as this process knows it (contract E6). Imports: `budget`, `format`, `id`.

use std::time::Duration;

use super::budget::Amount;
use crate::format::policy::GenerationLimits;
use crate::id::Generation;

/// What *this process* has sealed under a generation, beside the record's limits.
///
/// Counted since the account was attached: other machines, and this one before it was restarted, are not in it. What a
/// [`Directory`](crate::Directory) drops when it is idle, and attaches again, goes on from its count; what the engine drops and attaches again
/// begins anew. So each process holds
/// itself to the whole limit; whoever means all of `n` machines together sets an `n`th of it in the record. The age is that of the generation, whoever
/// uses it. A seal counts when it begins; one that fails after that counts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GenerationUse {
    /// The generation that new data is sealed under.
    pub generation: Generation,
    /// Blocks and frames of objects.
    pub seals: u64,
    /// Bytes of plaintext.
    pub bytes: u64,
    /// Since the generation was made.
    pub age: Duration,
    /// What the record allows.
    pub limits: GenerationLimits,
}

/// How near a generation is to a limit; the worst comes last. [`Account::rotate_aek`](crate::Account::rotate_aek) is what to do, in time: a new
/// generation is used 131 s after it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LimitWarning {
    /// The generation is as old as the record says, or older. Sealing goes on.
    Age,
    /// 80 % of the seals or the bytes are used up.
    Near,
    /// 95 % of the seals or the bytes are used up.
    Imminent,
    /// All are used up: sealing is refused with [`ErrorKind::Limit`](crate::ErrorKind::Limit). Opening goes on.
    Reached,
}

impl GenerationUse {
    /// What is worth a warning, if anything is.
    #[must_use]
    pub fn warning(&self) -> Option<LimitWarning> {
        let Self { generation: _, seals, bytes, age, limits } = *self;
        let old = age >= DAY * limits.age_days();
        let most = Amount { seals: limits.seals(), bytes: limits.bytes() };
        LimitWarning::of_use(Amount { seals, bytes }, most).or(old.then_some(LimitWarning::Age))
    }
}

impl LimitWarning {
    pub(super) fn of_use(used: Amount, limits: Amount) -> Option<Self> {
        let has = |percent: u128| {
            let reached = |used: u64, limit: u64| u128::from(used) * 100 >= u128::from(limit) * percent;
            reached(used.seals, limits.seals) || reached(used.bytes, limits.bytes)
        };
        WORST_FIRST.into_iter().find(|(percent, _)| has(*percent)).map(|(_, warning)| warning)
    }

    /// How much may be used until the next warning is due, of seals and of bytes; the limits where they are reached.
    pub(super) fn next_due(used: Amount, limits: Amount) -> Amount {
        let next = |used: u64, limit: u64| {
            let due = |(percent, _): (u128, Self)| (u128::from(limit) * percent).div_ceil(100);
            let ahead = WORST_FIRST.into_iter().map(due).filter(|due| *due > u128::from(used)).min();
            ahead.and_then(|due| u64::try_from(due).ok()).unwrap_or(limit)
        };
        Amount { seals: next(used.seals, limits.seals), bytes: next(used.bytes, limits.bytes) }
    }

    /// Zero for none.
    pub(super) const fn rank(warning: Option<Self>) -> u8 {
        match warning {
            None => 0,
            Some(Self::Age) => 1,
            Some(Self::Near) => 2,
            Some(Self::Imminent) => 3,
            Some(Self::Reached) => 4,
        }
    }

    /// What operators see it called.
    #[cfg(feature = "tracing")]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Near => "near",
            Self::Imminent => "imminent",
            Self::Reached => "reached",
        }
    }
}

/// From how many per cent on.
const WORST_FIRST: [(u128, LimitWarning); 3] =
    [(100, LimitWarning::Reached), (95, LimitWarning::Imminent), (80, LimitWarning::Near)];
const DAY: Duration = Duration::from_secs(24 * 3600);
