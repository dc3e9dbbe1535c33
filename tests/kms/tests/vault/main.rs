//! HashiCorp Vault and OpenBao: the provider against the real server, against a broken network, and against answers that
//! were kept.

mod answers;
mod broken;
mod custody;
mod fleet;
mod kept_answers;
mod logins;
mod secrets;
mod server;
mod story;

use strongroom::provider::vault::{Login, SecretText, VaultTransit, VaultTransitBuilder};
use strongroom::provider::{
    ErrorClass, Kek, KekVersion, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped,
};
use strongroom::{AccountId, Generation};

/// What is wrapped in these tests.
fn secret() -> WrapInput {
    WrapInput::from_slice(&[0x5A; WrapInput::LEN]).unwrap()
}

fn context() -> WrapContext {
    WrapContext::for_tests(AccountId::from_bytes([7; 16]), Generation::FIRST)
}

/// A provider with a token that it was given.
fn with_token(url: &str, token: &str) -> VaultTransitBuilder {
    VaultTransit::builder(url, Login::token(SecretText::new(token)))
}

fn connect(url: &str, token: &str) -> VaultTransit {
    with_token(url, token).build().unwrap()
}

fn wrap(kms: &VaultTransit, key: &str) -> Result<Wrapped, ProviderError> {
    kms.wrap(&Kek::latest(key), &context(), &secret())
}

fn unwrap(kms: &VaultTransit, wrapped: &Wrapped) -> Result<(), ProviderError> {
    let unwrapped = kms.unwrap(wrapped, &context())?;
    assert_eq!(unwrapped.expose(), secret().expose());
    Ok(())
}

/// The class of a failure; panics at a success.
fn class<T>(answer: Result<T, ProviderError>) -> ErrorClass {
    answer.err().expect("a failure").class()
}

fn version(text: &str) -> KekVersion {
    KekVersion::new(text).unwrap()
}
