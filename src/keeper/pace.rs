//! A cap on calls per second, as a token bucket that holds in *every* window of a second. Pure: it is told the time.
//!
//! A bucket of `b` tokens that refills at a rate of `n` a second lets `n + b` through in the second after a pause. So this one
//! refills at `n - b + 1`, with `b` a tenth of `n`: at most `n` calls begin within any second, and nine tenths of
//! that can be kept up for ever. Imports: nothing of ours.

/// A bucket, in the form that keeps one number: the time by which all that was taken would have come in evenly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Nanoseconds from one token to the next.
    every: u64,
    /// How far ahead of an even flow calls may be, in nanoseconds.
    ahead: u64,
    even: u64,
}

impl Pace {
    /// At most `cap` in any second.
    pub(crate) const fn new(cap: u32) -> Self {
        let burst = if cap < 20 { 1 } else { cap as u64 / 10 };
        let rate = (cap as u64 + 1).saturating_sub(burst);
        let rate = if rate == 0 { 1 } else { rate };
        let every = SECOND.div_ceil(rate);
        Self { every, ahead: every * (burst - 1), even: 0 }
    }

    /// The earliest time at which another may begin, in nanoseconds of the boot-time clock.
    pub(crate) const fn opens_at(&self) -> u64 {
        self.even.saturating_sub(self.ahead)
    }

    /// Takes a token. Returns when what it stands for may begin: now, or later where it is not there yet.
    pub(crate) const fn take(&mut self, now: u64) -> u64 {
        let opens = self.opens_at();
        let at = if now > opens { now } else { opens };
        let even = if at > self.even { at } else { self.even };
        self.even = even.saturating_add(self.every);
        at
    }

    /// How many can be kept up for ever within `nanos`.
    pub(crate) const fn lasting(&self, nanos: u64) -> u64 {
        nanos / self.every
    }
}

const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The most within any half-open window of a second.
    fn most_in_a_second(begun: &[u64]) -> usize {
        let within = |from: usize| begun[from..].iter().take_while(|at| **at < begun[from] + SECOND).count();
        (0..begun.len()).map(within).max().unwrap_or(0)
    }

    #[test]
    fn c8_no_window_of_a_second_holds_more_calls_than_the_cap() {
        // xorshift64: arrivals in bursts, with pauses, and evenly.
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for cap in [1, 2, 3, 7, 19, 20, 21, 99, 100, 1000, 3333] {
            let mut pace = Pace::new(cap);
            let (mut now, mut begun) = (5 * SECOND, Vec::new());
            while begun.len() < 20_000.min(cap as usize * 40 + 10) {
                for _ in 0..next(u64::from(cap) * 2 + 2) {
                    begun.push(pace.take(now));
                }
                now += match next(6) {
                    0 => 0,
                    1 => 1,
                    2 => SECOND / u64::from(cap),
                    3 => SECOND / 3,
                    4 => SECOND,
                    _ => 7 * SECOND,
                };
            }
            assert!(begun.is_sorted());
            assert!(most_in_a_second(&begun) <= cap as usize, "{cap}: {}", most_in_a_second(&begun));
        }
    }

    #[test]
    fn c8_nine_tenths_of_the_cap_can_be_kept_up() {
        for cap in [1_u32, 2, 10, 19, 20, 50, 100, 1000, 100_000] {
            let mut pace = Pace::new(cap);
            let calls = u64::from(cap) * 10;
            let last = (0..calls).map(|_| pace.take(0)).last().unwrap();
            assert!(last <= SECOND * 100 / 9, "{cap}: {last}");
            assert!(pace.lasting(SECOND) * 10 + 10 >= u64::from(cap) * 9, "{cap}");
        }
    }

    #[test]
    fn c8_what_may_begin_now_is_not_put_off() {
        let mut pace = Pace::new(100);
        let now = 10 * SECOND;
        assert!((0..10).all(|_| pace.opens_at() <= now && pace.take(now) == now));
        let opens = pace.opens_at();
        assert!(opens > now && pace.take(now) == opens);
    }
}
