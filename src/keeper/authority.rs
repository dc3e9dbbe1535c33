//! Bulkheads: what one silent KMS may cost the others (contract B12).
//!
//! Calls are grouped by authority. Each has its own cap on calls in flight and its own circuit breaker. Until
//! an authority has answered, and again once it has fallen silent, it is *suspect*: it gets one refresh at a
//! time and beside it one call that somebody asked for, and all suspects together get at most half of the threads; one at which a call
//! hangs gets no other while suspects hold a quarter of them. The last quarter of the threads is for authorities that hold none: several that answered until just now and fall silent together
//! cannot take it. A refusal is an answer.
//!
//! A call to an asynchronous provider holds a thread only while it reads the record and while it takes in the answer. Such an
//! authority is held to the same breaker, and to a bound of its own on calls in flight. Pure: no clock, no thread.
//! Imports: `clock`, `provider`, `record_store`.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::provider::{Authority, KeyProvider};
use crate::record_store::RecordStore;

/// Where calls go. Each destination has its own bulkhead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// An authority, and in which form: the two forms have little but the endpoint in common.
    Kms {
        authority: Authority,
        /// Whether a call holds a thread until it is answered.
        holds_threads: bool,
    },
    /// Several authorities that are asked together. One of them that is silent makes these calls silent, and no other account's:
    /// what each of them does for other accounts is told by those.
    Together(Box<Together>),
    /// A record store, named by its place in memory: whatever is on its way there keeps it in place.
    Records(usize),
}

/// In a place of its own, because most destinations are one authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Together {
    pub(crate) authorities: Box<[Authority]>,
    /// Whether a call of any of them does.
    holds_threads: bool,
}

impl Destination {
    pub(crate) fn of(provider: &dyn KeyProvider) -> Self {
        Self::Kms { authority: provider.authority(), holds_threads: provider.asynchronous().is_none() }
    }

    /// For calls that ask all of `providers`, of which there is at least one.
    pub(crate) fn of_all(providers: &[Arc<dyn KeyProvider>]) -> Self {
        let mut authorities: Vec<_> = providers.iter().map(|provider| provider.authority()).collect();
        authorities.sort_unstable();
        authorities.dedup();
        let holds_threads = providers.iter().any(|provider| provider.asynchronous().is_none());
        match <[Authority; 1]>::try_from(authorities) {
            Ok([authority]) => Self::Kms { authority, holds_threads },
            Err(authorities) => {
                Self::Together(Box::new(Together { authorities: authorities.into(), holds_threads }))
            }
        }
    }

    pub(crate) const fn is_together(&self) -> bool {
        matches!(self, Self::Together(_))
    }

    pub(crate) fn of_records(store: &Arc<dyn RecordStore>) -> Self {
        Self::Records(Arc::as_ptr(store).addr())
    }

    pub(crate) fn holds_threads(&self) -> bool {
        match self {
            Self::Kms { holds_threads, .. } => *holds_threads,
            Self::Together(together) => together.holds_threads,
            Self::Records(_) => true,
        }
    }
}

/// What the keeper knows of one authority.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    standing: Standing,
    /// Of one that is suspect, once it was asked.
    silence: Option<Box<Silence>>,
    /// Calls under way whose deadline has not passed: refreshes, which are probes where it is suspect.
    refreshes: u32,
    /// The same for what a person or the watch for newer versions asked for. These take longer than a refresh may wait.
    controls: u32,
    /// Calls given up that have not returned: each holds a worker.
    abandoned: u32,
    holds_threads: bool,
    /// The last call that began was asked for. Kept also while nothing waits: what comes next then is the other kind's turn.
    asked_was_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It answers.
    Proven,
    /// It has not answered yet, or fell silent.
    Suspect,
}

/// In a place of its own, because most authorities answer.
#[derive(Debug)]
struct Silence {
    /// The next probe is no earlier.
    probe_at: Moment,
    /// When it last counted as silent because of calls that hang, in the place of a probe.
    again: Option<Moment>,
    /// Whether a call that got as far as the KMS has met it, and not only what comes before.
    asked: bool,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Refresh,
    Control,
}

/// How many calls may run at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub(crate) threads: usize,
}

/// How the workers of the pool are taken up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Workers that all suspects together hold.
    pub(crate) suspects: usize,
    /// Workers that could take a call now.
    pub(crate) free: usize,
    /// Workers that calls to this authority hold, where its calls do not hold one all the time.
    pub(crate) held: usize,
}

impl Caps {
    /// Workers that only authorities without any may take.
    const fn reserve(self) -> usize {
        self.threads / 4
    }

    /// Calls in flight at one proven authority.
    const fn per_authority(self) -> usize {
        let quarter = self.threads / 4;
        if quarter == 0 { 1 } else { quarter }
    }

    /// Workers that all suspects together may hold.
    const fn suspects(self) -> usize {
        let half = self.threads / 2;
        if half == 0 { 1 } else { half }
    }

    /// Workers that all suspects together may hold before one at which a call hangs gets another: each that falls silent has to be
    /// met by one call, and second ones must not take the workers for that.
    const fn beside_hanging(self) -> usize {
        let quarter = self.threads / 4;
        let least = if self.suspects() < 2 { self.suspects() } else { 2 };
        if quarter < least { least } else { quarter }
    }
}

impl Bulkhead {
    /// How many hanging calls one authority may hold before it is not probed again until one returns.
    const MOST_ABANDONED: u32 = 4;
    /// Calls in flight at one proven authority that hold no thread. A bound for the KMS's sake, and for memory's.
    const MOST_AWAITED: u32 = 1024;
    /// A silent authority is probed at most this often, whatever the number of its accounts.
    const PROBE_SPACING: Duration = Duration::from_secs(6);

    pub(crate) const fn new(holds_threads: bool) -> Self {
        let standing = Standing::Suspect;
        Self {
            standing,
            silence: None,
            refreshes: 0,
            controls: 0,
            abandoned: 0,
            holds_threads,
            asked_was_last: false,
        }
    }

    const fn in_flight(&self) -> u32 {
        self.refreshes + self.controls
    }

    /// Whether a refresh may start now.
    pub(crate) fn admits(&self, now: Moment, caps: Caps, load: Load) -> bool {
        // A probe waits for no control call: those that hang would keep leases from the silence that earns their grace.
        self.is_time(now) && self.admits_beside(self.refreshes, caps, load)
    }

    fn is_time(&self, now: Moment) -> bool {
        self.silence.as_ref().is_none_or(|silence| now.reached(silence.probe_at))
    }

    /// Whether its probe is due and waits for a worker: what all suspects may hold is taken up, or all are busy.
    pub(crate) fn waits_for_worker(&self, now: Moment, caps: Caps, load: Load) -> bool {
        self.standing == Standing::Suspect
            && self.refreshes == 0
            && self.is_time(now)
            && !self.admits_beside(0, caps, load)
    }

    /// The same for what a person asks for: it does not wait for the next probe.
    pub(crate) fn admits_asked(&self, caps: Caps, load: Load) -> bool {
        self.admits_beside(self.in_flight(), caps, load)
    }

    /// `others` are the calls under way that a suspect may not have beside this one.
    fn admits_beside(&self, others: u32, caps: Caps, load: Load) -> bool {
        let calls = self.in_flight() + self.abandoned;
        let held = if self.holds_threads { calls as usize } else { load.held };
        if held > 0 && load.free <= caps.reserve() {
            return false;
        }
        // Those that hang already leave room for those that nobody has heard of yet.
        let share = if self.abandoned > 0 { caps.beside_hanging() } else { caps.suspects() };
        match self.standing {
            Standing::Proven if self.holds_threads => held < caps.per_authority(),
            Standing::Proven => calls < Self::MOST_AWAITED,
            Standing::Suspect => {
                let room = !self.holds_threads || load.suspects < share;
                others == 0 && calls < Self::MOST_ABANDONED && room
            }
        }
    }

    /// Whether a probe is due that cannot be made while calls hang here. These are unanswered still: that is the silence which
    /// the probe would have met. True once in the time between two probes.
    pub(crate) fn is_silent_still(&mut self, now: Moment, caps: Caps, load: Load) -> bool {
        let Some(silence) = &self.silence else { return false };
        let hangs = self.abandoned + self.controls >= Self::MOST_ABANDONED
            || (self.holds_threads && self.abandoned > 0);
        let again = silence.again.is_none_or(|last| now.reached(last.plus(Self::PROBE_SPACING)));
        let silent = hangs && again && self.waits_for_worker(now, caps, load);
        if let Some(silence) = self.silence.as_mut().filter(|_| silent) {
            silence.again = Some(now);
        }
        silent
    }

    /// Whether the silence is the KMS's own, as far as is known.
    pub(crate) fn was_asked(&self) -> bool {
        self.silence.as_ref().is_some_and(|silence| silence.asked)
    }

    /// Whether it is a refresh's turn, where something else waits too.
    pub(crate) const fn asked_was_last(&self) -> bool {
        self.asked_was_last
    }

    /// When a call that is not admitted now may be, if that is a matter of time.
    pub(crate) fn probe_at(&self) -> Option<Moment> {
        self.silence.as_ref().filter(|_| self.refreshes == 0).map(|silence| silence.probe_at)
    }

    /// A call begins that a person asked for. It does not put off the next probe, which earns the accounts their grace.
    pub(crate) fn begin_asked(&mut self) {
        self.controls += 1;
        self.asked_was_last = true;
    }

    pub(crate) fn begin(&mut self, now: Moment) {
        self.refreshes += 1;
        self.asked_was_last = false;
        if self.standing == Standing::Suspect {
            let probe_at = now.plus(Self::PROBE_SPACING);
            let (again, asked) =
                self.silence.as_ref().map_or((None, false), |silence| (silence.again, silence.asked));
            self.silence = Some(Box::new(Silence { probe_at, again, asked }));
        }
    }

    /// A call under way, begun at `begun`, returned before its deadline. `silent` is false for any answer, refusals
    /// included, and `None` where the authority was not asked: then it was no probe, and the next one need not wait for it.
    pub(crate) fn finish(&mut self, purpose: Purpose, begun: Moment, silent: Option<bool>) {
        self.end(purpose);
        match (silent, &mut self.silence) {
            (Some(silent), _) => self.judge(begun, silent, true),
            (None, Some(silence)) if purpose == Purpose::Refresh => silence.probe_at = begun,
            (None, _) => {}
        }
    }

    /// A call passed its deadline: silence, and its worker is held until it returns. `asked` where it is known to have got as far as the KMS.
    pub(crate) fn abandon(&mut self, purpose: Purpose, begun: Moment, asked: bool) {
        self.abandon_unheard(purpose);
        self.judge(begun, true, asked);
    }

    /// The same, where it says nothing of the authority.
    pub(crate) fn abandon_unheard(&mut self, purpose: Purpose) {
        self.end(purpose);
        self.abandoned += 1;
    }

    fn end(&mut self, purpose: Purpose) {
        let calls = match purpose {
            Purpose::Refresh => &mut self.refreshes,
            Purpose::Control => &mut self.controls,
        };
        *calls = calls.saturating_sub(1);
    }

    /// An abandoned call returned after all. It proves nothing about now.
    pub(crate) fn returned(&mut self) {
        self.abandoned = self.abandoned.saturating_sub(1);
    }

    /// Workers that this authority holds while it does not answer; `held` as in [`Load`].
    pub(crate) fn suspect_workers(&self, held: usize) -> usize {
        match self.standing {
            Standing::Proven if !self.holds_threads => 0,
            Standing::Suspect if !self.holds_threads => held,
            Standing::Proven => self.abandoned as usize,
            Standing::Suspect => (self.in_flight() + self.abandoned) as usize,
        }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight() == 0 && self.abandoned == 0
    }

    /// The next probe keeps its distance from the *start* of the call that failed: F leaves no more room than that
    /// for the second attempt.
    fn judge(&mut self, begun: Moment, silent: bool, asked: bool) {
        match (silent, self.standing) {
            (false, _) => (self.standing, self.silence) = (Standing::Proven, None),
            (true, Standing::Proven) => {
                self.standing = Standing::Suspect;
                let probe_at = begun.plus(Self::PROBE_SPACING);
                self.silence = Some(Box::new(Silence { probe_at, again: None, asked }));
            }
            (true, Standing::Suspect) => {
                if let Some(silence) = &mut self.silence {
                    silence.asked |= asked;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const CAPS: Caps = Caps { threads: 32 };

    const fn load(suspects: usize) -> Load {
        Load { suspects, free: 32 - suspects, held: 0 }
    }

    #[test]
    fn b12_a_silent_authority_gets_single_probes_at_intervals() {
        let clock = ManualClock::new();
        let mut bulkhead = Bulkhead::new(true);
        assert!(bulkhead.admits(clock.moment(), CAPS, load(0)));
        bulkhead.begin(clock.moment());
        assert!(!bulkhead.admits(clock.moment(), CAPS, load(1)), "one probe at a time");
        bulkhead.abandon(Purpose::Refresh, clock.moment(), true);
        assert!(!bulkhead.admits(clock.moment(), CAPS, load(1)), "not again at once");
        clock.advance(Duration::from_secs(6));
        assert!(bulkhead.admits(clock.moment(), CAPS, load(1)));
        assert!(
            !bulkhead.admits(clock.moment(), CAPS, load(16)),
            "suspects hold at most half of the threads"
        );
    }

    #[test]
    fn b12_what_asked_nobody_was_no_probe() {
        let clock = ManualClock::new();
        let mut bulkhead = Bulkhead::new(true);
        for silent_before in [false, true] {
            if silent_before {
                bulkhead.begin(clock.moment());
                bulkhead.finish(Purpose::Refresh, clock.moment(), Some(true));
                assert!(!bulkhead.admits(clock.moment(), CAPS, load(0)));
                clock.advance(Bulkhead::PROBE_SPACING);
            }
            bulkhead.begin(clock.moment());
            bulkhead.finish(Purpose::Refresh, clock.moment(), None);
            assert!(bulkhead.admits(clock.moment(), CAPS, load(0)), "{silent_before}");
            // And it proves nothing: one at a time, as before.
            bulkhead.begin(clock.moment());
            assert!(!bulkhead.admits(clock.moment(), CAPS, load(1)), "{silent_before}");
            bulkhead.finish(Purpose::Refresh, clock.moment(), None);
        }
    }

    #[test]
    fn b12_a_probe_waits_for_no_control_call_that_hangs() {
        let clock = ManualClock::new();
        let mut bulkhead = Bulkhead::new(true);
        bulkhead.begin(clock.moment());
        bulkhead.abandon(Purpose::Refresh, clock.moment(), true);
        bulkhead.begin_asked();
        assert!(!bulkhead.admits_asked(CAPS, load(2)), "one of them at a time");
        clock.advance(Duration::from_secs(6));
        assert_eq!(bulkhead.probe_at(), Some(clock.moment()));
        assert!(bulkhead.admits(clock.moment(), CAPS, load(2)));
        // What is bounded is bounded for both together.
        bulkhead.abandon(Purpose::Control, clock.moment(), true);
        bulkhead.abandoned = 3;
        bulkhead.begin_asked();
        assert!(!bulkhead.admits(clock.moment(), CAPS, load(4)));
        assert!(bulkhead.is_silent_still(clock.moment(), CAPS, load(4)), "in the place of a probe");
    }

    #[test]
    fn b12_where_suspects_hold_what_they_may_a_call_that_hangs_stands_for_the_next_probe() {
        let clock = ManualClock::new();
        let mut bulkhead = Bulkhead::new(true);
        let crowded = load(CAPS.beside_hanging());
        assert!(!bulkhead.waits_for_worker(clock.moment(), CAPS, crowded), "the first call is made");
        bulkhead.begin(clock.moment());
        bulkhead.abandon(Purpose::Refresh, clock.moment(), true);
        assert!(!bulkhead.is_silent_still(clock.moment(), CAPS, crowded), "no probe is due");
        clock.advance(Bulkhead::PROBE_SPACING);
        assert!(!bulkhead.is_silent_still(clock.moment(), CAPS, load(1)), "the probe is made");
        assert!(bulkhead.waits_for_worker(clock.moment(), CAPS, crowded));
        assert!(bulkhead.is_silent_still(clock.moment(), CAPS, crowded));
        assert!(!bulkhead.is_silent_still(clock.moment(), CAPS, crowded), "at the distance of probes");
        clock.advance(Bulkhead::PROBE_SPACING);
        assert!(bulkhead.is_silent_still(clock.moment(), CAPS, crowded));
        // What has returned says nothing about now: grace is not earned by waiting for a worker.
        bulkhead.returned();
        clock.advance(Bulkhead::PROBE_SPACING);
        assert!(!bulkhead.is_silent_still(clock.moment(), CAPS, load(CAPS.suspects())));
        assert!(bulkhead.waits_for_worker(clock.moment(), CAPS, load(CAPS.suspects())));
        assert!(bulkhead.admits(clock.moment(), CAPS, crowded), "as soon as there is a worker");
    }

    #[test]
    fn b12_an_answer_opens_the_bulkhead_up_to_its_cap() {
        let clock = ManualClock::new();
        let mut bulkhead = Bulkhead::new(true);
        bulkhead.begin(clock.moment());
        bulkhead.finish(Purpose::Refresh, clock.moment(), Some(false));
        for _ in 0..8 {
            assert!(bulkhead.admits(clock.moment(), CAPS, load(16)));
            bulkhead.begin(clock.moment());
        }
        assert!(!bulkhead.admits(clock.moment(), CAPS, load(0)));
    }

    #[test]
    fn b11_calls_that_never_return_are_bounded() {
        let clock = ManualClock::new();
        let mut bulkhead = Bulkhead::new(true);
        for _ in 0..Bulkhead::MOST_ABANDONED {
            assert!(bulkhead.admits(clock.moment(), CAPS, load(0)));
            bulkhead.begin(clock.moment());
            bulkhead.abandon(Purpose::Refresh, clock.moment(), true);
            clock.advance(Duration::from_secs(60));
        }
        assert!(!bulkhead.admits(clock.moment(), CAPS, load(0)));
        assert!(bulkhead.is_silent_still(clock.moment(), CAPS, load(4)), "in the place of a probe");
        assert!(!bulkhead.is_silent_still(clock.moment(), CAPS, load(4)), "at the distance of probes");
        bulkhead.returned();
        clock.advance(Duration::from_secs(6));
        assert!(bulkhead.admits(clock.moment(), CAPS, load(0)));
    }

    #[test]
    fn b12_authorities_that_fall_silent_together_leave_workers_to_the_others() {
        let clock = ManualClock::new();
        let now = clock.moment();
        let mut free = CAPS.threads;
        let mut proven: Vec<_> = (0..20).map(|_| Bulkhead::new(true)).collect();
        for bulkhead in &mut proven {
            bulkhead.begin(now);
            bulkhead.finish(Purpose::Refresh, now, Some(false));
        }
        // Ten of them get all the calls that they want, and none of these returns.
        let (dark, healthy) = proven.split_at_mut(10);
        for _ in 0..CAPS.threads {
            for bulkhead in dark.iter_mut() {
                if free > 0 && bulkhead.admits(now, CAPS, Load { suspects: 0, free, held: 0 }) {
                    bulkhead.begin(now);
                    free -= 1;
                }
            }
        }
        assert_eq!(free, CAPS.reserve());
        assert!(healthy.iter().all(|bulkhead| bulkhead.admits(
            now,
            CAPS,
            Load { suspects: 0, free, held: 0 }
        )));
    }

    #[test]
    fn b12_suspects_that_hang_leave_room_for_those_that_nobody_has_heard_of_yet() {
        let clock = ManualClock::new();
        let mut suspects = 0;
        let mut hanging: Vec<_> = (0..10).map(|_| Bulkhead::new(true)).collect();
        for _ in 0..10 {
            for bulkhead in &mut hanging {
                if bulkhead.admits(clock.moment(), CAPS, load(suspects)) {
                    bulkhead.begin(clock.moment());
                    bulkhead.abandon(Purpose::Refresh, clock.moment(), true);
                    suspects += 1;
                }
            }
            clock.advance(Duration::from_secs(60));
        }
        assert!(suspects < CAPS.suspects(), "{suspects}");
        assert!(Bulkhead::new(true).admits(clock.moment(), CAPS, load(suspects)));
    }
}
