//! Tokens, flaps, jitter and the derived times, each at its edges.

use super::*;
use crate::lease::pace::{Flaps, Jitter, Tokens};

const fn at(seconds: u64) -> Moment {
    Moment::from_nanos(seconds * 1_000_000_000, seconds * 1_000_000_000)
}

#[test]
fn c1_three_calls_may_be_asked_for_at_once_and_one_more_each_6_s() {
    let mut tokens = Tokens::full(at(0));
    let mut taken = |now, most: usize| (0..=most).take_while(|_| tokens.take(at(now))).count();
    assert_eq!(taken(0, 9), 3);
    // Asking in vain does not put off the next one.
    assert_eq!(taken(5, 9), 0);
    assert_eq!(taken(6, 9), 1);
    assert_eq!(taken(18, 9), 2);
    assert_eq!(taken(1_000, 9), 3);
}

#[test]
fn three_losses_within_ten_minutes_double_the_wait_up_to_16_times() {
    let mut flaps = Flaps::default();
    let mut wait_after = |now| {
        flaps.note(at(now));
        flaps.back_off(at(now), SECOND).as_secs()
    };
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(&mut wait_after), [1, 1, 2, 4, 8, 16, 16]);
    assert_eq!(flaps.back_off(at(603), SECOND), 16 * SECOND, "the third last loss is 599 s ago");
    assert_eq!(flaps.back_off(at(604), SECOND), SECOND, "and now 600 s");
    assert_eq!(flaps.back_off(at(6), 30 * SECOND), MAX_REFRESH);
    let mut wait_after = |now| {
        flaps.note(at(now));
        flaps.back_off(at(now), SECOND).as_secs()
    };
    assert_eq!([605, 606, 607].map(&mut wait_after), [1, 1, 2], "doubled from the start again");
}

/// Marsaglia 2003: xorshift64 with the shifts 13, 7 and 17, from 1.
#[test]
fn jitter_is_the_published_generator_and_never_stuck() {
    let published = [
        1_082_269_761,
        1_152_992_998_833_853_505,
        11_177_516_664_432_764_457,
        17_678_023_832_001_937_445_u64,
    ];
    for seed in [0, 1] {
        let mut jitter = Jitter::new(seed);
        // Over 1,024 ns the steps are nanoseconds.
        let steps = published.map(|_| jitter.between(Duration::ZERO, Duration::from_nanos(1024)).as_nanos());
        assert_eq!(steps, published.map(|number| u128::from(number % 1025)));
    }
}

#[test]
fn jitter_reaches_both_ends_and_goes_past_none() {
    let mut jitter = Jitter::new(1);
    // Up to a twentieth later, but not past the longest interval unless it was past it before.
    for (around, latest) in [(20_000, 21_000), (59_000, 60_000), (60_000, 60_000), (90_000, 90_000)] {
        let around = Duration::from_millis(around);
        let drawn: Vec<_> = (0..20_000).map(|_| jitter.near(around)).collect();
        assert_eq!(drawn.iter().min(), Some(&around));
        assert_eq!(drawn.iter().max(), Some(&Duration::from_millis(latest)));
    }
    assert_eq!(jitter.between(2 * SECOND, SECOND), 2 * SECOND, "a range without room");
}

#[test]
fn c1_c2_the_times_are_those_of_the_contract() {
    let of = |refresh, grace| Policy::new(refresh, 2 * SECOND, grace);
    let ms = Duration::from_millis;
    for (refresh, shortest, longest) in
        [(6_000, 6_000, 6_600), (30_000, 27_000, 33_000), (55_000, 49_500, 60_000), (60_000, 54_000, 60_000)]
    {
        let policy = of(ms(refresh), 1800 * SECOND);
        assert_eq!((policy.shortest_interval(), policy.longest_interval()), (ms(shortest), ms(longest)));
        assert_eq!(policy.fresh_for(), ms(longest) + 8 * SECOND);
        assert_eq!(policy.usable_for(), ms(longest) + 1808 * SECOND);
    }
    assert_eq!(of(SECOND, Duration::MAX).usable_for(), Duration::MAX);
    let grace = |most| DEFAULT.shortened(most).grace();
    assert_eq!([None, Some(SECOND), Some(Duration::MAX)].map(grace), [1800 * SECOND, SECOND, 1800 * SECOND]);
}
