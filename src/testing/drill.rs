//! The revocation drill: a storage engine is taken through what a customer's KMS can do to it (contract H5).
//!
//! A user runs it in their own tests, over their own engine. It fails where the engine serves what it must not, stores what it must
//! not, acknowledges what may be lost, or does not come back. Imports: `cache`, `account`, `clock`, `error`, `id`, `provider`,
//! `testing::{drill, scripted, script}`.

mod field;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use self::field::{Field, Pace};
use crate::account::Account;
use crate::account::settings::OutageGrace;
use crate::error::{Error, ErrorKind, Refusal};

use super::script::Answer;

/// A storage engine, as far as the drill needs to know it.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::error::Error;
/// use strongroom::testing::{DrillEngine, RevocationDrill};
/// use strongroom::{Aad, Account, BlockId, ObjectId};
///
/// struct Rows { account: Account, rows: BTreeMap<String, (BlockId, Vec<u8>)> } // your engine
///
/// impl DrillEngine for Rows {
///     fn write(&mut self, key: &str, value: &[u8], stored: &mut dyn FnMut()) -> Result<(), Box<dyn Error + Send + Sync>> {
///         let fence = self.account.fence()?;
///         let id = BlockId::new(ObjectId::random(), 0);
///         let sealed = self.account.seal(id, Aad::new(key.as_bytes()), value)?;
///         self.rows.insert(key.to_owned(), (id, sealed));
///         stored();
///         fence.check()?; // immediately before it is acknowledged
///         Ok(())
///     }
///
///     fn read(&mut self, key: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
///         let (id, sealed) = self.rows.get(key).ok_or("no such row")?;
///         Ok(self.account.open(*id, Aad::new(key.as_bytes()), sealed)?)
///     }
///
///     fn at_rest(&mut self) -> Option<Vec<u8>> {
///         Some(self.rows.values().flat_map(|(_, sealed)| sealed.clone()).collect())
///     }
/// }
///
/// let report = RevocationDrill::on_virtual_time()
///     .run(|account| Ok(Rows { account: account.clone(), rows: BTreeMap::new() }))
///     .unwrap_or_else(|failure| panic!("{failure}"));
/// assert!(report.is_complete(), "{report}");
/// ```
pub trait DrillEngine {
    /// Writes `value` under `key`, and returns `Ok` once it is acknowledged as durable. Calls `stored` once, when the sealed bytes
    /// are where they are stored and nothing is acknowledged yet: the drill withdraws the key at that moment.
    ///
    /// # Errors
    /// Whatever the engine's users see. This crate's [`Error`] must be in its chain of sources: [`Error::find`] looks for it.
    fn write(
        &mut self,
        key: &str,
        value: &[u8],
        stored: &mut dyn FnMut(),
    ) -> Result<(), Box<dyn StdError + Send + Sync>>;

    /// Reads what was last written under `key`.
    ///
    /// # Errors
    /// As [`Self::write`].
    fn read(&mut self, key: &str) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>>;

    /// All bytes that lie in the engine's storage now, in any order, logs and temporary files too: the drill looks for plaintext there.
    /// `None`, and that step is reported as not run, where they cannot be had.
    fn at_rest(&mut self) -> Option<Vec<u8>> {
        None
    }
}

/// A drill, set up. [`DrillEngine`] has an example.
#[derive(Clone, Debug)]
#[must_use]
pub struct RevocationDrill {
    pace: Pace,
    refresh: Duration,
    grace: Duration,
}

impl RevocationDrill {
    /// On a clock that the drill moves: takes milliseconds, for an hour's story. Nothing of the engine may wait for real time.
    pub const fn on_virtual_time() -> Self {
        Self { pace: Pace::Virtual, refresh: Duration::from_secs(30), grace: Duration::from_secs(120) }
    }

    /// In real time, at the shortest refresh interval: takes about a minute, most of it waiting.
    pub const fn in_real_time() -> Self {
        Self { pace: Pace::Real, refresh: Duration::from_secs(6), grace: Duration::from_secs(5) }
    }

    /// r, 6 to 60 s. Default 30 s, in real time 6 s.
    pub const fn refresh_every(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    /// G: for how long the engine serves while the KMS is silent. Default 2 minutes, in real time 5 s.
    pub const fn outage_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Takes the engine that `start` makes through the whole drill.
    ///
    /// # Errors
    /// [`DrillFailure`], at the first thing that the engine does wrong.
    pub fn run<E: DrillEngine>(
        &self,
        start: impl FnOnce(&Account) -> Result<E, Box<dyn StdError + Send + Sync>>,
    ) -> Result<DrillReport, DrillFailure> {
        let field = Field::new(self.pace, self.refresh, OutageGrace::For(self.grace))
            .map_err(|error| DrillFailure { step: "set-up", message: error.to_string() })?;
        let engine = start(&field.account)
            .map_err(|error| DrillFailure { step: "start", message: error.to_string() })?;
        let mut drill = Running { field, engine, step: "start", acknowledged: Vec::new(), steps: Vec::new() };
        drill.use_it()?;
        drill.refuse()?;
        drill.recover("access returns after a refusal")?;
        drill.fall_silent()?;
        drill.recover("the KMS answers again after an outage")?;
        drill.lock()?;
        drill.overtake_writes()?;
        drill.look_for_plaintext("nothing is at rest in the clear")?;
        Ok(DrillReport { steps: drill.steps })
    }
}

/// What an engine did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillFailure {
    step: &'static str,
    message: String,
}

impl DrillFailure {
    /// In which step of the drill.
    #[must_use]
    pub const fn step(&self) -> &'static str {
        self.step
    }

    /// What was wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for DrillFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revocation drill, {}: {}", self.step, self.message)
    }
}

impl StdError for DrillFailure {}

/// What a drill has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillReport {
    steps: Vec<DrillStep>,
}

/// A step of a drill that was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrillStep {
    /// What holds.
    pub name: &'static str,
    /// How long it took, on the drill's clock, where time is what it is about.
    pub took: Option<Duration>,
    /// How long it may take: a published bound.
    pub bound: Option<Duration>,
    /// Why it was not run, where it was not.
    pub not_run: Option<&'static str>,
}

impl DrillReport {
    /// The steps in their order.
    #[must_use]
    pub fn steps(&self) -> &[DrillStep] {
        &self.steps
    }

    /// Whether every step was run.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|step| step.not_run.is_none())
    }
}

impl fmt::Display for DrillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            write!(f, "{}", step.name)?;
            if let (Some(took), Some(bound)) = (step.took, step.bound) {
                write!(f, ": {:.1} s, at most {:.1} s", took.as_secs_f64(), bound.as_secs_f64())?;
            }
            if let Some(why) = step.not_run {
                write!(f, ": NOT RUN, {why}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A drill under way.
struct Running<E> {
    field: Field,
    engine: E,
    step: &'static str,
    /// Key and value of every write that the engine has acknowledged.
    acknowledged: Vec<(String, Vec<u8>)>,
    steps: Vec<DrillStep>,
}

impl<E: DrillEngine> Running<E> {
    fn use_it(&mut self) -> Result<(), DrillFailure> {
        self.step = "in use";
        for _ in 0..8 {
            self.write_one()?;
        }
        self.all_is_there()?;
        self.passed("writes are read back", None);
        self.look_for_plaintext("what is written is sealed")
    }

    /// The customer disables the key.
    fn refuse(&mut self) -> Result<(), DrillFailure> {
        self.step = "refusal";
        self.field.kms.every_call(&Answer::Refused(Refusal::KeyDisabled));
        let bound = self.field.cache.staleness_bound();
        let took = self.until_closed(bound, "a refusal")?;
        self.passed("a refusal ends reads and writes", Some((took, bound)));
        self.stays_closed(ErrorKind::Revoked)?;
        self.passed("while refused, reads and writes fail with `Revoked`", None);
        self.look_for_plaintext("refused writes leave no plaintext")
    }

    /// The KMS does not answer any more.
    fn fall_silent(&mut self) -> Result<(), DrillFailure> {
        self.step = "outage";
        self.field.kms.every_call(&Answer::Transient);
        let bound = self.field.cache.usable_for();
        let took = self.until_closed(bound, "an outage")?;
        if took <= self.field.cache.fresh_for() {
            return Err(self.failed("the account was closed before its grace: the drill itself is at fault"));
        }
        self.passed("an outage is served through for the grace, and not longer", Some((took, bound)));
        self.stays_closed(ErrorKind::Unavailable)?;
        self.passed("after the grace, reads and writes fail with `Unavailable`", None);
        self.look_for_plaintext("writes in an outage leave no plaintext")
    }

    /// The KMS answers truthfully again. Nobody touches the engine.
    fn recover(&mut self, name: &'static str) -> Result<(), DrillFailure> {
        self.step = "recovery";
        self.field.kms.every_call(&Answer::Ok);
        let begun = self.field.now();
        while !self.field.is_open() {
            if self.field.now() - begun > RECOVERY + self.field.slack() {
                return Err(self.failed("the account does not come back: the drill itself is at fault"));
            }
            self.field.pass(self.field.step());
        }
        let took = self.field.now() - begun;
        self.all_is_there()?;
        self.write_one()?;
        self.all_is_there()?;
        self.passed(name, Some((took, RECOVERY)));
        Ok(())
    }

    fn lock(&mut self) -> Result<(), DrillFailure> {
        self.step = "lock";
        self.field.account.lock();
        self.stays_closed(ErrorKind::Locked)?;
        self.field.pass(self.field.long_enough_to_refresh());
        self.stays_closed(ErrorKind::Locked)?;
        self.unlock()?;
        self.all_is_there()?;
        self.write_one()?;
        self.passed("a lock closes at once and stays closed until it is lifted", None);
        Ok(())
    }

    /// The key is withdrawn between storing and acknowledging.
    fn overtake_writes(&mut self) -> Result<(), DrillFailure> {
        for (step, name, reopens) in [
            ("overtaken write", "a write that a closing overtakes is not acknowledged", false),
            (
                "overtaken write, reopened",
                "nor is one that was overtaken by a closing that has passed since",
                true,
            ),
        ] {
            self.step = step;
            let account = self.field.account.clone();
            let mut calls = 0_u32;
            let mut overtake = || {
                calls += 1;
                account.lock();
                if reopens {
                    // Whether it does is seen below.
                    drop(account.unlock());
                }
            };
            let key = format!("drill-overtaken-{reopens}");
            let written = self.engine.write(&key, NEEDLE, &mut overtake);
            if calls == 0 {
                self.skipped(name, "the engine's `write` did not call `stored`");
            } else if written.is_ok() {
                return Err(self.failed(
                    "a write was acknowledged though the key was withdrawn after it was sealed: take a `Fence` before \
                     sealing, and check it immediately before acknowledging",
                ));
            } else {
                self.passed(name, None);
            }
            self.unlock()?;
            self.all_is_there()?;
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), DrillFailure> {
        self.field.account.unlock().map_err(|error| self.failed(&error.to_string()))
    }

    /// Reads and writes until the account has closed. Until then everything works; how long that took.
    fn until_closed(&mut self, bound: Duration, what: &str) -> Result<Duration, DrillFailure> {
        let begun = self.field.now();
        loop {
            let was_open = self.field.is_open();
            let key = self.acknowledged[0].0.clone();
            let read = self.engine.read(&key);
            match (was_open, self.field.is_open(), read) {
                (true, true, Err(error)) => {
                    return Err(self.failed(&format!("a read failed while a lease was valid: {error}")));
                }
                (false, false, Ok(_)) => return Err(self.failed(SERVES_PLAINTEXT)),
                (false, false, Err(_)) => return Ok(self.field.now() - begun),
                _ => {}
            }
            if self.field.now() - begun > bound + self.field.slack() {
                return Err(self.failed(&format!("{what} is not noticed within {bound:?}")));
            }
            self.field.pass(self.field.step());
        }
    }

    /// Every read and a write fail for the right reason.
    fn stays_closed(&mut self, expected: ErrorKind) -> Result<(), DrillFailure> {
        for at in 0..self.acknowledged.len() {
            let key = self.acknowledged[at].0.clone();
            match self.engine.read(&key) {
                Ok(_) => return Err(self.failed(SERVES_PLAINTEXT)),
                Err(error) => self.has_kind(&*error, expected, "read")?,
            }
        }
        let key = format!("drill-refused-{}", self.steps.len());
        match self.engine.write(&key, NEEDLE, &mut || {}) {
            Ok(()) => Err(self.failed(
                "a write was acknowledged though the account is closed: it is lost, or lies in the clear, or somewhere else than \
                 its writer was told",
            )),
            Err(error) => self.has_kind(&*error, expected, "write"),
        }
    }

    fn has_kind(
        &self,
        error: &(dyn StdError + 'static),
        expected: ErrorKind,
        what: &str,
    ) -> Result<(), DrillFailure> {
        match Error::find(error) {
            Some(found) if found.kind() == expected => Ok(()),
            Some(found) => {
                let kind = found.kind();
                Err(self.failed(&format!(
                    "a {what} fails with `{kind}` where the reason is `{expected}`: {error}"
                )))
            }
            None => Err(self.failed(&format!(
                "a {what} fails without this crate's error among its sources, so nobody can tell why: {error}"
            ))),
        }
    }

    fn write_one(&mut self) -> Result<(), DrillFailure> {
        let number = self.acknowledged.len();
        let (key, value) = (format!("drill-{number}"), [NEEDLE, &number.to_be_bytes()].concat());
        match self.engine.write(&key, &value, &mut || {}) {
            Ok(()) => {
                self.acknowledged.push((key, value));
                Ok(())
            }
            Err(error) => Err(self.failed(&format!("a write fails while a lease is valid: {error}"))),
        }
    }

    fn all_is_there(&mut self) -> Result<(), DrillFailure> {
        for at in 0..self.acknowledged.len() {
            let (key, value) = self.acknowledged[at].clone();
            match self.engine.read(&key) {
                Ok(found) if found == value => {}
                Ok(_) => {
                    return Err(self.failed(&format!("{key} was acknowledged, and something else is read")));
                }
                Err(error) => {
                    return Err(self.failed(&format!(
                        "{key} was acknowledged, and is not read though a lease is valid: {error}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn look_for_plaintext(&mut self, name: &'static str) -> Result<(), DrillFailure> {
        match self.engine.at_rest() {
            None => self.skipped(name, "the engine does not show what it has at rest"),
            Some(bytes) if bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE) => {
                return Err(self.failed("plaintext lies in the engine's storage"));
            }
            Some(_) => self.passed(name, None),
        }
        Ok(())
    }

    fn passed(&mut self, name: &'static str, times: Option<(Duration, Duration)>) {
        let (took, bound) = times.unzip();
        self.steps.push(DrillStep { name, took, bound, not_run: None });
    }

    fn skipped(&mut self, name: &'static str, why: &'static str) {
        self.steps.push(DrillStep { name, took: None, bound: None, not_run: Some(why) });
    }

    fn failed(&self, message: &str) -> DrillFailure {
        DrillFailure { step: self.step, message: message.to_owned() }
    }
}

/// What the drill's values begin with, and what it looks for at rest.
const NEEDLE: &[u8] = b"strongroom drill: this must never lie anywhere in the clear";
/// By when a KMS that answers again is noticed, whatever happened before: the longest refresh interval and call deadline.
const RECOVERY: Duration = Duration::from_secs(60 + 5);
const SERVES_PLAINTEXT: &str = "a read was served though the account is closed: plaintext, or a key, outlives its lease. Keep it in a `Guarded`, or drop it on \
     `Events`";

#[cfg(test)]
mod tests;
