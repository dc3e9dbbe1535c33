//! Whoever can write to the storage tries to have plaintext taken for what was sealed (contract E9).

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use strongroom::store::{OneAccount, TakeoverMark};
use strongroom::{BlockSize, ErrorKind};

use crate::SealedStore;
use crate::haunted::Haunted;
use crate::takeover::{LIMITS, another, check, prefix, read, world_of};
use crate::world::{Customer, World, kind, store};

/// The objects of the manifest in the storage, the root last.
async fn manifest(world: &World) -> Vec<Path> {
    let all: Vec<ObjectMeta> = world.bent.memory.list(None).try_collect().await.unwrap();
    let paths = all.into_iter().map(|meta| meta.location);
    let mut paths: Vec<_> = paths.filter(|path| path.as_ref().contains(".strongroom-takeover")).collect();
    paths.sort_by_key(|path| path.as_ref().ends_with("root"));
    paths
}

async fn bytes(memory: &InMemory, path: &Path) -> Vec<u8> {
    memory.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

async fn replay(world: &World, before: &InMemory, path: &Path) {
    world.store_raw(path.as_ref(), &bytes(before, path).await).await;
}

/// What a read of plaintext that is refused comes to: the bytes are no sealed object, or none that opens.
fn refused(read: object_store::Result<Vec<u8>>) {
    let kind = kind(&read.expect_err("it was refused"));
    assert!(matches!(kind, Some(ErrorKind::Format | ErrorKind::Corrupt | ErrorKind::Untrusted)), "{kind:?}");
}

/// All ways of reading.
async fn refuses(store: &SealedStore, path: &str) {
    refused(read(store, path).await);
    let location = Path::from(path);
    refused(store.get_range(&location, 1..9).await.map(|bytes| bytes.to_vec()));
    refused(store.get_ranges(&location, &[1..9, 20..30]).await.map(|mut bytes| bytes.remove(0).to_vec()));
    refused(store.copy(&location, &"elsewhere".into()).await.map(|()| Vec::new()));
}

/// A world over a store that can be haunted, with the takeover open in the process that works, and in one that only looked once.
struct Scene {
    world: World,
    haunted: Arc<Haunted>,
    live: SealedStore,
    stale: SealedStore,
    before: InMemory,
    takeover: Box<dyn Fn() -> TakeoverMark>,
}

impl Scene {
    async fn new() -> Self {
        let (world, _) = world_of(6).await;
        world.store.begin_takeover(&prefix()).await.unwrap();
        let haunted = Arc::new(Haunted::over(world.bent.clone()));
        let process = || store(haunted.clone(), &world.customer.account, BlockSize::MIN);
        let (live, stale) = (process(), process());
        let takeover = live.open_takeover(&prefix(), None).await.unwrap();
        stale.open_takeover(&prefix(), None).await.unwrap();
        let before = world.bent.memory.fork();
        Self { haunted, live, stale, before, world, takeover: Box::new(move || takeover.mark()) }
    }

    fn process(&self) -> SealedStore {
        store(self.haunted.clone(), &self.world.customer.account, BlockSize::MIN)
    }

    async fn opened_without_a_mark(&self) -> SealedStore {
        let store = self.process();
        store.open_takeover(&prefix(), None).await.unwrap();
        store
    }
}

/// Each way in which what was plaintext stops being so.
async fn replaced_in_every_way(scene: &Scene) -> [&'static str; 5] {
    scene.live.put(&"data/001".into(), "put".into()).await.unwrap();
    scene.live.delete(&"data/002".into()).await.unwrap();
    scene.live.rename(&"data/003".into(), &"data/moved".into()).await.unwrap();
    scene.live.copy(&"data/001".into(), &"data/004".into()).await.unwrap();
    let mut upload = scene.live.put_multipart(&"data/005".into()).await.unwrap();
    upload.put_part("uploaded".into()).await.unwrap();
    upload.complete().await.unwrap();
    ["data/001", "data/002", "data/003", "data/004", "data/005"]
}

#[tokio::test]
async fn e9_plaintext_put_back_after_an_acknowledged_write_is_refused_by_every_process() {
    let scene = Scene::new().await;
    let paths = replaced_in_every_way(&scene).await;
    for path in paths {
        scene.world.store_raw(path, &bytes(&scene.before, &path.into()).await).await;
    }
    for store in [&scene.live, &scene.stale, &scene.opened_without_a_mark().await] {
        for path in paths {
            refuses(store, path).await;
        }
    }
}

#[tokio::test]
async fn e9_also_where_storage_gives_the_old_identity_back_with_it() {
    let scene = Scene::new().await;
    let paths = replaced_in_every_way(&scene).await;
    scene.haunted.haunt(scene.before.clone(), &paths);
    for store in [&scene.live, &scene.stale, &scene.opened_without_a_mark().await] {
        for path in paths {
            refuses(store, path).await;
        }
    }
}

#[tokio::test]
async fn e9_plaintext_put_back_after_it_was_sealed_is_refused_and_never_sealed_again() {
    let (world, plain) = world_of(6).await;
    world.store.begin_takeover(&prefix()).await.unwrap();
    let haunted = Arc::new(Haunted::over(world.bent.clone()));
    let process = || store(haunted.clone(), &world.customer.account, BlockSize::MIN);
    let (live, stale) = (process(), process());
    let takeover = live.open_takeover(&prefix(), None).await.unwrap();
    let other = stale.open_takeover(&prefix(), None).await.unwrap();
    let before = world.bent.memory.fork();
    assert!(takeover.run(&LIMITS).await.unwrap().finished);
    haunted.haunt(before, &["data/001", "data/004"]);
    for path in ["data/001", "data/004"] {
        refuses(&live, path).await;
        refuses(&stale, path).await;
    }
    // A second runner with an old copy does not launder it.
    let sealed = world.stored("data/004").await;
    assert!(other.run(&LIMITS).await.unwrap().finished);
    assert_eq!(world.stored("data/004").await, sealed);
    haunted.haunt(InMemory::new(), &[]);
    check(&stale, &plain).await;
}

#[tokio::test]
async fn e9_a_runner_neither_launders_plaintext_nor_undoes_a_write() {
    let scene = Scene::new().await;
    let segment = manifest(&scene.world).await.remove(0).to_string();
    let runner = scene.process();
    let takeover = runner.open_takeover(&prefix(), None).await.unwrap();
    // The runner has looked at the manifest for its batch. Then an object is overwritten, acknowledged, and the old one put back with
    // its identity.
    let (live, haunted, before) = (scene.live.clone(), scene.haunted.clone(), scene.before.clone());
    scene.haunted.after_get(&segment, async move {
        live.put(&"data/000".into(), "acknowledged".into()).await.unwrap();
        haunted.haunt(before, &["data/000"]);
    });
    takeover.step(&LIMITS).await.unwrap();
    assert_eq!(takeover.progress().failed, 0, "it did not try");
    scene.haunted.haunt(InMemory::new(), &[]);
    assert_eq!(read(&scene.live, "data/000").await.unwrap(), b"acknowledged");

    // Now it has looked after the plaintext had arrived too, and only then the object is overwritten.
    let (live, haunted, again) = (scene.live.clone(), scene.haunted.clone(), segment.clone());
    scene.haunted.after_get(&segment, async move {
        haunted.after_get(&again, async move {
            for number in 0..6 {
                live.put(&format!("data/{number:03}").into(), "overwritten".into()).await.unwrap();
            }
        });
    });
    assert!(takeover.run(&LIMITS).await.unwrap().finished);
    for number in 0..6 {
        let path = format!("data/{number:03}");
        assert_eq!(read(&scene.stale, &path).await.unwrap(), b"overwritten", "{path}");
    }
}

#[tokio::test]
async fn e9_a_write_to_what_is_sealed_and_not_yet_unlisted_is_acknowledged_after_it_is() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let store = another(world);
    let takeover = store.open_takeover(&prefix(), None).await.unwrap();
    // Looks, reads, looks, seals; and then the manifest cannot be written.
    world.bent.fail_on(true);
    world.bent.fail_at(5);
    takeover.step(&LIMITS.batch(1)).await.unwrap_err();
    world.bent.fail_at(0);
    let sealed = async |path: &str| world.stored(path).await.starts_with(b"\x89SRO");
    let mut path = None;
    for number in 0..6 {
        let candidate = format!("data/{number:03}");
        if sealed(&candidate).await {
            path = Some(candidate);
        }
    }
    let path = path.expect("one was sealed");
    assert_eq!(takeover.progress().objects_left, 6, "sealed, and listed still");
    store.put(&path.as_str().into(), "acknowledged".into()).await.unwrap();
    assert_eq!(takeover.progress().objects_left, 5);
    scene.haunted.haunt(scene.before.clone(), &[&path]);
    for store in [&scene.live, &scene.stale, &scene.opened_without_a_mark().await] {
        refused(read(store, &path).await);
    }
}

#[tokio::test]
async fn e9_the_manifest_is_asked_after_the_plaintext_has_arrived() {
    for ranges in [false, true] {
        let scene = Scene::new().await;
        // While the old answer is on its way somebody overwrites the object and is told that it is done.
        let live = scene.live.clone();
        scene.haunted.after_get("data/005", async move {
            live.put(&"data/005".into(), "the new one, acknowledged".into()).await.unwrap();
        });
        let location = Path::from("data/005");
        let read = match ranges {
            false => read(&scene.stale, "data/005").await.unwrap(),
            true => scene.stale.get_ranges(&location, &[0..3, 3..25]).await.unwrap().concat(),
        };
        assert_eq!(read, b"the new one, acknowledged");
    }
}

#[tokio::test]
async fn e9_an_old_segment_put_back_is_noticed_by_who_saw_it_and_by_who_kept_a_mark() {
    let scene = Scene::new().await;
    let segment = manifest(&scene.world).await.remove(0);
    scene.live.put(&"data/004".into(), "new".into()).await.unwrap();
    let mark = TakeoverMark::parse(&(scene.takeover)().to_bytes()).unwrap();
    // The storage's own interface is used: the same bytes, a new identity; and the object comes back as it was.
    replay(&scene.world, &scene.before, &segment).await;
    scene.haunted.haunt(scene.before.clone(), &["data/004", "data/005"]);
    refuses(&scene.live, "data/004").await;
    refuses(&scene.stale, "data/004").await;
    // Nor is anything else of that segment believed.
    for store in [&scene.live, &scene.stale] {
        assert_eq!(kind(&read(store, "data/005").await.unwrap_err()), Some(ErrorKind::Untrusted));
        let written = store.put(&"data/003".into(), "x".into()).await.unwrap_err();
        assert_eq!(kind(&written), Some(ErrorKind::Untrusted), "not acknowledged");
    }
    let rolled_back = scene.process().open_takeover(&prefix(), Some(&mark)).await.unwrap_err();
    assert_eq!(kind(&rolled_back), Some(ErrorKind::Untrusted));
    // Without a mark nothing is claimed, and nothing noticed.
    let unaware = scene.opened_without_a_mark().await;
    assert!(read(&unaware, "data/004").await.is_ok());
}

#[tokio::test]
async fn e9_a_root_set_back_or_removed_is_noticed_by_who_kept_a_mark() {
    let (world, _) = world_of(4).await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let before = world.bent.memory.fork();
    assert!(takeover.run(&LIMITS).await.unwrap().finished);
    let mark = takeover.mark();
    assert!(another(&world).open_takeover(&prefix(), Some(&mark)).await.unwrap().progress().finished);
    // The root alone, which is put back first, and everything.
    let parts: Vec<_> = manifest(&world).await.into_iter().rev().collect();
    for path in parts {
        replay(&world, &before, &path).await;
        let old = another(&world).open_takeover(&prefix(), Some(&mark)).await.unwrap_err();
        assert_eq!(kind(&old), Some(ErrorKind::Untrusted), "{path}");
    }
    let old = another(&world).open_takeover(&prefix(), Some(&mark)).await.unwrap_err();
    assert_eq!(kind(&old), Some(ErrorKind::Untrusted));
    for path in manifest(&world).await {
        world.bent.memory.delete(&path).await.unwrap();
    }
    let gone = another(&world).open_takeover(&prefix(), Some(&mark)).await.unwrap_err();
    assert_eq!(kind(&gone), Some(ErrorKind::Untrusted));
    // Somebody begins again, which makes it another takeover.
    let again = another(&world);
    again.begin_takeover(&prefix()).await.unwrap();
    let other = another(&world).open_takeover(&prefix(), Some(&mark)).await.unwrap_err();
    assert_eq!(kind(&other), Some(ErrorKind::Untrusted));
}

#[tokio::test]
async fn e9_a_store_that_has_a_takeover_open_begins_none_across_it_though_its_root_is_gone() {
    let (world, plain) = world_of(4).await;
    world.store.begin_takeover(&prefix()).await.unwrap();
    world.bent.memory.delete(manifest(&world).await.last().unwrap()).await.unwrap();
    let left = manifest(&world).await;
    for across in ["data", "", "data/0"] {
        let again = world.store.clone().begin_takeover(&across.into()).await.unwrap_err();
        assert_eq!(kind(&again), Some(ErrorKind::Conflict), "{across}");
    }
    assert_eq!(manifest(&world).await, left, "nothing was written");
    check(&world.store, &plain).await;
}

#[tokio::test]
async fn e9_what_a_second_beginning_lists_is_refused_by_who_kept_the_mark_of_the_first() {
    let (world, _) = world_of(4).await;
    let first = world.store.begin_takeover(&prefix()).await.unwrap();
    let mark = TakeoverMark::parse(&first.mark().to_bytes()).unwrap();
    assert!(first.run(&LIMITS).await.unwrap().finished);
    // The owner of the bucket removes the manifest and swaps what was sealed, and an operator begins again.
    for path in manifest(&world).await {
        world.bent.memory.delete(&path).await.unwrap();
    }
    world.store_raw("data/001", b"the owner's").await;
    another(&world).begin_takeover(&prefix()).await.unwrap();
    // Without a mark nothing is claimed. With the one that the first beginning gave there is no manifest to be had.
    let unaware = another(&world);
    unaware.open_takeover(&prefix(), None).await.unwrap();
    assert_eq!(read(&unaware, "data/001").await.unwrap(), b"the owner's");
    let aware = another(&world);
    let opened = aware.open_takeover(&prefix(), Some(&mark)).await;
    assert_eq!(kind(&opened.unwrap_err()), Some(ErrorKind::Untrusted));
    refused(read(&aware, "data/001").await);
}

#[tokio::test]
async fn e9_f3_a_part_of_a_manifest_is_believed_in_its_own_place_only() {
    let world = World::new();
    for number in 0..2_001 {
        world.store_raw(&format!("data/{number:04}"), b"a").await;
        world.store_raw(&format!("other/{number:04}"), b"a").await;
    }
    for prefix in ["data", "other"] {
        world.store.begin_takeover(&prefix.into()).await.unwrap();
    }
    let parts = manifest(&world).await;
    let of = |prefix: &str| -> Vec<Path> {
        parts.iter().filter(|path| path.as_ref().starts_with(prefix)).cloned().collect()
    };
    let (data, other) = (of("data"), of("other"));
    assert_eq!((data.len(), other.len()), (4, 4));
    let honest = world.bent.memory.fork();
    let opens = async || {
        let opened = another(&world).open_takeover(&prefix(), None).await;
        opened.map(drop).map_err(|error| kind(&error).unwrap())
    };
    opens().await.unwrap();
    let is_damage = |kind| {
        use ErrorKind::{Corrupt, Format, UnknownGeneration};
        matches!(kind, Corrupt | Format | UnknownGeneration)
    };
    // Another prefix's, the next segment, a segment for the root and the other way round.
    for (at, from) in
        [(0, &other[0]), (0, &data[1]), (1, &data[0]), (0, &data[3]), (3, &data[0]), (3, &other[3])]
    {
        world.store_raw(data[at].as_ref(), &bytes(&honest, from).await).await;
        let refused = opens().await;
        // A segment is longer than a root may be.
        let expected = if at == 3 && from == &data[0] { ErrorKind::Format } else { ErrorKind::Corrupt };
        assert_eq!(refused, Err(expected), "{from} at {}", data[at]);
        world.store_raw(data[at].as_ref(), &bytes(&honest, &data[at]).await).await;
    }
    for path in [&data[1], &data[3]] {
        let whole = bytes(&honest, path).await;
        for at in (0..whole.len()).step_by(whole.len() / 41 + 1) {
            let mut garbled = whole.clone();
            garbled[at] ^= 4;
            world.store_raw(path.as_ref(), &garbled).await;
            assert!(is_damage(opens().await.unwrap_err()), "{at}");
            world.store_raw(path.as_ref(), &whole[..at]).await;
            assert!(is_damage(opens().await.unwrap_err()), "cut at {at}");
        }
        world.bent.memory.delete(path).await.unwrap();
        assert!(matches!(opens().await, Err(ErrorKind::Untrusted | ErrorKind::Misuse)));
        world.store_raw(path.as_ref(), &whole).await;
    }
    opens().await.unwrap();
    // Another account's, and another store's.
    let theirs = store(world.bent.clone(), &Customer::new().account, BlockSize::MIN);
    assert_eq!(kind(&theirs.open_takeover(&prefix(), None).await.unwrap_err()), Some(ErrorKind::Corrupt));
    let router = OneAccount::new(world.customer.account.clone());
    let elsewhere = SealedStore::builder(world.bent.clone(), "another bucket", router).build().unwrap();
    assert_eq!(kind(&elsewhere.open_takeover(&prefix(), None).await.unwrap_err()), Some(ErrorKind::Corrupt));
}

#[tokio::test]
async fn e9_a_damaged_manifest_stops_plaintext_and_nothing_else() {
    let scene = Scene::new().await;
    let store = &scene.stale;
    store.put(&"data/sealed".into(), "sealed".into()).await.unwrap();
    let segment = manifest(&scene.world).await.remove(0);
    for (damage, written) in [(Some("nonsense"), "data/001"), (None, "data/002")] {
        match damage {
            Some(bytes) => scene.world.store_raw(segment.as_ref(), bytes.as_bytes()).await,
            None => scene.world.bent.memory.delete(&segment).await.unwrap(),
        }
        for path in ["data/003", "data/005"] {
            refused(read(store, path).await);
        }
        assert_eq!(read(store, "data/sealed").await.unwrap(), b"sealed");
        store.put(&"data/another".into(), "new".into()).await.unwrap();
        assert!(store.put(&written.into(), "not acknowledged".into()).await.is_err());
    }
}

#[tokio::test]
async fn e9_an_object_swapped_for_other_plaintext_is_refused() {
    let scene = Scene::new().await;
    let plain = bytes(&scene.before, &"data/003".into()).await;
    let mut other = plain.clone();
    other[0] ^= 1;
    for swapped in [other, plain] {
        scene.world.store_raw("data/003", &swapped).await;
        refuses(&scene.live, "data/003").await;
    }
    scene.world.store_raw("data/never-there", b"somebody's").await;
    refused(read(&scene.live, "data/never-there").await);
}
