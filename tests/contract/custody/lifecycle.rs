//! Rotation, deletion and the rest of an account's life under two KEKs: A7 with E1 to E10.

use strongroom::provider::KekVersion;
use strongroom::{
    DestroyForGood, Generation, Loaded, MemoryRecordStore, NothingRefersToIt, OperationKind, OperationTarget,
    Operations, RecordCursor, RecordPolicy, RecordStore, RestoreSpec, Restored, Retention, Retirement,
    Sequence, peek,
};

use super::*;

/// A generation that was just made is used after so long.
const ACTIVE: Duration = secs(132);
const BOTH: [Custody; 2] = [FAILOVER, Custody::Joint];

fn nth(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

fn generation(block: &Block) -> u32 {
    peek(&block.frame).unwrap().generation().number()
}

fn opens(account: &Account, blocks: &[Block]) -> bool {
    blocks.iter().all(|block| block.open(account).is_ok())
}

impl Two {
    /// Attached by a process that has just started, which the first KMS does not answer.
    fn stands_in_anew(&self) -> (AekCache, Account) {
        Says::Silent.tell(&self.first);
        let cache = self.cache(OutageGrace::None);
        let account = self.attach(&cache);
        cache.run_for(secs(20));
        (cache, account)
    }
}

#[test]
fn a7_e4_the_aek_is_rotated_and_one_unwrap_of_each_opens_everything() {
    for custody in BOTH {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let mut blocks = vec![Block::sealed_by(&account)];
        for number in 2..=4 {
            let before = account.record();
            two.second.add_version(KEK);
            assert_eq!(account.rotate_aek().unwrap().generation, nth(number));
            assert_ne!(account.record().fingerprint(), before.fingerprint());
            // Of a policy that follows, each slot is under the latest version.
            let versions = number.to_string();
            assert_eq!(account.record().second_kek_version().unwrap().as_str(), versions);
            assert_eq!(account.rotate_aek().unwrap_err().kind(), ErrorKind::Misuse, "one at a time");
            assert_eq!(generation(&Block::sealed_by(&account)), number - 1, "published, not active yet");
            cache.run_for(ACTIVE);
            blocks.push(Block::sealed_by(&account));
            assert_eq!(generation(blocks.last().unwrap()), number);
            assert!(opens(&account, &blocks));
        }
        two.first.clear_log();
        two.second.clear_log();
        let again = two.cache(OutageGrace::None);
        let attached = two.attach(&again);
        again.run_for(secs(1));
        assert!(opens(&attached, &blocks));
        let by_second = usize::from(custody == Custody::Joint);
        assert_eq!((two.first.calls(Call::Unwrap), two.second.calls(Call::Unwrap)), (1, by_second));
        if custody == FAILOVER {
            let (_dark, attached) = two.stands_in_anew();
            assert!(opens(&attached, &blocks), "{:?}", attached.status());
        } else {
            Says::Refused.tell(&two.second);
            again.run_for(STEP);
            assert!(blocks.iter().all(|block| block.open(&attached) == Err(ErrorKind::Revoked)));
        }
    }
}

#[test]
fn a7_e4_both_kms_have_to_answer_when_the_aek_is_rotated() {
    for custody in BOTH {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::For(secs(1800)));
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        let before = two.store.bytes(two.id).unwrap();
        for (kms, says, expected) in [
            (&two.second, Says::Silent, ErrorKind::Unavailable),
            (&two.first, Says::Silent, ErrorKind::Unavailable),
            (&two.second, Says::Refused, ErrorKind::Revoked),
        ] {
            says.tell(kms);
            assert_eq!(account.rotate_aek().unwrap_err().kind(), expected, "{custody:?}");
            assert_eq!(two.store.bytes(two.id).unwrap(), before, "nothing was persisted");
            Says::Ok.tell(kms);
        }
        account.rotate_aek().unwrap();
        cache.run_for(STEP);
        assert_eq!(block.open(&account), Ok(()));
    }
}

#[test]
fn a7_e4_a_destroyed_generation_leaves_the_second_able_to_stand_in() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let old = Block::sealed_by(&account);
    account.rotate_aek().unwrap();
    cache.run_for(ACTIVE + secs(72));
    let new = Block::sealed_by(&account);
    account.destroy_generation(nth(1), NothingRefersToIt::as_the_engine_states()).unwrap();
    cache.run_for(STEP);
    Says::Silent.tell(&two.first);
    cache.run_for(STEP);
    let stands_in = |account: &Account| {
        assert_eq!(seen(account), Some(Seen::Grace));
        assert_eq!((old.open(account), new.open(account)), (Err(ErrorKind::UnknownGeneration), Ok(())));
    };
    // In the process that created it, which knows the AEK that is gone by its fingerprint, and in another.
    stands_in(&account);
    let (_dark, anew) = two.stands_in_anew();
    stands_in(&anew);
}

#[test]
fn a7_e4_a_refusal_is_recorded_under_the_generation_that_is_there() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    account.rotate_aek().unwrap();
    cache.run_for(ACTIVE);
    // Heard by a process without a key, which makes the record that follows that of the rotation.
    Says::Refused.tell(&two.first);
    let other = two.cache(OutageGrace::None);
    let attached = two.attach(&other);
    other.run_for(secs(1));
    assert_eq!(seen(&attached), Some(Seen::Revoked));
    let (_dark, late) = two.stands_in_anew();
    assert!(block.open(&late).is_err(), "{:?}", late.status());
    // A rotation with the bar in force, which the first KMS makes possible, is of an account that the first one opens.
    Says::Ok.tell(&two.first);
    account.rotate_aek().unwrap();
    cache.run_for(ACTIVE);
    let (_dark, late) = two.stands_in_anew();
    assert_eq!(block.open(&late), Ok(()));
}

#[test]
fn a7_e2_pins_of_both_are_updated_through_their_standby_wraps() {
    for custody in BOTH {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::None);
        let one = KekVersion::new("1").unwrap();
        let pinned = || Kek::pinned(KEK, one.clone());
        let (first, second) = (Arc::new(two.first.clone()), Arc::new(two.second.clone()));
        let spec = AccountSpec::new(two.id, first, pinned()).store(two.store.clone());
        let spec = match custody {
            Custody::Failover(limit) => spec.failover(second, pinned(), limit),
            Custody::Joint => spec.joint_with(second, pinned()),
        };
        let account = cache.create(spec).unwrap();
        let block = Block::sealed_by(&account);
        two.first.add_version(KEK);
        two.second.add_version(KEK);
        cache.run_for(secs(700));
        let standby = |record: AccountRecord| {
            (record.standby_version().cloned(), record.second_standby_version().cloned())
        };
        let two_of = || Some(KekVersion::new("2").unwrap());
        assert_eq!(standby(account.record()), (two_of(), two_of()));
        // A new AEK has its standby wraps too.
        account.rotate_aek().unwrap();
        assert_eq!(standby(account.record()), (two_of(), two_of()));
        assert_eq!(account.record().kek_version(), &one);
        two.first.set_version_enabled(KEK, &one, false);
        two.second.set_version_enabled(KEK, &one, false);
        cache.run_for(STEP);
        assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "{custody:?}");
        account.rotate_kek(RotateTo::Latest).unwrap();
        account.rotate_second_kek(RotateTo::Latest).unwrap();
        cache.run_for(STEP);
        assert_eq!(block.open(&account), Ok(()), "{custody:?}");
        if custody == FAILOVER {
            let (_dark, anew) = two.stands_in_anew();
            assert_eq!(block.open(&anew), Ok(()));
        }
    }
}

#[test]
fn a7_e5_e8_every_account_is_wrapped_anew_under_both_and_verification_tells_of_both() {
    for custody in BOTH {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::None);
        let records = Arc::new(MemoryRecordStore::new());
        let spec = two.spec(Arc::new(two.first.clone()), Arc::new(two.second.clone()));
        let account = cache.create(spec.store(records.clone())).unwrap();
        let block = Block::sealed_by(&account);
        let service = AccountSpec::new(AccountId::random(), Arc::new(two.first.clone()), Kek::latest(KEK));
        let service = cache.create(service).unwrap();
        two.first.add_version(KEK);
        two.second.add_version(KEK);
        let operations = Operations::new(Arc::new(MemoryRecordStore::new()), service);
        let target = OperationTarget::from_bytes(*b"all of this test");
        let run = operations.begin(OperationKind::Rewrap, target).unwrap();
        let report = cache.rewrap_all(records.clone(), &|_| Some(two.expect()), run, 1000).unwrap();
        assert_eq!((report.rewrapped, report.failures.len()), (1, 0));
        cache.run_for(STEP);
        let record = account.record();
        let versions = (record.kek_version().as_str(), record.second_kek_version().unwrap().as_str());
        assert_eq!(versions, ("2", "2"));
        assert_eq!(block.open(&account), Ok(()));

        let expect = two.expect();
        let report = cache.verify_all(records, move |_| Some(expect.clone()), 1000).unwrap();
        let report = report.with_history().report().unwrap();
        assert!(report.authentic == 1 && report.failures.is_empty(), "{report:?}");
        for kek in [record.kek(), record.second_kek().unwrap()] {
            let retirement = |version: &str| report.retirement(kek, &KekVersion::new(version).unwrap());
            assert!(matches!(retirement("1"), Retirement::Needed(need) if need.newest == 0 && need.kept > 0));
            assert!(matches!(retirement("2"), Retirement::Needed(need) if need.newest == 1));
            assert_eq!(retirement("3"), Retirement::NotNeeded);
        }
    }
}

#[test]
fn a7_e7_an_account_under_two_keks_is_deleted_recovered_purged_and_shredded() {
    for custody in BOTH {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::For(secs(1800)));
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        // With a lease nobody has to answer; to bring it back takes an unwrap as every refresh does.
        Says::Silent.tell(&two.first);
        cache.run_for(STEP);
        account.delete(Retention::DEFAULT).unwrap();
        assert_eq!(block.open(&account), Err(ErrorKind::Deleted));
        assert_eq!(kind(account.recover()), Some(ErrorKind::Unavailable));
        Says::Ok.tell(&two.first);
        account.recover().unwrap();
        cache.run_for(STEP);
        assert_eq!(block.open(&account), Ok(()));
        account.delete(Retention::days(1).unwrap()).unwrap();
        cache.run_for(secs(24 * 3600));
        account.purge().unwrap();
        assert_eq!(kind(account.recover()), Some(ErrorKind::Deleted));

        let shredded = Two::new(custody);
        let cache = shredded.cache(OutageGrace::None);
        let account = shredded.create(&cache);
        Says::Silent.tell(&shredded.first);
        Says::Refused.tell(&shredded.second);
        let store: Arc<dyn RecordStore> = shredded.store.clone();
        cache.shred(&store, shredded.id, DestroyForGood).unwrap();
        cache.run_for(STEP);
        assert_eq!(account.status(), Status::Deleted);
    }
}

#[test]
fn a7_e7_a_stand_in_ends_with_the_deletion_that_another_machine_has_made() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let (dark, late) = two.stands_in_anew();
    assert_eq!(seen(&late), Some(Seen::Grace));
    Says::Ok.tell(&two.first);
    account.delete(Retention::DEFAULT).unwrap();
    Says::Silent.tell(&two.first);
    dark.run_for(secs(71));
    assert_eq!(late.status(), Status::Deleted);
}

#[test]
fn a7_c5_the_customers_terms_are_changed_in_a_stand_in_and_a_refusal_still_bars() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    Says::Silent.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Grace));
    account.set_policy(RecordPolicy::default().with_max_grace(secs(60))).unwrap();
    cache.run_for(STEP);
    // What the customer shortens is the grace of silence. A stand-in is an answer, and has a limit of its own.
    assert_eq!(block.open(&account), Ok(()));
    Says::Refused.tell(&two.first);
    cache.run_for(STEP);
    let (_dark, late) = two.stands_in_anew();
    assert!(block.open(&late).is_err());
    assert_eq!(late.record().policy().max_grace(), Some(secs(60)));
}

#[test]
fn a7_e10_an_older_record_is_put_back_only_where_the_first_kms_unwraps_it() {
    for custody in BOTH {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        let older = account.record();
        two.first.add_version(KEK);
        account.rotate_kek(RotateTo::Latest).unwrap();
        let spec = RestoreSpec::new(two.store.clone(), older, two.expect()).accept_an_older_record();
        for (says, expected) in [(Says::Silent, ErrorKind::Unavailable), (Says::Refused, ErrorKind::Revoked)]
        {
            says.tell(&two.first);
            assert_eq!(kind(cache.restore(spec.clone())), Some(expected));
        }
        // That it was refused is undone by nothing but an answer of the first one.
        cache.run_for(STEP);
        assert_eq!(seen(&account), Some(Seen::Revoked));
        Says::Ok.tell(&two.first);
        assert!(matches!(cache.restore(spec).unwrap(), Restored::Again(_)));
        cache.run_for(STEP);
        assert_eq!((seen(&account), block.open(&account)), (Some(Seen::Fresh), Ok(())));
    }
}

/// In one suite and in the other.
fn of_two_shares() -> [Two; 2] {
    [Two::new(Custody::Joint), Two::doubled(Custody::Joint)]
}

/// Nothing of `ask` comes about while any one KMS of the account is silent or refuses.
fn needs_every_one(two: &Two, mut ask: impl FnMut() -> Option<ErrorKind>) {
    for kms in two.needed() {
        for (says, expected) in [(Says::Silent, ErrorKind::Unavailable), (Says::Refused, ErrorKind::Revoked)]
        {
            says.tell(kms);
            assert_eq!(ask(), Some(expected), "{:?}", kms.authority());
            Says::Ok.tell(kms);
        }
    }
}

#[test]
fn a7_e4_a_generation_of_two_shares_is_destroyed_where_both_kms_answer() {
    for two in of_two_shares() {
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let old = Block::sealed_by(&account);
        account.rotate_aek().unwrap();
        cache.run_for(ACTIVE + secs(72));
        let new = Block::sealed_by(&account);
        let destroy = || kind(account.destroy_generation(nth(1), NothingRefersToIt::as_the_engine_states()));
        let (before, kept) = (two.store.bytes(two.id), two.store.kept(two.id));
        assert!(!kept.is_empty());
        needs_every_one(&two, destroy);
        assert_eq!(
            (two.store.bytes(two.id), two.store.kept(two.id)),
            (before, kept),
            "nothing was destroyed"
        );
        assert_eq!(destroy(), None);
        assert!(two.store.kept(two.id).is_empty(), "what was kept has the AEK too");
        cache.run_for(STEP);
        let again = two.cache(OutageGrace::None);
        let anew = two.attach(&again);
        again.run_for(secs(1));
        for account in [&account, &anew] {
            assert_eq!((old.open(account), new.open(account)), (Err(ErrorKind::UnknownGeneration), Ok(())));
        }
        // Each of them still revokes.
        for kms in two.needed() {
            Says::Refused.tell(kms);
            cache.run_for(STEP);
            assert_eq!(new.open(&account), Err(ErrorKind::Revoked));
            Says::Ok.tell(kms);
            cache.run_for(STEP);
            assert_eq!(new.open(&account), Ok(()));
        }
    }
}

fn stored(store: &MemoryRecordStore, id: AccountId) -> Option<AccountRecord> {
    match store.load(id, None).unwrap() {
        Loaded::Found { bytes, .. } => Some(AccountRecord::parse(&bytes).unwrap()),
        _ => None,
    }
}

#[test]
fn a7_e10_a_record_of_two_shares_is_mirrored_and_put_back_where_both_kms_unwrap_it() {
    for two in of_two_shares() {
        let cache = two.cache(OutageGrace::None);
        let stores: [_; 3] = std::array::from_fn(|_| Arc::new(MemoryRecordStore::new()));
        let [live, copy, lost] = &stores;
        let spec = two.spec(Arc::new(two.first.clone()), Arc::new(two.second.clone()));
        let account = cache.create(spec.store(live.clone())).unwrap();
        let mut blocks = vec![Block::sealed_by(&account)];
        let mut cursor = RecordCursor::new();
        let mut mirror = || {
            let report =
                cache.mirror(live.as_ref(), copy.clone(), &mut cursor, &|_| Some(two.expect()), 1000);
            let report = report.unwrap();
            let failed = report.failures.first().map(|(_, error)| error.kind());
            assert_eq!(report.copied, u64::from(failed.is_none()));
            failed
        };
        let first = account.record();
        assert_eq!(mirror(), None);
        // A new version of the second KEK, a new AEK: each record follows the one before.
        two.second.add_version(KEK);
        account.rotate_second_kek(RotateTo::Latest).unwrap();
        let rewrapped = account.record();
        account.rotate_aek().unwrap();
        cache.run_for(ACTIVE);
        blocks.push(Block::sealed_by(&account));
        needs_every_one(&two, &mut mirror);
        assert_eq!(stored(copy, two.id).as_ref(), Some(&first), "nothing was copied");
        assert_eq!(mirror(), None);
        let newest = account.record();
        assert_eq!(stored(copy, two.id).as_ref(), Some(&newest));

        // All is lost but the copy.
        drop(account);
        cache.drive();
        let spec = |record: &AccountRecord| RestoreSpec::new(lost.clone(), record.clone(), two.expect());
        let restore = |record: &AccountRecord| cache.restore(spec(record));
        needs_every_one(&two, || kind(restore(&newest)));
        assert_eq!(stored(lost, two.id), None, "nothing was put back");
        assert_eq!(restore(&rewrapped).unwrap(), Restored::AsItWas);
        assert_eq!(restore(&newest).unwrap(), Restored::AsItWas);
        assert_eq!(restore(&newest).unwrap(), Restored::Unchanged);
        let again = two.cache(OutageGrace::None);
        let attached = again.attach_stored(lost.clone(), two.expect()).unwrap();
        again.run_for(secs(1));
        assert!(opens(&attached, &blocks));
        // An older one at an explicit word only. It has not the AEK of the newer one, so who restores says what that one's sequence is.
        assert_eq!(kind(restore(&rewrapped)), Some(ErrorKind::Untrusted));
        let noted = two.expect().least_sequence(newest.sequence());
        let spec = RestoreSpec::new(lost.clone(), rewrapped, noted).accept_an_older_record();
        needs_every_one(&two, || kind(cache.restore(spec.clone())));
        let next = Sequence::new(newest.sequence().number() + 1).unwrap();
        assert_eq!(cache.restore(spec).unwrap(), Restored::Again(next));
        drop(attached);
        again.drive();
        let anew = again.attach_stored(lost.clone(), two.expect()).unwrap();
        again.run_for(secs(1));
        assert_eq!(blocks[0].open(&anew), Ok(()));
        assert_eq!(blocks[1].open(&anew), Err(ErrorKind::UnknownGeneration), "it went with the newer record");
    }
}

#[test]
fn a7_e10_a_recorded_refusal_is_mirrored_though_nobody_unwraps_it() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let (live, copy) = (Arc::new(MemoryRecordStore::new()), Arc::new(MemoryRecordStore::new()));
    let spec = two.spec(Arc::new(two.first.clone()), Arc::new(two.second.clone()));
    let account = cache.create(spec.store(live.clone())).unwrap();
    let block = Block::sealed_by(&account);
    let mirror = || {
        let expect = |_| Some(two.expect());
        let report =
            cache.mirror(live.as_ref(), copy.clone(), &mut RecordCursor::new(), &expect, 1000).unwrap();
        (report.copied, report.failures.first().map(|(_, error)| error.kind()))
    };
    let plant = |bytes: &[u8]| {
        let Loaded::Found { tag, .. } = live.load(two.id, None).unwrap() else { panic!("a record") };
        live.compare_and_swap(two.id, Some(&tag), bytes).unwrap();
    };
    assert_eq!(mirror(), (1, None));
    let open = stored(&copy, two.id).unwrap();
    Says::Refused.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Revoked));
    let barred = stored(&live, two.id).unwrap();
    // Anybody else's word for it is not taken, nor any other record.
    let mut forged = barred.to_bytes();
    *forged.last_mut().unwrap() ^= 1;
    plant(&forged);
    assert_eq!(mirror(), (0, Some(ErrorKind::Revoked)));
    plant(&barred.to_bytes());
    Says::Silent.tell(&two.first);
    assert_eq!(mirror(), (0, Some(ErrorKind::Unavailable)));
    assert_eq!(stored(&copy, two.id), Some(open));
    Says::Refused.tell(&two.first);
    assert_eq!(mirror(), (1, None));
    assert_eq!(stored(&copy, two.id), Some(barred));
    // All is lost but the copy, and the first one is not heard any more.
    Says::Silent.tell(&two.first);
    let elsewhere = two.cache(OutageGrace::None);
    let late = elsewhere.attach_stored(copy.clone(), two.expect()).unwrap();
    elsewhere.run_for(STEP);
    assert!(block.open(&late).is_err(), "{:?}", late.status());
    // It unwraps again, and what it says is mirrored as ever.
    Says::Ok.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(mirror(), (1, None));
    elsewhere.run_for(STEP);
    assert_eq!(block.open(&late), Ok(()));
}
