//! Whose an object is: one account's, or a scope's, which has several and writes under one. Imports: `account`, `store::scope`, `id`, `error`.

use crate::account::Account;
use crate::account::guard::Fence;
use crate::error::Error;
use crate::id::AccountId;
use crate::store::scope::{Scope, ScopeWriter};

/// What a route leads to.
#[derive(Clone)]
pub(crate) enum Owner {
    Account(Account),
    Scope(Scope),
}

/// A write under way. The sealer fences the account; this, the scope.
pub(crate) struct Writing {
    pub(crate) account: Account,
    scope: Option<ScopeWriter>,
}

/// A call that writes by several steps, and is acknowledged only if the key was never out of service since it began (contract D11).
pub(crate) struct Fenced {
    writing: Writing,
    fence: Fence,
}

impl Owner {
    /// The account that a write goes under which begins now.
    ///
    /// # Errors
    /// As [`Scope::writer`]. One account is not looked at.
    pub(crate) async fn writer(self) -> Result<Writing, Error> {
        match self {
            Self::Account(account) => Ok(Writing { account, scope: None }),
            Self::Scope(scope) => {
                let writer = scope.writer().await?;
                Ok(Writing { account: writer.account().clone(), scope: Some(writer) })
            }
        }
    }

    /// To be had before the first step of a call, and checked after the last one.
    ///
    /// # Errors
    /// As [`Self::writer`], and the account's state when it holds no valid lease.
    pub(crate) async fn fenced(&self) -> Result<Fenced, Error> {
        let writing = self.clone().writer().await?;
        let fence = writing.account.fence()?;
        Ok(Fenced { writing, fence })
    }

    /// The account to open an object with that names `id`. Whether it is its own, one account leaves to the proof.
    ///
    /// # Errors
    /// As [`Scope::opener`].
    pub(crate) async fn opener(&self, id: AccountId) -> Result<Account, Error> {
        match self {
            Self::Account(account) => Ok(account.clone()),
            Self::Scope(scope) => scope.opener(id).await,
        }
    }

    /// Whether an object of the account `id` would be looked at without asking anybody.
    pub(crate) fn may_open(&self, id: AccountId) -> bool {
        match self {
            Self::Account(account) => account.id() == id,
            Self::Scope(scope) => scope.opens_now(id),
        }
    }

    /// A closed account costs no request. Which of a scope's accounts an object needs is not known before its header is.
    ///
    /// # Errors
    /// The account's state, when it holds no valid lease.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self {
            Self::Account(account) => account.permit().map(drop),
            Self::Scope(_) => Ok(()),
        }
    }

    /// Whether all that either seals is under one account. A scope's writes move.
    pub(crate) fn is_one_account_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Account(one), Self::Account(other)) => one.id() == other.id(),
            _ => false,
        }
    }
}

impl Writing {
    /// Immediately before the write is acknowledged, beside the sealer's own look at the lease.
    ///
    /// # Errors
    /// As [`ScopeWriter::check`].
    pub(crate) async fn check(&self) -> Result<(), Error> {
        match &self.scope {
            Some(writer) => writer.check().await,
            None => Ok(()),
        }
    }
}

impl Fenced {
    /// Immediately before the call is acknowledged: nothing is waited for after the look at the lease.
    ///
    /// # Errors
    /// Why it may not be.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.writing.check().await?;
        self.fence.check()
    }
}
