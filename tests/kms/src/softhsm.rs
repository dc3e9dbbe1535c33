//! SoftHSM: tokens in a folder of their own, what their administrator does, and a module that answers as it is told.
//!
//! The library reads its configuration from `SOFTHSM2_CONF` when it is initialised, once for a process. Setting a variable in
//! a process with threads is unsafe, so whoever uses a token runs as a process of its own: see [`with_token`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::{AuthPin, Date};

use crate::install::installed;

/// A folder with tokens, as this process sees it.
#[derive(Debug)]
pub struct SoftHsm {
    folder: PathBuf,
}

impl SoftHsm {
    /// The label of the first token.
    pub const LABEL: &'static str = "strongroom tests";
    /// The user's PIN: a mark that is found wherever it does not belong.
    pub const PIN: &'static str = "PINMARK-4711-PINMARK";
    /// The security officer's PIN.
    pub const SO_PIN: &'static str = "SOMARK-0815-SOMARK";

    /// Makes a folder at `folder` with one token. Starts processes, and touches nothing in this one.
    ///
    /// # Panics
    /// When SoftHSM cannot be installed, or says no.
    #[must_use]
    pub fn create(folder: &Path) -> Self {
        let made = Self { folder: folder.to_owned() };
        fs::create_dir_all(made.tokens()).expect("a folder for tokens");
        let tokens = made.tokens();
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        fs::write(made.configuration(), configuration).expect("a configuration");
        made.add_token(Self::LABEL);
        made
    }

    /// Adds a token of this label, with the PINs above.
    ///
    /// # Panics
    /// When SoftHSM says no.
    pub fn add_token(&self, label: &str) {
        let arguments =
            ["--init-token", "--free", "--label", label, "--pin", Self::PIN, "--so-pin", Self::SO_PIN];
        let output = self.command(&program("softhsm2-util")).args(arguments).output();
        expect_success(&output.expect("softhsm2-util runs"));
    }

    /// `pkcs11-tool`, the tool that operators use, logged in at the first token.
    ///
    /// # Panics
    /// When it says no.
    pub fn pkcs11_tool(&self, arguments: &[&str]) {
        self.pkcs11_tool_with_pin(Self::PIN, arguments);
    }

    /// The same with another PIN.
    ///
    /// # Panics
    /// When it says no.
    pub fn pkcs11_tool_with_pin(&self, pin: &str, arguments: &[&str]) {
        let mut command = self.command(&program("pkcs11-tool"));
        command.arg("--module").arg(module());
        command.args(["--token-label", Self::LABEL, "--login", "--pin", pin]).args(arguments);
        expect_success(&command.output().expect("pkcs11-tool runs"));
    }

    /// A command that sees these tokens.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", self.configuration()).stdin(Stdio::null());
        command
    }

    /// Where the tokens lie. To move it away is to pull the plug.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    /// A folder for whatever belongs to these tokens.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
    }
}

/// SoftHSM's library.
#[must_use]
pub fn module() -> PathBuf {
    installed("softhsm").join("lib/libsofthsm2.so")
}

fn program(name: &str) -> PathBuf {
    installed("softhsm").join("bin").join(name)
}

fn expect_success(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Runs `body` with a fresh token, in a child of this process that runs the same test alone. `name` is the test's, as
/// `cargo test` lists it.
///
/// # Panics
/// With the child's words when the body panics, or has not ended after three minutes.
pub fn with_token(name: &str, body: impl FnOnce(&SoftHsm)) {
    if let Some(folder) = std::env::var_os(CHILD) {
        body(&SoftHsm { folder: folder.into() });
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let hsm = SoftHsm::create(folder.path());
    Faults::build(&hsm);
    let log = folder.path().join("log");
    let file = fs::File::create(&log).expect("a log");
    let mut command = hsm.command(&std::env::current_exe().expect("this program has a path"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, folder.path()).env("STRONGROOM_REAL_MODULE", module());
    command.stdout(file.try_clone().expect("a log")).stderr(file);
    let mut child = command.spawn().expect("this program runs");
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break Some(status),
            None if begun.elapsed() > PATIENCE => {
                drop(child.kill());
                drop(child.wait());
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let log = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    let status = status.unwrap_or_else(|| panic!("{name} has not ended after {PATIENCE:?}:\n{log}"));
    // A name that fits no test would run none, and succeed.
    assert!(status.success() && log.contains("1 passed"), "{name} in a process of its own:\n{log}");
    // The first may stand behind the test's name.
    log.lines()
        .filter_map(|line| {
            ["measured |", "evidence "].iter().find_map(|mark| line.find(mark)).map(|at| &line[at..])
        })
        .for_each(|line| println!("{line}"));
}

/// What the customer does at the token. In this process it shares the login of everybody in it.
#[derive(Debug)]
pub struct Administrator {
    session: Session,
}

/// What a new AES key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Encrypt and decrypt: AES-GCM.
    Encrypt,
    /// Wrap and unwrap: AES key wrap.
    Wrap,
    /// All four.
    Both,
}

impl Administrator {
    /// Logs in at the first token through the library at `module`.
    ///
    /// # Errors
    /// What the token says.
    pub fn log_in(module: &Path) -> Result<Self, Error> {
        Self::log_in_at(module, SoftHsm::LABEL)
    }

    /// Logs in at the token of this label.
    ///
    /// # Errors
    /// What the token says.
    pub fn log_in_at(module: &Path, label: &str) -> Result<Self, Error> {
        Self::log_in_with(module, label, SoftHsm::PIN)
    }

    /// The same with this PIN.
    ///
    /// # Errors
    /// What the token says.
    pub fn log_in_with(module: &Path, label: &str, user: &str) -> Result<Self, Error> {
        let context = Pkcs11::new(module)?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(error),
        }
        let mut slots = context.get_slots_with_initialized_token()?.into_iter();
        let fits = |slot: &_| context.get_token_info(*slot).is_ok_and(|token| token.label() == label);
        let slot = slots.find(fits).ok_or(Error::InvalidValue)?;
        let session = context.open_rw_session(slot)?;
        match session.login(UserType::User, Some(&pin(user))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(Self { session }),
            Err(error) => Err(error),
        }
    }

    /// The session, for what has no method here.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Makes an AES-256 key that can be taken out, so that it can be backed up.
    ///
    /// # Errors
    /// What the token says.
    pub fn create(&self, label: &str, id: &[u8], usage: Use) -> Result<(), Error> {
        let mut template = described(label, id, usage);
        template.push(Attribute::ValueLen(32.into()));
        self.session.generate_key(&Mechanism::AesKeyGen, &template).map(drop)
    }

    /// The same, with a last day, and visible to all: SoftHSM cannot read the dates of private objects.
    ///
    /// # Errors
    /// What the token says.
    pub fn create_until(&self, label: &str, id: &[u8], last: [&str; 3]) -> Result<(), Error> {
        let mut template = described(label, id, Use::Encrypt);
        template.retain(|attribute| !matches!(attribute, Attribute::Private(_)));
        template.push(Attribute::Private(false));
        template.push(Attribute::ValueLen(32.into()));
        template.push(Attribute::EndDate(Date::new_from_str_slice(last[0], last[1], last[2])?));
        self.session.generate_key(&Mechanism::AesKeyGen, &template).map(drop)
    }

    /// Makes a pair of RSA keys of 2048 bits.
    ///
    /// # Errors
    /// What the token says.
    pub fn create_pair(&self, label: &str, id: &[u8]) -> Result<(), Error> {
        let common =
            || vec![Attribute::Token(true), Attribute::Label(label.into()), Attribute::Id(id.into())];
        let mut public = common();
        public.extend([
            Attribute::ModulusBits(2048.into()),
            Attribute::PublicExponent(vec![1, 0, 1]),
            Attribute::Encrypt(true),
        ]);
        let mut private = common();
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(false),
            Attribute::Extractable(true),
            Attribute::Decrypt(true),
        ]);
        self.session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).map(drop)
    }

    /// Allows or forbids decrypting and unwrapping. `usage` says which of them the key was made for.
    ///
    /// # Errors
    /// What the token says.
    pub fn allow(&self, label: &str, id: &[u8], usage: Use, allowed: bool) -> Result<(), Error> {
        let object = self.find(label, id)?;
        let mut template = Vec::new();
        if usage != Use::Wrap {
            template.push(Attribute::Decrypt(allowed));
        }
        if usage != Use::Encrypt {
            template.push(Attribute::Unwrap(allowed));
        }
        self.session.update_attributes(object, &template)
    }

    /// Destroys a key, after writing a backup of it to `file`. Of a pair, the private key: the public one is no secret, and stays.
    ///
    /// # Errors
    /// What the token says.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn destroy(&self, label: &str, id: &[u8], file: &Path) -> Result<(), Error> {
        let object = self.find(label, id)?;
        let secret = self.session.get_attributes(object, &SECRETS)?;
        let lines: Vec<String> = secret.into_iter().filter_map(|part| secret_of(part).map(hex)).collect();
        fs::write(file, lines.join("\n")).expect("a backup");
        self.session.destroy_object(object)
    }

    /// Destroys a key for good.
    ///
    /// # Errors
    /// What the token says.
    pub fn discard(&self, label: &str, id: &[u8]) -> Result<(), Error> {
        self.session.destroy_object(self.find(label, id)?)
    }

    /// Brings back what [`Self::destroy`] has put aside.
    ///
    /// # Errors
    /// What the token says.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn restore(&self, label: &str, id: &[u8], usage: Use, file: &Path) -> Result<(), Error> {
        let backup = fs::read_to_string(file).expect("a backup");
        let parts: Vec<Vec<u8>> = backup.lines().map(bytes).collect();
        let template = match parts.as_slice() {
            [value] => {
                let mut template = described(label, id, usage);
                template.push(Attribute::Value(value.clone()));
                template
            }
            [modulus, public, private, prime1, prime2, exponent1, exponent2, coefficient] => vec![
                Attribute::Class(ObjectClass::PRIVATE_KEY),
                Attribute::KeyType(KeyType::RSA),
                Attribute::Decrypt(true),
                Attribute::Modulus(modulus.clone()),
                Attribute::PublicExponent(public.clone()),
                Attribute::PrivateExponent(private.clone()),
                Attribute::Prime1(prime1.clone()),
                Attribute::Prime2(prime2.clone()),
                Attribute::Exponent1(exponent1.clone()),
                Attribute::Exponent2(exponent2.clone()),
                Attribute::Coefficient(coefficient.clone()),
                Attribute::Label(label.into()),
                Attribute::Id(id.into()),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(false),
                Attribute::Extractable(true),
            ],
            _ => return Err(Error::InvalidValue),
        };
        self.session.create_object(&template).map(drop)
    }

    /// The AES key, or the private key, of this label and id.
    fn find(&self, label: &str, id: &[u8]) -> Result<ObjectHandle, Error> {
        for class in [ObjectClass::SECRET_KEY, ObjectClass::PRIVATE_KEY] {
            let template =
                [Attribute::Class(class), Attribute::Label(label.into()), Attribute::Id(id.into())];
            if let Some(object) = self.session.find_objects(&template)?.first() {
                return Ok(*object);
            }
        }
        Err(Error::InvalidValue)
    }
}

fn described(label: &str, id: &[u8], usage: Use) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
        Attribute::Encrypt(usage != Use::Wrap),
        Attribute::Decrypt(usage != Use::Wrap),
        Attribute::Wrap(usage != Use::Encrypt),
        Attribute::Unwrap(usage != Use::Encrypt),
        Attribute::Label(label.into()),
        Attribute::Id(id.into()),
    ]
}

/// What a backup of a key holds, in the order in which a private key is put together again.
const SECRETS: [AttributeType; 9] = [
    AttributeType::Value,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::PrivateExponent,
    AttributeType::Prime1,
    AttributeType::Prime2,
    AttributeType::Exponent1,
    AttributeType::Exponent2,
    AttributeType::Coefficient,
];

fn secret_of(attribute: Attribute) -> Option<Vec<u8>> {
    match attribute {
        Attribute::Value(bytes)
        | Attribute::Modulus(bytes)
        | Attribute::PublicExponent(bytes)
        | Attribute::PrivateExponent(bytes)
        | Attribute::Prime1(bytes)
        | Attribute::Prime2(bytes)
        | Attribute::Exponent1(bytes)
        | Attribute::Exponent2(bytes)
        | Attribute::Coefficient(bytes) => Some(bytes),
        _ => None,
    }
}

fn hex(bytes: Vec<u8>) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("a backup of ours");
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// A PIN as cryptoki takes it.
#[must_use]
pub fn pin(text: &str) -> AuthPin {
    AuthPin::new(text.into())
}

/// A module that stands before SoftHSM's and answers what it is told, for chosen functions.
#[derive(Debug)]
pub struct Faults {
    module: PathBuf,
}

impl Faults {
    /// Compiles it.
    fn build(hsm: &SoftHsm) {
        let faults = Self::of(hsm);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fault_module.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        let output = compiler.arg(&faults.module).arg(source).arg("-ldl").output();
        expect_success(&output.expect("a C compiler"));
    }

    /// The one of the token that this process runs with.
    #[must_use]
    pub fn of(hsm: &SoftHsm) -> Self {
        Self { module: hsm.folder().join("fault_module.so") }
    }

    /// One more, which is told apart from the others.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn another(hsm: &SoftHsm, name: &str) -> Self {
        let module = hsm.folder().join(format!("fault_module_{name}.so"));
        fs::copy(Self::of(hsm).module, &module).expect("copies");
        Self { module }
    }

    /// How often `function` was called so far.
    #[must_use]
    pub fn calls(&self, function: &str) -> usize {
        let calls = fs::read_to_string(self.module.with_extension("so.calls")).unwrap_or_default();
        calls.lines().filter(|name| *name == function).count()
    }

    /// The module to load.
    #[must_use]
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// From now on `function` answers `code`, the first `times` times that it is called.
    ///
    /// # Panics
    /// When the control file cannot be written.
    pub fn answer(&self, function: &str, code: u64, times: u32) {
        self.tell(&format!("{function} answer {code:#x} {times}\n"));
    }

    /// From now on `function` takes this long.
    ///
    /// # Panics
    /// When the control file cannot be written.
    pub fn delay(&self, function: &str, by: Duration) {
        self.tell(&format!("{function} delay {:#x} 1000000\n", by.as_millis()));
    }

    /// From now on the token is said to have these flags as well.
    ///
    /// # Panics
    /// When the control file cannot be written.
    pub fn token_flags(&self, flags: u64) {
        self.tell(&format!("C_GetTokenInfo flags {flags:#x} 1000000\n"));
    }

    /// From now on the token makes the IV of AES-GCM: this byte, twelve times.
    ///
    /// # Panics
    /// When the control file cannot be written.
    pub fn iv(&self, byte: u8) {
        self.tell(&format!("C_EncryptInit iv {byte:#x} 1000000\n"));
    }

    /// From now on `function`, `C_Decrypt` or `C_GetMechanismList`, says that its result has this length.
    ///
    /// # Panics
    /// When the control file cannot be written.
    pub fn length(&self, function: &str, length: u64) {
        self.tell(&format!("{function} length {length:#x} 1000000\n"));
    }

    /// Nothing is changed any more.
    ///
    /// # Panics
    /// When the control file cannot be written.
    pub fn none(&self) {
        self.tell("");
    }

    fn tell(&self, text: &str) {
        // Replaced whole: the module reads it at every call.
        let new = self.module.with_extension("so.new");
        fs::write(&new, text).expect("a control file");
        fs::rename(new, self.module.with_extension("so.faults")).expect("a control file");
    }
}

const CHILD: &str = "STRONGROOM_SOFTHSM";
const PATIENCE: Duration = Duration::from_secs(180);
