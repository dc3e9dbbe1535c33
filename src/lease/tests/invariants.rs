//! Long random histories keep the contract, with clocks that jump and a keeper that may stall.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::explore::Move;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_history_keeps_the_contract(policy in policies(), seed: u64, moves in vec(moves(), 1..200)) {
        let mut world = World::new(policy, seed);
        for (at, step) in moves.into_iter().enumerate() {
            let before = world.clone();
            if let Err(breach) = world.play(step) {
                prop_assert!(false, "{breach:?} by move {at}, {step:?}, from {before:#?}");
            }
        }
    }
}

/// r over the whole window, c from 1 to 5 s, G from none to the whole outage.
fn policies() -> impl Strategy<Value = Policy> {
    let refresh = select(vec![6_000, 7_000, 30_000, 54_600, 60_000_u64]).prop_map(Duration::from_millis);
    let deadline = (1..=5_u64).prop_map(Duration::from_secs);
    let grace = select(vec![0, 20, 1800, u64::MAX]).prop_map(Duration::from_secs);
    (refresh, deadline, grace).prop_map(|(r, c, g)| Policy::new(r, c, g))
}

/// Weighted so that histories spend their time in every state: mostly the keeper does its work.
fn moves() -> impl Strategy<Value = Move> {
    let refusal = || select(vec![Refusal::KeyDisabled, Refusal::KeyGone]);
    let max_grace = select(vec![None, Some(Duration::ZERO), Some(10 * SECOND), Some(86_400 * SECOND)]);
    let told = select(vec![
        Event::AuthorityRefused,
        Event::RecordChanged,
        Event::Unlock,
        Event::Recover,
        Event::Grace(Duration::from_secs(5)),
    ]);
    prop_oneof![
        20 => Just(Move::ToWake),
        20 => Just(Move::Begin),
        8 => max_grace.prop_map(Move::Succeed),
        8 => Just(Move::Answer(Answer::Transient)),
        2 => Just(Move::Answer(Answer::NotAsked)),
        1 => Just(Move::Answer(Answer::Integrity)),
        1 => refusal().prop_map(|refusal| Move::Answer(Answer::Refused(refusal))),
        1 => refusal().prop_map(|refusal| Move::Answer(Answer::RefusedPending(refusal))),
        1 => Just(Move::LateSuccess),
        1 => Just(Move::Late(Answer::Transient)),
        1 => refusal().prop_map(|refusal| Move::Late(Answer::Refused(refusal))),
        2 => Just(Move::SharedSilence),
        4 => told.prop_map(Move::Tell),
        1 => select(vec![Event::Lock, Event::Delete]).prop_map(Move::Tell),
        2 => Just(Move::Ask),
        8 => (0..8_000_u64).prop_map(|ms| Move::Pass(Duration::from_millis(ms))),
        1 => (0..3_000_u64).prop_map(|s| Move::Pass(Duration::from_secs(s))),
        1 => (0..3_000_u64).prop_map(|s| Move::Sleep(Duration::from_secs(s))),
        1 => (0..3_000_u64).prop_map(|s| Move::WallForward(Duration::from_secs(s))),
        1 => (0..3_000_u64).prop_map(|s| Move::WallBack(Duration::from_secs(s))),
    ]
}
