//! What the provider does with keys, at both kinds of service.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use strongroom::provider::azure_keyvault::AzureKeyVault;
use strongroom::provider::{
    ErrorClass, Kek, KekVersion, KeyProvider, Verdict, WrapAlgorithm, Wrapped, preflight,
};
use strongroom::testing::conformance::{self, Subject};
use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ObjectId, RotateTo};
use strongroom_kms_tests::key_vault::{HSM, KeyVault, VAULT, own_runtime};
use strongroom_kms_tests::runtimes;

use super::{NAME, REFUSED_DISABLED, REFUSED_GONE, REFUSED_PERMISSION, Sample, parts};

/// Each kind with a key that is in order.
fn both(run: impl Fn(&KeyVault, &str, &Arc<dyn KeyProvider>)) {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    service.create(HSM, NAME, "oct-HSM");
    run(&service, VAULT, &service.vault());
    run(&service, HSM, &service.managed_hsm());
}

/// A hook of the suite that cannot fail but by panicking.
fn acts(action: impl Fn()) -> impl Fn() -> Result<(), String> {
    move || {
        action();
        Ok(())
    }
}

fn subject<'a>(service: &'a KeyVault, host: &'a str, provider: &'a Arc<dyn KeyProvider>) -> Subject<'a> {
    Subject::new(provider.as_ref(), NAME)
        .without_additional_data()
        .on_rotate(acts(move || drop(service.rotate(host, NAME))))
        .on_disable(acts(move || service.enable(host, NAME, false)))
        .on_enable(acts(move || service.enable(host, NAME, true)))
        .on_delete(acts(move || service.delete(host, NAME)))
        .on_recover(acts(move || service.recover(host, NAME)))
}

#[test]
fn microsofts_own_client_takes_the_server_for_key_vault() {
    assert!(KeyVault::start().measure().contains("takes it for Key Vault"));
}

#[test]
fn azure_wraps_unwraps_and_names_the_exact_version() {
    both(|service, host, provider| {
        let first = Sample::wrap(provider);
        first.unwrap(provider).unwrap();
        let version = first.wrapped.version().clone();
        let newer = service.rotate(host, NAME);
        assert_ne!(newer, version.as_str());
        first.unwrap(provider).unwrap();
        assert_eq!(Sample::wrap(provider).wrapped.version().as_str(), newer);
        let pinned = Sample::under(provider, &Kek::pinned(NAME, version.clone()));
        assert_eq!(*pinned.wrapped.version(), version);
        // The versionless path was asked, and every unwrap named its version.
        let requests = service.requests();
        let paths: Vec<&str> = requests.iter().filter_map(|request| request["path"].as_str()).collect();
        assert!(paths.iter().any(|path| path.starts_with(&format!("/keys/{NAME}//wrapkey?"))), "{paths:?}");
        let unwraps: Vec<_> = paths.iter().filter(|path| path.contains("/unwrapkey?")).collect();
        assert_eq!(unwraps.len(), 2);
        assert!(unwraps.iter().all(|path| path.contains(version.as_str())), "{unwraps:?}");
    });
}

#[test]
fn azure_passes_the_whole_conformance_suite() {
    both(|service, host, provider| {
        let report = conformance::run(&subject(service, host, provider));
        println!("{host}\n{report}");
        assert!(report.is_complete(), "{report}");
    });
}

#[test]
fn azure_rsa_keys_of_a_managed_hsm_pass_the_whole_conformance_suite() {
    let service = KeyVault::start();
    service.create(HSM, NAME, "RSA-HSM");
    let places = service.places();
    let credential = places.secret(strongroom_kms_tests::key_vault::CLIENT_SECRET);
    let builder = AzureKeyVault::managed_hsm_rsa(format!("https://{HSM}"), credential);
    let provider = own_runtime(builder.client_options(places.options()));
    assert!(!provider.wrap_is_authentic());
    let report = conformance::run(&subject(&service, HSM, &provider));
    assert!(report.is_complete(), "{report}");
    assert_eq!(provider.describe(&Kek::latest(NAME)).unwrap().hsm_backed, Some(true));
}

#[test]
fn azure_says_which_wraps_prove_their_maker() {
    let service = KeyVault::start();
    assert!(!service.vault().wrap_is_authentic());
    assert!(service.managed_hsm().wrap_is_authentic());
    assert_eq!(service.vault().authority().provider(), "azure-keyvault");
    assert_eq!(service.managed_hsm().authority().endpoint(), HSM);
}

#[test]
fn azure_keys_of_every_size_and_protection_wrap() {
    let service = KeyVault::start();
    let provider = service.vault();
    for (name, kty, size) in
        [("a", "RSA", 2048), ("b", "RSA", 3072), ("c", "RSA", 4096), ("d", "RSA-HSM", 2048)]
    {
        service.owner(
            "POST",
            VAULT,
            &format!("keys/{name}/create"),
            &json!({ "kty": kty, "key_size": size }),
        );
        let kek = Kek::latest(name);
        let sample = Sample::under(&provider, &kek);
        assert_eq!(sample.wrapped.bytes().len(), size / 8);
        sample.unwrap(&provider).unwrap();
        assert_eq!(provider.describe(&kek).unwrap().hsm_backed, Some(kty == "RSA-HSM"));
    }
    let hsm = service.managed_hsm();
    service.create(HSM, NAME, "oct-HSM");
    assert_eq!(Sample::wrap(&hsm).wrapped.bytes().len(), 56 + 8);
    assert_eq!(hsm.describe(&Kek::latest(NAME)).unwrap().hsm_backed, Some(true));
}

#[test]
fn azure_a_key_of_another_type_is_misconfigured() {
    let service = KeyVault::start();
    service.create(HSM, NAME, "RSA-HSM");
    let hsm = service.managed_hsm();
    assert_eq!(hsm.describe(&Kek::latest(NAME)).unwrap_err().class(), ErrorClass::Misconfigured);
    let (context, secret) = parts();
    assert_eq!(
        hsm.wrap(&Kek::latest(NAME), &context, &secret).unwrap_err().class(),
        ErrorClass::Misconfigured
    );
    assert!(matches!(preflight(hsm.as_ref(), &Kek::latest(NAME)).verdict(), Verdict::Misconfigured(_)));
}

#[test]
fn azure_a_record_that_names_another_algorithm_is_not_followed() {
    both(|service, _, provider| {
        let sample = Sample::wrap(provider);
        drop(service.requests());
        for other in ["RSA-OAEP", "RSA1_5", "RSA-OAEP-256", "A128KW", "A256KW", "A256GCM", "CKM_AES_KEY_WRAP"]
        {
            if other == sample.wrapped.algorithm().as_str() {
                continue;
            }
            let wrapped = &sample.wrapped;
            let algorithm = WrapAlgorithm::new(other).unwrap();
            let bytes = wrapped.bytes().to_vec();
            let other =
                Wrapped::new(wrapped.kek().clone(), wrapped.version().clone(), algorithm, bytes).unwrap();
            let error = provider.unwrap(&other, &sample.context).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Misconfigured);
        }
        assert!(service.requests().is_empty(), "nothing was asked");
    });
}

#[test]
fn azure_names_and_versions_that_are_paths_are_not_sent() {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    let provider = service.vault();
    let (context, secret) = parts();
    for name in ["orders/../invoices", "orders%2f", "orders?x=", "ord ers", "", "{key-version}"] {
        assert_eq!(
            provider.describe(&Kek::latest(name)).unwrap_err().class(),
            ErrorClass::Misconfigured,
            "{name}"
        );
        assert!(provider.wrap(&Kek::latest(name), &context, &secret).is_err(), "{name}");
    }
    let pinned = Kek::pinned(NAME, KekVersion::new("../../secrets/a").unwrap());
    assert_eq!(provider.describe(&pinned).unwrap_err().class(), ErrorClass::Misconfigured);
    assert!(service.requests().is_empty(), "nothing was asked");
}

#[test]
fn azure_every_recovery_level_is_reported() {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    let provider = service.vault();
    for (level, soft_delete, purge_protection) in [
        ("Purgeable", false, false),
        ("Recoverable+Purgeable", true, false),
        ("Recoverable", true, true),
        ("Recoverable+ProtectedSubscription", true, true),
        ("CustomizedRecoverable+Purgeable", true, false),
        ("CustomizedRecoverable", true, true),
        ("CustomizedRecoverable+ProtectedSubscription", true, true),
        ("of the future", false, false),
    ] {
        service.recovery_level(VAULT, level);
        let info = provider.describe(&Kek::latest(NAME)).unwrap();
        assert_eq!((info.soft_delete, info.purge_protection), (soft_delete, purge_protection), "{level}");
        let ready = preflight(provider.as_ref(), &Kek::latest(NAME)).verdict() == Verdict::Ready;
        assert_eq!(ready, soft_delete && purge_protection, "{level}");
    }
}

#[test]
fn azure_an_expired_key_unwraps_and_is_reported_as_expired() {
    both(|service, host, provider| {
        let sample = Sample::wrap(provider);
        service.change(host, NAME, &json!({ "attributes": { "exp": 1_600_000_000 } }));
        let info = provider.describe(&Kek::latest(NAME)).unwrap();
        assert_eq!(info.expires, Some(UNIX_EPOCH + Duration::from_secs(1_600_000_000)));
        sample.unwrap(provider).unwrap();
        let (context, secret) = parts();
        let error = provider.wrap(&Kek::latest(NAME), &context, &secret).unwrap_err();
        assert_eq!(error.class(), REFUSED_DISABLED, "{error}");
    });
}

#[test]
fn azure_a_key_that_is_not_valid_yet_is_not_enabled() {
    both(|service, host, provider| {
        let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 86_400;
        service.change(host, NAME, &json!({ "attributes": { "nbf": tomorrow } }));
        assert!(!provider.describe(&Kek::latest(NAME)).unwrap().enabled);
        let (context, secret) = parts();
        let error = provider.wrap(&Kek::latest(NAME), &context, &secret).unwrap_err();
        assert_eq!(error.class(), REFUSED_DISABLED, "{error}");
    });
}

#[test]
fn azure_a_disabled_key_still_wraps_and_does_not_unwrap() {
    both(|service, host, provider| {
        let sample = Sample::wrap(provider);
        service.enable(host, NAME, false);
        let error = sample.refused(provider);
        assert_eq!(error.class(), REFUSED_DISABLED, "{error}");
        assert!(error.to_string().contains("Forbidden (KeyDisabled)"), "{error}");
        // This is why the library judges a key by `unwrap` alone.
        Sample::wrap(provider);
        assert!(!provider.describe(&Kek::latest(NAME)).unwrap().enabled);
        service.enable(host, NAME, true);
        sample.unwrap(provider).unwrap();
    });
}

#[test]
fn azure_a_deleted_key_is_gone_and_comes_back_when_recovered() {
    both(|service, host, provider| {
        let sample = Sample::wrap(provider);
        service.delete(host, NAME);
        assert_eq!(sample.refused(provider).class(), REFUSED_GONE);
        assert_eq!(provider.describe(&Kek::latest(NAME)).unwrap_err().class(), REFUSED_GONE);
        service.recover(host, NAME);
        sample.unwrap(provider).unwrap();
        let (context, secret) = parts();
        let unknown = provider.wrap(&Kek::latest("invoices"), &context, &secret).unwrap_err();
        assert_eq!(unknown.class(), REFUSED_GONE);
    });
}

#[test]
fn azure_every_way_of_losing_a_permission_is_a_refusal_and_heals() {
    both(|service, host, provider| {
        let sample = Sample::wrap(provider);
        for how in ["rbac", "policy", "firewall", "connection"] {
            service.deny(host, &json!({ "unwrap": how }));
            let error = sample.refused(provider);
            assert_eq!(error.class(), REFUSED_PERMISSION, "{how}: {error}");
            // Codes alone are repeated: the service's words name callers, addresses and resources.
            let text = format!("{error} {error:?}");
            for private in ["appid", "192.0.2.7", "00000000-1111", "sts.windows.net"] {
                assert!(!text.contains(private), "{text}");
            }
            Sample::wrap(provider);
        }
        service.deny(host, &json!({ "get": "rbac" }));
        assert_eq!(provider.describe(&Kek::latest(NAME)).unwrap_err().class(), REFUSED_PERMISSION);
        sample.unwrap(provider).unwrap();
        service.deny(host, &json!({}));
        provider.describe(&Kek::latest(NAME)).unwrap();
    });
}

#[test]
fn azure_a_key_whose_operations_exclude_unwrapping_is_barred() {
    both(|service, host, provider| {
        let sample = Sample::wrap(provider);
        service.change(host, NAME, &json!({ "key_ops": ["wrapKey"] }));
        let error = sample.refused(provider);
        assert_eq!(error.class(), REFUSED_DISABLED, "{error}");
    });
}

#[test]
fn azure_latest_policy_finds_a_new_version() {
    both(|service, host, provider| {
        let cache = AekCache::builder().build().unwrap();
        let account = cache
            .create(AccountSpec::new(AccountId::random(), Arc::clone(provider), Kek::latest(NAME)))
            .unwrap();
        let id = BlockId::new(ObjectId::random(), 0);
        let sealed = account.seal(id, Aad::EMPTY, b"a block").unwrap();
        let before = account.record().kek_version().clone();
        let newer = service.rotate(host, NAME);
        account.rotate_kek(RotateTo::Latest).unwrap();
        assert_ne!(*account.record().kek_version(), before);
        assert_eq!(account.record().kek_version().as_str(), newer);
        assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap(), b"a block");
        // The version that it left may go.
        service.change(host, &format!("{NAME}/{before}"), &json!({ "attributes": { "enabled": false } }));
        account.lock();
        account.unlock().unwrap();
        assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap(), b"a block");
    });
}

#[test]
fn azure_works_in_synchronous_programs_and_in_runtimes_of_both_flavours() {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    let places = service.places().clone();
    let make = move || match tokio::runtime::Handle::try_current() {
        Ok(handle) => {
            let provider = places.at_vault().build().unwrap();
            Arc::new(strongroom::provider::OnTokio::new(provider, handle)) as Arc<dyn KeyProvider>
        }
        Err(_) => own_runtime(places.at_vault()),
    };
    runtimes::check(make, &Kek::latest(NAME));
    let places = service.places().clone();
    runtimes::check(move || own_runtime(places.at_vault()), &Kek::latest(NAME));
}
