//! Every answer in `fixtures/vault`, and what it means for a lease.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use strongroom::Refusal::{CredentialRejected, KeyDisabled, KeyGone, PermissionRemoved, Unrecognised};
use strongroom::provider::ErrorClass::{Integrity, Misconfigured, Refused, Transient};
use strongroom::provider::{Kek, KeyProvider};
use strongroom_kms_tests::canned::{Canned, answer, fixture};

use crate::answers::{To, builder, described, judged, judged_by, serving, wrapped};
use crate::{class, context, version};

/// One row a test: its name, where the answer is given, its file, its class.
macro_rules! rows {
    ($($name:ident: $to:ident $file:literal => $class:expr,)*) => {
        $(#[test]
        fn $name() {
            assert_eq!(judged(To::$to, $file), $class);
        })*

        /// The files that the rows name.
        const ROWS: &[&str] = &[$($file),*];
    };
}

rows! {
    // Refused: the key.
    vault_400_encryption_key_not_found_is_refused: Unwrap "decrypt_key_deleted" => Refused(KeyGone),
    vault_400_disallowed_by_policy_is_refused: Unwrap "decrypt_version_barred" => Refused(KeyDisabled),
    vault_400_soft_deleted_is_refused: Unwrap "decrypt_soft_deleted" => Refused(KeyGone),
    vault_400_soft_deleted_at_a_wrap_is_refused: Wrap "encrypt_soft_deleted" => Refused(KeyGone),
    vault_200_soft_deleted_key_is_refused: Describe "key_soft_deleted" => Refused(KeyGone),
    vault_400_min_encryption_version_is_refused: Wrap "encrypt_version_barred" => Refused(KeyDisabled),
    vault_400_no_such_version_is_refused: Wrap "encrypt_version_barred_for_decryption" => Refused(KeyGone),
    vault_400_version_not_there_yet_is_refused: Wrap "encrypt_version_unknown" => Refused(KeyGone),
    vault_404_no_such_key_is_refused: Describe "key_deleted" => Refused(KeyGone),
    vault_404_no_engine_mounted_is_refused: Unwrap "mount_gone" => Refused(KeyGone),
    vault_404_no_namespace_is_refused: Unwrap "namespace_gone" => Refused(KeyGone),
    vault_405_is_refused: Unwrap "method_unsupported" => Refused(Unrecognised),
    vault_4xx_in_unknown_words_is_refused: Unwrap "refused_unknown" => Refused(Unrecognised),
    // Refused: who asks.
    vault_403_after_lookup_self_is_refused: Unwrap "denied" => Refused(PermissionRemoved),
    vault_403_with_another_reason_is_refused: Unwrap "no_capability_of_namespace" => Refused(PermissionRemoved),
    vault_403_of_a_token_that_is_gone_is_refused: Lookup "token_unknown" => Refused(CredentialRejected),
    vault_400_wrong_secret_id_is_refused: Login "login_wrong_secret" => Refused(CredentialRejected),
    vault_400_role_deleted_is_refused: Login "login_role_deleted" => Refused(CredentialRejected),
    vault_403_login_mount_gone_is_refused: Login "login_mount_gone" => Refused(CredentialRejected),
    vault_400_jwt_that_does_not_verify_is_refused: Login "login_jwt_invalid" => Refused(CredentialRejected),
    vault_403_kubernetes_token_review_is_refused: Login "login_kubernetes_denied" => Refused(CredentialRejected),
    vault_403_unknown_service_account_is_refused:
        Login "login_kubernetes_unknown_service_account" => Refused(CredentialRejected),
    // Transient: Vault cannot, just now.
    vault_429_is_transient: Unwrap "rate_limited" => Transient,
    vault_502_is_transient: Unwrap "third_party_failed" => Transient,
    vault_503_sealed_is_transient: Unwrap "sealed" => Transient,
    vault_503_sealed_at_the_login_is_transient: Login "sealed_login" => Transient,
    vault_503_sealed_at_the_lookup_is_transient: Lookup "sealed" => Transient,
    vault_503_is_transient: Unwrap "maintenance" => Transient,
    vault_500_is_transient: Unwrap "internal_error" => Transient,
    vault_500_at_the_lookup_is_transient: Lookup "internal_error" => Transient,
    vault_500_at_the_login_is_transient: Login "internal_error" => Transient,
    vault_501_is_transient: Unwrap "not_initialized" => Transient,
    vault_412_is_transient: Unwrap "lagging" => Transient,
    vault_472_is_transient: Unwrap "standby_dr" => Transient,
    vault_473_is_transient: Unwrap "standby_performance" => Transient,
    vault_307_is_transient: Unwrap "redirect" => Transient,
    // Transient: not Vault's words.
    vault_403_of_a_load_balancer_is_transient: Unwrap "proxy_forbidden" => Transient,
    vault_403_of_a_load_balancer_at_the_login_is_transient: Login "proxy_forbidden" => Transient,
    vault_403_of_an_api_gateway_is_transient: Unwrap "gateway_forbidden" => Transient,
    vault_401_of_a_load_balancer_is_transient: Unwrap "proxy_unauthorized" => Transient,
    vault_404_of_a_load_balancer_is_transient: Unwrap "proxy_not_found" => Transient,
    vault_408_of_a_load_balancer_is_transient: Unwrap "proxy_request_timeout" => Transient,
    vault_429_of_a_load_balancer_is_transient: Unwrap "proxy_throttled" => Transient,
    vault_502_of_a_load_balancer_is_transient: Unwrap "proxy_bad_gateway" => Transient,
    vault_503_of_a_load_balancer_is_transient: Unwrap "proxy_unavailable" => Transient,
    vault_504_of_a_load_balancer_is_transient: Unwrap "proxy_timeout" => Transient,
    // Integrity: an answer that cannot be right.
    vault_400_message_authentication_failed_is_integrity: Unwrap "decrypt_authentication_failed" => Integrity,
    vault_400_key_deleted_and_made_anew_is_integrity: Unwrap "decrypt_key_made_anew" => Integrity,
    vault_400_version_too_new_is_integrity: Unwrap "decrypt_version_too_new" => Integrity,
    vault_400_invalid_ciphertext_length_is_integrity: Unwrap "decrypt_too_short" => Integrity,
    vault_400_no_base64_is_integrity: Unwrap "decrypt_no_base64" => Integrity,
    vault_400_in_unknown_words_is_integrity: Unwrap "bad_request_unknown" => Integrity,
    vault_200_of_a_captive_portal_is_integrity: Unwrap "captive_portal" => Integrity,
    vault_200_truncated_is_integrity: Unwrap "truncated_json" => Integrity,
    vault_200_without_data_is_integrity: Unwrap "no_data" => Integrity,
    vault_204_is_integrity: Unwrap "no_content" => Integrity,
    vault_200_with_a_short_plaintext_is_integrity: Unwrap "plaintext_short" => Integrity,
    vault_200_with_a_plaintext_that_is_no_base64_is_integrity: Unwrap "plaintext_no_base64" => Integrity,
    vault_200_wrapped_with_another_version_is_integrity: Wrap "encrypted_elsewhere" => Integrity,
    vault_200_about_another_key_is_integrity: Describe "key_other" => Integrity,
    // Misconfigured: our set-up.
    vault_key_of_128_bits_is_misconfigured: Describe "key_aes128" => Misconfigured,
    vault_key_without_associated_data_is_misconfigured: Describe "key_rsa" => Misconfigured,
    vault_derived_key_is_misconfigured: Describe "key_der" => Misconfigured,
    vault_400_associated_data_without_aead_is_misconfigured: Wrap "encrypt_no_aead" => Misconfigured,
    vault_400_missing_context_is_misconfigured: Wrap "encrypt_derived" => Misconfigured,
    vault_400_in_unknown_words_at_a_wrap_is_misconfigured: Wrap "bad_request_unknown" => Misconfigured,
    vault_login_that_wants_a_second_factor_is_misconfigured: Login "login_second_factor" => Misconfigured,
}

#[test]
fn vault_503_sealed_is_refused_where_that_was_asked_for() {
    let strict = |to| {
        judged_by(to, "sealed", strongroom::provider::vault::VaultTransitBuilder::sealed_counts_as_refused)
    };
    assert_eq!(strict(To::Unwrap), Refused(KeyDisabled));
    // Another 503 says nothing of a seal.
    let other = judged_by(To::Unwrap, "maintenance", |builder| builder.sealed_counts_as_refused());
    assert_eq!(other, Transient);
}

#[test]
fn vault_keys_are_described_as_they_are() {
    let info = described("key_ok", &Kek::latest("orders"));
    assert_eq!(info.version, version("1"));
    assert!(info.enabled && info.soft_delete && info.purge_protection && info.hsm_backed.is_none());
    // Deletion proper is allowed: nothing protects from it. HashiCorp Vault has no soft delete at all.
    let info = described("key_deletion_allowed", &Kek::latest("gone"));
    assert!(info.enabled && info.soft_delete && !info.purge_protection);
    let info = described("key_vault", &Kek::latest("orders"));
    assert!(info.enabled && !info.soft_delete && !info.purge_protection);
    // A pin below the minimum, and one at it.
    let info = described("key_version_barred", &Kek::pinned("barred", version("1")));
    assert!(!info.enabled && info.version == version("1"));
    let info = described("key_version_barred", &Kek::pinned("barred", version("2")));
    assert!(info.enabled && info.version == version("2"));
}

#[test]
fn a_renewal_is_read() {
    // The rest of a renewal is shown on the real server; here, that what it says is what we read.
    let renewed = fixture("vault", "renew_ok");
    assert!(String::from_utf8(renewed).unwrap().contains(r#""lease_duration":3600"#));
    assert!(String::from_utf8(fixture("vault", "renew_not_renewable")).unwrap().contains("not renewable"));
}

#[test]
fn a_redirect_is_not_followed_and_takes_no_token_elsewhere() {
    let elsewhere = Canned::answers([fixture("vault", "decrypt_ok")]);
    let redirect = answer(307, &[("Location", &format!("{}/v1/stolen", elsewhere.url()))], "");
    let canned = serving(To::Unwrap, redirect);
    let kms = builder(To::Unwrap, &canned).build().unwrap();
    assert_eq!(class(kms.unwrap(&wrapped(&kms), &context())), Transient);
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn an_answer_without_end_is_bounded_and_an_error() {
    for (status, class_of_it) in [(200, Integrity), (403, Transient), (503, Transient)] {
        let mut endless = answer(status, &[], vec![b' '; 1 << 20]);
        endless.extend_from_slice(b"{}");
        let canned = serving(To::Unwrap, endless);
        let kms = builder(To::Unwrap, &canned).build().unwrap();
        let begun = Instant::now();
        assert_eq!(class(kms.unwrap(&wrapped(&kms), &context())), class_of_it, "{status}");
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
    // A head without end.
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes();
    let canned = serving(To::Unwrap, head);
    let kms = builder(To::Unwrap, &canned).build().unwrap();
    assert_eq!(class(kms.unwrap(&wrapped(&kms), &context())), Transient);
}

#[test]
fn every_answer_cut_anywhere_is_an_error_and_no_panic() {
    let whole = fixture("vault", "decrypt_ok");
    for length in (0..whole.len()).step_by(7) {
        let canned = serving(To::Unwrap, whole[..length].to_vec());
        let kms = builder(To::Unwrap, &canned).build().unwrap();
        assert_eq!(class(kms.unwrap(&wrapped(&kms), &context())), Transient, "{length}");
    }
}

#[test]
fn every_kept_answer_has_its_row() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vault");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().trim_end_matches(".http").to_owned()
    };
    let files: BTreeSet<String> = fs::read_dir(folder).unwrap().map(name).collect();
    // Named by tests that look closer, or what surrounds the others.
    let others = [
        "decrypt_ok",
        "encrypt_ok",
        "key_ok",
        "key_deletion_allowed",
        "key_vault",
        "key_version_barred",
        "lookup_ok",
        "login_ok",
        "renew_ok",
        "renew_not_renewable",
    ];
    let named = ROWS.iter().chain(&others).map(ToString::to_string).collect();
    assert_eq!(files, named);
    assert!(files.len() >= 30);
}
