//! The story, step by step: ingest, query, what lies in the store, revoke one tenant, recover.

use std::collections::HashMap;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::store::{ByPrefix, Route, SealedStore};
use strongroom::{AccountId, AccountSpec, AekCache, BlockSize, ErrorKind};

use crate::lines::{self, Log, Time};
use crate::log_store::{Found, LogStore, folder};
use crate::show::{Show, secs};

type Step = Result<(), Box<dyn Error>>;

/// What the steps share.
struct Story {
    show: Show,
    kms: Arc<LocalKms>,
    cache: AekCache,
    inner: Arc<dyn ObjectStore>,
    logs: LogStore,
    written: [Log; 3],
    _folder: tempfile::TempDir,
}

/// Tells the whole story over `inner`, which is empty. True when every step held.
pub(crate) async fn tell(inner: Arc<dyn ObjectStore>) -> Result<bool, Box<dyn Error>> {
    let mut story = begin(inner)?;
    story.ingest().await?;
    story.query().await?;
    story.look_at_the_storage().await?;
    story.move_a_segment().await?;
    story.revoke().await?;
    story.recover().await?;
    story.cache.shutdown(CALL_DEADLINE);
    Ok(story.show.end())
}

/// Each tenant has a key of its own, and an account under it. The path of a segment decides whose it is.
fn begin(inner: Arc<dyn ObjectStore>) -> Result<Story, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
    let cache = AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE).build()?;
    let written = lines::logs();
    let mut router = ByPrefix::new();
    for Log { tenant, .. } in &written {
        kms.create_key(tenant, KeyOptions::default())?;
        let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest(*tenant));
        router = router.with(folder_of(tenant).as_ref(), Route::sealed(cache.create(spec)?));
    }
    let store = SealedStore::builder(inner.clone(), "logstore", router).block_size(BlockSize::new(4096)?);
    let logs = LogStore::new(store.build()?);
    Ok(Story { show: Show::begin(), kms, cache, inner, logs, written, _folder: folder })
}

impl Story {
    async fn ingest(&mut self) -> Step {
        for Log { tenant, source, lines } in &self.written {
            // The last lines come later: when the key is gone, and when it is back.
            let segments = self.logs.ingest(tenant, &lines[..lines.len() - LATE]).await?;
            let text =
                format!("{tenant}: {} lines of {source} ingested, segments: {segments}", lines.len() - LATE);
            self.show.step(segments > 0, &text);
        }
        Ok(())
    }

    /// The lines of the day in the middle, of each tenant, are those that were written.
    async fn query(&mut self) -> Step {
        for log in &self.written {
            let (day, range) = day_in_the_middle(log);
            let found = self.logs.query(log.tenant, range.clone()).await?;
            let Found { lines, bytes_read, bytes_stored } = found;
            let right = lines == expected(log, &range) && !lines.is_empty();
            // A small log is read whole.
            let few = bytes_read <= bytes_stored / 2 || bytes_stored < LARGE;
            let (tenant, lines) = (log.tenant, lines.len());
            let text =
                format!("{tenant}: {lines} lines of {day}; {bytes_read} of {bytes_stored} bytes were read");
            self.show.step(right && few, &text);
        }
        Ok(())
    }

    /// Of no line of anybody a part lies in the storage.
    async fn look_at_the_storage(&mut self) -> Step {
        let mut stored = Vec::new();
        for object in self.inner.list(None).try_collect::<Vec<_>>().await? {
            stored.extend(self.inner.get(&object.location).await?.bytes().await?);
        }
        let parts: Vec<&[u8]> = self.written.iter().flat_map(some_words).collect();
        let plain = self.written.iter().flat_map(|log| &log.lines).map(|line| line.text.as_str());
        let plain = plain.collect::<Vec<_>>().join("\n");
        // The positive control: the same search finds them where they are.
        let known = found_in(plain.as_bytes(), &parts) == parts.len();
        let seen = found_in(&stored, &parts);
        let text = format!(
            "{} bytes in the storage: of {} pieces of lines, {seen} are there",
            stored.len(),
            parts.len()
        );
        self.show.step(known && seen == 0, &text);
        Ok(())
    }

    /// Whoever can write to the storage puts a segment of ada's among bob's.
    async fn move_a_segment(&mut self) -> Step {
        let segments = self.inner.list(Some(&folder("ada"))).try_collect::<Vec<_>>().await?;
        let from = &segments.first().ok_or("ada has a segment")?.location;
        // Under a name that none of bob's own has.
        let (times, _) = from.filename().and_then(|name| name.rsplit_once('-')).ok_or("a name")?;
        let to = folder("bob").join(format!("{times}-999999"));
        self.inner.copy(from, &to).await?;
        let seen = self.logs.query("bob", EVER).await;
        self.inner.delete(&to).await?;
        let refused =
            kind(&seen) == Some(ErrorKind::Corrupt) || kind(&seen) == Some(ErrorKind::UnknownGeneration);
        self.show.step(refused, &format!("a segment of ada's among bob's: {}", outcome(&seen)));
        Ok(())
    }

    /// Eve's key is taken away. The others notice nothing.
    async fn revoke(&mut self) -> Step {
        self.kms.disable_key(REVOKED)?;
        let bound = self.cache.staleness_bound();
        let (took, others) = self.until(bound + SLACK, |seen| seen.is_err()).await;
        let within = took.is_some_and(|took| took <= bound + MEASURING);
        let text = format!(
            "{REVOKED}'s key disabled: first refused query after {} (bound {})",
            shown(took),
            secs(bound)
        );
        self.show.step(within, &text);

        // Queries are closed at once; the reason follows when the refusal was confirmed.
        let named = |seen: &Seen| kind(seen) == Some(ErrorKind::Revoked);
        let (took, more) = self.until(CALL_DEADLINE, named).await;
        self.show
            .step(took.is_some(), &format!("a query: {}", outcome(&self.logs.query(REVOKED, EVER).await)));
        let late = self.log(REVOKED)?.late();
        let written = self.logs.ingest(REVOKED, late).await;
        let refused =
            written.as_ref().is_err_and(|error| strongroom_kind(error.as_ref()) == Some(ErrorKind::Revoked));
        self.show
            .step(refused, &format!("ingesting {LATE} lines, which the caller keeps: {}", outcome(&written)));
        self.others_went_on(others, more)?;
        for tenant in OTHERS {
            let segments = self.logs.ingest(tenant, self.log(tenant)?.late()).await?;
            self.show.step(segments == 1, &format!("{tenant}: {LATE} more lines ingested meanwhile"));
        }
        Ok(())
    }

    /// Nobody restarts anything.
    async fn recover(&mut self) -> Step {
        self.kms.enable_key(REVOKED)?;
        let bound = REFRESH + Duration::from_secs(1) + CALL_DEADLINE;
        let (took, _) = self.until(bound + SLACK, |seen| seen.is_ok()).await;
        let within = took.is_some_and(|took| took <= bound);
        let text = format!(
            "{REVOKED}'s key enabled: queries are answered after {} (bound {})",
            shown(took),
            secs(bound)
        );
        self.show.step(within, &text);
        let segments = self.logs.ingest(REVOKED, self.log(REVOKED)?.late()).await?;
        self.show.step(segments == 1, &format!("{REVOKED}: the {LATE} lines that were kept are ingested"));
        for log in &self.written {
            let found = self.logs.query(log.tenant, EVER).await?;
            let text = format!("{}: all {} lines are there, once each", log.tenant, log.lines.len());
            self.show.step(found.lines == expected(log, &EVER), &text);
        }
        Ok(())
    }

    /// Queries of everybody in turn until eve's is what is waited for: how long that took, if it did, and what the others saw.
    async fn until(&self, limit: Duration, done: impl Fn(&Seen) -> bool) -> (Option<Duration>, Others) {
        let (begun, mut others) = (Instant::now(), Others::default());
        while begun.elapsed() <= limit {
            if done(&self.logs.query(REVOKED, EVER).await) {
                return (Some(begun.elapsed()), others);
            }
            for tenant in OTHERS {
                others.queries += 1;
                others.failed += u32::from(self.logs.query(tenant, EVER).await.is_err());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (None, others)
    }

    fn others_went_on(&mut self, before: Others, after: Others) -> Step {
        let (queries, failed) = (before.queries + after.queries, before.failed + after.failed);
        let text = format!("{} meanwhile: {queries} queries, {failed} failed", OTHERS.join(" and "));
        self.show.step(queries > 0 && failed == 0, &text);
        Ok(())
    }

    fn log(&self, tenant: &str) -> Result<&Log, Box<dyn Error>> {
        self.written.iter().find(|log| log.tenant == tenant).ok_or_else(|| "no such tenant".into())
    }
}

impl Log {
    fn late(&self) -> &[lines::Line] {
        &self.lines[self.lines.len() - LATE..]
    }
}

type Seen = Result<Found, Box<dyn Error>>;

#[derive(Default)]
struct Others {
    queries: u32,
    failed: u32,
}

/// What a query has to find of what was ingested.
fn expected(log: &Log, range: &Range<Time>) -> Vec<String> {
    let ingested = if *range == EVER { log.lines.len() } else { log.lines.len() - LATE };
    let lines = log.lines[..ingested].iter().filter(|line| range.contains(&line.time));
    lines.map(|line| line.text.clone()).collect()
}

fn day_in_the_middle(log: &Log) -> (String, Range<Time>) {
    let day = log.lines[(log.lines.len() - LATE) / 2].time / A_DAY;
    let name = format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100);
    (name, day * A_DAY..(day + 1) * A_DAY)
}

/// The last 16 bytes of some lines.
fn some_words(log: &Log) -> impl Iterator<Item = &[u8]> {
    let ends = log.lines.iter().step_by(log.lines.len() / 7 + 1).map(|line| line.text.as_bytes());
    ends.filter_map(|text| text.last_chunk::<16>().map(<[u8; 16]>::as_slice))
}

fn found_in(bytes: &[u8], parts: &[&[u8]]) -> usize {
    let occurring: HashMap<&[u8], ()> = bytes.windows(16).map(|window| (window, ())).collect();
    parts.iter().filter(|part| occurring.contains_key(*part)).count()
}

/// Whatever wraps it, an error of the library's is found in it.
fn strongroom_kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    strongroom::Error::find(error).map(strongroom::Error::kind)
}

fn kind(seen: &Seen) -> Option<ErrorKind> {
    seen.as_ref().err().and_then(|error| strongroom_kind(error.as_ref()))
}

fn outcome<T>(result: &Result<T, Box<dyn Error>>) -> String {
    match result {
        Ok(_) => "succeeded".to_owned(),
        Err(error) => match strongroom::Error::find(error.as_ref()) {
            Some(error) => format!("refused: {error}"),
            None => format!("failed: {error}"),
        },
    }
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "(never)".to_owned(), secs)
}

fn folder_of(tenant: &str) -> String {
    folder(tenant).to_string()
}

const REVOKED: &str = "eve";
const OTHERS: [&str; 2] = ["ada", "bob"];
/// How many lines of each log come after the others.
const LATE: usize = 10;
const EVER: Range<Time> = 0..Time::MAX;
const A_DAY: Time = 1_000_000;
/// A log of as many bytes has days that a query does not read.
const LARGE: u64 = 200_000;
/// r: the shortest that is allowed.
const REFRESH: Duration = Duration::from_secs(6);
/// c: the shortest that is allowed.
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// How much longer than a bound a step waits before it gives up.
const SLACK: Duration = Duration::from_secs(5);
/// What a measurement may add to a bound: a round of queries, and a busy machine.
const MEASURING: Duration = Duration::from_millis(500);
