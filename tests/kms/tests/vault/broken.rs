//! A network that breaks, and TLS.

use std::time::{Duration, Instant};

use strongroom::provider::ErrorClass::{Integrity, Misconfigured, Transient};
use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{ErrorClass, Kek, KeyProvider};
use strongroom_kms_tests::canned::answer;
use strongroom_kms_tests::openbao::{OpenBao, OpenBaoTls};
use strongroom_kms_tests::proxy::{Mode, Proxy};

use crate::{class, connect, unwrap, with_token, wrap};

#[test]
fn whatever_breaks_on_the_way_is_transient_and_over_in_time() {
    let bao = OpenBao::start();
    bao.create_key("orders");
    let proxy = Proxy::before(bao.address());
    let short = (Duration::from_millis(500), Duration::from_secs(1));
    let kms = with_token(&proxy.url(), bao.root_token()).timeouts(short.0, short.1).build().unwrap();
    let wrapped = wrap(&kms, "orders").unwrap();
    let slowest = short.1 + Duration::from_millis(300);
    let html = answer(403, &[("Content-Type", "text/html")], "<html>forbidden</html>");
    for (mode, expected) in [
        (Mode::Refuse, Transient),
        (Mode::Hang, Transient),
        (Mode::Delay(Duration::from_secs(2)), Transient),
        (Mode::Garble, Transient),
        (Mode::Cut(0), Transient),
        (Mode::Cut(20), Transient),
        (Mode::Cut(200), Transient),
        (Mode::Answer(b"\0\0\0".to_vec()), Transient),
        (Mode::Answer(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), Transient),
        (Mode::Answer(html), Transient),
        // What Vault said, and cannot have said.
        (Mode::GarbleBody, Integrity),
        (Mode::Answer(answer(200, &[], "{}")), Integrity),
    ] {
        proxy.set(mode.clone());
        for _ in 0..2 {
            let begun = Instant::now();
            let got = class(unwrap(&kms, &wrapped));
            assert_eq!(got, expected, "{mode:?}");
            assert!(begun.elapsed() < slowest, "{mode:?}: {:?}", begun.elapsed());
        }
        proxy.set(Mode::Pass);
        unwrap(&kms, &wrapped).unwrap_or_else(|error| panic!("after {mode:?}: {error}"));
    }
}

#[test]
fn a_slow_answer_within_the_time_is_an_answer() {
    let bao = OpenBao::start();
    bao.create_key("orders");
    let proxy = Proxy::before(bao.address());
    let kms = connect(&proxy.url(), bao.root_token());
    let wrapped = wrap(&kms, "orders").unwrap();
    proxy.set(Mode::Delay(Duration::from_millis(500)));
    let begun = Instant::now();
    unwrap(&kms, &wrapped).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500));
    // Three requests, each slow, are more than a call may take: it ends all the same.
    proxy.set(Mode::Delay(Duration::from_millis(1500)));
    let begun = Instant::now();
    let fresh = connect(&proxy.url(), bao.root_token());
    assert_eq!(class(wrap(&fresh, "orders")), Transient);
    assert!(begun.elapsed() < Duration::from_millis(4300), "{:?}", begun.elapsed());
}

#[test]
fn connections_are_kept_and_used_again() {
    let bao = OpenBao::start();
    bao.create_key("orders");
    let proxy = Proxy::before(bao.address());
    let kms = connect(&proxy.url(), bao.root_token());
    let direct = connect(&bao.url(), bao.root_token());
    let wrapped = wrap(&direct, "orders").unwrap();
    for _ in 0..10 {
        unwrap(&kms, &wrap(&kms, "orders").unwrap()).unwrap();
    }
    assert_eq!(proxy.connections(), 1);
    // For docs/PROVIDERS.md.
    let begun = Instant::now();
    for _ in 0..CALLS {
        unwrap(&direct, &wrapped).unwrap();
    }
    println!(
        "measured | OpenBao: unwrap | {:.2} ms of {CALLS}",
        begun.elapsed().as_secs_f64() * 1e3 / f64::from(CALLS)
    );
}

#[test]
fn nobody_there_is_transient() {
    let nobody = format!("http://127.0.0.1:{}", strongroom_kms_tests::process::free_port());
    assert_eq!(class(connect(&nobody, "s.x").describe(&Kek::latest("orders"))), Transient);
    let unknown = with_token("https://strongroom.invalid:8200", "s.x");
    let kms = unknown.ca_certificates(CA).build().unwrap();
    assert_eq!(class(kms.describe(&Kek::latest("orders"))), Transient);
}

#[test]
fn tls_trusts_the_ca_that_was_given_and_no_other() {
    let bao = OpenBaoTls::start();
    let trusting = with_token(&bao.url(), OpenBaoTls::TOKEN).ca_certificates(bao.ca()).build().unwrap();
    let wrapped = wrap(&trusting, "orders").unwrap();
    unwrap(&trusting, &wrapped).unwrap();

    let other = OpenBaoTls::start();
    let foreign = with_token(&bao.url(), OpenBaoTls::TOKEN).ca_certificates(other.ca()).build().unwrap();
    let error = unwrap(&foreign, &wrapped).unwrap_err();
    assert_eq!(error.class(), Transient);
    assert!(error.message().contains("TLS with Vault failed"), "{error}");
    // By a name that is not in its certificate.
    let address = format!("https://127.0.0.2:{}", bao.address().port());
    let misnamed = with_token(&address, OpenBaoTls::TOKEN).ca_certificates(bao.ca()).build().unwrap();
    assert_eq!(class(misnamed.describe(&Kek::latest("orders"))), Transient);
    // HTTP in the clear to a TLS port: an answer in HTML or none.
    let plain = connect(&format!("http://{}", bao.address()), OpenBaoTls::TOKEN);
    assert_ne!(class(plain.describe(&Kek::latest("orders"))), Integrity);
}

#[test]
fn tls_that_breaks_is_transient() {
    let bao = OpenBaoTls::start();
    let proxy = Proxy::before(bao.address());
    let url = format!("https://{}", proxy.address());
    let builder = with_token(&url, OpenBaoTls::TOKEN).ca_certificates(bao.ca());
    let kms = builder.timeouts(Duration::from_millis(500), Duration::from_secs(1)).build().unwrap();
    let wrapped = wrap(&kms, "orders").unwrap();
    for mode in [Mode::Refuse, Mode::Hang, Mode::Garble, Mode::Cut(0), Mode::Cut(100), Mode::Cut(300)] {
        proxy.set(mode.clone());
        let begun = Instant::now();
        // The second one has no connection that was kept: the handshake breaks.
        let classes = [class(unwrap(&kms, &wrapped)), class(unwrap(&kms, &wrapped))];
        assert_eq!(classes, [Transient; 2], "{mode:?}");
        assert!(begun.elapsed() < Duration::from_millis(2600), "{mode:?}: {:?}", begun.elapsed());
        proxy.set(Mode::Pass);
        unwrap(&kms, &wrapped).unwrap_or_else(|error| panic!("after {mode:?}: {error}"));
    }
}

#[test]
fn a_client_certificate_is_shown() {
    let bao = OpenBaoTls::start();
    let (chain, key) = bao.server_certificate();
    let builder = with_token(&bao.url(), OpenBaoTls::TOKEN).ca_certificates(bao.ca());
    let kms = builder.clone().client_certificate(chain.clone(), SecretText::new(key)).build().unwrap();
    unwrap(&kms, &wrap(&kms, "orders").unwrap()).unwrap();
    let other_key = SecretText::new(OpenBaoTls::start().server_certificate().1);
    let mismatch = builder.client_certificate(chain, other_key).build().unwrap_err();
    assert_eq!(mismatch.class(), Misconfigured);
}

#[test]
fn what_cannot_work_is_said_when_it_is_set_up() {
    let login = || Login::token(SecretText::new("s.x"));
    let start = || VaultTransit::builder("https://vault.example:8200", login()).ca_certificates(CA);
    start().build().unwrap();
    let no_key = SecretText::new("-----BEGIN NOTHING-----");
    for (what, wrong) in [
        ("an address without a scheme", VaultTransit::builder("vault.example:8200", login())),
        ("HTTP in the clear", VaultTransit::builder("http://vault.example:8200", login())),
        ("no PEM", start().ca_certificates("nothing")),
        ("an empty CA file", start().ca_certificates("")),
        ("a CA file that is none", start().ca_certificates(CA.replace("MII", "AAA"))),
        ("no key", start().client_certificate(CA, no_key)),
        ("a mount that leads elsewhere", start().mount("../sys")),
        ("no mount", start().mount("")),
        ("a namespace that leads elsewhere", start().namespace("a/../b")),
        ("no time", start().timeouts(Duration::ZERO, Duration::from_secs(1))),
        ("too much time", start().timeouts(Duration::from_secs(1), Duration::from_secs(61))),
        ("less for the call", start().timeouts(Duration::from_secs(2), Duration::from_secs(1))),
    ] {
        assert_eq!(class(wrong.build()), ErrorClass::Misconfigured, "{what}");
    }
    VaultTransit::builder("http://vault.example:8200", login()).allow_plaintext_http().build().unwrap();
    // A login's mount is a path too.
    let wrong = VaultTransit::builder("https://vault.example", Login::kubernetes("r").at_mount("../x"));
    assert_eq!(class(wrong.ca_certificates(CA).build()), Misconfigured);
}

const CALLS: u32 = 200;

/// A CA's certificate that signed nothing here.
const CA: &str = "-----BEGIN CERTIFICATE-----
MIIBOTCB4KADAgECAgEBMAoGCCqGSM49BAMCMBsxGTAXBgNVBAMMEHN0cm9uZ3Jv
b20gdGVzdHMwIBcNMjYwMTAxMDAwMDAwWhgPMjEyNjAxMDEwMDAwMDBaMBsxGTAX
BgNVBAMMEHN0cm9uZ3Jvb20gdGVzdHMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQB3p+KBTlSSkp7kddvf3MOYwJtCTziv01r4iHyyU6hMcqxay7nwEX+nibAbKBS
Ij47/ZO1bMafttl5fo4HQ6AioxMwETAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49
BAMCA0gAMEUCICJtXPzyFggG6nRwQWWj2v58KDhRl39pYGsGvbBCdfaQAiEAsz25
nkJPzyYhkI/3REfNvvhROIJynYpMG0N7bxF4fSc=
-----END CERTIFICATE-----";
