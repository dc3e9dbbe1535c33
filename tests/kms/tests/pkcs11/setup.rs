//! How a provider is set up, what it accepts of a record, and what it asks of a token.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::UserType;
use strongroom::provider::pkcs11::{Algorithm, Pin, Pkcs11};
use strongroom::provider::{
    Authority, ErrorClass, Kek, KekVersion, KeyProvider, ProviderError, Verdict, WrapAlgorithm, WrapContext,
    WrapInput, Wrapped, preflight,
};
use strongroom::{AccountId, Generation, Refusal};
use strongroom_kms_tests::softhsm::{Administrator, Faults, SoftHsm, Use, module, pin};

use crate::world::{KEK, builder, customer, faulty, with_a_token};

fn context() -> WrapContext {
    WrapContext::for_tests(AccountId::from_bytes([3; 16]), Generation::FIRST)
}

fn secret() -> WrapInput {
    WrapInput::from_slice(&[0x5A; WrapInput::LEN]).unwrap()
}

fn wrap(provider: &Pkcs11) -> Result<Wrapped, ProviderError> {
    provider.wrap(&Kek::latest(KEK), &context(), &secret())
}

fn unwrap(provider: &Pkcs11, wrapped: &Wrapped) -> Result<(), ErrorClass> {
    let back = provider.unwrap(wrapped, &context()).map_err(|error| error.class())?;
    assert_eq!(back.expose(), secret().expose());
    Ok(())
}

fn misconfigured<T>(answer: Result<T, ProviderError>, word: &str) {
    let error = answer.err().expect("it is refused");
    assert_eq!(error.class(), ErrorClass::Misconfigured, "{error}");
    assert!(error.message().contains(word), "{error}");
}

#[test]
fn a_builder_refuses_what_cannot_be_meant() {
    misconfigured(Pkcs11::builder(module()).build(), "by its label, its serial number");
    misconfigured(Pkcs11::builder(module()).token_label("").build(), "1 to 32 bytes");
    misconfigured(Pkcs11::builder(module()).token_label("x".repeat(33)).build(), "1 to 32 bytes");
    misconfigured(Pkcs11::builder(module()).token_serial("x".repeat(17)).build(), "1 to 16");
    misconfigured(Pkcs11::builder("/nowhere/at-all.so").token_label("x").build(), "/nowhere/at-all.so");
    // A library, but no PKCS#11 module.
    misconfigured(Pkcs11::builder("libc.so.6").token_label("x").build(), "libc.so.6");
}

#[test]
fn an_authority_names_token_serial_and_user() {
    let authority = |label: &str| Authority::new("pkcs11", format!("token={label}"));
    assert_eq!(builder().build().unwrap().authority(), authority("strongroom%20tests"));
    let both = builder().token_serial("0a1b").build().unwrap().authority();
    assert_eq!(both, authority("strongroom%20tests;serial=0a1b"));
    assert_eq!(both.uri_of("a/b").unwrap().as_str(), "pkcs11://token=strongroom%20tests;serial=0a1b/a/b");
    let vendor = builder().vendor_user(0x8000_0001).build().unwrap().authority();
    assert_ne!(vendor, builder().build().unwrap().authority());
    assert_eq!(vendor.uri_of("k").unwrap(), builder().build().unwrap().authority().uri_of("k").unwrap());
}

with_a_token! {
    fn a_token_is_found_by_label_and_serial_number(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let wrapped = wrap(&builder().build().unwrap()).unwrap();
        let library = cryptoki::context::Pkcs11::new(module()).unwrap();
        let slots = library.get_slots_with_initialized_token().unwrap();
        let serial = library.get_token_info(slots[0]).unwrap().serial_number().to_owned();
        let by_serial = Pkcs11::builder(module()).token_serial(&serial).pin(|| Ok(Pin::new(SoftHsm::PIN.to_owned())));
        wrap(&by_serial.build().unwrap()).unwrap();
        wrap(&builder().token_serial(&serial).build().unwrap()).unwrap();
        let other = builder().token_serial("0000").build().unwrap();
        assert_eq!(wrap(&other).unwrap_err().class(), ErrorClass::Transient, "that token is not here");
        assert_eq!(unwrap(&other, &wrapped), Err(ErrorClass::Misconfigured), "and the URI is another's");

        hsm.add_token(SoftHsm::LABEL);
        library.finalize().unwrap();
        let two = builder().build().unwrap();
        misconfigured(wrap(&two), "two tokens");
        wrap(&by_serial_of(&serial)).unwrap();
    }

    fn an_automatic_choice_is_the_first_that_the_key_allows_and_never_rsa(hsm: &SoftHsm) {
        let provider = builder().build().unwrap();
        assert!(provider.wrap_is_authentic());
        for (id, usage, algorithm) in
            [("1", "both", "CKM_AES_GCM"), ("2", "wrap", "CKM_AES_KEY_WRAP_PAD"), ("3", "encrypt", "CKM_AES_GCM")]
        {
            customer(hsm, &["create", KEK, id, usage]).unwrap();
            let wrapped = wrap(&provider).unwrap();
            assert_eq!(wrapped.algorithm().as_str(), algorithm);
            assert_eq!(unwrap(&provider, &wrapped), Ok(()));
        }
        customer(hsm, &["create-pair", "pair", "1"]).unwrap();
        let error = provider.describe(&Kek::latest("pair")).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Refused(Refusal::KeyGone), "a pair is no AES key");
    }

    fn all_of_one_kind_is_unwrapped_and_nothing_of_the_other(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "both"]).unwrap();
        customer(hsm, &["create-pair", KEK, "1"]).unwrap();
        let aes = [Algorithm::AesGcm, Algorithm::AesKeyWrapPad, Algorithm::AesKeyWrap];
        let of = |algorithm| builder().algorithm(algorithm).build().unwrap();
        let rsa = of(Algorithm::RsaOaepSha1);
        assert!(!rsa.wrap_is_authentic());
        // Whoever has the public key can make this: it must not get into a provider whose wraps count as authentic.
        let minted = wrap(&rsa).unwrap();
        assert_eq!(unwrap(&rsa, &minted), Ok(()));
        for wraps in aes {
            let wrapped = wrap(&of(wraps)).unwrap();
            for unwraps in aes {
                assert_eq!(unwrap(&of(unwraps), &wrapped), Ok(()), "{wraps:?} {unwraps:?}");
            }
            assert_eq!(unwrap(&rsa, &wrapped), Err(ErrorClass::Misconfigured));
            assert_eq!(unwrap(&of(wraps), &minted), Err(ErrorClass::Misconfigured));
            // Also when it names another algorithm than it was made by.
            for name in ["CKM_AES_GCM", "CKM_AES_KEY_WRAP", "CKM_AES_KEY_WRAP_PAD", "CKM_DES3_CBC", "AES-256-GCM"] {
                let algorithm = WrapAlgorithm::new(name).unwrap();
                let renamed = |wrapped: &Wrapped| {
                    let (kek, version) = (wrapped.kek().clone(), wrapped.version().clone());
                    Wrapped::new(kek, version, algorithm.clone(), wrapped.bytes().to_vec()).unwrap()
                };
                assert!(unwrap(&of(wraps), &renamed(&minted)).is_err());
                let own = wrapped.algorithm().as_str() == name;
                let pad = name.starts_with("CKM_AES_KEY_WRAP");
                match unwrap(&of(wraps), &renamed(&wrapped)) {
                    Ok(()) => assert!(own, "{wraps:?} as {name}"),
                    Err(class) if name.starts_with("CKM_AES") => assert_eq!(class, ErrorClass::Integrity, "{pad}"),
                    Err(class) => assert_eq!(class, ErrorClass::Misconfigured),
                }
            }
        }
    }

    fn no_two_wraps_are_alike_and_a_token_may_make_the_iv(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let faults = Faults::of(hsm);
        let ours = faulty(&faults).build().unwrap();
        assert_ne!(wrap(&ours).unwrap().bytes(), wrap(&ours).unwrap().bytes());
        // SoftHSM makes none: a wrap under twelve zeros must not get out.
        let tokens = faulty(&faults).iv_from_token().build().unwrap();
        misconfigured(wrap(&tokens), "no IV");
        faults.iv(0xAB);
        for provider in [&ours, &tokens] {
            let wrapped = wrap(provider).unwrap();
            assert_eq!(wrapped.bytes()[..12], [0xAB; 12], "what the token made is what is stored");
            assert_eq!(unwrap(provider, &wrapped), Ok(()));
        }
    }

    fn a_length_that_cannot_be_right_is_no_panic(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let faults = Faults::of(hsm);
        let provider = faulty(&faults).build().unwrap();
        let wrapped = wrap(&provider).unwrap();
        for length in [u64::MAX, 1 << 63, 0x1_0000, 55, 57, 1] {
            faults.length("C_Decrypt", length);
            assert_eq!(unwrap(&provider, &wrapped), Err(ErrorClass::Integrity), "{length}");
        }
        let fresh = faulty(&faults).build().unwrap();
        faults.length("C_GetMechanismList", u64::MAX);
        assert_eq!(unwrap(&fresh, &wrapped), Err(ErrorClass::Integrity));
        faults.none();
        assert_eq!(unwrap(&fresh, &wrapped), Ok(()));
        assert_eq!(unwrap(&provider, &wrapped), Ok(()));
    }

    fn two_keys_of_one_label_and_id_are_refused(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let provider = builder().build().unwrap();
        let wrapped = wrap(&provider).unwrap();
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        misconfigured(wrap(&provider), "two keys");
        assert_eq!(unwrap(&provider, &wrapped), Err(ErrorClass::Misconfigured));
        assert_eq!(preflight(&provider, &Kek::latest(KEK)).verdict(), Verdict::Misconfigured(strongroom::provider::PreflightStep::Get));
    }

    fn a_key_without_an_id_is_refused(hsm: &SoftHsm) {
        hsm.pkcs11_tool(&["--keygen", "--key-type", "AES:32", "--label", KEK]);
        misconfigured(wrap(&builder().build().unwrap()), "CKA_ID");
    }

    fn a_key_that_the_operators_tool_made_serves(hsm: &SoftHsm) {
        hsm.pkcs11_tool(&["--keygen", "--key-type", "AES:32", "--label", KEK, "--id", "0001", "--private", "--sensitive"]);
        // As the documentation has it.
        let provider = builder().build().unwrap();
        let wrapped = wrap(&provider).unwrap();
        assert_eq!(wrapped.version(), &KekVersion::new("0001").unwrap());
        assert_eq!(unwrap(&provider, &wrapped), Ok(()));
        assert_eq!(provider.describe(&Kek::latest(KEK)).unwrap().hsm_backed, Some(false), "SoftHSM says so");
    }

    fn an_operator_can_make_a_vendors_code_a_refusal(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let faults = Faults::of(hsm);
        let plain = faulty(&faults).build().unwrap();
        let told = faulty(&faults).vendor_code(0x8000_0007, Refusal::PermissionRemoved).build().unwrap();
        let wrapped = wrap(&plain).unwrap();
        faults.answer("C_DecryptInit", 0x8000_0007, 1000);
        assert_eq!(unwrap(&plain, &wrapped), Err(ErrorClass::Transient));
        assert_eq!(unwrap(&told, &wrapped), Err(ErrorClass::Refused(Refusal::PermissionRemoved)));
        faults.answer("C_DecryptInit", 0x8000_0008, 1000);
        assert_eq!(unwrap(&told, &wrapped), Err(ErrorClass::Transient));
    }

    fn a_type_of_user_that_the_token_does_not_know_is_misconfigured(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        misconfigured(wrap(&builder().vendor_user(0x8000_0001).build().unwrap()), "CKR_USER_TYPE_INVALID");
    }

    fn no_pin_is_tried_when_one_more_would_lock_the_token(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
        let faults = Faults::of(hsm);
        faults.token_flags(0x2_0000); // CKF_USER_PIN_FINAL_TRY
        let provider = faulty(&faults).build().unwrap();
        let error = wrap(&provider).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "nobody has rejected the PIN: {error}");
        assert_eq!(faults.calls("C_Login"), 0);
        faults.none();
        wrap(&provider).unwrap();
        assert_eq!(faults.calls("C_Login"), 1);
    }

    fn what_holds_an_aek_on_the_token_is_destroyed_at_once(hsm: &SoftHsm) {
        customer(hsm, &["create", KEK, "1", "wrap"]).unwrap();
        let faults = Faults::of(hsm);
        let provider = faulty(&faults).build().unwrap();
        let wrapped = wrap(&provider).unwrap();
        unwrap(&provider, &wrapped).unwrap();
        let observer = Administrator::log_in(&module()).unwrap();
        // Session objects are seen by every session of the process.
        let left = || observer.session().find_objects(&[Attribute::Token(false)]).unwrap().len();
        assert_eq!((left(), faults.calls("C_DestroyObject")), (0, 2));
        let control = [Attribute::Class(ObjectClass::DATA), Attribute::Token(false), Attribute::Private(false)];
        let control = observer.session().create_object(&control).unwrap();
        assert_eq!(left(), 1, "the positive control");
        observer.session().destroy_object(control).unwrap();

        faults.answer("C_WrapKey", 0x6A, 1000);
        wrap(&provider).unwrap_err();
        assert_eq!((left(), faults.calls("C_DestroyObject")), (0, 3));
        // When not even that works, the session goes, and takes the object along.
        faults.answer("C_DestroyObject", 0x06, 1000);
        wrap(&provider).unwrap_err();
        assert_eq!(unwrap(&provider, &wrapped), Err(ErrorClass::Transient));
        assert_eq!(left(), 0);
        faults.none();
        assert_eq!(unwrap(&provider, &wrapped), Ok(()));
    }

    fn what_the_fixtures_say_of_softhsm_is_what_it_says(_hsm: &SoftHsm) {
        let administrator = Administrator::log_in(&module()).unwrap();
        let session = administrator.session();
        let code = |answer: Result<(), Error>| match answer {
            Err(Error::Pkcs11(code, _)) => code,
            other => panic!("{other:?}"),
        };
        administrator.create(KEK, &[1], Use::Both).unwrap();
        let key = session.find_objects(&[Attribute::Label(KEK.into())]).unwrap()[0];
        let template = [Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::GENERIC_SECRET)];
        let unwrap = |length| session.unwrap_key(&Mechanism::AesKeyWrap, key, &vec![0; length], &template).map(drop);
        assert_eq!(code(unwrap(23)), RvError::WrappedKeyLenRange);
        // Of a wrap that was tampered with it says no more than this, so that the provider has to look closer.
        assert_eq!(code(unwrap(64)), RvError::GeneralError);
        administrator.allow(KEK, &[1], Use::Both, false).unwrap();
        assert_eq!(code(unwrap(64)), RvError::KeyFunctionNotPermitted);
        assert_eq!(code(session.decrypt_init(&Mechanism::AesEcb, key)), RvError::KeyFunctionNotPermitted);
        session.destroy_object(key).unwrap();
        assert_eq!(code(session.decrypt_init(&Mechanism::AesEcb, key)), RvError::ObjectHandleInvalid);
        session.logout().unwrap();
        assert_eq!(code(session.login(UserType::User, Some(&pin("wrong")))), RvError::PinIncorrect);

        let library = cryptoki::context::Pkcs11::new(module()).unwrap();
        let empty = library.get_slots_with_token().unwrap().into_iter().last().unwrap();
        library.init_token(empty, &pin(SoftHsm::SO_PIN), "without a user").unwrap();
        let session = library.open_ro_session(empty).unwrap();
        assert_eq!(code(session.login(UserType::User, Some(&pin("1234")))), RvError::UserPinNotInitialized);
    }

    fn sha_256_is_for_tokens_that_have_it(hsm: &SoftHsm) {
        customer(hsm, &["create-pair", KEK, "1"]).unwrap();
        let newer = builder().algorithm(Algorithm::RsaOaepSha256).build().unwrap();
        misconfigured(wrap(&newer), "CKR_ARGUMENTS_BAD");
        // The record of a token's earlier days is still read.
        let older = builder().algorithm(Algorithm::RsaOaepSha1).build().unwrap();
        assert_eq!(unwrap(&newer, &wrap(&older).unwrap()), Ok(()));
    }
}

fn by_serial_of(serial: &str) -> Pkcs11 {
    let by_serial =
        Pkcs11::builder(module()).token_serial(serial).pin(|| Ok(Pin::new(SoftHsm::PIN.to_owned())));
    by_serial.build().unwrap()
}
