//! Records survive (contract E10): all of them verified, mirrored, and put back.

use std::sync::Arc;

use strongroom::provider::{Kek, KeyProvider};
use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, AekCache, ErrorKind, Expect, Loaded, MemoryRecordStore,
    MirrorReport, OutageGrace, RecordArchive, RecordCursor, RecordPolicy, RecordStore, Refusal, RestoreSpec,
    Restored, RotateTo, Sequence, Status, VerifyReport,
};

use super::common::{Block, KEK, World, kind, millis, secs};

fn stored(world: &World, store: &Arc<MemoryRecordStore>) -> Account {
    world.cache.create(world.spec().store(Arc::clone(store) as _)).unwrap()
}

fn current(store: &dyn RecordStore, account: AccountId) -> AccountRecord {
    let Loaded::Found { bytes, .. } = store.load(account, None).unwrap() else { panic!("a record") };
    AccountRecord::parse(&bytes).unwrap()
}

/// Puts any bytes in the place of a record, as whoever can write to the store would.
fn plant(store: &dyn RecordStore, account: AccountId, bytes: &[u8]) {
    let tag = match store.load(account, None).unwrap() {
        Loaded::Found { tag, .. } => Some(tag),
        _ => None,
    };
    store.compare_and_swap(account, tag.as_ref(), bytes).unwrap();
}

/// The record with another sequence in its bytes, and so without a MAC that fits.
fn forged(record: &AccountRecord, sequence: u64) -> Vec<u8> {
    let mut bytes = record.to_bytes();
    bytes[25..33].copy_from_slice(&sequence.to_be_bytes());
    assert_eq!(AccountRecord::parse(&bytes).unwrap().sequence().number(), sequence);
    bytes
}

fn rotate(world: &World, account: &Account) -> AccountRecord {
    world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    account.record()
}

fn verify(world: &World, store: &Arc<MemoryRecordStore>) -> VerifyReport {
    let provider = world.provider();
    let expect = move |id| Some(Expect::account(id).kek(Arc::clone(&provider), KEK));
    world.cache.verify_all(Arc::clone(store) as _, expect, 1000).unwrap().report().unwrap()
}

fn mirror(
    world: &World,
    from: &MemoryRecordStore,
    to: &Arc<MemoryRecordStore>,
    cursor: &mut RecordCursor,
) -> MirrorReport {
    let expect = |id| Some(world.expect(id));
    world.cache.mirror(from, Arc::clone(to) as _, cursor, &expect, 1000).unwrap()
}

#[test]
fn e10_every_record_is_verified_and_each_failure_has_its_kind() {
    let world = World::new(6, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let accounts: Vec<Account> = (0..6).map(|_| stored(&world, &store)).collect();
    let ids: Vec<AccountId> = accounts.iter().map(Account::id).collect();
    let report = verify(&world, &store);
    assert_eq!((report.accounts, report.authentic, report.failures.len()), (6, 6, 0));

    plant(store.as_ref(), ids[0], b"no record");
    plant(store.as_ref(), ids[1], &forged(&accounts[1].record(), 7));
    plant(store.as_ref(), ids[2], &accounts[3].record().to_bytes());
    let stranger = AccountId::random();
    plant(store.as_ref(), stranger, &accounts[4].record().to_bytes());
    let expected: Vec<(AccountId, Expect)> = ids.iter().map(|id| (*id, world.expect(*id))).collect();
    let newest = Sequence::new(2).unwrap();
    let expect = move |id| {
        let (id, expect) = expected.iter().find(|(known, _)| *known == id)?.clone();
        // Somebody noted a newer record of this one.
        Some(if id == ids[5] { expect.least_sequence(newest) } else { expect })
    };
    let ids: Vec<AccountId> = accounts.iter().map(Account::id).collect();
    let report = world.cache.verify_all(store, expect, 1000).unwrap().report().unwrap();
    assert_eq!((report.accounts, report.authentic), (7, 2));
    let kind_of = |id: AccountId| {
        let failure = report.failures.iter().find(|failure| failure.account == id).unwrap();
        let error = failure.result.as_ref().unwrap_err();
        assert_eq!(error.account(), Some(id), "{error}");
        error.kind()
    };
    assert_eq!(kind_of(ids[0]), ErrorKind::Format);
    for id in [ids[1], ids[2], ids[5], stranger] {
        assert_eq!(kind_of(id), ErrorKind::Untrusted);
    }
}

#[test]
fn e10_verification_tells_refusal_from_silence_and_touches_no_lease() {
    for (answer, expected) in [
        (Answer::Ok, None),
        (Answer::Refused(Refusal::KeyGone), Some(ErrorKind::Revoked)),
        (Answer::Transient, Some(ErrorKind::Unavailable)),
        (Answer::Garbage, Some(ErrorKind::Untrusted)),
        (Answer::OtherAek, Some(ErrorKind::Untrusted)),
    ] {
        let world = World::new(60, OutageGrace::None);
        let store = Arc::new(MemoryRecordStore::new());
        let account = stored(&world, &store);
        let (status, epoch) = (account.status(), account.epoch());
        world.kms.always(Call::Unwrap, answer.clone());
        let report = verify(&world, &store);
        let failed = report.failures.first().map(|failure| failure.result.as_ref().unwrap_err().kind());
        assert_eq!(failed, expected, "{answer:?}");
        assert_eq!(report.authentic, u64::from(expected.is_none()));
        assert_eq!((account.status(), account.epoch()), (status, epoch), "{answer:?}");
    }
}

#[test]
fn e10_b11_a_kms_that_hangs_holds_up_a_verification_for_its_deadline_only() {
    // On threads and in real time: 4 s, four times the call deadline.
    let kms = ScriptedProvider::new();
    let _release = kms.release_on_drop();
    let cache = AekCache::builder().call_deadline(secs(1)).build().unwrap();
    let store = Arc::new(MemoryRecordStore::new());
    let provider: Arc<dyn KeyProvider> = Arc::new(kms.clone());
    let spec = AccountSpec::new(AccountId::random(), Arc::clone(&provider), Kek::latest(KEK));
    let account = cache.create(spec.store(store.clone())).unwrap();
    kms.always(Call::Unwrap, Answer::Hang);
    let expect = move |id| Some(Expect::account(id).kek(Arc::clone(&provider), KEK));
    let report = cache.verify_all(store, expect, 1000).unwrap().report().unwrap();
    let error = report.failures[0].result.as_ref().unwrap_err();
    assert_eq!((error.kind(), error.account()), (ErrorKind::Unavailable, Some(account.id())));
}

#[test]
fn e10_verification_keeps_the_pace_that_it_is_given() {
    let world = World::new(60, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let ids: Vec<AccountId> = (0..21).map(|_| stored(&world, &store).id()).collect();
    world.cache.drive();
    world.kms.clear_log();
    let provider = world.provider();
    let expect = move |id| Some(Expect::account(id).kek(Arc::clone(&provider), KEK));
    let report = world.cache.verify_all(store, expect, 10).unwrap().report().unwrap();
    assert_eq!(report.authentic, ids.len() as u64);
    let unwraps = world.unwraps();
    assert_eq!(unwraps.len(), 21, "one call for each");
    for pair in unwraps.windows(2) {
        assert!(pair[1] - pair[0] >= millis(100), "{pair:?}");
    }
    let none = world.cache.verify_all(Arc::new(MemoryRecordStore::new()), |_| None, 0);
    assert_eq!(kind(none), Some(ErrorKind::Misuse));
}

#[test]
fn e5_verification_tells_which_kek_versions_are_still_needed() {
    let world = World::new(6, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let accounts = [stored(&world, &store), stored(&world, &store)];
    rotate(&world, &accounts[0]);
    let report = verify(&world, &store);
    let needed: Vec<_> =
        report.needed.iter().map(|((_, version), need)| (version.as_str(), need.newest, need.kept)).collect();
    assert_eq!(needed, [("1", 1, 0), ("2", 1, 0)]);
    assert!(report.oldest_aek.is_some());
    accounts[1].rotate_kek(RotateTo::Latest).unwrap();
    let needed: Vec<_> = verify(&world, &store).needed.into_iter().map(|((_, version), _)| version).collect();
    assert_eq!(needed.iter().map(|version| version.as_str()).collect::<Vec<_>>(), ["2"]);
}

#[test]
fn e10_a_mirror_copies_what_is_new_and_nothing_twice() {
    let world = World::new(6, OutageGrace::None);
    let (first, second) = (Arc::new(MemoryRecordStore::new()), Arc::new(MemoryRecordStore::new()));
    let accounts: Vec<Account> = (0..3).map(|_| stored(&world, &first)).collect();
    let mut cursor = RecordCursor::new();
    let report = mirror(&world, &first, &second, &mut cursor);
    assert_eq!((report.copied, report.same, report.failures.len()), (3, 0, 0));
    let report = mirror(&world, &first, &second, &mut cursor);
    assert_eq!((report.copied, report.same), (0, 0), "nothing has changed");
    rotate(&world, &accounts[1]);
    let report = mirror(&world, &first, &second, &mut cursor);
    assert_eq!((report.copied, report.same), (1, 0));
    for account in &accounts {
        assert_eq!(current(second.as_ref(), account.id()), account.record());
    }
    // A mirror that has forgotten all compares all, and copies nothing.
    let report = mirror(&world, &first, &second, &mut RecordCursor::new());
    assert_eq!((report.copied, report.same, report.failures.len()), (0, 3, 0));

    // The copy is as good as the first: another machine, with the second store alone.
    let block = Block::sealed_by(&accounts[1]);
    let elsewhere = World::beside(&world.clock, world.kms.clone(), secs(6), OutageGrace::None);
    let account = elsewhere.cache.attach_stored(second, elsewhere.expect(accounts[1].id())).unwrap();
    account.ready().wait().unwrap();
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn e10_a_mirror_takes_nothing_that_is_not_authentic_and_never_goes_back() {
    let world = World::new(6, OutageGrace::None);
    let (first, second) = (Arc::new(MemoryRecordStore::new()), Arc::new(MemoryRecordStore::new()));
    let account = stored(&world, &first);
    let id = account.id();
    let old = account.record();
    let new = rotate(&world, &account);
    let mut cursor = RecordCursor::new();
    assert_eq!(mirror(&world, &first, &second, &mut cursor).copied, 1);
    let mut refused = |expected, why: &str| {
        // Each pass tries again what has failed.
        for _ in 0..2 {
            let report = mirror(&world, &first, &second, &mut cursor);
            assert_eq!((report.copied, report.failures.len()), (0, 1), "{why}");
            let (of, error) = &report.failures[0];
            assert_eq!((*of, error.kind()), (id, expected), "{why}: {error}");
        }
    };
    plant(first.as_ref(), id, &forged(&new, u64::MAX));
    refused(ErrorKind::Untrusted, "forged, and newer than all");
    plant(first.as_ref(), id, b"no record");
    refused(ErrorKind::Format, "damaged");
    plant(first.as_ref(), id, &tombstone_of_another());
    refused(ErrorKind::Format, "another account's tombstone");
    plant(first.as_ref(), id, &old.to_bytes());
    refused(ErrorKind::Untrusted, "the first store was rolled back");
    world.kms.always(Call::Unwrap, Answer::Transient);
    refused(ErrorKind::Unavailable, "the KMS is silent, so nothing is known");
    world.kms.always(Call::Unwrap, Answer::Ok);
    world.run(secs(20));
    assert_eq!(current(second.as_ref(), id), new);

    // Two authentic records of one sequence: both stores were written to.
    plant(second.as_ref(), id, &old.to_bytes());
    world.kms.add_version(KEK);
    let elsewhere = World::beside(&world.clock, world.kms.clone(), secs(6), OutageGrace::None);
    let copy = elsewhere.cache.attach_stored(second.clone(), elsewhere.expect(id)).unwrap();
    copy.ready().wait().unwrap();
    copy.rotate_kek(RotateTo::Latest).unwrap();
    let theirs = current(second.as_ref(), id);
    assert_eq!(theirs.sequence(), new.sequence());
    plant(first.as_ref(), id, &new.to_bytes());
    refused(ErrorKind::Untrusted, "a fork");
    plant(second.as_ref(), id, &forged(&old, 1));
    assert_eq!(current(second.as_ref(), id), old, "nothing was forged");
    let mut damaged = old.to_bytes();
    *damaged.last_mut().unwrap() ^= 1;
    plant(second.as_ref(), id, &damaged);
    refused(ErrorKind::Untrusted, "the second store's is not authentic");
    assert_eq!(current(second.as_ref(), id).to_bytes(), damaged);
    plant(second.as_ref(), id, &tombstone_of_another());
    refused(ErrorKind::Untrusted, "another account's tombstone in the second");
}

/// It claims the last sequence of all.
fn tombstone_of_another() -> Vec<u8> {
    let id = AccountId::random();
    let (sequence, at) = (u64::MAX.to_be_bytes(), 1_790_000_000_u64.to_be_bytes());
    [b"\x89SRX\r\n\x1a\n\x01", &id.as_bytes()[..], &sequence, &at, &[1]].concat()
}

#[test]
fn e10_an_older_record_is_put_back_at_an_explicit_word_only_and_live_processes_adopt_it() {
    let world = World::new(6, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let account = stored(&world, &store);
    let block = Block::sealed_by(&account);
    let elsewhere = World::beside(&world.clock, world.kms.clone(), secs(6), OutageGrace::None);
    let other = elsewhere.cache.attach_stored(store.clone(), elsewhere.expect(account.id())).unwrap();
    other.ready().wait().unwrap();
    rotate(&world, &account);
    let newest = rotate(&world, &account);
    elsewhere.run(secs(7));
    assert_eq!(other.record(), newest);

    let kept = store.history(account.id()).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.sequence().unwrap().number()).collect::<Vec<_>>(), [1, 2, 3]);
    let first = AccountRecord::parse(&store.load_kept(account.id(), kept[0]).unwrap()).unwrap();
    let spec = RestoreSpec::new(store.clone(), first.clone(), world.expect(account.id()));
    assert_eq!(kind(world.cache.restore(spec.clone())), Some(ErrorKind::Untrusted));
    assert_eq!(current(store.as_ref(), account.id()), newest, "nothing was written");

    let restored = world.cache.restore(spec.clone().accept_an_older_record()).unwrap();
    assert_eq!(restored, Restored::Again(Sequence::new(4).unwrap()));
    let again = current(store.as_ref(), account.id());
    assert_eq!((again.kek_version(), again.sequence().number()), (first.kek_version(), 4));
    for (world, account) in [(&world, &account), (&elsewhere, &other)] {
        world.run(secs(14));
        // Adopted by a process that knew a newer one; by now one of them may have followed to the latest version again.
        assert!(account.record().sequence() >= again.sequence());
        assert_eq!(block.open(account), Ok(()));
        assert!(matches!(account.status(), Status::Fresh { .. }));
    }
    assert_eq!(world.cache.stats().integrity + elsewhere.cache.stats().integrity, 0);
}

#[test]
fn e10_a_newer_record_is_put_back_as_it_was_and_the_same_one_is_left() {
    let world = World::new(6, OutageGrace::None);
    let (store, lost) = (Arc::new(MemoryRecordStore::new()), Arc::new(MemoryRecordStore::new()));
    let account = stored(&world, &store);
    let id = account.id();
    let old = account.record();
    let new = rotate(&world, &account);
    drop(account);
    world.cache.drive();
    let spec = |record: &AccountRecord| RestoreSpec::new(lost.clone(), record.clone(), world.expect(id));
    assert_eq!(world.cache.restore(spec(&old)).unwrap(), Restored::AsItWas, "there was none");
    assert_eq!(world.cache.restore(spec(&old)).unwrap(), Restored::Unchanged);
    assert_eq!(world.cache.restore(spec(&new)).unwrap(), Restored::AsItWas, "that is newer");
    assert_eq!(current(lost.as_ref(), id), new);
    assert_eq!(kind(world.cache.restore(spec(&old))), Some(ErrorKind::Untrusted));
    // What is expected is a condition without the word, and what it is put back after with it.
    let newest = Sequence::new(9).unwrap();
    let noted = RestoreSpec::new(lost.clone(), new.clone(), world.expect(id).least_sequence(newest));
    assert_eq!(kind(world.cache.restore(noted.clone())), Some(ErrorKind::Untrusted));
    let restored = world.cache.restore(noted.accept_an_older_record()).unwrap();
    assert_eq!(restored, Restored::Again(Sequence::new(10).unwrap()));
}

#[test]
fn e10_restoring_believes_nothing_that_is_in_the_store_and_nothing_forged() {
    let world = World::new(6, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let account = stored(&world, &store);
    let id = account.id();
    let old = account.record();
    rotate(&world, &account);
    let spec = |record: &AccountRecord| {
        RestoreSpec::new(store.clone(), record.clone(), world.expect(id)).accept_an_older_record()
    };
    let forgery = AccountRecord::parse(&forged(&old, 7)).unwrap();
    assert_eq!(kind(world.cache.restore(spec(&forgery))), Some(ErrorKind::Untrusted));
    let other = AccountId::random();
    let foreign = RestoreSpec::new(store.clone(), old.clone(), world.expect(other)).accept_an_older_record();
    assert_eq!(kind(world.cache.restore(foreign)), Some(ErrorKind::Untrusted));

    // A forger who claims the last sequence of all cannot have the next one be none.
    for planted in [forged(&old, u64::MAX), b"no record".to_vec(), tombstone_of_another()] {
        plant(store.as_ref(), id, &planted);
        let plain = RestoreSpec::new(store.clone(), old.clone(), world.expect(id));
        assert_eq!(kind(world.cache.restore(plain)), Some(ErrorKind::Untrusted));
        let Restored::Again(sequence) = world.cache.restore(spec(&old)).unwrap() else { panic!("again") };
        // After the one that this process has in use, and not after the forger's.
        assert!((3..10).contains(&sequence.number()), "{sequence}");
        world.run(secs(14));
        assert!(account.record().sequence() >= sequence);
        assert!(matches!(account.status(), Status::Fresh { .. }));
    }
}

#[test]
fn e10_a_store_that_was_rolled_back_is_put_right_by_the_record_it_has() {
    let world = World::new(6, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let account = stored(&world, &store);
    let old = account.record();
    rotate(&world, &account);
    plant(store.as_ref(), account.id(), &old.to_bytes());
    world.run(secs(14));
    assert!(world.cache.stats().integrity > 0, "a process that knows a newer one refuses it");
    let spec = RestoreSpec::new(store.clone(), old, world.expect(account.id()));
    assert_eq!(kind(world.cache.restore(spec.clone())), Some(ErrorKind::Untrusted));
    assert!(matches!(world.cache.restore(spec.accept_an_older_record()).unwrap(), Restored::Again(_)));
    world.run(secs(61));
    assert!(matches!(account.status(), Status::Fresh { .. }));
}

#[test]
fn e10_a_restoration_undoes_what_the_newer_record_had_changed() {
    // The record was rotated to a KEK version that is gone since: nothing but the older record opens the account.
    let world = World::new(6, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let policy = RecordPolicy::default();
    let account = world.cache.create(world.spec().policy(policy).store(store.clone())).unwrap();
    let block = Block::sealed_by(&account);
    let old = account.record();
    let new = rotate(&world, &account);
    world.kms.set_version_enabled(KEK, new.kek_version(), false);
    world.run(secs(14));
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    let spec = RestoreSpec::new(store, old, world.expect(account.id())).accept_an_older_record();
    assert_eq!(world.cache.restore(spec).unwrap(), Restored::Again(Sequence::new(3).unwrap()));
    world.run(secs(61));
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn e10_a_rival_during_a_restoration_is_told_of() {
    let world = World::new(6, OutageGrace::None);
    let store = super::common::Store::new();
    let account = world.cache.create(world.spec().store(store.clone())).unwrap();
    let old = account.record();
    rotate(&world, &account);
    let spec = RestoreSpec::new(store.clone(), old, world.expect(account.id())).accept_an_older_record();
    store.conflict_nth(0);
    assert_eq!(kind(world.cache.restore(spec.clone())), Some(ErrorKind::Conflict));
    store.calm();
    for after in [false, true] {
        for failing in 0..2 {
            store.fail_nth(failing, after);
            assert_eq!(kind(world.cache.restore(spec.clone())), Some(ErrorKind::Io));
            store.calm();
        }
    }
    assert!(matches!(world.cache.restore(spec).unwrap(), Restored::Again(_)));
    world.run(secs(14));
    assert!(matches!(account.status(), Status::Fresh { .. }));
}

#[test]
fn e10_nothing_is_verified_or_put_back_by_a_cache_that_is_shut_down() {
    let world = World::new(6, OutageGrace::None);
    let store = Arc::new(MemoryRecordStore::new());
    let account = stored(&world, &store);
    let (id, record) = (account.id(), account.record());
    world.cache.shutdown(secs(1));
    let report = verify(&world, &store);
    assert_eq!(report.failures[0].result.as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    let spec = RestoreSpec::new(store, record, world.expect(id));
    assert_eq!(kind(world.cache.restore(spec)), Some(ErrorKind::Unavailable));
}
