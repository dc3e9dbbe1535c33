//! Who asks: permissions, access keys, signatures and sessions, at ministack, which checks them all.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use aws_credential_types::provider::future;
use aws_sdk_kms::config::{Credentials, ProvideCredentials};
use strongroom::Refusal;
use strongroom::provider::{ErrorClass, Kek, KeyProvider, PreflightStep, Verdict, Wrapped, preflight};
use strongroom_kms_tests::ministack;

use super::{Sync, connect, context, input, provider_of, shared};

fn wrap(kms: &dyn KeyProvider, kek: &Kek) -> Wrapped {
    kms.wrap(kek, &context(), &input()).expect("wraps")
}

fn refused(kms: &dyn KeyProvider, wrapped: &Wrapped, refusal: Refusal) {
    let error = kms.unwrap(wrapped, &context()).expect_err("is refused");
    assert_eq!(error.class(), ErrorClass::Refused(refusal), "{error}");
}

fn signed_by(credentials: impl ProvideCredentials + 'static) -> Sync {
    provider_of(ministack::config(&shared().url(), credentials))
}

#[test]
fn aws_permission_that_is_removed_is_refused_until_it_is_restored() {
    let server = shared();
    let kms = signed_by(server.user("permitted"));
    let kek = Kek::latest(server.keys().create());
    let all = ["kms:DescribeKey", "kms:Encrypt", "kms:Decrypt"];
    server.allow("permitted", &all);
    assert_eq!(preflight(&kms, &kek).verdict(), Verdict::Ready, "least privilege is enough");
    let wrapped = wrap(&kms, &kek);

    server.allow("permitted", &["kms:DescribeKey", "kms:Encrypt"]);
    refused(&kms, &wrapped, Refusal::PermissionRemoved);
    server.allow("permitted", &all);
    drop(kms.unwrap(&wrapped, &context()).expect("is served again"));
    server.allow("permitted", &[]);
    refused(&kms, &wrapped, Refusal::PermissionRemoved);
}

#[test]
fn b9_aws_preflight_tells_which_permission_is_missing() {
    let server = shared();
    let kms = signed_by(server.user("preflight"));
    let kek = Kek::latest(server.keys().create());
    let without = |missing: &str| {
        let all = ["kms:DescribeKey", "kms:Encrypt", "kms:Decrypt"];
        let rest: Vec<&str> = all.into_iter().filter(|action| *action != missing).collect();
        server.allow("preflight", &rest);
        preflight(&kms, &kek)
    };
    for (missing, step) in [
        ("kms:DescribeKey", PreflightStep::Get),
        ("kms:Encrypt", PreflightStep::Wrap),
        // A wrap is decrypted once, for the name of the key material.
        ("kms:Decrypt", PreflightStep::Wrap),
    ] {
        let report = without(missing);
        assert_eq!(report.verdict(), Verdict::Refused(step, Refusal::PermissionRemoved), "{missing}");
        assert!(report.to_string().contains(&format!("{missing}: AccessDeniedException")), "{report}");
    }
}

#[test]
fn aws_an_access_key_out_of_use_is_rejected_until_it_is_back() {
    let server = shared();
    let credentials = server.user("retired");
    server.allow("retired", &["kms:*"]);
    let kms = signed_by(credentials.clone());
    let wrapped = wrap(&kms, &Kek::latest(server.keys().create()));
    server.set_access_key("retired", &credentials, false);
    refused(&kms, &wrapped, Refusal::CredentialRejected);
    server.set_access_key("retired", &credentials, true);
    drop(kms.unwrap(&wrapped, &context()).expect("is served again"));
}

#[test]
fn aws_a_wrong_secret_key_is_a_rejected_credential() {
    let server = shared();
    let wrapped = wrap(connect().as_ref(), &Kek::latest(server.keys().create()));
    let good = server.user("mistaken");
    let wrong = Credentials::new(good.access_key_id(), "not-the-secret-key", None, None, "test");
    refused(&signed_by(wrong), &wrapped, Refusal::CredentialRejected);
}

/// Sessions that end before the SDK would expect it: it keeps them in its cache.
#[derive(Clone, Debug)]
struct Sessions(Arc<Mutex<Vec<Credentials>>>);

impl ProvideCredentials for Sessions {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let mut left = self.0.lock().unwrap();
        let next = if left.len() > 1 { left.remove(0) } else { left[0].clone() };
        future::ProvideCredentials::ready(Ok(next))
    }
}

#[test]
fn aws_an_expired_session_is_renewed_once_and_refused_when_the_new_one_is_expired_too() {
    let server = shared();
    let (short, long) = (server.session(Duration::from_secs(4)), server.session(Duration::from_secs(900)));
    let kek = Kek::latest(server.keys().create());
    let renewed = signed_by(Sessions(Arc::new(Mutex::new(vec![short.clone(), long]))));
    let stuck = signed_by(Sessions(Arc::new(Mutex::new(vec![short]))));
    let wrapped = wrap(&renewed, &kek);
    drop(stuck.unwrap(&wrapped, &context()).expect("is not expired yet"));
    thread::sleep(Duration::from_secs(5));
    drop(renewed.unwrap(&wrapped, &context()).expect("the second session is asked for by itself"));
    refused(&stuck, &wrapped, Refusal::CredentialRejected);
}
