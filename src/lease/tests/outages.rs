//! Outages by the hundred thousand: the KMS is silent, the process is suspended, clocks jump, the keeper stalls.
//!
//! What [`Watch`] holds of every history is held here too. Beside it stands one rule that needs no observer: counted
//! on the boot-time clock from the start of the last verified unwrap, nothing is usable for longer than F + G.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::explore::Move;
use super::*;
use crate::evidence::{count, report};

#[test]
fn r9_no_outage_leaves_a_key_usable_past_its_grace_or_an_account_that_does_not_come_back() {
    let outages = count(2_000, 1_000_000, 1_000_000);
    let mut seen = Tally::default();
    for seed in 0..outages {
        outage(&mut StdRng::seed_from_u64(seed), seed, &mut seen);
    }
    println!("{seen:?}");
    report("R9", "simulated outages", outages, ">=", outages);
    report("R9", "of them with suspends", seen.suspended, ">", outages / 4);
    report("R9", "of them with clock jumps", seen.jumped, ">", outages / 4);
    report("R9", "of them in which grace was lived on", seen.graced, ">", outages / 20);
    report("R9", "longest use, share of F + G", format!("{:.9}", seen.longest), "<=", 1);
    assert!(seen.longest <= 1.0 && seen.graced > outages / 20, "{seen:?}");
}

/// What the outages had in them.
#[derive(Debug, Default)]
struct Tally {
    suspended: u64,
    jumped: u64,
    graced: u64,
    /// The longest that a key was usable, as a share of F + G.
    longest: f64,
}

fn outage(random: &mut impl Rng, seed: u64, tally: &mut Tally) {
    let policy = policy(random);
    let mut world = World::fresh_with(policy, seed);
    let since = world.watch.keys.expect("it is fresh").since;
    let (mut suspended, mut jumped, mut graced) = (false, false, false);
    for _ in 0..random.random_range(1..80) {
        let step = silent_move(random);
        suspended |= matches!(step, Move::Sleep(_));
        jumped |= matches!(step, Move::WallForward(_) | Move::WallBack(_));
        world.play(step).unwrap_or_else(|breach| panic!("seed {seed}: {breach:?} by {step:?}\n{world:#?}"));
        graced |= world.seen() == Seen::Grace;
        if matches!(world.seen(), Seen::Fresh | Seen::Grace) {
            let used = Duration::from_nanos(world.now.boot_nanos() - since.boot_nanos());
            tally.longest = tally.longest.max(used.as_secs_f64() / policy.usable_for().as_secs_f64());
        }
    }
    tally.suspended += u64::from(suspended);
    tally.jumped += u64::from(jumped);
    tally.graced += u64::from(graced);

    // One wake past the end: what is left is wiped.
    world.pass(policy.usable_for());
    world.on(Event::Wake);
    assert!(matches!(world.seen(), Seen::Closed(_)), "seed {seed}: {world:#?}");
    // The KMS is back.
    if world.flight.is_some() {
        world.answer(Answer::Transient);
    }
    world.attempt(World::verified);
    assert_eq!(world.seen(), Seen::Fresh, "seed {seed}");
}

/// r over the window, c from 1 to 5 s, G from none to 30 min.
fn policy(random: &mut impl Rng) -> Policy {
    let grace = [0, 20, 300, 1800][random.random_range(0..4)];
    Policy::new(
        Duration::from_millis(random.random_range(6_000..=60_000)),
        Duration::from_millis(random.random_range(1_000..=5_000)),
        Duration::from_secs(grace),
    )
}

/// Something that happens while nobody answers. Mostly the keeper does its work.
fn silent_move(random: &mut impl Rng) -> Move {
    match random.random_range(0..64) {
        0..18 => Move::ToWake,
        18..36 => Move::Begin,
        36..50 => Move::Answer(Answer::Transient),
        50..52 => Move::Late(Answer::Transient),
        52..54 => Move::SharedSilence,
        54 => Move::Ask,
        55..60 => Move::Pass(Duration::from_millis(random.random_range(0..8_000))),
        60 | 61 => Move::Sleep(Duration::from_secs(random.random_range(0..3_000))),
        62 => Move::WallForward(Duration::from_secs(random.random_range(0..3_000))),
        _ => Move::WallBack(Duration::from_secs(random.random_range(0..3_000))),
    }
}
