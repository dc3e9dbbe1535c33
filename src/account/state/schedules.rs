//! Every order in which threads can meet at an account, or a million of them: a keeper that closes, publishes and
//! moves deadlines, and readers in the midst.
//!
//! Built with `--cfg shuttle` only (tests/evidence/checks/R7.sh): shuttle runs one thread at a time and chooses at
//! each access of `sync` which. So what the threads know of each other is kept in plain fields: [`Told`] changes in
//! one step with what it tells of.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, Runner, thread};

use super::*;
use crate::block::GenerationKeys;
use crate::clock::ManualClock;
use crate::derive::Secrets;
use crate::evidence::{count, report};
use crate::secret::MemoryLock;

/// What the keeper does. Times are in seconds: deadlines since the beginning, passes from now.
#[derive(Clone, Copy, Debug)]
enum Act {
    Close,
    Publish(u64),
    Extend(u64),
    Pass(u64),
}

/// Begins with keys of the first epoch, until second 10.
type Script = &'static [Act];

use Act::{Close, Extend, Pass, Publish};
const CLOSE: Script = &[Close];
const REOPEN: Script = &[Close, Publish(60)];
/// Grace is earned, used, taken back, and earned again.
const DEADLINES: Script = &[Extend(20), Pass(15), Extend(12), Extend(30)];
/// The deadline of the second epoch outlasts the first one's, at a time past that.
const PAST_THE_FIRST: Script = &[Pass(9), Close, Publish(40), Pass(10)];
const EVERYTHING: Script =
    &[Extend(20), Pass(12), Close, Publish(40), Pass(10), Extend(21), Close, Publish(60), Extend(50)];

/// How a thread of the data plane goes about it.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Holds its guard from before decryption to the final check.
    Open,
    /// Holds an epoch, and enters anew with it: a permit, a fence, a guarded value.
    Fence,
}

/// What every thread may rely on.
#[derive(Default)]
struct Told {
    /// The newest epoch that `close` has begun and returned from; 0 before.
    closed: u64,
    /// With their epochs, in the order in which the keeper went about to store them.
    deadlines: Vec<(u64, Moment)>,
    /// How many of these are stored for certain.
    stored: usize,
    /// Readers that may hold a snapshot.
    inside: usize,
    released: u64,
    refused: u64,
}

struct World {
    state: AccountState,
    clock: ManualClock,
    start: Moment,
    /// Epoch n has keys of generation n.
    rings: Rings,
    told: Mutex<Told>,
    step: AtomicU64,
}

type Rings = [Arc<KeyRing>; 3];

/// Made once, for it costs more than a schedule.
fn rings() -> Rings {
    [1, 2, 3].map(|number| {
        let generation = Generation::new(number).expect("not zero");
        let id = AccountId::from_bytes([1; 16]);
        let keys = GenerationKeys::new(id, generation, Secrets::single(&[0xAE; 32]), MemoryLock::BestEffort);
        Arc::new(KeyRing::new(keys.expect("maps")))
    })
}

impl World {
    fn new(rings: &Rings) -> Self {
        let clock = ManualClock::new();
        let state =
            AccountState::new(AccountId::from_bytes([1; 16]), Clock::Manual(clock.clone()), Epoch::FIRST);
        let start = clock.moment();
        let this = Self {
            state,
            clock,
            start,
            rings: rings.clone(),
            told: Mutex::default(),
            step: AtomicU64::new(0),
        };
        this.act(Publish(10));
        this
    }

    /// Shuttle's threads are one to the system: nobody holds it.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.try_lock().expect("is never held across a step")
    }

    /// Where another thread may come in between; decryption, for a reader.
    fn step(&self) {
        self.step.load(Ordering::SeqCst);
    }

    fn at(&self, seconds: u64) -> Moment {
        self.start.plus(Duration::from_secs(seconds))
    }

    fn act(&self, act: Act) {
        let epoch = self.state.epoch();
        match act {
            Close => {
                self.state.close(epoch.next(), Keyless::Locked);
                self.told().closed = epoch.next().number();
            }
            Publish(until) => {
                let ring = Arc::clone(&self.rings[length(epoch.number() - 1)]);
                self.storing(epoch, until, |at| {
                    self.state.publish_keys(epoch, Keys::unlimited(Arc::clone(&ring)), at, at)
                });
            }
            Extend(until) => self.storing(epoch, until, |at| self.state.extend(at, at)),
            Pass(seconds) => {
                self.step();
                self.clock.advance(Duration::from_secs(seconds));
            }
        }
    }

    fn storing(&self, epoch: Epoch, until: u64, store: impl FnOnce(Moment)) {
        let at = self.at(until);
        self.told().deadlines.push((epoch.number(), at));
        store(at);
        let mut told = self.told();
        told.stored = told.deadlines.len();
    }

    fn read(&self, reader: Reader) {
        self.told().inside += 1;
        let entered = self.state.enter(None).ok();
        let epoch = entered.as_ref().map(Guard::epoch);
        match (reader, entered) {
            (_, None) => {}
            (Reader::Open, Some(guard)) => {
                self.step();
                self.final_check(&guard);
            }
            (Reader::Fence, Some(guard)) => {
                drop(guard);
                self.step();
                let floor = self.told().closed;
                match self.state.enter(epoch) {
                    Ok(guard) => {
                        assert_eq!(Some(guard.epoch()), epoch, "entered another epoch than was asked for");
                        assert!(guard.epoch().number() >= floor, "entered an epoch whose end was told");
                        self.final_check(&guard);
                    }
                    Err(_) => self.told().refused += 1,
                }
            }
        }
        self.leave(epoch);
    }

    fn final_check(&self, guard: &Guard<'_>) {
        let epoch = guard.epoch().number();
        assert_eq!(
            u64::from(guard.sealing(Moment::from_nanos(0, 0)).generation().number()),
            epoch,
            "keys of another epoch"
        );
        let (floor, stored) = {
            let told = self.told();
            (told.closed, told.stored)
        };
        // The check reads the clock first, in one step with this.
        let now = self.clock.moment();
        let verdict = guard.release();
        let mut told = self.told();
        if verdict.is_err() {
            told.refused += 1;
            return;
        }
        told.released += 1;
        assert!(
            epoch >= floor,
            "released in epoch {epoch} after `close` had returned from beginning {floor}"
        );
        // The last that was stored for certain before the check, and whatever may have been since.
        let mut seen = told.deadlines[stored.saturating_sub(1)..].iter();
        let held = seen.any(|(of, deadline)| *of == epoch && !now.reached(*deadline));
        assert!(held, "released in epoch {epoch} past every deadline that it had meanwhile: {told:?}");
    }

    /// Whoever leaves last behind a closing takes the keys along.
    fn leave(&self, epoch: Option<Epoch>) {
        let mut told = self.told();
        told.inside -= 1;
        let first_is_over = told.closed > Epoch::FIRST.number();
        if epoch == Some(Epoch::FIRST) && first_is_over && told.inside == 0 {
            assert!(is_dropped(&self.rings[0]), "closed, and no reader is left, but the keys are");
        }
    }
}

/// Nobody holds the keys but the test: [`explore`], and the world.
fn is_dropped(ring: &Arc<KeyRing>) -> bool {
    Arc::strong_count(ring) == 2
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "closed {}, {} of {:?} stored", self.closed, self.stored, self.deadlines)
    }
}

/// What one schedule was: how many calls got through.
#[derive(Clone, Copy, Default)]
struct Outcome {
    released: u64,
    refused: u64,
}

/// One schedule: the keeper and the readers side by side, from the beginning to the end of the script.
fn play(rings: &Rings, script: Script, readers: &'static [Reader]) -> Outcome {
    let world = Arc::new(World::new(rings));
    let threads: Vec<_> = readers
        .iter()
        .map(|reader| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.read(*reader))
        })
        .collect();
    script.iter().for_each(|act| world.act(*act));
    threads.into_iter().for_each(|thread| thread.join().expect("a reader's check holds"));

    world.act(Close);
    assert!(world.rings.iter().all(is_dropped), "closed at the end, but the keys are there");
    let told = world.told();
    Outcome { released: told.released, refused: told.refused }
}

/// Plays schedules that `scheduler` chooses, until it has no more or `seen` holds `goal` different ones.
fn explore(
    scheduler: impl Scheduler + 'static,
    (seen, goal): (&Seen, u64),
    script: Script,
    readers: &'static [Reader],
) -> Outcome {
    let rings = rings();
    let total = Arc::new(Mutex::new(Outcome::default()));
    let sum = Arc::clone(&total);
    let script_and_readers = format!("{script:?} {readers:?}");
    let counted = Counted { scheduler, seen: Arc::clone(seen), goal, of: script_and_readers, schedule: None };
    Runner::new(counted, Config::default()).run(move || {
        let outcome = play(&rings, script, readers);
        let mut sum = sum.lock().expect("no holder panics");
        sum.released += outcome.released;
        sum.refused += outcome.refused;
    });
    *total.lock().expect("no holder panics")
}

/// Counts the different schedules that another scheduler chooses, by the threads that it chose between.
struct Counted<S> {
    scheduler: S,
    seen: Seen,
    goal: u64,
    of: String,
    schedule: Option<DefaultHasher>,
}

type Seen = Arc<Mutex<HashSet<u64>>>;

impl<S: Scheduler> Scheduler for Counted<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        let mut seen = self.seen.lock().expect("no holder panics");
        seen.extend(self.schedule.take().map(|schedule| schedule.finish()));
        if number(&seen) >= self.goal {
            // Run out of its own, for it takes any other end for a failure and says so.
            while self.scheduler.new_execution().is_some() {}
            return None;
        }
        let mut schedule = DefaultHasher::new();
        self.of.hash(&mut schedule);
        let next = self.scheduler.new_execution();
        self.schedule = next.is_some().then_some(schedule);
        next
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let next = self.scheduler.next_task(runnable, current, yields)?;
        if let Some(schedule) = self.schedule.as_mut().filter(|_| runnable.len() > 1) {
            usize::from(next).hash(schedule);
        }
        Some(next)
    }

    fn next_u64(&mut self) -> u64 {
        self.scheduler.next_u64()
    }
}

fn number<T>(set: &HashSet<T>) -> u64 {
    u64::try_from(set.len()).expect("fits")
}

fn length(n: u64) -> usize {
    usize::try_from(n).expect("fits")
}

/// One reader and a keeper: all there is.
#[test]
fn every_schedule_of_one_reader_keeps_the_promises() {
    let seen = Seen::default();
    let scripts = [CLOSE, REOPEN, PAST_THE_FIRST, DEADLINES];
    for script in scripts.into_iter().take(length(count(2, 2, 4))) {
        for readers in [&[Reader::Open], &[Reader::Fence]] {
            let before = number(&seen.lock().expect("no holder panics"));
            let outcome = explore(DfsScheduler::new(None, false), (&seen, u64::MAX), script, readers);
            let schedules = number(&seen.lock().expect("no holder panics")) - before;
            println!("{script:?} {readers:?}: {schedules} schedules");
            assert!(outcome.released > 0 && outcome.refused > 0, "both come to pass");
        }
    }
    let all = number(&seen.lock().expect("no holder panics"));
    report("R7", "thread schedules of one reader, all there are", all, ">=", 10_000);
}

/// Two readers and a keeper: those that a few preemptions make, then random ones, all different.
#[test]
fn many_schedules_of_two_readers_keep_the_promises() {
    let goal = count(2_000, 20_000, 1_000_000);
    let seen = Seen::default();
    let mut part = 0;
    let parts: [(Script, &'static [Reader]); 5] = [
        (REOPEN, &[Reader::Open, Reader::Fence]),
        (DEADLINES, &[Reader::Open, Reader::Fence]),
        (PAST_THE_FIRST, &[Reader::Open, Reader::Open]),
        (EVERYTHING, &[Reader::Open, Reader::Fence]),
        (EVERYTHING, &[Reader::Open, Reader::Open]),
    ];
    for (script, readers) in parts {
        part += goal / 5;
        let few = PctScheduler::new_from_seed(1, 3, length(goal / 50));
        let random = RandomScheduler::new_from_seed(2, length(goal));
        for outcome in
            [explore(few, (&seen, part), script, readers), explore(random, (&seen, part), script, readers)]
        {
            println!("{script:?} {readers:?}: {} released, {} refused", outcome.released, outcome.refused);
            assert!(outcome.released > 0 && outcome.refused > 0, "both come to pass");
        }
    }
    report("R7", "thread schedules", number(&seen.lock().expect("no holder panics")), ">=", goal);
}
