//! The user's credential, bounded in time and replaceable. Imports: `provider`, `clock`.
//!
//! Microsoft's token policy holds a token until five minutes before it ends. In these five minutes each request asks the
//! credential first, and goes on with the old token where that fails. A login service that hangs must not make
//! the vault look silent meanwhile: while the old token is good for the call, little time is given to renewing it, and
//! after a failure none for a while.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;

use super::classify;
use crate::clock::{Clock, Moment};
use crate::provider::ProviderError;

/// Makes a new credential.
pub(super) type Source = Box<dyn Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync>;

pub(super) struct Credential {
    state: Mutex<State>,
    source: Option<Source>,
    call_timeout: Duration,
}

struct State {
    current: Arc<dyn TokenCredential>,
    /// When the newest token ends, on the wall clock in nanoseconds since the epoch; 0 before there is one.
    token_ends: u64,
    /// Why the last renewal failed, and until when that answer stands.
    failed: Option<(ProviderError, Moment)>,
}

impl Credential {
    pub(super) fn new(
        current: Arc<dyn TokenCredential>,
        source: Option<Source>,
        call_timeout: Duration,
    ) -> Self {
        let state = Mutex::new(State { current, token_ends: 0, failed: None });
        Self { state, source, call_timeout }
    }

    /// Puts a new credential in the place of one whose token was rejected. False without a source, or when that fails.
    pub(super) fn renew(&self) -> bool {
        let Some(fresh) = self.source.as_ref().and_then(|source| source().ok()) else { return false };
        *self.lock() = State { current: fresh, token_ends: 0, failed: None };
        true
    }

    /// How long the credential may take now, and which; or why it is not asked.
    fn turn(&self, now: Moment) -> Result<(Arc<dyn TokenCredential>, Duration), ProviderError> {
        let state = self.lock();
        let spare = state.token_ends.saturating_sub(now.wall_nanos());
        if Duration::from_nanos(spare) <= self.call_timeout {
            return Ok((Arc::clone(&state.current), self.call_timeout / 2));
        }
        match &state.failed {
            Some((error, until)) if !now.reached(*until) => Err(error.clone()),
            _ => Ok((Arc::clone(&state.current), SHORT_PATIENCE.min(self.call_timeout / 2))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // OK because every change of the state is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let (current, limit) = self.turn(Clock::System.now()).map_err(failure)?;
        let answer = tokio::time::timeout(limit, current.get_token(scopes, options)).await;
        let error = match answer {
            // The credentials of `azure_identity` take any JSON for a token, and find an empty one in it.
            Ok(Ok(token)) if token.token.secret().is_empty() => {
                ProviderError::transient("no token: the login service's answer holds none")
            }
            Ok(Ok(token)) => {
                let ends = u64::try_from(token.expires_on.unix_timestamp_nanos()).unwrap_or(0);
                let mut state = self.lock();
                state.token_ends = ends;
                state.failed = None;
                return Ok(token);
            }
            Ok(Err(error)) => classify::token(&error),
            Err(_) => ProviderError::transient("no token: the login service did not answer in time"),
        };
        self.lock().failed = Some((error.clone(), Clock::System.now().plus(PAUSE)));
        Err(failure(error))
    }
}

fn failure(error: ProviderError) -> azure_core::Error {
    azure_core::Error::new(ErrorKind::Credential, error)
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// For renewing a token that is still good: less than the shortest call deadline of a cache (1 s).
const SHORT_PATIENCE: Duration = Duration::from_millis(600);
/// How long such a renewal is left alone after it failed: about thirty attempts fit into the five minutes.
const PAUSE: Duration = Duration::from_secs(10);
