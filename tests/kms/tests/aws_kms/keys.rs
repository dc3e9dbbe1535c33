//! What the customer does to a key, at an emulator that does it truthfully, and what becomes of wraps and accounts.

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{
    ErrorClass, Kek, KekInfo, KeyProvider, ProviderError, Verdict, Wrapped, preflight,
};
use strongroom::{
    Aad, AccountId, AccountSpec, AekCache, BlockId, ErrorKind, MemoryRecordStore, ObjectId, Refusal, Retire,
    RotateTo,
};
use strongroom_kms_tests::moto::Moto;

use super::{connect, context, input, provider, shared};

fn wrap(kms: &dyn KeyProvider, kek: &Kek) -> Wrapped {
    kms.wrap(kek, &context(), &input()).expect("wraps")
}

fn unwraps(kms: &dyn KeyProvider, wrap: &Wrapped) {
    let secret = kms.unwrap(wrap, &context()).expect("unwraps");
    assert_eq!(secret.expose(), input().expose());
}

fn refusal(kms: &dyn KeyProvider, wrap: &Wrapped) -> Refusal {
    let error = kms.unwrap(wrap, &context()).expect_err("is refused");
    match error.class() {
        ErrorClass::Refused(refusal) => refusal,
        _ => panic!("no refusal: {error}"),
    }
}

fn described(info: Result<KekInfo, ProviderError>) -> bool {
    info.expect("can be described").enabled
}

#[test]
fn aws_a_key_in_order_passes_preflight_by_each_of_its_names() {
    let (kms, keys) = (connect(), shared().keys());
    for key in [keys.create(), keys.create_multi_region()] {
        let alias = format!("alias/preflight-{key}");
        keys.alias(&alias, &key);
        let arn = keys.arn(&key);
        let alias_arn = arn.replace(&format!("key/{key}"), &alias);
        for name in [key.clone(), arn, alias, alias_arn] {
            let report = preflight(kms.as_ref(), &Kek::latest(name.as_str()));
            assert_eq!(report.verdict(), Verdict::Ready, "{name}: {report}");
            let info = report.info().expect("described");
            assert!(info.version.as_str().starts_with(&format!("{key}/")), "{}", info.version);
            assert_eq!(info.hsm_backed, Some(true));
        }
    }
}

#[test]
fn aws_a_disabled_key_is_refused_until_it_is_enabled() {
    let (kms, keys) = (connect(), shared().keys());
    let key = keys.create();
    let wrapped = wrap(kms.as_ref(), &Kek::latest(key.as_str()));
    keys.disable(&key);
    assert_eq!(refusal(kms.as_ref(), &wrapped), Refusal::KeyDisabled);
    assert!(!described(kms.describe(&Kek::latest(key.as_str()))));
    keys.enable(&key);
    unwraps(kms.as_ref(), &wrapped);
}

#[test]
fn aws_a_key_pending_deletion_is_refused_until_it_is_recovered() {
    let (kms, keys) = (connect(), shared().keys());
    let key = keys.create();
    let wrapped = wrap(kms.as_ref(), &Kek::latest(key.as_str()));
    keys.delete(&key);
    assert_eq!(refusal(kms.as_ref(), &wrapped), Refusal::KeyGone);
    assert!(!described(kms.describe(&Kek::latest(key.as_str()))));
    keys.recover(&key);
    unwraps(kms.as_ref(), &wrapped);
}

#[test]
fn e1_aws_an_account_follows_an_alias_to_another_key_and_data_stays_readable() {
    let (kms, keys) = (connect(), shared().keys());
    let (old, new) = (keys.create(), keys.create());
    keys.alias("alias/followed", &old);
    let cache = AekCache::builder().build().unwrap();
    let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), Kek::latest("alias/followed"));
    let account = cache.create(spec.store(Arc::new(MemoryRecordStore::new()))).unwrap();
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"before").unwrap();
    assert!(account.record().kek_version().as_str().starts_with(&old));

    keys.point_alias("alias/followed", &new);
    // The wrap is still the old key's, and is unwrapped with that.
    account.lock();
    account.unlock().unwrap();
    assert!(matches!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
    assert!(account.record().kek_version().as_str().starts_with(&new));
    assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap(), b"before");
    assert_eq!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);

    // From here on only the new key counts.
    keys.disable(&old);
    account.lock();
    account.unlock().unwrap();
    keys.disable(&new);
    account.lock();
    assert_eq!(account.unlock().unwrap_err().refusal(), Some(Refusal::KeyDisabled));
    keys.enable(&new);
    account.unlock().unwrap();
    assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap(), b"before");
}

#[test]
fn aws_a_pinned_version_stays_with_its_key_when_the_alias_moves() {
    let (kms, keys) = (connect(), shared().keys());
    let (old, new) = (keys.create(), keys.create());
    keys.alias("alias/pinned", &old);
    let first = kms.describe(&Kek::latest("alias/pinned")).unwrap().version;
    keys.point_alias("alias/pinned", &new);
    let pinned = wrap(kms.as_ref(), &Kek::pinned("alias/pinned", first.clone()));
    assert_eq!(*pinned.version(), first);
    unwraps(kms.as_ref(), &pinned);
    // Deleting the alias takes no wrap away: the key itself does.
    keys.delete_alias("alias/pinned");
    unwraps(kms.as_ref(), &pinned);
    assert_eq!(
        kms.describe(&Kek::latest("alias/pinned")).unwrap_err().class(),
        ErrorClass::Refused(Refusal::KeyGone)
    );
}

#[test]
fn a4_aws_at_moto_tampered_bytes_and_other_contexts_are_integrity() {
    let moto = Moto::start();
    let kms = provider(&moto.url());
    let wrapped = wrap(&kms, &Kek::latest(moto.keys().create()));
    for at in 36..wrapped.bytes().len() {
        let mut bytes = wrapped.bytes().to_vec();
        bytes[at] ^= 0x10;
        let flipped = Wrapped::new(
            wrapped.kek().clone(),
            wrapped.version().clone(),
            wrapped.algorithm().clone(),
            bytes,
        );
        let error = kms.unwrap(&flipped.unwrap(), &context()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Integrity, "byte {at}: {error}");
    }
    let other = strongroom::provider::WrapContext::for_tests(AccountId::random(), context().generation());
    assert_eq!(kms.unwrap(&wrapped, &other).unwrap_err().class(), ErrorClass::Integrity);
}

#[test]
fn e1_aws_at_moto_what_was_wrapped_before_a_rotation_on_demand_unwraps_after_it() {
    let moto = Moto::start();
    let kms = provider(&moto.url());
    let key = moto.keys().create();
    let kek = Kek::latest(key.as_str());
    let before = wrap(&kms, &kek);
    moto.keys().rotate(&key);
    // moto names no key material: the version is the key alone, and stays. That AWS KMS names it is for the
    // canned answers: `aws_a_rotated_key_is_described_with_another_version`.
    let after = wrap(&kms, &kek);
    assert_eq!((before.version().as_str(), after.version()), (key.as_str(), before.version()));
    unwraps(&kms, &before);
    unwraps(&kms, &after);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status = runtime.block_on(kms.provider().rotation(&kek)).unwrap();
    assert!(!status.automatic);
}

#[test]
fn e1_aws_an_account_follows_a_rotation_of_the_key_material_and_data_stays_readable() {
    let moto = Moto::amended();
    let kms: Arc<dyn KeyProvider> = Arc::new(provider(&moto.url()));
    let key = moto.keys().create();
    let cache = AekCache::builder().build().unwrap();
    let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest(key.as_str()));
    let account = cache.create(spec.store(Arc::new(MemoryRecordStore::new()))).unwrap();
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"before").unwrap();
    let first = account.record().kek_version().clone();
    moto.keys().rotate(&key);
    account.lock();
    account.unlock().expect("older key material still unwraps");
    assert!(matches!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
    let second = account.record().kek_version().clone();
    assert_ne!(first, second);
    assert!(second.as_str().starts_with(&format!("{key}/")));
    assert_eq!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);
    // There is no way back to what is older.
    let error = account.rotate_kek(RotateTo::Version(first)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    assert_eq!(*account.record().kek_version(), second);
    assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap(), b"before");
}

#[test]
fn d7_aws_an_account_whose_key_is_disabled_comes_back_by_itself() {
    let (kms, keys) = (connect(), shared().keys());
    let key = keys.create();
    let cache = AekCache::builder().refresh_every(Duration::from_secs(6)).build().unwrap();
    let account =
        cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest(key.as_str()))).unwrap();
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"kept").unwrap();
    keys.disable(&key);
    let wait =
        |done: &dyn Fn() -> bool| strongroom_kms_tests::wait::wait_until(Duration::from_secs(16), done);
    wait(&|| account.open(id, Aad::EMPTY, &sealed).is_err()).expect("is closed");
    assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap_err().refusal(), Some(Refusal::KeyDisabled));
    keys.enable(&key);
    wait(&|| account.open(id, Aad::EMPTY, &sealed).is_ok()).expect("comes back");
}
