//! Plaintext that is taken over while it is read and written (contract E9).

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};
use strongroom::store::{Binding, ByPrefix, Route, TakeoverLimits};
use strongroom::{BlockSize, Context, ErrorKind};

use crate::SealedStore;
use crate::world::{Customer, FRAME, HEADER, World, kind, pattern, store};

/// Small batches, so that there are many.
pub(crate) const LIMITS: TakeoverLimits = TakeoverLimits::DEFAULT.batch(2).at_once(2);

/// A world with plaintext of many sizes under `data`, and what it is.
pub(crate) async fn world_of(count: usize) -> (World, Vec<(String, Vec<u8>)>) {
    let world = World::new();
    let mut plain = Vec::new();
    for number in 0..count {
        // Sizes that sealed objects have too, and others.
        let bytes = pattern(number * 1777 + number % 3).split_off(number % 3);
        world.store_raw(&format!("data/{number:03}"), &bytes).await;
        plain.push((format!("data/{number:03}"), bytes));
    }
    (world, plain)
}

pub(crate) fn prefix() -> Path {
    "data".into()
}

/// Another process of the same customer's.
pub(crate) fn another(world: &World) -> SealedStore {
    store(world.bent.clone(), &world.customer.account, BlockSize::MIN)
}

pub(crate) async fn read(store: &SealedStore, path: &str) -> object_store::Result<Vec<u8>> {
    Ok(store.get(&path.into()).await?.bytes().await?.to_vec())
}

/// Everything that can be asked about what is there is what it is.
pub(crate) async fn check(store: &SealedStore, expected: &[(String, Vec<u8>)]) {
    let listed: Vec<_> = store.list(Some(&prefix())).try_collect().await.unwrap();
    let mut listed: Vec<_> = listed.into_iter().map(|meta| (meta.location.to_string(), meta.size)).collect();
    listed.sort();
    let mut sizes: Vec<_> = expected.iter().map(|(path, plain)| (path.clone(), plain.len() as u64)).collect();
    sizes.sort();
    assert_eq!(listed, sizes);
    let at_once = store.list_with_delimiter(Some(&prefix())).await.unwrap();
    assert_eq!((at_once.objects.len(), at_once.common_prefixes.len()), (expected.len(), 0));
    for (path, plain) in expected {
        let location = Path::from(path.as_str());
        assert_eq!(store.head(&location).await.unwrap().size, plain.len() as u64, "{path}");
        assert_eq!(&read(store, path).await.unwrap(), plain, "{path}");
        let len = plain.len() as u64;
        if len > 10 {
            assert_eq!(store.get_range(&location, 3..len - 3).await.unwrap(), plain[3..plain.len() - 3]);
            let ranges = store.get_ranges(&location, &[len - 2..len, 0..1, 5..len + 9]).await.unwrap();
            assert_eq!(ranges, [&plain[plain.len() - 2..], &plain[..1], &plain[5..]]);
            // Out of bounds is out of bounds, and nothing of ours.
            for beyond in [len..len + 1, len + 200..len + 300] {
                let one = store.get_range(&location, beyond.clone()).await.unwrap_err();
                let many = store.get_ranges(&location, &[0..1, beyond]).await.unwrap_err();
                assert_eq!((kind(&one), kind(&many)), (None, None), "{one} {many}");
            }
        }
    }
}

#[tokio::test]
async fn e9_plaintext_is_read_from_the_beginning_on_and_sealed_in_the_background() {
    let (world, plain) = world_of(12).await;
    assert!(kind(&read(&world.store, "data/007").await.unwrap_err()).is_some(), "nothing was begun");
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let total: usize = plain.iter().map(|(_, plain)| plain.len()).sum();
    assert_eq!((takeover.progress().objects, takeover.progress().bytes), (12, total as u64));
    check(&world.store, &plain).await;
    let mut left = takeover.progress().objects_left;
    while !takeover.progress().finished {
        let progress = takeover.step(&LIMITS).await.unwrap();
        assert!(progress.objects_left < left && progress.finished == (progress.objects_left == 0));
        left = progress.objects_left;
        check(&world.store, &plain).await;
        check(&another_with_takeover(&world).await, &plain).await;
    }
    let progress = takeover.progress();
    assert_eq!((progress.objects_left, progress.bytes_left, progress.failed), (0, 0, 0));
    for (path, plain) in &plain {
        let sealed = HEADER + plain.len() + 48 * plain.len().div_ceil(4096).max(1);
        assert_eq!(world.stored(path).await.len(), sealed, "{path}");
    }
    // A store that knows of no takeover reads everything.
    check(&another(&world), &plain).await;
}

/// Another process that has the takeover open.
pub(crate) async fn another_with_takeover(world: &World) -> SealedStore {
    let store = another(world);
    store.open_takeover(&prefix(), None).await.unwrap();
    store
}

#[tokio::test]
async fn e9_a_takeover_begins_once_and_conflicts_are_typed() {
    let (world, plain) = world_of(3).await;
    let missing = world.store.open_takeover(&prefix(), None).await.unwrap_err();
    assert_eq!(kind(&missing), Some(ErrorKind::Misuse));
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let of = |error: Result<_, Error>| kind(&error.map(drop).unwrap_err());
    let conflict = Some(ErrorKind::Conflict);
    // Under way, across it, and open already.
    assert_eq!(of(world.store.begin_takeover(&prefix()).await), conflict);
    for across in ["", "data/0"] {
        assert_eq!(of(another(&world).begin_takeover(&across.into()).await), conflict, "{across}");
    }
    assert_eq!(of(world.store.open_takeover(&prefix(), None).await), conflict);
    takeover.run(&LIMITS).await.unwrap();
    // Finished is for good: what lies there now is sealed, or swapped.
    assert_eq!(of(another(&world).begin_takeover(&prefix()).await), conflict);
    let store = another(&world);
    assert!(store.open_takeover(&prefix(), None).await.unwrap().progress().finished);
    check(&store, &plain).await;
}

#[tokio::test]
async fn e9_of_two_who_begin_at_once_one_is_told() {
    for at in 1..12 {
        let (world, plain) = world_of(3).await;
        // The first comes to no end, at any request; the second begins anew.
        world.bent.fail_at(at);
        let first = world.store.begin_takeover(&prefix()).await;
        world.bent.fail_at(0);
        let store = another(&world);
        match (first, store.begin_takeover(&prefix()).await) {
            (_, Ok(takeover)) => assert_eq!(takeover.progress().objects, 3),
            (_, Err(error)) => {
                assert_eq!(kind(&error), Some(ErrorKind::Conflict), "{at}");
                store.open_takeover(&prefix(), None).await.unwrap();
            }
        }
        check(&store, &plain).await;
    }
    let (world, plain) = world_of(3).await;
    let (one, two) = (another(&world), another(&world));
    let (at_one, at_two) = (prefix(), prefix());
    let (first, second) = futures_util::join!(one.begin_takeover(&at_one), two.begin_takeover(&at_two));
    assert_eq!([first.is_ok(), second.is_ok()].iter().filter(|ok| **ok).count(), 1, "{first:?} {second:?}");
    check(&another_with_takeover(&world).await, &plain).await;
}

#[tokio::test]
async fn e9_where_nothing_is_listed_nothing_costs_more() {
    let (world, _) = world_of(3).await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let cost = async |store: &SealedStore, path: &str| {
        world.bent.fail_at(0);
        store.put(&path.into(), "new".into()).await.unwrap();
        store.get(&path.into()).await.unwrap().bytes().await.unwrap();
        store.head(&path.into()).await.unwrap();
        world.bent.operations()
    };
    assert_eq!(cost(&world.store, "data/new").await, 3);
    assert_eq!(cost(&world.store, "elsewhere").await, 3);
    // The manifest is written and looked at, once.
    assert_eq!(cost(&world.store, "data/001").await, 5);
    assert_eq!(cost(&world.store, "data/001").await, 3);
    world.bent.fail_at(0);
    read(&world.store, "data/002").await.unwrap();
    assert_eq!(world.bent.operations(), 2, "plaintext costs one look at the manifest more");
    takeover.run(&LIMITS).await.unwrap();
    assert_eq!(cost(&world.store, "data/002").await, 3);
}

#[tokio::test]
async fn e9_writes_of_every_kind_replace_plaintext() {
    let (world, mut plain) = world_of(8).await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let old = another_with_takeover(&world).await;
    let store = &world.store;
    let path = |number: usize| Path::from(format!("data/{number:03}"));
    store.put(&path(0), "put".into()).await.unwrap();
    plain[0].1 = b"put".to_vec();
    let found = store.head(&path(1)).await.unwrap();
    let version = object_store::UpdateVersion { e_tag: found.e_tag, version: found.version };
    store.put_opts(&path(1), "updated".into(), PutMode::Update(version).into()).await.unwrap();
    plain[1].1 = b"updated".to_vec();
    let taken = store.put_opts(&path(2), "created".into(), PutMode::Create.into()).await;
    assert!(matches!(taken, Err(Error::AlreadyExists { .. })));
    let mut upload = store.put_multipart(&path(3)).await.unwrap();
    upload.put_part(pattern(6_000_000).into()).await.unwrap();
    upload.complete().await.unwrap();
    plain[3].1 = pattern(6_000_000);
    store.copy(&path(2), &path(4)).await.unwrap();
    plain[4].1 = plain[2].1.clone();
    store.rename(&path(5), &path(6)).await.unwrap();
    plain[6].1 = std::mem::take(&mut plain[5].1);
    let deleted = store.delete_stream(
        futures_util::stream::iter([Ok(path(7)), Ok(".strongroom-takeover/root".into())]).boxed(),
    );
    let deleted: Vec<_> = deleted.collect().await;
    assert!(deleted[0].is_ok() && matches!(deleted[1], Err(Error::PermissionDenied { .. })));
    let plain: Vec<_> = [0, 1, 2, 3, 4, 6].map(|at| plain[at].clone()).to_vec();
    assert_eq!(takeover.progress().objects_left, 1, "acknowledged: not listed any more");
    check(store, &plain).await;
    check(&old, &plain).await;
    check(&another_with_takeover(&world).await, &plain).await;
    takeover.run(&LIMITS).await.unwrap();
    check(&another(&world), &plain).await;
}

#[tokio::test]
async fn e9_a_copy_that_storage_makes_never_copies_plaintext() {
    let world = World::new();
    let context = Context::new(&[b"all"]);
    let route = Route::sealed_in(world.customer.account.clone(), context);
    assert!(matches!(route, Route::Sealed { binding: Binding::Context(_), .. }));
    let router = ByPrefix::new().with("data", route);
    let store = SealedStore::builder(world.bent.clone(), "bucket", router).build().unwrap();
    for name in ["a", "b", "c"] {
        world.store_raw(&format!("data/{name}"), name.as_bytes()).await;
    }
    let takeover = store.begin_takeover(&prefix()).await.unwrap();
    store.copy(&"data/a".into(), &"data/a2".into()).await.unwrap();
    store.rename(&"data/b".into(), &"data/b2".into()).await.unwrap();
    store.copy(&"data/a2".into(), &"data/c".into()).await.unwrap();
    assert_eq!(takeover.progress().objects_left, 1);
    for (path, expected) in [("data/a2", "a"), ("data/b2", "b"), ("data/c", "a"), ("data/a", "a")] {
        assert_eq!(read(&store, path).await.unwrap(), expected.as_bytes());
    }
    assert_eq!(world.stored("data/a2").await.len(), HEADER + 1 + 48);
    assert_eq!(world.stored("data/b2").await.len(), HEADER + 1 + 48);
}

#[tokio::test]
async fn e9_the_manifest_is_nobodys_to_see_or_touch() {
    let (world, _) = world_of(3).await;
    world.store.begin_takeover(&prefix()).await.unwrap();
    for store in [world.store.clone(), another(&world)] {
        let all: Vec<_> = world.bent.memory.list(None).try_collect().await.unwrap();
        let reserved: Vec<_> = all
            .into_iter()
            .filter(|meta: &object_store::ObjectMeta| meta.location.as_ref().contains("strongroom"))
            .collect();
        assert_eq!(reserved.len(), 2);
        for meta in reserved {
            let denied = |error: Error| assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
            let path = &meta.location;
            denied(store.get(path).await.unwrap_err());
            denied(store.head(path).await.unwrap_err());
            denied(store.put(path, "x".into()).await.unwrap_err());
            denied(store.put_multipart(path).await.map(drop).unwrap_err());
            denied(store.delete(path).await.unwrap_err());
            denied(store.copy(path, &"x".into()).await.unwrap_err());
            denied(store.rename(&"data/000".into(), path).await.unwrap_err());
        }
        let shown: Vec<_> = store.list(None).try_collect().await.unwrap();
        let foreign: Vec<_> = store.list_foreign(None).try_collect().await.unwrap();
        for meta in shown.into_iter().chain(foreign) {
            assert!(!meta.location.as_ref().contains("strongroom"));
        }
        assert!(store.list_with_delimiter(Some(&prefix())).await.unwrap().common_prefixes.is_empty());
    }
}

#[tokio::test]
async fn e9_a_listing_that_is_older_than_the_sealing_still_tells_plain_sizes() {
    let (world, plain) = world_of(10).await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let begun = world.store.list(Some(&prefix()));
    takeover.run(&LIMITS).await.unwrap();
    let listed: Vec<_> = begun.try_collect().await.unwrap();
    let sizes: Vec<_> = listed.iter().map(|meta| meta.size).collect();
    assert_eq!(sizes, plain.iter().map(|(_, plain)| plain.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn e9_d1_a_revoked_account_serves_no_plaintext_and_sealing_resumes_with_the_key() {
    let (world, plain) = world_of(9).await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    takeover.step(&LIMITS).await.unwrap();
    let left = takeover.progress().objects_left;
    world.bent.lie(crate::world::Lie::Pieces(100));
    let mut under_way = world.store.get(&"data/008".into()).await.unwrap().into_stream();
    under_way.next().await.unwrap().unwrap();
    world.bent.lie(None);
    world.customer.revoke();
    assert_eq!(kind(&under_way.next().await.unwrap().unwrap_err()), Some(ErrorKind::Revoked));
    for (path, plain) in &plain {
        let location = Path::from(path.as_str());
        assert_eq!(kind(&read(&world.store, path).await.unwrap_err()), Some(ErrorKind::Revoked));
        let ranges = world.store.get_ranges(&location, std::slice::from_ref(&(0..1))).await;
        assert_eq!(kind(&ranges.unwrap_err()), Some(ErrorKind::Revoked));
        assert_eq!(
            kind(&world.store.put(&location, "x".into()).await.unwrap_err()),
            Some(ErrorKind::Revoked)
        );
        assert_eq!(world.store.head(&location).await.unwrap().size, plain.len() as u64);
    }
    assert_eq!(kind(&takeover.run(&LIMITS).await.unwrap_err()), Some(ErrorKind::Revoked));
    assert_eq!((takeover.progress().objects_left, takeover.progress().failed), (left, 0));
    world.customer.restore();
    check(&world.store, &plain).await;
    assert!(takeover.run(&LIMITS).await.unwrap().finished);
    check(&another(&world), &plain).await;
}

#[tokio::test]
async fn e9_d4_the_lease_is_looked_at_after_the_manifest_was_asked() {
    let (world, _) = world_of(3).await;
    world.store.begin_takeover(&prefix()).await.unwrap();
    let all: Vec<_> = world.bent.memory.list(Some(&prefix())).try_collect().await.unwrap();
    let is_segment = |meta: &&object_store::ObjectMeta| meta.location.as_ref().ends_with("/00000000");
    let segment = all.iter().find(is_segment).unwrap().location.to_string();
    let haunted = Arc::new(crate::haunted::Haunted::over(world.bent.clone()));
    let store = store(haunted.clone(), &world.customer.account, BlockSize::MIN);
    store.open_takeover(&prefix(), None).await.unwrap();
    for ranges in [false, true] {
        // The customer disables the key while the manifest's answer is on its way.
        let customer = world.customer.clone();
        haunted.after_get(&segment, async move { customer.revoke() });
        let answer = match ranges {
            false => store.get(&"data/002".into()).await.map(drop),
            true => store.get_ranges(&"data/002".into(), &[0..5, 7..9]).await.map(drop),
        };
        assert_eq!(kind(&answer.unwrap_err()), Some(ErrorKind::Revoked));
        world.customer.restore();
    }
}

#[tokio::test]
async fn e9_large_objects_are_left_alone_or_replaced_in_parts_on_the_callers_word() {
    let world = World::with_large_blocks();
    let large = pattern(11 * 1024 * 1024);
    world.store_raw("data/large", &large).await;
    world.store_raw("data/small", b"small").await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let limits = LIMITS.one_request(1024 * 1024);
    let progress = takeover.run(&limits).await.unwrap();
    assert_eq!((progress.objects_left, progress.failed, progress.finished), (1, 1, false));
    let failures = takeover.failures();
    assert_eq!((failures[0].0.as_str(), failures[0].1.kind()), ("data/large", ErrorKind::Limit));
    assert_eq!(read(&world.store, "data/large").await.unwrap(), large);

    // A write that is under way keeps the object from being replaced, and the other way round.
    let path = Path::from("data/large");
    let parts = limits.large_objects_in_parts();
    let (sealed, written) =
        futures_util::join!(takeover.run(&parts), world.store.put(&path, "overwritten".into()));
    written.unwrap();
    assert!(sealed.unwrap().finished || takeover.run(&parts).await.unwrap().finished);
    assert_eq!(read(&world.store, "data/large").await.unwrap(), b"overwritten");

    world.store_raw("more/large", &large).await;
    let takeover = world.store.begin_takeover(&"more".into()).await.unwrap();
    assert!(takeover.run(&parts).await.unwrap().finished);
    assert_eq!(world.stored("more/large").await.len(), HEADER + large.len() + 48 * 176);
    assert_eq!(read(&world.store, "more/large").await.unwrap(), large);
}

#[tokio::test]
async fn e9_what_was_sealed_before_or_changed_past_the_store_is_noticed() {
    let (world, mut plain) = world_of(4).await;
    world.store.put(&"data/sealed".into(), "sealed before".into()).await.unwrap();
    let before = world.stored("data/sealed").await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    world.store_raw("data/002", &b"written past the store ".repeat(9)).await;
    let progress = takeover.run(&LIMITS).await.unwrap();
    assert_eq!((progress.objects_left, progress.failed, progress.finished), (1, 1, false));
    let failures = takeover.failures();
    assert_eq!((failures[0].0.as_str(), failures[0].1.kind()), ("data/002", ErrorKind::Conflict));
    assert_eq!(world.stored("data/sealed").await, before, "not sealed twice");
    assert!(
        kind(&read(&world.store, "data/002").await.unwrap_err()).is_some(),
        "nobody's word stands for it"
    );
    // The person decides what is to be there.
    world.store.put(&"data/002".into(), "decided".into()).await.unwrap();
    assert!(takeover.run(&LIMITS).await.unwrap().finished);
    plain[2].1 = b"decided".to_vec();
    plain.push(("data/sealed".to_owned(), b"sealed before".to_vec()));
    check(&another(&world), &plain).await;
}

#[tokio::test]
async fn e9_a_large_sealed_object_is_not_sealed_twice_in_parts() {
    let world = World::with_large_blocks();
    let large = pattern(6 * 1024 * 1024);
    world.store.put(&"data/sealed".into(), large.clone().into()).await.unwrap();
    let before = world.stored("data/sealed").await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let limits = LIMITS.one_request(1024 * 1024).large_objects_in_parts();
    assert!(takeover.run(&limits).await.unwrap().finished);
    assert!(world.stored("data/sealed").await == before, "sealed twice");
    assert_eq!(read(&world.store, "data/sealed").await.unwrap(), large);
}

#[tokio::test]
async fn e9_a_failed_object_holds_nothing_up_and_is_tried_again() {
    let (world, plain) = world_of(6).await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let mut failed = 0;
    world.bent.fail_on(true);
    for nth in 1..9 {
        world.bent.fail_at(nth);
        let _ = takeover.step(&LIMITS.batch(1).at_once(1)).await;
        world.bent.fail_at(0);
        failed = failed.max(takeover.progress().failed);
        check(&world.store, &plain).await;
    }
    assert!(failed > 0);
    assert!(takeover.failures().iter().all(|(_, error)| error.kind() == ErrorKind::Io));
    takeover.retry();
    assert_eq!(takeover.progress().failed, 0);
    assert!(takeover.run(&LIMITS).await.unwrap().finished);
    check(&another(&world), &plain).await;
}

#[tokio::test]
async fn e9_two_runners_and_two_writers_disturb_nothing() {
    let (world, mut plain) = world_of(60).await;
    world.store.begin_takeover(&prefix()).await.unwrap();
    let (one, two) = (another(&world), another(&world));
    let first = one.open_takeover(&prefix(), None).await.unwrap();
    let second = two.open_takeover(&prefix(), None).await.unwrap();
    let writer = async |store: &SealedStore, from: usize| {
        for number in (from..60).step_by(6) {
            store.put(&format!("data/{number:03}").into(), format!("new {number}").into()).await.unwrap();
        }
    };
    let limits = TakeoverLimits::DEFAULT.batch(7).at_once(3);
    let done = futures_util::join!(first.run(&limits), second.run(&limits), writer(&one, 1), writer(&two, 2));
    assert!(done.0.unwrap().finished && done.1.unwrap().finished);
    for (number, (_, bytes)) in plain.iter_mut().enumerate() {
        if number % 6 == 1 || number % 6 == 2 {
            *bytes = format!("new {number}").into_bytes();
        }
    }
    for store in [&one, &two, &another(&world)] {
        check(store, &plain).await;
    }
}

#[tokio::test]
async fn e9_writers_at_once_share_a_change_of_the_manifest() {
    let (world, _) = world_of(50).await;
    world.store.begin_takeover(&prefix()).await.unwrap();
    let slow = Arc::new(crate::haunted::Haunted::over(world.bent.clone()));
    let store = store(slow.clone(), &world.customer.account, BlockSize::MIN);
    let takeover = store.open_takeover(&prefix(), None).await.unwrap();
    slow.give_way();
    let writes = (0..50).map(|number| {
        let store = &store;
        async move { store.put(&format!("data/{number:03}").into(), "new".into()).await.unwrap() }
    });
    futures_util::future::join_all(writes).await;
    assert_eq!(takeover.progress().objects_left, 0);
    let changes = slow.writes_of("strongroom-takeover");
    assert!(changes <= 10, "{changes} changes for 50 writes");
}

#[tokio::test]
async fn e9_attributes_are_kept() {
    let world = World::new();
    let attributes = Attributes::from_iter([(Attribute::ContentType, "text/plain")]);
    let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
    world.bent.memory.put_opts(&"data/a".into(), "a".into(), options).await.unwrap();
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    assert_eq!(world.store.get(&"data/a".into()).await.unwrap().attributes, attributes);
    takeover.run(&LIMITS).await.unwrap();
    let answer = world.store.get_opts(&"data/a".into(), GetOptions::default()).await.unwrap();
    assert_eq!((answer.attributes, answer.meta.size), (attributes, 1));
}

#[tokio::test]
async fn e9_a_store_that_cannot_write_conditionally_has_nothing_begun() {
    let folder = tempfile::tempdir().unwrap();
    let disk = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    disk.put(&"data/a".into(), "plain".into()).await.unwrap();
    let customer = Customer::new();
    let store = store(Arc::new(disk), &customer.account, BlockSize::MIN);
    let error = store.begin_takeover(&prefix()).await.unwrap_err();
    assert!(matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. }), "{error}");
    let unfinished = store.open_takeover(&prefix(), None).await.unwrap_err();
    assert_eq!(kind(&unfinished), Some(ErrorKind::Misuse));
    assert!(kind(&read(&store, "data/a").await.unwrap_err()).is_some());
}

#[tokio::test]
async fn e9_many_segments_and_the_whole_store() {
    let world = World::new();
    for number in 0..2_300 {
        world.store_raw(&format!("{number:04}"), format!("plain {number}").as_bytes()).await;
    }
    let takeover = world.store.begin_takeover(&"".into()).await.unwrap();
    assert_eq!(takeover.mark().to_bytes().len(), 29 + 3 * 8);
    for path in ["0000", "0999", "1000", "2299"] {
        assert!(read(&world.store, path).await.unwrap().starts_with(b"plain"));
    }
    assert!(takeover.run(&TakeoverLimits::DEFAULT).await.unwrap().finished);
    assert_eq!(world.stored("1234").await.len(), HEADER + 10 + 48);
    const { assert!(FRAME == 4096 + 48) };
}
