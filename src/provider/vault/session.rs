//! The token: obtained, renewed by the calls that use it, replaced once when Vault rejects it. Imports: `provider`,
//! `clock`.
//!
//! No thread of its own: every account calls at least once a minute, and a call that finds less than a third of the
//! token's lifetime left renews it on its way. One thread at a time signs in; the others go on with the old token
//! while it lasts, and wait where there is none.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ureq::http::{HeaderValue, Method};
use zeroize::Zeroizing;

use super::answer::{Auth, Data, Granted, TokenFacts, parse};
use super::classify::{Asked, Outcome, Sealed, classify};
use super::client::{Ask, Client, Reply};
use super::login::{Kind, Login};
use crate::clock::{Clock, Moment};
use crate::error::Refusal;
use crate::provider::{ErrorClass, ProviderError};

/// Who we are at Vault, for as long as a provider lives.
pub(super) struct Session {
    login: Login,
    sealed: Sealed,
    /// For a renewal that nobody has to wait for: a fraction of what a call may take.
    renew_within: Duration,
    clock: Clock,
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// Some thread is signing in or renewing.
    busy: bool,
    /// How many of them have come back, and how the latest fared.
    flights: u64,
    failed: Option<ProviderError>,
    /// A renewal that failed is not tried again before.
    renew_not_before: Option<Moment>,
}

/// A token. Wiped when its last user drops it.
pub(super) struct Token {
    /// Shares its bytes with every request that carries it.
    pub(super) header: HeaderValue,
    /// When it was asked for, so that it ends here no later than at Vault.
    since: Moment,
    /// What it was granted for at first; `None` without end, or where Vault does not say.
    lifetime: Option<Duration>,
    ends: Option<Moment>,
    renewable: bool,
}

/// What to do about a 403.
pub(super) enum Denied {
    /// Ask again, once, with this token.
    Retry(Arc<Token>),
    /// The token is good: a policy denies.
    ByPolicy,
}

impl Session {
    pub(super) fn new(login: Login, sealed: Sealed, call_within: Duration) -> Self {
        Self {
            login,
            sealed,
            renew_within: call_within / 4,
            clock: Clock::System,
            state: Mutex::default(),
            landed: Condvar::new(),
        }
    }

    /// A token to call with.
    ///
    /// # Errors
    /// `Refused(CredentialRejected)` when Vault refuses the login; `Transient` when there is no token that has not
    /// expired and Vault does not answer.
    pub(super) fn token(&self, client: &Client, deadline: Moment) -> Result<Arc<Token>, ProviderError> {
        let mut state = self.lock();
        let now = self.clock.now();
        let Some(token) = state.token.clone().filter(|token| !token.has_ended(now)) else {
            let ended = state.token.clone();
            drop(state);
            return self.replace(ended.as_ref(), false, client, deadline);
        };
        let waits = state.renew_not_before.is_some_and(|at| !now.reached(at));
        if !token.is_old(now) || waits || state.busy {
            return Ok(token);
        }
        state.busy = true;
        drop(state);
        let flight = Flight(self);
        let renewed = self.renew(&token, client, now.plus(self.renew_within).earlier(deadline));
        // The old token still works. If the login is refused by now, so will the next calls be, once it ends:
        // until then Vault itself decides by serving it or not.
        let now_used = flight.land(renewed).unwrap_or(token);
        if now_used.is_old(now) {
            let left = now_used.ends.map_or(MAX_PAUSE, |ends| now.until(ends));
            self.lock().renew_not_before = Some(now.plus((left / 8).clamp(MIN_PAUSE, MAX_PAUSE)));
        }
        Ok(now_used)
    }

    /// What a 403 to a call with `token` means: asks Vault about the token, and signs in once more where that may
    /// help.
    ///
    /// # Errors
    /// `Refused(CredentialRejected)` when the token and a new login are both rejected; `Transient` when Vault falls
    /// silent meanwhile.
    pub(super) fn denied(
        &self,
        token: &Arc<Token>,
        client: &Client,
        deadline: Moment,
    ) -> Result<Denied, ProviderError> {
        if let Some(newer) = self.lock().token.clone().filter(|newer| newer.header != token.header) {
            return Ok(Denied::Retry(newer));
        }
        let reply = lookup(client, token, deadline)?;
        match classify(Asked::Token, &reply, self.sealed) {
            Outcome::Denied => self.replace(Some(token), true, client, deadline).map(Denied::Retry),
            Outcome::Failed(error) => Err(error),
            // A token keeps the policies that it was made with, so one that is not fresh may lack a policy that
            // its role was given since. A fresh one would only fill Vault with tokens while access is denied.
            Outcome::Success
                if self.login.kind == Kind::Token
                    || self.clock.now().age_since(token.since) < FRESH_ENOUGH =>
            {
                Ok(Denied::ByPolicy)
            }
            Outcome::Success => match self.replace(Some(token), true, client, deadline) {
                Ok(newer) => Ok(Denied::Retry(newer)),
                // The token was good a moment ago, and that is answer enough.
                Err(_) => Ok(Denied::ByPolicy),
            },
        }
    }

    /// Signs in, unless another thread has replaced `old` already or does so meanwhile.
    fn replace(
        &self,
        old: Option<&Arc<Token>>,
        rejected: bool,
        client: &Client,
        deadline: Moment,
    ) -> Result<Arc<Token>, ProviderError> {
        let mut state = self.lock();
        let before = state.flights;
        loop {
            let is_old = |token: &Arc<Token>| old.is_some_and(|old| old.header == token.header);
            if let Some(newer) = state.token.clone().filter(|token| !is_old(token)) {
                return Ok(newer);
            }
            if !state.busy {
                if let Some(failed) = state.failed.clone().filter(|_| state.flights != before) {
                    return Err(failed);
                }
                break;
            }
            let wait = self.clock.now().until(deadline);
            if wait.is_zero() {
                return Err(ProviderError::transient("a login to Vault takes too long"));
            }
            let woken = self.landed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
            state = woken.0;
        }
        state.busy = true;
        drop(state);
        let flight = Flight(self);
        let obtained = self.obtain(old.filter(|_| rejected), client, deadline);
        flight.land(obtained)
    }

    /// Extends `token` or, where that is impossible or no longer worth it, signs in.
    fn renew(&self, token: &Token, client: &Client, deadline: Moment) -> Result<Arc<Token>, ProviderError> {
        if token.renewable {
            let since = self.clock.now();
            let ask = Ask {
                method: Method::POST,
                path: "auth/token/renew-self",
                token: Some(&token.header),
                body: b"{}",
            };
            let reply = client.ask(&ask, deadline)?;
            match classify(Asked::Token, &reply, self.sealed) {
                Outcome::Success => {
                    let granted = parse::<Auth<Granted<'_>>>(&reply.body)?.auth;
                    let renewed = Token::granted(token.header.clone(), since, &granted, token.lifetime);
                    // Near the end of what it may live at most, a renewal gives less and less.
                    if !renewed.is_old(since) {
                        return Ok(Arc::new(renewed));
                    }
                }
                Outcome::Failed(error) if error.class() == ErrorClass::Transient => return Err(error),
                // Revoked, or not renewable after all.
                Outcome::Denied | Outcome::Failed(_) => {}
            }
        }
        self.obtain(None, client, deadline)
    }

    /// Signs in. `rejected` is the token that Vault no longer takes: the same one again would be no new login.
    fn obtain(
        &self,
        rejected: Option<&Arc<Token>>,
        client: &Client,
        deadline: Moment,
    ) -> Result<Arc<Token>, ProviderError> {
        let secret = self.login.secret()?;
        let since = self.clock.now();
        let Some((path, body)) = self.login.request(&secret) else {
            let header = header_of(secret.expose())?;
            if rejected.is_some_and(|old| old.header == header) {
                return Err(ProviderError::refused(Refusal::CredentialRejected, "Vault rejects the token"));
            }
            return self.look_up(header, since, client, deadline);
        };
        let ask = Ask { method: Method::POST, path: &path, token: None, body: &body };
        let reply = client.ask(&ask, deadline)?;
        match classify(Asked::Login, &reply, self.sealed) {
            Outcome::Success => {
                let granted = parse::<Auth<Granted<'_>>>(&reply.body)?.auth;
                if granted.client_token.is_empty() {
                    return Err(ProviderError::misconfigured("Vault wants a second factor for this login"));
                }
                let header = header_of(granted.client_token)?;
                Ok(Arc::new(Token::granted(header, since, &granted, None)))
            }
            Outcome::Failed(error) => Err(error),
            Outcome::Denied => {
                Err(ProviderError::integrity("Vault denied a login as it denies other requests"))
            }
        }
    }

    /// A token that was given to us: how long it lasts, if it may look itself up.
    fn look_up(
        &self,
        header: HeaderValue,
        since: Moment,
        client: &Client,
        deadline: Moment,
    ) -> Result<Arc<Token>, ProviderError> {
        let mut token = Token { header, since, lifetime: None, ends: None, renewable: false };
        let reply = lookup(client, &token, deadline)?;
        match classify(Asked::Token, &reply, self.sealed) {
            Outcome::Success => {
                let facts = parse::<Data<TokenFacts>>(&reply.body)?.data;
                token.last(facts.ttl, facts.renewable, None);
            }
            // Bad, or made without the right to look itself up. The call itself will tell.
            Outcome::Denied => {}
            Outcome::Failed(error) => return Err(error),
        }
        Ok(Arc::new(token))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // OK after a panic elsewhere: every change to the state is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread on its way to sign in. However it ends, the others are let go.
struct Flight<'a>(&'a Session);

impl Flight<'_> {
    fn land(self, outcome: Result<Arc<Token>, ProviderError>) -> Result<Arc<Token>, ProviderError> {
        let mut state = self.0.lock();
        if let Ok(token) = &outcome {
            state.token = Some(token.clone());
        }
        state.failed = outcome.as_ref().err().cloned();
        drop(state);
        outcome
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy = false;
        state.flights += 1;
        drop(state);
        self.0.landed.notify_all();
    }
}

impl Token {
    /// `first` is the lifetime of a token that was renewed, as it was granted at first.
    fn granted(header: HeaderValue, since: Moment, granted: &Granted<'_>, first: Option<Duration>) -> Self {
        let mut token = Self { header, since, lifetime: None, ends: None, renewable: false };
        token.last(granted.lease_duration, granted.renewable, first);
        token
    }

    /// For `seconds` from when it was asked for; 0 is for ever.
    fn last(&mut self, seconds: u64, renewable: bool, first: Option<Duration>) {
        if seconds > 0 {
            let lifetime = Duration::from_secs(seconds);
            self.ends = Some(self.since.plus(lifetime));
            self.lifetime = first.or(Some(lifetime));
        }
        self.renewable = renewable;
    }

    fn has_ended(&self, now: Moment) -> bool {
        self.ends.is_some_and(|ends| now.reached(ends))
    }

    /// Less than a third of its lifetime is left.
    fn is_old(&self, now: Moment) -> bool {
        match (self.ends, self.lifetime) {
            (Some(ends), Some(lifetime)) => now.until(ends) < lifetime / 3,
            _ => false,
        }
    }
}

fn lookup(client: &Client, token: &Token, deadline: Moment) -> Result<Reply, ProviderError> {
    let ask =
        Ask { method: Method::GET, path: "auth/token/lookup-self", token: Some(&token.header), body: b"" };
    client.ask(&ask, deadline)
}

/// The token as a header that wipes it: every clone shares these bytes.
fn header_of(token: &str) -> Result<HeaderValue, ProviderError> {
    let bytes = Bytes::from_owner(Zeroizing::new(token.as_bytes().to_vec()));
    let mut header = HeaderValue::from_maybe_shared(bytes)
        .map_err(|_| ProviderError::integrity("Vault's token cannot be sent as a header"))?;
    header.set_sensitive(true);
    Ok(header)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("login", &self.login).finish_non_exhaustive()
    }
}

/// Between two attempts to renew a token that still works.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A token younger than this is not replaced because a policy denies: one login in this time is all that a
/// provider whose access was removed costs its customer.
const FRESH_ENOUGH: Duration = Duration::from_secs(30);
