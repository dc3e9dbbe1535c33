//! Every answer in `fixtures/aws_kms`, unwrapped with through the SDK over a real connection, and its class.

use std::fs;
use std::path::Path;

use strongroom::Refusal::{self, CredentialRejected, KeyDisabled, KeyGone, PermissionRemoved, Unrecognised};
use strongroom::provider::{ErrorClass, KeyProvider};
use strongroom_kms_tests::canned::{Canned, fixture};

use super::{canned_wrap, context, provider};

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Refused(Refusal),
    Transient,
    Integrity,
    Misconfigured,
}

fn shows(name: &str, means: Means) {
    let canned = Canned::answers([fixture("aws_kms", name)]);
    let error = provider(&canned.url()).unwrap(&canned_wrap(), &context()).expect_err("it is a failure");
    let class = match means {
        Means::Refused(refusal) => ErrorClass::Refused(refusal),
        Means::Transient => ErrorClass::Transient,
        Means::Integrity => ErrorClass::Integrity,
        Means::Misconfigured => ErrorClass::Misconfigured,
    };
    assert_eq!(error.class(), class, "{error}");
    assert!(error.message().starts_with("kms:Decrypt: ") || means == Means::Integrity, "{error}");
    // The SDK's own retries are off, and credentials are renewed once.
    let attempts = if means == Means::Refused(CredentialRejected) { 2 } else { 1 };
    assert_eq!(canned.requests().len(), attempts);
}

macro_rules! answers {
    ($($test:ident: $name:literal $means:expr,)*) => {
        $(#[test]
        fn $test() {
            use Means::*;
            shows($name, $means);
        })*

        const NAMES: &[&str] = &[$($name,)*];
    };
}

answers! {
    // Refusals.
    aws_access_denied_without_policy_is_refused: "access_denied_without_policy" Refused(PermissionRemoved),
    aws_access_denied_explicitly_is_refused: "access_denied_explicitly" Refused(PermissionRemoved),
    aws_access_denied_by_key_policy_is_refused: "access_denied_by_key_policy" Refused(PermissionRemoved),
    aws_ciphertext_whose_key_is_out_of_reach_is_refused: "ciphertext_key_out_of_reach" Refused(PermissionRemoved),
    aws_disabled_key_is_refused: "disabled" Refused(KeyDisabled),
    aws_key_not_found_is_refused: "key_not_found" Refused(KeyGone),
    aws_alias_not_found_is_refused: "alias_not_found" Refused(KeyGone),
    aws_invalid_state_pending_deletion_is_refused: "pending_deletion" Refused(KeyGone),
    aws_invalid_state_pending_replica_deletion_is_refused: "pending_replica_deletion" Refused(KeyGone),
    aws_invalid_state_pending_import_is_refused: "pending_import" Refused(KeyGone),
    aws_invalid_state_of_a_disconnected_key_store_is_refused: "key_store_disconnected" Refused(KeyDisabled),
    aws_external_key_that_is_disabled_is_refused: "external_key_disabled" Refused(KeyDisabled),
    aws_external_key_that_is_not_found_is_refused: "external_key_not_found" Refused(KeyGone),
    aws_external_key_manager_that_denies_is_refused: "external_key_denied" Refused(PermissionRemoved),
    aws_external_key_manager_that_rejects_aws_is_refused: "external_proxy_rejects_aws" Refused(KeyDisabled),
    aws_invalid_grant_token_is_refused: "invalid_grant_token" Refused(PermissionRemoved),
    aws_opt_in_required_is_refused: "opt_in_required" Refused(PermissionRemoved),
    aws_expired_token_after_a_refresh_is_refused: "expired_token" Refused(CredentialRejected),
    aws_unrecognized_client_after_a_refresh_is_refused: "unrecognized_client" Refused(CredentialRejected),
    aws_unknown_session_after_a_refresh_is_refused: "unknown_session" Refused(CredentialRejected),
    aws_wrong_signature_after_a_refresh_is_refused: "signature_does_not_match" Refused(CredentialRejected),
    aws_clock_skew_after_a_refresh_is_refused: "clock_skew" Refused(CredentialRejected),
    aws_missing_authentication_token_after_a_refresh_is_refused: "missing_authentication_token" Refused(CredentialRejected),
    aws_unknown_code_below_500_is_refused: "unknown_refusal" Refused(Unrecognised),
    aws_unknown_action_is_refused_as_unrecognised: "unknown_action" Refused(Unrecognised),
    // Silence.
    aws_throttling_is_http_400_and_transient: "throttling" Transient,
    aws_throttling_that_only_the_header_names_is_transient: "throttling_in_the_header_only" Transient,
    aws_limit_exceeded_is_transient: "limit_exceeded" Transient,
    aws_dependency_timeout_is_transient: "dependency_timeout" Transient,
    aws_key_unavailable_is_transient: "key_unavailable" Transient,
    aws_kms_internal_is_transient: "kms_internal" Transient,
    aws_internal_failure_is_transient: "internal_failure" Transient,
    aws_service_unavailable_is_transient: "service_unavailable" Transient,
    aws_unknown_code_from_500_on_is_transient: "unknown_failure_of_the_server" Transient,
    aws_external_key_manager_out_of_reach_is_transient: "external_proxy_unreachable" Transient,
    aws_external_key_manager_that_times_out_is_transient: "external_proxy_timed_out" Transient,
    aws_external_key_manager_that_is_unhealthy_is_transient: "external_proxy_unhealthy" Transient,
    aws_proxy_page_403_is_no_refusal: "proxy_forbids" Transient,
    aws_proxy_login_407_is_no_refusal: "proxy_wants_a_login" Transient,
    aws_json_403_of_a_gateway_is_no_refusal: "gateway_forbids_in_json" Transient,
    aws_page_404_of_a_web_server_is_no_refusal: "not_found_page" Transient,
    aws_bad_gateway_is_transient: "bad_gateway" Transient,
    aws_status_429_without_words_is_transient: "too_many_requests_without_words" Transient,
    // What cannot be right.
    aws_invalid_ciphertext_is_integrity: "invalid_ciphertext" Integrity,
    aws_another_context_is_integrity: "context_mismatch" Integrity,
    aws_incorrect_key_is_integrity: "incorrect_key" Integrity,
    aws_ciphertext_that_an_external_key_manager_calls_damaged_is_integrity: "external_ciphertext_damaged" Integrity,
    aws_success_of_another_key_is_integrity: "another_key_answers" Integrity,
    aws_success_of_other_key_material_is_integrity: "success_of_other_key_material" Integrity,
    aws_success_without_key_is_integrity: "success_without_key" Integrity,
    aws_success_without_plaintext_is_integrity: "success_without_plaintext" Integrity,
    aws_success_of_another_length_is_integrity: "success_of_another_length" Integrity,
    aws_success_cut_short_is_integrity: "success_cut_short" Integrity,
    aws_success_that_is_empty_is_integrity: "success_that_is_empty" Integrity,
    aws_success_of_a_login_page_is_integrity: "success_of_a_login_page" Integrity,
    // Our own fault.
    aws_invalid_key_usage_is_misconfigured: "invalid_key_usage" Misconfigured,
    aws_validation_is_misconfigured: "validation" Misconfigured,
    aws_invalid_arn_is_misconfigured: "invalid_arn" Misconfigured,
    aws_unsupported_operation_is_misconfigured: "unsupported_operation" Misconfigured,
    aws_unknown_operation_is_misconfigured: "unknown_operation" Misconfigured,
    aws_incomplete_signature_is_misconfigured: "incomplete_signature" Misconfigured,
}

#[test]
fn aws_the_success_that_the_others_differ_from_is_one() {
    let canned = Canned::answers([fixture("aws_kms", "success")]);
    let secret = provider(&canned.url()).unwrap(&canned_wrap(), &context()).expect("succeeds");
    assert_eq!(secret.expose(), &[b'x'; 56]);
}

#[test]
fn aws_every_answer_has_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/aws_kms");
    let mut files: Vec<String> = fs::read_dir(folder)
        .expect("the fixtures")
        .map(|entry| {
            entry.expect("can be listed").path().file_stem().expect("has one").to_string_lossy().into_owned()
        })
        .filter(|name| name != "success")
        .collect();
    files.sort();
    let mut names: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(names, files);
}
