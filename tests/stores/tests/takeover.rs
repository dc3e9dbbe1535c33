//! Plaintext taken over over real servers, under reads and writes (contract E9).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::provider::Kek;
use strongroom::store::{OneAccount, SealedStore, TakeoverLimits};
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{Account, AccountId, AccountSpec, AekCache, Error, ErrorKind};
use strongroom_stores_tests::measured::Measured;
use strongroom_stores_tests::{azurite_store, in_a_process_given_an_azurite, is_given_an_azurite, s3};

/// How many objects are taken over in Azurite. The contract's number is 100,000: minutes, and not for every run.
const COUNT: &str = "STRONGROOM_TAKEOVER_OBJECTS";
const FEW: usize = 2_000;

const AT_ONCE: usize = 16;

fn account() -> (Account, AekCache) {
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    kms.add_key("orders");
    let cache = AekCache::builder().manual(&ManualClock::new()).build().expect("a cache");
    let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest("orders"));
    (cache.create(spec).expect("an account"), cache)
}

fn process(inner: &Arc<dyn ObjectStore>, account: &Account) -> SealedStore {
    let store = SealedStore::builder(inner.clone(), "bucket", OneAccount::new(account.clone()));
    store.build().expect("is complete")
}

fn path(number: usize) -> Path {
    format!("data/{:03}/{number:06}", number % 100).into()
}

/// Old and new are equally long, so that a listing is right or wrong at any moment.
fn content(number: usize, new: bool) -> Vec<u8> {
    let len = 10 + number * 37 % 400;
    let word = format!("{} {number} ", if new { "new" } else { "old" });
    word.bytes().cycle().take(len).collect()
}

async fn fill(inner: &Arc<dyn ObjectStore>, count: usize) {
    stream::iter(0..count)
        .map(|number| async move { inner.put(&path(number), content(number, false).into()).await })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .expect("is written");
}

/// What went on beside the sealing.
#[derive(Default)]
struct Traffic {
    ended: AtomicBool,
    /// Those whose overwriting was acknowledged.
    written: Mutex<BTreeSet<usize>>,
    reads: AtomicUsize,
    listings: AtomicUsize,
}

impl Traffic {
    fn is_written(&self, number: usize) -> bool {
        self.written.lock().expect("no test has panicked").contains(&number)
    }
}

/// Every 20th object is overwritten, some of them before and some after they are sealed.
async fn write(store: &SealedStore, count: usize, traffic: &Traffic) {
    for number in (0..count).step_by(20).map(|number| number * 7 % count) {
        if traffic.ended.load(Ordering::SeqCst) {
            break;
        }
        store.put(&path(number), content(number, true).into()).await.expect("is written");
        traffic.written.lock().expect("no test has panicked").insert(number);
    }
}

async fn read(store: &SealedStore, count: usize, traffic: &Traffic) {
    let mut number = 0;
    while !traffic.ended.load(Ordering::SeqCst) {
        number = (number + 7_919) % count;
        // Looked at before: what was acknowledged by now has to be seen.
        let is_written = traffic.is_written(number);
        let found = store.get(&path(number)).await.expect("is there").bytes().await.expect("is read");
        let is_new = found == content(number, true);
        assert!(is_new || !is_written && found == content(number, false), "{number}");
        let head = store.head(&path(number)).await.expect("is there");
        assert_eq!(head.size, content(number, false).len() as u64);
        traffic.reads.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn list(store: &SealedStore, count: usize, traffic: &Traffic) {
    while !traffic.ended.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let mut listing = store.list(Some(&"data".into()));
        let mut seen = 0;
        while let Some(meta) = listing.try_next().await.expect("is listed") {
            let number: usize = meta.location.filename().expect("has one").parse().expect("is a number");
            assert_eq!(meta.size, content(number, false).len() as u64, "{number}");
            seen += 1;
        }
        assert_eq!(seen, count);
        traffic.listings.fetch_add(1, Ordering::SeqCst);
        // Most of the server's time is for the others. In steps, because a listing of very many takes a while, and ten of those a long one.
        let next = Instant::now() + Duration::from_millis(200) + 10 * begun.elapsed();
        while Instant::now() < next && !traffic.ended.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What the server costs without us: the puts that filled it, a get and a head of 200 of them, one after another, and a listing.
async fn plain(
    inner: &Arc<dyn ObjectStore>,
    measured: &Measured,
    count: usize,
    filling: Duration,
    name: &str,
) {
    println!("plain {name}: {count} objects in {:.1} s,{}", filling.as_secs_f64(), measured.take());
    for number in (0..count).step_by(count.div_ceil(200)) {
        inner.get(&path(number)).await.expect("is there");
        inner.head(&path(number)).await.expect("is there");
    }
    let begun = Instant::now();
    let listed = inner.list(Some(&"data".into())).try_fold(0, |sum, _| std::future::ready(Ok(sum + 1)));
    assert_eq!(listed.await.expect("is listed"), count);
    let listing = begun.elapsed().as_secs_f64();
    println!("plain {name}: one after another{}, one listing in {listing:.2} s", measured.take());
}

async fn takeover(inner: Arc<dyn ObjectStore>, count: usize, name: &str) {
    let (account, _cache) = account();
    let measured = Arc::new(Measured::new(inner));
    let inner: Arc<dyn ObjectStore> = measured.clone();
    let begun = Instant::now();
    fill(&inner, count).await;
    plain(&inner, &measured, count, begun.elapsed(), name).await;
    let begun = Instant::now();
    let sealing_store = Arc::new(Measured::new(inner.clone()));
    let of_sealing: Arc<dyn ObjectStore> = sealing_store.clone();
    let (worker, reader) = (process(&of_sealing, &account), process(&inner, &account));
    let takeover = worker.begin_takeover(&"data".into()).await.expect("begins");
    let beginning = begun.elapsed();
    assert_eq!(takeover.progress().objects, count as u64);
    reader.open_takeover(&"data".into(), None).await.expect("is begun");
    let traffic = Traffic::default();
    let limits = TakeoverLimits::DEFAULT.at_once(AT_ONCE);
    let asked_at_first = sealing_store.take();
    let begun = Instant::now();
    let sealing = async {
        let progress = takeover.run(&limits).await.expect("goes on");
        traffic.ended.store(true, Ordering::SeqCst);
        assert!(progress.finished, "{progress:?} {:?}", takeover.failures());
        begun.elapsed()
    };
    let (sealing, ..) = tokio::join!(
        sealing,
        write(&worker, count, &traffic),
        read(&reader, count, &traffic),
        list(&reader, count, &traffic)
    );
    let (reads, listings) = (traffic.reads.into_inner(), traffic.listings.into_inner());
    let written = traffic.written.into_inner().expect("no test has panicked");
    assert!(reads > 0 && listings > 0 && !written.is_empty());
    println!(
        "measured {name}: {count} objects listed and written down in {:.1} s, sealed in {:.1} s ({:.0} a second), \
         under {reads} reads, {} writes, {listings} listings",
        beginning.as_secs_f64(),
        sealing.as_secs_f64(),
        count as f64 / sealing.as_secs_f64(),
        written.len(),
    );
    println!("measured {name}: beginning {asked_at_first}; sealing and writing {}", sealing_store.take());
    let begun = Instant::now();
    sealed(&inner, &process(&inner, &account), count, &written).await;
    println!("measured {name}: looked at everything in {:.1} s", begun.elapsed().as_secs_f64());
    swapped(&inner, &[&worker, &reader]).await;
}

/// A store that knows of no takeover reads everything, and nothing else lies there.
async fn sealed(inner: &Arc<dyn ObjectStore>, store: &SealedStore, count: usize, written: &BTreeSet<usize>) {
    stream::iter(0..count)
        .map(|number| async move {
            let found = store.get(&path(number)).await?.bytes().await?;
            assert_eq!(found, content(number, written.contains(&number)), "{number}");
            Ok::<_, object_store::Error>(())
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
        .expect("is read");
    let all: Vec<_> = inner.list(Some(&"data".into())).try_collect().await.expect("is listed");
    let sizes =
        all.iter().filter(|meta| !meta.location.as_ref().contains("strongroom")).map(|meta| meta.size);
    assert_eq!(sizes.filter(|size| *size >= 80 + 48 + 10).count(), count);
}

/// The old plaintext, put back, is refused; and so is the old manifest with it, by whoever has seen a newer one.
async fn swapped(inner: &Arc<dyn ObjectStore>, stores: &[&SealedStore]) {
    inner.put(&path(9), content(9, false).into()).await.expect("is written");
    for store in stores {
        let error = store.get(&path(9)).await.map(drop).expect_err("is refused");
        let kind = Error::find(&error).map(Error::kind);
        assert!(matches!(kind, Some(ErrorKind::Format | ErrorKind::Corrupt)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_plaintext_is_taken_over_under_reads_and_writes_in_s3() {
    let (_server, inner) = s3();
    takeover(inner, 300, "S3").await;
}

#[test]
fn e9_plaintext_is_taken_over_under_reads_and_writes_in_azure_blob_storage() {
    let text =
        in_a_process_given_an_azurite("what_a_process_that_is_given_an_azurite_takes_over", "measured");
    let lines = text.lines().filter(|line| line.starts_with("measured") || line.starts_with("plain"));
    lines.for_each(|line| println!("{line}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_is_given_an_azurite_takes_over() {
    if !is_given_an_azurite() {
        return;
    }
    let count = std::env::var(COUNT).map_or(FEW, |count| count.parse().expect("a number"));
    takeover(azurite_store(), count, "Azurite").await;
}
