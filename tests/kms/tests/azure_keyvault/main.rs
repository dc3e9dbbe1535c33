//! Azure Key Vault and Managed HSM: the provider against a server of their REST surface, over TLS and under their names.

mod classification;
mod credentials;
mod safety;
mod service;
mod silence;
mod story;
mod substitution;

use std::sync::Arc;

use strongroom::provider::{ErrorClass, Kek, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped};
use strongroom::{AccountId, Generation, Refusal};

/// The key that tests use.
const NAME: &str = "orders";
const REFUSED_DISABLED: ErrorClass = ErrorClass::Refused(Refusal::KeyDisabled);
const REFUSED_GONE: ErrorClass = ErrorClass::Refused(Refusal::KeyGone);
const REFUSED_CREDENTIAL: ErrorClass = ErrorClass::Refused(Refusal::CredentialRejected);
const REFUSED_PERMISSION: ErrorClass = ErrorClass::Refused(Refusal::PermissionRemoved);

/// A wrap, and what was wrapped.
struct Sample {
    context: WrapContext,
    secret: WrapInput,
    wrapped: Wrapped,
}

impl Sample {
    fn wrap(provider: &Arc<dyn KeyProvider>) -> Self {
        Self::under(provider, &Kek::latest(NAME))
    }

    fn under(provider: &Arc<dyn KeyProvider>, kek: &Kek) -> Self {
        let (context, secret) = parts();
        let wrapped = provider.wrap(kek, &context, &secret).expect("wraps");
        Self { context, secret, wrapped }
    }

    fn unwrap(&self, provider: &Arc<dyn KeyProvider>) -> Result<(), ProviderError> {
        let unwrapped = provider.unwrap(&self.wrapped, &self.context)?;
        assert_eq!(unwrapped.expose(), self.secret.expose());
        Ok(())
    }

    fn refused(&self, provider: &Arc<dyn KeyProvider>) -> ProviderError {
        self.unwrap(provider).expect_err("is refused")
    }
}

fn parts() -> (WrapContext, WrapInput) {
    let context = WrapContext::for_tests(AccountId::random(), Generation::FIRST);
    let mut bytes = [0x5A; WrapInput::LEN];
    bytes[..16].copy_from_slice(context.account().as_bytes());
    (context, WrapInput::from_slice(&bytes).expect("of its length"))
}
