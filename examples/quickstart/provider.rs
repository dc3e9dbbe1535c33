//! How a provider is written: three calls and a name. This one passes everything on to a [`LocalKms`],
//! until it is told to fall silent.

use std::sync::atomic::{AtomicBool, Ordering};

use strongroom::provider::{
    Authority, Kek, KekInfo, KeyProvider, LocalKms, ProviderError, WrapContext, WrapInput, Wrapped,
};

use crate::memory::MaskedAek;

/// A KMS whose network can be cut.
#[derive(Debug)]
pub(crate) struct FlakyKms {
    kms: LocalKms,
    silent: AtomicBool,
    /// What the memory scan will look for. Only this example does that: a provider keeps no AEK.
    pub(crate) seen: MaskedAek,
}

impl FlakyKms {
    pub(crate) fn new(kms: LocalKms) -> Self {
        Self { kms, silent: AtomicBool::new(false), seen: MaskedAek::new() }
    }

    /// From now on it does not answer, or it does again.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// The class of an error decides about the customer's data. No answer is *transient*: service goes
    /// on within its bounds. Only an answer that says no is *refused*.
    fn reach(&self) -> Result<(), ProviderError> {
        if self.silent.load(Ordering::Relaxed) {
            return Err(ProviderError::transient("the network is cut"));
        }
        Ok(())
    }
}

impl KeyProvider for FlakyKms {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.reach()?;
        self.kms.wrap(kek, context, secret)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.reach()?;
        let secret = self.kms.unwrap(wrapped, context)?;
        self.seen.remember(&secret);
        Ok(secret)
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.reach()?;
        self.kms.describe(kek)
    }

    /// Accounts of equal authority share a circuit breaker; this is the KMS's name in records, too.
    fn authority(&self) -> Authority {
        self.kms.authority()
    }
}
