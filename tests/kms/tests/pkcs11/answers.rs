//! Every answer in `fixtures/pkcs11`, over the real provider: a module before SoftHSM's gives it.
//!
//! Each fixture says which function answers, during which call, what that means, and who says so. After it, the token is
//! as it was, and so has to be the provider.

use std::path::{Path, PathBuf};

use strongroom::provider::pkcs11::Algorithm;
use strongroom::provider::{ErrorClass, Kek, KeyProvider, ProviderError, WrapContext, WrapInput};
use strongroom::{AccountId, Generation};
use strongroom_kms_tests::softhsm::{Administrator, Faults, SoftHsm, Use, module};

use crate::world::{KEK, builder, faulty, with_a_token};

struct Fixture {
    name: String,
    code: u64,
    function: String,
    wraps: bool,
    key_wrap: bool,
    class: String,
}

impl Fixture {
    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
        let mut lines = text.lines();
        let (name, code) = lines.next().unwrap().rsplit_once(' ').unwrap();
        let mut field = |name: &str| {
            let line = lines.next().unwrap();
            line.strip_prefix(name).unwrap().trim().to_owned()
        };
        let (function, call, class) = (field("from:"), field("for:"), field("class:"));
        let code = u64::from_str_radix(code.strip_prefix("0x").unwrap(), 16).unwrap();
        Self {
            name: name.to_owned(),
            code,
            function,
            wraps: call.starts_with("wrap"),
            key_wrap: call.ends_with("with key wrap"),
            class,
        }
    }

    fn holds(&self, hsm: &SoftHsm) {
        let administrator = Administrator::log_in(&module()).unwrap();
        administrator.create(KEK, &[1], Use::Both).unwrap();
        // With its last session the process is logged out: the provider has to log in by itself.
        drop(administrator);
        let algorithm = if self.key_wrap { Algorithm::AesKeyWrap } else { Algorithm::AesGcm };
        let context = WrapContext::for_tests(AccountId::random(), Generation::FIRST);
        let secret = WrapInput::from_slice(&[7; WrapInput::LEN]).unwrap();
        let kek = Kek::latest(KEK);
        let wrapped = {
            let before = builder().algorithm(algorithm).build().unwrap();
            before.wrap(&kek, &context, &secret).unwrap()
        };

        let faults = Faults::of(hsm);
        let provider = faulty(&faults).algorithm(algorithm).build().unwrap();
        let call = || -> Result<(), ProviderError> {
            if self.wraps {
                return provider.wrap(&kek, &context, &secret).map(drop);
            }
            let unwrapped = provider.unwrap(&wrapped, &context)?;
            assert_eq!(unwrapped.expose(), secret.expose());
            Ok(())
        };
        faults.answer(&self.function, self.code, u32::MAX >> 1);
        for _ in 0..2 {
            let error = call().expect_err("the module answered with a code");
            assert_eq!(class(&error), self.class, "{error}");
            assert!(!format!("{error} {error:?}").contains("MARK"), "{error}");
            let named = error.message().contains(&self.name)
                || error.message().contains(&format!("{:#010x}", self.code));
            assert!(named || error.message().contains("rejected this PIN before"), "{error}");
        }
        assert!(faults.calls(&self.function) > 0);

        faults.none();
        if self.function == "C_Login" && [0xA0, 0xA2].contains(&self.code) {
            // The token kept no count that could show that it is safe to try this PIN again.
            let logins = faults.calls("C_Login");
            assert_eq!(logins, 1, "one try for two calls");
            assert_eq!(class(&call().expect_err("not tried again")), self.class);
            assert_eq!(faults.calls("C_Login"), logins);
        } else {
            call().unwrap_or_else(|error| panic!("after {}: {error}", self.name));
        }
    }
}

/// As the fixtures write it.
fn class(error: &ProviderError) -> String {
    match error.class() {
        ErrorClass::Refused(refusal) => format!("refused: {refusal}"),
        ErrorClass::Transient => "transient".to_owned(),
        ErrorClass::Integrity => "integrity".to_owned(),
        ErrorClass::Misconfigured => "misconfigured".to_owned(),
        other => format!("{other:?}"),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pkcs11")
}

macro_rules! fixtures {
    ($($test:ident: $file:literal,)*) => {
        with_a_token! {
            $(fn $test(hsm: &SoftHsm) {
                Fixture::read($file).holds(hsm);
            })*
        }

        const FILES: &[&str] = &[$($file),*];
    };
}

fixtures! {
    key_function_not_permitted_is_refused_key_disabled: "key_function_not_permitted",
    pin_locked_is_refused_credential_rejected: "pin_locked",
    pin_expired_is_refused_credential_rejected: "pin_expired",
    pin_incorrect_is_refused_credential_rejected: "pin_incorrect",
    pin_len_range_is_refused_credential_rejected: "pin_len_range",
    user_pin_not_initialized_is_refused_credential_rejected: "user_pin_not_initialized",
    user_not_logged_in_is_refused_credential_rejected: "user_not_logged_in",
    key_handle_invalid_is_refused_key_gone: "key_handle_invalid",
    object_handle_invalid_is_refused_key_gone: "object_handle_invalid",
    unwrapping_key_handle_invalid_is_refused_key_gone: "unwrapping_key_handle_invalid",
    action_prohibited_is_refused_permission_removed: "action_prohibited",
    function_rejected_is_refused_unrecognised: "function_rejected",
    device_error_is_transient: "device_error",
    device_removed_is_transient: "device_removed",
    device_memory_is_transient: "device_memory",
    host_memory_is_transient: "host_memory",
    general_error_is_transient: "general_error",
    function_failed_is_transient: "function_failed",
    function_canceled_is_transient: "function_canceled",
    token_not_present_is_transient: "token_not_present",
    token_not_recognized_is_transient: "token_not_recognized",
    slot_id_invalid_is_transient: "slot_id_invalid",
    session_count_is_transient: "session_count",
    session_closed_is_transient: "session_closed",
    session_handle_invalid_is_transient: "session_handle_invalid",
    session_read_write_so_exists_is_transient: "session_read_write_so_exists",
    user_another_already_logged_in_is_transient: "user_another_already_logged_in",
    operation_active_is_transient: "operation_active",
    cryptoki_not_initialized_is_transient: "cryptoki_not_initialized",
    vendor_code_is_transient: "vendor_code",
    unknown_code_is_transient: "unknown_code",
    encrypted_data_invalid_is_integrity: "encrypted_data_invalid",
    encrypted_data_len_range_is_integrity: "encrypted_data_len_range",
    aead_decrypt_failed_is_integrity: "aead_decrypt_failed",
    wrapped_key_invalid_is_integrity: "wrapped_key_invalid",
    wrapped_key_len_range_is_integrity: "wrapped_key_len_range",
    mechanism_invalid_is_misconfigured: "mechanism_invalid",
    mechanism_param_invalid_is_misconfigured: "mechanism_param_invalid",
    key_type_inconsistent_is_misconfigured: "key_type_inconsistent",
    function_not_supported_is_misconfigured: "function_not_supported",
    attribute_value_invalid_is_misconfigured: "attribute_value_invalid",
    key_unextractable_is_misconfigured: "key_unextractable",
}

#[test]
fn every_fixture_has_a_test_of_its_own() {
    let mut files: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".txt").to_owned())
        .collect();
    files.sort_unstable();
    let mut tested = FILES.to_vec();
    tested.sort_unstable();
    assert_eq!(files, tested);
    assert!(tested.len() >= 25);
}
