//! From a path to the account that its object is sealed under. Imports: `account`, `format::object`, `store::scope`.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_util::future::BoxFuture;

use crate::account::Account;
use crate::format::object::Context;
use crate::store::scope::Scope;

/// Decides which account an object of a [`SealedStore`](crate::store::SealedStore) belongs to, by its path (contract G1).
///
/// It is asked once for each operation on an object, twice for a copy, and not by listings. Its answer is all that stands
/// between tenants on the way in: a path that it gives to a tenant is sealed under that tenant's key. On the way out the
/// object itself has to agree: one of another account does not open.
///
/// [`OneAccount`], [`ByPrefix`] and [`ByTenant`](crate::store::ByTenant) are routers, and so is every `Fn(&str) -> Route`.
///
/// ```
/// # use strongroom::Account;
/// use strongroom::store::{ByPrefix, Route, Router};
///
/// fn routers(ada: Account, bob: Account) -> (impl Router, impl Router) {
///     let by_prefix = ByPrefix::new().with("tenants/ada", Route::sealed(ada.clone())).with("tenants/bob", Route::sealed(bob));
///     let by_name = move |path: &str| match path.ends_with(".parquet") {
///         true => Route::sealed(ada.clone()),
///         false => Route::Deny,
///     };
///     (by_prefix, by_name)
/// }
/// ```
pub trait Router: Send + Sync + 'static {
    /// The route of the object at `path`, which has no slash at either end.
    ///
    /// A future, so that a router may look the account up; it must not block. When it fails the operation fails, and
    /// nothing was read or written.
    fn route<'a>(&'a self, path: &'a str) -> Routing<'a>;
}

impl<F: Fn(&str) -> Route + Send + Sync + 'static> Router for F {
    fn route<'a>(&'a self, path: &'a str) -> Routing<'a> {
        self(path).into()
    }
}

/// A [`Router`]'s answer, at once or later.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Routing<'a>(Answer<'a>);

enum Answer<'a> {
    /// Taken when it is given out.
    Now(Option<Route>),
    Later(BoxFuture<'a, Result<Route, Box<dyn StdError + Send + Sync>>>),
}

impl<'a> Routing<'a> {
    /// The answer that `future` comes to. Its error becomes the source of the operation's.
    pub fn later(
        future: impl Future<Output = Result<Route, Box<dyn StdError + Send + Sync>>> + Send + 'a,
    ) -> Self {
        Self(Answer::Later(Box::pin(future)))
    }
}

impl From<Route> for Routing<'_> {
    fn from(route: Route) -> Self {
        Self(Answer::Now(Some(route)))
    }
}

impl Future for Routing<'_> {
    type Output = Result<Route, Box<dyn StdError + Send + Sync>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Now(route) => {
                Poll::Ready(Ok(route.take().expect("a future is not polled after its end")))
            }
            Answer::Later(future) => future.as_mut().poll(context),
        }
    }
}

impl fmt::Debug for Routing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Routing(..)")
    }
}

/// What a [`Router`] decides for a path.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Route {
    /// Objects there are sealed under this account.
    #[non_exhaustive]
    Sealed {
        /// Whose key.
        account: Account,
        /// What else an object is bound to.
        binding: Binding,
    },
    /// New objects there are sealed under the account that the scope's writes go to now; each is read under the one that it
    /// names, if that is one of the scope's (contract E9).
    #[non_exhaustive]
    Scoped {
        /// Whose keys.
        scope: Scope,
        /// What else an object is bound to.
        binding: Binding,
    },
    /// Nothing is written there, read from there, or deleted: `PermissionDenied`.
    Deny,
}

impl Route {
    /// Sealed under `account`, bound to where it lies.
    #[must_use]
    pub const fn sealed(account: Account) -> Self {
        Self::Sealed { account, binding: Binding::Location }
    }

    /// Sealed under `account`, bound to `context` in the place of where it lies.
    ///
    /// Objects with one context can stand in for one another: whoever can write to the storage can exchange
    /// them, and no reader notices. In return, a copy or rename between paths of one account and one context is left to the
    /// storage and costs one request. Right for objects whose own content says what they are.
    #[must_use]
    pub const fn sealed_in(account: Account, context: Context) -> Self {
        Self::Sealed { account, binding: Binding::Context(context) }
    }

    /// Sealed under an account of `scope`, bound to where it lies. A copy and a rename are new data: they are sealed anew.
    #[must_use]
    pub const fn scoped(scope: Scope) -> Self {
        Self::Scoped { scope, binding: Binding::Location }
    }

    /// The same, bound to `context` in the place of where it lies.
    #[must_use]
    pub const fn scoped_in(scope: Scope, context: Context) -> Self {
        Self::Scoped { scope, binding: Binding::Context(context) }
    }
}

/// What an object is bound to, beside its account: elsewhere it does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binding {
    /// The store's id and the object's path: [`Context::new`] of these two parts.
    Location,
    /// A context of the router's choice.
    Context(Context),
}

impl Binding {
    /// The context of the object at `path` in the store called `store`.
    pub(crate) fn context(&self, store: &str, path: &str) -> Context {
        match self {
            Self::Location => Context::new(&[store.as_bytes(), path.as_bytes()]),
            Self::Context(context) => *context,
        }
    }
}

/// Everything under one account, bound to where it lies.
#[derive(Clone, Debug)]
pub struct OneAccount(Account);

impl OneAccount {
    /// Routes every path to `account`.
    #[must_use]
    pub const fn new(account: Account) -> Self {
        Self(account)
    }
}

impl Router for OneAccount {
    fn route<'a>(&'a self, _: &'a str) -> Routing<'a> {
        Route::sealed(self.0.clone()).into()
    }
}

/// Routes by folder: the longest prefix of whole path segments decides, and without one the path is denied.
#[derive(Clone, Default)]
pub struct ByPrefix {
    routes: BTreeMap<String, Route>,
}

impl ByPrefix {
    /// Denies everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes what lies under `prefix`, and the object of that name. `tenants/ada` does not cover `tenants/adam`; the
    /// empty prefix covers everything. The route of a prefix that is given twice is the later one.
    #[must_use]
    pub fn with(mut self, prefix: &str, route: Route) -> Self {
        self.routes.insert(prefix.trim_matches('/').to_owned(), route);
        self
    }

    fn of(&self, path: &str) -> Route {
        let mut prefix = path;
        loop {
            if let Some(route) = self.routes.get(prefix) {
                return route.clone();
            }
            if prefix.is_empty() {
                return Route::Deny;
            }
            prefix = prefix.rfind('/').map_or("", |at| &prefix[..at]);
        }
    }
}

impl Router for ByPrefix {
    fn route<'a>(&'a self, path: &'a str) -> Routing<'a> {
        self.of(path).into()
    }
}

impl fmt::Debug for ByPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.routes).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::{AccountSpec, AekCache};
    use crate::id::AccountId;
    use crate::provider::Kek;
    use crate::testing::{ManualClock, ScriptedProvider};

    #[test]
    fn the_longest_prefix_of_whole_segments_decides() {
        let context = |name: &str| Context::new(&[name.as_bytes()]);
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        kms.add_key("orders");
        let cache = AekCache::builder().manual(&ManualClock::new()).build().unwrap();
        let account =
            cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest("orders"))).unwrap();
        let route = |name| Route::sealed_in(account.clone(), context(name));
        let router =
            ByPrefix::new().with("/a/", route("a")).with("a/b", route("b")).with("a/b/c", Route::Deny);
        for (path, expected) in [
            ("a", Some("a")),
            ("a/x", Some("a")),
            ("a/bc", Some("a")),
            ("a/b/x/y", Some("b")),
            ("a/b/c/d", None),
            ("ab", None),
            ("", None),
        ] {
            match router.of(path) {
                Route::Sealed { binding: Binding::Context(found), .. } => {
                    assert_eq!(Some(found), expected.map(context), "{path}");
                }
                _ => assert_eq!(None, expected, "{path}"),
            }
        }
    }
}
