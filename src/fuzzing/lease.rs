//! The lease machine beside a shadow that knows its invariants and nothing of how it keeps them.

use std::time::Duration;

use super::Input;
use crate::clock::Moment;
use crate::error::Refusal;
use crate::id::Epoch;
use crate::lease::{Answer, AttemptId, Effects, Event, Lease, MIN_SPACING, Policy, Publish};

/// The first bytes are the policy and a seed, then each command takes an opcode and an argument. With a seed of 128 or more there is
/// a second provider, as under failover custody.
pub fn lease(data: &[u8]) {
    let mut input = Input(data);
    let refresh = Duration::from_secs(6 + u64::from(input.u8() % 55));
    let deadline = Duration::from_secs(1 + u64::from(input.u8() % 5));
    let grace = match input.u8() {
        255 => Duration::MAX,
        minutes => Duration::from_secs(60 * u64::from(minutes % 64)),
    };
    let seed = input.u8();
    let mut world = World::new(Policy::new(refresh, deadline, grace), seed);
    while !input.is_empty() {
        let (opcode, argument) = (input.u8(), input.u16());
        world.command(opcode, argument);
        world.check();
    }
}

/// The machine, its surroundings, and what must be true of it.
struct World {
    lease: Lease,
    policy: Policy,
    now: Moment,
    begun: Vec<Begun>,
    epoch: Epoch,
    keys: Option<Keys>,
    locked: bool,
    deleted: bool,
    unlock_asked: bool,
    last_begun: Option<Moment>,
    /// Attempts that came sooner after the one before than background attempts may.
    hurried: u64,
    /// How many closings there were: attempts of before one never open.
    closings: u64,
    second: Option<Second>,
}

/// What is known of the second provider of a failover custody.
#[derive(Default)]
struct Second {
    /// Its calls, and the epoch in which each began.
    begun: Vec<(Epoch, Moment)>,
    /// The first one has met silence, and nothing else since.
    silence: bool,
    /// The first one has refused, and has not unwrapped since.
    barred: bool,
    /// When the first one's last verified unwrap started.
    verified: Option<Moment>,
}

#[derive(Clone, Copy)]
struct Begun {
    id: AttemptId,
    begun: Moment,
    /// When the unwrap whose answer counts began: later than the attempt, after a refusal that was checked.
    started: Moment,
    /// The closings that came before it started.
    closings: u64,
    unlock: bool,
}

#[derive(Clone, Copy, Debug)]
struct Keys {
    /// Nothing where only the second provider has unwrapped.
    since: Option<Moment>,
    /// Until when the second provider carries them.
    stood_in: Option<Moment>,
    fresh_until: Moment,
    valid_until: Moment,
    grace: Duration,
    /// A transient failure has come since.
    silence: bool,
}

impl World {
    fn new(policy: Policy, seed: u8) -> Self {
        let now = beginning();
        let two = seed >= 128;
        let lease = Lease::new(policy, now, seed.into());
        let lease = if two { lease.with_second() } else { lease };
        Self {
            epoch: lease.epoch(),
            lease,
            policy,
            now,
            begun: Vec::new(),
            keys: None,
            locked: false,
            deleted: false,
            unlock_asked: false,
            last_begun: None,
            hurried: 0,
            closings: 0,
            second: two.then(Second::default),
        }
    }

    fn command(&mut self, opcode: u8, argument: u16) {
        let tenths = u64::from(argument) * (SECOND / 10);
        let (boot, wall) = (self.now.boot_nanos(), self.now.wall_nanos());
        match opcode % 16 {
            0 => self.now = Moment::from_nanos(boot + tenths, wall + tenths),
            1 => self.now = Moment::from_nanos(boot + tenths / 64, wall + tenths / 64),
            2 => self.now = Moment::from_nanos(boot, wall + tenths),
            3 => self.now = Moment::from_nanos(boot, wall.saturating_sub(tenths)),
            4 => {
                self.on(Event::Wake);
            }
            5 => self.begin_if_wanted(),
            6 => self.sleep_until_woken(),
            7 => {
                self.lease.ask(self.now);
            }
            8 => self.on_lock(),
            9 => {
                self.unlock_asked |= self.locked && !self.deleted;
                self.on(Event::Unlock);
            }
            10 => self.on_delete_or_recover(argument),
            11 => {
                let begun = Moment::from_nanos(boot.saturating_sub(tenths), wall.saturating_sub(tenths));
                self.on(Event::AuthoritySilent { begun, asked: argument.is_multiple_of(2) });
            }
            12 => {
                let event =
                    if argument.is_multiple_of(2) { Event::AuthorityRefused } else { Event::RecordChanged };
                self.on(event);
            }
            15 if self.second.is_some() => self.second(argument),
            _ => self.answer(argument),
        }
    }

    /// The second provider is asked, or answers a call of its own.
    fn second(&mut self, argument: u16) {
        let [which, what] = argument.to_be_bytes();
        let now = self.now;
        let Some(second) = &mut self.second else { return };
        if what.is_multiple_of(2) {
            if self.lease.wants_second(now) {
                assert!(
                    second.silence && !second.barred,
                    "a7: asked in silence only, and never after a refusal"
                );
                assert!(!self.locked && !self.deleted, "a7: a lock is opened by the first one only");
                let apart = second.begun.last().map(|(_, last)| now.boot_nanos() - last.boot_nanos());
                assert!(apart.is_none_or(|apart| apart >= MIN_SPACING.as_secs() * SECOND), "c1");
                second.begun.push((self.lease.begin_second(now), now));
            }
            return;
        }
        let Some(last) = second.begun.len().checked_sub(1) else { return };
        let (epoch, started) = second.begun[last - usize::from(which) % second.begun.len()];
        let counts = epoch == self.epoch && self.lease.second_at().is_some();
        let max_grace = [None, Some(Duration::ZERO)][usize::from(what / 32) % 2];
        match what / 2 % 8 {
            0 => {
                self.on(Event::SecondRefused { epoch, refusal: Refusal::KeyGone });
                assert!(!counts || self.keys.is_none(), "a7: a refusal by the second one closes too");
            }
            1 => {
                self.on(Event::SecondRefusedPending { epoch });
                assert!(!counts || self.keys.is_none(), "d12: reads are closed while it is compared");
            }
            _ => self.on(Event::StoodIn { epoch, started, confirmed: beginning(), limit: LIMIT, max_grace }),
        }
    }

    fn begin_if_wanted(&mut self) {
        let now = self.now;
        if !self.lease.wants_attempt(now) {
            return;
        }
        assert!(!self.deleted, "a deleted account asks nothing");
        assert!(!self.locked || self.unlock_asked, "a locked account asks only for unlock");
        if let Some(last) = self.last_begun {
            let apart = Duration::from_nanos(now.boot_nanos() - last.boot_nanos());
            self.hurried += u64::from(apart < MIN_SPACING);
        }
        // C1: whatever comes sooner than 6 s was asked for, and took one of three tokens, or of one more each 6 s.
        let earned = (now.boot_nanos() - BEGINNING) / (MIN_SPACING.as_secs() * SECOND);
        assert!(self.hurried <= 3 + earned, "c1: {} hurried attempts", self.hurried);
        let id = self.lease.begin(now);
        assert!(!self.lease.wants_attempt(now), "c4: single flight");
        assert!(self.begun.iter().all(|begun| begun.id != id), "an attempt has a name of its own");
        self.begun.push(Begun { id, begun: now, started: now, closings: self.closings, unlock: self.locked });
        self.last_begun = Some(now);
        self.unlock_asked = false;
    }

    fn sleep_until_woken(&mut self) {
        match self.lease.wake_at() {
            None => {
                let waiting = self.begun.last().is_some_and(|begun| self.lease.is_current(begun.id));
                assert!(self.locked || self.deleted || waiting, "the machine would sleep for ever");
            }
            Some(at) => {
                // Either clock wakes it; boot time alone always gets there.
                let boot = at.boot_nanos().min(self.now.boot_nanos() + 7_200 * SECOND);
                let passed = boot.saturating_sub(self.now.boot_nanos());
                self.now = Moment::from_nanos(self.now.boot_nanos() + passed, self.now.wall_nanos() + passed);
                self.on(Event::Wake);
                self.begin_if_wanted();
            }
        }
    }

    fn on_lock(&mut self) {
        self.locked = true;
        self.unlock_asked = false;
        self.forget_silence();
        self.on(Event::Lock);
        assert!(self.keys.is_none(), "d5: lock closes");
    }

    fn on_delete_or_recover(&mut self, argument: u16) {
        if argument.is_multiple_of(2) {
            self.deleted = true;
            self.forget_silence();
            self.on(Event::Delete);
            assert!(self.keys.is_none(), "delete closes");
        } else {
            self.deleted = false;
            self.on(Event::Recover);
        }
    }

    fn forget_silence(&mut self) {
        self.second.iter_mut().for_each(|second| second.silence = false);
    }

    fn answer(&mut self, argument: u16) {
        let [which, what] = argument.to_be_bytes();
        // Mostly the newest attempt; at times one that was given up long ago.
        let Some(last) = self.begun.len().checked_sub(1) else { return };
        let index = last - usize::from(which) % self.begun.len();
        let begun = self.begun[index];
        let current = self.lease.is_current(begun.id);
        let max_grace =
            [None, Some(Duration::ZERO), Some(Duration::from_secs(600))][usize::from(what / 8) % 3];
        let answer = match what % 8 {
            0..=2 => Answer::Verified { started: begun.started, max_grace },
            3 => Answer::Transient,
            4 => Answer::NotAsked,
            5 => Answer::Integrity,
            6 => Answer::RefusedPending(Refusal::KeyDisabled),
            _ => Answer::Refused(Refusal::KeyGone),
        };
        self.on(Event::Answered(begun.id, answer));
        if current && matches!(answer, Answer::Refused(_) | Answer::RefusedPending(_)) {
            assert!(self.keys.is_none(), "d1: a refusal closes at once");
        }
        if matches!(answer, Answer::RefusedPending(_)) && self.lease.is_current(begun.id) {
            // The rest of the attempt is a second unwrap, begun now, after the refusal.
            self.begun[index].started = self.now;
            self.begun[index].closings = self.closings;
        }
    }

    fn on(&mut self, event: Event) {
        if let Some(second) = &mut self.second {
            match event {
                Event::Answered(_, Answer::Refused(_) | Answer::RefusedPending(_)) => {
                    (second.barred, second.silence) = (true, false);
                }
                Event::Answered(_, Answer::Transient) | Event::AuthoritySilent { asked: true, .. } => {
                    second.silence |= !second.barred && !self.locked && !self.deleted;
                }
                _ => {}
            }
        }
        let effects = self.lease.on(self.now, event);
        let Effects { publish, notify, alarm } = effects;
        match publish {
            None => {}
            Some(Publish::Close { epoch, .. }) => {
                assert!(epoch > self.epoch && notify, "a closing has an epoch of its own, and is told");
                self.epoch = epoch;
                self.closings += 1;
                self.keys = None;
            }
            Some(Publish::Keys { fresh_until, valid_until }) => self.opened(event, fresh_until, valid_until),
            Some(Publish::Extend { fresh_until, valid_until }) => {
                self.extended(event, fresh_until, valid_until)
            }
        }
        assert_eq!(self.epoch, self.lease.epoch(), "every epoch is published");
        assert!(!alarm || matches!(event, Event::Answered(_, Answer::Integrity)), "alarms are for integrity");
    }

    fn opened(&mut self, event: Event, fresh_until: Moment, valid_until: Moment) {
        if let Event::StoodIn { epoch, started, max_grace, .. } = event {
            // What the newest record allows, which it was verified by.
            let grace = self.allowed(max_grace);
            self.stood_in((epoch, started), grace, fresh_until, valid_until);
            return;
        }
        let Event::Answered(id, Answer::Verified { started, max_grace }) = event else {
            panic!("invariant 1: opened by {event:?}");
        };
        let begun = self.begun.iter().find(|begun| begun.id == id).expect("no answer without an attempt");
        assert_eq!(begun.closings, self.closings, "invariant 1: begun before the last closing");
        assert!(!self.deleted && (!self.locked || begun.unlock), "invariant 6");
        assert!(within(fresh_until, started.plus(self.policy.fresh_for())), "fresh for F at most");
        assert_eq!(valid_until, fresh_until, "c5: grace is earned");
        assert!(!self.now.reached(valid_until), "nothing opens that has ended");
        self.locked = false;
        if let Some(second) = &mut self.second {
            (second.verified, second.barred, second.silence) = (Some(started), false, false);
        }
        let (since, grace) = (Some(started), self.allowed(max_grace));
        self.keys = Some(Keys { since, stood_in: None, fresh_until, valid_until, grace, silence: false });
    }

    fn allowed(&self, max_grace: Option<Duration>) -> Duration {
        max_grace.map_or(self.policy.grace(), |max| max.min(self.policy.grace()))
    }

    /// Opened, or carried on, by the second provider.
    fn stood_in(
        &mut self,
        (epoch, started): (Epoch, Moment),
        grace: Duration,
        fresh_until: Moment,
        valid_until: Moment,
    ) {
        let second = self.second.as_ref().expect("a7: nobody stands in without a second one");
        assert_eq!(epoch, self.epoch, "invariant 1: begun before the last closing");
        assert!(second.silence && !second.barred && !self.locked && !self.deleted, "a7");
        let recorded = beginning().plus(LIMIT);
        let last = match second.verified.map(|verified| verified.plus(LIMIT)) {
            Some(ours) if ours.boot_nanos() > recorded.boot_nanos() => ours,
            _ => recorded,
        };
        let end = last.earlier(started.plus(self.policy.fresh_for()));
        assert!(!self.now.reached(end), "nothing opens that has ended");
        let unopened = Keys { since: None, stood_in: None, fresh_until, valid_until, grace, silence: false };
        let keys = self.keys.unwrap_or(unopened);
        let fresh = keys.since.map_or(Moment::from_nanos(0, 0), |since| since.plus(self.policy.fresh_for()));
        // What the first one's silence has earned may last longer.
        assert!(valid_until == end || within(valid_until, fresh.plus(grace)), "a7: F, and the limit");
        let silence = keys.silence || valid_until != end;
        assert!(within(fresh_until, fresh), "a7: what stands in is never fresh");
        self.keys = Some(Keys { stood_in: Some(end), fresh_until, valid_until, grace, silence, ..keys });
    }

    fn extended(&mut self, event: Event, fresh_until: Moment, valid_until: Moment) {
        let keys = self.keys.as_mut().expect("only what is open is extended");
        if matches!(event, Event::Answered(_, Answer::Integrity)) {
            keys.stood_in = None;
        }
        let since = keys.since.unwrap_or(Moment::from_nanos(0, 0));
        let fresh = keys.since.map_or(since, |since| since.plus(self.policy.fresh_for()));
        assert!(within(fresh_until, fresh), "c2: F counts from the unwrap");
        if keys.stood_in == Some(valid_until) {
            (keys.fresh_until, keys.valid_until) = (fresh_until, valid_until);
            return;
        }
        let last = fresh.plus(keys.grace);
        assert!(within(valid_until, last), "F + G at most");
        let in_grace = !within(valid_until, fresh_until);
        keys.silence |= in_grace;
        let earned_by = match event {
            Event::Answered(id, Answer::Transient | Answer::NotAsked) => {
                let begun = self.begun.iter().find(|begun| begun.id == id);
                Some(begun.expect("no answer without an attempt").begun)
            }
            Event::AuthoritySilent { begun, .. } => Some(begun),
            _ => None,
        };
        if in_grace && !within(valid_until, keys.valid_until) {
            let begun = earned_by.expect("invariant 2: only silence earns grace");
            let took = self.now.age_since(begun);
            assert!(took < self.policy.call_deadline() + MIN_SPACING, "c5: our own sleep earned grace");
        }
        match event {
            Event::Answered(_, Answer::Transient | Answer::NotAsked) | Event::AuthoritySilent { .. } => {}
            Event::Answered(_, Answer::Integrity) => {
                assert!(
                    within(valid_until, fresh_until),
                    "invariant 2: no grace after an answer that is wrong"
                );
            }
            _ => panic!("invariant 3: extended by {event:?}"),
        }
        (keys.fresh_until, keys.valid_until) = (fresh_until, valid_until);
    }

    /// What holds at any time.
    fn check(&mut self) {
        assert_eq!(self.lease.is_locked(), self.locked && !self.deleted);
        let Some(keys) = self.keys else { return };
        assert!(!self.locked && !self.deleted, "d5");
        let stands_in = keys.stood_in.is_some_and(|end| !self.now.reached(end));
        let age = keys.since.map_or(Duration::MAX, |since| self.now.age_since(since));
        if !self.now.reached(keys.valid_until) && !stands_in {
            let fresh_for = self.policy.fresh_for();
            assert!(age < fresh_for.saturating_add(keys.grace), "usable at the age of {age:?}: {keys:?}");
            assert!(age < fresh_for || keys.silence, "c5: grace was not earned at the age of {age:?}");
        }
        let ended = age >= self.policy.fresh_for().saturating_add(keys.grace);
        if ended && !stands_in {
            self.on(Event::Wake);
            assert!(self.keys.is_none(), "wiped by F + G");
        }
    }
}

/// Whether `one` is on both clocks no later than `other`.
fn within(one: Moment, other: Moment) -> bool {
    one.boot_nanos() <= other.boot_nanos() && one.wall_nanos() <= other.wall_nanos()
}

fn beginning() -> Moment {
    Moment::from_nanos(BEGINNING, 1_790_000_000 * SECOND)
}

const SECOND: u64 = 1_000_000_000;
/// For how long the second provider may stand in.
const LIMIT: Duration = Duration::from_secs(3_600);
/// An hour after boot.
const BEGINNING: u64 = 3_600 * SECOND;
