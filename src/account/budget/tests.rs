//! No limit is passed, none is given away, and the bell rings before.

use std::sync::atomic::AtomicU64 as Count;

use super::*;

fn budget(seals: u64, bytes: u64) -> Budget {
    let limits = GenerationLimits::new(seals, bytes, 1).expect("allowed");
    Budget::new(Generation::FIRST, limits, Bell::default())
}

fn amount(seals: u64, bytes: u64) -> Amount {
    Amount { seals, bytes }
}

/// How many seals of `bytes` each it pays for.
fn paid(budget: &Budget, bytes: u64) -> u64 {
    (0..).take_while(|_| budget.pay(amount(1, bytes))).count() as u64
}

#[test]
fn e6_one_thread_gets_every_seal_and_byte_of_a_limit_and_no_more() {
    for limit in [1, 2, 63, 64, 65, 1000, 123_457] {
        let of_seals = budget(limit, 1 << 60);
        assert_eq!(paid(&of_seals, 4096), limit, "seals");
        assert_eq!(of_seals.used(), amount(limit, limit * 4096));
        let of_bytes = budget(1 << 48, limit * 10 + 9);
        assert_eq!(paid(&of_bytes, 10), limit, "bytes");
        assert_eq!(of_bytes.used(), amount(limit, limit * 10));
        assert!(of_bytes.pay(amount(1, 9)), "what is left is enough for less");
        assert!(!of_bytes.pay(amount(1, 1)) && of_bytes.pay(amount(1, 0)));
    }
}

#[test]
fn e6_threads_together_never_pass_a_limit_and_leave_nothing_of_it() {
    for limit in [100, 10_000, 300_000] {
        let budget = budget(limit, 1 << 60);
        let done = Count::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| done.fetch_add(paid(&budget, 100), Ordering::Relaxed));
            }
        });
        // Whoever comes while another one calls back may be refused a seal that there is.
        let rest = paid(&budget, 100);
        assert_eq!(done.into_inner() + rest, limit);
        assert_eq!(budget.used(), amount(limit, limit * 100));
    }
}

#[test]
fn e6_a_batch_is_paid_for_as_a_whole_or_not_at_all_also_one_that_no_share_holds() {
    let whole = budget(1 << 48, 1 << 60);
    assert!(whole.pay(amount(1 << 25, 1 << 45)) && whole.pay(amount(1, 1)));
    assert_eq!(whole.used(), amount((1 << 25) + 1, (1 << 45) + 1));
    let small = budget(10, 1000);
    assert!(!small.pay(amount(11, 1)) && !small.pay(amount(1, 1001)));
    assert_eq!(small.used(), Amount::default());
    assert!(small.pay(amount(10, 1000)));
}

#[test]
fn e6_limits_that_are_lowered_bind_at_once_and_those_that_are_raised_too() {
    let budget = budget(1 << 48, 1 << 60);
    assert!((0..1000).all(|_| budget.pay(amount(1, 1))), "shares hold handfuls now");
    let to = |seals| budget.set_limits(GenerationLimits::new(seals, 1 << 60, 1).expect("allowed"));
    to(1010);
    assert_eq!(paid(&budget, 1), 10);
    to(500);
    assert!(!budget.pay(amount(1, 1)));
    to(1012);
    assert_eq!((paid(&budget, 1), budget.used().seals), (2, 1012));
}

#[test]
fn e6_the_bell_rings_before_a_limit_and_for_each_warning_until_it_was_told() {
    let budget = budget(100_000, 1 << 60);
    let rung = || budget.bell.rang();
    let mut seals = 0;
    let mut next = || {
        while !budget.bell.0.load(Ordering::Relaxed) {
            seals += 1;
            if !budget.pay(amount(1, 1)) {
                break;
            }
        }
        (seals, rung())
    };
    for (warning, due) in
        [(LimitWarning::Near, 80_000), (LimitWarning::Imminent, 95_000), (LimitWarning::Reached, 100_000)]
    {
        assert_eq!(next(), (due, true), "{warning:?}");
        budget.tell(Some(warning));
    }
    assert!(!budget.pay(amount(1, 1)) && !rung(), "told of it");
}

#[test]
fn e6_handfuls_ring_no_bell() {
    let budget = budget(100_000, 1 << 60);
    for warning in [LimitWarning::Near, LimitWarning::Imminent] {
        let due = LimitWarning::next_due(budget.used(), amount(100_000, 1 << 60)).seals;
        let mut far = true;
        while far {
            // Each thread leaves something in a share.
            far = std::thread::scope(|scope| {
                let seal =
                    || (0..100).all(|_| budget.pay(amount(1, 1)) && !budget.bell.0.load(Ordering::Relaxed));
                scope.spawn(seal).join().expect("seals")
            });
        }
        let used = budget.used().seals;
        assert!((due..due + due / 100).contains(&used), "{warning:?} after {used} seals");
        budget.tell(LimitWarning::of_use(budget.used(), amount(100_000, 1 << 60)));
        assert!(budget.bell.rang() && budget.rang() && !budget.rang());
    }
}
