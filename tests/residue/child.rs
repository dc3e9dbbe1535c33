//! The process that is searched: it holds an account, uses it, and loses it.

use std::io::stdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(feature = "tokio")]
use strongroom::provider::{AsyncKeyProvider, OnTokio};
use strongroom::provider::{
    Authority, Kek, KekInfo, KeyOptions, KeyProvider, LocalKms, ProviderError, WrapContext, WrapInput,
    Wrapped,
};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Engine, ObjectId, Refusal, Status, Suite,
};
use zeroize::Zeroizing;

use crate::needles::to_hex;

/// Set for this process.
pub(crate) const VARIABLE: &str = "STRONGROOM_RESIDUE_CHILD";

/// How the provider is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Blocking,
    #[cfg(feature = "tokio")]
    Awaited,
}

/// Lives until it is told to end. What the parent has to know it prints on lines that begin with `@`.
pub(crate) fn live(engine: Engine, form: Form, suite: Suite) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kms.json");
    let kms = LocalKms::create(&file).expect("creates");
    KEKS.iter().for_each(|kek| drop(kms.create_key(kek, KeyOptions::default()).expect("creates")));
    let telltale = Telltale { kms, told: Mutex::new(Vec::new()) };
    let kms: Arc<dyn KeyProvider> = match form {
        Form::Blocking => Arc::new(telltale),
        #[cfg(feature = "tokio")]
        Form::Awaited => Arc::new(OnTokio::with_own_runtime(Awaited(telltale)).expect("a runtime")),
    };
    let cache = AekCache::builder()
        .refresh_every(Duration::from_secs(6))
        .call_deadline(Duration::from_secs(5))
        .engine(engine)
        .build()
        .expect("the settings are in range");
    let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), Kek::latest(KEKS[0]));
    let spec = match suite {
        Suite::Double => spec.double_encryption(kms, Kek::latest(KEKS[1])),
        _ => spec,
    };
    let account = cache.create(spec).expect("the KEKs are fit");
    // Published, and held from the next refresh on; the block below is still of the first.
    account.rotate_aek().expect("another generation");

    open_until_told(&account);
    tell("idle");
    hold_what_is_planted();

    // Under double encryption it is the second one's customer who takes it away.
    let refusing = if suite == Suite::Double { KEKS[1] } else { KEKS[0] };
    LocalKms::open(&file).expect("opens").disable_key(refusing).expect("disables");
    wait_until(|| account.status() == Status::Revoked(Refusal::KeyDisabled));
    // The event loop has published this and lets go of the keys.
    thread::sleep(Duration::from_millis(200));
    tell("revoked");
    listen();
}

/// Opens one block over and over, so that it can be caught with the block's key.
fn open_until_told(account: &Account) {
    let id = BlockId::new(ObjectId::random(), 7);
    let sealed = account.seal(id, Aad::EMPTY, &vec![0; 1 << 20]).expect("a lease");
    let told = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            tell(&format!("sealed {} {}", to_hex(id.object().as_bytes()), to_hex(&sealed[8..32])));
            listen();
            told.store(true, Ordering::Relaxed);
        });
        let mut plain = vec![0; 1 << 20];
        while !told.load(Ordering::Relaxed) {
            let permit = account.permit().expect("a lease");
            permit.open_into(id, Aad::EMPTY, &sealed, &mut plain).expect("opens");
        }
    });
}

/// The parent sends what it will search for, in hexadecimal; here it is as it would be in memory.
fn hold_what_is_planted() {
    let line = listen();
    let mut planted = Vec::new();
    for word in line.split_whitespace() {
        let mut bytes = Zeroizing::new(Vec::with_capacity(32));
        for pair in word.as_bytes().chunks(2) {
            let digits = std::str::from_utf8(pair).expect("digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
        }
        planted.push(bytes);
    }
    tell("planted");
    listen();
}

/// A provider that tells the parent each AEK once, masked, and waits while it holds it.
#[derive(Debug)]
struct Telltale {
    kms: LocalKms,
    /// Generation and role of those that were told.
    told: Mutex<Vec<(u32, u8)>>,
}

impl KeyProvider for Telltale {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.kms.wrap(kek, context, secret)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let secret = self.kms.unwrap(wrapped, context)?;
        let (generation, role) = (context.generation().number(), context.to_bytes()[WrapContext::LEN - 2]);
        let mut told = self.told.lock().expect("nobody panics");
        // What a preflight unwraps is thrown away.
        if role != PREFLIGHT && !told.contains(&(generation, role)) {
            told.push((generation, role));
            let masked = masked(&secret.expose()[WrapInput::LEN - 32..]);
            let account = to_hex(context.account().as_bytes());
            tell(&format!("held {} {account} {generation} {role}", to_hex(&masked)));
            listen();
        }
        Ok(secret)
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.kms.describe(kek)
    }

    fn authority(&self) -> Authority {
        self.kms.authority()
    }
}

/// The same on a runtime.
#[cfg(feature = "tokio")]
#[derive(Debug)]
struct Awaited(Telltale);

#[cfg(feature = "tokio")]
impl AsyncKeyProvider for Awaited {
    async fn wrap(
        &self,
        kek: &Kek,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> Result<Wrapped, ProviderError> {
        self.0.wrap(kek, context, secret)
    }

    async fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.0.unwrap(wrapped, context)
    }

    async fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.0.describe(kek)
    }

    fn authority(&self) -> Authority {
        self.0.authority()
    }
}

/// Neither a secret nor random: it only has to make other bytes of a secret, and back.
pub(crate) fn masked(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().zip(1_u8..).map(|(byte, number)| byte ^ number.wrapping_mul(0x9d)).collect()
}

/// On a line of its own: the test harness prints as well.
fn tell(line: &str) {
    println!("\n@{line}");
}

fn listen() -> String {
    let mut line = String::new();
    stdin().read_line(&mut line).expect("the parent talks");
    assert!(!line.is_empty(), "the parent is gone");
    line
}

fn wait_until(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The second is that of double encryption.
const KEKS: [&str; 2] = ["orders", "second"];
/// The role of what a preflight wraps (docs/FORMAT.md).
const PREFLIGHT: u8 = 255;
