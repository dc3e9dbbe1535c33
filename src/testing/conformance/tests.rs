//! The suite is tested itself: the good pass, and each way of being bad fails the case that is about it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use super::*;
use crate::error::Refusal;
use crate::provider::{
    Authority, ErrorClass, Kek, KekInfo, KekUri, KekVersion, KeyProvider, ProviderError, WrapContext,
    WrapInput, Wrapped,
};
use crate::testing::ScriptedProvider;

const KEK: &str = ScriptedProvider::KEK;

/// All that a tester can do at a scripted KMS, for a provider in front of it.
fn subject<'a>(provider: &'a dyn KeyProvider, kms: &'a ScriptedProvider) -> Subject<'a> {
    let act = |act: fn(&ScriptedProvider)| {
        move || {
            act(kms);
            Ok::<_, Infallible>(())
        }
    };
    Subject::new(provider, KEK)
        .on_disable(act(|kms| kms.set_enabled(KEK, false)))
        .on_enable(act(|kms| kms.set_enabled(KEK, true)))
        .on_delete(act(|kms| kms.set_deleted(KEK, true)))
        .on_recover(act(|kms| kms.set_deleted(KEK, false)))
        .on_rotate(act(|kms| drop(kms.add_version(KEK))))
}

#[test]
fn b10_the_scripted_provider_passes() {
    for kms in [ScriptedProvider::new(), ScriptedProvider::on_virtual_time()] {
        let report = run(&subject(&kms, &kms));
        assert!(report.is_complete(), "{report}");
    }
}

#[cfg(unix)]
#[test]
fn b10_local_kms_passes() {
    use crate::provider::{KeyOptions, LocalKms};

    let folder = tempfile::tempdir().unwrap();
    let kms = LocalKms::create(folder.path().join("kms.json")).unwrap();
    kms.create_key(KEK, KeyOptions::default()).unwrap();
    let subject = Subject::new(&kms, KEK)
        .on_rotate(|| kms.rotate_key(KEK).map(drop))
        .on_disable(|| kms.disable_key(KEK))
        .on_enable(|| kms.enable_key(KEK))
        .on_delete(|| kms.delete_key(KEK))
        .on_recover(|| kms.recover_key(KEK));
    let report = run(&subject);
    assert!(report.is_complete(), "{report}");
}

#[test]
fn b10_what_cannot_run_is_said_and_not_passed() {
    let kms = ScriptedProvider::new();
    let report = run(&Subject::new(&kms, KEK));
    assert!(report.has_no_failure() && !report.is_complete(), "{report}");
    let not_run = report.cases().iter().filter(|case| matches!(case.outcome, CaseOutcome::NotRun(_)));
    assert_eq!(not_run.count(), 8, "{report}");
    assert!(report.to_string().contains("refuses_a_disabled_key: not run: no hooks"), "{report}");
}

#[test]
fn b10_a_hook_that_fails_fails_its_cases() {
    let kms = ScriptedProvider::new();
    let report = run(&subject(&kms, &kms).on_rotate(|| Err("no right to rotate")));
    let expected = [
        "unwraps_with_the_exact_version_after_a_rotation",
        "does_not_take_one_version_for_another",
        "wraps_with_the_pinned_version",
    ];
    assert_eq!(failed(&report), expected, "{report}");
}

/// A way of being a bad provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    IgnoresContext,
    AdaptsContext,
    UnwrapsWithLatest,
    UnwrapsWithAnyVersion,
    IgnoresPin,
    SaysTransientOfRefusal,
    SaysRefusedOfTampering,
    SaysTransientOfTampering,
    AcceptsTampering,
    FollowsForeignUri,
    SaysTransientOfUnknownKey,
    ServesClosed,
    StaysClosed,
    NamesAnotherKek,
    DescribesAnotherKek,
    DescribesDisabledAsEnabled,
    ShowsTheSecret,
    ChangesAuthority,
    ServesOneThreadOnly,
    GivesAnotherAek,
    PanicsInDescribe,
}

/// Each flaw, and every case that catches it.
const FLAWS: &[(Flaw, &[&str])] = &[
    (Flaw::IgnoresContext, &["refuses_another_context_as_integrity"]),
    (Flaw::AdaptsContext, &["hands_out_another_context_unchanged"]),
    (
        Flaw::UnwrapsWithLatest,
        &[
            "knows_no_unknown_version",
            "unwraps_with_the_exact_version_after_a_rotation",
            "does_not_take_one_version_for_another",
            "wraps_with_the_pinned_version",
        ],
    ),
    (Flaw::UnwrapsWithAnyVersion, &["knows_no_unknown_version", "does_not_take_one_version_for_another"]),
    (Flaw::IgnoresPin, &["knows_no_unknown_version", "wraps_with_the_pinned_version"]),
    (
        Flaw::SaysTransientOfRefusal,
        &[
            "knows_no_unknown_key",
            "knows_no_unknown_version",
            "refuses_a_disabled_key",
            "refuses_a_deleted_key",
        ],
    ),
    (Flaw::SaysRefusedOfTampering, &["says_integrity_of_tampered_bytes"]),
    (Flaw::SaysTransientOfTampering, &["says_integrity_of_tampered_bytes"]),
    (Flaw::AcceptsTampering, &["says_integrity_of_tampered_bytes"]),
    (Flaw::FollowsForeignUri, &["follows_no_foreign_uri"]),
    (Flaw::SaysTransientOfUnknownKey, &["knows_no_unknown_key", "knows_no_unknown_version"]),
    (Flaw::ServesClosed, &["refuses_a_disabled_key", "refuses_a_deleted_key"]),
    (
        Flaw::StaysClosed,
        &[
            "serves_a_key_that_was_enabled_again",
            "serves_a_key_that_was_recovered",
            "answers_many_threads_at_once",
        ],
    ),
    (
        Flaw::NamesAnotherKek,
        &[
            "names_the_kek_and_version_that_wrapped",
            "says_integrity_of_tampered_bytes",
            "follows_no_foreign_uri",
            "knows_no_unknown_key",
        ],
    ),
    (
        Flaw::DescribesAnotherKek,
        &["describes_the_kek", "serves_a_key_that_was_enabled_again", "serves_a_key_that_was_recovered"],
    ),
    (Flaw::DescribesDisabledAsEnabled, &["refuses_a_disabled_key"]),
    (Flaw::ShowsTheSecret, &["hides_what_it_wraps", "follows_no_foreign_uri", "knows_no_unknown_key"]),
    (Flaw::ChangesAuthority, &["keeps_its_authority", "answers_many_threads_at_once"]),
    (Flaw::ServesOneThreadOnly, &["answers_many_threads_at_once"]),
    (
        Flaw::GivesAnotherAek,
        &[
            "unwraps_what_it_wrapped",
            "unwraps_with_the_exact_version_after_a_rotation",
            "wraps_with_the_pinned_version",
            "serves_a_key_that_was_enabled_again",
            "serves_a_key_that_was_recovered",
            "answers_many_threads_at_once",
        ],
    ),
    (
        Flaw::PanicsInDescribe,
        &[
            "names_the_kek_and_version_that_wrapped",
            "describes_the_kek",
            "knows_no_unknown_key",
            "unwraps_with_the_exact_version_after_a_rotation",
            "wraps_with_the_pinned_version",
            "refuses_a_disabled_key",
            "serves_a_key_that_was_enabled_again",
            "refuses_a_deleted_key",
            "serves_a_key_that_was_recovered",
        ],
    ),
];

#[test]
fn b10_each_flaw_fails_the_cases_that_are_about_it() {
    for (flaw, cases) in FLAWS {
        let kms = ScriptedProvider::new();
        let provider = Flawed::new(&kms, *flaw);
        let mut subject = subject(&provider, &kms);
        if *flaw == Flaw::AdaptsContext {
            subject = subject.without_additional_data();
        }
        let report = run(&subject);
        assert_eq!(failed(&report), *cases, "{flaw:?}\n{report}");
    }
}

#[test]
fn b10_every_case_catches_a_flaw() {
    for case in CASES {
        let caught = FLAWS.iter().any(|(_, cases)| cases.contains(&case.name));
        assert!(caught, "no flaw shows that `{}` can fail", case.name);
    }
}

/// A scripted KMS behind a provider with one flaw.
#[derive(Debug)]
struct Flawed {
    kms: ScriptedProvider,
    flaw: Flaw,
    /// What was wrapped, by the wrapped bytes: what a flaw needs to cheat.
    made: Mutex<HashMap<Vec<u8>, Made>>,
    home: ThreadId,
    was_closed: AtomicBool,
    authorities: AtomicUsize,
}

#[derive(Clone, Debug)]
struct Made {
    version: KekVersion,
    context: WrapContext,
    input: [u8; WrapInput::LEN],
}

impl Flawed {
    fn new(kms: &ScriptedProvider, flaw: Flaw) -> Self {
        Self {
            kms: kms.clone(),
            flaw,
            made: Mutex::default(),
            home: thread::current().id(),
            was_closed: AtomicBool::new(false),
            authorities: AtomicUsize::new(0),
        }
    }

    fn made(&self, wrapped: &Wrapped) -> Option<Made> {
        self.made.lock().unwrap().get(wrapped.bytes()).cloned()
    }

    fn is_closed(&self) -> bool {
        self.kms.describe(&Kek::latest(KEK)).map_or(true, |info| !info.enabled)
    }
}

impl KeyProvider for Flawed {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        let kek = if self.flaw == Flaw::IgnoresPin { &Kek::latest(kek.name()) } else { kek };
        let honest = self.kms.wrap(kek, context, secret);
        let wrapped = match self.flaw {
            Flaw::SaysTransientOfUnknownKey => honest.map_err(|_| ProviderError::transient("flawed"))?,
            Flaw::ShowsTheSecret => {
                let honest = honest?;
                let bytes = [honest.bytes(), &secret.expose()[24..]].concat();
                relabelled(&honest, honest.kek(), honest.version(), bytes)
            }
            Flaw::NamesAnotherKek => {
                let honest = honest?;
                let another = self.authority().uri_of("another")?;
                relabelled(&honest, &another, honest.version(), honest.bytes().to_vec())
            }
            _ => honest?,
        };
        let made = Made { version: wrapped.version().clone(), context: *context, input: *secret.expose() };
        self.made.lock().unwrap().insert(wrapped.bytes().to_vec(), made);
        Ok(wrapped)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let made = self.made(wrapped);
        let with_version = |version: &KekVersion| {
            let named = relabelled(wrapped, wrapped.kek(), version, wrapped.bytes().to_vec());
            self.kms.unwrap(&named, context)
        };
        let with_kek = |name: &str| {
            let kek = self.kms.authority().uri_of(name)?;
            let bytes = wrapped.bytes()[..HANDLE].to_vec();
            self.kms.unwrap(&relabelled(wrapped, &kek, wrapped.version(), bytes), context)
        };
        let honest = self.kms.unwrap(wrapped, context);
        match (self.flaw, made) {
            (Flaw::IgnoresContext, Some(made)) => self.kms.unwrap(wrapped, &made.context),
            (Flaw::AdaptsContext, Some(made)) => {
                let input = self.kms.unwrap(wrapped, &made.context)?;
                Ok(context.input(input.secret_for(&made.context).expect("made for it")))
            }
            (Flaw::UnwrapsWithLatest, _) => with_version(&self.kms.describe(&Kek::latest(KEK))?.version),
            (Flaw::UnwrapsWithAnyVersion, Some(made)) => with_version(&made.version),
            (Flaw::SaysTransientOfRefusal, _) => honest.map_err(|error| match error.class() {
                ErrorClass::Refused(_) => ProviderError::transient("flawed"),
                _ => error,
            }),
            (Flaw::SaysRefusedOfTampering, None) => {
                honest.map_err(|_| ProviderError::refused(Refusal::KeyDisabled, "flawed"))
            }
            (Flaw::SaysTransientOfTampering, None) => honest.map_err(|_| ProviderError::transient("flawed")),
            (Flaw::AcceptsTampering, None) => Ok(context.input(&[0; 32])),
            (Flaw::FollowsForeignUri, _) if self.kms.authority().name_of(wrapped.kek()).is_err() => {
                with_kek(KEK)
            }
            (Flaw::NamesAnotherKek | Flaw::ShowsTheSecret, Some(_)) => with_kek(KEK),
            (Flaw::ServesClosed, Some(made)) if self.is_closed() => WrapInput::from_slice(&made.input),
            (Flaw::StaysClosed, _) => {
                let closed =
                    self.was_closed.fetch_or(self.is_closed(), Ordering::Relaxed) || self.is_closed();
                if closed { Err(ProviderError::refused(Refusal::KeyDisabled, "flawed")) } else { honest }
            }
            (Flaw::ServesOneThreadOnly, _) if thread::current().id() != self.home => {
                Err(ProviderError::transient("flawed"))
            }
            (Flaw::GivesAnotherAek, Some(made)) => honest.map(|_| made.context.input(&[0; 32])),
            _ => honest,
        }
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        assert!(self.flaw != Flaw::PanicsInDescribe, "flawed");
        let mut info = self.kms.describe(kek)?;
        match self.flaw {
            Flaw::DescribesAnotherKek => info.uri = self.authority().uri_of("another")?,
            Flaw::DescribesDisabledAsEnabled => info.enabled = true,
            _ => {}
        }
        Ok(info)
    }

    fn authority(&self) -> Authority {
        let honest = self.kms.authority();
        match self.flaw {
            Flaw::ChangesAuthority => {
                let count = self.authorities.fetch_add(1, Ordering::Relaxed);
                honest.with_credential_name(count.to_string())
            }
            _ => honest,
        }
    }
}

fn relabelled(wrapped: &Wrapped, kek: &KekUri, version: &KekVersion, bytes: Vec<u8>) -> Wrapped {
    Wrapped::new(kek.clone(), version.clone(), wrapped.algorithm().clone(), bytes).expect("not empty")
}

fn failed(report: &Report) -> Vec<&'static str> {
    report
        .cases()
        .iter()
        .filter(|case| matches!(case.outcome, CaseOutcome::Failed(_)))
        .map(|case| case.name)
        .collect()
}

/// Length of what a scripted KMS hands out as wrapped.
const HANDLE: usize = 24;
