//! A provider call as the control plane makes it: awaited, whichever form the provider has. Imports: `provider`.
//!
//! A synchronous provider runs inside of the poll, on one of the library's own threads, and may block there. An
//! asynchronous one runs on its runtime, and no thread waits for it.

#![allow(dead_code)] // Used by the executor, next.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::{Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped};

/// The asynchronous form of a provider, which only this crate makes.
#[derive(Clone, Copy)]
#[doc(hidden)]
pub struct Asynchronous<'a>(pub(crate) &'a dyn Calls);

/// The calls of [`KeyProvider`] as futures that need nothing of whoever polls them.
pub(crate) trait Calls: Send + Sync {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Answer<Wrapped>;
    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Answer<WrapInput>;
    fn describe(&self, kek: &Kek) -> Answer<KekInfo>;
}

/// An answer on its way. Dropping it gives the call up.
pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send>>;

pub(crate) async fn wrap(
    provider: &dyn KeyProvider,
    kek: &Kek,
    context: &WrapContext,
    secret: &WrapInput,
) -> Result<Wrapped, ProviderError> {
    match provider.asynchronous() {
        Some(Asynchronous(calls)) => calls.wrap(kek, context, secret).await,
        None => provider.wrap(kek, context, secret),
    }
}

pub(crate) async fn unwrap(
    provider: &dyn KeyProvider,
    wrapped: &Wrapped,
    context: &WrapContext,
) -> Result<WrapInput, ProviderError> {
    match provider.asynchronous() {
        Some(Asynchronous(calls)) => calls.unwrap(wrapped, context).await,
        None => provider.unwrap(wrapped, context),
    }
}

pub(crate) async fn describe(provider: &dyn KeyProvider, kek: &Kek) -> Result<KekInfo, ProviderError> {
    match provider.asynchronous() {
        Some(Asynchronous(calls)) => calls.describe(kek).await,
        None => provider.describe(kek),
    }
}

impl fmt::Debug for Asynchronous<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asynchronous(..)")
    }
}
