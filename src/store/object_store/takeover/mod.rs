//! Taking over plaintext that is already there, live (contract E9): beginning it, having it open, and what other operations ask.
//! Imports: `format::takeover`, `id`, `error`, `store::takeover`, `store::sealed::headers`, the layer.

mod begin;
mod keep;
pub(super) mod plain;
mod run;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use futures_util::lock::Mutex as Turns;

use super::error::ours;
use super::upstream::path::Path;
use super::upstream::{ObjectMeta, Result};
use super::{SealedStore, Shared, get};
use crate::error::{Error, ErrorKind};
use crate::format::takeover::Entry;
use crate::id::ObjectId;
use crate::store::takeover::manifest::{Manifest, is_below};
use crate::store::takeover::segment::Write;
use crate::store::takeover::{TakeoverLimits, TakeoverMark, TakeoverProgress, upwards, within_manifest};

/// Plaintext under one prefix that becomes sealed while it is read and written (contract E9): what
/// [`SealedStore::begin_takeover`] and [`SealedStore::open_takeover`] give. `docs/STORES.md` is its guide.
///
/// ```no_run
/// # use std::time::Duration;
/// use object_store::path::Path;
/// use strongroom::store::{SealedStore, Takeover, TakeoverLimits};
///
/// async fn seal_in_the_background(takeover: Takeover) -> object_store::Result<()> {
///     let limits = TakeoverLimits::DEFAULT;
///     while !takeover.progress().finished {
///         let progress = takeover.step(&limits).await?; // revoked? An error; call again when the key is back
///         println!("{} of {} left", progress.objects_left, progress.objects);
///         if progress.failed > 0 && progress.failed == progress.objects_left {
///             break; // takeover.failures() tells why
///         }
///         tokio::time::sleep(Duration::from_millis(100)).await; // as slowly as you like
///     }
///     Ok(())
/// }
///
/// async fn start(store: &SealedStore, last_seen: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
///     let mark = strongroom::store::TakeoverMark::parse(last_seen)?;
///     let takeover = store.open_takeover(&Path::from("tenants/ada"), Some(&mark)).await?;
///     tokio::spawn(seal_in_the_background(takeover));
///     Ok(())
/// }
/// ```
///
/// Work is done in the futures of [`Self::step`] and [`Self::run`] only; dropped, they stop, and nothing is lost. Any number of processes
/// may work at one takeover at a time. A clone is the same takeover.
#[derive(Clone)]
pub struct Takeover {
    store: Arc<Shared>,
    taking: Arc<Taking>,
}

/// A manifest that this store has open.
pub(super) struct Taking {
    manifest: Manifest,
    /// Held while an object is replaced by an upload in parts.
    parts: Turns<()>,
    /// Which segment is sealed next.
    next: AtomicUsize,
}

/// By prefix. None lies within another.
pub(super) type Takings = ArcSwap<BTreeMap<String, Arc<Taking>>>;

impl SealedStore {
    /// Begins to take over what lies under `prefix`: lists it, and writes down, authenticated under the account that the router has
    /// for the prefix, what is plaintext. **An operator's word, given once**: whatever lies there is believed to be the customer's.
    ///
    /// From this call on nobody may write plaintext there. Until it has returned nobody writes there at all; it takes a
    /// listing, and one request for each thousand objects. From then on every process that writes under the prefix, or reads plaintext
    /// there, does so through a `SealedStore` with the takeover open ([`Self::open_takeover`]). Nothing under the prefix may be sealed already.
    ///
    /// After a crash before the end nothing has begun: call it again.
    ///
    /// Keep the [mark](Takeover::mark) of what this gives where storage cannot reach it, and where there is one do not call this again: whoever
    /// owns the storage can remove the manifest, and with it all that could refuse a second beginning. Who opens with that mark refuses what it lists.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: a takeover of this prefix, of one above it or of one within it was begun before, or is open in this store. One that
    ///   was finished is never begun again, or sealed data could be swapped for plaintext
    /// - [`ErrorKind::Limit`]: more objects than one manifest lists (a million), or a path or entity tag that is too long for it
    /// - [`ErrorKind::Misuse`]: the store tells no entity tags, or the prefix is not one account's
    /// - the account's state, and the errors of the store underneath: `NotSupported` or `NotImplemented` where it has no conditional writes, such as a local disk
    pub async fn begin_takeover(&self, prefix: &Path) -> Result<Takeover> {
        self.shared.check_free(prefix.as_ref()).map_err(ours)?;
        begin::begin(&self.shared, prefix).await?;
        self.open_takeover(prefix, None).await
    }

    /// Opens a takeover that was begun: reads the manifest, about 100 bytes and the path for each object that is still plaintext, and keeps it,
    /// about 200 bytes and the path. From then on plaintext that it lists is read through this store and all of its clones.
    ///
    /// Who has changed what under the prefix since `least` was [marked](Takeover::mark) is noticed: an older manifest is refused. Without a
    /// mark the manifest in the storage is taken as it is, if it is authentic, and nothing is claimed about its age.
    ///
    /// # Errors
    /// - [`ErrorKind::Misuse`]: none was begun, or its beginning came to no end
    /// - [`ErrorKind::Conflict`]: it is open in this store already, or one above or within it is
    /// - [`ErrorKind::Untrusted`]: older than `least`, or of another takeover, or with a part missing
    /// - [`ErrorKind::Corrupt`] and [`ErrorKind::Format`]: damaged, or another account's
    /// - the account's state, and the errors of the store underneath
    pub async fn open_takeover(&self, prefix: &Path, least: Option<&TakeoverMark>) -> Result<Takeover> {
        let manifest = begin::load(&self.shared, prefix.as_ref(), least).await?;
        // Where a process begins is left to chance, so that two of them seldom seal the same.
        let next = usize::from(u16::from_be_bytes([
            ObjectId::random().as_bytes()[0],
            ObjectId::random().as_bytes()[1],
        ]));
        let taking = Arc::new(Taking { manifest, parts: Turns::new(()), next: AtomicUsize::new(next) });
        self.shared.attach(&taking).map_err(ours)?;
        Ok(Takeover { store: Arc::clone(&self.shared), taking })
    }
}

impl Takeover {
    /// What is done and what is left.
    #[must_use]
    pub fn progress(&self) -> TakeoverProgress {
        self.taking.manifest.progress()
    }

    /// The objects that could not be sealed, and why: of the first thousand of them.
    ///
    /// - [`ErrorKind::Conflict`]: it is neither what was listed nor a sealed object, so somebody changed it past the store
    /// - [`ErrorKind::Limit`]: too large for one request ([`TakeoverLimits::one_request`])
    /// - any other: what the store underneath said
    #[must_use]
    pub fn failures(&self) -> Vec<(String, Error)> {
        self.taking.manifest.failures()
    }

    /// Has what failed tried again.
    pub fn retry(&self) {
        self.taking.manifest.forget_failures();
    }

    /// How far the manifest has come, to be kept where storage cannot reach it, and given to [`SealedStore::open_takeover`]. The
    /// later it was taken, the more it notices.
    #[must_use]
    pub fn mark(&self) -> TakeoverMark {
        self.taking.manifest.mark()
    }

    /// Seals one batch of objects, and when nothing is left says so in the storage. Sleep between steps to go slowly.
    ///
    /// An object that cannot be sealed is no error but a [failure](Self::failures), and is left out until [`Self::retry`].
    ///
    /// # Errors
    /// The account's state when it holds no valid lease (nothing is lost: call again when it does), and what prevents the manifest
    /// from being read or written.
    pub async fn step(&self, limits: &TakeoverLimits) -> Result<TakeoverProgress> {
        run::step(&self.store, &self.taking, limits).await
    }

    /// Steps until nothing is left but what cannot be sealed.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn run(&self, limits: &TakeoverLimits) -> Result<TakeoverProgress> {
        self.retry();
        loop {
            let progress = self.step(limits).await?;
            if progress.finished || progress.failed > 0 && progress.failed == progress.objects_left {
                return Ok(progress);
            }
        }
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Takeover")
            .field("prefix", &self.taking.manifest.prefix())
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

/// What operations ask.
impl Shared {
    /// The plaintext that was listed at `location` and, for all that this process knows, is still there.
    pub(super) fn plaintext(&self, location: &Path) -> Option<Plaintext> {
        let taking = self.taking(location)?;
        let entry = taking.manifest.plain(location.as_ref())?;
        Some(Plaintext { taking, entry })
    }

    /// Whether the object that the store told of is the plaintext that was listed: its size is then its own.
    pub(super) fn is_plaintext(&self, meta: &ObjectMeta) -> bool {
        let taking = self.taking(&meta.location);
        taking.is_some_and(|taking| taking.manifest.listed(meta.location.as_ref(), &get::identity(meta)))
    }

    /// To be had before a path is written to or deleted, and told when that is done; `None` where nothing is listed.
    pub(super) async fn replacing(&self, location: &Path) -> Option<Replacing> {
        let taking = self.taking(location)?;
        loop {
            match taking.manifest.begin_write(location.as_ref()) {
                Write::NotListed => return None,
                Write::Begun => return Some(Replacing { taking, location: location.clone() }),
                Write::Later => drop(taking.parts.lock().await),
            }
        }
    }

    /// Seals the root of a takeover anew, with what it says. `None` for a segment that is still read; the others are nobody's any more.
    /// The bytes that were sealed.
    pub(super) async fn reseal_manifest(&self, location: &Path) -> Result<Option<u64>> {
        match within_manifest(location.as_ref()) {
            Some((prefix, ROOT)) => keep::reseal_root(self, prefix).await.map(Some),
            Some((prefix, name)) if keep::reads_segment(self, prefix, name).await? => Ok(None),
            _ => Ok(Some(0)),
        }
    }

    fn taking(&self, location: &Path) -> Option<Arc<Taking>> {
        let takings = self.takings.load();
        if takings.is_empty() {
            return None;
        }
        upwards(location.as_ref()).skip(1).find_map(|prefix| takings.get(prefix).cloned())
    }

    /// Whether no takeover is open at or across `prefix`.
    fn check_free(&self, prefix: &str) -> Result<(), Error> {
        check_free(&self.takings.load(), prefix)
    }

    fn attach(&self, taking: &Arc<Taking>) -> Result<(), Error> {
        let prefix = taking.manifest.prefix();
        let mut done = Ok(());
        self.takings.rcu(|takings| {
            let mut next = BTreeMap::clone(takings);
            done = check_free(&next, prefix);
            if done.is_ok() {
                next.insert(prefix.to_owned(), Arc::clone(taking));
            }
            next
        });
        done
    }
}

/// The root's name in its folder.
const ROOT: &str = "root";

fn check_free(takings: &BTreeMap<String, Arc<Taking>>, prefix: &str) -> Result<(), Error> {
    match takings.keys().any(|other| overlaps(other, prefix)) {
        true => Err(Error::new(ErrorKind::Conflict, "a takeover of this prefix, or across it, is open")),
        false => Ok(()),
    }
}

fn overlaps(one: &str, other: &str) -> bool {
    one == other || is_below(one, other) || is_below(other, one)
}

/// An object that is plaintext unless the store says otherwise.
pub(super) struct Plaintext {
    taking: Arc<Taking>,
    entry: Entry,
}

/// A write or deletion that is under way at a path that the manifest lists.
pub(super) struct Replacing {
    taking: Arc<Taking>,
    location: Path,
}

impl Replacing {
    /// The object was replaced or deleted. Once the manifest in the store says so too, the plaintext that was there is never
    /// taken for the object again, and the call may be acknowledged.
    pub(super) async fn done(&self, store: &Shared) -> Result<()> {
        match self.taking.manifest.segment_of(self.location.as_ref()) {
            Some(segment) => {
                segment.replaced(self.location.as_ref());
                keep::forget(store, &self.taking.manifest, segment).await
            }
            None => Ok(()),
        }
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        self.taking.manifest.end_write(self.location.as_ref());
    }
}
