//! A customer's key in an HSM, through PKCS#11: they take it away and give it back, and the data follows.
//!
//! ```text
//! cargo run --release --manifest-path tests/kms/Cargo.toml --example pkcs11
//! ```
//! Starts SoftHSM with a token of its own, or uses yours: set `PKCS11_MODULE`, `PKCS11_TOKEN` and `PKCS11_PIN`. It makes a
//! key there and destroys it at the end. Takes about 20 s, because it waits for real refreshes at the shortest interval, 6 s.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::pkcs11::{Pin, Pkcs11};
use strongroom::provider::{Kek, KeyProvider, ProviderError, preflight};
use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ErrorKind, ObjectId, Refusal};
use strongroom_kms_tests::softhsm::{Administrator, SoftHsm, Use, module};
use strongroom_kms_tests::wait::wait_until;

fn main() -> ExitCode {
    let outcome = match (env::var("PKCS11_MODULE"), env::var("PKCS11_TOKEN"), env::var("PKCS11_PIN")) {
        (Ok(module), Ok(token), Ok(pin)) => tell(Path::new(&module), &token, &pin),
        _ => with_softhsm(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn tell(module: &Path, token: &str, pin: &str) -> Result<(), Box<dyn Error>> {
    // The customer's side. A KEK is a label, a version an id.
    let customer = Administrator::log_in_with(module, token, pin)?;
    let name = format!("strongroom example {}", AccountId::random());
    customer.create(&name, &[1], Use::Encrypt)?;
    println!("customer  made the AES key {name:?}, version 01, on the token {token:?}");

    let pin = pin.to_owned();
    let hsm = Pkcs11::builder(module)
        .token_label(token)
        // Asked at each login. A real one would ask a store of secrets.
        .pin(move || if pin.is_empty() { Err(no_pin()) } else { Ok(Pin::new(pin.clone())) })
        .build()?;
    let hsm: Arc<dyn KeyProvider> = Arc::new(hsm);
    let kek = Kek::latest(name.as_str());
    println!("\n{}\n", preflight(hsm.as_ref(), &kek));

    let cache = AekCache::builder().refresh_every(Duration::from_secs(6)).build()?;
    // PKCS#11 knows no soft delete. Who has backups says so by `backed_up_by_operator`; this example has none.
    let spec = AccountSpec::new(AccountId::random(), hsm, kek).allow_unrecoverable_kek();
    let account = cache.create(spec)?;
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"a page of a database")?;
    let read = || account.open(id, Aad::EMPTY, &sealed);
    read()?;
    println!("engine    sealed a block under it, {} bytes, and opened it", sealed.len());

    customer.allow(&name, &[1], Use::Encrypt, false)?;
    println!("customer  set CKA_DECRYPT to false");
    let refused = wait_until(PATIENCE, || read().is_err()).ok_or("still readable")?;
    let error = read().err().ok_or("readable again by itself")?;
    println!("engine    refused after {refused:.1?}: {error}");
    if (error.kind(), error.refusal()) != (ErrorKind::Revoked, Some(Refusal::KeyDisabled)) {
        return Err("refused for another reason".into());
    }

    customer.allow(&name, &[1], Use::Encrypt, true)?;
    println!("customer  set it to true");
    let back = wait_until(PATIENCE, || read().is_ok()).ok_or("still refused")?;
    println!("engine    reads again after {back:.1?}");

    customer.create(&name, &[2], Use::Encrypt)?;
    account.rotate_kek(strongroom::RotateTo::Latest)?;
    println!("customer  made version 02; the account is under version {}", account.record().kek_version());
    customer.discard(&name, &[1])?;
    account.lock();
    account.unlock()?;
    read()?;
    println!("engine    reads without version 01");
    customer.discard(&name, &[2])?;
    Ok(())
}

fn no_pin() -> ProviderError {
    ProviderError::transient("there is no PIN just now")
}

/// SoftHSM reads where its tokens are from the environment: this program once more, with a token.
fn with_softhsm() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let hsm = SoftHsm::create(folder.path());
    let mut again: Command = hsm.command(&env::current_exe()?);
    again.env("PKCS11_MODULE", module()).env("PKCS11_TOKEN", SoftHsm::LABEL).env("PKCS11_PIN", SoftHsm::PIN);
    if again.status()?.success() { Ok(()) } else { Err("a step did not hold".into()) }
}

/// Longer than an interval and a call.
const PATIENCE: Duration = Duration::from_secs(10);
