//! A token over time: taken away and given back, by others in this process and in theirs.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11 as Library;
use strongroom::provider::pkcs11::{Pin, Pkcs11};
use strongroom::provider::{ErrorClass, Kek, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped};
use strongroom::{AccountId, Generation, Refusal};
use strongroom_kms_tests::softhsm::{Administrator, Faults, SoftHsm, Use, module};

use crate::world::{KEK, builder, customer, faulty, with_a_token};

/// A secret that was wrapped.
pub(crate) struct Sample {
    context: WrapContext,
    wrapped: Wrapped,
}

impl Sample {
    pub(crate) fn wrap(provider: &Pkcs11) -> Self {
        Self::under(provider, &Kek::latest(KEK)).unwrap()
    }

    fn under(provider: &Pkcs11, kek: &Kek) -> Result<Self, ProviderError> {
        let context = WrapContext::for_tests(AccountId::random(), Generation::FIRST);
        let wrapped = provider.wrap(kek, &context, &secret())?;
        Ok(Self { context, wrapped })
    }

    fn unwrap(&self, provider: &Pkcs11) -> Result<(), ProviderError> {
        let back = provider.unwrap(&self.wrapped, &self.context)?;
        assert_eq!(back.expose(), secret().expose());
        Ok(())
    }

    fn class(&self, provider: &Pkcs11) -> ErrorClass {
        let error = self.unwrap(provider).expect_err("it is refused, or nobody answers");
        println!("{error}");
        error.class()
    }
}

fn secret() -> WrapInput {
    WrapInput::from_slice(&[0x5A; WrapInput::LEN]).unwrap()
}

fn first_key(hsm: &SoftHsm) {
    customer(hsm, &["create", KEK, "1", "encrypt"]).unwrap();
}

/// Logs in with whatever is in `pin`.
fn with_pin(faults: &Faults, pin: &Arc<Mutex<&'static str>>) -> Pkcs11 {
    let pin = Arc::clone(pin);
    let builder = faulty(faults).pin(move || Ok(Pin::new((*pin.lock().unwrap()).to_owned())));
    builder.build().unwrap()
}

/// Ends all sessions, and lets SoftHSM read the PIN anew, which it does only when it is initialised.
fn finalise(faults: &Faults) {
    Library::new(faults.module()).unwrap().finalize().unwrap();
}

with_a_token! {
    fn a_token_that_goes_away_is_silence(hsm: &SoftHsm) {
        first_key(hsm);
        let provider = builder().build().unwrap();
        let sample = Sample::wrap(&provider);
        fs::rename(hsm.tokens(), hsm.folder().join("aside")).unwrap();
        // SoftHSM goes on as if the token were empty. That is not believed.
        for _ in 0..3 {
            assert_eq!(sample.class(&provider), ErrorClass::Transient);
            let error = provider.describe(&Kek::latest(KEK)).expect_err("nobody answers");
            assert_eq!(error.class(), ErrorClass::Transient, "{error}");
            let error = Sample::under(&provider, &Kek::latest(KEK)).err().expect("nobody answers");
            assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        }
        // It finds the token again only when it is initialised anew, which is for the embedding process to decide.
        fs::rename(hsm.folder().join("aside"), hsm.tokens()).unwrap();
        assert_eq!(sample.class(&provider), ErrorClass::Transient);
        Library::new(module()).unwrap().finalize().unwrap();
        sample.unwrap(&provider).unwrap();
    }

    fn a_token_that_is_not_there_yet_is_silence(hsm: &SoftHsm) {
        let provider = builder().token_label("not there yet").build().unwrap();
        let error = provider.describe(&Kek::latest(KEK)).expect_err("no token");
        assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        hsm.add_token("not there yet");
        Library::new(module()).unwrap().finalize().unwrap();
        let error = provider.describe(&Kek::latest(KEK)).expect_err("the token is empty");
        assert_eq!(error.class(), ErrorClass::Refused(Refusal::KeyGone), "{error}");
    }

    fn a_module_that_somebody_finalised_is_initialised_again(hsm: &SoftHsm) {
        first_key(hsm);
        let providers = [builder().build().unwrap(), builder().build().unwrap()];
        let sample = Sample::wrap(&providers[0]);
        for _ in 0..2 {
            sample.unwrap(&providers[1]).unwrap();
            Library::new(module()).unwrap().finalize().unwrap();
            providers.iter().for_each(|provider| sample.unwrap(provider).unwrap());
        }
    }

    fn a_module_that_the_process_initialised_itself_is_used_as_it_is(hsm: &SoftHsm) {
        first_key(hsm);
        let mine = Administrator::log_in(&module()).unwrap();
        let provider = builder().build().unwrap();
        let sample = Sample::wrap(&provider);
        sample.unwrap(&provider).unwrap();
        drop(provider);
        // Neither finalised nor logged out.
        mine.create("mine", &[1], Use::Both).unwrap();
    }

    fn a_logout_by_another_part_of_the_process_is_followed_by_one_login(hsm: &SoftHsm) {
        first_key(hsm);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let provider = builder()
            .pin(move || {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Pin::new(SoftHsm::PIN.to_owned()))
            })
            .build()
            .unwrap();
        let sample = Sample::wrap(&provider);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let other = Administrator::log_in(&module()).unwrap();
        for logouts in 1..=3 {
            other.session().logout().unwrap();
            sample.unwrap(&provider).unwrap();
            sample.unwrap(&provider).unwrap();
            assert_eq!(asked.load(Ordering::SeqCst), 1 + logouts, "one login after each logout");
        }
    }

    fn stale_sessions_handles_and_logins_are_made_anew_once(hsm: &SoftHsm) {
        first_key(hsm);
        let faults = Faults::of(hsm);
        let provider = faulty(&faults).build().unwrap();
        let sample = Sample::wrap(&provider);
        let stale = [
            ("C_DecryptInit", 0xB3), // SESSION_HANDLE_INVALID
            ("C_FindObjectsInit", 0xB0), // SESSION_CLOSED
            ("C_Decrypt", 0x32), // DEVICE_REMOVED
            ("C_FindObjectsInit", 0xE0), // TOKEN_NOT_PRESENT
            ("C_DecryptInit", 0x101), // USER_NOT_LOGGED_IN
            ("C_DecryptInit", 0x82), // OBJECT_HANDLE_INVALID
            ("C_DecryptInit", 0x60), // KEY_HANDLE_INVALID
            ("C_DecryptInit", 0x90), // OPERATION_ACTIVE
        ];
        for (function, code) in stale {
            sample.unwrap(&provider).unwrap();
            faults.answer(function, code, 1);
            sample.unwrap(&provider).unwrap_or_else(|error| panic!("{function} {code:#x}: {error}"));
            faults.none();
        }
        // Once: not for ever.
        let before = faults.calls("C_DecryptInit");
        faults.answer("C_DecryptInit", 0xB3, 1000);
        assert_eq!(sample.class(&provider), ErrorClass::Transient);
        assert_eq!(faults.calls("C_DecryptInit") - before, 2);
    }

    fn trouble_that_passes_is_not_held_against_the_wrap(hsm: &SoftHsm) {
        first_key(hsm);
        let faults = Faults::of(hsm);
        let provider = faulty(&faults).build().unwrap();
        let sample = Sample::wrap(&provider);
        for code in [0x05, 0x06, 0x30] {
            faults.answer("C_Decrypt", code, 1);
            sample.unwrap(&provider).unwrap();
        }
    }

    fn a_key_absent_after_a_second_look_is_refused_key_gone(hsm: &SoftHsm) {
        first_key(hsm);
        customer(hsm, &["create", KEK, "2", "encrypt"]).unwrap();
        let faults = Faults::of(hsm);
        let provider = faulty(&faults).build().unwrap();
        let sample = Sample::wrap(&provider);
        let looks = |of: &dyn Fn()| {
            let before = faults.calls("C_FindObjectsInit");
            of();
            faults.calls("C_FindObjectsInit") - before
        };
        assert_eq!(looks(&|| sample.unwrap(&provider).unwrap()), 1);
        let backup = hsm.folder().join("backup");
        let backup = backup.to_str().unwrap();
        customer(hsm, &["destroy", KEK, "2", backup]).unwrap();
        let gone = || assert_eq!(sample.class(&provider), ErrorClass::Refused(Refusal::KeyGone));
        assert_eq!(looks(&gone), 2);
        // The one before is current again, as the documentation warns.
        assert_eq!(provider.describe(&Kek::latest(KEK)).unwrap().version.as_str(), "01");
        customer(hsm, &["restore", KEK, "2", "encrypt", backup]).unwrap();
        sample.unwrap(&provider).unwrap();
    }

    fn a_forbidden_key_is_refused_key_disabled_and_an_allowed_one_serves(hsm: &SoftHsm) {
        first_key(hsm);
        customer(hsm, &["create", "wrapping", "1", "wrap"]).unwrap();
        let provider = builder().build().unwrap();
        for (kek, usage, algorithm) in [(KEK, "encrypt", "CKM_AES_GCM"), ("wrapping", "wrap", "CKM_AES_KEY_WRAP_PAD")] {
            let kek = Kek::latest(kek);
            let sample = Sample::under(&provider, &kek).unwrap();
            assert_eq!(sample.wrapped.algorithm().as_str(), algorithm, "by what the key allows");
            for _ in 0..2 {
                customer(hsm, &["forbid", kek.name(), "1", usage]).unwrap();
                assert_eq!(sample.class(&provider), ErrorClass::Refused(Refusal::KeyDisabled));
                assert!(!provider.describe(&kek).unwrap().enabled);
                customer(hsm, &["allow", kek.name(), "1", usage]).unwrap();
                sample.unwrap(&provider).unwrap();
                assert!(provider.describe(&kek).unwrap().enabled);
            }
        }
    }

    fn a_wrong_pin_is_sent_once(hsm: &SoftHsm) {
        first_key(hsm);
        let faults = Faults::of(hsm);
        let right = Sample::wrap(&builder().build().unwrap());
        let pin = Arc::new(Mutex::new("wrong-MARK"));
        let providers = [with_pin(&faults, &pin), with_pin(&faults, &pin)];
        for provider in providers.iter().cycle().take(6) {
            assert_eq!(right.class(provider), ErrorClass::Refused(Refusal::CredentialRejected));
        }
        assert_eq!(faults.calls("C_Login"), 1, "by all providers of the process together");
        // However the token is found.
        let slot = Library::new(module()).unwrap().get_slots_with_initialized_token().unwrap()[0];
        let serial = Library::new(module()).unwrap().get_token_info(slot).unwrap().serial_number().to_owned();
        let by_serial = Pkcs11::builder(faults.module()).token_serial(serial).pin(|| Ok(Pin::new("wrong-MARK".into())));
        let error = by_serial.build().unwrap().describe(&Kek::latest(KEK)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Refused(Refusal::CredentialRejected), "{error}");
        assert_eq!(faults.calls("C_Login"), 1, "by all providers of the process together");
        // Another PIN is tried, once; and the right one serves.
        *pin.lock().unwrap() = "another wrong one";
        assert_eq!(right.class(&providers[0]), ErrorClass::Refused(Refusal::CredentialRejected));
        assert_eq!(right.class(&providers[1]), ErrorClass::Refused(Refusal::CredentialRejected));
        assert_eq!(faults.calls("C_Login"), 2);
        *pin.lock().unwrap() = SoftHsm::PIN;
        providers.iter().for_each(|provider| right.unwrap(provider).unwrap());
    }

    fn a_wrong_pin_of_many_threads_is_sent_once(hsm: &SoftHsm) {
        first_key(hsm);
        let faults = Faults::of(hsm);
        let right = Sample::wrap(&builder().build().unwrap());
        let provider = with_pin(&faults, &Arc::new(Mutex::new("wrong")));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    assert_eq!(right.class(&provider), ErrorClass::Refused(Refusal::CredentialRejected));
                });
            }
        });
        assert_eq!(faults.calls("C_Login"), 1);
    }

    fn a_pin_that_is_right_again_is_found_out_when_somebody_has_logged_in(hsm: &SoftHsm) {
        first_key(hsm);
        let faults = Faults::of(hsm);
        let right = Sample::wrap(&builder().build().unwrap());
        let provider = with_pin(&faults, &Arc::new(Mutex::new("1234567")));
        for _ in 0..3 {
            assert_eq!(right.class(&provider), ErrorClass::Refused(Refusal::CredentialRejected));
        }
        assert_eq!(faults.calls("C_Login"), 1);
        // The operator makes it the PIN: with that they log in, and the token counts from zero again.
        hsm.pkcs11_tool(&["--change-pin", "--new-pin", "1234567"]);
        finalise(&faults);
        right.unwrap(&provider).unwrap();
        assert_eq!(faults.calls("C_Login"), 2);
    }

    fn a_pin_that_was_changed_counts_from_the_next_login_on(hsm: &SoftHsm) {
        first_key(hsm);
        let faults = Faults::of(hsm);
        let pin = Arc::new(Mutex::new(SoftHsm::PIN));
        let provider = with_pin(&faults, &pin);
        let sample = Sample::wrap(&provider);
        hsm.pkcs11_tool(&["--change-pin", "--new-pin", "1234567"]);
        sample.unwrap(&provider).expect("the login that there is stays");
        finalise(&faults);
        assert_eq!(sample.class(&provider), ErrorClass::Refused(Refusal::CredentialRejected));
        *pin.lock().unwrap() = "1234567";
        sample.unwrap(&provider).unwrap();
    }

    fn a_store_of_pins_that_does_not_answer_is_silence(hsm: &SoftHsm) {
        first_key(hsm);
        let sample = Sample::wrap(&builder().build().unwrap());
        let silent = builder().pin(|| Err(ProviderError::transient("the store of PINs does not answer")));
        assert_eq!(sample.class(&silent.build().unwrap()), ErrorClass::Transient);
        let empty = builder().pin(|| Ok(Pin::new(String::new())));
        assert_eq!(sample.class(&empty.build().unwrap()), ErrorClass::Misconfigured);
        let none = Pkcs11::builder(module()).token_label(SoftHsm::LABEL).build().unwrap();
        assert_eq!(sample.class(&none), ErrorClass::Misconfigured);
    }

    fn a_slow_module_delays_and_does_no_more(hsm: &SoftHsm) {
        first_key(hsm);
        let faults = Faults::of(hsm);
        let provider = faulty(&faults).build().unwrap();
        let sample = Sample::wrap(&provider);
        faults.delay("C_Decrypt", Duration::from_millis(300));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| sample.unwrap(&provider).unwrap());
            }
        });
        // Each call is slow twice: for the length, and for the answer. But no call waits for another.
        let took = begun.elapsed();
        assert!((Duration::from_millis(600)..Duration::from_millis(1100)).contains(&took), "{took:?}");
    }

    fn no_secret_is_shown(hsm: &SoftHsm) {
        first_key(hsm);
        let builder = builder();
        let mut shown = format!("{builder:?}");
        let provider = builder.build().unwrap();
        let sample = Sample::wrap(&provider);
        shown += &format!("{provider:?} {:?} {:?} {:?}", provider.authority(), sample.wrapped, Pin::new(SoftHsm::PIN.into()));
        shown += &format!("{:?}", provider.describe(&Kek::latest(KEK)));
        assert!(shown.contains(SoftHsm::LABEL), "the positive control: {shown}");
        assert!(!shown.contains("MARK"), "{shown}");
    }
}
