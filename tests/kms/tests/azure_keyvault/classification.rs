//! Every answer in `fixtures/azure_keyvault`, through the provider and Microsoft's client over TLS, and its class.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions};
use strongroom::Refusal::{self, CredentialRejected, KeyDisabled, KeyGone, PermissionRemoved, Unrecognised};
use strongroom::provider::azure_keyvault::AzureKeyVault;
use strongroom::provider::{
    Authority, ErrorClass, Kek, KekVersion, KeyProvider, ProviderError, WrapAlgorithm, Wrapped,
};
use strongroom::{AccountId, AccountSpec, AekCache};
use strongroom_kms_tests::canned::fixture;
use strongroom_kms_tests::key_vault::{KeyVault, VAULT, own_runtime};

use super::{NAME, parts};

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Refused(Refusal),
    Transient,
    Integrity,
    Misconfigured,
}

/// What is asked when the answer comes, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Unwrap,
    Wrap,
    Describe,
    /// The first request of all, which comes without a token.
    Challenge,
    Login,
    Identity,
}

/// One server for all of this; its next answer is everybody's.
struct Bench {
    service: KeyVault,
    warm: Arc<dyn KeyProvider>,
}

impl Bench {
    fn take() -> MutexGuard<'static, Self> {
        static BENCH: LazyLock<Mutex<Bench>> = LazyLock::new(|| {
            let service = KeyVault::start();
            service.create(VAULT, NAME, "RSA");
            let warm = service.vault();
            Mutex::new(Bench { service, warm })
        });
        let bench = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever the one before left behind.
        for service in ["challenge", "vault", "login", "identity"] {
            bench.service.answer_with(service, b"", 0);
        }
        bench.warm.describe(&Kek::latest(NAME)).expect("a token is there");
        drop(bench.service.requests());
        bench
    }

    /// A provider that has no token yet.
    fn cold(&self, credential: Arc<dyn TokenCredential>) -> Arc<dyn KeyProvider> {
        let places = self.service.places();
        let builder = AzureKeyVault::vault(format!("https://{VAULT}"), credential);
        own_runtime(builder.client_options(places.options()).call_timeout(Duration::from_secs(2)))
    }

    fn ask(&self, asked: Asked, raw: &[u8]) -> ProviderError {
        let places = self.service.places();
        let (answering, provider) = match asked {
            Asked::Unwrap | Asked::Wrap | Asked::Describe => ("vault", Arc::clone(&self.warm)),
            Asked::Challenge => ("challenge", self.cold(places.secret("never sent"))),
            Asked::Login => ("login", self.cold(places.secret("correct horse"))),
            Asked::Identity => {
                let client_options = places.options();
                let options = ManagedIdentityCredentialOptions {
                    client_options,
                    ..ManagedIdentityCredentialOptions::default()
                };
                let credential = ManagedIdentityCredential::new(Some(options)).expect("a credential");
                ("identity", self.cold(credential))
            }
        };
        self.service.answer_with(answering, raw, 20);
        let kek = Kek::latest(NAME);
        let (context, secret) = parts();
        match asked {
            Asked::Wrap => provider.wrap(&kek, &context, &secret).expect_err("a failure"),
            Asked::Describe => provider.describe(&kek).expect_err("a failure"),
            _ => provider.unwrap(&canned_wrap(), &context).expect_err("a failure"),
        }
    }
}

fn canned_wrap() -> Wrapped {
    let uri = Authority::new("azure-keyvault", VAULT).uri_of(NAME).unwrap();
    let version = KekVersion::new("78deebed173b48e48f55abf87ed4cf71").unwrap();
    Wrapped::new(uri, version, WrapAlgorithm::new("RSA-OAEP-256").unwrap(), vec![1; 256]).unwrap()
}

fn shows(asked: Asked, name: &str, means: Means) {
    let bench = Bench::take();
    let error = bench.ask(asked, &fixture("azure_keyvault", name));
    let class = match means {
        Means::Refused(refusal) => ErrorClass::Refused(refusal),
        Means::Transient => ErrorClass::Transient,
        Means::Integrity => ErrorClass::Integrity,
        Means::Misconfigured => ErrorClass::Misconfigured,
    };
    assert_eq!(error.class(), class, "{error}");
    // Codes alone are repeated, never the service's sentences.
    for private in ["appid", "Caller", "Trace", "192.0.2.7", "http", "<html", "AAAA"] {
        assert!(!error.to_string().contains(private), "{error}");
    }
    let requests = bench.service.requests();
    let count = |service: &str| requests.iter().filter(|request| request["service"] == service).count();
    match asked {
        // The client's retries are off. A token that is rejected is asked for once more.
        Asked::Unwrap | Asked::Wrap | Asked::Describe => {
            assert_eq!(count("vault"), if name.starts_with("unauthorized") { 2 } else { 1 });
        }
        // No token was asked for, and none was sent.
        Asked::Challenge => assert_eq!((count("challenge"), count("login"), count("vault")), (1, 0, 0)),
        // The vault was told nothing but that somebody wants in.
        Asked::Login | Asked::Identity => {
            assert!(
                count("vault") == 0
                    && requests
                        .iter()
                        .all(|request| request["service"] != "challenge" || request["length"] == 0)
            );
        }
    }
}

macro_rules! answers {
    ($($test:ident: $asked:ident $name:literal $means:expr,)*) => {
        $(#[test]
        fn $test() {
            use Means::*;
            shows(Asked::$asked, $name, $means);
        })*

        const NAMES: &[&str] = &[$($name,)*];
    };
}

answers! {
    // Refusals.
    azure_403_key_disabled_is_refused: Unwrap "key_disabled" Refused(KeyDisabled),
    azure_403_key_disabled_in_the_other_spelling_is_refused: Unwrap "key_disabled_in_the_other_spelling" Refused(KeyDisabled),
    azure_403_key_expired_is_refused: Wrap "key_expired" Refused(KeyDisabled),
    azure_403_key_not_yet_valid_is_refused: Wrap "key_not_yet_valid" Refused(KeyDisabled),
    azure_403_key_operation_forbidden_is_refused: Unwrap "key_operation_forbidden" Refused(KeyDisabled),
    azure_403_forbidden_by_rbac_is_refused: Unwrap "forbidden_by_rbac" Refused(PermissionRemoved),
    azure_403_forbidden_by_policy_is_refused: Unwrap "forbidden_by_policy" Refused(PermissionRemoved),
    azure_403_access_denied_is_refused: Unwrap "access_denied" Refused(PermissionRemoved),
    azure_403_access_denied_to_a_first_party_is_refused: Unwrap "access_denied_to_a_first_party" Refused(PermissionRemoved),
    azure_403_forbidden_by_firewall_is_refused: Unwrap "forbidden_by_firewall" Refused(PermissionRemoved),
    azure_403_forbidden_by_connection_is_refused: Unwrap "forbidden_by_connection" Refused(PermissionRemoved),
    azure_403_forbidden_without_an_inner_code_is_refused: Unwrap "forbidden_without_an_inner_code" Refused(PermissionRemoved),
    azure_404_key_not_found_is_refused: Unwrap "key_not_found" Refused(KeyGone),
    azure_409_deleted_but_recoverable_is_refused: Unwrap "deleted_but_recoverable" Refused(KeyGone),
    azure_409_being_deleted_is_refused: Unwrap "being_deleted" Refused(KeyGone),
    azure_403_in_words_of_the_future_is_refused_as_unrecognised: Unwrap "unknown_refusal" Refused(Unrecognised),
    azure_404_in_words_of_the_future_is_refused_as_unrecognised: Unwrap "unknown_not_found" Refused(Unrecognised),
    azure_409_in_words_of_the_future_is_refused_as_unrecognised: Unwrap "unknown_conflict" Refused(Unrecognised),
    azure_401_invalid_issuer_after_a_refresh_is_refused: Unwrap "unauthorized_invalid_issuer" Refused(CredentialRejected),
    azure_401_token_expired_after_a_refresh_is_refused: Unwrap "unauthorized_token_expired" Refused(CredentialRejected),
    azure_401_without_a_challenge_after_a_refresh_is_refused: Unwrap "unauthorized_without_a_challenge" Refused(CredentialRejected),
    azure_401_without_words_after_a_refresh_is_refused: Unwrap "unauthorized_without_words" Refused(CredentialRejected),
    azure_401_that_asks_for_claims_is_refused: Unwrap "unauthorized_insufficient_claims" Refused(CredentialRejected),
    azure_login_secret_expired_is_refused: Login "login_secret_expired" Refused(CredentialRejected),
    azure_login_secret_invalid_is_refused: Login "login_secret_invalid" Refused(CredentialRejected),
    azure_login_application_unknown_is_refused: Login "login_application_unknown" Refused(CredentialRejected),
    azure_login_application_disabled_is_refused: Login "login_application_disabled" Refused(CredentialRejected),
    azure_login_directory_unknown_is_refused: Login "login_directory_unknown" Refused(CredentialRejected),
    azure_login_assertion_out_of_time_is_refused: Login "login_assertion_out_of_time" Refused(CredentialRejected),
    azure_login_federation_unknown_is_refused: Login "login_federation_unknown" Refused(CredentialRejected),
    azure_login_conditional_access_is_refused: Login "login_conditional_access" Refused(CredentialRejected),
    azure_managed_identity_that_was_taken_away_is_refused: Identity "identity_not_found" Refused(CredentialRejected),
    // Silence.
    azure_408_is_transient: Unwrap "request_timeout" Transient,
    azure_429_throttled_is_transient: Unwrap "throttled" Transient,
    azure_429_without_words_is_transient: Unwrap "throttled_without_words" Transient,
    azure_throttling_is_transient_whatever_its_status: Unwrap "throttled_by_its_code_alone" Transient,
    azure_500_is_transient: Unwrap "internal_server_error" Transient,
    azure_502_is_transient: Unwrap "bad_gateway" Transient,
    azure_503_is_transient: Unwrap "service_unavailable" Transient,
    azure_504_is_transient: Unwrap "gateway_timeout" Transient,
    azure_5xx_is_transient_whatever_its_words: Unwrap "unknown_failure_of_the_server" Transient,
    azure_page_403_of_a_gateway_is_no_refusal: Unwrap "page_403_of_a_gateway" Transient,
    azure_page_404_of_a_gateway_is_no_refusal: Unwrap "page_404_of_a_gateway" Transient,
    azure_json_403_of_a_gateway_is_no_refusal: Unwrap "json_403_of_a_gateway" Transient,
    azure_login_407_of_a_proxy_is_no_refusal: Unwrap "login_407_of_a_proxy" Transient,
    azure_redirect_is_not_followed_and_no_refusal: Unwrap "redirect_of_a_portal" Transient,
    azure_login_temporarily_unavailable_is_transient: Login "login_temporarily_unavailable" Transient,
    azure_login_server_error_is_transient: Login "login_server_error" Transient,
    azure_login_throttled_is_transient: Login "login_throttled" Transient,
    azure_login_page_503_is_transient: Login "login_page_503" Transient,
    azure_login_page_400_of_a_proxy_is_no_refusal: Login "login_page_400" Transient,
    azure_login_success_without_token_is_transient: Login "login_success_without_token" Transient,
    azure_login_success_of_a_portal_is_transient: Login "login_success_of_a_portal" Transient,
    azure_identity_service_that_starts_is_transient: Identity "identity_service_starting" Transient,
    azure_identity_service_being_updated_is_transient: Identity "identity_service_updating" Transient,
    azure_identity_service_that_fails_is_transient: Identity "identity_service_fails" Transient,
    azure_identity_service_that_throttles_is_transient: Identity "identity_service_throttles" Transient,
    // What cannot be right.
    azure_400_bad_parameter_of_an_unwrap_is_integrity: Unwrap "bad_parameter" Integrity,
    azure_400_bad_request_of_an_unwrap_is_integrity: Unwrap "bad_request" Integrity,
    azure_413_of_an_unwrap_is_integrity: Unwrap "payload_too_large" Integrity,
    azure_kid_of_another_version_is_integrity: Unwrap "success_of_another_version" Integrity,
    azure_kid_of_another_key_is_integrity: Unwrap "success_of_another_key" Integrity,
    azure_kid_of_another_vault_is_integrity: Unwrap "success_of_another_vault" Integrity,
    azure_kid_without_version_is_integrity: Unwrap "success_without_version" Integrity,
    azure_success_without_key_is_integrity: Unwrap "success_without_key" Integrity,
    azure_success_without_value_is_integrity: Unwrap "success_without_value" Integrity,
    azure_success_of_another_length_is_integrity: Unwrap "success_of_another_length" Integrity,
    azure_success_that_is_not_base64url_is_integrity: Unwrap "success_that_is_not_base64url" Integrity,
    azure_success_cut_short_is_integrity: Unwrap "success_cut_short" Integrity,
    azure_success_that_is_empty_is_integrity: Unwrap "success_that_is_empty" Integrity,
    azure_success_of_a_login_page_is_integrity: Unwrap "success_of_a_login_page" Integrity,
    azure_success_of_another_status_is_integrity: Unwrap "created" Integrity,
    azure_success_without_content_is_integrity: Unwrap "no_content" Integrity,
    azure_wrap_of_another_key_is_integrity: Wrap "success_of_another_key" Integrity,
    azure_wrap_of_another_vault_is_integrity: Wrap "success_of_another_vault" Integrity,
    azure_key_without_attributes_is_integrity: Describe "key_without_attributes" Integrity,
    azure_key_without_material_is_integrity: Describe "key_without_material" Integrity,
    azure_key_of_another_vault_is_integrity: Describe "key_of_another_vault" Integrity,
    azure_challenge_of_another_domain_is_integrity: Challenge "challenge_of_another_domain" Integrity,
    azure_challenge_without_a_resource_is_integrity: Challenge "challenge_without_a_resource" Integrity,
    // Our own fault.
    azure_400_bad_parameter_of_a_wrap_is_misconfigured: Wrap "bad_parameter" Misconfigured,
    azure_400_bad_request_of_a_description_is_misconfigured: Describe "bad_request" Misconfigured,
    azure_key_that_does_not_wrap_is_misconfigured: Describe "key_of_elliptic_curves" Misconfigured,
    azure_login_scope_invalid_is_misconfigured: Login "login_scope_invalid" Misconfigured,
    azure_login_resource_unknown_is_misconfigured: Login "login_resource_unknown" Misconfigured,
}

/// A gateway that wants a login of its own says 401 as well, in nobody's words.
#[test]
fn azure_401_of_a_gateway_is_no_refusal() {
    let bench = Bench::take();
    let error = bench.ask(Asked::Unwrap, &fixture("azure_keyvault", "unauthorized_of_a_gateway"));
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
}

#[test]
fn azure_the_successes_that_the_others_differ_from_are_ones() {
    let bench = Bench::take();
    bench.service.answer_with("vault", &fixture("azure_keyvault", "success"), 1);
    let (context, _) = parts();
    assert_eq!(bench.warm.unwrap(&canned_wrap(), &context).expect("succeeds").expose(), &[0; 56]);
    bench.service.answer_with("vault", &fixture("azure_keyvault", "key"), 1);
    let info = bench.warm.describe(&Kek::latest(NAME)).expect("succeeds");
    assert!(info.enabled && info.recoverable());
}

#[test]
fn azure_errors_carry_the_services_request_id() {
    let bench = Bench::take();
    let error = bench.ask(Asked::Unwrap, &fixture("azure_keyvault", "key_disabled"));
    assert_eq!(error.message(), "Key Vault answered 403: Forbidden (KeyDisabled)");
    // As a caller of the library sees it.
    bench.service.answer_with("vault", &fixture("azure_keyvault", "key_disabled"), 20);
    let spec = AccountSpec::new(AccountId::random(), Arc::clone(&bench.warm), Kek::latest(NAME));
    let error = AekCache::builder().build().unwrap().create(spec).expect_err("is refused");
    assert_eq!(error.refusal(), Some(KeyDisabled), "{error}");
    assert_eq!(error.request_id(), Some("2b2c0f0e-6a5d-4c62-9c70-1f2d3e4a5b6c"));
}

#[test]
fn azure_every_fixture_is_tested_by_its_name() {
    let apart = ["success", "key", "unauthorized_of_a_gateway"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/azure_keyvault");
    let mut files = 0;
    for file in fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".http").expect("nothing else lies there");
        assert!(NAMES.contains(&name) || apart.contains(&name), "{name}");
        files += 1;
    }
    assert!(files >= 80, "{files}");
}
