//! Long work that is known by an id, shows how far it is, can be cancelled, and survives a restart of the process (contract E8).
//!
//! ```text
//! begin ─► Run ── checkpoint (progress, cursor) ─► .. ─► succeed, fail or cancelled
//!            the process ends ─► resume ─► Run at the last cursor
//! ```
//! What is noted of a target is one authenticated state in a record store, changed by compare-and-swap: so two operations on one target
//! cannot begin, and of two who run one only the later writes. Imports: `account`, `record_store`, `format::{operation, record}`,
//! `clock`, `id`, `error`.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::account::Account;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::format::operation::{OperationKind, OperationProgress, OperationState, OperationStatus};
use crate::format::record::{Sequence, Timestamp};
use crate::id::{AccountId, OperationId, OperationTarget};
use crate::record_store::{Loaded, RecordStore, RecordTag};

/// Where operations are noted: a record store of their own, under the key of an account.
///
/// The account is the one that is worked on, or one of the service's where the work is on many. While it has no lease nothing can be
/// noted and nothing is believed, so work that is under way stops at its next checkpoint. Of each target the last operation is
/// noted, in the place of a record: **give it a record store beside which nothing else is kept**. Calls load and write on the caller's
/// thread, and may block.
///
/// An older state that somebody puts back has a valid MAC: work that goes on from it does again what was done already, so each piece must bear
/// to be done twice, and no decision that cannot be undone may rest on a status alone.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// use strongroom::{
///     AccountId, AccountSpec, AekCache, ErrorKind, MemoryRecordStore, OperationKind, OperationStatus, Operations,
/// };
/// # let folder = tempfile::tempdir()?;
/// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest("orders")))?;
///
/// let target = account.id();
/// let operations = Operations::new(Arc::new(MemoryRecordStore::new()), account);
/// let mut run = operations.begin(OperationKind::Reseal, target)?;
/// run.progress_mut().total = Some(3);
/// assert_eq!(operations.begin(OperationKind::Delete, target).unwrap_err().kind(), ErrorKind::Conflict);
///
/// run.progress_mut().done += 1; // a piece of work
/// run.checkpoint(b"the name of the first object")?;
/// drop(run); // the process ends
///
/// let mut run = operations.resume(target)?.expect("it has not ended");
/// assert_eq!(run.cursor(), b"the name of the first object");
/// run.progress_mut().done += 2;
/// let ended = run.succeed()?;
/// assert_eq!((ended.status(), ended.progress().done), (&OperationStatus::Succeeded, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Operations {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn RecordStore>,
    account: Account,
    /// Asked for in this process, and perhaps not noted yet.
    cancelled: Mutex<HashSet<OperationId>>,
}

/// An operation as it was when it was looked at: what, how far, and how it ended.
#[derive(Clone)]
pub struct Operation {
    operations: Operations,
    state: OperationState,
}

/// The right to run an operation. Dropped, it leaves the operation as it was at its last checkpoint, to be
/// [resumed](Operations::resume).
#[must_use = "an operation that nobody runs stays under way until it is resumed"]
pub struct OperationRun {
    operations: Operations,
    state: OperationState,
    tag: RecordTag,
    /// Up to when `worked` counts.
    counted: Moment,
}

impl Operations {
    /// Operations in `store`, under the key of `account`. Not the store that has the records of accounts: a target may be called as one of these.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, account: Account) -> Self {
        Self { inner: Arc::new(Inner { store, account, cancelled: Mutex::default() }) }
    }

    /// Begins an operation on `target`. It is noted before anything is done.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] while another one on that target has not ended, also where nobody runs it any more: [`Self::find`] tells which,
    /// [`Self::resume`] goes on with it. [`ErrorKind::Untrusted`] when what is noted of the target is not authentic; why the account has no lease;
    /// [`ErrorKind::Io`] for the store, which then has the operation or not.
    pub fn begin(
        &self,
        kind: OperationKind,
        target: impl Into<OperationTarget>,
    ) -> Result<OperationRun, Error> {
        let target = target.into();
        let found = self.load(target)?;
        if let Some((state, _)) = found.as_ref().filter(|(state, _)| !state.status.is_ended()) {
            return Err(under_way(state));
        }
        let (sequence, tag) = match found {
            Some((last, tag)) => (last.sequence.next()?, Some(tag)),
            None => (Sequence::FIRST, None),
        };
        let (generation, _) = self.inner.account.permit()?.sealing()?;
        let now = self.now();
        let started = Timestamp::from_wall_nanos(now.wall_nanos());
        let state = OperationState {
            target,
            id: OperationId::random(),
            sequence,
            account: self.inner.account.id(),
            generation,
            kind,
            status: OperationStatus::InProgress,
            cancel_requested: false,
            run: 1,
            started,
            updated: started,
            progress: OperationProgress::default(),
            cursor: Vec::new(),
        };
        let tag = self.swap(&state, tag.as_ref()).map_err(|error| match error.kind() {
            ErrorKind::Conflict => conflict("another operation on the target has just begun"),
            _ => error,
        })?;
        Ok(OperationRun { operations: self.clone(), state, tag, counted: now })
    }

    /// Goes on with the operation on `target` that has not ended: after a restart, or in the place of somebody who hangs. `None` where there is none.
    ///
    /// Whoever ran it before is told at the next checkpoint, with [`ErrorKind::Conflict`], and can note nothing any more; what they do until then
    /// they do beside the one who took it over.
    ///
    /// # Errors
    /// As [`Self::begin`]; [`ErrorKind::Conflict`] when somebody else takes it over at the same time.
    pub fn resume(&self, target: impl Into<OperationTarget>) -> Result<Option<OperationRun>, Error> {
        let Some((last, tag)) = self.load(target.into())? else { return Ok(None) };
        if last.status.is_ended() {
            return Ok(None);
        }
        let run = last
            .run
            .checked_add(1)
            .ok_or_else(|| Error::new(ErrorKind::Limit, "an operation was taken over too often"))?;
        let now = self.now();
        let state = self.next(OperationState { run, ..last }, now)?;
        let tag = self.swap(&state, Some(&tag))?;
        Ok(Some(OperationRun { operations: self.clone(), state, tag, counted: now }))
    }

    /// The last operation on `target`, under way or ended; `None` before the first.
    ///
    /// # Errors
    /// As [`Self::begin`], but for a conflict.
    pub fn find(&self, target: impl Into<OperationTarget>) -> Result<Option<Operation>, Error> {
        let found = self.load(target.into())?;
        Ok(found.map(|(state, _)| Operation { operations: self.clone(), state }))
    }

    /// Gives up what is noted of `target` and is not authentic, so that operations on it can begin again: damaged bytes, a state under a
    /// generation that is destroyed, or one under another account, which may be under way there. False where there is nothing to give up.
    ///
    /// # Errors
    /// As [`Self::begin`]; [`ErrorKind::Conflict`] also when it was changed meanwhile. [`ErrorKind::Misuse`] for what is no operation's state but
    /// an account's record, damaged or not: a store of records is none for operations.
    pub fn discard_damaged(&self, target: impl Into<OperationTarget>) -> Result<bool, Error> {
        let target = target.into();
        match self.load(target) {
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Untrusted => {}
            Err(error) => return Err(error),
        }
        let Loaded::Found { bytes, tag } = self.inner.store.load(key(target), None)? else {
            return Ok(false);
        };
        if OperationState::is_something_else(&bytes) {
            let message = "in the place of an operation's state there is an account's record, or the like: operations have a store of their own";
            return Err(Error::new(ErrorKind::Misuse, message));
        }
        // A hint, so that who has seen the damaged one sees that this follows.
        let claimed = OperationState::parse(&bytes).ok().and_then(|(state, ..)| state.sequence.next().ok());
        let (generation, _) = self.inner.account.permit()?.sealing()?;
        let now = Timestamp::from_wall_nanos(self.now().wall_nanos());
        let state = OperationState {
            target,
            id: OperationId::random(),
            sequence: claimed.unwrap_or(Sequence::FIRST),
            account: self.inner.account.id(),
            generation,
            kind: OperationKind::Rewrap,
            status: OperationStatus::Cancelled,
            cancel_requested: false,
            run: 1,
            started: now,
            updated: now,
            progress: OperationProgress::default(),
            cursor: Vec::new(),
        };
        self.swap(&state, Some(&tag)).map(|_| true)
    }

    /// What is noted of `target`, believed.
    fn load(&self, target: OperationTarget) -> Result<Option<(OperationState, RecordTag)>, Error> {
        let (bytes, tag) = match self.inner.store.load(key(target), None)? {
            Loaded::Absent => return Ok(None),
            Loaded::Found { bytes, tag } => (bytes, tag),
            Loaded::Unchanged => {
                return Err(untrusted("the record store calls a state unchanged that it never gave"));
            }
        };
        let (state, content, mac) = OperationState::parse(&bytes)
            .map_err(|_| untrusted("what is noted of an operation is no operation's state"))?;
        if state.target != target || state.account != self.inner.account.id() {
            return Err(untrusted("the state of an operation on something else, or under another account"));
        }
        match self.inner.account.permit()?.verify_operation_mac(state.generation, content, mac) {
            Ok(()) => Ok(Some((state, tag))),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnknownGeneration) => {
                Err(untrusted("the state of an operation is not authentic"))
            }
            Err(error) => Err(error),
        }
    }

    /// What follows: one change more, under the key that seals now.
    fn next(&self, state: OperationState, now: Moment) -> Result<OperationState, Error> {
        let (generation, _) = self.inner.account.permit()?.sealing()?;
        let updated = Timestamp::from_wall_nanos(now.wall_nanos()).max(state.started);
        Ok(OperationState { sequence: state.sequence.next()?, generation, updated, ..state })
    }

    fn swap(&self, state: &OperationState, expected: Option<&RecordTag>) -> Result<RecordTag, Error> {
        let content = state.content();
        let mac = self.inner.account.permit()?.operation_mac(state.generation, &content)?;
        let bytes = [content.as_slice(), &mac].concat();
        self.inner.store.compare_and_swap(key(state.target), expected, &bytes).map_err(|error| {
            match error.kind() {
                ErrorKind::Conflict => conflict("the operation was changed by somebody else"),
                _ => error,
            }
        })
    }

    fn now(&self) -> Moment {
        self.inner.account.inner().clock().now()
    }

    fn cancelled(&self) -> MutexGuard<'_, HashSet<OperationId>> {
        // OK because each change of the set is one call.
        self.inner.cancelled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operation {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> OperationId {
        self.state.id
    }

    /// What it does.
    #[must_use]
    pub const fn kind(&self) -> OperationKind {
        self.state.kind
    }

    /// What it works on.
    #[must_use]
    pub const fn target(&self) -> OperationTarget {
        self.state.target
    }

    /// Where it stood.
    #[must_use]
    pub const fn status(&self) -> &OperationStatus {
        &self.state.status
    }

    /// When it began.
    #[must_use]
    pub fn started(&self) -> SystemTime {
        self.state.started.into()
    }

    /// When it was last noted: one that is under way and was not for long has nobody who runs it.
    #[must_use]
    pub fn updated(&self) -> SystemTime {
        self.state.updated.into()
    }

    /// When it ended; `None` while it is under way.
    #[must_use]
    pub fn ended(&self) -> Option<SystemTime> {
        self.state.status.is_ended().then(|| self.updated())
    }

    /// How far it had come at its last checkpoint.
    #[must_use]
    pub const fn progress(&self) -> OperationProgress {
        self.state.progress
    }

    /// Whether it was asked to end.
    #[must_use]
    pub const fn is_cancel_requested(&self) -> bool {
        self.state.cancel_requested
    }

    /// Asks it to end: whoever runs it does so after the piece that is under way, in another process at the next checkpoint. What was done stays.
    /// One that nobody runs ends when it is resumed.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it has ended, or another one has begun on the target; as [`Operations::begin`] otherwise.
    pub fn cancel(&self) -> Result<(), Error> {
        let operations = &self.operations;
        for _ in 0..RETRIES {
            let found = operations.load(self.state.target)?.filter(|(now, _)| now.id == self.state.id);
            let Some((now, tag)) = found.filter(|(now, _)| !now.status.is_ended()) else {
                return Err(conflict("the operation has ended"));
            };
            operations.cancelled().insert(self.state.id);
            if now.cancel_requested {
                return Ok(());
            }
            let next = operations.next(OperationState { cancel_requested: true, ..now }, operations.now())?;
            match operations.swap(&next, Some(&tag)) {
                // A checkpoint came first.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                swapped => return swapped.map(drop),
            }
        }
        Err(conflict("the operation is changed all the time: try again"))
    }
}

impl OperationRun {
    /// The operation, as it stands here.
    #[must_use]
    pub fn operation(&self) -> Operation {
        Operation { operations: self.operations.clone(), state: self.state.clone() }
    }

    /// Where to go on: what the last checkpoint was given, empty at the beginning.
    #[must_use]
    pub fn cursor(&self) -> &[u8] {
        &self.state.cursor
    }

    /// How far it has come, to be counted up. Noted at the next checkpoint.
    pub const fn progress_mut(&mut self) -> &mut OperationProgress {
        &mut self.state.progress
    }

    /// Whether to end now: to be asked before each piece. Then call [`Self::cancelled`].
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state.cancel_requested || self.operations.cancelled().contains(&self.state.id)
    }

    /// Notes the progress, and `cursor` as the place to go on from: that up to which everything is done, durably. Costs one write of the
    /// store: every few seconds is often enough.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when somebody took the operation over: stop at once. [`ErrorKind::Limit`] for a cursor above 4096 bytes.
    /// Why the account has no lease, and [`ErrorKind::Io`] for the store: the checkpoint may be there or not; try again, or drop this and resume.
    pub fn checkpoint(&mut self, cursor: &[u8]) -> Result<(), Error> {
        if cursor.len() > OperationState::MAX_CURSOR {
            return Err(Error::new(ErrorKind::Limit, "an operation's cursor is longer than 4096 bytes"));
        }
        let next = OperationState {
            status: self.state.kind.under_way(),
            cursor: cursor.to_vec(),
            ..self.state.clone()
        };
        self.save(next)
    }

    /// Ends it: all was done.
    ///
    /// # Errors
    /// As [`Self::checkpoint`]. Then it is still under way, or has ended: look with [`Operations::find`].
    pub fn succeed(self) -> Result<Operation, Error> {
        self.end(OperationStatus::Succeeded)
    }

    /// Ends it before all was done, because of `error`, whose kind and text are noted.
    ///
    /// # Errors
    /// As [`Self::succeed`].
    pub fn fail(self, error: &Error) -> Result<Operation, Error> {
        self.end(OperationStatus::failed(error))
    }

    /// Ends it because that was asked for.
    ///
    /// # Errors
    /// As [`Self::succeed`].
    pub fn cancelled(self) -> Result<Operation, Error> {
        self.end(OperationStatus::Cancelled)
    }

    fn end(mut self, status: OperationStatus) -> Result<Operation, Error> {
        self.save(OperationState { status, ..self.state.clone() })?;
        self.operations.cancelled().remove(&self.state.id);
        Ok(self.operation())
    }

    fn save(&mut self, mut next: OperationState) -> Result<(), Error> {
        let now = self.operations.now();
        // By the boot-time clock alone: setting the wall clock is no work.
        let nanos = now.boot_nanos().saturating_sub(self.counted.boot_nanos());
        next.progress.worked = next.progress.worked.saturating_add(Duration::from_nanos(nanos));
        for _ in 0..RETRIES {
            let state = self.operations.next(next.clone(), now)?;
            match self.operations.swap(&state, Some(&self.tag)) {
                Ok(tag) => {
                    (self.state, self.tag, self.counted) = (state, tag, now);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
            // Asked to end meanwhile, or a write of ours was there after all. Whatever else it is, it is not ours any more.
            let found = self.operations.load(self.state.target)?;
            let ours = |found: &OperationState| found.id == self.state.id && found.run == self.state.run;
            let Some((found, tag)) = found.filter(|(found, _)| {
                ours(found) && (!found.status.is_ended() || found.status == next.status)
            }) else {
                return Err(conflict("somebody took the operation over: stop"));
            };
            if found.sequence < self.state.sequence {
                return Err(untrusted("an older state of the operation was put back"));
            }
            // Kept here too: if the next try fails, the one after it must not take back what was asked for.
            next.cancel_requested |= found.cancel_requested;
            next.sequence = found.sequence;
            self.state.cancel_requested = next.cancel_requested;
            self.state.sequence = found.sequence;
            self.tag = tag;
        }
        Err(conflict("the operation is changed all the time: try again"))
    }
}

/// The target's name in the record store.
const fn key(target: OperationTarget) -> AccountId {
    AccountId::from_bytes(*target.as_bytes())
}

fn under_way(state: &OperationState) -> Error {
    let detail = format!("operation {}, {}", state.id, state.status);
    conflict("another operation on the target has not ended").with_detail(detail)
}

const fn conflict(message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

const fn untrusted(message: &'static str) -> Error {
    Error::new(ErrorKind::Untrusted, message)
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { store, account, cancelled: _ } = &*self.inner;
        f.debug_struct("Operations").field("store", store).field("account", account).finish_non_exhaustive()
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("id", &self.id())
            .field("kind", &self.kind())
            .field("target", &self.target())
            .field("status", self.status())
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OperationRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OperationRun").field(&self.operation()).finish()
    }
}

/// How often a change is tried that a checkpoint, or a request to end, overtakes.
const RETRIES: usize = 8;
