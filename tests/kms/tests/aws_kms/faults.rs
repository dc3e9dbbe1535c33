//! A server that stops, stalls, is slow or talks nonsense, through a proxy that breaks connections.

use std::time::{Duration, Instant};

use strongroom::provider::aws_kms::AwsKms;
use strongroom::provider::{ErrorClass, Kek, KeyProvider, OnTokio, Wrapped};
use strongroom_kms_tests::ministack::{self, Ministack};
use strongroom_kms_tests::proxy::{Mode, Proxy};

use super::{Sync, context, input, provider, shared};

/// A provider whose calls end after two seconds.
fn patient(url: &str) -> Sync {
    let client = aws_sdk_kms::Client::from_conf(ministack::config(url, ministack::root()).build());
    OnTokio::with_own_runtime(AwsKms::new(&client).unwrap().timeout(LIMIT)).unwrap()
}

struct Subject {
    proxy: Proxy,
    kms: Sync,
    kek: Kek,
    wrapped: Wrapped,
}

impl Subject {
    fn new() -> Self {
        let proxy = Proxy::before(shared().address());
        let kms = patient(&proxy.url());
        let kek = Kek::latest(shared().keys().create());
        let wrapped = kms.wrap(&kek, &context(), &input()).unwrap();
        Self { proxy, kms, kek, wrapped }
    }

    /// In this mode every call fails in this class and in time; back in order, all is well again.
    fn fails_in(&self, mode: Mode, class: ErrorClass) {
        self.proxy.set(mode.clone());
        let began = Instant::now();
        let errors = [
            self.kms.unwrap(&self.wrapped, &context()).map(drop).unwrap_err(),
            self.kms.wrap(&self.kek, &context(), &input()).map(drop).unwrap_err(),
            self.kms.describe(&self.kek).map(drop).unwrap_err(),
        ];
        assert!(began.elapsed() < LIMIT * 3 + Duration::from_secs(1), "{mode:?}: {:?}", began.elapsed());
        for error in errors {
            assert_eq!(error.class(), class, "{mode:?}: {error}");
        }
        self.proxy.set(Mode::Pass);
        self.works();
    }

    fn works(&self) {
        let secret = self.kms.unwrap(&self.wrapped, &context()).expect("all is well again");
        assert_eq!(secret.expose(), input().expose());
    }
}

#[test]
fn aws_refused_connections_are_transient() {
    Subject::new().fails_in(Mode::Refuse, ErrorClass::Transient);
}

#[test]
fn b11_aws_a_server_that_hangs_ends_each_call_in_time_and_is_transient() {
    Subject::new().fails_in(Mode::Hang, ErrorClass::Transient);
}

#[test]
fn aws_answers_that_break_off_are_transient() {
    let subject = Subject::new();
    // In the status line, in a header, in the body.
    for length in [0, 10, 120, 700] {
        subject.fails_in(Mode::Cut(length), ErrorClass::Transient);
    }
}

#[test]
fn aws_garbage_instead_of_http_is_transient() {
    let subject = Subject::new();
    subject.fails_in(Mode::Garble, ErrorClass::Transient);
    subject.fails_in(Mode::Answer(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), ErrorClass::Transient);
}

#[test]
fn aws_garbage_in_the_body_of_a_success_is_integrity() {
    Subject::new().fails_in(Mode::GarbleBody, ErrorClass::Integrity);
}

#[test]
fn aws_a_slow_server_is_waited_for_and_a_slower_one_is_not() {
    let subject = Subject::new();
    subject.proxy.set(Mode::Delay(Duration::from_millis(300)));
    subject.works();
    subject.fails_in(Mode::Delay(LIMIT * 2), ErrorClass::Transient);
}

#[test]
fn b11_aws_all_requests_of_a_call_share_its_time() {
    let subject = Subject::new();
    // A wrap takes three: each in time, together not.
    subject.proxy.set(Mode::Delay(LIMIT * 45 / 100));
    let began = Instant::now();
    let error = subject.kms.wrap(&subject.kek, &context(), &input()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(began.elapsed() < LIMIT + Duration::from_millis(500), "{:?}", began.elapsed());
}

#[test]
fn aws_nobody_there_is_transient() {
    let nobody = format!("http://127.0.0.1:{}", strongroom_kms_tests::process::free_port());
    let unknown = "http://strongroom.invalid:80";
    let wrapped = super::canned_wrap();
    for url in [nobody.as_str(), unknown] {
        let error = patient(url).unwrap(&wrapped, &context()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{url}: {error}");
    }
}

#[test]
fn aws_a_server_that_stops_is_transient_and_works_when_it_starts_again() {
    let mut server = Ministack::start();
    let kms = provider(&server.url());
    let wrapped = kms.wrap(&Kek::latest(server.keys().create()), &context(), &input()).unwrap();
    server.stop();
    let error = kms.unwrap(&wrapped, &context()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    server.start_again();
    let secret = kms.unwrap(&wrapped, &context()).expect("the keys are still there");
    assert_eq!(secret.expose(), input().expose());
}

const LIMIT: Duration = Duration::from_secs(2);
