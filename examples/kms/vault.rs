//! A customer's key in OpenBao or HashiCorp Vault: seal, open, take the key away, give it back.
//!
//! ```text
//! cargo run --release --manifest-path tests/kms/Cargo.toml --example vault
//! ```
//! starts an OpenBao of its own. With `VAULT_ADDR` and `VAULT_TOKEN` it uses yours: the token must be allowed to make
//! the key `strongroom-example` at `transit/`, to soft-delete it, and to restore it.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider, Recoverability, preflight};
use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ErrorKind, ObjectId};
use strongroom_kms_tests::openbao::{Customer, OpenBao};

const KEY: &str = "strongroom-example";

fn main() -> Result<(), Box<dyn Error>> {
    // 1. A Vault: yours, or one for this run.
    let (customer, _server) = match (env::var("VAULT_ADDR"), env::var("VAULT_TOKEN")) {
        (Ok(address), Ok(token)) => (Customer::at(&address, &token)?, None),
        _ => {
            let server = OpenBao::start();
            (server.customer(), Some(server))
        }
    };
    customer.create_key(KEY);
    println!("1. the customer's key is at {}", customer.url());

    // 2. Connect. A service would sign in with `Login::kubernetes` or `Login::app_role`.
    let login = Login::token(SecretText::new(customer.token()));
    let kms: Arc<dyn KeyProvider> = Arc::new(VaultTransit::builder(customer.url(), login).build()?);
    let kek = Kek::latest(KEY);
    let report = preflight(kms.as_ref(), &kek);
    println!("2. {report}");
    report.require(Recoverability::Required)?;

    // 3. An account under that key. Six seconds is the shortest interval; the default is thirty.
    let cache = AekCache::builder().refresh_every(Duration::from_secs(6)).build()?;
    let account = cache.create(AccountSpec::new(AccountId::random(), kms, kek))?;
    let id = BlockId::new(ObjectId::random(), 0);
    let aad = Aad::new(b"invoices");
    let sealed = account.seal(id, aad, b"what the customer entrusted to us")?;
    assert_eq!(account.open(id, aad, &sealed)?, b"what the customer entrusted to us");
    println!("3. sealed {} bytes and opened them", sealed.len());

    // 4. The customer takes the key away. Nobody tells us: the next refresh finds out.
    customer.soft_delete_key(KEY);
    let taken = Instant::now();
    let error = loop {
        match account.open(id, aad, &sealed) {
            Ok(_) if taken.elapsed() < cache.staleness_bound() => thread::sleep(Duration::from_millis(50)),
            Ok(_) => return Err("still readable after the bound".into()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Revoked);
    println!(
        "4. refused after {:.1} s (bound {:.1} s): {error}",
        seconds(taken),
        cache.staleness_bound().as_secs_f64()
    );

    // 5. And gives it back. Nothing has to be restarted.
    customer.restore_key(KEY);
    let returned = Instant::now();
    while account.open(id, aad, &sealed).is_err() {
        if returned.elapsed() > Duration::from_secs(10) {
            return Err("not readable again".into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    println!("5. readable again after {:.1} s", seconds(returned));
    Ok(())
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
