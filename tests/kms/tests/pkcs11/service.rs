//! A token under a service: rotation, grace, revocation and recovery in real time, every kind of runtime.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::provider::pkcs11::{Algorithm, Pkcs11, Pkcs11Builder};
use strongroom::provider::{Kek, KekVersion, KeyOptions, KeyProvider, LocalKms, Verdict, preflight};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, ErrorKind, Expect, FileRecordStore, ObjectId,
    OutageGrace, Refusal, Retire, RotateTo, Status,
};
use strongroom_kms_tests::runtimes;
use strongroom_kms_tests::softhsm::{Administrator, Faults, SoftHsm, Use, module};
use strongroom_kms_tests::story::{Silence, Story};
use strongroom_kms_tests::wait::wait_until;

use crate::world::{KEK, builder, customer, faulty, with_a_token};

fn build(builder: Pkcs11Builder) -> Arc<dyn KeyProvider> {
    Arc::new(builder.build().unwrap())
}

fn cache() -> Cache {
    let builder =
        AekCache::builder().refresh_every(Duration::from_secs(6)).call_deadline(Duration::from_secs(1));
    Cache(builder.build().unwrap())
}

/// Ends with its calls: a process that ends while a thread is in the module would end in the midst of what the module takes down.
struct Cache(AekCache);

impl Deref for Cache {
    type Target = AekCache;

    fn deref(&self) -> &AekCache {
        &self.0
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.0.shutdown(Duration::from_secs(5));
    }
}

/// A sealed block and its account.
struct Data {
    account: Account,
    id: BlockId,
    sealed: Vec<u8>,
}

impl Data {
    fn seal(account: Account) -> Self {
        let id = BlockId::new(ObjectId::random(), 0);
        let sealed = account.seal(id, Aad::EMPTY, b"a block").unwrap();
        Self { account, id, sealed }
    }

    fn opens(&self) -> Result<(), strongroom::Error> {
        let plain = self.account.open(self.id, Aad::EMPTY, &self.sealed)?;
        assert_eq!(plain, b"a block");
        Ok(())
    }
}

with_a_token! {
    fn a_kek_is_rotated_and_the_old_version_retired(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "9", "encrypt"]).unwrap();
        let cache = cache();
        let spec = AccountSpec::new(AccountId::random(), build(builder()), Kek::latest(KEK));
        let data = Data::seal(cache.create(spec).unwrap());
        assert_eq!(data.account.rotate_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);
        // Ten comes after nine, though its digits do not.
        customer(hsm, &["create", KEK, "16", "encrypt"]).unwrap();
        let retire = data.account.rotate_kek(RotateTo::Latest).unwrap();
        assert!(matches!(retire, Retire::AfterPersisting(_)), "{retire:?}");
        assert_eq!(data.account.record().kek_version().as_str(), "10");
        customer(hsm, &["destroy", KEK, "9", hsm.folder().join("backup").to_str().unwrap()]).unwrap();
        data.account.lock();
        data.account.unlock().unwrap();
        data.opens().unwrap();
    }

    fn a_pinned_account_stays_until_it_is_moved(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let cache = cache();
        let pinned = Kek::pinned(KEK, KekVersion::new("01").unwrap());
        let data = Data::seal(cache.create(AccountSpec::new(AccountId::random(), build(builder()), pinned)).unwrap());
        customer(hsm, &["create", KEK, "2", "encrypt"]).unwrap();
        customer(hsm, &["forbid", KEK, "1", "encrypt"]).unwrap();
        data.account.lock();
        let error = data.account.unlock().unwrap_err();
        assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(Refusal::KeyDisabled)));
        customer(hsm, &["allow", KEK, "1", "encrypt"]).unwrap();
        data.account.unlock().unwrap();
        data.account.rotate_kek(RotateTo::Version(KekVersion::new("02").unwrap())).unwrap();
        data.opens().unwrap();
    }

    fn an_account_that_follows_finds_the_version_that_another_process_made(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let store = Arc::new(FileRecordStore::open(hsm.folder().join("records")).unwrap());
        let (id, provider) = (AccountId::random(), build(builder()));
        let spec = AccountSpec::new(id, Arc::clone(&provider), Kek::latest(KEK));
        let made = Data::seal(cache().create(spec.store(store.clone())).unwrap());
        let (block, sealed) = (made.id, made.sealed.clone());
        drop(made);
        customer(hsm, &["create", KEK, "2", "encrypt"]).unwrap();
        let cache = cache();
        let account = cache.attach_stored(store, Expect::account(id).kek(provider, KEK)).unwrap();
        account.wait_ready(Duration::from_secs(5)).unwrap();
        let follows = || account.record().kek_version().as_str() == "02";
        wait_until(Duration::from_secs(20), follows).expect("looks soon after attaching");
        assert_eq!(account.open(block, Aad::EMPTY, &sealed).unwrap(), b"a block");
    }

    fn a_kek_is_recoverable_only_when_the_operator_says_so(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let kek = Kek::latest(KEK);
        assert_eq!(preflight(build(builder()).as_ref(), &kek).verdict(), Verdict::Ready);
        let unsaid = Pkcs11::builder(module()).token_label(SoftHsm::LABEL);
        let unsaid = build(unsaid.pin(|| Ok(strongroom::provider::pkcs11::Pin::new(SoftHsm::PIN.to_owned()))));
        assert_eq!(preflight(unsaid.as_ref(), &kek).verdict(), Verdict::NotRecoverable);
        let error = cache().create(AccountSpec::new(AccountId::random(), unsaid, kek)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    }

    fn a_key_past_its_last_day_is_told(hsm: &SoftHsm) {
        customer(hsm, &["create-until", KEK, "1", "2020", "12", "31"]).unwrap();
        customer(hsm, &["create-until", "later", "1", "2999", "12", "31"]).unwrap();
        let provider = build(builder());
        assert_eq!(preflight(provider.as_ref(), &Kek::latest(KEK)).verdict(), Verdict::Expired);
        assert_eq!(preflight(provider.as_ref(), &Kek::latest("later")).verdict(), Verdict::Ready);
    }

    fn every_kind_of_program_uses_it(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        runtimes::check(|| build(builder()), &Kek::latest(KEK));
    }

    fn a_module_that_hangs_delays_nobody_else(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let kms = LocalKms::create(hsm.folder().join("kms.json")).unwrap();
        kms.create_key(KEK, KeyOptions::default()).unwrap();
        let kms: Arc<dyn KeyProvider> = Arc::new(kms);
        let faults = Faults::of(hsm);
        let builder = AekCache::builder().refresh_every(Duration::from_secs(6)).call_deadline(Duration::from_secs(1));
        let cache = builder.outage_grace(OutageGrace::For(Duration::from_secs(60))).build().unwrap();
        let spec = |provider| AccountSpec::new(AccountId::random(), provider, Kek::latest(KEK));
        let hanging: Vec<Data> =
            (0..8).map(|_| Data::seal(cache.create(spec(build(faulty(&faults)))).unwrap())).collect();
        let other = Data::seal(cache.create(spec(kms)).unwrap());
        faults.delay("C_DecryptInit", Duration::from_secs(40));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            other.opens().unwrap();
            assert!(matches!(other.account.status(), Status::Fresh { .. }), "{:?}", other.account.status());
            hanging.iter().for_each(|data| data.opens().expect("within grace"));
            std::thread::sleep(Duration::from_millis(5));
        }
        for data in &hanging {
            assert!(matches!(data.account.status(), Status::Grace { .. }), "{:?}", data.account.status());
        }
        // The account on the local KMS was refreshed meanwhile, on time.
        other.account.lock();
        let begun = Instant::now();
        other.account.unlock().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    fn the_story_in_real_time(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        for token in ["absent", "hanging"] {
            hsm.add_token(token);
        }
        let silent = |token: &str| {
            Administrator::log_in_at(&module(), token).unwrap().create(KEK, &[1], Use::Wrap).unwrap();
            let faults = Faults::another(hsm, token);
            let provider = build(faulty(&faults).token_label(token).algorithm(Algorithm::AesKeyWrapPad));
            (faults, provider)
        };
        let (absent, absent_provider) = silent("absent");
        let (hanging, hanging_provider) = silent("hanging");
        let kek = Kek::latest(KEK);
        let provider = build(builder());
        let story = Story {
            name: "PKCS#11, SoftHSM",
            provider: &provider,
            kek: &kek,
            revoke: &|| customer(hsm, &["forbid", KEK, "1", "encrypt"]).unwrap(),
            restore: &|| customer(hsm, &["allow", KEK, "1", "encrypt"]).unwrap(),
            refusal: Refusal::KeyDisabled,
            silences: &[
                Silence {
                    name: "the token is away",
                    provider: &absent_provider,
                    kek: &kek,
                    on: &|| absent.answer("*", 0xE0, 1_000_000),
                    off: &|| absent.none(),
                },
                Silence {
                    name: "the module hangs",
                    provider: &hanging_provider,
                    kek: &kek,
                    on: &|| hanging.delay("C_UnwrapKey", Duration::from_secs(4)),
                    off: &|| hanging.none(),
                },
            ],
        };
        let report = story.run();
        assert!(report.most("R8").is_some() && report.most("R9").is_some() && report.most("R10").is_some());
    }
}
