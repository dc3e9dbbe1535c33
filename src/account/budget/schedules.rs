//! A hundred thousand orders in which threads can meet at a budget: some that seal, one that changes the limits.
//!
//! Built with `--cfg shuttle` only (tests/evidence/checks/R7.sh). What is checked while threads run is what they may rely on then; what
//! is exact is exact once they have ended.

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner, thread};

use super::*;
use crate::evidence::count;

/// Each thread pays for so many seals at once, in turn.
type Script = &'static [&'static [u64]];

/// Little is left of a limit of 1,000 after these: handfuls, one by one, from shares that others call back, and the last seals of all.
const TO_THE_END: Script = &[&[70, 1, 1, 600, 1, 1], &[1, 60, 1, 200, 9], &[2, 1, 100, 1, 1]];
/// Less than the limit, but for what is held.
const WITHIN: Script = &[&[64, 1, 1, 1, 200], &[1, 64, 1, 1, 200], &[1, 1, 64, 1, 200]];
const LIMIT: u64 = 1_000;
const LOWERED: u64 = 500;
const BYTES: u64 = 1 << 20;

fn limits(seals: u64) -> GenerationLimits {
    GenerationLimits::new(seals, BYTES * seals, 365).expect("allowed")
}

const fn cost(seals: u64) -> Amount {
    Amount { seals, bytes: seals * BYTES }
}

/// One schedule: what the threads have paid for in all.
fn play(script: Script, lowered: bool) -> u64 {
    let budget = Arc::new(Budget::new(Generation::FIRST, limits(LIMIT), Bell::default()));
    let threads: Vec<_> = script
        .iter()
        .map(|costs| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || costs.iter().filter(|seals| budget.pay(cost(**seals))).sum::<u64>())
        })
        .collect();
    if lowered {
        budget.set_limits(limits(LOWERED));
    }
    let paid = threads.into_iter().map(|thread| thread.join().expect("pays")).sum();
    assert!(paid <= LIMIT, "{paid} of {LIMIT} were sealed");
    let held = budget.shares().map(Share::held).fold(Amount::default(), Amount::plus);
    assert_eq!(
        budget.taken.now(),
        cost(paid).plus(held),
        "taken is what was sealed and what is left in shares"
    );
    assert_eq!(budget.used(), cost(paid));
    // What is left can be had as a whole, wherever it is, and no more of it.
    let left = if lowered { LOWERED } else { LIMIT }.saturating_sub(paid);
    assert!(!budget.pay(cost(left + 1)) && budget.pay(cost(left)) && !budget.pay(cost(1)));
    assert_eq!(budget.used(), cost(paid + left));
    assert!(budget.bell.rang(), "all is used up");
    paid
}

fn explore(scheduler: impl Scheduler + 'static, script: Script, lowered: bool) -> usize {
    let runner = Runner::new(scheduler, Config::default());
    runner.run(move || {
        play(script, lowered);
    })
}

#[test]
fn e6_no_schedule_seals_more_than_the_limit_and_what_is_taken_is_sealed_or_left() {
    let goal = usize::try_from(count(500, 5_000, 25_000)).expect("fits");
    for (script, lowered) in [(TO_THE_END, false), (WITHIN, false), (TO_THE_END, true), (WITHIN, true)] {
        let few = explore(PctScheduler::new_from_seed(1, 3, goal / 10), script, lowered);
        let random = explore(RandomScheduler::new_from_seed(2, goal), script, lowered);
        assert_eq!((few, random), (goal / 10, goal));
        println!("{script:?}, lowered: {lowered}: {few} and {random} schedules");
    }
}
