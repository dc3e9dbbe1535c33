//! A provider that answers as scripted.
//!
//! Behind the script stands a small KMS in memory with keys and versions, so that [`Answer::Ok`] is
//! the truth and every other answer is a fault put in front of it. Imports: `provider`, `clock`,
//! `random`, `testing::{memory_kms, script, virtual_time}`.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use super::memory_kms::{Key, MemoryKms};
use super::script::{Answer, Call, Fault, Script, TRUTH};
use super::virtual_time::{self, Latency};
use crate::clock::{Clock, ManualClock};
use crate::id::AccountId;
use crate::provider::{
    Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped,
};
use crate::random;

/// A KMS under a test's command.
///
/// Clones are handles on the same KMS, so a test keeps one and gives the other to the cache. It starts with one key,
/// [`ScriptedProvider::KEK`], enabled and recoverable, and answers every call truthfully until told otherwise: for each
/// kind of [`Call`] there is a queue of answers, used up one a call, and then a standing answer.
///
/// ```
/// use strongroom::Refusal;
/// use strongroom::testing::{Answer, Call, ScriptedProvider};
///
/// let kms = ScriptedProvider::new();
/// kms.next(Call::Unwrap, [Answer::Transient, Answer::Ok]);
/// kms.always(Call::Unwrap, Answer::Refused(Refusal::KeyDisabled));
/// ```
#[derive(Clone)]
pub struct ScriptedProvider {
    authority: Authority,
    wrap_is_authentic: bool,
    pace: Pace,
    clock: Clock,
    shared: Arc<Shared>,
}

/// A call that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallRecord {
    /// Its kind.
    pub call: Call,
    /// The account that it was for; `None` for `describe`.
    pub account: Option<AccountId>,
    /// When it began, since boot on the provider's clock.
    pub started: Duration,
}

/// Releases the provider's hanging calls when dropped, so that a test that fails cannot hang on its way out.
#[derive(Debug)]
pub struct ReleaseOnDrop(ScriptedProvider);

/// Whether a late answer waits or says how late it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Real,
    Virtual,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    kms: MemoryKms,
    script: Script,
    log: Vec<CallRecord>,
    in_flight: usize,
    max_in_flight: usize,
    /// Counts the calls of `release`; a call that waits goes on when it changes.
    releases: u64,
}

impl ScriptedProvider {
    /// The key that every scripted KMS starts with.
    pub const KEK: &'static str = "kek";

    /// Answers that are late really come late: the calling thread waits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_pace(Pace::Real)
    }

    /// Nothing waits: the call returns at once and leaves in [`virtual_time`] how late its answer is.
    #[must_use]
    pub fn on_virtual_time() -> Self {
        Self::with_pace(Pace::Virtual)
    }

    fn with_pace(pace: Pace) -> Self {
        let provider = Self {
            authority: Authority::new("scripted", "test"),
            wrap_is_authentic: true,
            pace,
            clock: Clock::System,
            shared: Arc::default(),
        };
        provider.add_key(Self::KEK);
        provider
    }

    /// The same KMS under another authority.
    #[must_use]
    pub fn with_authority(mut self, authority: Authority) -> Self {
        self.authority = authority;
        self
    }

    /// Takes the times of [`Self::log`] from `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self
    }

    /// Says of itself that anyone can mint a wrap, as with a public key.
    #[must_use]
    pub fn with_public_wraps(mut self) -> Self {
        self.wrap_is_authentic = false;
        self
    }

    /// Queues `answers` for the next calls of this kind.
    pub fn next(&self, call: Call, answers: impl IntoIterator<Item = Answer>) {
        self.state().script.queue(call, answers);
    }

    /// Answers calls of this kind like that once the queue is empty, from now on.
    pub fn always(&self, call: Call, answer: Answer) {
        self.state().script.stand(call, answer);
    }

    /// Drops every queue and answers all calls like that, from now on.
    pub fn every_call(&self, answer: &Answer) {
        self.state().script.stand_for_all(answer);
    }

    /// Lets go of every call that hangs or waits at this moment. Later calls follow the script again.
    pub fn release(&self) {
        self.state().releases += 1;
        self.shared.released.notify_all();
    }

    /// Calls [`Self::release`] when the guard is dropped, and answers truthfully from then on.
    #[must_use]
    pub fn release_on_drop(&self) -> ReleaseOnDrop {
        ReleaseOnDrop(self.clone())
    }

    /// How many calls of this kind began so far.
    #[must_use]
    pub fn calls(&self, call: Call) -> usize {
        self.state().log.iter().filter(|record| record.call == call).count()
    }

    /// Every call so far, in the order in which they began.
    #[must_use]
    pub fn log(&self) -> Vec<CallRecord> {
        self.state().log.clone()
    }

    /// Forgets the calls so far.
    pub fn clear_log(&self) {
        self.state().log.clear();
    }

    /// How many calls are inside the provider now, hanging ones included.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// The most calls that ever were inside the provider together.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.state().max_in_flight
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect(UNPOISONED)
    }
}

/// The customer's side: what an administrator of the KMS does. The methods that name a key or a version panic
/// when there is none of that name, for that is a mistake in the test.
impl ScriptedProvider {
    /// Makes the key `name` with its first version, enabled and recoverable.
    pub fn add_key(&self, name: &str) {
        self.state().kms.add_key(name);
    }

    /// Adds a version to the key; it becomes the current one.
    pub fn add_version(&self, name: &str) -> KekVersion {
        self.with_key(name, Key::add_version)
    }

    /// Enables or disables one version of the key.
    pub fn set_version_enabled(&self, name: &str, version: &KekVersion, enabled: bool) {
        let known = self.with_key(name, |key| key.set_version_enabled(version, enabled));
        assert!(known, "the test names a version that the scripted KMS does not have: {version}");
    }

    /// Enables or disables the key.
    pub fn set_enabled(&self, name: &str, enabled: bool) {
        self.with_key(name, |key| key.enabled = enabled);
    }

    /// Deletes the key, or recovers it.
    pub fn set_deleted(&self, name: &str, deleted: bool) {
        self.with_key(name, |key| key.deleted = deleted);
    }

    /// Sets whether the key is described as having soft delete and purge protection.
    pub fn set_recoverable(&self, name: &str, recoverable: bool) {
        self.with_key(name, |key| key.recoverable = recoverable);
    }

    /// Sets when the key is described as expiring. It is described only: the calls go on.
    pub fn set_expires(&self, name: &str, expires: Option<SystemTime>) {
        self.with_key(name, |key| key.expires = expires);
    }

    /// Sets what `describe` says of hardware.
    pub fn set_hsm_backed(&self, name: &str, hsm_backed: Option<bool>) {
        self.with_key(name, |key| key.hsm_backed = hsm_backed);
    }

    fn with_key<T>(&self, name: &str, change: impl FnOnce(&mut Key) -> T) -> T {
        let changed = self.state().kms.key_mut(name).map(change);
        changed.unwrap_or_else(|| panic!("the test names a key that the scripted KMS does not have: {name}"))
    }
}

impl KeyProvider for ScriptedProvider {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        let flight = self.begin(Call::Wrap, Some(context.account()));
        let truth = |secret: &WrapInput| self.state().kms.wrap(&self.authority, kek, context, secret);
        match flight.answer()? {
            Fault::None => truth(secret),
            Fault::OtherAek => truth(&context.input(&random_bytes())),
            Fault::Garbage => {
                let honest = truth(secret)?;
                let bytes = random_bytes::<72>().to_vec();
                Wrapped::new(
                    honest.kek().clone(),
                    honest.version().clone(),
                    honest.algorithm().clone(),
                    bytes,
                )
            }
        }
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let flight = self.begin(Call::Unwrap, Some(context.account()));
        match flight.answer()? {
            Fault::None => self.state().kms.unwrap(&self.authority, wrapped, context),
            Fault::OtherAek => Ok(context.input(&random_bytes())),
            Fault::Garbage => WrapInput::from_slice(&random_bytes::<{ WrapInput::LEN }>()),
        }
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let flight = self.begin(Call::Describe, None);
        match flight.answer()? {
            Fault::None | Fault::OtherAek => self.state().kms.describe(&self.authority, kek),
            Fault::Garbage => {
                let elsewhere = self.authority.uri_of("another-key")?;
                Ok(KekInfo::new(elsewhere, KekVersion::new("garbage")?))
            }
        }
    }

    fn authority(&self) -> Authority {
        self.authority.clone()
    }

    fn wrap_is_authentic(&self) -> bool {
        self.wrap_is_authentic
    }
}

impl ScriptedProvider {
    fn begin(&self, call: Call, account: Option<AccountId>) -> Flight<'_> {
        let started = Duration::from_nanos(self.clock.now().boot_nanos());
        let mut state = self.state();
        state.log.push(CallRecord { call, account, started });
        state.in_flight += 1;
        state.max_in_flight = state.max_in_flight.max(state.in_flight);
        let answer = state.script.take(call);
        Flight { provider: self, answer, releases: state.releases }
    }
}

/// A call inside the provider; counted until it is dropped.
struct Flight<'a> {
    provider: &'a ScriptedProvider,
    answer: Answer,
    /// The count of releases when the call began.
    releases: u64,
}

impl Flight<'_> {
    /// Waits, or says how long to wait, and then gives the scripted failure or what to falsify.
    fn answer(&self) -> Result<Fault, ProviderError> {
        let (lateness, answer) = self.answer.split();
        self.spend(lateness);
        answer.play()
    }

    fn spend(&self, lateness: Option<Latency>) {
        match self.provider.pace {
            // What a record store has left before this call is not taken back.
            Pace::Virtual if lateness.is_some() => virtual_time::set(lateness),
            Pace::Virtual => {}
            Pace::Real => self.wait(lateness),
        }
    }

    fn wait(&self, lateness: Option<Latency>) {
        let Some(lateness) = lateness else { return };
        let state = self.provider.state();
        let held = |state: &mut State| state.releases == self.releases;
        let released = &self.provider.shared.released;
        match lateness {
            Latency::For(by) => drop(released.wait_timeout_while(state, by, held).expect(UNPOISONED)),
            Latency::Forever => drop(released.wait_while(state, held).expect(UNPOISONED)),
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.provider.state().in_flight -= 1;
    }
}

impl Default for ScriptedProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        self.0.every_call(TRUTH);
        self.0.release();
    }
}

impl fmt::Debug for ScriptedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedProvider").field("authority", &self.authority).finish_non_exhaustive()
    }
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    random::fill(&mut bytes);
    bytes
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::error::Refusal;
    use crate::id::Generation;
    use crate::provider::ErrorClass;

    fn context() -> WrapContext {
        WrapContext::for_tests(AccountId::from_bytes([1; 16]), Generation::FIRST)
    }

    fn wrap(kms: &ScriptedProvider) -> Wrapped {
        let kek = Kek::latest(ScriptedProvider::KEK);
        kms.wrap(&kek, &context(), &context().input(&[7; 32])).expect("wraps")
    }

    fn unwrap(kms: &ScriptedProvider, wrapped: &Wrapped) -> Result<[u8; 32], ErrorClass> {
        match kms.unwrap(wrapped, &context()) {
            Ok(input) => Ok(*input.secret_for(&context()).expect("of this context")),
            Err(error) => Err(error.class()),
        }
    }

    #[test]
    fn the_queue_goes_first_and_then_the_standing_answer() {
        let kms = ScriptedProvider::new();
        let wrapped = wrap(&kms);
        kms.next(Call::Unwrap, [Answer::Transient, Answer::Ok]);
        kms.always(Call::Unwrap, Answer::Refused(Refusal::KeyGone));
        assert_eq!(unwrap(&kms, &wrapped), Err(ErrorClass::Transient));
        assert_eq!(unwrap(&kms, &wrapped), Ok([7; 32]));
        assert_eq!(unwrap(&kms, &wrapped), Err(ErrorClass::Refused(Refusal::KeyGone)));
        assert_eq!((kms.calls(Call::Unwrap), kms.calls(Call::Wrap)), (3, 1));
    }

    #[test]
    fn false_answers_are_false_in_the_way_they_say() {
        let kms = ScriptedProvider::new();
        let wrapped = wrap(&kms);
        kms.next(Call::Unwrap, [Answer::Garbage, Answer::OtherAek]);
        assert!(kms.unwrap(&wrapped, &context()).expect("answers").secret_for(&context()).is_none());
        assert_ne!(unwrap(&kms, &wrapped).expect("well-formed"), [7; 32]);
        kms.next(Call::Wrap, [Answer::Garbage, Answer::OtherAek]);
        assert_eq!(unwrap(&kms, &wrap(&kms)), Err(ErrorClass::Integrity));
        assert_ne!(unwrap(&kms, &wrap(&kms)).expect("well-formed"), [7; 32]);
    }

    #[test]
    fn versions_are_exact() {
        let kms = ScriptedProvider::new();
        let old = wrap(&kms);
        let newer = kms.add_version(ScriptedProvider::KEK);
        assert_eq!((old.version().as_str(), newer.as_str(), wrap(&kms).version()), ("1", "2", &newer));
        assert_eq!(unwrap(&kms, &old), Ok([7; 32]));
        kms.set_version_enabled(ScriptedProvider::KEK, old.version(), false);
        assert_eq!(unwrap(&kms, &old), Err(ErrorClass::Refused(Refusal::KeyDisabled)));
        assert_eq!(unwrap(&kms, &wrap(&kms)), Ok([7; 32]));
        let pinned = Kek::pinned(ScriptedProvider::KEK, old.version().clone());
        let info = kms.describe(&pinned).expect("describes");
        assert_eq!((info.version.as_str(), info.enabled), ("1", false));
    }

    #[test]
    fn on_virtual_time_nothing_waits() {
        let kms = ScriptedProvider::on_virtual_time();
        let wrapped = wrap(&kms);
        let second = Duration::from_secs(1);
        let late = Answer::Late(second, Box::new(Answer::Late(second, Box::new(Answer::Transient))));
        kms.next(Call::Unwrap, [Answer::Hang, Answer::Delay(second), late, Answer::Ok]);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push((unwrap(&kms, &wrapped).err(), virtual_time::take()));
        }
        let expected = [
            (None, Some(Latency::Forever)),
            (None, Some(Latency::For(second))),
            (Some(ErrorClass::Transient), Some(Latency::For(2 * second))),
            (None, None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn hanging_calls_wait_until_released() {
        let kms = ScriptedProvider::new();
        let wrapped = wrap(&kms);
        kms.always(Call::Unwrap, Answer::Hang);
        thread::scope(|scope| {
            let calls: Vec<_> = (0..2).map(|_| scope.spawn(|| unwrap(&kms, &wrapped))).collect();
            while kms.in_flight() < 2 {
                thread::yield_now();
            }
            drop(kms.release_on_drop());
            for call in calls {
                assert_eq!(call.join().expect("no panic"), Ok([7; 32]));
            }
        });
        assert_eq!((kms.in_flight(), kms.max_in_flight()), (0, 2));
    }

    #[test]
    fn a_scripted_panic_leaves_the_kms_usable() {
        let kms = ScriptedProvider::new();
        let wrapped = wrap(&kms);
        kms.next(Call::Unwrap, [Answer::Panic]);
        thread::scope(|scope| scope.spawn(|| unwrap(&kms, &wrapped)).join().expect_err("panics"));
        assert_eq!(unwrap(&kms, &wrapped), Ok([7; 32]));
        assert_eq!(kms.in_flight(), 0);
    }

    #[test]
    fn the_log_tells_when_and_for_whom() {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        wrap(&kms);
        clock.advance(Duration::from_secs(5));
        wrap(&kms);
        let log = kms.log();
        assert_eq!(log[1].started - log[0].started, Duration::from_secs(5));
        assert_eq!((log[0].call, log[0].account), (Call::Wrap, Some(context().account())));
    }
}
