//! An account without a KMS, for benchmarks of the data plane alone. Imports: `account`, `block`, `clock`, `engine`.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::account::permit::Permit;
use crate::account::state::AccountState;
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::Error;
use crate::id::{AccountId, Generation, Suite};
use crate::random;
use crate::secret::MemoryLock;

/// An account with a random key that no KMS knows: what it seals is lost with the process. Its lease lasts a day
/// and is never renewed.
#[derive(Debug)]
pub struct UnmanagedAccount(AccountState);

impl UnmanagedAccount {
    /// An account whose blocks go through `engine`.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when there is no memory for its key.
    pub fn new(engine: Engine) -> Result<Self, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        random::fill(&mut *secret);
        let state = AccountState::new(AccountId::random(), Clock::System);
        let keys = GenerationKeys::new(
            state.id(),
            Generation::FIRST,
            Suite::Aes256Gcm,
            &secret,
            MemoryLock::BestEffort,
        )?;
        let until = state.clock().now().plus(Duration::from_secs(24 * 3600));
        state.publish_keys(state.epoch(), Arc::new(KeyRing::new(keys.with_engine(engine))), until, until);
        Ok(Self(state))
    }

    /// A permit of this account.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`](crate::ErrorKind::NotReady) after a day.
    pub fn permit(&self) -> Result<Permit<'_>, Error> {
        Permit::new(&self.0)
    }
}
