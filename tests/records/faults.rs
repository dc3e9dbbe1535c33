//! An object store that hangs, lies, forgets conditions, and does what it does not answer.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use strongroom::store::ObjectRecordStore;
use strongroom::testing::{FaultyObjectStore, ObjectCall, ObjectFault, record_stores};
use strongroom::{AccountId, ErrorKind, Loaded, RecordArchive, RecordStore};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// No call ever answers.
    Hang,
    /// A put of a record is done, and done again by the client, which the condition then refuses.
    PutDoneTwice,
    /// The same, and somebody else writes in between.
    PutDoneTwiceAndOvertaken,
    /// Conditions of puts are not looked at.
    IgnoresConditions,
    /// Answers have neither entity tag nor version.
    NoTags,
    /// Answers say that they are long.
    SaysLong,
    /// Answers are longer than they say.
    IsLong,
    /// Answers are shorter than they say.
    IsShort,
    /// Says that nothing has changed, whatever was asked.
    NotModified,
    /// Lists for ever, without an end.
    ListsForEver,
    Panics,
}

#[derive(Debug)]
struct Bent {
    memory: InMemory,
    fault: Mutex<Fault>,
}

impl Bent {
    fn new() -> Arc<Self> {
        Arc::new(Self { memory: InMemory::new(), fault: Mutex::new(Fault::None) })
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }
}

impl fmt::Display for Bent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bent")
    }
}

fn broken() -> StoreError {
    StoreError::Generic { store: "Bent", source: "the test breaks this".into() }
}

#[async_trait]
impl ObjectStore for Bent {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let is_record = path.as_ref().contains("/records/");
        match self.fault() {
            Fault::Hang => std::future::pending::<()>().await,
            Fault::Panics => panic!("the client panics"),
            Fault::IgnoresConditions => options.mode = PutMode::Overwrite,
            Fault::PutDoneTwice if is_record => {
                self.memory.put_opts(path, payload.clone(), options.clone()).await?;
            }
            Fault::PutDoneTwiceAndOvertaken if is_record => {
                self.memory.put_opts(path, payload.clone(), options.clone()).await?;
                self.memory.put_opts(path, "a rival's".into(), PutOptions::default()).await?;
            }
            _ => {}
        }
        let mut put = self.memory.put_opts(path, payload, options).await?;
        if self.fault() == Fault::NoTags {
            put.e_tag = None;
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(broken())
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.fault();
        match fault {
            Fault::Hang => std::future::pending::<()>().await,
            Fault::NotModified => {
                return Err(StoreError::NotModified { path: path.to_string(), source: "lies".into() });
            }
            _ => {}
        }
        let mut got = self.memory.get_opts(path, options).await?;
        let pieces =
            |pieces: Vec<Bytes>| GetResultPayload::Stream(stream::iter(pieces.into_iter().map(Ok)).boxed());
        match fault {
            Fault::NoTags => got.meta.e_tag = None,
            Fault::SaysLong => got.meta.size = u64::MAX,
            Fault::IsLong => got.payload = pieces(vec![Bytes::from(vec![0; 1 << 16]); 17]),
            Fault::IsShort => got.payload = pieces(vec![Bytes::from_static(b"o")]),
            _ => {}
        }
        Ok(got)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.memory.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault() {
            Fault::Hang => stream::pending().boxed(),
            Fault::ListsForEver => {
                let prefix = prefix.cloned().unwrap_or_default();
                let endless = stream::repeat_with(move || ObjectMeta {
                    location: prefix.clone().join(AccountId::random().to_string()),
                    last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                    size: 1,
                    e_tag: None,
                    version: None,
                });
                // As a network would: each answer lets others run.
                endless
                    .then(|meta| async {
                        tokio::task::yield_now().await;
                        Ok(meta)
                    })
                    .boxed()
            }
            _ => self.memory.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(broken())
    }
}

const DEADLINE: Duration = Duration::from_millis(50);

fn over(bent: &Arc<Bent>) -> ObjectRecordStore {
    ObjectRecordStore::with_own_runtime(bent.clone(), "strongroom").unwrap()
}

/// Where nothing is to be answered: a busy machine may need longer for what is.
fn impatient(bent: &Arc<Bent>) -> ObjectRecordStore {
    over(bent).call_deadline(DEADLINE).unwrap()
}

fn bytes(store: &ObjectRecordStore, account: AccountId) -> Option<Vec<u8>> {
    match store.load(account, None).unwrap() {
        Loaded::Found { bytes, .. } => Some(bytes),
        _ => None,
    }
}

#[test]
fn g2_a_store_that_hangs_is_an_error_at_the_deadline() {
    let bent = Bent::new();
    let store = over(&bent);
    let account = AccountId::random();
    let tag = store.compare_and_swap(account, None, b"one").unwrap();
    let kept = store.history(account).unwrap()[0];
    bent.set(Fault::Hang);
    let begun = Instant::now();
    let patient = store;
    let store = impatient(&bent);
    let asked = [
        store.load(account, None).map(drop),
        store.compare_and_swap(account, Some(&tag), b"two").map(drop),
        store.compare_and_swap(AccountId::random(), None, b"two").map(drop),
        store.load_kept(account, kept).map(drop),
        store.list(None).map(drop),
        store.history(account).map(drop),
    ];
    for outcome in asked {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Io);
    }
    // Four requests and two listings, of 30 times the time.
    assert!(begun.elapsed() < DEADLINE * 70, "{:?}", begun.elapsed());
    bent.set(Fault::None);
    assert_eq!(bytes(&patient, account).unwrap(), b"one", "nothing was written");
    patient.compare_and_swap(account, Some(&tag), b"two").unwrap();
}

/// Has something go wrong from now on.
type Strike<'a> = &'a dyn Fn(&FaultyObjectStore, &Bent);

#[test]
fn g2_after_an_error_the_old_record_or_the_new_one_is_there_and_no_conflict_is_told_of_ones_own_write() {
    let puts = |part: &'static str, fault| {
        move |faulty: &FaultyObjectStore, _: &Bent| faulty.fail_every(ObjectCall::Put, part, fault)
    };
    let bends = |fault| move |_: &FaultyObjectStore, bent: &Bent| bent.set(fault);
    let cases: [(&str, Strike<'_>, Option<ErrorKind>, bool); 5] = [
        ("put fails", &puts("/records/", ObjectFault::Fails), Some(ErrorKind::Io), false),
        ("put is done and fails", &puts("/records/", ObjectFault::DoneAndFails), Some(ErrorKind::Io), true),
        ("history fails", &puts("/history/", ObjectFault::Fails), Some(ErrorKind::Io), false),
        ("put is done twice", &bends(Fault::PutDoneTwice), None, true),
        ("the client panics", &bends(Fault::Panics), Some(ErrorKind::Io), false),
    ];
    for (fault, strike, told, written) in cases {
        for old in [None, Some(b"old")] {
            let bent = Bent::new();
            let faulty = Arc::new(FaultyObjectStore::over(bent.clone()));
            let store = ObjectRecordStore::with_own_runtime(faulty.clone(), "strongroom").unwrap();
            let account = AccountId::random();
            let tag = old.map(|old| store.compare_and_swap(account, None, old).unwrap());
            strike(&faulty, &bent);
            let outcome = store.compare_and_swap(account, tag.as_ref(), b"new");
            bent.set(Fault::None);
            faulty.calm();
            assert_eq!(outcome.as_ref().err().map(|error| error.kind()), told, "{fault:?}: {outcome:?}");
            let expected = if written { Some(b"new".to_vec()) } else { old.map(|old| old.to_vec()) };
            assert_eq!(bytes(&store, account), expected, "{fault:?}");
            // Nobody is stuck, and whatever is there is kept.
            let Loaded::Found { tag: now, bytes } = store.load(account, None).unwrap() else {
                store.compare_and_swap(account, None, b"next").unwrap();
                continue;
            };
            if let Ok(tag) = outcome {
                assert_eq!(tag, now);
            }
            let kept = store.history(account).unwrap();
            assert!(kept.iter().any(|kept| store.load_kept(account, *kept).unwrap() == bytes), "{fault:?}");
            store.compare_and_swap(account, Some(&now), b"next").unwrap();
        }
    }
    let bent = Bent::new();
    let store = over(&bent);
    bent.set(Fault::PutDoneTwiceAndOvertaken);
    let outcome = store.compare_and_swap(AccountId::random(), None, b"new");
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn g2_a_store_that_cannot_replace_conditionally_is_refused_before_anything_is_written() {
    let bent = Bent::new();
    let store = over(&bent);
    let account = AccountId::random();
    bent.set(Fault::IgnoresConditions);
    assert_eq!(store.compare_and_swap(account, None, b"one").unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(bytes(&store, account), None);
    bent.set(Fault::NoTags);
    assert_eq!(store.compare_and_swap(account, None, b"one").unwrap_err().kind(), ErrorKind::Misuse);

    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let store = ObjectRecordStore::with_own_runtime(disk, "").unwrap();
    assert_eq!(store.compare_and_swap(account, None, b"one").unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn f2_no_more_than_a_mebibyte_is_read_and_lies_about_lengths_are_errors() {
    let bent = Bent::new();
    let store = over(&bent);
    let account = AccountId::random();
    let tag = store.compare_and_swap(account, None, b"one").unwrap();
    for (fault, kind) in [
        (Fault::SaysLong, ErrorKind::Limit),
        (Fault::IsLong, ErrorKind::Limit),
        (Fault::IsShort, ErrorKind::Io),
        (Fault::NotModified, ErrorKind::Io),
        (Fault::NoTags, ErrorKind::Misuse),
    ] {
        bent.set(fault);
        assert_eq!(store.load(account, None).unwrap_err().kind(), kind, "{fault:?}");
    }
    bent.set(Fault::ListsForEver);
    let endless = impatient(&bent);
    for outcome in [endless.list(None).map(drop), endless.history(account).map(drop)] {
        assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Io | ErrorKind::Limit));
    }
    bent.set(Fault::None);
    let long = vec![0; (1 << 20) + 1];
    assert_eq!(store.compare_and_swap(account, Some(&tag), &long).unwrap_err().kind(), ErrorKind::Limit);
    store.compare_and_swap(account, Some(&tag), &long[1..]).unwrap();
}

#[test]
fn g2_an_unchanged_record_is_told_by_the_store_without_its_body() {
    let bent = Bent::new();
    let store = over(&bent);
    let account = AccountId::random();
    let tag = store.compare_and_swap(account, None, b"one").unwrap();
    // A body would be an error now.
    bent.set(Fault::SaysLong);
    assert_eq!(store.load(account, Some(&tag)).unwrap(), Loaded::Unchanged);
}

#[test]
fn e10_what_lost_against_a_rival_is_not_kept_beside_what_won() {
    use strongroom::provider::{Kek, KeyProvider};
    use strongroom::testing::{ManualClock, ScriptedProvider};
    use strongroom::{AccountSpec, AekCache};

    // Of real records, since their sequences tell.
    let kms: Arc<dyn KeyProvider> = Arc::new(ScriptedProvider::on_virtual_time());
    let cache = AekCache::builder().manual(&ManualClock::new()).build().unwrap();
    let id = AccountId::random();
    let store = Arc::new(over(&Bent::new()));
    let spec = AccountSpec::new(id, kms, Kek::latest(ScriptedProvider::KEK)).store(store.clone());
    let account = cache.create(spec).unwrap();
    let rival = account.record().to_bytes();
    assert_eq!(store.compare_and_swap(id, None, &rival).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.history(id).unwrap().len(), 1);
    record_stores::replaces_only_what_was_seen(store.as_ref());
}
