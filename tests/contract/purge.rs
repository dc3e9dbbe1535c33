//! Destroying the wrapped key: E7.

use std::sync::Arc;

use strongroom::testing::{Answer, ManualClock, ScriptedProvider};
use strongroom::{
    AccountId, AccountRecord, AccountSpec, Anchor, AnchoredRecordStore, DestroyForGood, Directory, Error,
    ErrorKind, FileRecordStore, MemoryRecordStore, OutageGrace, RecordArchive, RecordCursor, RecordPolicy,
    RecordStore, RestoreSpec, Restored, Retention, RotateTo, Status, StoredAnchor,
};

use crate::common::{Block, KEK, Store, World, kind, secs, usable};
use crate::deletion::{DAY, Shared};

/// Whether the bytes of the record's wrapped key are anywhere in what the store has.
pub(crate) fn wrapped_is_left(store: &Store, record: &AccountRecord) -> bool {
    let bytes = record.to_bytes();
    let wrapped = &bytes[150..190];
    let stored = [store.bytes(record.account()).into_iter().collect(), store.kept(record.account())].concat();
    stored.iter().any(|stored| stored.windows(wrapped.len()).any(|window| window == wrapped))
}

#[test]
fn e7_a_purge_before_the_end_of_the_retention_or_of_an_active_account_is_refused() {
    let shared = Shared::new(OutageGrace::None);
    let account = shared.create();
    assert_eq!(kind(account.purge()), Some(ErrorKind::Misuse));
    account.delete(Retention::days(2).unwrap()).unwrap();
    shared.skip(2 * DAY - secs(120));
    let before = (shared.store.bytes(account.id()), shared.store.kept(account.id()));
    assert_eq!(kind(account.purge()), Some(ErrorKind::Misuse));
    assert_eq!((shared.store.bytes(account.id()), shared.store.kept(account.id())), before);
    shared.skip(secs(120));
    assert_eq!(kind(account.recover()), Some(ErrorKind::Deleted), "the retention is over");
    account.purge().unwrap();
}

#[test]
fn e7_a_purge_destroys_the_wrapped_key_with_its_whole_history_and_the_id_stays_taken() {
    let shared = Shared::new(OutageGrace::None);
    let (here, there, block) = shared.account();
    let record = here.record();
    shared.here.kms.add_version(KEK);
    here.rotate_kek(RotateTo::Latest).unwrap();
    here.delete(Retention::DEFAULT).unwrap();
    shared.skip(14 * DAY);
    assert!(wrapped_is_left(&shared.store, &record) && wrapped_is_left(&shared.store, &here.record()));
    here.purge().unwrap();
    assert!(!wrapped_is_left(&shared.store, &record) && !wrapped_is_left(&shared.store, &here.record()));
    assert_eq!(shared.store.kept(here.id()), Vec::<Vec<u8>>::new());
    here.purge().expect("once more");

    let tombstone = shared.store.bytes(here.id()).unwrap();
    // Who has it attached neither uses it nor writes the record back.
    for account in [&here, &there] {
        assert_eq!(block.open(account), Err(ErrorKind::Deleted));
        account.record_changed();
        shared.pass(secs(30));
        assert_eq!(block.open(account), Err(ErrorKind::Deleted));
        assert_eq!(kind(account.recover()), Some(ErrorKind::Deleted));
        assert_eq!(kind(account.rotate_kek(RotateTo::Latest)), Some(ErrorKind::Deleted));
        assert_eq!(kind(account.set_policy(RecordPolicy::default())), Some(ErrorKind::Deleted));
        assert_eq!(kind(account.delete(Retention::DEFAULT)), Some(ErrorKind::Deleted));
    }
    let id = here.id();
    drop((here, there));
    shared.pass(secs(1));
    assert_eq!(kind(shared.attach(id)), Some(ErrorKind::Deleted));
    let spec = AccountSpec::new(id, shared.here.provider(), strongroom::provider::Kek::latest(KEK));
    assert_eq!(kind(shared.here.cache.create(spec.store(shared.records()))), Some(ErrorKind::Conflict));
    assert_eq!(shared.store.bytes(id).unwrap(), tombstone);
}

#[test]
fn e7_an_account_that_is_shredded_closes_here_at_once_and_elsewhere_within_the_bound() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let (here, there, block) = shared.account();
    let record = here.record();
    shared.here.cache.shred(&shared.records(), here.id(), DestroyForGood).unwrap();
    assert_eq!((block.open(&here), block.open(&there)), (Err(ErrorKind::Deleted), Ok(())));
    // Before it has heard of it, it cannot write the record back either.
    let tombstone = shared.store.bytes(here.id()).unwrap();
    assert_eq!(kind(there.set_policy(record.policy().with_max_grace(secs(1)))), Some(ErrorKind::Deleted));
    assert_eq!(kind(there.delete(Retention::DEFAULT)), Some(ErrorKind::Deleted));
    shared.pass(shared.there.cache.staleness_bound());
    assert_eq!((block.open(&there), there.status()), (Err(ErrorKind::Deleted), Status::Deleted));
    assert_eq!(shared.store.bytes(here.id()).unwrap(), tombstone);
    assert!(!wrapped_is_left(&shared.store, &record));
}

#[test]
fn e7_shredding_asks_nobody_and_destroys_whatever_is_there() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let account = shared.create();
    let (id, record) = (account.id(), account.record());
    shared.here.kms.every_call(&Answer::Hang);
    shared.here.kms.clear_log();
    // The store fails: closed all the same, and said.
    shared.store.fail_all();
    assert_eq!(kind(shared.here.cache.shred(&shared.records(), id, DestroyForGood)), Some(ErrorKind::Io));
    assert_eq!(account.status(), Status::Deleted);
    shared.store.calm();
    // A damaged record, and rivals.
    shared.store.plant(id, b"damaged");
    shared.store.conflict_nth(0);
    shared.here.cache.shred(&shared.records(), id, DestroyForGood).unwrap();
    assert!(!wrapped_is_left(&shared.store, &record));
    assert!(shared.here.kms.log().is_empty(), "the KMS was not asked");
    // What a rival wrote into the history meanwhile goes the next time, and an account that never was is taken.
    shared.here.cache.shred(&shared.records(), id, DestroyForGood).unwrap();
    let never = AccountId::random();
    shared.here.cache.shred(&shared.records(), never, DestroyForGood).unwrap();
    assert_eq!(kind(shared.attach(never)), Some(ErrorKind::Deleted));
}

#[test]
fn e7_f6_with_an_anchor_neither_a_deleted_nor_a_purged_account_can_be_put_back() {
    let clock = ManualClock::new();
    let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
    let world = World::beside(&clock, kms, secs(6), OutageGrace::None);
    let (records, anchors) = (Store::new(), Store::new());
    let anchor = Arc::new(StoredAnchor::new(anchors as _));
    let store = || -> Arc<dyn RecordStore> {
        Arc::new(AnchoredRecordStore::new(records.clone() as _, anchor.clone()))
    };
    let account = world.cache.create(world.spec().store(store())).unwrap();
    let (id, active) = (account.id(), records.bytes(account.id()).unwrap());
    account.delete(Retention::days(1).unwrap()).unwrap();
    let deleted = records.bytes(id).unwrap();
    clock.advance(DAY);
    let attach = || {
        let other = World::beside(&clock, world.kms.clone(), secs(6), OutageGrace::None);
        let attached = other.cache.attach_stored(store(), other.expect(id));
        attached.map(drop)
    };
    attach().expect("as a deleted account");
    records.plant(id, &active);
    assert_eq!(kind(attach()), Some(ErrorKind::Untrusted));
    records.plant(id, &deleted);
    let anchored = anchor.least(id).unwrap();
    account.purge().unwrap();
    assert!(anchor.least(id).unwrap() > anchored, "the tombstone is anchored");
    assert_eq!(kind(attach()), Some(ErrorKind::Deleted));
    assert!(records.kept(id).is_empty(), "the store within was told");
    for old in [active, deleted] {
        records.plant(id, &old);
        assert_eq!(kind(attach()), Some(ErrorKind::Untrusted));
        account.record_changed();
        world.run(secs(30));
        assert!(!usable(&account));
    }
}

#[test]
fn e7_a_directory_tells_a_deleted_and_a_purged_account_by_kind() {
    let shared = Shared::new(OutageGrace::None);
    let account = shared.create();
    let id = account.id();
    let directory = Directory::builder(shared.there.cache.clone(), shared.records()).build().unwrap();
    directory.register(shared.there.expect(id)).unwrap();
    account.delete(Retention::days(1).unwrap()).unwrap();
    let found = directory.account(id).unwrap();
    assert_eq!(kind(found.ready().wait()), Some(ErrorKind::Deleted));
    assert_eq!(kind(found.permit()), Some(ErrorKind::Deleted));
    shared.skip(DAY);
    account.purge().unwrap();
    drop(found);
    directory.unregister(id);
    directory.register(shared.there.expect(id)).unwrap();
    assert_eq!(kind(directory.account(id)), Some(ErrorKind::Deleted));
}

#[test]
fn e7_e10_a_purge_is_told_by_verification_reaches_no_mirror_and_is_undone_by_an_explicit_word_only() {
    let world = World::new(6, OutageGrace::None);
    let (first, second) = (Arc::new(MemoryRecordStore::new()), Arc::new(MemoryRecordStore::new()));
    let account = world.cache.create(world.spec().store(first.clone())).unwrap();
    let (id, block) = (account.id(), Block::sealed_by(&account));
    let mirror = |cursor: &mut RecordCursor| {
        let expect = |id| Some(world.expect(id));
        world.cache.mirror(first.as_ref(), second.clone(), cursor, &expect, 1000).unwrap()
    };
    assert_eq!(mirror(&mut RecordCursor::new()).copied, 1);
    let copy = account.record();
    let records: Arc<dyn RecordStore> = first.clone();
    world.cache.shred(&records, id, DestroyForGood).unwrap();

    let expect = {
        let provider = world.provider();
        move |id| Some(strongroom::Expect::account(id).kek(Arc::clone(&provider), KEK))
    };
    let report = world.cache.verify_all(first.clone(), expect, 1000).unwrap().report().unwrap();
    assert_eq!((report.accounts, report.purged, report.failures.len()), (1, 1, 0));
    let report = mirror(&mut RecordCursor::new());
    assert_eq!(report.failures[0].1.kind(), ErrorKind::Deleted);
    assert!(
        matches!(second.load(id, None).unwrap(), strongroom::Loaded::Found { bytes, .. } if bytes == copy.to_bytes())
    );
    drop(account);
    world.cache.drive();
    // With a copy and the customer's KEK the data is back: what purge does not destroy.
    let spec = RestoreSpec::new(first.clone(), copy, world.expect(id));
    assert_eq!(kind(world.cache.restore(spec.clone())), Some(ErrorKind::Deleted));
    assert!(matches!(world.cache.restore(spec.accept_an_older_record()), Ok(Restored::Again(_))));
    let back = world.cache.attach_stored(first.clone(), world.expect(id)).unwrap();
    world.run(secs(1));
    assert_eq!(block.open(&back), Ok(()));
    let mirror: Arc<dyn RecordStore> = second.clone();
    world.cache.shred(&mirror, id, DestroyForGood).unwrap();
    assert!(second.history(id).unwrap().is_empty());
    // Nor does copying undo it.
    let expect = |id| Some(world.expect(id));
    let report =
        world.cache.mirror(first.as_ref(), second.clone(), &mut RecordCursor::new(), &expect, 1000).unwrap();
    assert_eq!((report.copied, report.failures[0].1.kind()), (0, ErrorKind::Deleted));
    assert_eq!(second.history(id).unwrap().len(), 0);
}

/// Deletes, recovers, deletes and purges, with a failure at the `n`th call of the store. False when it did not come.
fn life_with_a_failure(strike: impl Fn(&Store)) -> bool {
    let shared = Shared::new(OutageGrace::None);
    let account = shared.create();
    let (id, block, wrapped) = (account.id(), Block::sealed_by(&account), account.record());
    strike(&shared.store);
    let insist = |call: &dyn Fn() -> Result<(), Error>| {
        for _ in 0..3 {
            match call() {
                Ok(()) => return,
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Conflict), "{error}"),
            }
            // Whatever is there, it is the account's, and nothing is served that it does not allow.
            let bytes = shared.store.bytes(id).unwrap();
            if let Ok(record) = AccountRecord::parse(&bytes) {
                assert_eq!(record.fingerprint(), wrapped.fingerprint());
            } else {
                assert!(!usable(&account), "a tombstone");
            }
        }
        panic!("fails again and again");
    };
    insist(&|| account.delete(Retention::days(1)?).map(drop));
    assert_eq!(block.open(&account), Err(ErrorKind::Deleted));
    insist(&|| account.recover());
    shared.pass(secs(60));
    assert_eq!(block.open(&account), Ok(()));
    insist(&|| account.delete(Retention::days(1)?).map(drop));
    shared.skip(DAY);
    insist(&|| account.purge());
    let struck = !shared.store.calm();
    assert!(!wrapped_is_left(&shared.store, &wrapped));
    assert_eq!(kind(shared.attach(id)), Some(ErrorKind::Deleted));
    struck
}

#[test]
fn e7_r14_the_nth_call_of_the_record_store_fails_and_a_deletion_is_done_or_not() {
    let strikes: [fn(&Store, usize); 3] = [
        |store, n| store.fail_nth(n, false),
        |store, n| store.fail_nth(n, true),
        |store, n| store.conflict_nth(n),
    ];
    for strike in strikes {
        let struck = (0..).take_while(|n| life_with_a_failure(|store| strike(store, *n))).count();
        assert!(struck >= 4, "there was something to strike: {struck}");
    }
}

#[test]
fn e7_files_of_a_purged_account_hold_nothing_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let clock = ManualClock::new();
    let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
    let world = World::beside(&clock, kms, secs(6), OutageGrace::None);
    let store = Arc::new(FileRecordStore::open(&path).unwrap());
    let account = world.cache.create(world.spec().store(store.clone())).unwrap();
    let wrapped = account.record().to_bytes()[150..190].to_vec();
    account.delete(Retention::days(1).unwrap()).unwrap();
    let found = || {
        let mut folders = vec![path.clone()];
        let mut found = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap().path();
                if entry.is_dir() {
                    folders.push(entry);
                } else if std::fs::read(entry).unwrap().windows(40).any(|window| window == wrapped) {
                    found += 1;
                }
            }
        }
        found
    };
    assert_eq!(found(), 3, "the record, and both that were written");
    clock.advance(DAY);
    account.purge().unwrap();
    assert_eq!(found(), 0);
    let reopened: Arc<dyn RecordStore> = Arc::new(FileRecordStore::open(&path).unwrap());
    assert_eq!(
        kind(world.cache.attach_stored(reopened, world.expect(account.id()))),
        Some(ErrorKind::Deleted)
    );
}

/// A store of the user's own, which says nothing of destroying.
#[derive(Debug)]
struct Plain(MemoryRecordStore);

impl RecordStore for Plain {
    fn load(
        &self,
        account: AccountId,
        known: Option<&strongroom::RecordTag>,
    ) -> Result<strongroom::Loaded, Error> {
        self.0.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&strongroom::RecordTag>,
        bytes: &[u8],
    ) -> Result<strongroom::RecordTag, Error> {
        self.0.compare_and_swap(account, expected, bytes)
    }
}

#[test]
fn e7_what_a_store_cannot_destroy_is_not_said_to_be_destroyed() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<dyn RecordStore> = Arc::new(Plain(MemoryRecordStore::new()));
    let account = world.cache.create(world.spec().store(Arc::clone(&store))).unwrap();
    let error = world.cache.shred(&store, account.id(), DestroyForGood).unwrap_err();
    assert_eq!((error.kind(), error.account()), (ErrorKind::Misuse, Some(account.id())));
    assert_eq!(account.status(), Status::Deleted);
    assert_eq!(kind(world.cache.attach_stored(store, world.expect(account.id()))), Some(ErrorKind::Deleted));
}
