//! No secret is shown, no request is longer than it has to be, and the transport verifies whom it talks to.

use std::sync::Arc;

use strongroom::Error;
use strongroom::provider::{ErrorClass, Kek};
use strongroom::{AccountId, AccountSpec, AekCache};
use strongroom_kms_tests::canned::{answer, fixture};
use strongroom_kms_tests::key_vault::{KeyVault, VAULT, own_runtime};

use super::{NAME, Sample};

const MARK: &str = "marked-client-secret";

#[test]
fn azure_no_secret_is_shown_by_anything() {
    let mut service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    service.login(&serde_json::json!({ "secret": MARK }));
    let places = service.places().clone();
    let builder = strongroom::provider::azure_keyvault::AzureKeyVault::vault(
        format!("https://{VAULT}"),
        places.secret(MARK),
    )
    .client_options(places.options());
    let mut shown = vec![format!("{builder:?}")];
    let provider = own_runtime(builder);
    shown.push(format!("{provider:?} {provider:#?}"));
    let sample = Sample::wrap(&provider);
    shown.push(format!("{:?} {:?}", sample.wrapped, sample.secret));
    // Answers that repeat what they were sent, as error pages do.
    let echo = format!(
        r#"{{"error":{{"code":"{MARK}!","message":"{MARK}","innererror":{{"code":"{MARK} {MARK}"}}}}}}"#
    );
    let result = format!(r#"{{"kid":"https://{MARK}/keys/{NAME}/1","value":"{MARK}"}}"#);
    for raw in [
        answer(403, &[("x-ms-request-id", "an id")], &echo),
        answer(401, &[], &echo),
        answer(400, &[], &echo),
        answer(503, &[], &echo),
        answer(200, &[], &result),
        answer(200, &[], MARK),
        fixture("azure_keyvault", "forbidden_by_rbac"),
    ] {
        service.answer_with("vault", &raw, 4);
        let error = sample.refused(&provider);
        shown.push(format!("{error} {error:?} {}", error.message()));
        let described = provider.describe(&Kek::latest(NAME)).unwrap_err();
        shown.push(format!("{described} {described:?}"));
        let spec = AccountSpec::new(AccountId::random(), Arc::clone(&provider), Kek::latest(NAME));
        service.answer_with("vault", &raw, 20);
        let error: Error = AekCache::builder().build().unwrap().create(spec).unwrap_err();
        shown.push(format!("{error} {error:?}"));
        service.answer_with("vault", b"", 0);
    }
    // And the login service's.
    let rejected = format!(r#"{{"error":"{MARK}","error_description":"{MARK}","error_codes":[1]}}"#);
    for raw in [answer(400, &[], &rejected), answer(200, &[], MARK), answer(503, &[], MARK)] {
        let cold = own_runtime(places.at_vault().call_timeout(std::time::Duration::from_secs(1)));
        service.answer_with("login", &raw, 20);
        let error = sample.refused(&cold);
        shown.push(format!("{error} {error:?}"));
        service.answer_with("login", b"", 0);
    }
    service.server().stop();
    shown.push(format!("{}", sample.refused(&provider)));
    let log = service.server().log();
    for text in shown {
        assert!(!text.contains("token-") && !text.contains("WrapInput(["), "{text}");
        assert!(!text.contains(MARK), "{text}");
    }
    assert!(!log.contains("token-") && !log.contains(MARK), "the test's own server keeps quiet as well");
}

#[test]
fn azure_an_authority_that_is_not_trusted_is_not_talked_to() {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    let other = KeyVault::start();
    // The names lead to the other server, whose authority nobody here trusts: a hijacked DNS.
    let hijacked = service.places().with_vault(other.places().vault);
    let provider = own_runtime(hijacked.at_vault());
    let error = provider.describe(&Kek::latest(NAME)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(other.requests().is_empty() && service.requests().is_empty());
}

#[test]
fn azure_requests_hold_what_is_wrapped_and_nothing_else() {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    let provider = service.vault();
    let sample = Sample::wrap(&provider);
    sample.unwrap(&provider).unwrap();
    let requests = service.requests();
    let lengths: Vec<_> = requests
        .iter()
        .filter(|request| request["service"] == "vault")
        .map(|request| request["length"].as_u64().unwrap())
        .collect();
    let around = r#"{"alg":"RSA-OAEP-256","value":""}"#.len() as u64;
    // 56 bytes and 256 bytes in base64url.
    assert_eq!(lengths, [around + 75, around + 342]);
}

#[test]
fn azure_builders_refuse_what_cannot_be() {
    let service = KeyVault::start();
    let places = service.places();
    let at = |url: &str| {
        strongroom::provider::azure_keyvault::AzureKeyVault::vault(url, places.secret("x")).build().map(drop)
    };
    at("https://contoso.vault.azure.net").unwrap();
    for url in ["http://contoso.vault.azure.net", "https://contoso.example", "contoso", "https://localhost:1"]
    {
        assert_eq!(at(url).unwrap_err().class(), ErrorClass::Misconfigured, "{url}");
    }
    for timeout in [0, 99, 60_001] {
        let builder = places.at_vault().call_timeout(std::time::Duration::from_millis(timeout));
        assert_eq!(builder.build().unwrap_err().class(), ErrorClass::Misconfigured);
    }
    let named = places.at_vault().credential_name("orders-app").build().unwrap();
    let plain = places.at_vault().build().unwrap();
    use strongroom::provider::AsyncKeyProvider;
    assert_ne!(named.authority(), plain.authority());
}
