//! The attack on wraps that anybody can make (DESIGN.md, "Trusting a record"): shown, and shown to fail.
//!
//! A vault's public key is no secret: whoever may read the key has it, and it never changes for a version. Somebody who can
//! also replace records makes an AEK of their own, wraps it with that public key, and puts a whole record around it, as
//! the library makes them. The vault unwraps it, and every check inside of the record holds.

use std::sync::{Arc, Mutex};

use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey, PublicKeyComponents,
};
use azure_core::base64::decode_url_safe;
use serde_json::Value;
use strongroom::provider::{
    Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapAlgorithm, WrapContext, WrapInput,
    Wrapped,
};
use strongroom::{
    Aad, Account, AccountId, AccountRecord, AccountSpec, AekCache, BlockId, ErrorKind, Expect,
    FileRecordStore, ObjectId, RecordStore, RotateTo,
};
use strongroom_kms_tests::key_vault::{HSM, KeyVault, VAULT};

use super::{NAME, Sample};

/// Says that it is the victim's vault, and wraps with its public key. It may not unwrap there: it remembers.
#[derive(Debug)]
struct Forger {
    authority: Authority,
    key: Mutex<PublicKey>,
    known: Mutex<Vec<u8>>,
}

/// A version of the vault's key, as anybody sees it who may read keys.
#[derive(Clone, Debug)]
struct PublicKey {
    version: KekVersion,
    n: Vec<u8>,
    e: Vec<u8>,
}

impl PublicKey {
    fn newest(service: &KeyVault) -> Self {
        let key = service.owner("GET", VAULT, &format!("keys/{NAME}"), &Value::Null);
        let part = |name: &str| decode_url_safe(key["key"][name].as_str().unwrap()).unwrap();
        let version = key["key"]["kid"].as_str().unwrap().rsplit('/').next().unwrap();
        Self { version: KekVersion::new(version).unwrap(), n: part("n"), e: part("e") }
    }
}

impl Forger {
    fn of(service: &KeyVault, victim: &dyn KeyProvider) -> Arc<Self> {
        let key = Mutex::new(PublicKey::newest(service));
        Arc::new(Self { authority: victim.authority(), key, known: Mutex::default() })
    }

    fn key(&self) -> PublicKey {
        self.key.lock().unwrap().clone()
    }
}

impl KeyProvider for Forger {
    fn wrap(&self, kek: &Kek, _: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        *self.known.lock().unwrap() = secret.expose().to_vec();
        let PublicKey { version, n, e } = self.key();
        let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().expect("a public key");
        let key = OaepPublicEncryptingKey::new(key).expect("an OAEP key");
        let mut bytes = vec![0; key.ciphertext_size()];
        key.encrypt(&OAEP_SHA256_MGF1SHA256, secret.expose(), &mut bytes, None).expect("encrypts");
        let uri = self.authority.uri_of(kek.name())?;
        Wrapped::new(uri, version, WrapAlgorithm::new("RSA-OAEP-256")?, bytes)
    }

    fn unwrap(&self, _: &Wrapped, _: &WrapContext) -> Result<WrapInput, ProviderError> {
        WrapInput::from_slice(&self.known.lock().unwrap())
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let mut info = KekInfo::new(self.authority.uri_of(kek.name())?, self.key().version);
        (info.soft_delete, info.purge_protection) = (true, true);
        Ok(info)
    }

    fn authority(&self) -> Authority {
        self.authority.clone()
    }
}

/// A victim's account, and an attacker with the vault's public key who has made a record for it.
struct World {
    service: KeyVault,
    kms: Arc<dyn KeyProvider>,
    id: AccountId,
    genuine: AccountRecord,
    forged: AccountRecord,
    /// The attacker's own hold on the AEK in the forged record.
    attacker: Account,
    _attackers_cache: AekCache,
}

impl World {
    fn new() -> Self {
        let service = KeyVault::start();
        service.create(VAULT, NAME, "RSA");
        let kms = service.vault();
        let id = AccountId::random();
        let cache = AekCache::builder().build().unwrap();
        let spec = AccountSpec::new(id, Arc::clone(&kms), Kek::latest(NAME));
        let genuine = cache.create(spec).unwrap().record();

        let forger = Forger::of(&service, kms.as_ref());
        let attackers_cache = AekCache::builder().build().unwrap();
        let attacker = attackers_cache.create(AccountSpec::new(id, forger, Kek::latest(NAME))).unwrap();
        // Through bytes, as records travel.
        let forged = AccountRecord::parse(&attacker.record().to_bytes()).unwrap();
        Self { service, kms, id, genuine, forged, attacker, _attackers_cache: attackers_cache }
    }

    fn expect(&self) -> Expect {
        Expect::account(self.id).kek(Arc::clone(&self.kms), NAME)
    }
}

#[test]
fn azure_a_forged_record_looks_like_a_genuine_one_and_its_wrap_unwraps() {
    let World { kms, genuine, forged, .. } = &World::new();
    assert_eq!(
        (forged.account(), forged.kek(), forged.kek_version()),
        (genuine.account(), genuine.kek(), genuine.kek_version())
    );
    assert_eq!((forged.generation(), forged.sequence()), (genuine.generation(), genuine.sequence()));
    assert_ne!(forged.fingerprint(), genuine.fingerprint());
    assert!(!kms.wrap_is_authentic(), "which is why the library does not take its word");
}

#[test]
fn azure_without_a_pin_a_record_is_not_attached_at_all() {
    let world = World::new();
    for record in [&world.genuine, &world.forged] {
        let error = AekCache::builder().build().unwrap().attach(record.clone(), world.expect()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    }
}

#[test]
fn azure_the_pinned_fingerprint_detects_the_substitution() {
    let world = World::new();
    let pinned = || world.expect().fingerprint(world.genuine.fingerprint());
    let cache = AekCache::builder().build().unwrap();
    let error = cache.attach(world.forged.clone(), pinned()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    // Nothing was adopted: the genuine record is attached, and what it seals is not the attacker's to open.
    let account = cache.attach(world.genuine.clone(), pinned()).unwrap();
    account.wait_ready(std::time::Duration::from_secs(10)).unwrap();
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"the customer's").unwrap();
    // The block names the key that sealed it, by its check value.
    let error = world.attacker.open(id, Aad::EMPTY, &sealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownGeneration);
}

#[test]
fn azure_a_forged_record_with_the_genuine_fingerprint_is_detected_when_it_is_unwrapped() {
    let world = World::new();
    // The attacker writes the fingerprint that is expected into the forged record: its bytes are known.
    let (mut bytes, own, expected) =
        (world.forged.to_bytes(), world.forged.fingerprint(), world.genuine.fingerprint());
    let at = bytes.windows(32).position(|part| part == own.as_bytes()).expect("it is written in the record");
    bytes[at..at + 32].copy_from_slice(expected.as_bytes());
    let record = AccountRecord::parse(&bytes).unwrap();
    assert_eq!(record.fingerprint(), expected);
    let cache = AekCache::builder().build().unwrap();
    let account = cache.attach(record, world.expect().fingerprint(expected)).unwrap();
    account.wait_ready(std::time::Duration::from_secs(3)).unwrap_err();
    let id = BlockId::new(ObjectId::random(), 0);
    account.seal(id, Aad::EMPTY, b"never sealed").unwrap_err();
    let foreign = world.attacker.seal(id, Aad::EMPTY, b"never opened").unwrap();
    account.open(id, Aad::EMPTY, &foreign).unwrap_err();
    let failure = account.last_failure().expect("the KMS was asked");
    assert_eq!(failure.kind(), ErrorKind::Untrusted, "{failure}");
}

#[test]
fn azure_a_live_process_does_not_adopt_the_substitution_from_its_store() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn RecordStore> = Arc::new(FileRecordStore::open(folder.path()).unwrap());
    let cache = AekCache::builder().build().unwrap();
    let id = AccountId::random();
    let spec = AccountSpec::new(id, Arc::clone(&world.kms), Kek::latest(NAME)).store(Arc::clone(&store));
    let account = cache.create(spec).unwrap();
    let before = account.record().fingerprint();

    let forger = Forger::of(&world.service, world.kms.as_ref());
    let elsewhere = tempfile::tempdir().unwrap();
    let attackers: Arc<dyn RecordStore> = Arc::new(FileRecordStore::open(elsewhere.path()).unwrap());
    let attackers_cache = AekCache::builder().build().unwrap();
    let attacker = attackers_cache
        .create(
            AccountSpec::new(id, Arc::clone(&forger) as Arc<dyn KeyProvider>, Kek::latest(NAME))
                .store(attackers),
        )
        .unwrap();
    // A later record, so that its age speaks for it.
    world.service.rotate(VAULT, NAME);
    *forger.key.lock().unwrap() = PublicKey::newest(&world.service);
    attacker.rotate_kek(RotateTo::Latest).unwrap();
    assert!(attacker.record().sequence() > account.record().sequence());
    for entry in std::fs::read_dir(elsewhere.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            continue; // The records before.
        }
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    account.lock();
    let unlocked = account.unlock();
    assert_eq!(account.record().fingerprint(), before, "{unlocked:?}");
    let block = BlockId::new(ObjectId::random(), 0);
    if let Ok(sealed) = account.seal(block, Aad::EMPTY, b"the customer's") {
        attacker.open(block, Aad::EMPTY, &sealed).unwrap_err();
    }
}

#[test]
fn azure_trusting_the_record_store_is_trusting_whoever_can_write_to_it() {
    // The documented hazard: with this word the substitution succeeds.
    let world = World::new();
    let cache = AekCache::builder().build().unwrap();
    let trusting = world.expect().trust_record_store_with_public_wrap();
    let account = cache.attach(world.forged.clone(), trusting).unwrap();
    account.wait_ready(std::time::Duration::from_secs(10)).unwrap();
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"the customer's").unwrap();
    assert_eq!(world.attacker.open(id, Aad::EMPTY, &sealed).unwrap(), b"the customer's");
}

#[test]
fn azure_a_managed_hsms_wrap_cannot_be_forged() {
    let service = KeyVault::start();
    service.create(HSM, NAME, "oct-HSM");
    let kms = service.managed_hsm();
    let sample = Sample::wrap(&kms);
    // There is no public part to wrap with.
    let described = service.owner("GET", HSM, &format!("keys/{NAME}"), &Value::Null);
    assert!(described["key"]["n"].is_null() && described["key"]["k"].is_null());
    let cache = AekCache::builder().build().unwrap();
    let id = AccountId::random();
    let record = cache.create(AccountSpec::new(id, Arc::clone(&kms), Kek::latest(NAME))).unwrap().record();
    let expect = Expect::account(id).kek(Arc::clone(&kms), NAME);
    let other = AekCache::builder().build().unwrap();
    let account = other.attach(record, expect).unwrap();
    account.wait_ready(std::time::Duration::from_secs(10)).unwrap();
    sample.unwrap(&kms).unwrap();
}
