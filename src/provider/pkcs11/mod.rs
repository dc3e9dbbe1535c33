//! HSMs through PKCS#11 (contract B6).
//!
//! The KEKs are objects on a token, the calls are those of the vendor's own library, and the library is code in this
//! process. Imports: `provider`, `error`, `random`.

mod algorithm;
mod classify;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod keys;
mod login;
mod module;
mod token;

use std::fmt;
use std::path::{Path, PathBuf};

use cryptoki::object::ObjectHandle;
use cryptoki::session::{Session, UserType};

pub use self::algorithm::Algorithm;
use self::algorithm::{Family, Iv};
use self::classify::{Fault, VendorCodes};
use self::keys::{Id, Part, Rights};
use self::login::Credential;
pub use self::login::Pin;
use self::module::Module;
use self::token::{Link, Selector, Token};
#[cfg(doc)]
use super::ErrorClass;
use super::{Authority, Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped};
use crate::error::Refusal;
use crate::random;

/// A token of an HSM, or of SoftHSM, through its PKCS#11 module.
///
/// **Names.** A KEK is all objects of one `CKA_LABEL`; a version is one of them, by its `CKA_ID`. The greatest id, as a
/// big-endian number, is the current version: to rotate, make a key of the same label with an id one greater. With RSA a version
/// is a pair of objects. Two objects of one class, label and id are refused as a misconfiguration.
///
/// **Taking a key away.** Set `CKA_DECRYPT` to false (for key wrap: `CKA_UNWRAP`), and to true again to give it back; or destroy
/// the object, having a backup. A token that is out of reach is silence, which earns grace.
///
/// **The module is code in this process**, and calls into it cannot be ended from outside: one that hangs holds a worker for
/// as long, and an authority whose four calls all hang is not asked again until one returns. Set the vendor's own timeouts. All
/// providers of a process share one module's state: it is initialised if nobody has, never finalised, and a login or logout by
/// another part of the process is everybody's. A child made by `fork` has to make its own provider.
///
/// **Secrets.** With AES-GCM and RSA the AEK passes through buffers that are wiped. Key wrap reads it as an attribute, of
/// which the client library keeps a copy for a moment that it does not wipe.
///
/// ```no_run
/// use strongroom::provider::pkcs11::{Pin, Pkcs11};
/// use strongroom::provider::{Kek, Verdict, preflight};
///
/// let hsm = Pkcs11::builder("/usr/lib/softhsm/libsofthsm2.so")
///     .token_label("customer-4711")
///     .pin(|| Ok(Pin::new(std::env::var("HSM_PIN").unwrap_or_default())))
///     .backed_up_by_operator()
///     .build()?;
/// let report = preflight(&hsm, &Kek::latest("orders"));
/// assert_eq!(report.verdict(), Verdict::Ready, "{report}");
/// # Ok::<(), strongroom::provider::ProviderError>(())
/// ```
pub struct Pkcs11 {
    token: Token,
    selector: Selector,
    user: Option<u32>,
    algorithm: Option<Algorithm>,
    iv: Iv,
    backed_up: bool,
    vendor: VendorCodes,
}

/// What a [`Pkcs11`] is made of.
#[must_use]
pub struct Pkcs11Builder {
    module: PathBuf,
    selector: Selector,
    pin: Option<login::PinSource>,
    user: Option<u32>,
    algorithm: Option<Algorithm>,
    iv: Iv,
    backed_up: bool,
    vendor: VendorCodes,
}

impl Pkcs11 {
    /// Begins with the vendor's shared library, for example `/usr/lib/softhsm/libsofthsm2.so`. Loading it runs its code.
    pub fn builder(module: impl AsRef<Path>) -> Pkcs11Builder {
        Pkcs11Builder {
            module: module.as_ref().to_owned(),
            selector: Selector { label: None, serial: None },
            pin: None,
            user: None,
            algorithm: None,
            iv: Iv::default(),
            backed_up: false,
            vendor: VendorCodes::default(),
        }
    }
}

impl Pkcs11Builder {
    /// The token of this label, 1 to 32 bytes. Part of every KEK's URI.
    pub fn token_label(mut self, label: impl Into<String>) -> Self {
        self.selector.label = Some(label.into());
        self
    }

    /// The token of this serial number, 1 to 16 bytes; with a label as well, both have to fit. Part of every KEK's URI: name it
    /// only if records should not follow the label to another device, such as one of a cluster.
    pub fn token_serial(mut self, serial: impl Into<String>) -> Self {
        self.selector.serial = Some(serial.into());
        self
    }

    /// Where the PIN comes from. Asked at each login, on the library's own threads; what it returns is wiped after. An error is
    /// that of the call which needed the login: [`ProviderError::transient`] if the store of PINs does not answer. It must not call
    /// this provider.
    ///
    /// A PIN that the token rejected is not sent again, so that the token is not locked: not until this returns another one, or
    /// the token shows that somebody has logged in since. Left out for a token with a keypad of its own.
    pub fn pin(mut self, source: impl Fn() -> Result<Pin, ProviderError> + Send + Sync + 'static) -> Self {
        self.pin = Some(Box::new(source));
        self
    }

    /// Logs in as a type of user that the vendor added to the standard's, by its number. The crypto user of some HSMs is one.
    pub fn vendor_user(mut self, number: u32) -> Self {
        self.user = Some(number);
        self
    }

    /// Wraps with this algorithm only. Left out, it is the first of AES-GCM, AES key wrap with padding and AES key wrap that the
    /// token offers and the key allows; never RSA.
    ///
    /// Other algorithms of the same kind still unwrap, so that records survive a change: all of AES, or both of RSA. Never one of
    /// the other kind, because [`KeyProvider::wrap_is_authentic`] is true for AES and false for RSA.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// Lets the token make the IV of AES-GCM, for tokens that insist on it. A token that does not make one is refused.
    pub fn iv_from_token(mut self) -> Self {
        self.iv = Iv::Tokens;
        self
    }

    /// You vouch that a destroyed key can be brought back, from backups that whoever can destroy the key cannot destroy.
    /// PKCS#11 has no soft delete to ask for, so without this no KEK counts as recoverable, and no account is created
    /// on one unless told to accept the loss.
    pub fn backed_up_by_operator(mut self) -> Self {
        self.backed_up = true;
        self
    }

    /// Reads a vendor's own return value, `0x80000000` and above, as a refusal. All others of them count as silence.
    pub fn vendor_code(mut self, code: u64, refusal: Refusal) -> Self {
        self.vendor.add(code, refusal);
        self
    }

    /// Loads the module. The token is not asked for anything yet: it may be away.
    ///
    /// # Errors
    /// [`ErrorClass::Misconfigured`] when the module cannot be loaded, or neither label nor serial number was given, or one is
    /// of another length than tokens have.
    pub fn build(self) -> Result<Pkcs11, ProviderError> {
        let Self { module, selector, pin, user, algorithm, iv, backed_up, vendor } = self;
        let fits =
            |text: &Option<String>, max| text.as_ref().is_none_or(|text| (1..=max).contains(&text.len()));
        if selector.label.is_none() && selector.serial.is_none() {
            return Err(ProviderError::misconfigured(
                "name the token by its label, its serial number, or both",
            ));
        }
        if !fits(&selector.label, MAX_LABEL) || !fits(&selector.serial, MAX_SERIAL) {
            return Err(ProviderError::misconfigured(
                "a token's label has 1 to 32 bytes, its serial number 1 to 16",
            ));
        }
        let credential = Credential { user: user.map_or(UserType::User, UserType::VendorExtension), pin };
        let token = Token::new(Module::load(&module)?, selector.clone(), credential);
        Ok(Pkcs11 { token, selector, user, algorithm, iv, backed_up, vendor })
    }
}

impl Pkcs11 {
    fn family(&self) -> Family {
        self.algorithm.map_or(Family::Aes, Algorithm::family)
    }

    /// The version that a wrap under `kek` uses.
    fn version(&self, session: &Session, kek: &Kek) -> Result<(Id, ObjectHandle), Fault> {
        let part = Part::that_unwraps(self.family());
        match kek.version() {
            Some(pinned) => {
                let id = Id::of_version(pinned)?;
                let object = keys::find(session, kek.name(), &id, part)?;
                Ok((id, object))
            }
            None => keys::find_current(session, kek.name(), part),
        }
    }

    /// What an automatic choice goes by.
    fn rights(&self, session: &Session, object: ObjectHandle) -> Result<Rights, Fault> {
        if self.algorithm.is_some() { Ok(Rights::default()) } else { Rights::of(session, object) }
    }

    /// How a wrap under a key of these rights is made.
    fn algorithm_for(&self, link: &Link, rights: Rights) -> Result<Algorithm, ProviderError> {
        if let Some(algorithm) = self.algorithm {
            return Ok(algorithm);
        }
        let mut offered =
            Algorithm::AUTHENTIC.into_iter().filter(|algorithm| link.offers(algorithm.mechanism()));
        let allowed = offered.clone().find(|algorithm| rights.may_both(algorithm.wraps_objects()));
        // None is allowed: then the token shall say so itself.
        allowed.or_else(|| offered.next()).ok_or_else(|| {
            ProviderError::misconfigured(
                "the token offers neither AES-GCM nor AES key wrap: name an algorithm",
            )
        })
    }

    fn judge(&self, fault: Fault) -> ProviderError {
        fault.judge(&self.vendor)
    }

    /// Whether the token can wrap and unwrap under the version of `wrapped` right now: with something random, which is
    /// thrown away.
    fn works_with(&self, name: &str, id: &Id, algorithm: Algorithm, context: &WrapContext) -> bool {
        let round = |session: &Session, _: &Link| {
            let mut noise = [0; WrapInput::LEN];
            random::fill(&mut noise);
            let wraps = keys::find(session, name, id, Part::that_wraps(algorithm.family()))?;
            let unwraps = keys::find(session, name, id, Part::that_unwraps(algorithm.family()))?;
            let probe = WrapInput::from_slice(&noise)?;
            let wrapped = algorithm.wrap(session, wraps, context, &probe, self.iv)?;
            let back = algorithm.unwrap(session, unwraps, context, &wrapped)?;
            Ok(back.expose() == probe.expose())
        };
        self.token.run(round).unwrap_or(false)
    }
}

impl KeyProvider for Pkcs11 {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        let uri = self.authority().uri_of(kek.name())?;
        let wrap = |session: &Session, link: &Link| {
            let (id, object) = self.version(session, kek)?;
            let (algorithm, object) = match self.family() {
                Family::Aes => (self.algorithm_for(link, self.rights(session, object)?)?, object),
                Family::Rsa => {
                    let public = keys::find(session, kek.name(), &id, Part::Public)?;
                    (self.algorithm_for(link, Rights::default())?, public)
                }
            };
            let bytes = algorithm.wrap(session, object, context, secret, self.iv)?;
            Ok((id.to_version()?, algorithm.in_record()?, bytes))
        };
        let (version, algorithm, bytes) = self.token.run(wrap).map_err(|fault| self.judge(fault))?;
        Wrapped::new(uri, version, algorithm, bytes)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let authority = self.authority();
        let name = authority.name_of(wrapped.kek())?;
        let algorithm = Algorithm::of_record(wrapped.algorithm())
            .filter(|algorithm| algorithm.family() == self.family())
            .ok_or_else(|| {
                ProviderError::misconfigured(
                    "the wrap names an algorithm that this provider is not configured for",
                )
            })?;
        let id = Id::of_version(wrapped.version())?;
        let part = Part::that_unwraps(algorithm.family());
        let unwrap = |session: &Session, _: &Link| {
            let object = keys::find(session, name, &id, part)?;
            algorithm.unwrap(session, object, context, wrapped.bytes())
        };
        match self.token.run(unwrap) {
            // Is it the token that fails, or what it was given? It is asked whether it can unwrap something else, and then once
            // more, so that trouble which has passed in between is not held against the wrap.
            Err(fault) if fault.says_nothing() && self.works_with(name, &id, algorithm, context) => {
                match self.token.run(unwrap) {
                    Err(fault) if fault.says_nothing() => Err(ProviderError::integrity(
                        "the token unwraps others under this key, and not this one: it does not authenticate",
                    )),
                    answer => answer.map_err(|fault| self.judge(fault)),
                }
            }
            answer => answer.map_err(|fault| self.judge(fault)),
        }
    }

    /// Soft delete and purge protection are what [`Pkcs11Builder::backed_up_by_operator`] said. `enabled` is the attribute that
    /// the unwrap needs, and `expires` the end of `CKA_END_DATE`.
    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let uri = self.authority().uri_of(kek.name())?;
        let describe = |session: &Session, link: &Link| {
            let (id, object) = self.version(session, kek)?;
            let rights = Rights::of(session, object)?;
            let algorithm = self.algorithm_for(link, rights)?;
            let mut info = KekInfo::new(uri.clone(), id.to_version()?);
            info.enabled = rights.may_unwrap(algorithm.wraps_objects());
            info.expires = keys::expires(session, object);
            info.soft_delete = self.backed_up;
            info.purge_protection = self.backed_up;
            info.hsm_backed = Some(link.hardware);
            Ok(info)
        };
        self.token.run(describe).map_err(|fault| self.judge(fault))
    }

    /// `pkcs11`, and the token by what the builder named: `token=orders;serial=1234`.
    fn authority(&self) -> Authority {
        let authority = Authority::new("pkcs11", self.selector.endpoint());
        match self.user {
            Some(number) => authority.with_credential_name(format!("vendor user {number}")),
            None => authority,
        }
    }

    fn wrap_is_authentic(&self) -> bool {
        self.family() == Family::Aes
    }
}

impl fmt::Debug for Pkcs11 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11")
            .field("token", &self.selector)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Pkcs11Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Builder")
            .field("module", &self.module)
            .field("token", &self.selector)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

const MAX_LABEL: usize = 32;
const MAX_SERIAL: usize = 16;
