//! One token, as a provider holds it: its slot, its sessions, its login.
//!
//! A session serves one thread at a time, so there is a small pool of them, and one more that is never used: when the last
//! session of a process is closed, the token logs the process out. Whatever fails closes the session that it failed on.
//! No lock is held while the module works, but for a login. Imports: `provider`,
//! `provider::pkcs11::{classify, login, module}`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use cryptoki::mechanism::MechanismType;
use cryptoki::session::Session;
use cryptoki::slot::{Slot, TokenInfo};

use super::super::ProviderError;
use super::classify::{Again, Fault};
use super::login::{Credential, LoginMemory, is_logged_in, log_in};
use super::module::{Module, lock};

/// Which token is meant: never by a slot number, which moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) label: Option<String>,
    pub(super) serial: Option<String>,
}

/// A token and how to use it.
pub(super) struct Token {
    module: Arc<Module>,
    selector: Selector,
    credential: Credential,
    pool: Mutex<Pool>,
}

/// Where the token is and what it offers, as long as it stays.
#[derive(Clone)]
pub(super) struct Link {
    slot: Slot,
    /// Of this token and user, however its providers were told to find it.
    memory: Arc<Mutex<LoginMemory>>,
    mechanisms: Arc<[MechanismType]>,
    /// The slot says that it is hardware.
    pub(super) hardware: bool,
    /// Tells this connection from one before.
    number: u64,
}

#[derive(Default)]
struct Pool {
    link: Option<Link>,
    /// Keeps the process logged in.
    anchor: Option<Session>,
    idle: Vec<Session>,
    connections: u64,
}

impl Selector {
    fn fits(&self, token: &TokenInfo) -> bool {
        let fits =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        fits(&self.label, token.label()) && fits(&self.serial, token.serial_number())
    }

    /// As it stands in URIs, after RFC 7512: `token=orders`, `token=orders;serial=1234`.
    pub(super) fn endpoint(&self) -> String {
        let part =
            |name: &str, value: &Option<String>| Some(format!("{name}={}", encoded(value.as_deref()?)));
        let parts = [part("token", &self.label), part("serial", &self.serial)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(";")
    }
}

/// Percent-encoded, but for what is unreserved in a URI.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

impl Link {
    pub(super) fn offers(&self, mechanism: MechanismType) -> bool {
        self.mechanisms.contains(&mechanism)
    }
}

impl Token {
    pub(super) fn new(module: Arc<Module>, selector: Selector, credential: Credential) -> Self {
        Self { module, selector, credential, pool: Mutex::default() }
    }

    /// Runs `work` on a session that is logged in. When it fails in a way that a stale session, login or handle explains, those
    /// are made anew and it runs once more.
    pub(super) fn run<T>(&self, work: impl Fn(&Session, &Link) -> Result<T, Fault>) -> Result<T, Fault> {
        let fault = match self.run_once(guarded(|| self.lease()), &work) {
            Ok(done) => return Ok(done),
            Err(fault) => fault,
        };
        if fault.again().is_none() {
            return Err(fault);
        }
        let leased = guarded(|| self.connected().and_then(|link| self.open(link)));
        self.run_once(leased, |session, link| {
            work(session, link).map_err(|fault| match fault.says_gone() {
                true => self.doubt(session, link).err().unwrap_or(fault),
                false => fault,
            })
        })
    }

    /// Whether "there is no such key" can be believed: a session that was logged out does not see private keys, and a module whose
    /// token went away may answer as if the token were empty.
    fn doubt(&self, session: &Session, link: &Link) -> Result<(), Fault> {
        let token = self.module.context.get_token_info(link.slot)?;
        if !self.selector.fits(&token) {
            return Err(ProviderError::transient("another token is in the slot").into());
        }
        if token.login_required() && !is_logged_in(session)? {
            return Err(ProviderError::transient("another part of this process logged out meanwhile").into());
        }
        Ok(())
    }

    fn run_once<T>(
        &self,
        leased: Result<(Session, Link), Fault>,
        work: impl Fn(&Session, &Link) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (session, link) = leased?;
        let done = guarded(|| work(&session, &link));
        match &done {
            Ok(_) => self.give_back(session, &link),
            // Its handle is the token's no more, and may be somebody else's by now.
            Err(fault) if fault.again() == Some(Again::Token) => self.forget(&link),
            // It may be in the middle of an operation.
            Err(_) => close(session),
        }
        done
    }

    fn lease(&self) -> Result<(Session, Link), Fault> {
        let link = self.connected()?;
        let idle = {
            let mut pool = lock(&self.pool);
            let current = pool.link.as_ref().is_some_and(|current| current.number == link.number);
            if current { pool.idle.pop() } else { None }
        };
        match idle {
            Some(session) => Ok((session, link)),
            None => self.open(link),
        }
    }

    fn give_back(&self, session: Session, link: &Link) {
        let mut pool = lock(&self.pool);
        let current = pool.link.as_ref().is_some_and(|current| current.number == link.number);
        if current && pool.idle.len() < MAX_IDLE {
            pool.idle.push(session);
        } else {
            drop(pool);
            close(session);
        }
    }

    /// The connection there is, or a new one.
    fn connected(&self) -> Result<Link, Fault> {
        let there = lock(&self.pool).link.clone();
        match there {
            Some(link) => Ok(link),
            None => self.connect(),
        }
    }

    fn connect(&self) -> Result<Link, Fault> {
        self.module.initialise()?;
        let context = &self.module.context;
        let (slot, token) = self.find_slot()?;
        let user = self.credential.user;
        let memory =
            self.module.login_memory(&format!("{}/{}/{user:?}", token.serial_number(), token.label()));
        let mechanisms = context.get_mechanism_list(slot)?;
        let hardware = context.get_slot_info(slot)?.hardware_slot();
        let anchor = self.open_session(slot, &memory)?;
        let mut pool = lock(&self.pool);
        if let Some(link) = pool.link.clone() {
            // Another thread was faster.
            drop(pool);
            close(anchor);
            return Ok(link);
        }
        pool.connections += 1;
        let link = Link { slot, memory, mechanisms: mechanisms.into(), hardware, number: pool.connections };
        pool.link = Some(link.clone());
        pool.anchor = Some(anchor);
        Ok(link)
    }

    fn find_slot(&self) -> Result<(Slot, TokenInfo), Fault> {
        let context = &self.module.context;
        let mut found = None;
        let mut fault = None;
        for slot in context.get_slots_with_token()? {
            match context.get_token_info(slot) {
                Ok(token) if self.selector.fits(&token) => {
                    if found.replace((slot, token)).is_some() {
                        return Err(ProviderError::misconfigured(
                            "two tokens have that label: name the serial number as well",
                        )
                        .into());
                    }
                }
                Ok(_) => {}
                // Perhaps the one that is meant; a token beside it that is broken is no matter.
                Err(answer) => fault = Some(answer),
            }
        }
        match (found, fault) {
            (Some(found), _) => Ok(found),
            (None, Some(answer)) => Err(answer.into()),
            (None, None) => Err(ProviderError::transient("no slot has the token that was configured").into()),
        }
    }

    fn open(&self, link: Link) -> Result<(Session, Link), Fault> {
        let session = self.open_session(link.slot, &link.memory);
        if let Err(fault) = &session
            && fault.again() == Some(Again::Token)
        {
            self.forget(&link);
        }
        Ok((session?, link))
    }

    fn open_session(&self, slot: Slot, memory: &Mutex<LoginMemory>) -> Result<Session, Fault> {
        let context = &self.module.context;
        let session = context.open_ro_session_no_drop(slot)?;
        let login = log_in(context, slot, &session, &self.credential, &mut lock(memory));
        match login {
            Ok(()) => Ok(session),
            Err(fault) => {
                close(session);
                Err(fault)
            }
        }
    }

    /// The token went away, or the module was finalised: no handle of `link` is ours any more. They are not closed, for the numbers
    /// may have been given to others.
    fn forget(&self, link: &Link) {
        let mut pool = lock(&self.pool);
        // Another thread may have connected anew.
        if pool.link.as_ref().is_some_and(|current| current.number == link.number) {
            pool.link = None;
            pool.anchor = None;
            pool.idle.clear();
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let pool = std::mem::take(&mut *lock(&self.pool));
        pool.idle.into_iter().chain(pool.anchor).for_each(close);
    }
}

/// The client panics on a length that no memory could hold.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(ProviderError::integrity("the module gave a length that cannot be right").into())
    })
}

/// Sessions are opened so that only this closes them.
fn close(session: Session) {
    drop(session.close());
}

/// Sessions kept for the next call. An authority has four calls in flight at most.
const MAX_IDLE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_names_the_token_without_ambiguity() {
        let endpoint = |label: Option<&str>, serial: Option<&str>| {
            Selector { label: label.map(str::to_owned), serial: serial.map(str::to_owned) }.endpoint()
        };
        assert_eq!(endpoint(Some("orders"), None), "token=orders");
        assert_eq!(endpoint(Some("a/b c;serial=1"), None), "token=a%2Fb%20c%3Bserial%3D1");
        assert_eq!(endpoint(Some("é"), Some("12")), "token=%C3%A9;serial=12");
        assert_eq!(endpoint(None, Some("12")), "serial=12");
    }
}
