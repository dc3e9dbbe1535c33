//! Every short history of an account under failover custody, whose two KMSs refuse, fall silent and relent (goal R7; A7).
//!
//! A history is a sequence of rounds; a round changes what one KMS says, or nothing, and lets time pass. The real keeper runs, on
//! virtual time, and the account is looked at in every second.

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Authority, Kek};
use strongroom::testing::{Answer, ManualClock, ScriptedProvider};
use strongroom::{Account, AccountId, AccountSpec, AekCache, ErrorKind, OutageGrace, Refusal, Status};

use crate::common::{C, KEK, Store, kind, longest_interval, millis, secs};
use crate::evidence::{count, report};

const R: Duration = secs(6);
/// The longest pause between two probes of an endpoint that is silent.
const PROBE: Duration = secs(6);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kms {
    Allows,
    Refuses,
    Silent,
}

/// Whose word changes, and to what.
type Change = Option<(usize, Kms)>;

const CHANGES: [Change; 7] = [
    None,
    Some((0, Kms::Allows)),
    Some((0, Kms::Refuses)),
    Some((0, Kms::Silent)),
    Some((1, Kms::Allows)),
    Some((1, Kms::Refuses)),
    Some((1, Kms::Silent)),
];
/// None, so that changes coincide; less than a refresh; one that outlasts a lease.
const PAUSES: [u64; 3] = [0, 4, 16];

#[test]
fn a7_r7_every_history_of_two_providers_keeps_the_bounds_of_failover() {
    let rounds = count(2, 3, 4);
    let kinds = CHANGES.len() * PAUSES.len();
    let histories = kinds.pow(u32::try_from(rounds).unwrap());
    let mut told = Told::default();
    for number in 0..histories {
        let mut world = World::new();
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
    report("R7", "histories of two providers, all there are", histories, ">=", count(400, 9_000, 190_000));
    assert!(told.fresh > 0 && told.stood_in > 0 && told.refused > 0 && told.silent > 0, "{told:?}");
}

/// How often the account was seen, and how.
#[derive(Debug, Default)]
struct Told {
    fresh: u64,
    stood_in: u64,
    refused: u64,
    silent: u64,
}

/// Times are since the beginning.
struct World {
    cache: AekCache,
    account: Account,
    kms: [ScriptedProvider; 2],
    truth: [Kms; 2],
    /// Since when each says what it says.
    since: [Duration; 2],
    now: Duration,
    /// When somebody last allowed the key whose word counted: the first one, or the second one in its silence.
    allowed: Duration,
    /// When the first one was last silent: an attempt that met that silence asks the second one as it ends.
    silence: Duration,
    /// The first one has refused since it was last known to allow; and was heard to.
    refused: bool,
    heard: bool,
    /// One of the two has.
    ever_refused: bool,
    /// Either has ever left calls unanswered: each may take a turn of the probes.
    silent: [bool; 2],
    /// What was done, for who reads of a failure.
    history: Vec<(Change, u64)>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let builder = AekCache::builder().refresh_every(R).outage_grace(OutageGrace::None);
        let cache = builder.manual(&clock).build().unwrap();
        let kms = ["first", "second"].map(|name| {
            ScriptedProvider::on_virtual_time()
                .with_clock(&clock)
                .with_authority(Authority::new("scripted", name))
        });
        let [first, second] = [0, 1].map(|at: usize| Arc::new(kms[at].clone()));
        let spec = AccountSpec::new(AccountId::random(), first, Kek::latest(KEK)).store(Store::new());
        let account = cache.create(spec.failover(second, Kek::latest(KEK), secs(3600))).unwrap();
        Self {
            cache,
            account,
            kms,
            truth: [Kms::Allows; 2],
            since: [Duration::ZERO; 2],
            now: Duration::ZERO,
            allowed: Duration::ZERO,
            silence: Duration::ZERO,
            refused: false,
            heard: false,
            ever_refused: false,
            silent: [false; 2],
            history: Vec::new(),
        }
    }

    fn round(&mut self, change: Change, pause: u64, told: &mut Told) {
        self.history.push((change, pause));
        if let Some((at, truth)) = change {
            self.says(at, truth);
        }
        self.pass(pause, told);
    }

    fn says(&mut self, at: usize, truth: Kms) {
        if self.truth[at] == truth {
            return;
        }
        self.kms[at].every_call(&match truth {
            Kms::Allows => Answer::Ok,
            Kms::Refuses => Answer::Refused(Refusal::KeyDisabled),
            // Past the deadline of a refresh, and of no other call.
            Kms::Silent => Answer::Late(secs(7), Box::new(Answer::Transient)),
        });
        (self.truth[at], self.since[at]) = (truth, self.now);
        self.silent[at] |= truth == Kms::Silent;
        self.ever_refused |= truth == Kms::Refuses;
        self.refused |= (at, truth) == (0, Kms::Refuses);
        self.heard &= (at, truth) != (0, Kms::Allows);
    }

    fn pass(&mut self, seconds: u64, told: &mut Told) {
        self.look(told);
        for _ in 0..seconds {
            self.cache.run_for(secs(1));
            self.now += secs(1);
            self.look(told);
        }
    }

    /// Holds what the account says against what may be expected of it.
    fn look(&mut self, told: &mut Told) {
        let [first, second] = self.truth;
        let lasted = self.since.map(|since| self.now - since);
        let stands_in = first == Kms::Silent && second == Kms::Allows;
        if first == Kms::Silent {
            self.silence = self.now;
        }
        let asked = second == Kms::Allows && self.silent[0] && self.now - self.silence <= C * 2;
        if first == Kms::Allows || (asked && !self.heard) {
            self.allowed = self.now;
        }
        let seen = kind(self.account.permit());
        match seen {
            None => {
                assert!(!self.heard, "usable after a refusal of the first one that was heard");
                assert!(self.now - self.allowed < self.cache.fresh_for(), "usable for too long");
                let fresh = matches!(self.account.status(), Status::Fresh { .. });
                if fresh { told.fresh += 1 } else { told.stood_in += 1 }
            }
            Some(ErrorKind::Revoked) => {
                told.refused += 1;
                assert!(self.ever_refused, "silence is never called a refusal");
            }
            Some(ErrorKind::Unavailable) => told.silent += 1,
            Some(ErrorKind::NotReady) => {}
            Some(other) => panic!("{other:?}"),
        }
        let bound = longest_interval(R) + C + self.probes();
        match first {
            Kms::Refuses if lasted[0] > bound => {
                assert_eq!(seen, Some(ErrorKind::Revoked), "{:?} after the first one refused", lasted[0]);
                self.heard = true;
            }
            Kms::Allows if lasted[0] > R + millis(300) + C + self.probes() => {
                assert_eq!(seen, None, "{:?} after the first one allowed it", lasted[0]);
                self.refused = false;
            }
            // The first one's silence is met by its next call, and then the second one is asked.
            Kms::Silent if stands_in && !self.refused && lasted[0].min(lasted[1]) > bound + R + C => {
                assert_eq!(seen, None, "{lasted:?} after the second one could stand in");
            }
            _ => {}
        }
    }

    fn probes(&self) -> Duration {
        self.silent.iter().filter(|silent| **silent).map(|_| PROBE).sum()
    }

    /// What was taken away is given back: no history leaves the account behind.
    fn all_is_well_again(&mut self, told: &mut Told) {
        [0, 1].into_iter().for_each(|at| self.says(at, Kms::Allows));
        self.pass(21, told);
        assert!(matches!(self.account.status(), Status::Fresh { .. }));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("second {} of {:?}", self.now.as_secs(), self.history);
        }
    }
}
