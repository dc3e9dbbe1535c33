//! Machines that share an account through a record store: D12, and E3's competing processes.

use std::sync::Arc;

use strongroom::provider::{Kek, KekVersion, KeyProvider};
use strongroom::testing::{Call, ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountSpec, ErrorKind, Expect, OutageGrace, Refusal, Retire, RotateTo, Status,
};

use crate::common::{Block, KEK, Meddler, Store, World, kind, millis, secs, usable};

/// Two machines, one KMS, one store, one account. Calls of machine B pass through `meddler`.
struct Machines {
    a: World,
    b: World,
    kms: ScriptedProvider,
    meddler: Arc<Meddler>,
    store: Arc<Store>,
    on_a: Account,
    on_b: Account,
    block: Block,
}

impl Machines {
    fn new() -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        let machine = || World::beside(&clock, kms.clone(), secs(6), OutageGrace::DEFAULT);
        let (a, b) = (machine(), machine());
        let store = Store::new();
        let spec = AccountSpec::new(AccountId::random(), a.provider(), Kek::latest(KEK));
        let on_a = a.cache.create(spec.store(Arc::clone(&store) as _)).unwrap();
        let meddler = Meddler::new(kms.clone());
        let provider: Arc<dyn KeyProvider> = meddler.clone();
        let expect = Expect::account(on_a.id()).kek(provider, KEK);
        let on_b = b.cache.attach_stored(Arc::clone(&store) as _, expect).unwrap();
        on_b.ready().wait().unwrap();
        let block = Block::sealed_by(&on_a);
        Self { a, b, kms, meddler, store, on_a, on_b, block }
    }

    fn run(&self, duration: std::time::Duration) {
        for _ in 0..duration.as_millis() / 100 {
            self.a.run(millis(100));
            self.b.cache.drive();
        }
    }

    fn version_on_b(&self) -> String {
        self.on_b.record().kek_version().as_str().to_owned()
    }
}

fn first() -> KekVersion {
    KekVersion::new("1").unwrap()
}

#[test]
fn d12_a_rotation_elsewhere_reaches_every_machine_with_its_next_refresh() {
    let machines = Machines::new();
    let events = machines.b.cache.events();
    machines.kms.add_version(KEK);
    machines.on_a.rotate_kek(RotateTo::Latest).unwrap();
    // Much too early; it does no harm, because every refresh reads the record first.
    machines.kms.set_version_enabled(KEK, &first(), false);
    for _ in 0..30 {
        machines.run(secs(1));
        assert_eq!(machines.block.open(&machines.on_b), Ok(()));
    }
    assert_eq!(machines.version_on_b(), "2");
    assert!(events.try_next().is_none());
}

#[test]
fn d12_a_refusal_is_compared_with_the_newest_record_before_it_counts() {
    let machines = Machines::new();
    let events = machines.b.cache.events();
    let before = machines.on_b.epoch();
    machines.kms.add_version(KEK);
    // Machine B has read the record and is about to unwrap; now A rotates and the old version goes.
    let (on_a, kms) = (machines.on_a.clone(), machines.kms.clone());
    machines.meddler.at_next(Call::Unwrap, move || {
        on_a.rotate_kek(RotateTo::Latest).unwrap();
        kms.set_version_enabled(KEK, &first(), false);
    });
    machines.run(secs(8));
    assert_eq!(machines.version_on_b(), "2");
    assert_eq!(machines.block.open(&machines.on_b), Ok(()));
    // Closed meanwhile, and never revoked.
    assert!(machines.on_b.epoch() > before);
    let seen: Vec<_> = std::iter::from_fn(|| events.try_next()).map(|t| t.status).collect();
    assert!(seen.iter().all(|status| !matches!(status, Status::Revoked(_))), "{seen:?}");
    assert_eq!(machines.b.cache.stats().refused, 0);
}

#[test]
fn d12_a_refusal_that_the_newest_record_confirms_revokes() {
    let machines = Machines::new();
    machines.kms.set_version_enabled(KEK, &first(), false);
    machines.run(machines.b.cache.staleness_bound());
    for account in [&machines.on_a, &machines.on_b] {
        assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled));
    }
}

#[test]
fn d12_a_refusal_counts_also_when_the_record_cannot_be_compared() {
    let machines = Machines::new();
    let store = Arc::clone(&machines.store);
    let kms = machines.kms.clone();
    machines.meddler.at_next(Call::Unwrap, move || {
        store.fail_all();
        kms.set_version_enabled(KEK, &first(), false);
    });
    machines.run(secs(8));
    assert_eq!(machines.on_b.status(), Status::Revoked(Refusal::KeyDisabled));
    machines.store.calm();
}

#[test]
fn d12_reads_are_closed_while_the_record_is_compared() {
    // On real threads, because the comparing has to take time.
    let kms = ScriptedProvider::new();
    let store = Store::new();
    let cache =
        strongroom::AekCache::builder().refresh_every(secs(6)).call_deadline(secs(5)).build().unwrap();
    let meddler = Meddler::new(kms.clone());
    let provider: Arc<dyn KeyProvider> = meddler.clone();
    let id = AccountId::random();
    let spec = AccountSpec::new(id, provider, Kek::latest(KEK)).store(Arc::clone(&store) as _);
    let account = cache.create(spec).unwrap();
    kms.add_version(KEK);
    let elsewhere = strongroom::AekCache::builder().build().unwrap();
    let expect = Expect::account(id).kek(Arc::new(kms.clone()), KEK);
    let other = elsewhere.attach_stored(Arc::clone(&store) as _, expect).unwrap();
    other.wait_ready(secs(5)).unwrap();
    let mut events = cache.events();
    let (seen, refused) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let (next, watched, inner) = (Arc::clone(&meddler), account.clone(), kms.clone());
    meddler.at_next(Call::Unwrap, move || {
        other.rotate_kek(RotateTo::Latest).unwrap();
        inner.set_version_enabled(KEK, &first(), false);
        // The second unwrap of this attempt: after the refusal, before anything is decided.
        next.at_next(Call::Unwrap, move || {
            while usable(&watched) {
                std::thread::yield_now();
            }
            seen.0.send(kind(watched.permit())).unwrap();
            refused.1.recv().unwrap();
        });
    });
    account.record_changed();
    assert_eq!(seen.1.recv_timeout(secs(30)).unwrap(), Some(ErrorKind::NotReady));
    assert_eq!(events.next().unwrap().status, Status::NotReady);
    refused.0.send(()).unwrap();
    account.wait_ready(secs(5)).unwrap();
    assert!(matches!(events.next().unwrap().status, Status::Fresh { .. }));
}

#[test]
fn e3_of_two_rotations_at_once_one_wins_and_the_other_is_told() {
    let machines = Machines::new();
    machines.kms.add_version(KEK);
    let on_a = machines.on_a.clone();
    // A is through before B persists.
    machines.meddler.at_next(Call::Wrap, move || {
        assert!(matches!(on_a.rotate_kek(RotateTo::Latest), Ok(Retire::SafeAfter(_))));
    });
    assert_eq!(kind(machines.on_b.rotate_kek(RotateTo::Latest)), Some(ErrorKind::Conflict));
    assert_eq!(machines.on_b.rotate_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);
    machines.kms.set_version_enabled(KEK, &first(), false);
    machines.run(secs(30));
    assert_eq!(machines.block.open(&machines.on_a), Ok(()));
    assert_eq!(machines.block.open(&machines.on_b), Ok(()));
}

#[test]
fn e3_rotations_back_and_forth_on_two_machines_never_wedge() {
    let machines = Machines::new();
    let second = machines.kms.add_version(KEK);
    for round in 0..20 {
        let (one, other) =
            if round % 2 == 0 { (&machines.on_a, second.clone()) } else { (&machines.on_b, first()) };
        match one.rotate_kek(RotateTo::Version(other)) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
        }
        machines.run(secs(1));
        assert_eq!(machines.block.open(&machines.on_a), Ok(()));
        assert_eq!(machines.block.open(&machines.on_b), Ok(()));
    }
}
