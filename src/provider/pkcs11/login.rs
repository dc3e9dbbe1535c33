//! Logging in, without ever locking a token by a PIN that is wrong.
//!
//! A token counts wrong PINs and locks itself after a few. A provider that probes every few seconds would spend them
//! all in no time, so a PIN that was rejected is not tried again: not until the callback gives another, or the token's own flag
//! shows that somebody has logged in since, which starts its count anew. Imports: `provider`, `provider::pkcs11::classify`,
//! `error`, `random`.

use std::fmt;

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error as Answer, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::super::ProviderError;
use super::classify::Fault;
use crate::error::Refusal;
use crate::random;

/// A PIN, wiped when dropped. Intentionally neither `Clone` nor comparable; `Debug` shows nothing of it.
pub struct Pin(Zeroizing<String>);

impl Pin {
    /// Takes over `pin`, 1 to 255 bytes of it; any other length is refused when it is used.
    ///
    /// ```
    /// use strongroom::provider::pkcs11::Pin;
    /// assert_eq!(format!("{:?}", Pin::new("1234".to_owned())), "Pin(..)");
    /// ```
    #[must_use]
    pub fn new(pin: String) -> Self {
        Self(Zeroizing::new(pin))
    }

    /// As the client takes it, at its exact size: shrinking a string in place may move it and leave the old bytes behind.
    fn to_client(&self) -> AuthPin {
        AuthPin::new(Box::from(self.0.as_str()))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(..)")
    }
}

/// Where PINs come from: asked at each login.
pub(super) type PinSource = Box<dyn Fn() -> Result<Pin, ProviderError> + Send + Sync>;

/// Who logs in, and with what.
pub(super) struct Credential {
    pub(super) user: UserType,
    pub(super) pin: Option<PinSource>,
}

/// What is known of the logins to one token, for all providers of this process.
#[derive(Default)]
pub(super) struct LoginMemory {
    rejected: Option<Rejected>,
}

/// The last PIN that the token rejected, as a salted digest.
struct Rejected {
    salt: [u8; 32],
    digest: [u8; 32],
    /// The token's flag that wrong PINs were entered was seen set: so it keeps that flag, and one that is clear means that
    /// somebody has logged in since.
    counted: bool,
}

/// Sees to it that `session` is the user's. The caller holds `memory` throughout, so that no two threads spend a try each on
/// one wrong PIN.
pub(super) fn log_in(
    context: &Pkcs11,
    slot: Slot,
    session: &Session,
    credential: &Credential,
    memory: &mut LoginMemory,
) -> Result<(), Fault> {
    if is_logged_in(session)? {
        return Ok(());
    }
    let token = context.get_token_info(slot)?;
    if !token.login_required() {
        return Ok(());
    }
    let Some(source) = &credential.pin else {
        if !token.protected_authentication_path() {
            return Err(
                ProviderError::misconfigured("the token asks for a PIN, and none was configured").into()
            );
        }
        return accept(session.login(credential.user, None));
    };
    let pin = source()?;
    if pin.0.is_empty() || pin.0.len() > MAX_PIN {
        return Err(ProviderError::misconfigured("a PIN has 1 to 255 bytes").into());
    }
    if memory.rejected.as_ref().is_some_and(|rejected| rejected.bars(&pin, token.user_pin_count_low())) {
        return Err(ProviderError::refused(
            Refusal::CredentialRejected,
            "the token rejected this PIN before; it is not tried again, lest the token be locked",
        )
        .into());
    }
    if token.user_pin_final_try() && !token.user_pin_locked() {
        // Nobody has rejected our PIN: this is our own caution, not an answer.
        return Err(ProviderError::transient(
            "one more wrong PIN would lock the token, so none is tried: log in by hand to start its count anew",
        )
        .into());
    }
    let answer = session.login(credential.user, Some(&pin.to_client()));
    match &answer {
        Ok(()) => memory.rejected = None,
        Err(Answer::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
            let counted = context.get_token_info(slot).is_ok_and(|token| token.user_pin_count_low());
            memory.rejected = Some(Rejected::new(&pin, counted));
        }
        Err(_) => {}
    }
    accept(answer)
}

/// Logins are of the process, not of a session: somebody else's is as good as ours.
fn accept(answer: Result<(), Answer>) -> Result<(), Fault> {
    match answer {
        Ok(()) | Err(Answer::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(answer) => Err(answer.into()),
    }
}

pub(super) fn is_logged_in(session: &Session) -> Result<bool, Fault> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}

impl Rejected {
    fn new(pin: &Pin, counted: bool) -> Self {
        let mut salt = [0; 32];
        random::fill(&mut salt);
        Self { salt, digest: digest(&salt, pin), counted }
    }

    fn bars(&self, pin: &Pin, count_low: bool) -> bool {
        let somebody_logged_in_since = self.counted && !count_low;
        self.digest == digest(&self.salt, pin) && !somebody_logged_in_since
    }
}

fn digest(salt: &[u8; 32], pin: &Pin) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(pin.0.as_bytes()).finalize().into()
}

const MAX_PIN: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(text: &str) -> Pin {
        Pin::new(text.to_owned())
    }

    #[test]
    fn a_rejected_pin_is_barred_until_the_token_counts_from_zero_again() {
        let counted = Rejected::new(&pin("1234"), true);
        assert!(counted.bars(&pin("1234"), true));
        assert!(!counted.bars(&pin("1234"), false), "somebody logged in since");
        assert!(!counted.bars(&pin("4321"), true), "another PIN");
        // A token that does not keep the flag never shows it set, so a clear one says nothing.
        let uncounted = Rejected::new(&pin("1234"), false);
        assert!(uncounted.bars(&pin("1234"), false));
    }
}
