//! Creating accounts and believing records: A1, A2, A5, A8, B1, B9.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use strongroom::provider::{
    Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapAlgorithm, WrapContext, WrapInput,
    Wrapped,
};
use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    AccountId, AccountRecord, AccountSpec, AekCache, ErrorKind, Expect, OutageGrace, Refusal, RotateTo,
    Status,
};

use crate::common::{Block, KEK, Meddler, Store, World, kind, secs, usable};

/// A KMS of a user of the library: a table, in the three methods (and the name of the connection).
#[derive(Debug, Default)]
struct Table {
    /// What was wrapped: in a real KMS it never is on this side.
    wrapped: Mutex<HashMap<Vec<u8>, [u8; WrapInput::LEN]>>,
}

impl KeyProvider for Table {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        let mut wrapped = self.wrapped.lock().unwrap();
        let handle = [&context.to_bytes()[..], &wrapped.len().to_be_bytes()].concat();
        wrapped.insert(handle.clone(), *secret.expose());
        let uri = self.authority().uri_of(kek.name())?;
        Wrapped::new(uri, KekVersion::new("1")?, WrapAlgorithm::new("a table")?, handle)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.authority().name_of(wrapped.kek())?;
        let table = self.wrapped.lock().unwrap();
        let secret = table.get(wrapped.bytes()).filter(|_| wrapped.bytes().starts_with(&context.to_bytes()));
        WrapInput::from_slice(secret.ok_or_else(|| ProviderError::integrity("not wrapped here"))?)
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let mut info = KekInfo::new(self.authority().uri_of(kek.name())?, KekVersion::new("1")?);
        (info.soft_delete, info.purge_protection) = (true, true);
        Ok(info)
    }

    fn authority(&self) -> Authority {
        Authority::new("table", "in-memory")
    }
}

#[test]
fn b1_a_provider_takes_three_methods_and_is_an_object() {
    let clock = ManualClock::new();
    let cache = AekCache::builder().manual(&clock).build().unwrap();
    let table = Arc::new(Table::default());
    let provider: Arc<dyn KeyProvider> = table.clone();
    let spec = AccountSpec::new(AccountId::random(), Arc::clone(&provider), Kek::latest("orders"));
    let account = cache.create(spec).unwrap();
    let block = Block::sealed_by(&account);
    cache.run_for(secs(600));
    assert_eq!(block.open(&account), Ok(()));
    assert_eq!(account.record().kek().as_str(), "table://in-memory/orders");
}

/// The AEK itself, as the provider gets to see it.
fn aek(table: &Table, account: AccountId) -> Vec<u8> {
    let wrapped = table.wrapped.lock().unwrap();
    let of_account = wrapped.values().find(|input| input[2] == 1 && input[8..24] == *account.as_bytes());
    of_account.unwrap()[24..].to_vec()
}

#[test]
fn a1_a2_neither_record_nor_debug_nor_error_shows_a_secret() {
    let clock = ManualClock::new();
    let cache = AekCache::builder().manual(&clock).build().unwrap();
    let table = Arc::new(Table::default());
    let create = || {
        let provider: Arc<dyn KeyProvider> = table.clone();
        cache.create(AccountSpec::new(AccountId::random(), provider, Kek::latest("orders"))).unwrap()
    };
    let (account, other) = (create(), create());
    let secret = aek(&table, account.id());
    assert_ne!(secret, aek(&table, other.id()), "each account has an AEK of its own");
    let holds = |bytes: &[u8]| bytes.windows(8).any(|window| secret.windows(8).any(|part| part == window));
    assert!(holds(&[&[1, 2, 3], &secret[..]].concat()), "the check can fail");

    let record = account.record();
    let block = Block::sealed_by(&account);
    assert!(!holds(&record.to_bytes()) && !holds(&block.frame));
    account.lock();
    let error = account.permit().unwrap_err();
    let shown = format!(
        "{account:?} {record:?} {cache:?} {:?} {error} {error:?} {:?} {:?}",
        account.status(),
        cache.stats(),
        cache.events(),
    );
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal: Vec<_> = secret.iter().map(ToString::to_string).collect();
    assert!(!shown.contains(&hex[..8]) && !shown.contains(&decimal[..4].join(", ")));
    assert!(!shown.contains(std::str::from_utf8(Block::PLAIN).unwrap()));
}

#[test]
fn a5_another_aek_is_never_adopted() {
    for fault in [Answer::OtherAek, Answer::Garbage] {
        let world = World::new(6, OutageGrace::DEFAULT);
        let (account, block) = world.attached();
        world.kms.always(Call::Unwrap, fault);
        let waiting = account.ready();
        assert!(waiting.wait().is_err());
        world.run(secs(120));
        assert!(matches!(block.open(&account), Err(ErrorKind::Unavailable)));
        assert!(world.cache.stats().integrity > 0 && world.cache.stats().verified == 0);
        world.kms.always(Call::Unwrap, Answer::Ok);
        world.run(secs(20));
        assert_eq!(block.open(&account), Ok(()), "nor was the right one forgotten");
    }
}

#[test]
fn a5_an_aek_that_does_not_come_back_is_not_put_into_a_record() {
    for (call, fault) in
        [(Call::Wrap, Answer::OtherAek), (Call::Wrap, Answer::Garbage), (Call::Unwrap, Answer::OtherAek)]
    {
        let world = World::new(6, OutageGrace::None);
        let store = Store::new();
        let spec = world.spec().store(Arc::clone(&store) as _);
        // The preflight's own comes first.
        world.kms.next(call, [Answer::Ok, fault.clone()]);
        let error = world.cache.create(spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{fault:?}");
        assert_eq!(store.bytes(error.account().unwrap_or(AccountId::random())), None);
    }
}

#[test]
fn a8_what_is_not_as_expected_is_refused_before_any_call() {
    let world = World::new(6, OutageGrace::None);
    world.kms.add_key("another");
    let account = world.create();
    let (record, id) = (account.record(), account.id());
    let other_record = world.create().record();
    drop(account);
    world.cache.drive();
    world.kms.clear_log();
    let elsewhere: Arc<dyn KeyProvider> =
        Arc::new(world.kms.clone().with_authority(Authority::new("scripted", "attacker")));
    let good = || world.expect(id);
    let mismatches = [
        ("another account", world.expect(AccountId::random())),
        ("another KEK", Expect::account(id).kek(world.provider(), "another")),
        ("another endpoint", Expect::account(id).kek(elsewhere, KEK)),
        ("another AEK", good().fingerprint(other_record.fingerprint())),
        ("another generation", good().generation(strongroom::Generation::new(2).unwrap())),
    ];
    for (what, expect) in mismatches {
        assert_eq!(kind(world.cache.attach(record.clone(), expect)), Some(ErrorKind::Untrusted), "{what}");
    }
    assert_eq!(kind(world.cache.attach(record.clone(), Expect::account(id))), Some(ErrorKind::Misuse));
    world.run(secs(60));
    assert_eq!(world.kms.calls(Call::Unwrap), 0);
    assert!(world.cache.attach(record.clone(), good().fingerprint(record.fingerprint())).is_ok());
}

#[test]
fn a8_a_provider_whose_wraps_prove_nothing_needs_a_pin() {
    let clock = ManualClock::new();
    let kms = ScriptedProvider::on_virtual_time().with_public_wraps();
    let world = World::beside(&clock, kms, secs(6), OutageGrace::None);
    let account = world.create();
    let (record, id) = (account.record(), account.id());
    world.run(secs(60));
    assert!(usable(&account), "who created it knows its AEK");
    drop(account);
    let error = world.cache.attach(record.clone(), world.expect(id)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    let pinned = world.expect(id).fingerprint(record.fingerprint());
    world.cache.attach(record.clone(), pinned).unwrap().ready().wait().unwrap();
    let trusting = world.expect(id).trust_record_store_with_public_wrap();
    world.cache.attach(record, trusting).unwrap().ready().wait().unwrap();
}

#[test]
fn a8_no_truncated_or_altered_record_brings_an_account_into_use() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let (bytes, id) = (account.record().to_bytes(), account.id());
    drop(account);
    for len in 0..bytes.len() {
        assert_eq!(kind(AccountRecord::parse(&bytes[..len])), Some(ErrorKind::Format), "{len}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(kind(AccountRecord::parse(&longer)), Some(ErrorKind::Format));
    let mut adopted = 0;
    for at in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1 << (at % 8);
        let Ok(record) = AccountRecord::parse(&forged) else { continue };
        let Ok(account) = world.cache.attach(record, world.expect(id)) else { continue };
        assert!(account.ready().wait().is_err(), "byte {at}");
        world.run(secs(10));
        adopted += usize::from(usable(&account));
    }
    assert_eq!(adopted, 0);
    let record = AccountRecord::parse(&bytes).unwrap();
    world.cache.attach(record, world.expect(id)).unwrap().ready().wait().unwrap();
}

#[test]
fn a8_a_running_account_does_not_adopt_a_swapped_or_rolled_back_record() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap();
    let block = Block::sealed_by(&account);
    let old = store.bytes(account.id()).unwrap();
    world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    let new = store.bytes(account.id()).unwrap();
    let stranger = world.create().record().to_bytes();
    for planted in [old, stranger, b"not a record".to_vec()] {
        store.plant(account.id(), &planted);
        world.run(secs(60));
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "fails closed");
        assert_eq!(account.record().to_bytes(), new);
        store.plant(account.id(), &new);
        world.run(secs(20));
        assert_eq!(block.open(&account), Ok(()));
    }
}

#[test]
fn a8_a_record_older_than_the_least_expected_one_is_refused() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let old = account.record();
    world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    let (new, id) = (account.record(), account.id());
    drop(account);
    let expect = || world.expect(id).least_sequence(new.sequence());
    assert_eq!(kind(world.cache.attach(old, expect())), Some(ErrorKind::Untrusted));
    world.cache.attach(new.clone(), expect()).unwrap().ready().wait().unwrap();
}

#[test]
fn b9_no_account_on_a_kek_that_could_be_lost_unless_said_so() {
    let world = World::new(6, OutageGrace::None);
    world.kms.set_recoverable(KEK, false);
    let store = Store::new();
    let error = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert_eq!(store.bytes(error.account().unwrap()), None);
    assert!(world.cache.create(world.spec().allow_unrecoverable_kek()).is_ok());
}

#[test]
fn b9_no_account_without_each_of_the_three_permissions() {
    for call in [Call::Describe, Call::Wrap, Call::Unwrap] {
        let world = World::new(6, OutageGrace::None);
        world.kms.always(call, Answer::Refused(Refusal::PermissionRemoved));
        let error = world.cache.create(world.spec()).unwrap_err();
        assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(Refusal::PermissionRemoved)));
        assert_eq!(world.cache.stats().accounts, 0);
        world.kms.always(call, Answer::Ok);
        world.create();
    }
}

#[test]
fn b9_a_kek_that_is_unknown_disabled_or_silent_is_told_apart() {
    let world = World::new(6, OutageGrace::None);
    let unknown = AccountSpec::new(AccountId::random(), world.provider(), Kek::latest("no such key"));
    let error = world.cache.create(unknown).unwrap_err();
    assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(Refusal::KeyGone)));
    world.kms.set_enabled(KEK, false);
    let error = world.cache.create(world.spec()).unwrap_err();
    assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(Refusal::KeyDisabled)));
    world.kms.set_enabled(KEK, true);
    world.kms.every_call(&Answer::Transient);
    assert_eq!(kind(world.cache.create(world.spec())), Some(ErrorKind::Unavailable));
}

#[test]
fn a8_credentials_are_not_sent_where_a_replaced_record_points() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let meddler = Meddler::new(world.kms.clone());
    let provider: Arc<dyn KeyProvider> = meddler;
    let spec =
        AccountSpec::new(AccountId::random(), provider, Kek::latest(KEK)).store(Arc::clone(&store) as _);
    let account = world.cache.create(spec).unwrap();
    // The attacker's KMS made a perfectly good record of the same account.
    let attacker = ScriptedProvider::on_virtual_time().with_authority(Authority::new("scripted", "attacker"));
    let theirs = World::beside(&world.clock, attacker.clone(), secs(6), OutageGrace::None);
    let spec = AccountSpec::new(account.id(), theirs.provider(), Kek::latest(KEK));
    let planted = theirs.cache.create(spec).unwrap().record().to_bytes();
    attacker.clear_log();
    world.kms.clear_log();
    store.plant(account.id(), &planted);
    world.run(secs(60));
    assert_eq!((attacker.log().len(), world.kms.calls(Call::Unwrap)), (0, 0), "no call for such a record");
    assert!(matches!(account.status(), Status::Unavailable(_)));
}
