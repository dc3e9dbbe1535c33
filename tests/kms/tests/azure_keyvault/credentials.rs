//! Credentials: of every sort, expired, renewed, rejected; a login service that is silent; and who is told a token.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::time::{Duration as TokenDuration, OffsetDateTime};
use azure_identity::{
    ClientAssertionCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use serde_json::json;
use strongroom::provider::azure_keyvault::AzureKeyVault;
use strongroom::provider::{ErrorClass, Kek, KeyProvider};
use strongroom_kms_tests::key_vault::{
    ASSERTION, CLIENT, CLIENT_SECRET, HSM, KeyVault, Places, TENANT, VAULT, own_runtime,
};
use strongroom_kms_tests::proxy::{Mode, Proxy};

use super::{NAME, REFUSED_CREDENTIAL, Sample};

fn service() -> KeyVault {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    service
}

fn provider(places: &Places, credential: Arc<dyn TokenCredential>) -> Arc<dyn KeyProvider> {
    let builder = AzureKeyVault::vault(format!("https://{VAULT}"), credential);
    own_runtime(builder.client_options(places.options()).call_timeout(Duration::from_secs(2)))
}

fn managed_identity(places: &Places) -> Arc<dyn TokenCredential> {
    let client_options = places.options();
    let options =
        ManagedIdentityCredentialOptions { client_options, ..ManagedIdentityCredentialOptions::default() };
    ManagedIdentityCredential::new(Some(options)).expect("a credential")
}

fn workload_identity(places: &Places, token_file: &std::path::Path) -> Arc<dyn TokenCredential> {
    let credential_options = ClientAssertionCredentialOptions { client_options: places.options() };
    let options = WorkloadIdentityCredentialOptions {
        credential_options,
        client_id: Some(CLIENT.to_owned()),
        tenant_id: Some(TENANT.to_owned()),
        token_file_path: Some(token_file.to_owned()),
    };
    WorkloadIdentityCredential::new(Some(options)).expect("a credential")
}

fn count(service: &KeyVault, of: &str) -> usize {
    service.requests().iter().filter(|request| request["service"] == of).count()
}

/// Hands out what it is told, and counts.
#[derive(Debug)]
struct Scripted {
    asked: AtomicU32,
    lifetime: TokenDuration,
    inner: Mutex<Arc<dyn TokenCredential>>,
}

impl Scripted {
    fn new(inner: Arc<dyn TokenCredential>, lifetime: TokenDuration) -> Arc<Self> {
        Arc::new(Self { asked: AtomicU32::new(0), lifetime, inner: Mutex::new(inner) })
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl TokenCredential for Scripted {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let inner = Arc::clone(&self.inner.lock().unwrap());
        let token = inner.get_token(scopes, options).await?;
        Ok(AccessToken::new(token.token, OffsetDateTime::now_utc() + self.lifetime))
    }
}

/// A login service that never answers.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl TokenCredential for Hanging {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        std::future::pending().await
    }
}

#[test]
fn azure_a_client_secret_opens_the_vault() {
    let service = service();
    let provider = provider(service.places(), service.places().secret(CLIENT_SECRET));
    Sample::wrap(&provider).unwrap(&provider).unwrap();
    // The first request carries neither token nor content, and one token serves all.
    let requests = service.requests();
    let order: Vec<&str> = requests.iter().filter_map(|request| request["service"].as_str()).collect();
    assert_eq!(order, ["challenge", "login", "vault", "vault"]);
    assert_eq!(requests[0]["length"], 0);
}

#[test]
fn azure_a_managed_identity_opens_the_vault_and_is_taken_away() {
    let service = service();
    let first = provider(service.places(), managed_identity(service.places()));
    let sample = Sample::wrap(&first);
    sample.unwrap(&first).unwrap();
    service.login(&json!({ "identity": false }));
    // The token in hand is good for as long as it lasts; a new process gets none.
    sample.unwrap(&first).unwrap();
    let second = provider(service.places(), managed_identity(service.places()));
    let error = sample.refused(&second);
    assert_eq!(error.class(), REFUSED_CREDENTIAL, "{error}");
    service.login(&json!({ "identity": true }));
    sample.unwrap(&second).unwrap();
}

#[test]
fn azure_a_workload_identity_opens_the_vault_and_its_federation_is_removed() {
    let service = service();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ASSERTION).unwrap();
    let first = provider(service.places(), workload_identity(service.places(), file.path()));
    let sample = Sample::wrap(&first);
    service.login(&json!({ "assertion": "another cluster's" }));
    let second = provider(service.places(), workload_identity(service.places(), file.path()));
    let error = sample.refused(&second);
    assert_eq!(error.class(), REFUSED_CREDENTIAL, "{error}");
    assert!(error.message().contains("AADSTS700213"), "{error}");
    service.login(&json!({ "assertion": ASSERTION }));
    sample.unwrap(&second).unwrap();
}

#[test]
fn azure_an_expired_secret_is_refused_and_a_new_one_opens() {
    let service = service();
    let sample = Sample::wrap(&service.vault());
    service.login(&json!({ "state": "expired" }));
    let expired = provider(service.places(), service.places().secret(CLIENT_SECRET));
    let error = sample.refused(&expired);
    assert_eq!(error.class(), REFUSED_CREDENTIAL, "{error}");
    assert!(error.message().contains("invalid_client (AADSTS7000222)"), "{error}");
    service.login(&json!({ "state": "good", "secret": "a new secret" }));
    assert_eq!(sample.refused(&expired).class(), REFUSED_CREDENTIAL);
    let renewed = provider(service.places(), service.places().secret("a new secret"));
    sample.unwrap(&renewed).unwrap();
}

#[test]
fn azure_a_token_is_renewed_before_it_ends() {
    let service = service();
    // Less than five minutes are left from the beginning: each call asks for another one.
    let short = Scripted::new(service.places().secret(CLIENT_SECRET), TokenDuration::seconds(60));
    let provider = provider(service.places(), Arc::clone(&short) as Arc<dyn TokenCredential>);
    let sample = Sample::wrap(&provider);
    assert_eq!(short.asked(), 1);
    sample.unwrap(&provider).unwrap();
    sample.unwrap(&provider).unwrap();
    assert_eq!(short.asked(), 3);
}

#[test]
fn azure_a_silent_login_service_does_no_harm_while_a_token_lasts() {
    let service = service();
    let short = Scripted::new(service.places().secret(CLIENT_SECRET), TokenDuration::seconds(60));
    let provider = provider(service.places(), Arc::clone(&short) as Arc<dyn TokenCredential>);
    let sample = Sample::wrap(&provider);
    *short.inner.lock().unwrap() = Arc::new(Hanging);
    // A little patience once, then none for a while: an attempt at each call would look like a slow vault.
    for (patience, asked) in [(Duration::from_millis(1500), 2), (Duration::from_millis(550), 2)] {
        let begun = Instant::now();
        sample.unwrap(&provider).unwrap();
        assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
        assert_eq!(short.asked(), asked);
    }
}

#[test]
fn azure_a_silent_login_service_is_transient_and_heals() {
    let service = service();
    let sample = Sample::wrap(&service.vault());
    let proxy = Proxy::before(service.places().login);
    let places = service.places().with_login(proxy.address());
    for mode in [Mode::Refuse, Mode::Hang, Mode::Garble, Mode::Cut(100)] {
        proxy.set(mode.clone());
        let provider = provider(&places, places.secret(CLIENT_SECRET));
        let begun = Instant::now();
        let error = sample.refused(&provider);
        assert_eq!(error.class(), ErrorClass::Transient, "{mode:?}: {error}");
        assert!(begun.elapsed() < Duration::from_millis(3500), "{mode:?}: {:?}", begun.elapsed());
        proxy.set(Mode::Pass);
        sample.unwrap(&provider).unwrap();
    }
}

#[test]
fn azure_a_token_rejected_by_the_vault_is_refused_when_the_credential_has_no_other() {
    let service = service();
    let provider = service.vault();
    let sample = Sample::wrap(&provider);
    service.revoke_tokens();
    drop(service.requests());
    // The credential keeps its token in a cache and cannot be told; it was asked once more.
    let error = sample.refused(&provider);
    assert_eq!(error.class(), REFUSED_CREDENTIAL, "{error}");
    assert_eq!(count(&service, "vault"), 2);
}

#[test]
fn azure_a_token_rejected_by_the_vault_is_replaced_where_a_new_credential_can_be_made() {
    let service = service();
    let places = service.places().clone();
    let made = Arc::new(AtomicU32::new(0));
    let (counter, fresh) = (Arc::clone(&made), places.clone());
    let builder = places.at_vault().renew_credential_with(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(fresh.secret(CLIENT_SECRET))
    });
    let provider = own_runtime(builder);
    let sample = Sample::wrap(&provider);
    sample.unwrap(&provider).unwrap();
    assert_eq!(made.load(Ordering::SeqCst), 0);
    service.revoke_tokens();
    sample.unwrap(&provider).unwrap();
    sample.unwrap(&provider).unwrap();
    assert_eq!(made.load(Ordering::SeqCst), 1);
    // Once, and then the rejection stands: this one is of another directory, whatever the token.
    service.answer_with(
        "vault",
        &strongroom_kms_tests::canned::fixture("azure_keyvault", "unauthorized_invalid_issuer"),
        20,
    );
    assert_eq!(sample.refused(&provider).class(), REFUSED_CREDENTIAL);
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[test]
fn azure_tokens_are_for_the_resource_of_the_service_alone() {
    let service = service();
    service.create(HSM, NAME, "oct-HSM");
    // A token for vaults opens no Managed HSM: one credential serves both, with a token each.
    let hsm = service.managed_hsm();
    Sample::wrap(&hsm).unwrap(&hsm).unwrap();
    let vault = service.vault();
    Sample::wrap(&vault).unwrap(&vault).unwrap();
}

#[test]
fn azure_a_host_that_asks_for_the_token_of_another_resource_gets_none() {
    let service = service();
    // Allowed by a word, and still no more than its own domain's token.
    let places = service.places();
    let asked = Scripted::new(places.secret(CLIENT_SECRET), TokenDuration::hours(1));
    let at = |credential: &Arc<Scripted>| {
        let credential = Arc::clone(credential) as Arc<dyn TokenCredential>;
        let builder = AzureKeyVault::vault("https://orders.vault.example", credential);
        own_runtime(builder.client_options(places.options()).allow_host_outside_of_azure())
    };
    let raw = strongroom_kms_tests::canned::answer(
        401,
        &[(
            "WWW-Authenticate",
            r#"Bearer authorization="https://login.microsoftonline.com/a", resource="https://vault.azure.net""#,
        )],
        "",
    );
    service.answer_with("challenge", &raw, 1);
    let error = at(&asked).describe(&Kek::latest(NAME)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Integrity, "{error}");
    assert_eq!((asked.asked(), count(&service, "login")), (0, 0));
    // What the service of that name says of itself is followed.
    service.create("orders.vault.example", NAME, "RSA");
    at(&asked).describe(&Kek::latest(NAME)).unwrap();
    assert_eq!(asked.asked(), 1);
}

#[test]
fn azure_a_credential_without_a_token_is_transient() {
    let service = service();
    let sample = Sample::wrap(&service.vault());
    #[derive(Debug)]
    struct Empty;
    #[async_trait]
    impl TokenCredential for Empty {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            Ok(AccessToken::new(Secret::new(""), OffsetDateTime::now_utc()))
        }
    }
    drop(service.requests());
    let provider = provider(service.places(), Arc::new(Empty));
    assert_eq!(sample.refused(&provider).class(), ErrorClass::Transient);
    assert_eq!(count(&service, "vault"), 0);
}
