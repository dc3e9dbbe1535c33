//! What this process may still seal under a generation (contract E6).
//!
//! ```text
//! limits - taken ── a handful ──► a thread's share ── each seal pays ──► sealed
//!        ▲──────── what is left of shares, when a limit is near ──┘
//! ```
//! A seal is paid for before it is made, so a limit is never passed, whatever threads do at the same time. What pays is a share that few threads
//! have in common: one compare-and-swap in memory that other processors rarely touch. Every 65,536 seals the share is filled again from what
//! all have in common; near a limit and near a warning handfuls become small, and what other shares hold is called back before anybody is refused.
//! Nothing waits: every step is an atomic one. So what another thread has in its hand at that moment is not found, and of several threads one may be
//! refused what would have fitted; the next one finds it. One thread alone gets all there is.
//! Imports: `sync`, `format`, `id`, `usage`.

use std::sync::Arc;

use super::sync::{AtomicBool, AtomicU8, AtomicU64, OnceLock, Ordering, own_stripe};
use super::usage::LimitWarning;
use crate::format::policy::GenerationLimits;
use crate::id::Generation;

#[cfg(shuttle)]
#[cfg(test)]
mod schedules;

/// So many seals, of so many bytes of plaintext in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) seals: u64,
    pub(crate) bytes: u64,
}

/// Calls the keeper to the accounts of a cache: one for all of them, so that looking costs nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell(Arc<AtomicBool>);

/// The budgets of all generations that this process may seal under, the newest first.
pub(crate) type Budgets = Arc<[Arc<Budget>]>;

/// One generation's.
#[derive(Debug)]
pub(crate) struct Budget {
    generation: Generation,
    limits: Totals,
    /// Sealed, or held by a share.
    taken: Totals,
    /// Rings where a warning is due that nobody was told of.
    bell: Bell,
    /// Whether it was this one that rang.
    rang: AtomicBool,
    /// The warning that was told of.
    told: AtomicU8,
    first: Share,
    /// Instead of the first, once there was some sealing: an account that is hardly used takes little room.
    spread: OnceLock<Box<[Apart; SHARES]>>,
    spreading: AtomicBool,
}

#[derive(Debug, Default)]
struct Totals {
    seals: AtomicU64,
    bytes: AtomicU64,
}

/// Seals in the upper 24 bits, bytes in the lower 40.
#[derive(Debug, Default)]
struct Share(AtomicU64);

/// Has a cache line to itself, and its neighbour, which some processors fetch with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart(Share);

impl Amount {
    /// One block.
    #[inline]
    pub(crate) const fn block(plain_len: usize) -> Self {
        Self { seals: 1, bytes: plain_len as u64 }
    }

    #[inline]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { seals: self.seals.saturating_add(other.seals), bytes: self.bytes.saturating_add(other.bytes) }
    }

    const fn minus(self, other: Self) -> Self {
        Self { seals: self.seals.saturating_sub(other.seals), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

impl Bell {
    fn ring(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it has rung since this was last asked.
    pub(crate) fn rang(&self) -> bool {
        // The load first: almost always that is all.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::SeqCst)
    }
}

impl Budget {
    pub(crate) fn new(generation: Generation, limits: GenerationLimits, bell: Bell) -> Self {
        Self {
            generation,
            limits: Totals { seals: AtomicU64::new(limits.seals()), bytes: AtomicU64::new(limits.bytes()) },
            taken: Totals::default(),
            bell,
            rang: AtomicBool::new(false),
            told: AtomicU8::new(0),
            first: Share::default(),
            spread: OnceLock::new(),
            spreading: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// Pays for `cost`; false when a limit would be passed, and nothing is paid.
    #[inline]
    pub(crate) fn pay(&self, cost: Amount) -> bool {
        self.share().pay(cost) || self.pay_from_all(cost)
    }

    /// What was paid for.
    pub(crate) fn used(&self) -> Amount {
        let held = self.shares().map(Share::held).fold(Amount::default(), Amount::plus);
        self.taken.now().minus(held)
    }

    /// Holds the generation to other limits from now on.
    pub(crate) fn set_limits(&self, limits: GenerationLimits) {
        let now = self.limits.now();
        if (now.seals, now.bytes) != (limits.seals(), limits.bytes()) {
            self.limits.seals.store(limits.seals(), Ordering::SeqCst);
            self.limits.bytes.store(limits.bytes(), Ordering::SeqCst);
            self.tell(None);
            // What was handed out by the old ones must not outlast them.
            self.call_back();
        }
    }

    /// The warning that was told of: the bell rings for a worse one only.
    pub(crate) fn tell(&self, warning: Option<LimitWarning>) {
        self.told.store(LimitWarning::rank(warning), Ordering::Relaxed);
    }

    /// Whether it has rung since this was last asked.
    pub(crate) fn rang(&self) -> bool {
        self.rang.load(Ordering::SeqCst) && self.rang.swap(false, Ordering::SeqCst)
    }

    /// Nobody is told of this generation any more, for it is not the one in use: its bell has rung for the last time.
    pub(crate) fn hush(&self) {
        self.tell(Some(LimitWarning::Reached));
    }

    #[inline]
    fn share(&self) -> &Share {
        match self.spread.get() {
            Some(shares) => &shares[own_stripe::<SHARES>()].0,
            None => &self.first,
        }
    }

    fn shares(&self) -> impl Iterator<Item = &Share> {
        let spread = self.spread.get().into_iter().flat_map(|shares| shares.iter());
        std::iter::once(&self.first).chain(spread.map(|Apart(share)| share))
    }

    #[cold]
    #[inline(never)]
    fn pay_from_all(&self, cost: Amount) -> bool {
        let paid = self.take(cost) || {
            self.call_back();
            self.take(cost)
        };
        self.spread_out();
        self.fill(self.share());
        // Of what is sealed: a handful that nobody has used yet is nothing to warn of.
        let warning = LimitWarning::of_use(self.used(), self.limits.now());
        if LimitWarning::rank(warning) > self.told.load(Ordering::Relaxed) {
            self.rang.store(true, Ordering::SeqCst);
            self.bell.ring();
        }
        paid
    }

    /// A handful, in the place of what is left.
    fn fill(&self, share: &Share) {
        self.give_back(share.empty());
        let left = LimitWarning::next_due(self.used(), self.limits.now()).minus(self.taken.now());
        let most = if self.spread.get().is_some() { HANDFUL } else { FIRST_HANDFUL };
        let handful = Amount {
            seals: (left.seals / PARTS).min(most.seals),
            bytes: (left.bytes / PARTS).min(most.bytes),
        };
        if handful.seals == 0 || handful.bytes == 0 || !self.take(handful) {
            return;
        }
        if !share.put(handful) {
            self.give_back(handful);
        }
        // Limits that were lowered meanwhile have called back what there was, and perhaps not this: until here a thread that has the share
        // too may pay from it what the old ones allowed.
        let (taken, limits) = (self.taken.now(), self.limits.now());
        if taken.seals > limits.seals || taken.bytes > limits.bytes {
            self.give_back(share.empty());
        }
    }

    fn call_back(&self) {
        self.shares().for_each(|share| self.give_back(share.empty()));
    }

    /// Gives threads shares of their own. Whoever comes second goes on without: nobody waits.
    fn spread_out(&self) {
        let busy = self.taken.seals.load(Ordering::Relaxed) >= FIRST_HANDFUL.seals;
        if busy && !self.spreading.swap(true, Ordering::Relaxed) {
            // OK because nobody else comes here.
            let _ = self.spread.set(Box::default());
        }
    }

    fn take(&self, amount: Amount) -> bool {
        let take = |taken: &AtomicU64, limit: &AtomicU64, by: u64| {
            let within = |next: &u64| *next <= limit.load(Ordering::SeqCst);
            let add = |now: u64| now.checked_add(by).filter(within);
            taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
        };
        if !take(&self.taken.seals, &self.limits.seals, amount.seals) {
            return false;
        }
        if !take(&self.taken.bytes, &self.limits.bytes, amount.bytes) {
            self.taken.seals.fetch_sub(amount.seals, Ordering::SeqCst);
            return false;
        }
        true
    }

    fn give_back(&self, amount: Amount) {
        self.taken.seals.fetch_sub(amount.seals, Ordering::SeqCst);
        self.taken.bytes.fetch_sub(amount.bytes, Ordering::SeqCst);
    }
}

impl Totals {
    fn now(&self) -> Amount {
        Amount { seals: self.seals.load(Ordering::SeqCst), bytes: self.bytes.load(Ordering::SeqCst) }
    }
}

impl Share {
    /// False when it holds less.
    #[inline]
    fn pay(&self, cost: Amount) -> bool {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let held = unpacked(now);
            if held.seals < cost.seals || held.bytes < cost.bytes {
                return false;
            }
            // OK because neither half is less than what is taken from it.
            let next = now - packed(cost);
            match self.0.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => now = changed,
            }
        }
    }

    /// False when there is no room for it.
    fn put(&self, amount: Amount) -> bool {
        let add = |now: u64| {
            let Amount { seals, bytes } = unpacked(now).plus(amount);
            let fits = seals < 1 << (64 - BYTES_BITS) && bytes < 1 << BYTES_BITS;
            fits.then(|| packed(Amount { seals, bytes }))
        };
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
    }

    fn empty(&self) -> Amount {
        unpacked(self.0.swap(0, Ordering::SeqCst))
    }

    fn held(&self) -> Amount {
        unpacked(self.0.load(Ordering::SeqCst))
    }
}

#[inline]
const fn packed(amount: Amount) -> u64 {
    amount.seals << BYTES_BITS | amount.bytes
}

#[inline]
const fn unpacked(word: u64) -> Amount {
    Amount { seals: word >> BYTES_BITS, bytes: word & ((1 << BYTES_BITS) - 1) }
}

const BYTES_BITS: u32 = 40;
/// 512 bytes for each account that seals.
const SHARES: usize = 4;
/// At most this part of what is left until a warning is due, or the limit is reached, is handed out at once.
const PARTS: u64 = 64;
/// 64 GiB of bytes: more than 65,536 blocks of the sizes that are in such a hurry.
const HANDFUL: Amount = Amount { seals: 1 << 16, bytes: 1 << 36 };
const FIRST_HANDFUL: Amount = Amount { seals: 64, bytes: 1 << 30 };

#[cfg(test)]
mod tests;
