//! Data that moves between a service-managed account and customers': link and unlink (contract E9).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::provider::KeyProvider;
use strongroom::store::{Moved, Route, Scope, ScopeBuilder, TakeoverLimits};
use strongroom::testing::{Answer, Call};
use strongroom::{
    AccountId, AekCache, BlockSize, Context, Directory, Error, ErrorKind, Expect, Loaded, MemoryRecordStore,
    RecordStore, ScopeId, Sequence,
};

use crate::SealedStore;
use crate::scope_world::{ADA, BOB, BOUND, LEN, Machine, SERVICE, Scene, key};
use crate::world::{kind, pattern};

/// From when another scope's move is in force that is made now, with no bound to wait for.
fn other_scope_moved(scene: &Scene, machine: &Machine) -> std::time::SystemTime {
    let known = machine.ada.clone();
    let find = move |_: AccountId| Some(known.clone());
    let states = Arc::new(MemoryRecordStore::new());
    let builder = Scope::builder(scene.id, machine.service.clone(), states, find);
    let scope = builder.confirmed_within(Duration::ZERO).create().unwrap();
    scope.link(&machine.ada).unwrap().everywhere_after
}

fn error(result: std::result::Result<Moved, Error>) -> ErrorKind {
    result.expect_err("is refused").kind()
}

#[tokio::test]
async fn e9_new_data_takes_the_new_key_and_old_data_is_read_under_its_own() {
    let (scene, a, _) = Scene::new();
    let (service, ada, bob) = (a.service.id(), a.ada.id(), a.bob.id());
    a.put("1").await.unwrap();
    assert_eq!(a.scope.link(&a.ada).unwrap().sequence.number(), 2);
    a.put("2").await.unwrap();
    let mut upload = a.store.put_multipart(&"3".into()).await.unwrap();
    upload.put_part(pattern(LEN).into()).await.unwrap();
    upload.complete().await.unwrap();
    a.store.copy(&"1".into(), &"4".into()).await.unwrap();
    a.scope.unlink().unwrap();
    a.put("5").await.unwrap();
    a.store.rename(&"4".into(), &"6".into()).await.unwrap();
    a.scope.link(&a.bob).unwrap();
    a.put("7").await.unwrap();
    a.put("2").await.unwrap();
    let owners = [("1", service), ("3", ada), ("5", service), ("6", service), ("7", bob), ("2", bob)];
    for (path, owner) in owners {
        assert_eq!(scene.owner(path).await, owner, "{path}");
        let fresh = scene.store(&a.scope);
        for store in [&a.store, &fresh] {
            // Cold, by a range that does not have the header; then warm.
            for _ in 0..2 {
                let range = store.get_range(&path.into(), 5000..5010).await.unwrap();
                assert_eq!(range, pattern(LEN)[5000..5010], "{path}");
            }
            assert_eq!(store.get(&path.into()).await.unwrap().bytes().await.unwrap(), pattern(LEN));
            let ranges = store.get_ranges(&path.into(), &[0..9, 9000..9001]).await.unwrap();
            assert_eq!(ranges, [pattern(LEN)[0..9].to_vec(), pattern(LEN)[9000..9001].to_vec()]);
        }
    }
    let state = a.scope.known_state().unwrap();
    assert_eq!((state.linked(), state.customers()), (Some(bob), &[ada, bob][..]));
}

#[tokio::test]
async fn e9_d1_d2_each_half_fails_closed_by_its_own_key_alone() {
    let (scene, a, b) = Scene::new();
    let both = [&a, &b];
    a.put("service").await.unwrap();
    a.scope.link(&a.ada).unwrap();
    a.put("ada").await.unwrap();
    scene.run(&both, BOUND);
    assert_eq!(b.read("ada").await.unwrap(), pattern(LEN));

    scene.set_enabled(ADA, false, &both);
    for machine in both {
        assert_eq!(machine.error_of_read("ada").await, Some(ErrorKind::Revoked));
        assert_eq!(machine.error_of_put("new").await, Some(ErrorKind::Revoked));
        assert_eq!(machine.read("service").await.unwrap(), pattern(LEN));
        let range = machine.store.get_range(&"ada".into(), 5000..5010).await.unwrap_err();
        assert_eq!(kind(&range), Some(ErrorKind::Revoked));
        let ranges = machine.store.get_ranges(&"ada".into(), &[5000..5010]).await.unwrap_err();
        assert_eq!(kind(&ranges), Some(ErrorKind::Revoked));
    }
    // From a dead key the way back is open.
    a.scope.unlink().unwrap();
    a.put("after").await.unwrap();
    assert_eq!(scene.owner("after").await, a.service.id());
    assert_eq!(error(a.scope.link(&a.ada)), ErrorKind::Revoked);

    scene.set_enabled(ADA, true, &both);
    a.scope.link(&a.ada).unwrap();
    scene.run(&both, BOUND);
    b.put("b").await.unwrap();
    scene.set_enabled(SERVICE, false, &both);
    for machine in both {
        assert_eq!(machine.error_of_read("service").await, Some(ErrorKind::Revoked));
        assert_eq!(machine.read("ada").await.unwrap(), pattern(LEN));
        // A state that was verified before needs no key to be confirmed.
        machine.put("more").await.unwrap();
        assert_eq!(scene.owner("more").await, a.ada.id());
        assert_eq!(error(machine.scope.unlink()), ErrorKind::Revoked);
    }
    scene.set_enabled(SERVICE, true, &both);
    for (path, machine) in [("service", &a), ("after", &b), ("ada", &b), ("b", &a)] {
        assert_eq!(machine.read(path).await.unwrap(), pattern(LEN), "{path}");
    }
}

#[tokio::test]
async fn e9_d11_a_write_that_a_move_overtakes_is_not_acknowledged() {
    let (scene, a, b) = Scene::new();
    let mut upload = a.store.put_multipart(&"upload".into()).await.unwrap();
    upload.put_part(pattern(LEN).into()).await.unwrap();
    let on_b = b.store.put_multipart(&"on b".into()).await.unwrap();
    let writer = a.scope.writer().await.unwrap();
    writer.check().await.unwrap();
    a.scope.link(&a.ada).unwrap();
    assert_eq!(writer.check().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(kind(&upload.complete().await.unwrap_err()), Some(ErrorKind::Conflict));
    assert!(a.store.head(&"upload".into()).await.is_err(), "nothing of it appears");
    // The other machine, whenever it began, once the bound has passed.
    scene.run(&[&a, &b], BOUND);
    let mut on_b = on_b;
    on_b.put_part(pattern(LEN).into()).await.unwrap();
    assert_eq!(kind(&on_b.complete().await.unwrap_err()), Some(ErrorKind::Conflict));
    // There and back: it goes under an account that new data goes under.
    let mut upload = a.store.put_multipart(&"upload".into()).await.unwrap();
    upload.put_part(pattern(LEN).into()).await.unwrap();
    a.scope.unlink().unwrap();
    a.scope.link(&a.ada).unwrap();
    upload.complete().await.unwrap();
    assert_eq!(scene.owner("upload").await, a.ada.id());
    // Its key was out of service meanwhile.
    let writer = a.scope.writer().await.unwrap();
    scene.set_enabled(ADA, false, &[&a, &b]);
    scene.set_enabled(ADA, true, &[&a, &b]);
    assert_eq!(writer.check().await.unwrap_err().kind(), ErrorKind::NotReady);
}

#[tokio::test]
async fn e9_no_machine_writes_under_the_old_key_once_the_bound_has_passed() {
    let (scene, a, b) = Scene::new();
    b.put("before").await.unwrap();
    let moved = a.scope.link(&a.ada).unwrap();
    // Within the bound the other machine may not know yet.
    b.put("within").await.unwrap();
    assert_eq!(scene.owner("within").await, b.service.id());
    // What it has not confirmed it does not write by: not under the old key, and not at all.
    scene.states.down(true);
    scene.run(&[&b], BOUND);
    // As was said: the bound counts from the move.
    assert_eq!(other_scope_moved(&scene, &a).duration_since(moved.everywhere_after).unwrap(), Duration::ZERO);
    assert_eq!(b.error_of_put("down").await, Some(ErrorKind::Io));
    assert_eq!(b.read("before").await.unwrap(), pattern(LEN), "reads do not wait for it");
    scene.states.down(false);
    b.put("after").await.unwrap();
    assert_eq!(scene.owner("after").await, b.ada.id());
    // A machine that has not heard of the account reads the state again.
    a.scope.unlink().unwrap();
    a.scope.link(&a.bob).unwrap();
    a.put("bob").await.unwrap();
    assert_eq!(b.read("bob").await.unwrap(), pattern(LEN));
}

#[tokio::test]
async fn e9_d11_an_answer_that_took_longer_than_the_bound_acknowledges_nothing() {
    let (scene, a, b) = Scene::new();
    let writer = b.scope.writer().await.unwrap();
    scene.run(&[&a, &b], BOUND);
    // The other machine's question is answered before the move, and the answer arrives when the move is in force everywhere.
    let (clock, scope, ada) = (scene.clock.clone(), a.scope.clone(), a.ada.clone());
    scene.states.during_load(move || {
        scope.link(&ada).unwrap();
        clock.advance(BOUND);
    });
    assert_eq!(writer.check().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(writer.check().await.unwrap_err().kind(), ErrorKind::Conflict);
    b.put("x").await.unwrap();
    assert_eq!(scene.owner("x").await, b.ada.id());
}

#[tokio::test]
async fn e9_d11_a_put_that_a_move_overtakes_is_not_acknowledged() {
    let (scene, a, b) = Scene::with_bound(Duration::ZERO);
    b.put("x").await.unwrap();
    // The other machine moves it while this one begins.
    let (scope, ada) = (a.scope.clone(), a.ada.clone());
    scene.states.during_load(move || {
        scope.link(&ada).unwrap();
    });
    assert_eq!(b.error_of_put("y").await, Some(ErrorKind::Conflict));
    assert_eq!(scene.owner("y").await, b.service.id(), "stored, and not acknowledged");
    b.put("y").await.unwrap();
    assert_eq!(scene.owner("y").await, b.ada.id());
}

#[tokio::test]
async fn e9_copies_within_one_context_are_new_data_too() {
    let (scene, a, _) = Scene::new();
    let (scope, context) = (a.scope.clone(), Context::new(&[b"any place"]));
    let route = move |_: &str| Route::scoped_in(scope.clone(), context);
    let store = SealedStore::builder(scene.memory.clone(), "bucket", route).build().unwrap();
    store.put(&"1".into(), "x".into()).await.unwrap();
    a.scope.link(&a.ada).unwrap();
    store.copy(&"1".into(), &"2".into()).await.unwrap();
    store.rename(&"1".into(), &"3".into()).await.unwrap();
    for path in ["2", "3"] {
        assert_eq!(scene.owner(path).await, a.ada.id());
        assert_eq!(store.get(&path.into()).await.unwrap().bytes().await.unwrap(), "x");
    }
}

#[tokio::test]
async fn e9_c6_a_scope_in_use_is_confirmed_ahead_and_rarely() {
    let (scene, a, _) = Scene::new();
    a.put("x").await.unwrap();
    let before = scene.states.loads.load(Ordering::SeqCst);
    for _ in 0..120 {
        scene.run(&[&a], Duration::from_millis(500));
        // Nothing is waited for: the first poll is the last.
        let writer = a.scope.writer().now_or_never().expect("known").unwrap();
        writer.check().now_or_never().expect("known").unwrap();
    }
    let loads = scene.states.loads.load(Ordering::SeqCst) - before;
    assert!((10..=21).contains(&loads), "{loads} loads in a minute");
}

#[tokio::test]
async fn e9_e8_conflicts_are_typed_and_change_nothing() {
    let (scene, a, b) = Scene::new();
    assert_eq!(error(a.scope.unlink()), ErrorKind::Conflict);
    a.scope.link(&a.ada).unwrap();
    let again = a.scope.link(&a.bob).unwrap_err();
    assert_eq!((again.kind(), again.account()), (ErrorKind::Conflict, Some(a.ada.id())));
    let on_b = b.scope.link(&b.bob).unwrap_err();
    assert_eq!((on_b.kind(), on_b.account()), (ErrorKind::Conflict, Some(a.ada.id())));
    assert_eq!(error(a.scope.forget(a.ada.id())), ErrorKind::Conflict);
    assert_eq!(error(a.scope.forget(a.bob.id())), ErrorKind::Misuse);

    // Of two machines one wins.
    let (scope, bob) = (b.scope.clone(), b.bob.clone());
    let outcome = Arc::new(Mutex::new(None));
    let told = outcome.clone();
    scene
        .states
        .before_swap(move || *told.lock().unwrap() = Some(scope.unlink().and_then(|_| scope.link(&bob))));
    assert_eq!(error(a.scope.unlink()), ErrorKind::Conflict);
    assert_eq!(outcome.lock().unwrap().take().unwrap().unwrap().sequence.number(), 4);
    a.put("bob").await.unwrap();
    assert_eq!(scene.owner("bob").await, a.bob.id());

    // One operation at a time on one machine.
    let scope = a.scope.clone();
    let told = outcome.clone();
    scene.states.before_swap(move || *told.lock().unwrap() = Some(scope.unlink()));
    a.scope.unlink().unwrap();
    let second = outcome.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Conflict);
    assert!(second.to_string().contains("in process"), "{second}");
    a.scope.link(&a.ada).unwrap();

    let taken =
        Scope::builder(scene.id, a.service.clone(), scene.states.clone(), |_: AccountId| None).create();
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn e9_a_scope_is_not_linked_to_a_dead_or_unknown_key() {
    let (scene, a, b) = Scene::new();
    let both = [&a, &b];
    let before = scene.states.bytes(&scene);
    assert_eq!(error(a.scope.link(&a.service)), ErrorKind::Misuse);
    a.ada.lock();
    assert_eq!(error(a.scope.link(&a.ada)), ErrorKind::Locked);
    scene.set_enabled(BOB, false, &both);
    assert_eq!(error(a.scope.link(&a.bob)), ErrorKind::Revoked);
    scene.set_enabled(BOB, true, &both);
    scene.kms.always(Call::Unwrap, Answer::Transient);
    scene.run(&both, Duration::from_secs(40));
    assert!(a.bob.permit().is_ok(), "in its grace");
    assert_eq!(error(a.scope.link(&a.bob)), ErrorKind::Unavailable);
    scene.kms.always(Call::Unwrap, Answer::Ok);
    scene.run(&both, Duration::from_secs(61));
    let blind = Scope::builder(scene.id, a.service.clone(), scene.states.clone(), |_: AccountId| None).open();
    assert_eq!(error(blind.link(&a.bob)), ErrorKind::Misuse);
    assert_eq!(scene.states.bytes(&scene), before);
    a.put("x").await.unwrap();
    assert_eq!(scene.owner("x").await, a.service.id());
    a.scope.link(&a.bob).unwrap();
}

#[tokio::test]
async fn e9_a8_a_state_that_is_not_the_newest_authentic_one_moves_nothing() {
    let (scene, a, b) = Scene::new();
    let unlinked = scene.states.bytes(&scene);
    a.put("x").await.unwrap();
    b.put("x").await.unwrap();
    a.scope.link(&a.ada).unwrap();
    scene.run(&[&a, &b], BOUND);
    b.put("x").await.unwrap();
    let linked = scene.states.bytes(&scene);
    let sequence = a.scope.known_state().unwrap().sequence();

    let other_scene = Scene::new();
    let mut attacks = vec![Vec::new(), unlinked.clone(), other_scene.0.states.bytes(&other_scene.0)];
    // Of another scope under the same service-managed account.
    let (id, states) = (ScopeId::random(), Arc::new(MemoryRecordStore::new()));
    Scope::builder(id, a.service.clone(), states.clone(), |_: AccountId| None).create().unwrap();
    let Ok(Loaded::Found { bytes, .. }) = states.load(key(id), None) else { panic!("is there") };
    attacks.push(bytes);
    attacks.extend((0..linked.len()).step_by(7).map(|len| linked[..len.max(1)].to_vec()));
    attacks.extend((0..linked.len() * 8).map(|bit| {
        let mut bytes = linked.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    }));
    // To an account of the attacker's own, in the place of the customer's.
    let mut forged = linked.clone();
    forged[56..72].copy_from_slice(a.bob.id().as_bytes());
    attacks.push(forged);
    let fresh = |least: u64| scene.machine(|builder| builder.at_least(Sequence::new(least).unwrap()).open());
    let cold = fresh(sequence.number());
    for (nth, attack) in attacks.iter().enumerate() {
        scene.states.show(attack.clone());
        for machine in [&b, &cold] {
            assert_eq!(machine.scope.state().await.unwrap_err().kind(), ErrorKind::Untrusted, "{nth}");
            assert_eq!(machine.error_of_put("y").await, Some(ErrorKind::Untrusted), "{nth}");
        }
        assert_eq!(error(a.scope.unlink()), ErrorKind::Untrusted, "{nth}");
        scene.states.show(None);
        b.put("x").await.unwrap();
    }
    assert_eq!(scene.owner("x").await, b.ada.id());
    assert!(b.store.head(&"y".into()).await.is_err(), "nothing was written");
    assert_eq!(b.read("x").await.unwrap(), pattern(LEN));

    // A process that has just started knows no better without an anchor: said in the documentation, and here.
    scene.states.show(unlinked);
    assert_eq!(fresh(1).scope.state().await.unwrap().linked(), None);
    scene.states.show(None);
    cold.put("x").await.unwrap();
}

#[tokio::test]
async fn e9_objects_of_accounts_that_are_none_of_the_scopes_do_not_open() {
    let (scene, a, b) = Scene::new();
    // Bob has a scope of his own behind the same storage: the same path, the same store's id.
    let bobs = SealedStore::builder(
        scene.memory.clone(),
        "bucket",
        strongroom::store::OneAccount::new(a.bob.clone()),
    );
    bobs.block_size(BlockSize::MIN).build().unwrap().put(&"x".into(), pattern(LEN).into()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(a.error_of_read("x").await, Some(ErrorKind::Corrupt));
        let range = a.store.get_range(&"x".into(), 5000..5010).await.unwrap_err();
        assert_eq!(kind(&range), Some(ErrorKind::Corrupt));
    }
    a.scope.link(&a.bob).unwrap();
    assert_eq!(a.read("x").await.unwrap(), pattern(LEN));
    a.scope.unlink().unwrap();
    assert_eq!(a.read("x").await.unwrap(), pattern(LEN), "a former one");
    a.scope.forget(a.bob.id()).unwrap();
    assert_eq!(a.error_of_read("x").await, Some(ErrorKind::Corrupt), "also where its header is remembered");
    assert_eq!(b.error_of_read("x").await, Some(ErrorKind::Corrupt));
}

#[tokio::test]
async fn e9_a_process_that_starts_while_the_services_key_is_out() {
    let (scene, a, b) = Scene::new();
    a.put("service").await.unwrap();
    a.scope.link(&a.ada).unwrap();
    a.put("ada").await.unwrap();
    scene.set_enabled(SERVICE, false, &[&a, &b]);
    let cold = scene.machine(ScopeBuilder::open);
    assert_eq!(cold.error_of_read("service").await, Some(ErrorKind::Revoked));
    assert_eq!(
        cold.error_of_read("ada").await,
        Some(ErrorKind::Revoked),
        "whose the scope is cannot be verified"
    );
    assert_eq!(cold.error_of_put("new").await, Some(ErrorKind::Revoked));
    let told = scene.machine(|builder| builder.also_opens(a.ada.id()).open());
    assert_eq!(told.read("ada").await.unwrap(), pattern(LEN));
    scene.set_enabled(SERVICE, true, &[&a, &b, &cold]);
    assert_eq!(cold.read("ada").await.unwrap(), pattern(LEN));
    cold.put("new").await.unwrap();
}

#[tokio::test]
async fn e9_e3_the_nth_call_of_the_states_store_fails_and_the_scope_stays_usable() {
    for nth in 1..=6 {
        for has_effect in [false, true] {
            let (scene, a, b) = Scene::new();
            a.put("1").await.unwrap();
            scene.states.calls.store(0, Ordering::SeqCst);
            *scene.states.fail_at.lock().unwrap() = Some((nth, has_effect));
            for done in [a.scope.link(&a.ada), a.scope.unlink(), a.scope.link(&a.ada)] {
                let kind = done.err().map(|error| error.kind());
                let told = [None, Some(ErrorKind::Io), Some(ErrorKind::Conflict)];
                assert!(told.contains(&kind), "{nth}: {kind:?}");
            }
            *scene.states.fail_at.lock().unwrap() = None;
            let state = a.scope.state().await.unwrap();
            for (path, machine) in [("2", &a), ("3", &b)] {
                machine.put(path).await.unwrap();
                assert_eq!(scene.owner(path).await, state.writes_to(), "{nth}");
                assert_eq!(machine.read("1").await.unwrap(), pattern(LEN));
            }
        }
    }
}

#[tokio::test]
async fn e9_c8_accounts_of_a_directory_are_attached_when_the_scope_needs_them() {
    let (scene, a, _) = Scene::new();
    a.scope.link(&a.ada).unwrap();
    a.put("ada").await.unwrap();
    let cache = AekCache::builder().manual(&scene.clock).build().unwrap();
    let directory = Directory::builder(cache.clone(), Arc::clone(&scene.records)).build().unwrap();
    for (name, id) in scene.ids {
        let provider: Arc<dyn KeyProvider> = scene.kms.clone();
        directory.register(Expect::account(id).kek(provider, name)).unwrap();
    }
    let service = directory.account(scene.ids[0].1).unwrap();
    service.ready().wait().unwrap();
    let builder = Scope::builder(scene.id, service, scene.states.clone(), directory);
    let scope = builder.wait_until_ready().open();
    assert_eq!(cache.stats().accounts, 1);
    let store = scene.store(&scope);
    assert_eq!(store.get(&"ada".into()).await.unwrap().bytes().await.unwrap(), pattern(LEN));
    assert_eq!(cache.stats().accounts, 2);
    store.put(&"new".into(), pattern(LEN).into()).await.unwrap();
    assert_eq!(scene.owner("new").await, a.ada.id());
    assert!(cache.shutdown(Duration::ZERO));
    assert!(store.put(&"late".into(), "x".into()).await.is_err());
}

/// Of another service's objects, put there past the store.
async fn plaintext(scene: &Scene, count: usize) -> Vec<(String, Vec<u8>)> {
    let mut plain = Vec::new();
    for number in 0..count {
        let (path, bytes) = (format!("data/{number}"), pattern(LEN + number));
        scene.memory.put(&path.as_str().into(), bytes.clone().into()).await.unwrap();
        plain.push((path, bytes));
    }
    plain
}

async fn errors_of_reads(machine: &Machine, objects: &[(String, Vec<u8>)]) -> Vec<Option<ErrorKind>> {
    let mut errors = Vec::new();
    for (path, _) in objects {
        errors.push(machine.read(path).await.err().and_then(|error| kind(&error)));
    }
    errors
}

#[tokio::test]
async fn e9_a_takeover_goes_on_while_the_writes_of_its_scope_move() {
    let (scene, a, b) = Scene::new();
    let plain = plaintext(&scene, 6).await;
    let takeover = a.store.begin_takeover(&"data".into()).await.unwrap();
    b.store.open_takeover(&"data".into(), None).await.unwrap();
    let limits = TakeoverLimits::DEFAULT.batch(2).at_once(2);
    assert_eq!(takeover.step(&limits).await.unwrap().objects_left, 4);
    a.scope.link(&a.ada).unwrap();
    assert_eq!(takeover.step(&limits).await.unwrap().objects_left, 2);

    // What is sealed is each under its own key; what is not, under the one that new data goes under.
    scene.set_enabled(ADA, false, &[&a, &b]);
    let revoked = Some(ErrorKind::Revoked);
    for machine in [&a, &b] {
        let mut found = errors_of_reads(machine, &plain).await;
        found.sort_unstable_by_key(Option::is_some);
        assert_eq!(found, [None, None, revoked, revoked, revoked, revoked]);
    }
    assert_eq!(kind(&takeover.step(&limits).await.unwrap_err()), revoked);

    a.scope.unlink().unwrap();
    scene.run(&[&a, &b], BOUND);
    assert!(takeover.step(&limits).await.unwrap().finished);
    assert_eq!(errors_of_reads(&b, &plain).await.iter().filter(|kind| **kind == revoked).count(), 2);
    scene.set_enabled(ADA, true, &[&a, &b]);
    let mut owners = Vec::new();
    for (path, bytes) in &plain {
        assert_eq!(a.read(path).await.unwrap(), bytes);
        assert_eq!(b.read(path).await.unwrap(), bytes);
        owners.push(scene.owner(path).await);
    }
    assert_eq!(owners.iter().filter(|owner| **owner == a.ada.id()).count(), 2);
    assert_eq!(owners.iter().filter(|owner| **owner == a.service.id()).count(), 4);
}

#[tokio::test]
async fn e9_what_may_be_sealed_is_not_sealed_while_the_states_store_is_down() {
    let (scene, a, _) = Scene::new();
    let bob = a.bob.clone();
    let route = move |_: &str| Route::sealed(bob.clone());
    let builder = SealedStore::builder(scene.memory.clone(), "bucket", route);
    let of_bob = builder.block_size(BlockSize::MIN).build().unwrap();
    of_bob.put(&"data/sealed".into(), pattern(LEN).into()).await.unwrap();
    let takeover = a.store.begin_takeover(&"data".into()).await.unwrap();

    // Whether bob's account is one of the scope's by now, only a load tells.
    scene.states.down(true);
    let progress = takeover.step(&TakeoverLimits::DEFAULT).await.unwrap();
    assert_eq!((progress.objects_left, progress.failed), (1, 1));
    assert_eq!(takeover.failures()[0].1.kind(), ErrorKind::Io);
    assert_eq!(scene.owner("data/sealed").await, a.bob.id());

    scene.states.down(false);
    a.scope.link(&a.bob).unwrap();
    assert!(takeover.run(&TakeoverLimits::DEFAULT).await.unwrap().finished);
    assert_eq!(a.read("data/sealed").await.unwrap(), pattern(LEN));
}
