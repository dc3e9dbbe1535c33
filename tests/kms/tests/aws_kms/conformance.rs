//! The suite, and every kind of program (contract B10).

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use strongroom::provider::{Kek, KeyProvider};
use strongroom::testing::conformance::{self, CaseOutcome, Report, Subject};
use strongroom_kms_tests::ministack::KeyAdmin;
use strongroom_kms_tests::moto::Moto;
use strongroom_kms_tests::runtimes;

use super::{connect, provider, shared};

/// The suite over an alias. A rotation points it to a new key, which both emulators do truthfully: so versions are keys.
fn run(kms: &dyn KeyProvider, keys: &KeyAdmin, alias: &str, closes: bool) -> Report {
    let current = Mutex::new(keys.create());
    keys.alias(alias, &current.lock().unwrap());
    let with_key = |act: &dyn Fn(&str)| -> Result<(), Infallible> {
        act(&current.lock().unwrap());
        Ok(())
    };
    let rotate = || -> Result<(), Infallible> {
        let new = keys.create();
        keys.point_alias(alias, &new);
        *current.lock().unwrap() = new;
        Ok(())
    };
    let mut subject = Subject::new(kms, alias).on_rotate(rotate);
    if closes {
        subject = subject
            .on_disable(|| with_key(&|key| keys.disable(key)))
            .on_enable(|| with_key(&|key| keys.enable(key)))
            .on_delete(|| with_key(&|key| keys.delete(key)))
            .on_recover(|| with_key(&|key| keys.recover(key)));
    }
    conformance::run(&subject)
}

fn not_passed(report: &Report) -> Vec<&'static str> {
    let cases = report.cases().iter();
    cases.filter(|case| case.outcome != CaseOutcome::Passed).map(|case| case.name).collect()
}

#[test]
fn b10_aws_each_case_of_the_suite_passes_where_the_emulator_can() {
    let moto = Moto::start();
    let at_moto = run(&provider(&moto.url()), moto.keys(), "alias/conformance", false);
    let at_ministack = run(connect().as_ref(), shared().keys(), "alias/conformance", true);
    println!("ministack\n{at_ministack}\n\nmoto\n{at_moto}");

    // The suite's fifth promise without additional data is about services that take none.
    let without_context = "hands_out_another_context_unchanged";
    // ministack encrypts without authentication: with flipped bytes or another key something else comes out.
    let by_authentication = ["says_integrity_of_tampered_bytes", "does_not_take_one_version_for_another"];
    assert_eq!(not_passed(&at_ministack), [&[without_context], &by_authentication[..]].concat());
    // moto serves disabled and deleted keys, so it has no hooks for them. For the wrong key, and for a ciphertext that begins
    // with another key's id, it says AccessDenied where AWS KMS says IncorrectKey and InvalidCiphertext.
    let by_state = [
        "refuses_a_disabled_key",
        "serves_a_key_that_was_enabled_again",
        "refuses_a_deleted_key",
        "serves_a_key_that_was_recovered",
    ];
    assert_eq!(not_passed(&at_moto), [&[without_context], &by_authentication[..], &by_state[..]].concat());
    for case in at_moto.cases().iter().filter(|case| by_authentication.contains(&case.name)) {
        let denied = |why: &str| why.contains("kms:Decrypt: AccessDeniedException");
        assert!(
            matches!(&case.outcome, CaseOutcome::Failed(why) if denied(why)),
            "refused at least: {case:?}"
        );
    }
}

#[test]
fn b10_aws_the_suite_is_complete_where_moto_is_amended_by_the_reference() {
    let moto = Moto::amended();
    let report = run(&provider(&moto.url()), moto.keys(), "alias/conformance", true);
    assert!(report.is_complete(), "{report}");
    println!("moto, amended; versions are keys\n{report}");

    // Where versions are key material, all but one holds: AWS KMS cannot wrap with older material.
    let (kms, key) = (provider(&moto.url()), moto.keys().create());
    let on_key = |act: fn(&KeyAdmin, &str)| {
        let (keys, key) = (moto.keys(), key.as_str());
        move || -> Result<(), Infallible> {
            act(keys, key);
            Ok(())
        }
    };
    let subject = Subject::new(&kms, key.as_str())
        .on_rotate(on_key(KeyAdmin::rotate))
        .on_disable(on_key(KeyAdmin::disable))
        .on_enable(on_key(KeyAdmin::enable))
        .on_delete(on_key(KeyAdmin::delete))
        .on_recover(on_key(KeyAdmin::recover));
    let report = conformance::run(&subject);
    println!("moto, amended; versions are key material\n{report}");
    assert_eq!(not_passed(&report), ["hands_out_another_context_unchanged", "wraps_with_the_pinned_version"]);
    let pinned = report.cases().iter().find(|case| case.name == "wraps_with_the_pinned_version").unwrap();
    assert!(
        matches!(&pinned.outcome, CaseOutcome::Failed(why) if why.contains("misconfigured")),
        "{pinned:?}"
    );
}

#[test]
fn b1_aws_serves_every_kind_of_program() {
    let kek = Kek::latest(shared().keys().create());
    runtimes::check(connect, &kek);
    let on_the_programs = || {
        use strongroom::provider::OnTokio;
        use strongroom::provider::aws_kms::AwsKms;
        use strongroom_kms_tests::ministack;
        let client =
            aws_sdk_kms::Client::from_conf(ministack::config(&shared().url(), ministack::root()).build());
        let kms = AwsKms::new(&client).unwrap();
        let provider: Arc<dyn KeyProvider> = match tokio::runtime::Handle::try_current() {
            Ok(handle) => Arc::new(OnTokio::new(kms, handle)),
            Err(_) => Arc::new(OnTokio::with_own_runtime(kms).unwrap()),
        };
        provider
    };
    runtimes::check(on_the_programs, &kek);
}
