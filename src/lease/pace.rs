//! What keeps calls apart: a budget for what people ask, patience with a KMS that flaps, jitter. Imports: `lease`, `clock`,
//! `id`.

use std::mem::discriminant;
use std::time::Duration;

use super::{Beside, Lease, MAX_REFRESH, MIN_SPACING, Phase};
use crate::clock::Moment;
use crate::id::Epoch;

/// What an account leaves to the next one of its id, so that dropping it and attaching it again buys no calls (C1),
/// and epochs are not told twice.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    pub(super) epoch: Epoch,
    pub(super) last_begun: Option<Moment>,
    pub(super) tokens: Tokens,
    pub(super) flaps: Flaps,
    /// Of a failover custody: whether the first provider has refused, when it has last answered, and when the second was asked. Of a joint one:
    /// when each share was.
    pub(super) beside: Option<Box<Beside>>,
}

impl Lease {
    /// The same machine, of an account that was attached before: its calls keep their distance from those made then.
    pub(crate) fn following(self, past: Past) -> Self {
        let Past { epoch, last_begun, tokens, flaps, beside } = past;
        // Silence has to be met anew. Of an account of another custody nothing is left here.
        let beside = self.beside.map(|unasked| match beside {
            Some(before) if discriminant(&*before) == discriminant(&*unasked) => {
                Box::new(before.found_anew())
            }
            _ => unasked,
        });
        Self { epoch, last_begun, tokens, flaps, beside, ..self }
    }

    /// What [`Self::following`] takes. `None` while an attempt is under way, and while there is a lock to keep.
    pub(crate) fn past(&self) -> Option<Past> {
        let locked = matches!(self.phase, Phase::Locked | Phase::Deleted { locked: true });
        (self.attempt.is_none() && !locked).then(|| self.past_so_far())
    }

    /// The same, whatever is under way: what becomes of that is not in it, nor is a lock.
    pub(crate) fn past_so_far(&self) -> Past {
        Past {
            // The next one begins when the account is dropped, and closes for good.
            epoch: self.epoch.next().next(),
            last_begun: self.last_begun,
            tokens: self.tokens,
            flaps: self.flaps.clone(),
            beside: self.beside.clone(),
        }
    }
}

/// `due`, put off to its distance from what was begun before.
pub(super) fn spaced_from(due: Moment, last_begun: Option<Moment>) -> Moment {
    match last_begun.map(|last| last.plus(MIN_SPACING)) {
        Some(spaced) if due.boot_nanos() < spaced.boot_nanos() => {
            Moment::from_nanos(spaced.boot_nanos(), u64::MAX)
        }
        _ => due,
    }
}

/// A small token bucket for what people ask for: three at once, one more each 6 s.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    pub(super) left: u32,
    /// In nanoseconds of the boot-time clock alone: setting the wall clock must not buy calls.
    pub(super) filled: u64,
}

impl Tokens {
    const MOST: u32 = 3;

    pub(super) const fn full(now: Moment) -> Self {
        Self { left: Self::MOST, filled: now.boot_nanos() }
    }

    pub(super) fn take(&mut self, now: Moment) -> bool {
        let nanos = now.boot_nanos().saturating_sub(self.filled);
        let earned = Duration::from_nanos(nanos).as_secs() / MIN_SPACING.as_secs();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(Self::MOST);
            self.filled = now.boot_nanos();
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

/// Remembers when access was lost, to slow down against a KMS that flaps. Most never do.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaps(pub(super) Option<Box<Losses>>);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    pub(super) last: [Option<Moment>; 3],
    pub(super) doublings: u32,
}

impl Flaps {
    pub(super) fn note(&mut self, now: Moment) {
        self.0.get_or_insert_default().note(now);
    }

    pub(super) fn back_off(&self, now: Moment, refresh: Duration) -> Duration {
        self.0.as_ref().map_or(refresh, |losses| losses.back_off(now, refresh))
    }
}

impl Losses {
    const WINDOW: Duration = Duration::from_secs(600);

    fn note(&mut self, now: Moment) {
        self.last.rotate_right(1);
        self.last[0] = Some(now);
        self.doublings = if self.flapping(now) { self.doublings.saturating_add(1).min(4) } else { 0 };
    }

    fn flapping(&self, now: Moment) -> bool {
        self.last.iter().all(|at| at.is_some_and(|at| now.age_since(at) < Self::WINDOW))
    }

    fn back_off(&self, now: Moment, refresh: Duration) -> Duration {
        if self.flapping(now) { (refresh * (1 << self.doublings)).min(MAX_REFRESH) } else { refresh }
    }
}

/// Spreads calls over time. It guards no secret, so a small generator does (xorshift64, Marsaglia 2003).
#[derive(Clone, Copy, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        // Zero is the one state that the generator never leaves.
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A duration from `low` to `high`, in steps of 1/1024 of the way.
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let step = u32::try_from(self.next() % 1025).unwrap_or(0);
        low + high.saturating_sub(low) * step / 1024
    }

    /// `around`, up to a twentieth later.
    pub(super) fn near(&mut self, around: Duration) -> Duration {
        self.between(around, (around + around / 20).min(MAX_REFRESH.max(around)))
    }
}
