//! Which call starts when, and as what work. Imports: `clock`, `account`, `lease`, `provider`, `error`.

use std::sync::Arc;

use super::{Call, CallKind, EventLoop};
use crate::account::{AccountKey, Refreshed};
use crate::clock::Moment;
use crate::keeper::authority::{Destination, Load};
use crate::keeper::executor::Job;
use crate::keeper::lane::Lane;
use crate::keeper::{CallId, CatchPanic, ControlCall, Counters, Message, Met};
use crate::provider::ProviderError;

impl EventLoop {
    pub(super) fn queue_control(&mut self, now: Moment, call: ControlCall) {
        let destination = call.destination.clone();
        let start_by = now.plus(call.patience);
        self.lane(&destination).controls.push_back((start_by, call));
    }

    /// Starts what may start: one call per authority and round, so that no authority goes first for long.
    pub(super) fn start_calls(&mut self, now: Moment) {
        self.drop_overdue_controls(now);
        loop {
            let mut started = false;
            let mut destinations: Vec<_> =
                self.lanes.iter().filter(|(_, lane)| lane.has_work()).map(|(a, _)| a.clone()).collect();
            // Goes on after the one that was served last: where workers are short, the first in order would take
            // each one that comes free, and the last in order none.
            let next = destinations.partition_point(|destination| Some(destination) <= self.served.as_ref());
            destinations.rotate_left(next);
            for destination in destinations {
                if self.executor.free() == 0 {
                    return;
                }
                if self.start_one(now, &destination) {
                    self.served = Some(destination);
                    started = true;
                }
            }
            if !started {
                return;
            }
        }
    }

    fn start_one(&mut self, now: Moment, destination: &Destination) -> bool {
        let suspects = self.lanes.values().map(|lane| lane.bulkhead.suspect_workers(lane.held())).sum();
        let held = self.lanes.get(destination).map_or(0, Lane::held);
        let load = Load { suspects, free: self.executor.free(), held };
        let caps = self.caps;
        // They take turns: a rotation of all accounts must not hold up the refreshes that keep them open.
        let refresh_first = self.lanes.get(destination).is_some_and(|lane| lane.control_was_last);
        if !refresh_first && self.start_queued_control(now, destination, load) {
            return true;
        }
        while let Some(key) = self.lanes.get_mut(destination).and_then(|lane| lane.admit_due(now, caps, load))
        {
            if self.start_refresh(now, destination, key) {
                self.lane(destination).control_was_last = false;
                return true;
            }
        }
        refresh_first && self.start_queued_control(now, destination, load)
    }

    fn start_queued_control(&mut self, now: Moment, destination: &Destination, load: Load) -> bool {
        let caps = self.caps;
        let Some(lane) = self.lanes.get_mut(destination) else { return false };
        if !lane.bulkhead.admits_asked(caps, load) {
            return false;
        }
        let Some((_, call)) = lane.controls.pop_front() else { return false };
        lane.control_was_last = true;
        self.start_control(now, destination, call);
        true
    }

    fn start_refresh(&mut self, now: Moment, destination: &Destination, key: AccountKey) -> bool {
        let Some(tracked) = self.accounts.get_mut(&key) else { return false };
        tracked.queued = false;
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
        let id = self.begin_call(
            now,
            destination,
            now.plus(self.call_deadline),
            CallKind::Refresh { account: key, attempt, refused: None },
        );
        let outbox = self.outbox.clone();
        let clock = self.clock.clone();
        let refresh = async move {
            let pending = |refusal| drop(outbox.send(Message::RefusedPending(id, refusal)));
            account.refresh(&clock, &pending).await
            // The keys go with the message, not with this call's hold on the account.
        };
        let work = async move {
            let refreshed = CatchPanic(Box::pin(refresh))
                .await
                .unwrap_or_else(|_| Refreshed::Silent(ProviderError::transient(PANICKED).into_error()));
            Message::Refreshed(id, Box::new(refreshed))
        };
        let held = Arc::clone(&self.lane(destination).held);
        let run = self.executor.run(Job { id, held, work: Box::pin(work) });
        if let Err(error) = run {
            self.take(Message::Refreshed(id, Box::new(Refreshed::Silent(error))));
        }
        true
    }

    fn start_control(&mut self, now: Moment, destination: &Destination, call: ControlCall) {
        let ControlCall { run, abandon, deadline, destination: _, patience: _ } = call;
        // From here on it has all of its time: what it spent in the queue is not the KMS's silence.
        let deadline = now.plus(deadline);
        let kind = CallKind::Control { abandon: Some(abandon) };
        let id = self.begin_call(now, destination, deadline, kind);
        let work = async move {
            // A panic drops the completer that `run` owns, which ends the wait with an error.
            let met = CatchPanic(run).await.unwrap_or(Met::Silence);
            Message::ControlDone(id, met)
        };
        let held = Arc::clone(&self.lane(destination).held);
        let run = self.executor.run(Job { id, held, work: Box::pin(work) });
        if let Err(error) = run {
            let Some(mut call) = self.calls.remove(&id) else { return };
            self.end_call(&call, Some(Met::Silence));
            if let CallKind::Control { abandon } = &mut call.kind
                && let Some(abandon) = abandon.take()
            {
                abandon(error);
            }
        }
    }

    fn begin_call(
        &mut self,
        now: Moment,
        destination: &Destination,
        deadline: Moment,
        kind: CallKind,
    ) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        let bulkhead = &mut self.lane(destination).bulkhead;
        match &kind {
            CallKind::Refresh { .. } => bulkhead.begin(now),
            CallKind::Control { .. } => bulkhead.begin_asked(),
        }
        let call = Call { destination: destination.clone(), begun: now, deadline, kind, abandoned: false };
        self.calls.insert(id, call);
        id
    }

    fn drop_overdue_controls(&mut self, now: Moment) {
        for lane in self.lanes.values_mut() {
            while lane.controls.front().is_some_and(|(deadline, _)| now.reached(*deadline)) {
                if let Some((_, call)) = lane.controls.pop_front() {
                    (call.abandon)(ProviderError::transient(NOT_STARTED).into_error());
                }
            }
        }
    }
}

const PANICKED: &str = "the provider panicked";
const NOT_STARTED: &str = "the call could not be started in time: the KMS does not answer";
