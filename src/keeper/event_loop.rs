//! The event loop: timers and results in, KMS calls out.
//!
//! It owns the timers and the bulkheads, and feeds the lease machines. It never blocks on a KMS and
//! never runs an engine's code. `step` is all it does; who calls it, a thread or a test, is `service`'s matter. Imports:
//! `clock`, `lease`, `provider`, `error`, `account`.

mod attached;
mod neighbours;
mod start;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::authority::{Caps, Load, Purpose};
use super::debt::Debt;
use super::executor::Executor;
use super::lane::Turn;
use super::lanes::{LaneId, Lanes, Ready};
use super::meter::{Cause, Meter};
use super::report::Progress;
use super::{Abandon, CallId, Chore, Counters, Message, Met, Setup};
use crate::account::state::tick;
use crate::account::{AccountInner, AccountKey, Refreshed, Schedule};
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Refusal};
use crate::id::Epoch;
use crate::lease::{Answer, AttemptId, Event};
use crate::provider::ProviderError;
use attached::Tracked;
use neighbours::Silences;

/// The state of one cache's control plane.
pub(crate) struct EventLoop {
    clock: Clock,
    outbox: Sender<Message>,
    executor: Executor,
    caps: Caps,
    call_deadline: Duration,
    /// Each in a place of its own: half of a table that has just grown is empty.
    accounts: HashMap<AccountKey, Box<Tracked>>,
    timers: BinaryHeap<Reverse<(u64, AccountKey)>>,
    lanes: Lanes,
    calls: HashMap<CallId, Call>,
    next_call: u64,
    chores: Vec<Chore>,
    /// The authority that a call was last started at.
    served: Option<Ready>,
    /// What the accounts at an authority are to learn of in this step.
    silences: Silences,
    meter: Arc<Meter>,
    debt: Debt,
    /// The operating system gave no thread in this step.
    out_of_threads: bool,
    version_check: Duration,
    next_turn: u64,
    /// Turns with a lower number are counted as put off by the cap, or have begun.
    counted: u64,
    /// How many that wait are not counted.
    uncounted: u64,
    last_step: Option<Moment>,
    counters: Arc<Counters>,
}

struct Call {
    lane: LaneId,
    begun: Moment,
    deadline: Moment,
    kind: CallKind,
    progress: Progress,
    /// Past its deadline: it holds a worker, and its success is worth nothing any more.
    abandoned: bool,
}

enum CallKind {
    /// An account's unwrap. `refused` is what the first answer said while the record is compared.
    Refresh {
        account: AccountKey,
        attempt: AttemptId,
        refused: Option<Refusal>,
    },
    /// What is asked beside the attempts, begun in `epoch`: the second provider of a failover custody, or one share of a joint one.
    Beside {
        account: AccountKey,
        at: u8,
        epoch: Epoch,
        refused: Option<Refusal>,
    },
    Control {
        abandon: Option<Abandon>,
    },
}

impl CallKind {
    const fn purpose(&self) -> Purpose {
        match self {
            Self::Refresh { .. } | Self::Beside { .. } => Purpose::Refresh,
            Self::Control { .. } => Purpose::Control,
        }
    }

    /// What the KMS has said, while the record is compared.
    const fn refused(&self) -> Option<Refusal> {
        match *self {
            Self::Refresh { refused, .. } | Self::Beside { refused, .. } => refused,
            Self::Control { .. } => None,
        }
    }
}

impl EventLoop {
    pub(crate) fn new(clock: Clock, outbox: Sender<Message>, executor: Executor, setup: Setup) -> Self {
        let Setup { call_deadline, threads: _, cap, version_check, counters } = setup;
        let caps = Caps { threads: executor.most() };
        let meter = Arc::new(Meter::new(clock.clone(), Arc::clone(&counters), cap));
        Self {
            clock,
            outbox,
            executor,
            caps,
            call_deadline,
            accounts: HashMap::new(),
            timers: BinaryHeap::new(),
            lanes: Lanes::default(),
            calls: HashMap::new(),
            next_call: 0,
            chores: Vec::new(),
            served: None,
            silences: Silences::default(),
            meter,
            debt: Debt::default(),
            out_of_threads: false,
            version_check,
            next_turn: 0,
            counted: 0,
            uncounted: 0,
            last_step: None,
            counters,
        }
    }

    /// Takes in one message. `step` follows before anything waits.
    pub(crate) fn take(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Attach(account) => self.attach(&account),
            Message::Detach(key) => self.detach(key),
            Message::Poke(key) => self.look_at(now, key),
            Message::Control(call) => self.queue_control(now, call, Cause::Control),
            Message::VersionCheck(call) => self.queue_control(now, call, Cause::VersionCheck),
            Message::Chore(chore) => self.chores.push(chore),
            Message::RefusedPending(id, refusal) => self.on_pending_refusal(now, id, refusal),
            Message::Refreshed(id, refreshed) => self.on_refreshed(now, id, *refreshed),
            Message::ControlDone(id, met) => self.on_control_done(id, met),
            Message::Dropped(id) => self.on_dropped(id),
            // The step that follows starts what waits for a worker; the service stops the loop.
            Message::Parked | Message::Shutdown => {}
        }
    }

    /// Does all that is due now. Returns how long nothing is due, at most [`LONGEST_WAIT`].
    pub(crate) fn step(&mut self) -> Duration {
        let now = self.clock.now();
        #[cfg(any(test, feature = "testing"))]
        if let Executor::Inline(inline) = &mut self.executor {
            inline.deliver(now);
        }
        self.catch_up_with_wall_clock(now);
        self.give_up_late_calls(now);
        self.note_lasting_silence(now);
        self.share_silences(now);
        self.fire_timers(now);
        // Before calls start: what a chore lets go of makes none.
        self.chores.retain_mut(|chore| chore(now));
        self.start_calls(now);
        self.last_step = Some(now);
        self.next_due(now)
    }

    /// Ends every wait and takes no more work. True when no worker is left behind.
    pub(crate) fn close(&mut self, deadline: Duration) -> bool {
        let gone = || Error::new(ErrorKind::Unavailable, "the cache was shut down before the call ended");
        for (_, call) in self.calls.drain() {
            if let CallKind::Control { abandon: Some(abandon) } = call.kind {
                abandon(gone());
            }
        }
        for lane in self.lanes.all_mut() {
            let Some(waiting) = lane.waiting.take() else { continue };
            let asked = waiting.controls.into_iter().chain(waiting.checks);
            asked.for_each(|asked| (asked.call.abandon)(gone()));
        }
        for tracked in std::mem::take(&mut self.accounts).into_values() {
            if let Some(account) = tracked.account.upgrade() {
                account.retire();
            }
        }
        // What they have still to tell, they tell when they are dropped.
        self.chores.clear();
        self.meter.close();
        self.executor.close(deadline)
    }

    /// The moment of the earliest thing that time alone will make due.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn next_wake(&mut self) -> Duration {
        let now = self.clock.now();
        self.next_due(now)
    }

    /// Queues the account's attempt if one is due, and sets its timer.
    fn look_at(&mut self, now: Moment, key: AccountKey) {
        let Some(tracked) = self.accounts.get_mut(&key) else { return };
        let Some(account) = tracked.account.upgrade() else { return self.detach(key) };
        let schedule = account.schedule(now);
        if schedule.wants_attempt {
            let (lane, queued) = (tracked.lane, tracked.queued);
            let turn = queued.unwrap_or_else(|| Turn::new(tick(now), self.next_turn, key, None));
            let turn = if self.meter.has_cap() { turn.by_use(account.last_used()) } else { turn };
            if queued != Some(turn) {
                tracked.queued = Some(turn);
                self.enter(lane, queued, turn);
            }
        }
        self.queue_beside(now, &account, &schedule);
        let Some(tracked) = self.accounts.get_mut(&key) else { return };
        let wake = schedule.wake_at.map(|at| {
            // Timers run on the boot-time clock; jumps of the wall clock are looked for at each step.
            let at = now.boot_nanos().saturating_add(duration_nanos(now.until(at)));
            NonZeroU64::new(at.max(now.boot_nanos() + 1)).unwrap_or(NonZeroU64::MAX)
        });
        if let Some(at) = wake
            && tracked.timer != Some(at)
        {
            tracked.timer = Some(at);
            self.timers.push(Reverse((at.get(), key)));
        }
    }

    /// Queues what is to be asked beside the account's attempts, each in its own lane.
    fn queue_beside(&mut self, now: Moment, account: &AccountInner, schedule: &Schedule) {
        let key = account.key();
        let shares = schedule.wants_shares;
        for (at, wanted) in (0..).zip([schedule.wants_second || shares[0], shares[1], shares[2]]) {
            if wanted
                && let Some(call) = self.accounts.get_mut(&key).and_then(|tracked| tracked.beside(at))
                && !call.busy
            {
                call.busy = true;
                let turn = Turn::new(tick(now), self.next_turn, key, Some(at));
                let turn = if self.meter.has_cap() { turn.by_use(account.last_used()) } else { turn };
                let lane = self.lanes.id(&call.destination);
                call.queued = Some((lane, turn));
                self.enter(lane, None, turn);
            }
        }
    }

    /// Puts `turn` into its lane's queue, in the place of `before` if it stands there already.
    fn enter(&mut self, id: LaneId, before: Option<Turn>, turn: Turn) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        match before {
            Some(before) => drop(lane.waiting().due.remove(&before)),
            None => {
                self.next_turn += 1;
                self.uncounted += 1;
            }
        }
        lane.waiting().due.insert(turn);
        self.lanes.settle(id);
    }

    /// `turn` stands in the queue no more: it begins, or its account has gone. The lane is to be settled after that: one that
    /// has nothing more to do is freed, and a call that begins has to count for it first.
    fn leave(&mut self, id: LaneId, turn: Turn) {
        if turn.number >= self.counted {
            self.uncounted = self.uncounted.saturating_sub(1);
        }
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.waiting().due.remove(&turn);
        }
    }

    /// A wall clock that ran ahead of the boot-time clock means a pause or a jump: every lease may be over.
    fn catch_up_with_wall_clock(&mut self, now: Moment) {
        let Some(last) = self.last_step else { return };
        let boot = now.boot_nanos().saturating_sub(last.boot_nanos());
        let wall = now.wall_nanos().saturating_sub(last.wall_nanos());
        if wall.saturating_sub(boot) > duration_nanos(WALL_SLACK) {
            let keys: Vec<_> = self.accounts.keys().copied().collect();
            for key in keys {
                self.wake(now, key);
            }
        }
    }

    fn fire_timers(&mut self, now: Moment) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now.boot_nanos() {
                break;
            }
            self.timers.pop();
            let Some(tracked) = self.accounts.get_mut(&key) else { continue };
            if tracked.timer == NonZeroU64::new(at) {
                tracked.timer = None;
                self.wake(now, key);
            }
        }
    }

    fn wake(&mut self, now: Moment, key: AccountKey) {
        self.feed(now, key, Event::Wake);
    }

    fn feed(&mut self, now: Moment, key: AccountKey, event: Event) {
        if let Some(account) = self.account(key) {
            account.feed(now, event);
        }
        self.look_at(now, key);
    }

    /// Silence is the answer at the deadline, and the worker is given up (contract B11).
    fn give_up_late_calls(&mut self, now: Moment) {
        let late: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| !call.abandoned && now.boot_nanos() >= call.deadline.boot_nanos())
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            call.abandoned = true;
            let (lane, purpose, begun) = (call.lane, call.kind.purpose(), call.begun);
            // Where the KMS has refused, it is the record store that is late, and this account alone has to know.
            let refused = call.kind.refused().is_some();
            let (asked, has_asked) = (call.progress.asks_kms(), call.progress.has_asked());
            let ended = match &mut call.kind {
                // A refusal whose record could not be compared in time counts as it is.
                CallKind::Refresh { account, attempt, refused } => {
                    let late = ProviderError::transient(LATE).into_error();
                    let refreshed = match *refused {
                        Some(refusal) => Refreshed::Refused(refusal, late),
                        None if asked => Refreshed::Silent(late),
                        None => Refreshed::NoRecord(ProviderError::transient(NO_RECORD).into_error()),
                    };
                    Ended::Refresh(*account, *attempt, refreshed)
                }
                CallKind::Beside { account, at, epoch, refused } => {
                    let epoch = *epoch;
                    Ended::Beside(
                        *account,
                        *at,
                        refused.map(|refusal| Event::SecondRefused { epoch, refusal }),
                    )
                }
                CallKind::Control { abandon } => Ended::Control(abandon.take()),
            };
            Counters::add(&self.counters.late);
            Counters::add(&self.counters.hanging);
            self.lanes.change(lane, |bulkhead| match purpose {
                Purpose::Control if !has_asked => bulkhead.abandon_unheard(purpose),
                _ => bulkhead.abandon(purpose, begun, asked),
            });
            // One that waits on a runtime ends there; one that holds a worker goes on until it returns.
            self.executor.cancel(id);
            match ended {
                Ended::Refresh(account, attempt, refreshed) => {
                    self.end_attempt(now, account, attempt, refreshed);
                }
                Ended::Beside(key, at, refused) => {
                    if let Some((account, refused)) = self.account(key).zip(refused) {
                        account.feed(now, refused);
                    }
                    self.end_beside(now, key, at);
                }
                Ended::Control(Some(abandon)) => abandon(ProviderError::transient(LATE).into_error()),
                Ended::Control(None) => {}
            }
            if purpose == Purpose::Refresh && !refused {
                self.silences.note(lane, begun, asked);
            }
        }
    }

    /// True when that revoked the account just now.
    fn end_attempt(
        &mut self,
        now: Moment,
        key: AccountKey,
        attempt: AttemptId,
        refreshed: Refreshed,
    ) -> bool {
        let Some(account) = self.account(key) else { return false };
        let newly_revoked = account.take_refreshed(now, attempt, refreshed);
        self.look_at(now, key);
        newly_revoked
    }

    fn on_pending_refusal(&mut self, now: Moment, id: CallId, refusal: Refusal) {
        let deadline = now.plus(self.call_deadline);
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let CallKind::Beside { account, epoch, refused, at: _ } = &mut call.kind {
            let (key, begun_in) = (*account, *epoch);
            if call.abandoned {
                // Nobody waits for the comparison.
                return self.feed(now, key, Event::SecondRefused { epoch: begun_in, refusal });
            }
            *refused = Some(refusal);
            call.deadline = deadline;
            if let Some(account) = self.accounts.get(&key).and_then(|tracked| tracked.account.upgrade()) {
                *epoch = account.take_second_pending(now, begun_in);
            }
            return self.look_at(now, key);
        }
        let CallKind::Refresh { account, attempt, refused } = &mut call.kind else { return };
        *refused = Some(refusal);
        let (account, attempt) = (*account, *attempt);
        if !call.abandoned {
            call.deadline = deadline;
        }
        self.feed(now, account, Event::Answered(attempt, Answer::RefusedPending(refusal)));
    }

    fn on_refreshed(&mut self, now: Moment, id: CallId, refreshed: Refreshed) {
        let Some(call) = self.calls.remove(&id) else { return };
        if let CallKind::Beside { account, at, epoch, refused } = call.kind {
            return self.on_beside(now, &call, (account, at, epoch), refused, refreshed);
        }
        let CallKind::Refresh { account: key, attempt, .. } = call.kind else { return };
        let silent = matches!(refreshed, Refreshed::Silent(_));
        let met = match &refreshed {
            Refreshed::NoRecord(_) | Refreshed::Purged => None,
            _ => Some(if silent { Met::Silence } else { Met::Answers }),
        };
        let refused = matches!(refreshed, Refreshed::Refused(..));
        self.end_call(&call, met);
        Counters::add(match &refreshed {
            Refreshed::Verified(_) | Refreshed::Deleted(_) | Refreshed::Purged | Refreshed::OneShare => {
                &self.counters.verified
            }
            Refreshed::Silent(_) | Refreshed::NoRecord(_) => &self.counters.transient,
            Refreshed::Wrong(_) => &self.counters.integrity,
            Refreshed::Refused(..) => &self.counters.refused,
        });
        let newly_revoked = self.end_attempt(now, key, attempt, refreshed);
        if call.abandoned {
            return;
        }
        if silent {
            self.silences.note(call.lane, call.begun, true);
        } else if refused
            && newly_revoked
            && self.lanes.get_mut(call.lane).is_some_and(|lane| lane.tells_of_refusal(now))
        {
            self.tell_neighbours(now, call.lane, key, Event::AuthorityRefused);
        }
    }

    fn on_beside(
        &mut self,
        now: Moment,
        call: &Call,
        (key, at, epoch): (AccountKey, u8, Epoch),
        refused: Option<Refusal>,
        refreshed: Refreshed,
    ) {
        let met = match &refreshed {
            Refreshed::NoRecord(_) | Refreshed::Purged => None,
            Refreshed::Silent(_) => Some(Met::Silence),
            _ => Some(Met::Answers),
        };
        self.end_call(call, met);
        let refreshed = match (refused, refreshed) {
            // A refusal whose record could not be compared counts as it is.
            (Some(refusal), Refreshed::Silent(why) | Refreshed::NoRecord(why) | Refreshed::Wrong(why)) => {
                Refreshed::Refused(refusal, why)
            }
            (_, refreshed) => refreshed,
        };
        // One share that is there says nothing, unless it was refused a moment ago.
        let tells = refused.is_some() || !matches!(refreshed, Refreshed::OneShare);
        // Late, it is heard where it refuses.
        if tells
            && (!call.abandoned || matches!(refreshed, Refreshed::Refused(..)))
            && let Some(account) = self.account(key)
        {
            account.take_stood_in(now, epoch, refreshed);
        }
        if !call.abandoned {
            self.end_beside(now, key, at);
            if met == Some(Met::Silence) {
                self.silences.note(call.lane, call.begun, true);
            }
        }
    }

    fn end_beside(&mut self, now: Moment, key: AccountKey, at: u8) {
        if let Some(call) = self.accounts.get_mut(&key).and_then(|tracked| tracked.beside(at)) {
            call.busy = false;
        }
        self.look_at(now, key);
    }

    fn on_control_done(&mut self, id: CallId, met: Met) {
        let Some(call) = self.calls.remove(&id) else { return };
        self.end_call(&call, Some(met));
    }

    fn on_dropped(&mut self, id: CallId) {
        // OK because only what was given up is dropped: its waiter was answered then.
        if let Some(call) = self.calls.remove(&id) {
            self.end_call(&call, None);
        }
    }

    /// `met` is `None` where the authority was not asked after all.
    fn end_call(&mut self, call: &Call, met: Option<Met>) {
        if call.abandoned {
            self.counters.hanging.fetch_sub(1, Ordering::Relaxed);
        }
        let met = met.filter(|_| call.progress.has_asked());
        let silent = met.map(|met| met == Met::Silence);
        self.lanes.change(call.lane, |bulkhead| {
            if call.abandoned {
                bulkhead.returned();
            } else {
                bulkhead.finish(call.kind.purpose(), call.begun, silent);
            }
        });
        self.lanes.settle(call.lane);
    }

    /// How the pool is taken up, seen from no authority in particular.
    fn load(&self) -> Load {
        Load { suspects: self.lanes.suspect_workers(), free: self.executor.free(), held: 0 }
    }

    fn next_due(&mut self, now: Moment) -> Duration {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let deadline =
            self.calls.values().filter(|call| !call.abandoned).map(|call| call.deadline.boot_nanos());
        let probes = self
            .lanes
            .ready()
            .filter_map(|(_, lane)| lane.bulkhead.probe_at())
            .map(Moment::boot_nanos)
            // One that is due already waits for a worker to come back, not for time.
            .filter(|at| *at > now.boot_nanos());
        let opens = Some(self.meter.opens_at())
            .filter(|at| *at > now.boot_nanos() && self.lanes.after(None).is_some());
        let silences = self.silences.due();
        let next = timer.into_iter().chain(deadline).chain(probes).chain(opens).chain(silences).min();
        #[cfg(any(test, feature = "testing"))]
        let next = match &self.executor {
            Executor::Inline(inline) => next.into_iter().chain(inline.next_arrival()).min(),
            Executor::Threads(_) => next,
        };
        let wait = next.map_or(LONGEST_WAIT, |at| Duration::from_nanos(at.saturating_sub(now.boot_nanos())));
        // Awake once a second also with nothing to do, to see a wall clock that jumped.
        wait.min(LONGEST_WAIT)
    }

    fn account(&self, key: AccountKey) -> Option<Arc<AccountInner>> {
        self.accounts.get(&key)?.account.upgrade()
    }
}

enum Ended {
    Refresh(AccountKey, AttemptId, Refreshed),
    /// With the refusal that it is, where the record could not be compared in time.
    Beside(AccountKey, u8, Option<Event>),
    Control(Option<Abandon>),
}

fn duration_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const LONGEST_WAIT: Duration = Duration::from_secs(1);
const WALL_SLACK: Duration = Duration::from_secs(1);
const LATE: &str = "no answer within the call deadline";
const NO_RECORD: &str = "the record store did not answer within the call deadline";
