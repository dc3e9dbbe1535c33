//! Many accounts behind one store, and what becomes of reads and writes when one is revoked (contract G1, D1, D2, D11).

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::store::{ByPrefix, Route};
use strongroom::{BlockSize, Context, ErrorKind};

use crate::SealedStore;
use crate::world::{BLOCK, Bent, Customer, Lie, World, kind, pattern};

/// `ada` and `bob` have a folder each, and everything else is denied.
pub(crate) struct Tenants {
    ada: Customer,
    bob: Customer,
    pub(crate) bent: Arc<Bent>,
    pub(crate) store: SealedStore,
}

impl Tenants {
    pub(crate) fn new() -> Self {
        let (ada, bob, bent) = (Customer::new(), Customer::new(), Arc::new(Bent::default()));
        let router = ByPrefix::new()
            .with("ada", Route::sealed(ada.account.clone()))
            .with("bob", Route::sealed(bob.account.clone()));
        let store = SealedStore::builder(bent.clone(), "bucket", router).block_size(BlockSize::MIN);
        Self { ada, bob, bent, store: store.build().unwrap() }
    }

    async fn read(&self, path: &str) -> object_store::Result<Vec<u8>> {
        Ok(self.store.get(&path.into()).await?.bytes().await?.to_vec())
    }
}

pub(crate) fn denied(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::PermissionDenied { .. }) && kind(error) == Some(ErrorKind::Misuse)
}

#[tokio::test]
async fn g1_d1_d2_one_tenant_revoked_fails_closed_and_the_other_goes_on() {
    let tenants = Tenants::new();
    let plain = pattern(3 * BLOCK);
    for path in ["ada/x", "bob/x"] {
        tenants.store.put(&path.into(), plain.clone().into()).await.unwrap();
        assert_eq!(tenants.read(path).await.unwrap(), plain);
    }
    let mut under_way = tenants.store.put_multipart(&"ada/y".into()).await.unwrap();
    under_way.put_part(plain.clone().into()).await.unwrap();

    tenants.ada.revoke();
    tenants.bent.reads();
    let ada: Path = "ada/x".into();
    let store = &tenants.store;
    let failures = [
        store.get(&ada).await.map(drop).unwrap_err(),
        store.get_range(&ada, 1..2).await.map(drop).unwrap_err(),
        store.get_ranges(&ada, &[1..2]).await.map(drop).unwrap_err(),
        store.put(&ada, "new".into()).await.map(drop).unwrap_err(),
        store.put_multipart(&ada).await.map(drop).unwrap_err(),
        store.copy(&ada, &"ada/z".into()).await.unwrap_err(),
        store.copy(&ada, &"bob/z".into()).await.unwrap_err(),
        store.rename(&"bob/x".into(), &ada).await.unwrap_err(),
        under_way.put_part("more".into()).await.unwrap_err(),
        under_way.complete().await.map(drop).unwrap_err(),
    ];
    for (at, failure) in failures.iter().enumerate() {
        assert_eq!(kind(failure), Some(ErrorKind::Revoked), "{at}: {failure}");
    }
    under_way.abort().await.unwrap();
    assert!(tenants.bent.reads().len() <= 1, "a closed account costs no request: only bob's was read");
    assert_eq!(store.head(&ada).await.unwrap().size, plain.len() as u64, "names and sizes are no secret");

    assert_eq!(tenants.read("bob/x").await.unwrap(), plain);
    store.put(&"bob/new".into(), "as ever".into()).await.unwrap();

    tenants.ada.restore();
    assert_eq!(tenants.read("ada/x").await.unwrap(), plain);
    assert!(store.head(&"ada/y".into()).await.is_err(), "what was not acknowledged is not there");
    store.put(&ada, "new".into()).await.unwrap();
    tenants.bob.revoke();
    assert_eq!(kind(&tenants.read("bob/x").await.unwrap_err()), Some(ErrorKind::Revoked));
}

#[tokio::test]
async fn g1_d1_a_stream_under_way_ends_where_the_lease_does() {
    let tenants = Tenants::new();
    let plain = pattern(3 * 1024 * 1024);
    tenants.store.put(&"ada/x".into(), plain.clone().into()).await.unwrap();
    let mut stream = tenants.store.get(&"ada/x".into()).await.unwrap().into_stream();
    let first = stream.try_next().await.unwrap().unwrap();
    assert_eq!(first, plain[..first.len()]);
    tenants.ada.revoke();
    assert_eq!(kind(&stream.try_next().await.unwrap_err()), Some(ErrorKind::Revoked));
    assert!(stream.next().await.is_none());
}

/// Storage itself puts a tenant's object where another one reads, or where that tenant has another object.
#[tokio::test]
async fn g1_f3_an_object_that_storage_put_at_another_path_gives_nothing_and_harms_nothing() {
    let tenants = Tenants::new();
    let store = &tenants.store;
    let plain = pattern(3 * BLOCK);
    store.put(&"ada/x".into(), plain.clone().into()).await.unwrap();
    for place in ["bob/x", "ada/y"] {
        // Warm, with the header of what was there.
        store.put(&place.into(), pattern(3 * BLOCK + 1).into()).await.unwrap();
        tenants.read(place).await.unwrap();
        tenants.bent.memory.copy(&"ada/x".into(), &place.into()).await.unwrap();
        let location = Path::from(place);
        let failures = [
            tenants.read(place).await.map(drop).unwrap_err(),
            store.get_range(&location, 1..2).await.map(drop).unwrap_err(),
            store.get_range(&location, 5_000..5_001).await.map(drop).unwrap_err(),
            store.get_ranges(&location, &[1..2]).await.map(drop).unwrap_err(),
            store.get_ranges(&location, &[5_000..5_001]).await.map(drop).unwrap_err(),
            store.copy(&location, &"bob/copy".into()).await.unwrap_err(),
            store.rename(&location, &"ada/x".into()).await.unwrap_err(),
        ];
        for failure in failures {
            assert_eq!(kind(&failure), Some(ErrorKind::Corrupt), "{place}: {failure}");
        }
        assert!(store.head(&"bob/copy".into()).await.is_err());
        assert_eq!(tenants.read("ada/x").await.unwrap(), plain);
        store.put(&location, "anew".into()).await.unwrap();
        assert_eq!(tenants.read(place).await.unwrap(), b"anew");
    }
}

/// Whether each tenant has contexts of their own, or both share one.
#[tokio::test]
async fn g1_what_is_copied_or_renamed_to_another_tenant_is_under_that_tenants_key_alone() {
    for shared in [false, true] {
        let Tenants { ada, bob, bent, mut store } = Tenants::new();
        if shared {
            let context = Context::new(&[b"any place"]);
            let router = ByPrefix::new()
                .with("ada", Route::sealed_in(ada.account.clone(), context))
                .with("bob", Route::sealed_in(bob.account.clone(), context));
            let builder = SealedStore::builder(bent.clone(), "bucket", router).block_size(BlockSize::MIN);
            store = builder.build().unwrap();
        }
        let tenants = Tenants { ada, bob, bent, store };
        let plain = pattern(3 * BLOCK);
        for path in ["ada/x", "ada/y"] {
            tenants.store.put(&path.into(), plain.clone().into()).await.unwrap();
        }
        tenants.store.copy(&"ada/x".into(), &"bob/copied".into()).await.unwrap();
        tenants.store.rename(&"ada/y".into(), &"bob/renamed".into()).await.unwrap();
        tenants.ada.revoke();
        for path in ["bob/copied", "bob/renamed"] {
            assert_eq!(tenants.read(path).await.unwrap(), plain, "{path} {shared}");
        }
        tenants.ada.restore();
        tenants.bob.revoke();
        for path in ["bob/copied", "bob/renamed"] {
            let error = tenants.read(path).await.unwrap_err();
            assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{path} {shared}");
        }
        assert_eq!(tenants.read("ada/x").await.unwrap(), plain);
    }
}

/// A router may change its mind about a path whose header is remembered.
#[tokio::test]
async fn f3_a_remembered_header_serves_no_other_account_and_no_other_context() {
    let (ada, bob, bent) = (Customer::new(), Customer::new(), Arc::new(Bent::default()));
    let (one, other) = (Context::new(&[b"one"]), Context::new(&[b"other"]));
    let routes = [(&ada, one), (&ada, other), (&bob, one)];
    let routes = routes.map(|(customer, context)| Route::sealed_in(customer.account.clone(), context));
    let chosen = Arc::new(AtomicUsize::new(0));
    let choice = chosen.clone();
    let router = move |_: &str| routes[choice.load(Ordering::SeqCst)].clone();
    let store = SealedStore::builder(bent, "bucket", router).block_size(BlockSize::MIN).build().unwrap();
    let (at, plain) = (Path::from("x"), pattern(3 * BLOCK));
    store.put(&at, plain.clone().into()).await.unwrap();
    for others in [1, 2] {
        chosen.store(0, Ordering::SeqCst);
        assert_eq!(store.get_range(&at, 5_000..5_001).await.unwrap(), plain[5_000..5_001]);
        chosen.store(others, Ordering::SeqCst);
        let range = store.get_range(&at, 5_000..5_001).await.map(drop);
        let ranges = store.get_ranges(&at, &[5_000..5_001]).await.map(drop);
        for refused in [range.unwrap_err(), ranges.unwrap_err()] {
            assert_eq!(kind(&refused), Some(ErrorKind::Corrupt), "{others}: {refused}");
        }
    }
}

#[tokio::test]
async fn d4_plaintext_is_not_released_after_a_wait_that_the_lease_did_not_outlast() {
    let world = World::new();
    world.put("a", &pattern(3 * BLOCK)).await;
    world.bent.lie(Lie::Revoked(world.customer.clone()));
    let read = world.read("a").await.map(drop);
    assert_eq!(kind(&read.unwrap_err()), Some(ErrorKind::Revoked));
    world.customer.restore();
    let ranges = world.store.get_ranges(&"a".into(), &[0..1, 9_000..9_001]).await;
    assert_eq!(kind(&ranges.unwrap_err()), Some(ErrorKind::Revoked));
    world.bent.lie(None);
    world.customer.restore();
    assert_eq!(world.read("a").await.unwrap(), pattern(3 * BLOCK));
}

#[tokio::test]
async fn g1_what_the_router_denies_is_refused_and_touches_nothing() {
    let tenants = Tenants::new();
    let store = &tenants.store;
    let (mine, other): (Path, Path) = ("ada/x".into(), "carol/x".into());
    store.put(&mine, "x".into()).await.unwrap();
    tenants.bent.fail_at(0);
    let failures = [
        store.put(&other, "x".into()).await.map(drop).unwrap_err(),
        store.put_multipart(&other).await.map(drop).unwrap_err(),
        store.get(&other).await.map(drop).unwrap_err(),
        store.head(&other).await.map(drop).unwrap_err(),
        store.get_ranges(&other, &[0..1]).await.map(drop).unwrap_err(),
        store.copy(&mine, &other).await.unwrap_err(),
        store.copy(&other, &mine).await.unwrap_err(),
        store.copy_if_not_exists(&mine, &other).await.unwrap_err(),
        store.rename(&mine, &other).await.unwrap_err(),
        store.rename_if_not_exists(&other, &mine).await.unwrap_err(),
    ];
    assert!(failures.iter().all(denied), "{failures:?}");
    assert_eq!(tenants.bent.operations(), 0);
    assert!(denied(&store.delete(&other).await.unwrap_err()));
}

#[tokio::test]
async fn refused_deletions_keep_their_places_among_the_others() {
    let tenants = Tenants::new();
    let names = ["carol/1", "ada/1", "carol/2", "carol/3", "bob/1", "ada/2", "carol/4"];
    for name in names.iter().filter(|name| !name.starts_with("carol")) {
        tenants.store.put(&(*name).into(), "x".into()).await.unwrap();
    }
    let paths = stream::iter(names).map(|name| Ok(name.into())).boxed();
    let results: Vec<_> = tenants.store.delete_stream(paths).collect().await;
    assert_eq!(results.len(), names.len());
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(path) => assert_eq!(path, (*name).into()),
            Err(error) => assert!(name.starts_with("carol") && denied(&error)),
        }
    }
    assert_eq!(tenants.store.list(None).count().await, 0);
}

#[tokio::test]
async fn a_long_run_of_refused_deletions_is_given_out_as_it_comes() {
    let tenants = Tenants::new();
    for allowed in [0, 1] {
        tenants.store.put(&"ada/1".into(), "x".into()).await.unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = {
            let taken = Arc::clone(&taken);
            move |_: &Result<Path, object_store::Error>| {
                taken.fetch_add(1, Ordering::SeqCst);
            }
        };
        let names = iter::repeat_n("ada/1", allowed).chain(iter::repeat_n("carol/1", 10_000));
        let paths = stream::iter(names).map(|name| Ok(name.into())).inspect(counted).boxed();
        let mut results = tenants.store.delete_stream(paths);
        for index in 0..10 {
            let result = results.next().await.unwrap();
            assert_eq!(index < allowed, result.is_ok());
            assert!(result.is_ok() || denied(&result.unwrap_err()));
        }
        assert!(taken.load(Ordering::SeqCst) < 200, "{} paths are taken", taken.load(Ordering::SeqCst));
        assert_eq!(results.count().await, 10_000 + allowed - 10);
        assert_eq!(taken.load(Ordering::SeqCst), 10_000 + allowed);
    }
}

#[tokio::test]
async fn a_router_may_be_a_closure_fail_and_choose_a_context() {
    use strongroom::store::{Router, Routing};

    let world = World::new();
    let account = world.customer.account.clone();
    let context = Context::new(&[b"any place"]);
    let closure = move |path: &str| match path {
        "closed" => Route::Deny,
        _ => Route::sealed_in(account.clone(), context),
    };
    let store = SealedStore::builder(world.bent.clone(), "bucket", closure).build().unwrap();
    store.put(&"a".into(), "x".into()).await.unwrap();
    store.copy(&"a".into(), &"b".into()).await.unwrap();
    assert_eq!(world.stored("a").await, world.stored("b").await, "copied by the storage");
    assert_eq!(store.get(&"b".into()).await.unwrap().bytes().await.unwrap(), "x");
    store.rename(&"b".into(), &"c".into()).await.unwrap();
    assert_eq!(store.get(&"c".into()).await.unwrap().bytes().await.unwrap(), "x");
    assert!(denied(&store.put(&"closed".into(), "x".into()).await.unwrap_err()));

    struct Failing;
    impl Router for Failing {
        fn route<'a>(&'a self, _: &'a str) -> Routing<'a> {
            Routing::later(async { Err("the directory is down".into()) })
        }
    }
    let store = SealedStore::builder(world.bent.clone(), "bucket", Failing).build().unwrap();
    let error = store.get(&"a".into()).await.unwrap_err();
    assert!(error.to_string().contains("the directory is down"), "{error}");
}

#[tokio::test]
async fn d11_a_write_overtaken_by_a_closing_is_not_acknowledged() {
    let world = World::new();
    // The upload began before; the account has a valid lease again, in another epoch.
    let mut upload = world.store.put_multipart(&"a".into()).await.unwrap();
    upload.put_part("part".into()).await.unwrap();
    world.customer.interrupt();
    let error = upload.complete().await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::NotReady), "{error}");
    assert!(world.store.head(&"a".into()).await.is_err());
    let mut again = world.store.put_multipart(&"a".into()).await.unwrap();
    again.put_part("part".into()).await.unwrap();
    again.complete().await.unwrap();
}
