//! One segment of a manifest, as this process has it: it only ever gets shorter.
//! Imports: `format::takeover`, `error`, `store::sealed::headers`, `store::takeover`.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::lock::Mutex as Turns;

use super::rolled_back;
use crate::error::Error;
use crate::format::takeover::{Entry, SegmentBody};
use crate::store::sealed::headers::Identity;

/// A segment that was proven, and what has become of its entries since.
pub(crate) struct Segment {
    number: u32,
    /// Held by whoever reads or replaces the segment in the store, so that versions are seen in the order in which they were made.
    pub(crate) turns: Turns<()>,
    pub(crate) looks: Looks,
    seen: Mutex<Seen>,
}

/// Looks at what the store calls the segment. Of those who wait for one, all share the first that begins after they came.
#[derive(Default)]
pub(crate) struct Looks {
    begun: AtomicU64,
    /// The last that has ended: its number, and what it found.
    last: Turns<Option<(u64, Identity)>>,
}

impl Looks {
    /// What `look` finds, or what another's found that began after this call.
    pub(crate) async fn share<E>(
        &self,
        look: impl Future<Output = Result<Identity, E>>,
    ) -> Result<Identity, E> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let Some((_, found)) = last.as_ref().filter(|(number, _)| *number > before) {
            return Ok(found.clone());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let found = look.await?;
        *last = Some((number, found.clone()));
        Ok(found)
    }
}

struct Seen {
    /// The newest that this process has seen.
    version: u64,
    /// What the store calls that version; unknown for a moment after it was written.
    stored: Option<Identity>,
    /// All that were listed when this process read the segment first, in order. None is dropped: a listing that was made
    /// before an object was sealed may arrive after it.
    entries: Vec<Listed>,
    left: u64,
    bytes_left: u64,
}

struct Listed {
    entry: Entry,
    fate: Fate,
    /// Sealing it failed.
    failed: bool,
    /// Writes of this process that are under way at its path.
    writes: u32,
    /// It is being replaced by an upload in parts, which is not conditional.
    in_parts: bool,
}

/// In this order only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// For all that this process knows it is plaintext.
    Plain,
    /// It was replaced or deleted, and the segment in the store still lists it.
    Replaced,
    /// The segment in the store does not list it any more.
    Forgotten,
}

/// What a comparison of the segment in the store with ours came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Ours is the store's, and lists the object.
    Plain,
    /// The object is not listed any more.
    Gone,
    /// The store has another version than ours.
    Stale,
}

/// Whether a write to a path may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    NotListed,
    Begun,
    /// The object is being replaced by an upload in parts.
    Later,
}

impl Segment {
    pub(crate) fn new(number: u32, body: SegmentBody, stored: Identity) -> Self {
        let SegmentBody { version, entries } = body;
        let entries: Vec<_> = entries.into_iter().map(Listed::new).collect();
        let mut seen = Seen { version, stored: Some(stored), entries, left: 0, bytes_left: 0 };
        seen.count();
        Self { number, turns: Turns::new(()), looks: Looks::default(), seen: Mutex::new(seen) }
    }

    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn version(&self) -> u64 {
        self.seen().version
    }

    /// The first path that was listed when this process read the segment.
    pub(crate) fn first(&self) -> Option<Box<str>> {
        self.seen().entries.first().map(|listed| listed.entry.path.clone())
    }

    pub(crate) fn last(&self) -> Option<Box<str>> {
        self.seen().entries.last().map(|listed| listed.entry.path.clone())
    }

    /// How many objects the segment in the store still lists, as far as this process knows, and their bytes.
    pub(crate) fn left(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.left, seen.bytes_left)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.seen().entries.iter().filter(|listed| listed.failed && listed.fate == Fate::Plain).count() as u64
    }

    /// The entry of `path`, if that is plaintext for all we know.
    pub(crate) fn plain(&self, path: &str) -> Option<Entry> {
        let mut seen = self.seen();
        let listed = seen.at(path)?;
        (listed.fate == Fate::Plain).then(|| listed.entry.clone())
    }

    /// Whether the segment in the store may list `path`.
    #[cfg(test)]
    pub(crate) fn lists(&self, path: &str) -> bool {
        self.seen().at(path).is_some_and(|listed| listed.fate < Fate::Forgotten)
    }

    /// Whether the object of that identity is the one that was listed, whatever has become of it since.
    pub(crate) fn listed(&self, path: &str, identity: &Identity) -> bool {
        self.seen().at(path).is_some_and(|listed| is(&listed.entry, identity))
    }

    /// The next entries to be sealed.
    pub(crate) fn batch(&self, most: usize) -> Vec<Entry> {
        let seen = self.seen();
        let open = seen.entries.iter().filter(|listed| listed.fate == Fate::Plain && !listed.failed);
        open.take(most).map(|listed| listed.entry.clone()).collect()
    }

    /// Whether ours is the version that the store was just found to have, and still lists `path`.
    pub(crate) fn compare(&self, stored: &Identity, path: &str) -> Freshness {
        let mut seen = self.seen();
        if !seen.stored.as_ref().is_some_and(|ours| same_object(ours, stored)) {
            return Freshness::Stale;
        }
        match seen.at(path) {
            Some(listed) if listed.fate == Fate::Plain => Freshness::Plain,
            _ => Freshness::Gone,
        }
    }

    pub(crate) fn is_stored_as(&self, found: &Identity) -> bool {
        self.seen().stored.as_ref().is_some_and(|ours| same_object(ours, found))
    }

    /// The object at `path` was replaced or deleted: it is never plaintext again for this process.
    pub(crate) fn replaced(&self, path: &str) {
        if let Some(listed) = self.seen().at(path).filter(|listed| listed.fate == Fate::Plain) {
            listed.fate = Fate::Replaced;
        }
    }

    pub(crate) fn set_failed(&self, path: &str, failed: bool) {
        if let Some(listed) = self.seen().at(path) {
            listed.failed = failed;
        }
    }

    pub(crate) fn forget_failures(&self) {
        self.seen().entries.iter_mut().for_each(|listed| listed.failed = false);
    }

    /// The segment without what was replaced, and the object in the store that it is to follow; `None` if nothing was. Of the one who holds the turn.
    pub(crate) fn next(&self) -> Option<(SegmentBody, Option<Identity>)> {
        let seen = self.seen();
        if !seen.entries.iter().any(|listed| listed.fate == Fate::Replaced) {
            return None;
        }
        let plain = seen.entries.iter().filter(|listed| listed.fate == Fate::Plain);
        let entries = plain.map(|listed| listed.entry.clone()).collect();
        Some((SegmentBody { version: seen.version.saturating_add(1), entries }, seen.stored.clone()))
    }

    /// The store has taken `body`. Of the one who holds the turn.
    pub(crate) fn written(&self, body: &SegmentBody, stored: Option<Identity>) {
        let mut seen = self.seen();
        (seen.version, seen.stored) = (body.version, stored);
        seen.keep_only(&body.entries);
    }

    /// The store gave `body`, which was proven. Of the one who holds the turn.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`](crate::error::ErrorKind::Untrusted) unless it is a later version with fewer entries.
    pub(crate) fn adopt(&self, body: &SegmentBody, stored: Identity) -> Result<(), Error> {
        let mut seen = self.seen();
        if seen.stored.as_ref().is_some_and(|ours| same_object(ours, &stored)) {
            return Ok(());
        }
        // The same version is what we wrote ourselves, if we have not seen yet what the store calls it. Under any other name it
        // was put there again by somebody.
        let later = body.version > seen.version || seen.stored.is_none() && body.version == seen.version;
        let listed: Vec<_> = seen.entries.iter().filter(|listed| listed.fate < Fate::Forgotten).collect();
        let known = |entry: &Entry| {
            listed
                .binary_search_by(|listed| listed.entry.path.cmp(&entry.path))
                .is_ok_and(|at| listed[at].entry == *entry)
        };
        if !later || !body.entries.iter().all(known) {
            return Err(rolled_back());
        }
        (seen.version, seen.stored) = (body.version, Some(stored));
        seen.keep_only(&body.entries);
        Ok(())
    }

    pub(crate) fn begin_write(&self, path: &str) -> Write {
        match self.seen().at(path).filter(|listed| listed.fate < Fate::Forgotten) {
            None => Write::NotListed,
            Some(listed) if listed.in_parts => Write::Later,
            Some(listed) => {
                listed.writes += 1;
                Write::Begun
            }
        }
    }

    pub(crate) fn end_write(&self, path: &str) {
        if let Some(listed) = self.seen().at(path) {
            listed.writes = listed.writes.saturating_sub(1);
        }
    }

    /// Keeps this process's writes away from `path`; not while one is under way.
    pub(crate) fn begin_parts(&self, path: &str) -> bool {
        let mut seen = self.seen();
        let Some(listed) = seen.at(path) else { return false };
        let free = listed.fate == Fate::Plain && listed.writes == 0 && !listed.in_parts;
        listed.in_parts |= free;
        free
    }

    pub(crate) fn end_parts(&self, path: &str) {
        if let Some(listed) = self.seen().at(path) {
            listed.in_parts = false;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    const fn new(entry: Entry) -> Self {
        Self { entry, fate: Fate::Plain, failed: false, writes: 0, in_parts: false }
    }
}

impl Seen {
    fn at(&mut self, path: &str) -> Option<&mut Listed> {
        let at = self.entries.binary_search_by(|listed| (*listed.entry.path).cmp(path)).ok()?;
        self.entries.get_mut(at)
    }

    /// Both are in order.
    fn keep_only(&mut self, entries: &[Entry]) {
        let mut kept = entries.iter().peekable();
        for listed in &mut self.entries {
            match kept.peek() {
                Some(entry) if entry.path == listed.entry.path => {
                    kept.next();
                }
                _ => listed.fate = Fate::Forgotten,
            }
        }
        self.count();
    }

    fn count(&mut self) {
        let left = self.entries.iter().filter(|listed| listed.fate < Fate::Forgotten);
        (self.left, self.bytes_left) = left.fold((0, 0), |(objects, bytes): (u64, u64), listed| {
            (objects + 1, bytes.saturating_add(listed.entry.size))
        });
    }
}

/// Whether an object is the one of an entry. Listings and answers differ in how they spell an entity tag, in how exact a time is and in
/// whether they tell a version.
pub(crate) fn is(entry: &Entry, identity: &Identity) -> bool {
    let Entry { path: _, size, modified, e_tag, version } = entry;
    let Identity { e_tag: found_tag, version: found_version, modified: found_modified, size: found_size } =
        identity;
    let versions = version.as_deref().zip(found_version.as_deref());
    found_tag.as_deref().is_some_and(|found| bare(found) == &**e_tag)
        && *found_size == *size
        && found_modified.div_euclid(MICROS) == i64::try_from(*modified).unwrap_or(i64::MAX)
        && versions.is_none_or(|(listed, found)| listed == found)
}

/// An entity tag without its quotation marks.
pub(crate) fn bare(e_tag: &str) -> &str {
    e_tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(e_tag)
}

fn same_object(ours: &Identity, stored: &Identity) -> bool {
    ours.e_tag.is_some() && ours == stored
}

const MICROS: i64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry { path: path.into(), size: 5, modified: 9, e_tag: "t".into(), version: None }
    }

    fn stored(tag: &str) -> Identity {
        Identity { e_tag: Some(tag.to_owned()), version: None, modified: 9_500_000, size: 5 }
    }

    fn body(version: u64, paths: &[&str]) -> SegmentBody {
        SegmentBody { version, entries: paths.iter().map(|path| entry(path)).collect() }
    }

    fn segment() -> Segment {
        Segment::new(0, body(1, &["a", "b", "c"]), stored("1"))
    }

    #[test]
    fn e9_a_segment_only_gets_shorter_and_newer() {
        let segment = segment();
        for (label, refused) in [
            ("the same version under another name", body(1, &["a", "b", "c"])),
            ("an older one", body(0, &["a"])),
            ("one with an entry more", body(2, &["a", "d"])),
            ("one with another object", {
                let mut body = body(2, &["a"]);
                body.entries[0].size = 6;
                body
            }),
        ] {
            assert!(segment.adopt(&refused, stored("2")).is_err(), "{label}");
        }
        assert_eq!((segment.version(), segment.left()), (1, (3, 15)));
        segment.adopt(&body(3, &["b"]), stored("3")).unwrap();
        assert_eq!((segment.version(), segment.left()), (3, (1, 5)));
        assert!(
            segment.adopt(&body(4, &["a", "b"]), stored("4")).is_err(),
            "an entry that is gone comes back"
        );
        // The very object that was adopted is nothing new.
        segment.adopt(&body(1, &["a"]), stored("3")).unwrap();
        assert!(segment.plain("a").is_none() && segment.plain("b").is_some());
    }

    #[test]
    fn e9_what_was_replaced_stays_so_whatever_the_store_says_later() {
        let segment = segment();
        segment.replaced("b");
        assert!(segment.plain("b").is_none() && segment.lists("b"));
        assert_eq!(segment.compare(&stored("1"), "b"), Freshness::Gone);
        assert_eq!(segment.compare(&stored("1"), "a"), Freshness::Plain);
        assert_eq!(segment.compare(&stored("2"), "a"), Freshness::Stale);
        // A newer segment of another process that has not sealed it.
        segment.adopt(&body(2, &["a", "b"]), stored("2")).unwrap();
        assert!(segment.plain("b").is_none() && segment.lists("b"));
        let (next, follows) = segment.next().unwrap();
        assert_eq!((&next, follows), (&body(3, &["a"]), Some(stored("2"))));
        // What is replaced while the segment is on its way goes with the next one.
        segment.replaced("a");
        segment.written(&next, None);
        assert!(segment.lists("a") && !segment.lists("b"));
        assert_eq!(segment.compare(&stored("3"), "a"), Freshness::Stale);
        // What we wrote, seen for the first time.
        segment.adopt(&body(3, &["a"]), stored("3")).unwrap();
        assert_eq!(segment.compare(&stored("3"), "a"), Freshness::Gone);
        assert!(segment.listed("b", &stored("t")), "a listing that was made before may still show it");
    }

    #[test]
    fn e9_an_object_is_the_listed_one_by_all_that_a_store_tells() {
        let entry = Entry { version: Some("v".into()), ..entry("a") };
        let found = Identity { version: Some("v".to_owned()), ..stored("\"t\"") };
        assert!(is(&entry, &found));
        assert!(is(&entry, &Identity { version: None, ..found.clone() }));
        for other in [
            Identity { e_tag: Some("\"u\"".to_owned()), ..found.clone() },
            Identity { e_tag: None, ..found.clone() },
            Identity { version: Some("w".to_owned()), ..found.clone() },
            Identity { modified: 10_000_000, ..found.clone() },
            Identity { size: 6, ..found.clone() },
        ] {
            assert!(!is(&entry, &other), "{other:?}");
        }
    }

    #[test]
    fn e9_a_look_is_shared_by_those_only_who_came_before_it_began() {
        use futures_util::FutureExt;
        use futures_util::future::join;

        let looks = Looks::default();
        let (answer, answered) = (std::cell::Cell::new(false), std::cell::Cell::new(0));
        let look = |name: &'static str| {
            let (answer, answered) = (&answer, &answered);
            async move {
                std::future::poll_fn(|_| match answer.get() {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                })
                .await;
                answered.set(answered.get() + 1);
                Ok::<_, ()>(stored(name))
            }
        };
        let mut first = Box::pin(looks.share(look("first")));
        assert!(first.as_mut().now_or_never().is_none());
        // These come while the first is on its way, which may have been answered for already.
        let mut second = Box::pin(looks.share(look("second")));
        let mut third = Box::pin(looks.share(look("third")));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        answer.set(true);
        assert_eq!(first.now_or_never(), Some(Ok(stored("first"))));
        let both = join(second, third).now_or_never().unwrap();
        assert_eq!(both, (Ok(stored("second")), Ok(stored("second"))));
        assert_eq!(answered.get(), 2);
        assert_eq!(looks.share(look("fourth")).now_or_never(), Some(Ok(stored("fourth"))));
    }

    #[test]
    fn an_upload_in_parts_and_writes_take_turns() {
        let segment = segment();
        assert_eq!(segment.begin_write("x"), Write::NotListed);
        assert_eq!(segment.begin_write("a"), Write::Begun);
        assert!(!segment.begin_parts("a"));
        segment.end_write("a");
        assert!(segment.begin_parts("a") && !segment.begin_parts("a"));
        assert_eq!(segment.begin_write("a"), Write::Later);
        segment.end_parts("a");
        assert_eq!(segment.begin_write("a"), Write::Begun);
    }
}
