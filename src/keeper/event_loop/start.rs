//! Which call starts when, and as what work. Imports: `clock`, `account`, `lease`, `provider`, `error`.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::Ordering;

use super::attached::Beside;
use super::{Call, CallKind, EventLoop};
use crate::account::{AccountKey, Refreshed};
use crate::clock::Moment;
use crate::error::Error;
use crate::keeper::authority::{Destination, Load};
use crate::keeper::executor::Job;
use crate::keeper::lane::{Asked, Lane, Waiting};
use crate::keeper::lanes::LaneId;
use crate::keeper::meter::Cause;
use crate::keeper::report::Progress;
use crate::keeper::{CallId, CatchPanic, ControlCall, Counters, Message, Met, Report};
use crate::provider::{Gated, ProviderError};

impl EventLoop {
    pub(super) fn queue_control(&mut self, now: Moment, call: ControlCall, cause: Cause) {
        let id = self.lanes.id(&call.destination);
        // All accounts look soon after they were attached, so in a fleet all at about the same time. Where calls are
        // scarce they then wait for one that no refresh needs, at most until the next look.
        let waits = cause == Cause::VersionCheck && self.meter.has_cap();
        let start_by = now.plus(if waits { self.version_check } else { call.patience });
        if let Some(lane) = self.lanes.get_mut(id) {
            let waiting = lane.waiting();
            let queue = if waits { &mut waiting.checks } else { &mut waiting.controls };
            queue.push_back(Asked { start_by, call, cause });
        }
        self.lanes.settle(id);
    }

    /// Starts what may start: one call per authority and round, so that no authority goes first for long. Where there is a
    /// cap on calls, the accounts that were used most recently go first.
    pub(super) fn start_calls(&mut self, now: Moment) {
        self.drop_overdue_controls(now);
        // Goes on after the one that was served last: where workers are short, the first in order would take
        // each one that comes free, and the last in order none.
        let mut last = if self.meter.has_cap() { None } else { self.served };
        // How many were looked at since one has started something, and what suspects hold meanwhile.
        let (mut barren, mut suspects) = (0, None);
        self.out_of_threads = false;
        while self.may_start() && barren < self.lanes.with_work() {
            if self.start_owed(now) {
                suspects = None;
            }
            let Some(next) = self.lanes.after(last).or_else(|| self.lanes.after(None)) else { break };
            if next.0 > 0 && self.meter.opens_at() > now.boot_nanos() {
                // Behind it are refreshes only.
                break;
            }
            last = Some(next);
            barren += 1;
            if self.start_one(now, next.1, &mut suspects) {
                self.served = Some(next);
                (barren, suspects) = (0, None);
                if self.meter.has_cap() {
                    last = None;
                }
            }
        }
        if self.meter.opens_at() > now.boot_nanos() && self.uncounted > 0 {
            self.counters.deferred.fetch_add(self.uncounted, Ordering::Relaxed);
            (self.counted, self.uncounted) = (self.next_turn, 0);
        }
        self.count_waiting_probes(now);
    }

    /// Says how many silent authorities cannot be asked now whether they answer again.
    fn count_waiting_probes(&self, now: Moment) {
        let load = self.load();
        let waits = |lane: &Lane| {
            let load = Load { held: lane.held(), ..load };
            lane.bulkhead.waits_for_worker(now, self.caps, load)
        };
        let waiting = self.lanes.ready().filter(|(_, lane)| waits(lane)).count();
        self.counters.probes_waiting.store(waiting as u64, Ordering::Relaxed);
    }

    fn may_start(&self) -> bool {
        self.executor.free() > 0 && !self.out_of_threads
    }

    /// Under a cap, starts the refreshes that are owed for somebody's calls. False where it started none.
    fn start_owed(&mut self, now: Moment) -> bool {
        self.debt.charge(self.meter.taken_by_asked());
        let (mut last, mut suspects, mut started) = (None, None, false);
        while self.debt.is_due() && self.may_start() && self.meter.opens_at() <= now.boot_nanos() {
            let Some(next) = self.lanes.due_after(last) else {
                self.debt.forgive();
                break;
            };
            last = Some(next);
            let load = self.load_at(next.1, &mut suspects);
            if self.start_due(now, next.1, load) {
                self.debt.pay();
                (last, suspects, started) = (None, None, true);
            }
        }
        started
    }

    fn start_one(&mut self, now: Moment, id: LaneId, suspects: &mut Option<usize>) -> bool {
        let load = self.load_at(id, suspects);
        let Some(lane) = self.lanes.get(id) else { return false };
        // Record stores are not billed by the call; loads of records are bounded by what asks for them.
        let is_kms = !matches!(lane.destination, Destination::Records(_));
        if is_kms && self.meter.opens_at() > now.boot_nanos() {
            return false;
        }
        // They take turns: a rotation of all accounts must not hold up the refreshes that keep them open.
        let refresh_first = lane.bulkhead.asked_was_last();
        (!refresh_first && self.start_queued_control(now, id, load))
            || self.start_due(now, id, load)
            || (refresh_first && self.start_queued_control(now, id, load))
            || self.start_queued_check(now, id, load)
    }

    /// How the pool is taken up, seen from this lane. `suspects` is summed up once for all that are looked at in vain, and only where it is asked for.
    fn load_at(&self, id: LaneId, suspects: &mut Option<usize>) -> Load {
        let lane = self.lanes.get(id);
        let suspects = match lane.is_some_and(|lane| lane.destination.holds_threads()) {
            true => *suspects.get_or_insert_with(|| self.lanes.suspect_workers()),
            false => 0,
        };
        Load { suspects, free: self.executor.free(), held: lane.map_or(0, Lane::held) }
    }

    fn start_due(&mut self, now: Moment, id: LaneId, load: Load) -> bool {
        let caps = self.caps;
        while let Some(turn) = self.lanes.get_mut(id).and_then(|lane| lane.admit_due(now, caps, load)) {
            self.leave(id, turn);
            let started = match turn.beside {
                Some(at) => self.start_beside(now, id, turn.account, at),
                None => self.start_refresh(now, id, turn.account),
            };
            self.lanes.settle(id);
            if started {
                return true;
            }
        }
        false
    }

    fn start_queued_control(&mut self, now: Moment, id: LaneId, load: Load) -> bool {
        let caps = self.caps;
        let Some(lane) = self.lanes.get_mut(id) else { return false };
        if !lane.bulkhead.admits_asked(caps, load) {
            return false;
        }
        let Some(waiting) = lane.waiting.as_deref_mut() else { return false };
        let Some(asked) = waiting.controls.pop_front() else { return false };
        self.start_control(now, id, asked);
        self.lanes.settle(id);
        true
    }

    fn start_queued_check(&mut self, now: Moment, id: LaneId, load: Load) -> bool {
        let caps = self.caps;
        let Some(lane) = self.lanes.get_mut(id) else { return false };
        if lane.rank() != Some(u32::MAX) || !lane.bulkhead.admits_asked(caps, load) {
            return false;
        }
        let Some(asked) = lane.waiting.as_deref_mut().and_then(|waiting| waiting.checks.pop_front()) else {
            return false;
        };
        self.start_control(now, id, asked);
        self.lanes.settle(id);
        true
    }

    fn start_refresh(&mut self, now: Moment, lane: LaneId, key: AccountKey) -> bool {
        let Some(tracked) = self.accounts.get_mut(&key) else { return false };
        tracked.queued = None;
        let Some(account) = tracked.account.upgrade() else {
            self.detach(key);
            return false;
        };
        // What was due when it was queued may have been learned from a neighbour meanwhile.
        let Some(attempt) = account.begin_attempt(now) else {
            self.look_at(now, key);
            return false;
        };
        Counters::add(&self.counters.refreshes);
        let kind = CallKind::Refresh { account: key, attempt, refused: None };
        let (id, report) = self.begin_call(now, lane, now.plus(self.call_deadline), kind);
        self.run_refresh(now, lane, id, async move { account.refresh(&report).await });
        true
    }

    fn start_beside(&mut self, now: Moment, lane: LaneId, key: AccountKey, at: u8) -> bool {
        let Some(tracked) = self.accounts.get_mut(&key) else { return false };
        let share = matches!(tracked.beside.as_deref(), Some(Beside::Shares(_))).then_some(usize::from(at));
        if let Some(call) = tracked.beside(at) {
            call.queued = None;
        }
        let Some(account) = tracked.account.upgrade() else {
            self.detach(key);
            return false;
        };
        // The attempts may have been answered meanwhile.
        let begun = match share {
            Some(at) => account.begin_share(now, at),
            None => account.begin_second(now),
        };
        let Some(epoch) = begun else {
            self.end_beside(now, key, at);
            return false;
        };
        Counters::add(&self.counters.refreshes);
        let kind = CallKind::Beside { account: key, at, epoch, refused: None };
        let (id, report) = self.begin_call(now, lane, now.plus(self.call_deadline), kind);
        let beside = async move {
            match share {
                Some(at) => account.ask_for_share(at, &report).await,
                None => account.stand_in(&report).await,
            }
        };
        self.run_refresh(now, lane, id, beside);
        true
    }

    /// The keys go with the message, not with the call's hold on its account.
    fn run_refresh(
        &mut self,
        now: Moment,
        lane: LaneId,
        id: CallId,
        refresh: impl Future<Output = Result<Refreshed, Refreshed>> + Send + 'static,
    ) {
        let progress = self.progress(id);
        let asks = progress.clone();
        let work = async move {
            let panicked = |_| {
                let error = ProviderError::transient(PANICKED).into_error();
                Err(if asks.asks_kms() { Refreshed::Silent(error) } else { Refreshed::NoRecord(error) })
            };
            let (Ok(came) | Err(came)) = CatchPanic(Box::pin(refresh)).await.unwrap_or_else(panicked);
            Message::Refreshed(id, Box::new(came))
        };
        let gate = self.meter.start(now.boot_nanos(), Cause::Refresh, progress);
        let run = self.run(id, lane, Gated::new(gate, work));
        if let Err(error) = run {
            // That there is no thread is no silence of the KMS's, and the next call would have none either.
            self.out_of_threads = true;
            self.take(Message::Refreshed(id, Box::new(Refreshed::NoRecord(error))));
        }
    }

    fn start_control(&mut self, now: Moment, lane: LaneId, asked: Asked) {
        let Asked { call, cause, start_by: _ } = asked;
        let ControlCall { run, abandon, deadline, destination, patience: _ } = call;
        // From here on it has all of its time: what it spent in the queue is not the KMS's silence.
        let deadline = now.plus(deadline);
        let kind = CallKind::Control { abandon: Some(abandon) };
        let (id, _) = self.begin_call(now, lane, deadline, kind);
        let work = async move {
            // A panic drops the completer that `run` owns, which ends the wait with an error.
            let met = CatchPanic(run).await.unwrap_or(Met::Silence);
            Message::ControlDone(id, met)
        };
        let progress = self.progress(id);
        let gate = match destination {
            Destination::Kms { .. } | Destination::Together(_) => {
                self.meter.start(now.boot_nanos(), cause, progress)
            }
            Destination::Records(_) => {
                // The store is what such a call asks, first of all.
                progress.asked();
                self.meter.start_unpaid(cause, progress)
            }
        };
        let run = self.run(id, lane, Gated::new(gate, work));
        if let Err(error) = run {
            self.out_of_threads = true;
            let Some(mut call) = self.calls.remove(&id) else { return };
            self.end_call(&call, Some(Met::Silence));
            if let CallKind::Control { abandon } = &mut call.kind
                && let Some(abandon) = abandon.take()
            {
                abandon(error);
            }
        }
    }

    fn run(
        &mut self,
        id: CallId,
        lane: LaneId,
        work: impl Future<Output = Message> + Send + 'static,
    ) -> Result<(), Error> {
        let lane = self.lanes.get(lane);
        let held = lane.and_then(|lane| lane.held.clone()).unwrap_or_default();
        let holds_thread = lane.is_none_or(|lane| lane.destination.holds_threads());
        self.executor.run(Job { id, held, holds_thread, work: Box::pin(work) })
    }

    fn begin_call(
        &mut self,
        now: Moment,
        lane: LaneId,
        deadline: Moment,
        kind: CallKind,
    ) -> (CallId, Report) {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.lanes.change(lane, |bulkhead| match &kind {
            CallKind::Refresh { .. } | CallKind::Beside { .. } => bulkhead.begin(now),
            CallKind::Control { .. } => bulkhead.begin_asked(),
        });
        let progress = Progress::default();
        let report = Report::of(id, &progress, self.outbox.clone());
        self.calls.insert(id, Call { lane, begun: now, deadline, kind, progress, abandoned: false });
        (id, report)
    }

    fn progress(&self, id: CallId) -> Progress {
        self.calls.get(&id).map_or_else(Progress::default, |call| call.progress.clone())
    }

    fn drop_overdue_controls(&mut self, now: Moment) {
        let is_overdue =
            |queue: &VecDeque<Asked>| queue.front().is_some_and(|asked| now.reached(asked.start_by));
        let overdue = |(id, lane): (LaneId, &Lane)| {
            let waiting = lane.waiting.as_deref()?;
            (is_overdue(&waiting.controls) || is_overdue(&waiting.checks)).then_some(id)
        };
        let overdue: Vec<_> = self.lanes.ready().filter_map(overdue).collect();
        for id in overdue {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            let Waiting { controls, checks, .. } = lane.waiting();
            for queue in [controls, checks] {
                while is_overdue(queue)
                    && let Some(asked) = queue.pop_front()
                {
                    (asked.call.abandon)(ProviderError::transient(NOT_STARTED).into_error());
                }
            }
            self.lanes.settle(id);
        }
    }
}

const PANICKED: &str = "the provider or the record store panicked";
const NOT_STARTED: &str =
    "the call could not be started in time: the KMS does not answer, or the cap on calls leaves no room";
