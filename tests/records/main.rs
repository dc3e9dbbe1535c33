//! Records in an object store (contract G2): the same tests as of any record store, and a store that hangs, lies and answers late.
#![allow(clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "the ban is for the library; this test measures")]

mod faults;

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Attribute, ObjectStore, ObjectStoreExt};
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::store::ObjectRecordStore;
use strongroom::testing::record_stores;
use strongroom::{
    Aad, AccountId, AccountSpec, AekCache, BlockId, ErrorKind, Expect, Loaded, ObjectId, RecordArchive,
    RecordStore, RecordTag, Retirement, RotateTo,
};

fn over(store: &Arc<dyn ObjectStore>) -> ObjectRecordStore {
    ObjectRecordStore::with_own_runtime(Arc::clone(store), "strongroom/europe").unwrap()
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

#[test]
fn g2_object_store_replaces_only_what_was_seen() {
    let store = over(&memory());
    record_stores::replaces_only_what_was_seen(&store);
    // Tags of another store are nobody's.
    let account = AccountId::random();
    let one = store.compare_and_swap(account, None, b"one").unwrap();
    for foreign in [&b""[..], b"foreign", b"\x01no end", b"\xFF\xFF\0\xFF", b"\x00\0", b"\x03\"0\"\0"] {
        let foreign = RecordTag::new(foreign).unwrap();
        assert!(
            matches!(store.load(account, Some(&foreign)).unwrap(), Loaded::Found { tag, .. } if tag == one)
        );
        store.compare_and_swap(account, Some(&foreign), b"two").expect_err("was not seen");
    }
}

#[test]
fn g2_object_store_loses_no_update_of_8_threads() {
    record_stores::loses_no_update_of_8_threads(&over(&memory()));
}

#[test]
fn e10_object_store_lists_and_keeps_history() {
    let memory = memory();
    record_stores::lists_its_accounts(&over(&memory));
    record_stores::keeps_what_was_replaced(&over(&memory).keep_history(3), 3);
}

#[test]
fn e7_object_store_destroys_what_it_keeps_once_it_is_purged() {
    record_stores::destroys_what_it_keeps(&over(&memory()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn g2_it_is_called_from_within_the_runtime_that_serves_it() {
    let handle = tokio::runtime::Handle::current();
    let store = ObjectRecordStore::new(memory(), "", handle).unwrap();
    tokio::spawn(async move { record_stores::replaces_only_what_was_seen(&store) }).await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn g2_a_call_that_would_wait_for_itself_is_an_error() {
    let store = ObjectRecordStore::new(memory(), "", tokio::runtime::Handle::current()).unwrap();
    assert_eq!(store.load(AccountId::random(), None).unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn g2_a_runtime_that_is_gone_is_an_error() {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let store = ObjectRecordStore::new(memory(), "", runtime.handle().clone()).unwrap();
    runtime.shutdown_background();
    assert_eq!(store.load(AccountId::random(), None).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn g2_settings_out_of_range_are_refused() {
    let misuse = |result: Result<ObjectRecordStore, strongroom::Error>| {
        result.unwrap_err().kind() == ErrorKind::Misuse
    };
    assert!(misuse(ObjectRecordStore::with_own_runtime(memory(), "a//b")));
    assert!(misuse(over(&memory()).call_deadline(Duration::ZERO)));
    assert!(misuse(over(&memory()).call_deadline(Duration::from_secs(61))));
}

#[tokio::test]
async fn f1_objects_metadata_and_tags_are_as_format_md_says() {
    let memory = memory();
    let account = AccountId::random();
    let tag = over(&memory).compare_and_swap(account, None, b"no record").unwrap();
    let listed: Vec<Path> = memory.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    let record = Path::from(format!("strongroom/europe/records/{account}"));
    let history = format!("strongroom/europe/history/{account}/");
    assert!(listed.len() == 2 && listed.contains(&record), "{listed:?}");
    let kept = listed.iter().find_map(|path| path.as_ref().strip_prefix(&history)).unwrap();
    let drawn = kept.strip_prefix("00000000000000000000-").expect("zero for what is no record");
    assert_eq!(drawn.len(), 32);
    let found = memory.get(&record).await.unwrap();
    let write = Attribute::Metadata("strongroom_write".into());
    assert_eq!(found.attributes.get(&write).map(AsRef::as_ref), Some(kept));
    let (e_tag, version) = (found.meta.e_tag.unwrap(), found.meta.version);
    assert_eq!((tag.as_bytes(), version), (&[b"\x01", e_tag.as_bytes(), b"\0"].concat()[..], None));
}

#[tokio::test]
async fn e10_what_lies_beside_the_records_is_nobodys() {
    let memory = memory();
    for name in ["records/notes.txt", "records/FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", "records/a/b", "probe"] {
        let path = Path::parse(format!("strongroom/europe/{name}")).unwrap();
        memory.put(&path, "foreign".into()).await.unwrap();
    }
    let other = AccountId::random();
    let path = Path::parse(format!("strongroom/records/{other}")).unwrap();
    memory.put(&path, "of another prefix".into()).await.unwrap();
    let store = over(&memory);
    let account = AccountId::random();
    store.compare_and_swap(account, None, b"one").unwrap();
    let listed: Vec<AccountId> = store.list(None).unwrap().iter().map(|listed| listed.account).collect();
    assert_eq!(listed, [account]);
    assert_eq!(store.load(other, None).unwrap(), Loaded::Absent);
    let folder = format!("strongroom/europe/history/{account}");
    for name in ["notes.txt", "1-ff", "00000000000000000001-FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"] {
        memory.put(&Path::parse(format!("{folder}/{name}")).unwrap(), "foreign".into()).await.unwrap();
    }
    assert_eq!(store.history(account).unwrap().len(), 1);
}

#[test]
fn g2_e1_an_account_lives_in_an_object_store_and_two_machines_share_it() {
    let folder = tempfile::tempdir().unwrap();
    let kms = Arc::new(LocalKms::create(folder.path().join("kms.json")).unwrap());
    kms.create_key("orders", KeyOptions::default()).unwrap();
    let memory = memory();
    let here = AekCache::builder().build().unwrap();
    let id = AccountId::random();
    let spec = AccountSpec::new(id, kms.clone(), Kek::latest("orders")).store(Arc::new(over(&memory)));
    let account = here.create(spec).unwrap();
    let block = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(block, Aad::EMPTY, b"before").unwrap();
    kms.rotate_key("orders").unwrap();
    account.rotate_kek(RotateTo::Latest).unwrap();

    let there = AekCache::builder().build().unwrap();
    let expect = Expect::account(id).kek(kms, "orders");
    let copy = there.attach_stored(Arc::new(over(&memory)), expect).unwrap();
    copy.wait_ready(Duration::from_secs(10)).unwrap();
    assert_eq!(copy.open(block, Aad::EMPTY, &sealed).unwrap(), b"before");
    assert_eq!(copy.record().sequence().number(), 2);
    // Names that an operator can read.
    let kept = over(&memory).history(id).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.sequence().unwrap().number()).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn e5_e10_kept_records_in_an_object_store_are_verified_and_tell_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let kms = Arc::new(LocalKms::create(folder.path().join("kms.json")).unwrap());
    let first = kms.create_key("orders", KeyOptions::default()).unwrap();
    let store = Arc::new(over(&memory()).keep_history(2));
    let cache = AekCache::builder().build().unwrap();
    let id = AccountId::random();
    let spec = AccountSpec::new(id, kms.clone(), Kek::latest("orders")).store(store.clone());
    let account = cache.create(spec).unwrap();
    let second = kms.rotate_key("orders").unwrap();
    account.rotate_kek(RotateTo::Latest).unwrap();
    // An operator who was too fast. The newest record proves what is kept all the same.
    kms.disable_version("orders", &first).unwrap();
    let report = || {
        let kms = kms.clone();
        let expect = move |id| Some(Expect::account(id).kek(kms.clone(), "orders"));
        cache.verify_all(store.clone(), expect, 1000).unwrap().with_history().report().unwrap()
    };
    let needed = |version| match report().retirement(account.record().kek(), version) {
        Retirement::Needed(need) => Some((need.newest, need.kept)),
        Retirement::NotNeeded => None,
        unknown => panic!("{unknown:?}"),
    };
    assert_eq!((needed(&first), needed(&second)), (Some((0, 1)), Some((1, 0))));
    // Of two records, the first is the third's to replace.
    let third = kms.rotate_key("orders").unwrap();
    account.rotate_kek(RotateTo::Latest).unwrap();
    assert_eq!((needed(&first), needed(&second), needed(&third)), (None, Some((0, 1)), Some((1, 0))));
}
