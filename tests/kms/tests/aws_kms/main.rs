//! AWS KMS: answers of its own and of two emulators, each for what it does truthfully (contract B4).
//!
//! ministack checks signatures, policies, sessions and the state of keys, but encrypts without authentication, so it
//! notices no flipped byte and no wrong key, and knows no rotation on demand. moto encrypts with AES-GCM and
//! rotates, but serves disabled keys and whoever asks, and names no key material. Neither says `IncorrectKeyException`.

mod answers;
mod conformance;
mod credentials;
mod faults;
mod fixtures;
mod keys;
mod story;

use std::sync::{Arc, OnceLock};

use aws_sdk_kms::config::{Builder, Credentials};
use strongroom::provider::aws_kms::AwsKms;
use strongroom::provider::{
    KekVersion, KeyProvider, OnTokio, WrapAlgorithm, WrapContext, WrapInput, Wrapped,
};
use strongroom::{AccountId, Generation};
use strongroom_kms_tests::ministack::{self, Ministack};

/// The key that canned answers are of.
const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
const MATERIAL: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

type Sync = OnTokio<AwsKms>;

/// A provider whose client talks to `url`.
fn provider(url: &str) -> Sync {
    provider_of(ministack::config(url, ministack::root()))
}

fn provider_of(config: Builder) -> Sync {
    let client = aws_sdk_kms::Client::from_conf(config.build());
    OnTokio::with_own_runtime(AwsKms::new(&client).expect("has a region")).expect("a thread")
}

/// The ministack of all tests that do not stop it: each makes keys of its own. It ends with the process.
fn shared() -> &'static Ministack {
    static SHARED: OnceLock<Ministack> = OnceLock::new();
    SHARED.get_or_init(Ministack::start)
}

/// The root user's provider for it.
fn connect() -> Arc<dyn KeyProvider> {
    Arc::new(provider(&shared().url()))
}

fn marked_credentials() -> Credentials {
    Credentials::new(
        "AKIAMARKEDACCESSKEY0",
        "marked-secret-key",
        Some("marked-session-token".to_owned()),
        None,
        "test",
    )
}

fn context() -> WrapContext {
    WrapContext::for_tests(AccountId::from_bytes([7; 16]), Generation::FIRST)
}

fn input() -> WrapInput {
    WrapInput::from_slice(&[b'x'; WrapInput::LEN]).expect("right length")
}

/// A wrap as a record holds it.
fn wrapped(name: &str, version: &str) -> Wrapped {
    let uri = strongroom::provider::Authority::new("aws-kms", "us-east-1").uri_of(name).expect("fits");
    let version = KekVersion::new(version).expect("fits");
    let algorithm = WrapAlgorithm::new("SYMMETRIC_DEFAULT").expect("fits");
    Wrapped::new(uri, version, algorithm, vec![1; 180]).expect("not empty")
}

/// The wrap that the canned success belongs to.
fn canned_wrap() -> Wrapped {
    wrapped("alias/orders", &format!("{KEY}/{MATERIAL}"))
}
