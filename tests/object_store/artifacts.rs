//! Small named artifacts in the customer's own store (contract G4).

use std::sync::Arc;

use futures_util::future::join_all;
use object_store::ObjectStoreExt;
use strongroom::store::{ArtifactInfo, ArtifactVersion, Route};
use strongroom::{BlockSize, Context, ErrorKind};

use crate::world::{World, pattern};
use crate::{Artifacts, SealedStore};

fn artifacts(world: &World) -> Artifacts {
    Artifacts::new(world.store.clone(), "queries/saved").unwrap()
}

fn number(number: u64) -> ArtifactVersion {
    ArtifactVersion::new(number).unwrap()
}

fn shown(infos: &[ArtifactInfo]) -> Vec<(&str, u64, u64)> {
    infos.iter().map(|info| (info.name.as_str(), info.version.number(), info.size)).collect()
}

fn path(name: &str, version: u64) -> object_store::path::Path {
    format!("queries/saved/{name}/{version:020}").into()
}

#[tokio::test]
async fn g4_artifacts_have_names_and_versions_and_are_listed_without_a_key() {
    let world = World::new();
    let queries = artifacts(&world);
    assert_eq!(queries.get("a").await.unwrap(), None);
    assert!(queries.list().await.unwrap().is_empty());
    let first = queries.put("a", "one".into(), None).await.unwrap();
    let second = queries.put("a", "two, longer".into(), Some(first)).await.unwrap();
    queries.put("b/../Ä ?", pattern(Artifacts::MAX_LEN).into(), None).await.unwrap();
    let newest = queries.get("a").await.unwrap().unwrap();
    assert_eq!((newest.version, newest.bytes.as_ref()), (second, &b"two, longer"[..]));
    assert_eq!(queries.get_version("a", first).await.unwrap().unwrap().bytes, "one");
    assert_eq!(queries.get_version("a", number(3)).await.unwrap(), None);
    assert_eq!(queries.get("b/../Ä ?").await.unwrap().unwrap().bytes, pattern(Artifacts::MAX_LEN));
    assert_eq!(format!("{newest:?}"), "Artifact(version 2, 11 bytes)");

    // Neither a request for an object nor the account's key.
    world.customer.revoke();
    world.bent.reads();
    let all = queries.list().await.unwrap();
    assert_eq!(shown(&all), [("a", 2, 11), ("b/../Ä ?", 1, Artifacts::MAX_LEN as u64)]);
    assert_eq!(shown(&queries.versions("a").await.unwrap()), [("a", 1, 3), ("a", 2, 11)]);
    assert!(world.bent.reads().is_empty());
}

#[tokio::test]
async fn g4_d1_d2_all_but_listings_fails_when_the_customer_revokes() {
    let world = World::new();
    let queries = artifacts(&world);
    let first = queries.put("a", "one".into(), None).await.unwrap();
    world.customer.revoke();
    let failures = [
        queries.get("a").await.map(drop),
        queries.get_version("a", first).await.map(drop),
        queries.put("a", "two".into(), Some(first)).await.map(drop),
        queries.put("b", "one".into(), None).await.map(drop),
        queries.delete("a", first).await,
    ];
    assert!(failures.iter().all(|failed| failed.as_ref().unwrap_err().kind() == ErrorKind::Revoked));
    assert_eq!(shown(&queries.list().await.unwrap()), [("a", 1, 3)], "and nothing has changed");
    world.customer.restore();
    assert_eq!(queries.get("a").await.unwrap().unwrap().bytes, "one");
}

#[tokio::test]
async fn g4_of_those_who_put_at_the_same_time_one_succeeds() {
    let world = World::new();
    let queries = artifacts(&world);
    let mut newest = None;
    for round in 0..20 {
        let puts = join_all((0..8).map(|nth| queries.put("a", format!("{round} {nth}").into(), newest)));
        let (done, lost): (Vec<_>, Vec<_>) = puts.await.into_iter().partition(Result::is_ok);
        assert_eq!(done.len(), 1);
        assert!(lost.into_iter().all(|lost| lost.unwrap_err().kind() == ErrorKind::Conflict));
        newest = Some(done.into_iter().next().unwrap().unwrap());
        assert_eq!(newest, Some(number(round + 1)));
    }
    for wrong in [None, Some(number(1)), Some(number(21)), Some(number(u64::MAX))] {
        assert_eq!(queries.put("a", "x".into(), wrong).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    assert_eq!(queries.put("b", "x".into(), newest).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn g4_a_deletion_is_a_version_and_no_number_is_used_twice() {
    let world = World::new();
    let queries = artifacts(&world);
    let first = queries.put("a", "one".into(), None).await.unwrap();
    let second = queries.put("a", "two".into(), Some(first)).await.unwrap();
    let old = world.stored(path("a", 2).as_ref()).await;
    assert_eq!(queries.delete("a", first).await.unwrap_err().kind(), ErrorKind::Conflict);
    queries.delete("a", second).await.unwrap();
    assert_eq!(queries.get("a").await.unwrap(), None);
    assert!(queries.list().await.unwrap().is_empty() && queries.versions("a").await.unwrap().is_empty());
    assert_eq!(queries.get_version("a", second).await.unwrap(), None);
    assert_eq!(queries.delete("a", second).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(queries.delete("a", number(3)).await.unwrap_err().kind(), ErrorKind::Conflict);
    // An object put back by the storage is the old version, and does not pass for the one that comes next.
    let again = queries.put("a", "anew".into(), None).await.unwrap();
    assert_eq!(again, number(4));
    world.store_raw(path("a", 4).as_ref(), &old).await;
    assert_eq!(queries.get("a").await.unwrap_err().kind(), ErrorKind::Corrupt);
    world.store_raw(path("a", 2).as_ref(), &old).await;
    assert_eq!(queries.get_version("a", second).await.unwrap().unwrap().version, second);
    queries.prune("a", number(u64::MAX)).await.unwrap();
    assert_eq!(shown(&queries.versions("a").await.unwrap()), [("a", 4, 3)], "the newest stays");
}

#[tokio::test]
async fn g4_f3_versions_and_names_cannot_be_exchanged() {
    let world = World::new();
    let queries = artifacts(&world);
    let first = queries.put("a", "one".into(), None).await.unwrap();
    queries.put("a", "two".into(), Some(first)).await.unwrap();
    queries.put("b", "one".into(), None).await.unwrap();
    let [one, other] = [world.stored(path("a", 1).as_ref()).await, world.stored(path("b", 1).as_ref()).await];
    for attack in [&one, &other] {
        world.store_raw(path("a", 2).as_ref(), attack).await;
        assert_eq!(queries.get("a").await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    world.store_raw(path("b", 1).as_ref(), &one).await;
    assert_eq!(queries.get("b").await.unwrap_err().kind(), ErrorKind::Corrupt);
    // What is not detected without an anchor, and is said: the newest version is gone.
    world.bent.memory.delete(&path("a", 2)).await.unwrap();
    assert_eq!(queries.get("a").await.unwrap().unwrap().version, first);

    // Where the router binds to less than the place, there would be no telling versions apart.
    let account = world.customer.account.clone();
    let route = move |_: &str| Route::sealed_in(account.clone(), Context::new(&[b"all"]));
    let loose =
        SealedStore::builder(world.bent.clone(), "bucket", route).block_size(BlockSize::MIN).build().unwrap();
    let loose = Artifacts::new(loose, "queries/saved").unwrap();
    assert_eq!(loose.put("c", "x".into(), None).await.unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(loose.get("a").await.unwrap_err().kind(), ErrorKind::Misuse);
}

#[tokio::test]
async fn g4_f2_sizes_names_and_listings_are_bounded() {
    let world = World::new();
    let queries = artifacts(&world);
    let long = "x".repeat(Artifacts::MAX_NAME + 1);
    for (name, len, kind) in [
        ("", 1, ErrorKind::Misuse),
        (long.as_str(), 1, ErrorKind::Misuse),
        ("a", 0, ErrorKind::Misuse),
        ("a", Artifacts::MAX_LEN + 1, ErrorKind::Limit),
    ] {
        assert_eq!(queries.put(name, pattern(len).into(), None).await.unwrap_err().kind(), kind);
    }
    assert!(world.bent.memory.get(&path("a", 1)).await.is_err());
    assert_eq!(queries.get(&long).await.unwrap_err().kind(), ErrorKind::Misuse);
    // Sealed past this, and longer than an artifact may be.
    world.store.put(&path("a", 1), pattern(Artifacts::MAX_LEN + 1).into()).await.unwrap();
    assert_eq!(queries.get("a").await.unwrap_err().kind(), ErrorKind::Limit);
    // Somebody else's objects are no artifacts.
    for stray in [
        "queries/saved/x",
        "queries/saved/A/00000000000000000001",
        "queries/saved/b/1",
        "queries/saved/b/00000000000000000001/x",
    ] {
        world.store.put(&stray.into(), "stray".into()).await.unwrap();
    }
    world.store.put(&"queries/savedelsewhere".into(), "stray".into()).await.unwrap();
    assert_eq!(shown(&queries.list().await.unwrap()).len(), 1);
    assert!(Artifacts::new(world.store.clone(), "a//b").is_err());

    let everything = Artifacts::new(world.store.clone(), "").unwrap();
    let stored = world.stored(path("a", 1).as_ref()).await[..129].to_vec();
    for nth in 0..=Artifacts::MAX_LISTED {
        let bytes = stored.clone().into();
        world.bent.memory.put(&format!("c/{:020}", nth + 1).into(), bytes).await.unwrap();
    }
    assert_eq!(everything.list().await.unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(everything.get("c").await.unwrap_err().kind(), ErrorKind::Limit);
}

#[tokio::test]
async fn g4_whatever_request_fails_the_artifact_is_the_old_or_the_new_one() {
    for nth in 1..=4 {
        let world = World::new();
        let queries = Arc::new(artifacts(&world));
        let first = queries.put("a", "one".into(), None).await.unwrap();
        world.bent.fail_at(nth);
        let put = queries.put("a", "two".into(), Some(first)).await;
        let deleted = queries.delete("a", number(2)).await;
        world.bent.fail_at(0);
        for error in [put.map(drop), deleted].into_iter().filter_map(Result::err) {
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Conflict), "{nth}: {error}");
        }
        match queries.get("a").await.unwrap() {
            Some(artifact) if artifact.version == first => assert_eq!(artifact.bytes, "one"),
            Some(artifact) => {
                assert_eq!((artifact.version, artifact.bytes.as_ref()), (number(2), &b"two"[..]))
            }
            None => assert!(queries.list().await.unwrap().is_empty()),
        }
    }
}
