//! How much an account has sealed and opened: counters that the data plane adds to and the keeper reads (contract H1).
//!
//! Adding is two relaxed additions to memory that threads on other processors rarely write to. Without the feature `metrics`
//! there is nothing here to add to. Imports: `sync`.

#[cfg(feature = "metrics")]
pub(crate) use counting::{Sum, Tally};

/// Counts nothing, and takes no room.
#[cfg(not(feature = "metrics"))]
#[derive(Default)]
pub(crate) struct Tally(());

#[cfg(not(feature = "metrics"))]
impl Tally {
    #[inline]
    #[expect(clippy::unused_self, reason = "the other one has something")]
    pub(super) const fn sealed(&self, _: usize) {}

    #[inline]
    #[expect(clippy::unused_self, reason = "the other one has something")]
    pub(super) const fn opened(&self, _: usize) {}
}

#[cfg(feature = "metrics")]
mod counting {
    use crate::account::sync::{AtomicU64, Ordering, own_stripe};

    /// Since the account was attached.
    #[derive(Default)]
    pub(crate) struct Tally {
        stripes: [Stripe; STRIPES],
    }

    /// Has a cache line to itself, and its neighbour, which some processors fetch with it.
    #[derive(Default)]
    #[repr(align(128))]
    struct Stripe {
        seals: AtomicU64,
        sealed_bytes: AtomicU64,
        opens: AtomicU64,
        opened_bytes: AtomicU64,
    }

    /// What a tally stands at.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Sum {
        pub(crate) seals: u64,
        pub(crate) sealed_bytes: u64,
        pub(crate) opens: u64,
        pub(crate) opened_bytes: u64,
    }

    impl Tally {
        #[inline]
        pub(crate) fn sealed(&self, bytes: usize) {
            let stripe = self.stripe();
            stripe.seals.fetch_add(1, Ordering::Relaxed);
            stripe.sealed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }

        #[inline]
        pub(crate) fn opened(&self, bytes: usize) {
            let stripe = self.stripe();
            stripe.opens.fetch_add(1, Ordering::Relaxed);
            stripe.opened_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }

        pub(crate) fn sum(&self) -> Sum {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let of = |stripe: &Stripe| Sum {
                seals: read(&stripe.seals),
                sealed_bytes: read(&stripe.sealed_bytes),
                opens: read(&stripe.opens),
                opened_bytes: read(&stripe.opened_bytes),
            };
            self.stripes.iter().map(of).fold(Sum::default(), Sum::plus)
        }

        /// Adds what another tally stands at.
        pub(crate) fn add(&self, sum: Sum) {
            let Sum { seals, sealed_bytes, opens, opened_bytes } = sum;
            let stripe = self.stripe();
            stripe.seals.fetch_add(seals, Ordering::Relaxed);
            stripe.sealed_bytes.fetch_add(sealed_bytes, Ordering::Relaxed);
            stripe.opens.fetch_add(opens, Ordering::Relaxed);
            stripe.opened_bytes.fetch_add(opened_bytes, Ordering::Relaxed);
        }

        #[inline]
        fn stripe(&self) -> &Stripe {
            &self.stripes[own_stripe::<STRIPES>()]
        }
    }

    impl Sum {
        pub(crate) const fn plus(self, other: Self) -> Self {
            Self {
                seals: self.seals.wrapping_add(other.seals),
                sealed_bytes: self.sealed_bytes.wrapping_add(other.sealed_bytes),
                opens: self.opens.wrapping_add(other.opens),
                opened_bytes: self.opened_bytes.wrapping_add(other.opened_bytes),
            }
        }
    }

    /// 512 bytes for each account.
    const STRIPES: usize = 4;

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn h1_what_8_threads_seal_and_open_is_counted() {
            let tally = Tally::default();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        (0..1000).for_each(|_| tally.sealed(10));
                        (0..500).for_each(|_| tally.opened(3));
                    });
                }
            });
            let sum = Sum { seals: 8000, sealed_bytes: 80_000, opens: 4000, opened_bytes: 12_000 };
            assert_eq!(tally.sum(), sum);
        }
    }
}
