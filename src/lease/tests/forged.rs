//! Does the observer see what it is there for? One forged history for each rule that it knows.

use super::*;

const FRESH_FOR: Duration = Duration::from_secs(41);
const NOTHING: Effects = Effects { publish: None, notify: false, alarm: false };
const GONE: Refusal = Refusal::KeyGone;

/// Writes histories. Whatever it is told is shown to a [`Watch`] at the time of the pen.
struct Pen {
    watch: Watch,
    now: Moment,
    attempts: u64,
}

impl Pen {
    fn cold() -> Self {
        let now = crate::clock::ManualClock::new().moment();
        assert_eq!(DEFAULT.fresh_for(), FRESH_FOR);
        Self { watch: Watch::new(DEFAULT, now), now, attempts: 0 }
    }

    fn fresh() -> Self {
        let mut pen = Self::cold();
        pen.begin().expect("the first may begin");
        pen.answer(pen.verified(), pen.keys()).expect("and open");
        pen
    }

    /// An attempt is under way that was due.
    fn refreshing() -> Self {
        let mut pen = Self::fresh();
        pen.pass(30);
        pen.begin().expect("due");
        pen
    }

    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self
    }

    fn begin(&mut self) -> Result<(), Breach> {
        self.attempts += 1;
        self.watch.see(self.now, Step::Began(AttemptId(self.attempts)))
    }

    fn took(&mut self, event: Event, effects: Effects) -> Result<(), Breach> {
        self.watch.see(self.now, Step::Took(event, effects))
    }

    fn answer(&mut self, answer: Answer, effects: Effects) -> Result<(), Breach> {
        self.took(Event::Answered(AttemptId(self.attempts), answer), effects)
    }

    fn verified(&self) -> Answer {
        Answer::Verified { started: self.now, max_grace: None }
    }

    fn keys(&self) -> Effects {
        self.keys_for(FRESH_FOR)
    }

    fn keys_for(&self, time: Duration) -> Effects {
        let until = self.now.plus(time);
        told(Publish::Keys { fresh_until: until, valid_until: until })
    }

    /// The lease that is held, prolonged to `seconds` from now.
    fn extend(&self, seconds: u64) -> Effects {
        let fresh_until = self.watch.keys.expect("held").since.plus(FRESH_FOR);
        let valid_until = self.now.plus(Duration::from_secs(seconds));
        Effects { publish: Some(Publish::Extend { fresh_until, valid_until }), ..NOTHING }
    }

    fn close(&self, why: Closed) -> Effects {
        told(Publish::Close { epoch: self.watch.epoch().next(), why })
    }
}

fn told(publish: Publish) -> Effects {
    Effects { publish: Some(publish), notify: true, alarm: false }
}

#[test]
fn an_honest_history_passes() {
    let mut pen = Pen::refreshing();
    pen.answer(Answer::Transient, pen.extend(41)).expect("silence earns F");
    pen.pass(20).begin().expect("a retry");
    pen.answer(Answer::RefusedPending(GONE), pen.close(Closed::NotReady)).expect("reads close");
    pen.answer(Answer::Refused(GONE), pen.close(Closed::Revoked(GONE))).expect("revoked");
    pen.took(Event::Lock, pen.close(Closed::Locked)).expect("locked");
    pen.took(Event::Unlock, NOTHING).expect("to be unlocked");
    pen.begin().expect("on request");
    pen.answer(pen.verified(), pen.keys()).expect("open");
}

#[test]
fn keys_out_of_nowhere_are_flagged() {
    let mut pen = Pen::cold();
    assert_eq!(pen.took(Event::Wake, pen.keys()), Err(Breach::UnearnedKeys));

    let mut pen = Pen::refreshing();
    assert_eq!(pen.answer(Answer::Transient, pen.keys()), Err(Breach::UnearnedKeys), "silence renews");

    let mut pen = Pen::refreshing();
    let success = Event::Answered(AttemptId(1), pen.verified());
    assert_eq!(pen.took(success, pen.keys()), Err(Breach::UnearnedKeys), "an attempt that has ended");

    let mut pen = Pen::refreshing();
    pen.took(Event::Lock, pen.close(Closed::Locked)).expect("locked");
    assert_eq!(pen.answer(pen.verified(), pen.keys()), Err(Breach::UnearnedKeys), "begun before the lock");
}

#[test]
fn a_success_that_started_before_the_refusal_is_flagged() {
    let mut pen = Pen::refreshing();
    let (before, keys) = (pen.verified(), pen.keys());
    pen.pass(1);
    pen.answer(Answer::RefusedPending(GONE), pen.close(Closed::NotReady)).expect("reads close");
    assert_eq!(pen.answer(before, keys), Err(Breach::UnearnedKeys));
}

#[test]
fn opening_behind_a_lock_or_a_deletion_is_flagged() {
    for (event, why) in [(Event::Lock, Closed::Locked), (Event::Delete, Closed::Deleted)] {
        let mut pen = Pen::fresh();
        pen.took(event, pen.close(why)).expect("closed");
        pen.pass(60);
        assert_eq!(pen.begin(), Err(Breach::CallWhileClosed), "{event:?}");
    }
    let mut pen = Pen::fresh();
    pen.took(Event::Delete, pen.close(Closed::Deleted)).expect("deleted");
    pen.took(Event::Lock, NOTHING).expect("locked underneath");
    assert_eq!(pen.took(Event::Recover, pen.close(Closed::NotReady)), Err(Breach::WrongReason));

    let mut pen = Pen::refreshing();
    pen.watch.locked = true;
    assert_eq!(pen.answer(pen.verified(), pen.keys()), Err(Breach::OpenedBehindALock));
}

#[test]
fn a_success_that_is_dropped_is_flagged() {
    let mut pen = Pen::refreshing();
    assert_eq!(pen.answer(pen.verified(), NOTHING), Err(Breach::SuccessIgnored));
}

#[test]
fn deadlines_too_long_are_flagged() {
    let mut pen = Pen::refreshing();
    let long = pen.keys_for(FRESH_FOR + SECOND);
    assert_eq!(pen.answer(pen.verified(), long), Err(Breach::WrongDeadline), "past F");

    let mut pen = Pen::refreshing();
    assert_eq!(pen.answer(Answer::Transient, pen.extend(42)), Err(Breach::WrongDeadline), "past silence + F");

    let mut pen = Pen::refreshing();
    assert_eq!(pen.answer(Answer::Transient, NOTHING), Err(Breach::WrongDeadline), "grace withheld");

    let mut pen = Pen::refreshing();
    let alarm = Effects { alarm: true, ..pen.extend(41) };
    assert_eq!(pen.answer(Answer::Integrity, alarm), Err(Breach::WrongDeadline), "integrity extends");

    let mut pen = Pen::refreshing();
    pen.answer(Answer::Integrity, Effects { alarm: true, ..pen.extend(11) }).expect("kept until F");
    pen.pass(6).begin().expect("retry");
    assert_eq!(pen.answer(Answer::Transient, pen.extend(41)), Err(Breach::WrongDeadline), "grace after that");

    let mut pen = Pen::refreshing();
    pen.pass(10);
    assert_eq!(pen.answer(Answer::Transient, pen.extend(41)), Err(Breach::WrongDeadline), "slept meanwhile");

    let mut pen = Pen::fresh();
    pen.pass(1);
    let shared = Event::AuthoritySilent { begun: pen.now, asked: true };
    assert_eq!(pen.took(shared, pen.extend(41)), Err(Breach::WrongDeadline), "silence before it was due");

    let mut pen = Pen::cold();
    pen.begin().expect("due");
    let success = Answer::Verified { started: pen.now, max_grace: Some(Duration::ZERO) };
    pen.answer(success, pen.keys()).expect("open");
    pen.pass(30).begin().expect("due");
    assert_eq!(
        pen.answer(Answer::Transient, pen.extend(41)),
        Err(Breach::WrongDeadline),
        "the record's limit"
    );
}

#[test]
fn a_key_used_past_its_time_is_flagged() {
    let mut pen = Pen::fresh();
    let keys = pen.watch.keys.as_mut().expect("held");
    keys.valid_until = keys.since.plus(FRESH_FOR * 2);
    pen.pass(41);
    assert_eq!(pen.took(Event::Wake, NOTHING), Err(Breach::UsableTooLong));
}

#[test]
fn a_key_not_wiped_at_the_end_is_flagged() {
    let mut pen = Pen::fresh();
    pen.pass(1841);
    assert_eq!(pen.took(Event::Wake, NOTHING), Err(Breach::NotWiped));

    let mut pen = Pen::refreshing();
    pen.answer(Answer::Integrity, Effects { alarm: true, ..pen.extend(11) }).expect("kept until F");
    pen.pass(11);
    assert_eq!(pen.took(Event::Wake, NOTHING), Err(Breach::NotWiped));
}

#[test]
fn what_does_not_close_is_flagged() {
    for answer in [Answer::Refused(GONE), Answer::RefusedPending(GONE)] {
        assert_eq!(Pen::refreshing().answer(answer, NOTHING), Err(Breach::NotClosed));
    }
    for event in [Event::Lock, Event::Delete] {
        assert_eq!(Pen::refreshing().took(event, NOTHING), Err(Breach::NotClosed));
    }
}

#[test]
fn reasons_that_nothing_gave_are_flagged() {
    let reasons = [
        Closed::NotReady,
        Closed::Silent,
        Closed::Integrity,
        Closed::Revoked(GONE),
        Closed::Locked,
        Closed::Deleted,
    ];
    for why in reasons {
        let mut pen = Pen::refreshing();
        assert_eq!(pen.took(Event::Wake, pen.close(why)), Err(Breach::WrongReason), "{why:?}");
    }
    let mut pen = Pen::refreshing();
    let revoked = pen.close(Closed::Revoked(Refusal::KeyDisabled));
    assert_eq!(pen.answer(Answer::Refused(GONE), revoked), Err(Breach::WrongReason), "another refusal");

    let mut pen = Pen::refreshing();
    let early = Effects { alarm: true, ..pen.close(Closed::Integrity) };
    assert_eq!(pen.answer(Answer::Integrity, early), Err(Breach::WrongReason), "integrity before F");

    let mut pen = Pen::fresh();
    pen.pass(1841);
    let silent = pen.close(Closed::Silent);
    assert_eq!(pen.took(Event::Wake, silent), Err(Breach::WrongReason), "our own sleep, called silence");
}

#[test]
fn an_old_epoch_is_flagged() {
    let mut pen = Pen::fresh();
    let old = told(Publish::Close { epoch: pen.watch.epoch(), why: Closed::Locked });
    assert_eq!(pen.took(Event::Lock, old), Err(Breach::EpochNotNew));
}

#[test]
fn closing_in_silence_and_false_alarms_are_flagged() {
    let mut pen = Pen::fresh();
    let quiet = Effects { notify: false, ..pen.close(Closed::Locked) };
    assert_eq!(pen.took(Event::Lock, quiet), Err(Breach::WrongNotice));
    let mut pen = Pen::cold();
    pen.begin().expect("due");
    let quiet = Effects { notify: false, ..pen.keys() };
    assert_eq!(pen.answer(pen.verified(), quiet), Err(Breach::WrongNotice));
    let alarm = Effects { alarm: true, ..NOTHING };
    assert_eq!(Pen::fresh().took(Event::Wake, alarm), Err(Breach::WrongNotice));
    let mut pen = Pen::refreshing();
    assert_eq!(pen.answer(Answer::Integrity, pen.extend(11)), Err(Breach::WrongNotice));
}

#[test]
fn calls_too_often_or_too_many_are_flagged() {
    assert_eq!(Pen::fresh().pass(5).begin(), Err(Breach::TooSoon));
    assert_eq!(Pen::refreshing().pass(30).begin(), Err(Breach::TwoInFlight));

    let mut pen = Pen::fresh();
    let mut burst = || {
        pen.watch.see(pen.now, Step::Asked)?;
        pen.begin()?;
        pen.answer(pen.verified(), pen.keys())
    };
    // Three tokens, and one that may have been taken earlier.
    for _ in 0..4 {
        assert_eq!(burst(), Ok(()));
    }
    assert_eq!(burst(), Err(Breach::TooManyRequests));
}

#[test]
fn a_machine_that_spins_stalls_or_hides_its_epoch_is_flagged() {
    let mut world = World::fresh();
    world.attempt(|_| Answer::Refused(GONE));
    world.lease.due = world.now.plus(MAX_REFRESH * 2);
    assert_eq!(world.check_progress(), Err(Breach::NeverAsksAgain));

    let mut world = World::fresh();
    world.lease.phase = Phase::Confirming(GONE);
    assert_eq!(world.check_progress(), Err(Breach::NeverAsksAgain));

    let mut world = World::fresh();
    world.attempt(|_| Answer::Transient);
    world.pass(DEFAULT.fresh_for());
    world.lease.due = world.now.plus(SECOND);
    assert_eq!(world.check_progress(), Err(Breach::BusyLoop), "it has not taken in that time has passed");

    let mut world = World::fresh();
    world.lease.epoch = world.lease.epoch.next();
    assert_eq!(world.check_progress(), Err(Breach::EpochUnpublished));
}
