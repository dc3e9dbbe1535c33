//! What is taken back, put in the place of something newer: F6.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use strongroom::provider::Kek;
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, Anchor, AnchoredRecordStore, BlockId, Context, Error, ErrorKind,
    Loaded, MemoryRecordStore, ObjectId, ObjectOptions, OutageGrace, RecordStore, RecordTag, RestoreSpec,
    Retire, RotateTo, SealedObject, Sequence, Status, StoredAnchor, UnavailableCause,
};

use crate::common::{Block, KEK, Store, World, kind, secs};

/// A KMS, records that an attacker can change, and an anchor that they cannot.
struct Anchored {
    clock: ManualClock,
    kms: ScriptedProvider,
    records: Arc<Store>,
    anchors: Arc<Store>,
    anchor: Arc<StoredAnchor>,
}

impl Anchored {
    fn new() -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        let (records, anchors) = (Store::new(), Store::new());
        let anchor = Arc::new(StoredAnchor::new(Arc::clone(&anchors) as _));
        Self { clock, kms, records, anchors, anchor }
    }

    /// As a process has it that has just started.
    fn store(&self) -> Arc<dyn RecordStore> {
        Arc::new(AnchoredRecordStore::new(Arc::clone(&self.records) as _, Arc::clone(&self.anchor) as _))
    }

    fn machine(&self) -> World {
        World::beside(&self.clock, self.kms.clone(), secs(6), OutageGrace::DEFAULT)
    }

    fn create(&self, on: &World) -> Account {
        let spec = AccountSpec::new(AccountId::random(), on.provider(), Kek::latest(KEK));
        on.cache.create(spec.store(self.store())).unwrap()
    }

    fn attach(&self, on: &World, id: AccountId) -> Result<Account, Error> {
        on.cache.attach_stored(self.store(), on.expect(id))
    }

    fn rotate(&self, account: &Account) {
        self.kms.add_version(KEK);
        assert!(matches!(account.rotate_kek(RotateTo::Latest), Ok(Retire::SafeAfter(_))));
    }

    fn anchored_at(&self, id: AccountId) -> Option<u64> {
        self.anchor.least(id).unwrap().map(Sequence::number)
    }
}

#[test]
fn f6_a_record_that_is_taken_back_is_noticed_by_a_process_that_has_just_started() {
    let world = Anchored::new();
    let machine = world.machine();
    let account = world.create(&machine);
    let (id, block) = (account.id(), Block::sealed_by(&account));
    assert!(account.is_anchored());
    let old = world.records.bytes(id).unwrap();
    world.rotate(&account);
    let new = world.records.bytes(id).unwrap();
    assert_eq!(world.anchored_at(id), Some(account.record().sequence().number()));

    world.records.plant(id, &old);
    let restarted = world.machine();
    assert_eq!(kind(world.attach(&restarted, id)), Some(ErrorKind::Untrusted));

    // Without the anchor nobody could tell.
    let plain = restarted.cache.attach_stored(Arc::clone(&world.records) as _, restarted.expect(id)).unwrap();
    plain.ready().wait().unwrap();
    assert!(!plain.is_anchored());
    drop(plain);
    restarted.cache.drive();

    world.records.plant(id, &new);
    let account = world.attach(&restarted, id).unwrap();
    account.ready().wait().unwrap();
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn f6_a_record_that_is_taken_back_ends_service_of_a_machine_that_has_only_seen_the_old_one() {
    let world = Anchored::new();
    let (a, b) = (world.machine(), world.machine());
    let on_a = world.create(&a);
    let id = on_a.id();
    let on_b = world.attach(&b, id).unwrap();
    on_b.ready().wait().unwrap();
    let old = world.records.bytes(id).unwrap();
    world.rotate(&on_a);
    world.records.plant(id, &old);
    // The tag that B knows, and so "unchanged".
    b.run(secs(60));
    assert_eq!(on_b.status(), Status::Unavailable(UnavailableCause::Integrity));
    assert_eq!(on_b.last_failure().map(|error| error.kind()), Some(ErrorKind::Untrusted));
}

#[test]
fn f6_a_record_that_is_gone_is_noticed_and_its_account_is_not_created_again() {
    let world = Anchored::new();
    let machine = world.machine();
    let account = world.create(&machine);
    let id = account.id();
    drop(account);
    machine.cache.drive();
    // All of the store is gone: as after a restore from before it, or when it was exchanged for another one.
    let empty = Arc::new(AnchoredRecordStore::new(Store::new(), Arc::clone(&world.anchor) as _));
    assert_eq!(kind(empty.load(id, None)), Some(ErrorKind::Untrusted));
    assert_eq!(empty.load(AccountId::random(), None).unwrap(), Loaded::Absent);
    let attached = machine.cache.attach_stored(Arc::clone(&empty) as _, machine.expect(id));
    assert_eq!(kind(attached), Some(ErrorKind::Untrusted));
    let again = AccountSpec::new(id, machine.provider(), Kek::latest(KEK)).store(empty);
    assert_eq!(kind(machine.cache.create(again)), Some(ErrorKind::Conflict));
}

#[test]
fn f6_e10_a_record_is_put_back_on_purpose_and_the_anchor_stays() {
    let world = Anchored::new();
    let machine = world.machine();
    let account = world.create(&machine);
    let (id, block) = (account.id(), Block::sealed_by(&account));
    let first = account.record();
    world.rotate(&account);
    let newest = account.record();
    drop(account);
    machine.cache.drive();
    let anchored = world.anchor.least(id).unwrap().unwrap();
    for (record, sequence) in [(newest, 2), (first, 3)] {
        let empty = Store::new();
        let expect = machine.expect(id).least_sequence(anchored);
        let spec = RestoreSpec::new(Arc::clone(&empty) as _, record, expect);
        machine.cache.restore(spec.accept_an_older_record()).unwrap();
        let store = AnchoredRecordStore::new(empty, Arc::clone(&world.anchor) as _);
        let restarted = world.machine();
        let account = restarted.cache.attach_stored(Arc::new(store), restarted.expect(id)).unwrap();
        account.ready().wait().unwrap();
        assert_eq!(block.open(&account), Ok(()));
        assert_eq!(account.record().sequence().number(), sequence);
        assert_eq!(world.anchored_at(id), Some(sequence));
    }
}

#[test]
fn f6_a_forged_record_does_not_raise_the_anchor() {
    let world = Anchored::new();
    let machine = world.machine();
    let account = world.create(&machine);
    let id = account.id();
    let genuine = world.records.bytes(id).unwrap();
    let mut forged = genuine.clone();
    forged[25..33].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
    world.records.plant(id, &forged);
    machine.run(secs(60));
    assert_eq!(kind(account.permit()), Some(ErrorKind::Unavailable));
    assert_eq!(world.anchored_at(id), Some(1));
    world.records.plant(id, &genuine);
    machine.run(secs(10));
    assert!(account.permit().is_ok());
}

/// Says of everything that it is unchanged.
#[derive(Debug)]
struct Unmoved;

impl RecordStore for Unmoved {
    fn load(&self, _: AccountId, _: Option<&RecordTag>) -> Result<Loaded, Error> {
        Ok(Loaded::Unchanged)
    }

    fn compare_and_swap(&self, _: AccountId, _: Option<&RecordTag>, _: &[u8]) -> Result<RecordTag, Error> {
        RecordTag::new(b"tag")
    }
}

#[test]
fn f6_an_anchor_that_its_store_will_not_show_is_not_taken_for_none() {
    let world = Anchored::new();
    let machine = world.machine();
    let id = world.create(&machine).id();
    let anchor: Arc<dyn Anchor> = Arc::new(StoredAnchor::new(Arc::new(Unmoved)));
    assert_eq!(kind(anchor.least(id)), Some(ErrorKind::Io));
    let records = Arc::new(AnchoredRecordStore::new(Arc::clone(&world.records) as _, anchor));
    assert_eq!(kind(records.load(id, None)), Some(ErrorKind::Io));
}

#[test]
fn f6_what_was_persisted_before_a_crash_is_anchored_when_it_is_first_used() {
    let world = Anchored::new();
    let machine = world.machine();
    let account = world.create(&machine);
    let id = account.id();
    world.kms.add_version(KEK);
    // The swap reads the anchor, then raises it: by a read and a swap.
    let before = world.records.bytes(id);
    let failed = (0..20).find(|nth| {
        world.anchors.fail_nth(*nth, false);
        let failed = account.rotate_kek(RotateTo::Latest);
        assert!(!world.anchors.calm());
        assert_eq!(kind(failed), Some(ErrorKind::Io));
        world.records.bytes(id) != before
    });
    assert!(failed.is_some(), "no failure came after the record was persisted");
    assert_eq!(world.anchored_at(id), Some(1));
    let restarted = world.machine();
    let account = world.attach(&restarted, id).unwrap();
    account.ready().wait().unwrap();
    assert_eq!(world.anchored_at(id), Some(2));
}

#[test]
fn c5_an_anchor_that_cannot_be_asked_earns_grace_and_no_more() {
    let world = Anchored::new();
    let machine = world.machine();
    let account = world.create(&machine);
    world.anchors.fail_all();
    machine.run(secs(60));
    assert!(matches!(account.status(), Status::Grace { .. }), "{:?}", account.status());
    machine.run(machine.cache.usable_for());
    assert_eq!(account.status(), Status::Unavailable(UnavailableCause::Silent));
    world.anchors.calm();
    machine.run(secs(7));
    assert!(matches!(account.status(), Status::Fresh { .. }));
}

#[test]
fn f6_machines_that_rotate_at_once_are_never_taken_for_a_rollback() {
    let world = Anchored::new();
    let (a, b) = (world.machine(), world.machine());
    let on_a = world.create(&a);
    let on_b = world.attach(&b, on_a.id()).unwrap();
    on_b.ready().wait().unwrap();
    for _ in 0..50 {
        world.kms.add_version(KEK);
        for account in [&on_a, &on_b] {
            let rotated = kind(account.rotate_kek(RotateTo::Latest));
            assert!(matches!(rotated, None | Some(ErrorKind::Conflict)), "{rotated:?}");
        }
        a.run(secs(7));
        b.cache.drive();
        for account in [&on_a, &on_b] {
            assert!(matches!(account.status(), Status::Fresh { .. }));
        }
    }
    assert_eq!(world.anchored_at(on_a.id()), Some(51));
}

/// Another machine writes and raises between a load's look at the anchor and its look at the store, or the other way round.
#[test]
fn f6_a_load_that_meets_a_write_in_its_midst_sees_no_rollback() {
    #[derive(Debug)]
    struct Overtaken {
        anchor: StoredAnchor,
        by: Mutex<Option<Write>>,
    }
    #[derive(Debug)]
    struct Write {
        records: Arc<MemoryRecordStore>,
        newer: Vec<u8>,
    }
    impl Anchor for Overtaken {
        fn least(&self, account: AccountId) -> Result<Option<Sequence>, Error> {
            let least = self.anchor.least(account)?;
            if let Some(Write { records, newer }) = self.by.lock().unwrap().take() {
                let Loaded::Found { tag, .. } = records.load(account, None)? else { panic!("created") };
                records.compare_and_swap(account, Some(&tag), &newer)?;
                self.anchor.raise(account, Sequence::new(2).unwrap())?;
            }
            Ok(least)
        }

        fn raise(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
            self.anchor.raise(account, sequence)
        }
    }
    let world = Anchored::new();
    let machine = world.machine();
    let account = world.create(&machine);
    let id = account.id();
    let old = world.records.bytes(id).unwrap();
    world.rotate(&account);
    let new = world.records.bytes(id).unwrap();

    let records = Arc::new(MemoryRecordStore::new());
    records.compare_and_swap(id, None, &old).unwrap();
    let anchor = StoredAnchor::new(Arc::new(MemoryRecordStore::new()));
    anchor.raise(id, Sequence::FIRST).unwrap();
    let overtaken = Arc::new(Overtaken {
        anchor,
        by: Mutex::new(Some(Write { records: records.clone(), newer: new.clone() })),
    });
    let store = AnchoredRecordStore::new(records, overtaken);
    let loaded = store.load(id, None).unwrap();
    assert!(matches!(&loaded, Loaded::Found { bytes, .. } if *bytes == new));
    let Loaded::Found { tag, .. } = loaded else { unreachable!() };
    assert_eq!(store.load(id, Some(&tag)).unwrap(), Loaded::Unchanged);
    let unseen = RecordTag::sha256_of(&new);
    assert_eq!(store.load(id, Some(&unseen)).unwrap(), Loaded::Unchanged);
}

#[test]
fn f6_an_older_version_of_a_block_or_an_object_is_noticed_by_the_version_that_the_caller_names() {
    let account = World::new(6, OutageGrace::None).create();
    let id = BlockId::new(ObjectId::random(), 7);
    let older = account.seal(id, Aad::new(b"version 1"), b"older").unwrap();
    let newer = account.seal(id, Aad::new(b"version 2"), b"newer").unwrap();
    assert_eq!(account.open(id, Aad::new(b"version 2"), &newer).unwrap(), b"newer");
    assert_eq!(kind(account.open(id, Aad::new(b"version 2"), &older)), Some(ErrorKind::Corrupt));

    let context = |version: &[u8]| Context::new(&[b"path", version]);
    let write = |version: &[u8]| {
        let options = ObjectOptions::default();
        let mut writer =
            SealedObject::writer_with(account.clone(), context(version), Vec::new(), options).unwrap();
        writer.write_all(b"an object").unwrap();
        writer.finish().unwrap().0
    };
    let read = |stored: Vec<u8>| SealedObject::reader(account.clone(), context(b"2"), stored);
    assert!(read(write(b"2")).is_ok());
    assert_eq!(kind(read(write(b"1"))), Some(ErrorKind::Corrupt));
}
