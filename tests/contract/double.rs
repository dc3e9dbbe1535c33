//! Double encryption: A6. Two KEKs, at two providers, and what each of them can take away.

use std::sync::Arc;

use strongroom::provider::{Authority, Kek, KekVersion, KeyProvider};
use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountSpec, AekCache, ErrorKind, Expect, OutageGrace, Refusal, Retire, RotateTo,
    Status, Suite,
};

use crate::common::{Block, KEK, Store, World, kind, secs, usable};

const SECOND: &str = "second";

/// A world with another KMS in it, which holds the second KEK.
struct Pair {
    world: World,
    second: ScriptedProvider,
}

impl Pair {
    fn new(refresh: u64, grace: OutageGrace) -> Self {
        let world = World::new(refresh, grace);
        let second = ScriptedProvider::on_virtual_time()
            .with_clock(&world.clock)
            .with_authority(Authority::new("scripted", "another"));
        second.add_key(SECOND);
        Self { world, second }
    }

    fn outer(&self) -> Arc<dyn KeyProvider> {
        Arc::new(self.second.clone())
    }

    fn spec(&self) -> AccountSpec {
        self.world.spec().double_encryption(self.outer(), Kek::latest(SECOND))
    }

    fn create(&self) -> Account {
        self.world.cache.create(self.spec()).unwrap()
    }

    fn expect(&self, id: AccountId) -> Expect {
        self.world.expect(id).outer_kek(self.outer(), SECOND)
    }
}

#[test]
fn a6_an_account_is_created_under_two_keks_and_attached_again() {
    let pair = Pair::new(6, OutageGrace::None);
    let account = pair.create();
    let block = Block::sealed_by(&account);
    let record = account.record();
    assert_eq!(record.suite(), Suite::Double);
    assert_eq!(record.outer_kek().unwrap().as_str(), "scripted://another/second");
    assert_eq!((record.kek_version().as_str(), record.outer_kek_version().unwrap().as_str()), ("1", "1"));
    assert_eq!(account.permit().unwrap().sealing().unwrap().1, Suite::Double);
    let id = account.id();
    drop(account);
    pair.world.cache.drive();
    pair.world.kms.clear_log();
    pair.second.clear_log();
    let account = pair.world.cache.attach(record, pair.expect(id)).unwrap();
    pair.world.run(secs(1));
    // One round trip for each slot.
    assert_eq!((pair.world.kms.calls(Call::Unwrap), pair.second.calls(Call::Unwrap)), (1, 1));
    assert_eq!(block.open(&account), Ok(()));
    pair.world.run(secs(30));
    assert_eq!(pair.world.kms.calls(Call::Unwrap), pair.second.calls(Call::Unwrap));
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn a6_a_refusal_by_either_kms_revokes_and_both_are_needed_to_come_back() {
    let pair = Pair::new(6, OutageGrace::For(secs(1800)));
    for inner in [true, false] {
        let (kms, kek) = if inner { (&pair.world.kms, KEK) } else { (&pair.second, SECOND) };
        let account = pair.create();
        let block = Block::sealed_by(&account);
        kms.set_enabled(kek, false);
        pair.world.run(secs(10));
        assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "inner: {inner}");
        assert!(matches!(account.status(), Status::Revoked { .. }));
        kms.set_enabled(kek, true);
        pair.world.run(secs(61));
        assert_eq!(block.open(&account), Ok(()), "inner: {inner}");
    }
}

#[test]
fn a6_the_silence_of_either_kms_is_silence_and_ends_with_the_grace() {
    for inner in [true, false] {
        let pair = Pair::new(6, OutageGrace::For(secs(60)));
        let account = pair.create();
        let block = Block::sealed_by(&account);
        let kms = if inner { &pair.world.kms } else { &pair.second };
        kms.every_call(&Answer::Transient);
        pair.world.run(secs(40));
        assert_eq!(block.open(&account), Ok(()), "in its grace");
        pair.world.run(secs(60));
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable));
        kms.every_call(&Answer::Ok);
        pair.world.run(secs(20));
        assert_eq!(block.open(&account), Ok(()));
    }
}

#[test]
fn a6_a_refusal_is_heard_while_the_other_kms_is_silent() {
    for inner in [true, false] {
        let pair = Pair::new(6, OutageGrace::For(secs(1800)));
        let account = pair.create();
        let block = Block::sealed_by(&account);
        let (silent, refusing, kek) = if inner {
            (&pair.second, &pair.world.kms, KEK)
        } else {
            (&pair.world.kms, &pair.second, SECOND)
        };
        silent.every_call(&Answer::Transient);
        refusing.set_enabled(kek, false);
        pair.world.run(secs(20));
        assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "refused by the inner one: {inner}");
    }
}

#[test]
fn a6_b12_a_second_kms_that_is_silent_costs_the_accounts_of_the_first_nothing() {
    let pair = Pair::new(6, OutageGrace::None);
    let (double, single) = (pair.create(), pair.world.create());
    pair.second.every_call(&Answer::Transient);
    for _ in 0..30 {
        pair.world.run(secs(10));
        assert!(usable(&single));
    }
    assert_eq!(kind(double.permit()), Some(ErrorKind::Unavailable));
}

#[test]
fn a6_a8_a_record_of_the_other_suite_is_not_admitted() {
    let pair = Pair::new(6, OutageGrace::None);
    let (double, single) = (pair.create(), pair.world.create());
    let (record, plain) = (double.record(), single.record());
    for (record, expect) in [
        // Whoever can use the first KEK alone makes a record of suite 1; whoever can use one makes both wraps under it.
        (&plain, pair.expect(single.id())),
        (&record, pair.world.expect(double.id())),
        (&record, pair.world.expect(double.id()).outer_kek(pair.world.provider(), KEK)),
        (
            &record,
            Expect::account(double.id()).kek(pair.outer(), SECOND).outer_kek(pair.world.provider(), KEK),
        ),
    ] {
        assert_eq!(kind(expect.admit(record)), Some(ErrorKind::Untrusted));
    }
    assert_eq!(pair.expect(double.id()).fingerprint(record.fingerprint()).admit(&record).unwrap().len(), 2);
    let other = pair.expect(double.id()).fingerprint(plain.fingerprint());
    assert_eq!(kind(other.admit(&record)), Some(ErrorKind::Untrusted));
}

#[test]
fn a6_a_running_account_adopts_no_record_of_the_other_suite() {
    let pair = Pair::new(6, OutageGrace::None);
    let store = Store::new();
    let id = AccountId::random();
    let spec = AccountSpec::new(id, pair.world.provider(), Kek::latest(KEK));
    let spec = spec.double_encryption(pair.outer(), Kek::latest(SECOND)).store(Arc::clone(&store) as _);
    let account = pair.world.cache.create(spec).unwrap();
    let block = Block::sealed_by(&account);
    // An authentic record of the same account, of suite 1, made by whoever can use the first KEK.
    let elsewhere = World::beside(&pair.world.clock, pair.world.kms.clone(), secs(6), OutageGrace::None);
    let forged =
        elsewhere.cache.create(AccountSpec::new(id, pair.world.provider(), Kek::latest(KEK))).unwrap();
    store.plant(id, &forged.record().to_bytes());
    pair.world.run(secs(60));
    assert_eq!(block.open(&account), Err(ErrorKind::Unavailable));
    assert_eq!(account.last_failure().unwrap().kind(), ErrorKind::Untrusted);
}

#[test]
fn a6_either_kek_is_rotated_by_itself_and_everything_stays_readable() {
    let pair = Pair::new(6, OutageGrace::None);
    let store = Store::new();
    let account = pair.world.cache.create(pair.spec().store(Arc::clone(&store) as _)).unwrap();
    let block = Block::sealed_by(&account);
    let first = account.record();
    let versions = |account: &Account| {
        let record = account.record();
        (record.kek_version().as_str().to_owned(), record.outer_kek_version().unwrap().as_str().to_owned())
    };
    pair.second.add_version(SECOND);
    assert!(matches!(account.rotate_outer_kek(RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
    assert_eq!(versions(&account), ("1".into(), "2".into()));
    assert_eq!(account.rotate_outer_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);
    pair.world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    assert_eq!(versions(&account), ("2".into(), "2".into()));
    assert_eq!(account.record().fingerprint(), first.fingerprint());
    pair.second.set_version_enabled(SECOND, &KekVersion::new("1").unwrap(), false);
    pair.world.kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
    pair.world.run(secs(60));
    assert_eq!(block.open(&account), Ok(()));
    // Found by itself, as with one KEK.
    pair.second.add_version(SECOND);
    pair.world.run(secs(660));
    assert_eq!(versions(&account), ("2".into(), "3".into()));
    assert_eq!(block.open(&account), Ok(()));
    let single = pair.world.create();
    assert_eq!(kind(single.rotate_outer_kek(RotateTo::Latest)), Some(ErrorKind::Misuse));
}

#[test]
fn a6_e2_pins_of_both_keks_are_updated_through_their_standby_wraps() {
    let pair = Pair::new(6, OutageGrace::None);
    let store = Store::new();
    let one = || KekVersion::new("1").unwrap();
    let spec = AccountSpec::new(AccountId::random(), pair.world.provider(), Kek::pinned(KEK, one()));
    let mixed = spec.clone().double_encryption(pair.outer(), Kek::latest(SECOND));
    assert_eq!(kind(pair.world.cache.create(mixed)), Some(ErrorKind::Misuse));
    let same = pair.world.spec().double_encryption(pair.world.provider(), Kek::latest(KEK));
    assert_eq!(kind(pair.world.cache.create(same)), Some(ErrorKind::Misuse));

    let spec = spec.double_encryption(pair.outer(), Kek::pinned(SECOND, one()));
    let account = pair.world.cache.create(spec.store(Arc::clone(&store) as _)).unwrap();
    let block = Block::sealed_by(&account);
    pair.world.kms.add_version(KEK);
    pair.second.add_version(SECOND);
    pair.world.run(secs(660));
    let record = account.record();
    let standby = (record.standby_version(), record.outer_standby_version());
    assert_eq!((standby.0.unwrap().as_str(), standby.1.unwrap().as_str()), ("2", "2"));
    assert_eq!((record.kek_version(), record.outer_kek_version()), (&one(), Some(&one())));
    // Both pinned versions are disabled: revoked, until both pins are updated.
    pair.world.kms.set_version_enabled(KEK, &one(), false);
    pair.second.set_version_enabled(SECOND, &one(), false);
    pair.world.run(secs(30));
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    account.rotate_kek(RotateTo::Latest).unwrap();
    pair.world.run(secs(61));
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    account.rotate_outer_kek(RotateTo::Latest).unwrap();
    pair.world.run(secs(61));
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn a6_b9_neither_kek_may_be_unfit_at_creation() {
    for (unfit, expected) in [(0, ErrorKind::Revoked), (1, ErrorKind::Misuse), (2, ErrorKind::Unavailable)] {
        let pair = Pair::new(6, OutageGrace::None);
        match unfit {
            0 => pair.second.set_enabled(SECOND, false),
            1 => pair.second.set_recoverable(SECOND, false),
            _ => pair.second.every_call(&Answer::Transient),
        }
        let failed = pair.world.cache.create(pair.spec()).unwrap_err();
        assert_eq!(failed.kind(), expected);
        assert!(expected != ErrorKind::Revoked || failed.refusal() == Some(Refusal::KeyDisabled));
    }
}

#[test]
fn a6_verification_tells_of_the_versions_of_both_keks() {
    let pair = Pair::new(6, OutageGrace::None);
    let store = Arc::new(strongroom::MemoryRecordStore::new());
    let account = pair.world.cache.create(pair.spec().store(Arc::clone(&store) as _)).unwrap();
    let (id, kms, outer) = (account.id(), pair.world.provider(), pair.outer());
    let expect = move |account| {
        (account == id)
            .then(|| Expect::account(id).kek(Arc::clone(&kms), KEK).outer_kek(Arc::clone(&outer), SECOND))
    };
    let report = pair.world.cache.verify_all(store, expect, 50).unwrap().report().unwrap();
    assert_eq!((report.accounts, report.authentic), (1, 1));
    let needed: Vec<&str> = report.needed.keys().map(|(kek, _)| kek.as_str()).collect();
    assert!(needed.contains(&"scripted://another/second") && needed.len() == 2, "{needed:?}");
}

#[test]
fn c8_a6_an_account_under_two_keks_takes_two_places_under_a_cap() {
    let pair = Pair::new(6, OutageGrace::None);
    let accounts: Vec<_> =
        (0..4).map(|_| pair.create()).map(|account| (account.record(), account.id())).collect();
    let capped = AekCache::builder().refresh_every(secs(6)).kms_calls_per_second(1).manual(&pair.world.clock);
    let capped = capped.build().unwrap();
    assert_eq!(capped.stats().most_accounts, Some(5));
    let attach = |n: usize| capped.attach(accounts[n].0.clone(), pair.expect(accounts[n].1));
    let (first, _second) = (attach(0).unwrap(), attach(1).unwrap());
    assert_eq!(kind(attach(2)), Some(ErrorKind::Limit), "one place is left, and it needs two");
    drop(first);
    attach(3).unwrap();
}

#[test]
fn e4_a6_both_aeks_are_rotated_and_older_ones_open_with_one_unwrap_each() {
    let pair = Pair::new(6, OutageGrace::None);
    let store = Store::new();
    let account = pair.world.cache.create(pair.spec().store(Arc::clone(&store) as _)).unwrap();
    let mut blocks = vec![Block::sealed_by(&account)];
    for _ in 0..2 {
        let before = account.record().fingerprint();
        account.rotate_aek().unwrap();
        assert_ne!(account.record().fingerprint(), before);
        pair.world.run(secs(132));
        blocks.push(Block::sealed_by(&account));
    }
    let info = |block: &Block| strongroom::peek(&block.frame).unwrap();
    let numbers: Vec<u32> = blocks.iter().map(|block| info(block).generation().number()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert!(blocks.iter().all(|block| info(block).suite() == Suite::Double));
    let id = account.id();
    drop(account);
    pair.world.cache.drive();
    pair.world.kms.clear_log();
    pair.second.clear_log();
    let account = pair.world.cache.attach_stored(store, pair.expect(id)).unwrap();
    pair.world.run(secs(1));
    assert_eq!((pair.world.kms.calls(Call::Unwrap), pair.second.calls(Call::Unwrap)), (1, 1));
    assert!(blocks.iter().all(|block| block.open(&account).is_ok()));
    // The second KEK's customer takes all of it away.
    pair.second.set_enabled(SECOND, false);
    pair.world.run(secs(12));
    assert!(blocks.iter().all(|block| block.open(&account) == Err(ErrorKind::Revoked)));
}

#[test]
fn a6_double_encryption_is_chosen_at_creation_and_never_changes() {
    let pair = Pair::new(6, OutageGrace::None);
    for suite in [Suite::Aes256Gcm, Suite::Double] {
        let double = suite == Suite::Double;
        let store = Store::new();
        let spec = if double { pair.spec() } else { pair.world.spec() };
        let account = pair.world.cache.create(spec.store(Arc::clone(&store) as _)).unwrap();
        let unchanged = |account: &Account| {
            let record = account.record();
            assert_eq!((record.suite(), record.outer_kek().is_some()), (suite, double));
            assert_eq!(account.permit().unwrap().sealing().unwrap().1, suite);
        };
        unchanged(&account);
        pair.world.kms.add_version(KEK);
        account.rotate_kek(RotateTo::Latest).unwrap();
        unchanged(&account);
        account.rotate_aek().unwrap();
        pair.world.run(secs(132));
        assert_eq!(account.permit().unwrap().sealing().unwrap().0.number(), 2);
        unchanged(&account);
        let id = account.id();
        drop(account);
        pair.world.cache.drive();
        // Neither does who attaches it choose.
        let (expect, other) = (pair.expect(id), pair.world.expect(id));
        let (expect, other) = if double { (expect, other) } else { (other, expect) };
        let attach = |expect| pair.world.cache.attach_stored(Arc::clone(&store) as _, expect);
        assert_eq!(kind(attach(other)), Some(ErrorKind::Untrusted));
        let account = attach(expect).unwrap();
        pair.world.run(secs(1));
        unchanged(&account);
    }
}
