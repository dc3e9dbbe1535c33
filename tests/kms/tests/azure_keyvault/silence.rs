//! Silence of every sort is transient, ends by itself, and is over when it is over; what is no answer is an integrity failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::provider::{ErrorClass, Kek, KeyProvider};
use strongroom_kms_tests::canned;
use strongroom_kms_tests::key_vault::{KeyVault, VAULT, own_runtime};
use strongroom_kms_tests::proxy::{Mode, Proxy};

use super::{NAME, Sample};

const CALL: Duration = Duration::from_secs(1);

struct World {
    service: KeyVault,
    proxy: Proxy,
    provider: Arc<dyn KeyProvider>,
    sample: Sample,
}

impl World {
    /// A vault behind a proxy; the login service is reached directly.
    fn new() -> Self {
        let service = KeyVault::start();
        service.create(VAULT, NAME, "RSA");
        let proxy = Proxy::before(service.places().vault);
        let places = service.places().with_vault(proxy.address());
        let provider = own_runtime(places.at_vault().call_timeout(CALL));
        let sample = Sample::wrap(&provider);
        Self { service, proxy, provider, sample }
    }

    fn is_silent(&self, what: &str) {
        let begun = Instant::now();
        let error = self.sample.refused(&self.provider);
        assert_eq!(error.class(), ErrorClass::Transient, "{what}: {error}");
        assert!(begun.elapsed() < CALL * 2, "{what}: ended after {:?}", begun.elapsed());
        let error = self.provider.describe(&Kek::latest(NAME)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{what}: {error}");
    }

    fn is_back(&self) {
        self.proxy.set(Mode::Pass);
        self.sample.unwrap(&self.provider).unwrap();
        self.provider.describe(&Kek::latest(NAME)).unwrap();
    }
}

#[test]
fn azure_every_broken_connection_is_transient_and_heals() {
    let world = World::new();
    for mode in [
        Mode::Refuse,
        Mode::Hang,
        Mode::Garble,
        Mode::Cut(0),
        Mode::Cut(100),
        Mode::Cut(400),
        Mode::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
        Mode::Answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Mode::Answer(vec![0; 4096]),
    ] {
        world.proxy.set(mode.clone());
        // What answers in the clear where TLS is spoken is nobody.
        world.is_silent(&format!("{mode:?}"));
        world.is_back();
    }
}

#[test]
fn azure_slow_answers_are_answers_until_the_call_ends() {
    let world = World::new();
    world.proxy.set(Mode::Delay(CALL / 10));
    world.sample.unwrap(&world.provider).unwrap();
    world.proxy.set(Mode::Delay(CALL * 2));
    world.is_silent("too slow");
    world.is_back();
}

#[test]
fn azure_a_server_that_stops_is_silent_and_starts_again() {
    let mut world = World::new();
    world.service.server().stop();
    world.is_silent("stopped");
    world.service.server().start_again();
    world.is_back();
}

#[test]
fn azure_a_name_that_does_not_resolve_is_transient() {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    let sample = Sample::wrap(&service.vault());
    // A deleted vault is a name that DNS no longer knows. `.invalid` never is (RFC 6761).
    let places = service.places();
    let url = "https://contoso.vault.invalid";
    let credential = places.secret("never asked");
    let builder = strongroom::provider::azure_keyvault::AzureKeyVault::vault(url, credential);
    let builder = builder.client_options(places.options()).allow_host_outside_of_azure();
    let provider = own_runtime(builder);
    let error = provider.describe(&Kek::latest(NAME)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    // The record of another vault is not followed, silent or not.
    assert_eq!(sample.refused(&provider).class(), ErrorClass::Misconfigured);
}

#[test]
fn azure_throttling_is_transient_and_not_retried_within_a_call() {
    let world = World::new();
    drop(world.service.requests());
    world.service.throttle(1);
    let error = world.sample.refused(&world.provider);
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(error.to_string().contains("429: Throttled"), "{error}");
    assert_eq!(world.service.requests().len(), 1);
    world.sample.unwrap(&world.provider).unwrap();
}

#[test]
fn azure_an_answer_longer_than_the_limit_is_an_error_and_not_read_to_its_end() {
    let world = World::new();
    for (status, class) in
        [(200, ErrorClass::Integrity), (403, ErrorClass::Transient), (503, ErrorClass::Transient)]
    {
        let body =
            format!(r#"{{"error":{{"code":"Forbidden"}},"kid":"{}","value":"AA"}}"#, "a".repeat(64 * 1024));
        world.service.answer_with("vault", &canned::answer(status, &[], body), 1);
        let error = world.sample.refused(&world.provider);
        assert_eq!(error.class(), class, "{error}");
        assert_eq!(error.to_string().contains("longer than 64 KiB"), status == 200, "{error}");
    }
    // Without end: the connection is left when the limit is reached, long before the call's end.
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b' '; 8 << 20]].concat();
    world.service.answer_with("vault", &endless, 1);
    assert_eq!(world.sample.refused(&world.provider).class(), ErrorClass::Integrity);
    world.is_back();
}

#[test]
fn azure_garbage_in_place_of_an_answer_never_panics_and_never_refuses() {
    let world = World::new();
    let good = canned::answer(
        200,
        &[],
        r#"{"kid":"https://contoso.vault.azure.net/keys/orders/1a","value":"AQL_"}"#,
    );
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x15;
        world.service.answer_with("vault", &damaged, 1);
        let error = world.sample.refused(&world.provider);
        assert!(
            matches!(error.class(), ErrorClass::Transient | ErrorClass::Integrity),
            "byte {at}: {error}: {}",
            String::from_utf8_lossy(&damaged)
        );
    }
    world.is_back();
}
