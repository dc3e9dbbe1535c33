//! Re-sealing: what is under older generations is sealed anew under the newest one, as an operation (contracts E4, E8).
//!
//! ```text
//! step ─► next pieces, each looked at, and sealed anew if it is under an older generation ─► made durable ─► checkpoint ─► pause
//! cursor = the generation that nothing is to be older than (4 bytes) | where the engine goes on
//! ```
//! The engine knows where its data is and how it is replaced; this knows when to stop, how far it is, and what of a cursor is believed.
//! Imports: `account`, `operation`, `clock`, `format`, `id`, `error`.

use std::fmt;
use std::time::Duration;

use crate::account::Account;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::format::operation::{OperationKind, OperationProgress, OperationState};
use crate::id::Generation;
use crate::operation::{Operation, OperationRun};

/// An engine's own data, piece by piece: blocks, pages, files.
///
/// Pieces that are written meanwhile need not be met: they are under the newest generation. A piece that somebody overwrites while it is sealed
/// anew must keep what they wrote.
pub trait ResealItems {
    /// Goes to the piece behind the one that `cursor` names; to the first one where it is empty.
    ///
    /// # Errors
    /// Whatever keeps the job from going on. Called again when it does.
    fn seek(&mut self, cursor: &[u8]) -> Result<(), Error>;

    /// Looks at the next piece, and seals it anew if it is under a generation before `oldest`, which [`peek`](crate::peek) tells of a block; `None`
    /// after the last one. Pieces may be met twice after a crash.
    ///
    /// # Errors
    /// Whatever keeps the job from going on, such as the account's state. A piece that cannot be sealed anew, while others can, is
    /// [`Resealed::Failed`].
    fn reseal_next(&mut self, oldest: Generation) -> Result<Option<Resealed>, Error>;

    /// Makes durable what was sealed anew, and names the last piece that was looked at, in at most 4092 bytes.
    ///
    /// # Errors
    /// When it is not durable.
    fn commit(&mut self) -> Result<Vec<u8>, Error>;
}

/// What became of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resealed {
    /// Under the newest generation now; so many bytes of it were worked on.
    Anew(u64),
    /// It was under none that is older, or is gone.
    Current,
    /// Left as it was. The operation goes on, and ends as failed.
    Failed,
}

/// How a re-seal job goes about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct ResealLimits {
    pub(crate) batch: usize,
    pub(crate) at_once: usize,
    pub(crate) one_request: u64,
    pieces_per_second: Option<u32>,
    bytes_per_second: Option<u64>,
}

impl ResealLimits {
    /// 256 pieces in a step, no limit of the rate. In a sealed store: 8 objects at once, 64 MiB in one request.
    pub const DEFAULT: Self = Self {
        batch: 256,
        at_once: 8,
        one_request: 64 * 1024 * 1024,
        pieces_per_second: None,
        bytes_per_second: None,
    };

    /// How many pieces one step looks at, at least 1: so many at most are looked at again after a crash.
    pub const fn batch(mut self, pieces: usize) -> Self {
        self.batch = if pieces == 0 { 1 } else { pieces };
        self
    }

    /// How many pieces are looked at in each second, on average, at least 1.
    pub const fn pieces_per_second(mut self, pieces: u32) -> Self {
        self.pieces_per_second = Some(if pieces == 0 { 1 } else { pieces });
        self
    }

    /// How many bytes are sealed anew in each second, on average, at least 1.
    pub const fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(if bytes == 0 { 1 } else { bytes });
        self
    }

    /// In a sealed store: how many objects are looked at at the same time.
    pub const fn at_once(mut self, objects: usize) -> Self {
        self.at_once = if objects == 0 { 1 } else { objects };
        self
    }

    /// In a sealed store: up to how many bytes of plaintext an object is replaced by one conditional request, which needs twice that much
    /// memory, for each object at a time. Larger objects are [failures](Resealed::Failed): no store replaces them on a condition, so a writer's
    /// object could be lost.
    pub const fn one_request(mut self, bytes: u64) -> Self {
        self.one_request = bytes;
        self
    }

    /// How long a step should have taken that has looked at so many pieces, and sealed so many bytes.
    fn least_time(&self, pieces: u64, bytes: u64) -> Duration {
        let of = |count: u64, per_second: Option<u64>| {
            let nanos = |per_second| u128::from(count) * 1_000_000_000 / u128::from(per_second);
            let nanos = per_second.map_or(0, nanos);
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        of(pieces, self.pieces_per_second.map(u64::from)).max(of(bytes, self.bytes_per_second))
    }
}

impl Default for ResealLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What one step has come to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ResealStep {
    /// There may be more: the next step is to begin after so long, to keep the rate.
    More {
        /// Zero without a limit.
        pause: Duration,
    },
    /// The operation has ended. [Succeeded](crate::OperationStatus::Succeeded): all pieces were looked at, and none is under an older generation. With
    /// pieces that could not be sealed anew it has failed.
    Ended(Operation),
}

/// A re-seal job over an engine's own data (contract E4). For a sealed store there is `SealedStore::reseal`.
///
/// Nothing happens outside of [`Self::step`], on the caller's thread. Dropped, it is resumed where the last step ended, by the operation.
///
/// **What it does not show**: that no machine seals under the older generation any more. One that has not read the record since the rotation does so for as
/// long as its lease lives. So the last pass begins once the older generation could be destroyed as far as machines go, and its success
/// is what an engine's statement that nothing refers to it may rest on, beside its knowledge of copies and backups.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{AccountId, AccountSpec, AekCache, MemoryRecordStore};
/// use strongroom::{
///     Aad, Account, BlockId, Error, Generation, ObjectId, OperationKind, OperationStatus, Operations, Reseal, ResealItems,
///     ResealLimits, ResealStep, Resealed, peek,
/// };
///
/// struct Pages {
///     account: Account,
///     object: ObjectId,
///     pages: Vec<Vec<u8>>,
///     next: usize,
/// }
///
/// impl ResealItems for Pages {
///     fn seek(&mut self, cursor: &[u8]) -> Result<(), Error> {
///         self.next = cursor.try_into().map_or(0, usize::from_be_bytes);
///         Ok(())
///     }
///
///     fn reseal_next(&mut self, oldest: Generation) -> Result<Option<Resealed>, Error> {
///         let Some(page) = self.pages.get_mut(self.next) else { return Ok(None) };
///         let id = BlockId::new(self.object, self.next as u64);
///         self.next += 1;
///         if peek(page)?.generation() >= oldest {
///             return Ok(Some(Resealed::Current));
///         }
///         let plain = self.account.open(id, Aad::EMPTY, page)?;
///         *page = self.account.seal(id, Aad::EMPTY, &plain)?;
///         Ok(Some(Resealed::Anew(plain.len() as u64)))
///     }
///
///     fn commit(&mut self) -> Result<Vec<u8>, Error> {
///         Ok(self.next.to_be_bytes().to_vec()) // after the pages are on the disk
///     }
/// }
/// # let folder = tempfile::tempdir()?;
/// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest("orders")))?;
/// # let mut pages = Pages { account: account.clone(), object: ObjectId::random(), pages: Vec::new(), next: 0 };
///
/// let operations = Operations::new(Arc::new(MemoryRecordStore::new()), account.clone());
/// let run = match operations.resume(account.id())? {
///     Some(run) => run, // the process ended in the middle
///     None => operations.begin(OperationKind::Reseal, account.id())?,
/// };
/// let mut job = Reseal::new(&account, run, ResealLimits::DEFAULT.pieces_per_second(1000))?;
/// let operation = loop {
///     match job.step(&mut pages)? {
///         ResealStep::Ended(operation) => break operation,
///         ResealStep::More { pause } => std::thread::sleep(pause),
///         other => panic!("{other:?}"),
///     }
/// };
/// assert_eq!(operation.status(), &OperationStatus::Succeeded);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing happens outside of its steps"]
pub struct Reseal {
    job: Job,
    limits: ResealLimits,
    sought: bool,
}

impl Reseal {
    /// A job of `account`, as `run`: at its beginning, or where it was left. What it seals anew is what is older than the generation that is the newest
    /// now, or was when it was begun.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for an operation of another kind, or another job's, and while the newest generation is not active yet: nothing can be
    /// sealed under it. Why the account has no lease.
    pub fn new(account: &Account, run: OperationRun, limits: ResealLimits) -> Result<Self, Error> {
        Ok(Self { job: Job::new(account, run)?, limits, sought: false })
    }

    /// What all pieces will be under, or under a newer one.
    #[must_use]
    pub const fn oldest(&self) -> Generation {
        self.job.oldest
    }

    /// How far it is. To have it tell how long it takes, give it the [total](OperationProgress::total) by [`Self::set_total`].
    #[must_use]
    pub const fn progress(&self) -> OperationProgress {
        self.job.progress
    }

    /// How many pieces there are in all.
    pub const fn set_total(&mut self, pieces: u64) {
        self.job.progress.total = Some(pieces);
    }

    /// Looks at one batch of pieces, has them made durable, and notes how far it is. Blocks for as long as that takes, and one write of the store
    /// that the operation is noted in.
    ///
    /// # Errors
    /// The engine's; the account's state when it has no valid lease; as [`OperationRun::checkpoint`], such as [`ErrorKind::Conflict`] when somebody
    /// took the operation over: stop. After any other error call it again, or resume the operation.
    pub fn step<I: ResealItems + ?Sized>(&mut self, items: &mut I) -> Result<ResealStep, Error> {
        if let Some(ended) = self.job.ended()? {
            return Ok(ended);
        }
        let begun = self.job.now();
        if !self.sought {
            items.seek(self.job.place())?;
        }
        // After an error nobody knows at which piece the engine stands.
        self.sought = false;
        let mut batch = Batch::default();
        let mut all = false;
        while batch.pieces < self.limits.batch as u64 && !self.job.is_cancelled() {
            self.job.account.permit()?;
            match items.reseal_next(self.job.oldest)? {
                Some(resealed) => batch.count(resealed),
                None => {
                    all = true;
                    break;
                }
            }
        }
        let place = items.commit()?;
        let step = self.job.done(&place, batch, all, begun, &self.limits)?;
        self.sought = true;
        Ok(step)
    }
}

impl fmt::Debug for Reseal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reseal")
            .field("oldest", &self.job.oldest)
            .field("progress", &self.job.progress)
            .finish_non_exhaustive()
    }
}

/// What one step has done, before it counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Batch {
    pieces: u64,
    failed: u64,
    bytes: u64,
}

impl Batch {
    pub(crate) const fn count(&mut self, resealed: Resealed) {
        self.pieces += 1;
        match resealed {
            Resealed::Anew(bytes) => self.bytes = self.bytes.saturating_add(bytes),
            Resealed::Current => {}
            Resealed::Failed => self.failed += 1,
        }
    }
}

/// What every re-seal job has, whatever it is over.
pub(crate) struct Job {
    pub(crate) account: Account,
    /// What nothing is to be older than.
    pub(crate) oldest: Generation,
    pub(crate) progress: OperationProgress,
    /// `None` once it was to end.
    run: Option<OperationRun>,
    ended: Option<Operation>,
}

impl Job {
    pub(crate) fn new(account: &Account, run: OperationRun) -> Result<Self, Error> {
        let misuse = |message| Err(Error::new(ErrorKind::Misuse, message).with_account(account.id()));
        if run.operation().kind() != OperationKind::Reseal {
            return misuse("an operation of another kind of work");
        }
        let (sealing, _) = account.permit()?.sealing()?;
        let newest = account.record().generation();
        let oldest = match run.cursor() {
            [] => newest,
            cursor => {
                let number = cursor.first_chunk().copied().map(u32::from_be_bytes);
                match number.and_then(Generation::new) {
                    Some(oldest) if oldest <= newest => oldest,
                    _ => return misuse("the operation's cursor is of other work"),
                }
            }
        };
        if sealing < oldest {
            return misuse("the newest generation is not active yet: nothing can be sealed under it");
        }
        let progress = run.operation().progress();
        Ok(Self { account: account.clone(), oldest, progress, run: Some(run), ended: None })
    }

    /// Where to go on.
    pub(crate) fn place(&self) -> &[u8] {
        self.run.as_ref().map_or(&[], |run| run.cursor().get(GENERATION_LEN..).unwrap_or_default())
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.run.as_ref().is_some_and(OperationRun::is_cancelled)
    }

    pub(crate) fn now(&self) -> Moment {
        self.account.inner().clock().now()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Result<Option<ResealStep>, Error> {
        match (&self.run, &self.ended) {
            (Some(_), _) => Ok(None),
            (None, Some(operation)) => Ok(Some(ResealStep::Ended(operation.clone()))),
            (None, None) => {
                Err(Error::new(ErrorKind::Misuse, "nobody knows whether the operation ended: resume it"))
            }
        }
    }

    /// Notes a batch that is durable, up to `place`; and the end, after the last piece or when it was cancelled.
    pub(crate) fn done(
        &mut self,
        place: &[u8],
        batch: Batch,
        all: bool,
        begun: Moment,
        limits: &ResealLimits,
    ) -> Result<ResealStep, Error> {
        if place.len() > MAX_PLACE {
            return Err(Error::new(
                ErrorKind::Limit,
                "the cursor of a re-seal job is longer than 4092 bytes",
            ));
        }
        let Some(run) = &mut self.run else {
            return Err(Error::new(ErrorKind::Misuse, "the operation has ended"));
        };
        let mut progress = self.progress;
        progress.done = progress.done.saturating_add(batch.pieces - batch.failed);
        progress.failed = progress.failed.saturating_add(batch.failed);
        progress.bytes = progress.bytes.saturating_add(batch.bytes);
        *run.progress_mut() = OperationProgress { worked: run.operation().progress().worked, ..progress };
        let cursor = [&self.oldest.number().to_be_bytes()[..], place].concat();
        run.checkpoint(&cursor)?;
        self.progress = run.operation().progress();
        let cancelled = run.is_cancelled();
        if all || cancelled {
            return self.end(all);
        }
        let took = begun.until(self.now());
        Ok(ResealStep::More { pause: limits.least_time(batch.pieces, batch.bytes).saturating_sub(took) })
    }

    fn end(&mut self, all: bool) -> Result<ResealStep, Error> {
        let run = self.run.take().ok_or_else(|| Error::new(ErrorKind::Misuse, "the operation has ended"))?;
        let operation = match self.progress.failed {
            _ if !all => run.cancelled()?,
            0 => run.succeed()?,
            _ => run.fail(&Error::new(
                ErrorKind::Conflict,
                "not all could be sealed anew: what is left is under an older generation, or damaged",
            ))?,
        };
        self.ended = Some(operation.clone());
        Ok(ResealStep::Ended(operation))
    }
}

const GENERATION_LEN: usize = 4;
/// The longest place in an engine's data, in bytes.
const MAX_PLACE: usize = OperationState::MAX_CURSOR - GENERATION_LEN;
const _: () = assert!(MAX_PLACE == 4092);
