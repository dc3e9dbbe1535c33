//! Every short history of two accounts whose KMS refuses, falls silent and relents, and that are locked and unlocked:
//! what may be expected of each is a matter of its own history alone (goal R7; A3, B1, B5, B7, B12, D5).
//!
//! A history is a sequence of rounds; a round changes one thing, or nothing, and lets time pass. The real keeper runs, on
//! virtual time, and both accounts are looked at in every second.

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Authority, Kek, KeyProvider};
use strongroom::testing::{Answer, ManualClock, ScriptedProvider};
use strongroom::{Account, AccountId, AccountSpec, AekCache, ErrorKind, OutageGrace, Refusal};

use crate::common::{C, KEK, kind, longest_interval, millis, secs};
use crate::evidence::{count, report};

const R: Duration = secs(6);
const G: Duration = secs(20);
/// The longest pause between two probes of an endpoint that is silent.
const PROBE: Duration = secs(6);
/// Seconds, with two silent accounts at the endpoint.
const LONGEST_RECOVERY: u64 = 21;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kms {
    Allows,
    Refuses,
    Silent,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Nothing,
    Kms(usize, Kms),
    LockOrUnlock(usize),
}

use Change::{LockOrUnlock, Nothing};
const CHANGES: [Change; 9] = [
    Nothing,
    Change::Kms(0, Kms::Allows),
    Change::Kms(0, Kms::Refuses),
    Change::Kms(0, Kms::Silent),
    Change::Kms(1, Kms::Allows),
    Change::Kms(1, Kms::Refuses),
    Change::Kms(1, Kms::Silent),
    LockOrUnlock(0),
    LockOrUnlock(1),
];
/// None, so that changes coincide; less than a refresh; one that uses up a lease without grace.
const PAUSES: [u64; 3] = [0, 4, 16];

#[test]
fn r7_every_history_of_two_accounts_keeps_the_bounds_of_each() {
    let rounds = count(2, 3, 4);
    let kinds = CHANGES.len() * PAUSES.len();
    let histories = kinds.pow(u32::try_from(rounds).unwrap());
    let mut told = Told::default();
    for same_authority in [true, false] {
        for number in 0..histories {
            let mut world = World::new(same_authority);
            let mut rest = number;
            for _ in 0..rounds {
                world.round(
                    CHANGES[rest % CHANGES.len()],
                    PAUSES[rest / CHANGES.len() % PAUSES.len()],
                    &mut told,
                );
                rest /= kinds;
            }
            world.all_is_well_again(&mut told);
        }
    }
    report("R7", "rounds of two accounts", rounds, ">=", count(2, 3, 4));
    report(
        "R7",
        "histories of two accounts, all there are",
        2 * histories,
        ">=",
        count(1_000, 30_000, 1_000_000),
    );
    report("R7", "times that an account was looked at", told.looks, ">", 0);
    assert!(
        told.usable > 0 && told.refused > 0 && told.silent > 0 && told.locked > 0,
        "all of it comes to pass: {told:?}"
    );
}

/// How often an account was seen, and how.
#[derive(Debug, Default)]
struct Told {
    looks: u64,
    usable: u64,
    refused: u64,
    silent: u64,
    locked: u64,
}

struct World {
    cache: AekCache,
    same_authority: bool,
    sides: [Side; 2],
    now: Duration,
    /// What was done, for who reads of a failure.
    history: Vec<(Change, u64)>,
}

/// One account, its KMS, and what is known of both. Times are since the beginning.
struct Side {
    kms: ScriptedProvider,
    account: Account,
    truth: Kms,
    /// Since when the KMS says what it says.
    since: Duration,
    /// When it last allowed the key.
    allowed: Duration,
    /// Whose calls its endpoint has ever left unanswered: each may take a turn of the probes.
    silent: [bool; 2],
    locked: bool,
    /// It is locked, and when it was asked to unlock.
    asked: Option<Duration>,
    /// That has to succeed: its KMS allows the key since before, and no unlock that met silence was still under way.
    must_unlock: bool,
    /// When it was seen to be unlocked.
    unlocked: Duration,
    /// Its KMS has always allowed the key, and nobody has locked it.
    calm: bool,
}

impl World {
    fn new(same_authority: bool) -> Self {
        let clock = ManualClock::new();
        let cache = AekCache::builder()
            .refresh_every(R)
            .outage_grace(OutageGrace::For(G))
            .manual(&clock)
            .build()
            .unwrap();
        let sides = ["one", if same_authority { "one" } else { "two" }].map(|authority| {
            let kms = ScriptedProvider::on_virtual_time()
                .with_clock(&clock)
                .with_authority(Authority::new("test", authority));
            let provider: Arc<dyn KeyProvider> = Arc::new(kms.clone());
            let account =
                cache.create(AccountSpec::new(AccountId::random(), provider, Kek::latest(KEK))).unwrap();
            Side {
                kms,
                account,
                truth: Kms::Allows,
                since: Duration::ZERO,
                allowed: Duration::ZERO,
                silent: [false; 2],
                locked: false,
                asked: None,
                must_unlock: false,
                unlocked: Duration::ZERO,
                calm: true,
            }
        });
        Self { cache, same_authority, sides, now: Duration::ZERO, history: Vec::new() }
    }

    fn round(&mut self, change: Change, pause: u64, told: &mut Told) {
        self.history.push((change, pause));
        match change {
            Nothing => {}
            Change::Kms(side, truth) => {
                self.sides[side].says(truth, self.now);
                for (number, other) in self.sides.iter_mut().enumerate() {
                    other.silent[side] |= truth == Kms::Silent && (number == side || self.same_authority);
                }
            }
            LockOrUnlock(side) => self.sides[side].lock_or_unlock(self.now),
        }
        self.pass(pause, told);
    }

    fn pass(&mut self, seconds: u64, told: &mut Told) {
        self.sides.iter_mut().for_each(|side| side.look(self.now, &self.cache, told));
        for _ in 0..seconds {
            self.cache.run_for(secs(1));
            self.now += secs(1);
            for side in &mut self.sides {
                if side.truth == Kms::Allows {
                    side.allowed = self.now;
                }
                side.look(self.now, &self.cache, told);
            }
        }
    }

    /// What was taken away is given back: no history leaves an account behind.
    fn all_is_well_again(&mut self, told: &mut Told) {
        self.sides.iter_mut().for_each(|side| side.says(Kms::Allows, self.now));
        self.pass(LONGEST_RECOVERY, told);
        for side in self.sides.iter_mut().filter(|side| side.locked) {
            side.lock_or_unlock(self.now);
        }
        self.pass(LONGEST_RECOVERY, told);
        assert!(self.sides.iter().all(|side| side.account.permit().is_ok()));
    }
}

impl Side {
    fn says(&mut self, truth: Kms, now: Duration) {
        if truth == self.truth {
            return;
        }
        self.kms.every_call(&match truth {
            Kms::Allows => Answer::Ok,
            Kms::Refuses => Answer::Refused(Refusal::KeyDisabled),
            // Past the deadline of a refresh, and of no other call.
            Kms::Silent => Answer::Late(secs(7), Box::new(Answer::Transient)),
        });
        self.must_unlock = false;
        (self.truth, self.since, self.calm) = (truth, now, false);
    }

    fn lock_or_unlock(&mut self, now: Duration) {
        if self.locked {
            drop(self.account.begin_unlock());
            let joins = self.asked.is_some_and(|before| now - before <= C + PROBE) && !self.must_unlock;
            self.must_unlock = self.truth == Kms::Allows && !joins;
            self.asked = Some(now);
        } else {
            self.account.lock();
            self.locked = true;
        }
        self.calm = false;
    }

    /// Holds what the account says against what may be expected of it.
    fn look(&mut self, now: Duration, cache: &AekCache, told: &mut Told) {
        let seen = kind(self.account.permit());
        told.looks += 1;
        if self.calm {
            assert_eq!(seen, None, "nothing has happened to this account");
        }
        if self.locked {
            if self.asked.is_none() || seen == Some(ErrorKind::Locked) {
                told.locked += 1;
                assert_eq!(seen, Some(ErrorKind::Locked));
                let waited = now - self.asked.unwrap_or(now);
                assert!(
                    !self.must_unlock || waited <= self.recovery(),
                    "still locked {waited:?} after it was asked to unlock"
                );
                return;
            }
            (self.locked, self.asked, self.unlocked) = (false, None, now);
        }
        let lasted = now - self.since.max(self.unlocked);
        match (self.truth, seen) {
            (Kms::Refuses, None) => {
                let latest = longest_interval(R) + C + self.probes();
                assert!(now - self.since <= latest, "usable {lasted:?} after a refusal");
            }
            (Kms::Allows, Some(_)) => {
                assert!(lasted <= self.recovery(), "{seen:?} {lasted:?} after it was allowed");
            }
            _ => {}
        }
        match seen {
            None => {
                told.usable += 1;
                assert!(now - self.allowed < cache.usable_for(), "usable past F + G");
            }
            Some(ErrorKind::Revoked) => told.refused += 1,
            Some(ErrorKind::Unavailable) => told.silent += 1,
            Some(ErrorKind::NotReady) => {}
            Some(other) => panic!("{other:?}"),
        }
    }

    /// How long its turn of the probes can be in coming.
    fn probes(&self) -> Duration {
        self.silent.iter().filter(|silent| **silent).map(|_| PROBE).sum()
    }

    /// 1.05 r + c, and its turn.
    fn recovery(&self) -> Duration {
        R + millis(300) + C + self.probes()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("second {} of {:?}", self.now.as_secs(), self.history);
        }
    }
}
