//! A data scope: its new data goes under a service-managed account or, while it is linked, under a customer's (contract E9).
//!
//! What the scope is at a time stands in its *state*, which is authenticated under the service-managed account and replaced
//! by compare-and-swap. `knowledge` is what this machine knows of it and how it is confirmed; `change` is what moves it.
//! `docs/DESIGN.md` tells why. Imports: `account`, `cache`, `keeper`, `record_store`, `format::{record, scope}`, `clock`, `provider`, `id`, `error`.

mod change;
mod knowledge;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::knowledge::Knowledge;
use crate::account::Account;
use crate::account::guard::Fence;
use crate::account::state::Status;
use crate::cache::Directory;
use crate::error::{Error, ErrorKind};
use crate::format::record::Sequence;
use crate::format::scope::ScopeState;
use crate::id::{AccountId, ScopeId};
use crate::keeper::Pending;
use crate::provider::block_on;
use crate::record_store::RecordStore;

pub use change::Moved;

/// A body of data whose new writes go under a service-managed account and, from [`link`](Self::link) to
/// [`unlink`](Self::unlink), under a customer's own (contract E9). Old data stays where it is, and is read under the account
/// that it was sealed under.
///
/// A `SealedStore` takes it as a route (`Route::scoped`); an engine that seals blocks asks for the [`writer`](Self::writer) for new data, and
/// for the [`opener`](Self::opener) of old data by the account that it noted beside it.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// use strongroom::store::Scope;
/// use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, MemoryRecordStore, ObjectId, ScopeId};
/// # let folder = tempfile::tempdir()?;
/// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
/// # for name in ["service", "customer"] { kms.create_key(name, KeyOptions::default())?; }
/// # let cache = AekCache::builder().build()?;
/// # let service = cache.create(AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest("service")))?;
/// # let customer = cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest("customer")))?;
///
/// let states = Arc::new(MemoryRecordStore::new()); // one of its own, beside that of the accounts' records
/// let known = customer.clone(); // or a `Directory`, which attaches accounts when they are needed
/// let find = move |id: AccountId| (id == known.id()).then(|| known.clone());
/// let scope = Scope::builder(ScopeId::random(), service, states, find).create()?;
///
/// let write = |index| {
///     let writer = scope.wait_writer()?; // in a task: `scope.writer().await?`
///     let id = BlockId::new(ObjectId::from_bytes([1; 16]), index);
///     let sealed = writer.account().seal(id, Aad::EMPTY, b"a row")?;
///     writer.wait_check()?; // immediately before the write is acknowledged
///     Ok::<_, strongroom::Error>((writer.account().id(), id, sealed))
/// };
/// let before = write(0)?;
/// scope.link(&customer)?;
/// let after = write(1)?;
/// assert_eq!(after.0, customer.id());
/// for (account, id, sealed) in [before, after] {
///     assert_eq!(scope.wait_opener(account)?.open(id, Aad::EMPTY, &sealed)?, b"a row");
/// }
/// scope.unlink()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is promised
///
/// - **A write is acknowledged** only under a state that this machine has confirmed at most
///   [`confirmed_within`](ScopeState::confirmed_within) before the acknowledgement, 6 s unless the scope was created with another
///   bound, and only if that state still names the account that the write was sealed under. So after a move has returned, this
///   machine acknowledges nothing under the account before, and from [`Moved::everywhere_after`] on no machine does, whenever the
///   write began. A state that cannot be confirmed in time fails writes; it does not send them to the account before.
/// - **A write that is overtaken** by a move fails with [`ErrorKind::Conflict`], an upload of any length too: write it again. What it has
///   stored meanwhile may be there, under the account before, and unacknowledged.
/// - **Reads** go by the account that an object names, which has to be one of the scope's, linked now or formerly. They do not wait for a confirmation:
///   only a name that is not known here makes the state be read again.
/// - **Each half fails closed by its own key alone**: objects under the customer's account when its KMS refuses, the others when the
///   service's does. But what the scope's accounts *are* is authenticated under the service-managed one. A process that has not
///   verified any state yet opens the service's own objects and those of [`ScopeBuilder::also_opens`], and the others once it has.
/// - **Whoever can write to the record store** can move nothing: another state has no valid MAC. What they can do is
///   put an older state back. A process that has seen a newer one refuses it with [`ErrorKind::Untrusted`]. One that has just
///   started knows no better, unless it is told the least sequence ([`ScopeBuilder::at_least`]); nor does one
///   that is shown the old state on and on.
///
/// Clones are one scope. A scope opened a second time in a process is another machine to the first.
#[derive(Clone)]
pub struct Scope {
    inner: Arc<Inner>,
}

struct Inner {
    id: ScopeId,
    service: Account,
    accounts: Box<dyn Accounts>,
    states: Arc<dyn RecordStore>,
    least: Option<Sequence>,
    also_opens: Vec<AccountId>,
    waits: bool,
    knowledge: Mutex<Knowledge>,
}

/// Where a [`Scope`] finds the customers' accounts that its state names: a [`Directory`], or a closure.
pub trait Accounts: Send + Sync + 'static {
    /// The account `id`, which may still have to be attached.
    fn account(&self, id: AccountId) -> Pending<Account>;
}

impl Accounts for Directory {
    fn account(&self, id: AccountId) -> Pending<Account> {
        self.begin_account(id)
    }
}

impl<F: Fn(AccountId) -> Option<Account> + Send + Sync + 'static> Accounts for F {
    fn account(&self, id: AccountId) -> Pending<Account> {
        Pending::ready(self(id).ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "no account of this id is known to the scope here").with_account(id)
        }))
    }
}

/// Configures a [`Scope`].
#[must_use]
pub struct ScopeBuilder {
    id: ScopeId,
    service: Account,
    states: Arc<dyn RecordStore>,
    accounts: Box<dyn Accounts>,
    confirmed_within: Duration,
    least: Option<Sequence>,
    also_opens: Vec<AccountId>,
    waits: bool,
}

impl Scope {
    /// A scope to be created or opened. Its state is kept in `states` under the scope's id, as if that were an account's: give
    /// it a record store of its own, so that nobody takes it for an account's record. `accounts` finds the customers' accounts;
    /// every machine has to know one before it is linked.
    ///
    /// A load that begins after a swap has returned has to see what was swapped, on every machine.
    pub fn builder(
        id: ScopeId,
        service: Account,
        states: Arc<dyn RecordStore>,
        accounts: impl Accounts,
    ) -> ScopeBuilder {
        ScopeBuilder {
            id,
            service,
            states,
            accounts: Box::new(accounts),
            confirmed_within: CONFIRMED_WITHIN,
            least: None,
            also_opens: Vec::new(),
            waits: false,
        }
    }

    /// The scope's id.
    #[must_use]
    pub fn id(&self) -> ScopeId {
        self.inner.id
    }

    /// The state that this process has verified last; `None` before it needed one. No I/O.
    #[must_use]
    pub fn known_state(&self) -> Option<ScopeState> {
        self.inner.known().map(|state| ScopeState::clone(&state))
    }

    /// The state as it is now: read from the record store.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] for a state that is missing, forged, older than one that was seen, or another scope's;
    /// [`ErrorKind::Io`] or [`ErrorKind::Unavailable`] when the record store fails or is silent; why the service-managed account has no lease,
    /// where the state is not one that was verified before.
    pub async fn state(&self) -> Result<ScopeState, Error> {
        Ok(ScopeState::clone(&*self.inner.load_anew().driven().await?))
    }

    /// The account that new data goes under now. Waits for the record store where the state was not confirmed in time, which happens to
    /// a scope in use only when the store is slow: it is confirmed ahead.
    ///
    /// # Errors
    /// As [`Self::state`]; what finding the account met; and, without a valid lease, why.
    pub async fn writer(&self) -> Result<ScopeWriter, Error> {
        let state = self.inner.confirm().driven().await?;
        let account = self.inner.find(state.writes_to()).await?;
        let fence = account.fence()?;
        Ok(ScopeWriter { scope: self.clone(), account, fence })
    }

    /// Blocks this thread like [`Self::writer`].
    ///
    /// # Errors
    /// As [`Self::writer`].
    pub fn wait_writer(&self) -> Result<ScopeWriter, Error> {
        block_on(self.writer())
    }

    /// The account that opens what was sealed under `account`. The state is read again if it is not one of those known here.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for an account that is none of the scope's; as [`Self::state`] where that had to be read; what finding the account met. Whether
    /// it has a lease is not looked at.
    pub async fn opener(&self, account: AccountId) -> Result<Account, Error> {
        if !self.opens_now(account) && !self.inner.load_anew().driven().await?.has(account) {
            return Err(foreign(account));
        }
        self.inner.find(account).await
    }

    /// Blocks this thread like [`Self::opener`].
    ///
    /// # Errors
    /// As [`Self::opener`].
    pub fn wait_opener(&self, account: AccountId) -> Result<Account, Error> {
        block_on(self.opener(account))
    }

    /// Whether `account` is one of the scope's, as far as is known without reading anything.
    pub(crate) fn opens_now(&self, account: AccountId) -> bool {
        let Inner { service, also_opens, .. } = &*self.inner;
        account == service.id()
            || also_opens.contains(&account)
            || self.inner.known().is_some_and(|state| state.has(account))
    }
}

impl ScopeBuilder {
    /// For [`Self::create`]: how old a machine's knowledge of the state may be when it acknowledges a write; whole seconds, 0 to 60 s, 6
    /// unless set. It is part of the state, so all machines keep it, and it is for good. A scope in use costs each machine one load in about half that time. With zero every write is preceded
    /// and followed by a load, which writes at the same time share.
    pub const fn confirmed_within(mut self, bound: Duration) -> Self {
        self.confirmed_within = bound;
        self
    }

    /// Accepts no state older than this one: an anchor against a state that was put back before this process started.
    pub const fn at_least(mut self, sequence: Sequence) -> Self {
        self.least = Some(sequence);
        self
    }

    /// Opens objects of this customer's account whatever the state says, so that they can be read by a process that starts while the
    /// service's own key is out.
    pub fn also_opens(mut self, customer: AccountId) -> Self {
        self.also_opens.push(customer);
        self
    }

    /// Waits for an account that has no key yet, as long as [`Account::ready`] does; otherwise that is [`ErrorKind::NotReady`].
    pub const fn wait_until_ready(mut self) -> Self {
        self.waits = true;
        self
    }

    /// Creates the scope: linked to nobody. The store is written here, on the caller's thread.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is one of this id; [`ErrorKind::Misuse`] for a bound out of its range; why the service-managed account has no
    /// lease; [`ErrorKind::Io`] when the store fails, which then has the scope or not.
    pub fn create(self) -> Result<Scope, Error> {
        let confirmed_within = self.confirmed_within;
        let scope = self.open();
        scope.inner.create(confirmed_within)?;
        Ok(scope)
    }

    /// Opens a scope that was created. Reads nothing, and works while the record store and the KMS are down.
    #[must_use]
    pub fn open(self) -> Scope {
        let Self { id, service, states, accounts, confirmed_within: _, least, also_opens, waits } = self;
        let knowledge = Mutex::default();
        Scope {
            inner: Arc::new(Inner { id, service, accounts, states, least, also_opens, waits, knowledge }),
        }
    }
}

impl Inner {
    async fn find(&self, id: AccountId) -> Result<Account, Error> {
        let account = match id == self.service.id() {
            true => self.service.clone(),
            false => self.accounts.account(id).driven().await?,
        };
        if account.id() != id {
            return Err(
                Error::new(ErrorKind::Misuse, "another account than the scope asked for").with_account(id)
            );
        }
        if self.waits && account.status() == Status::NotReady {
            account.ready().driven().await?;
        }
        Ok(account)
    }

    /// The name of the state in its record store.
    const fn key(&self) -> AccountId {
        AccountId::from_bytes(*self.id.as_bytes())
    }
}

/// One write under way: the account that it goes under, and what has to be checked before it is acknowledged.
#[derive(Clone)]
#[must_use = "a write is acknowledged only after `check`"]
pub struct ScopeWriter {
    scope: Scope,
    account: Account,
    fence: Fence,
}

impl ScopeWriter {
    /// The account to seal under. Note its id beside what it sealed: [`Scope::opener`] asks for it. A sealed object names it itself.
    #[must_use]
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// To be called immediately before the write is acknowledged: the state is confirmed, the scope was not moved to another
    /// account, and this one was never out of service since the write began (contract D11). Waits as [`Scope::writer`] does.
    ///
    /// # Errors
    /// Why the write is not to be acknowledged: [`ErrorKind::Conflict`] when the scope has moved; [`ErrorKind::Unavailable`] when the record store took longer than the
    /// bound to say that it has not; as [`Scope::writer`].
    pub async fn check(&self) -> Result<(), Error> {
        self.scope.inner.confirm().driven().await?;
        self.scope.inner.check_writes_to(self.account.id())?;
        self.fence.check()
    }

    /// Blocks this thread like [`Self::check`].
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn wait_check(&self) -> Result<(), Error> {
        block_on(self.check())
    }
}

const fn foreign(account: AccountId) -> Error {
    Error::new(ErrorKind::Corrupt, "sealed under an account that is none of the scope's")
        .with_account(account)
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { id, service, accounts: _, states, .. } = &*self.inner;
        f.debug_struct("Scope")
            .field("id", id)
            .field("service", service)
            .field("states", states)
            .field("known", &self.inner.known())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ScopeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeBuilder")
            .field("id", &self.id)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ScopeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeWriter")
            .field("scope", &self.scope.id())
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}

/// The shortest refresh interval of a lease.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(6);
