//! A router over a directory of accounts. Imports: `cache`, `id`, `store::route`, `error` (in its documentation).

use std::fmt;

use super::route::{Route, Router, Routing};
use crate::account::state::Status;
use crate::cache::Directory;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::id::AccountId;

/// Routes each path to an account of a [`Directory`], which attaches it when it is needed. A path of no account is denied.
///
/// An account that was not in use needs a first answer of its KMS. Until then operations fail with
/// [`ErrorKind::NotReady`], or wait if [`Self::wait_until_ready`] says so. An account that is not registered, or
/// cannot be attached, fails the operation with the directory's error.
///
/// ```
/// use strongroom::store::{ByTenant, Router};
/// use strongroom::{AccountId, Directory};
///
/// /// `tenants/<32 hexadecimal digits>/...`
/// fn router(directory: Directory) -> impl Router {
///     let tenant = |path: &str| path.strip_prefix("tenants/")?.split('/').next()?.parse::<AccountId>().ok();
///     ByTenant::new(directory, tenant).wait_until_ready()
/// }
/// ```
#[derive(Clone)]
pub struct ByTenant<F> {
    directory: Directory,
    tenant: F,
    waits: bool,
}

impl<F: Fn(&str) -> Option<AccountId> + Send + Sync + 'static> ByTenant<F> {
    /// Asks `tenant` whose a path is, then `directory` for the account.
    #[must_use]
    pub const fn new(directory: Directory, tenant: F) -> Self {
        Self { directory, tenant, waits: false }
    }

    /// Has an operation wait for an account that has no key yet, as long as [`Account::ready`](crate::Account::ready) does:
    /// while the KMS is silent, that is without an end.
    #[must_use]
    pub const fn wait_until_ready(mut self) -> Self {
        self.waits = true;
        self
    }
}

impl<F: Fn(&str) -> Option<AccountId> + Send + Sync + 'static> Router for ByTenant<F> {
    fn route<'a>(&'a self, path: &'a str) -> Routing<'a> {
        let Some(id) = (self.tenant)(path) else { return Route::Deny.into() };
        let attached = self.directory.begin_account(id);
        Routing::later(async move {
            let account = attached.await?;
            if self.waits && account.status() == Status::NotReady {
                account.ready().await?;
            }
            Ok(Route::sealed(account))
        })
    }
}

impl<F> fmt::Debug for ByTenant<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByTenant")
            .field("directory", &self.directory)
            .field("waits", &self.waits)
            .finish_non_exhaustive()
    }
}
