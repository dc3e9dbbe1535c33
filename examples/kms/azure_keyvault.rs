//! Azure Key Vault as the holder of the KEK: connect, check, seal, and see the customer take the key away.
//!
//! ```text
//! cargo run --release --manifest-path tests/kms/Cargo.toml --example azure_keyvault
//! ```
//! Without more it starts the Key Vault of the tests on loopback. With AZURE_KEYVAULT_URL, KEY_NAME, AZURE_TENANT_ID,
//! AZURE_CLIENT_ID and AZURE_CLIENT_SECRET it uses that RSA key at Azure: it disables and enables it, so take one that
//! nobody else uses, and an application that may update it. The steps after the first are the same for every key service.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::ClientOptions;
use azure_identity::ClientSecretCredential;
use azure_security_keyvault_keys::models::{KeyAttributes, UpdateKeyPropertiesParameters};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use strongroom::provider::azure_keyvault::AzureKeyVault;
use strongroom::provider::{Kek, KeyProvider, OnTokio, Verdict, preflight};
use strongroom::{Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Expect, ObjectId, Refusal};
use strongroom_kms_tests::key_vault::{CLIENT_SECRET, KeyVault, VAULT};
use tokio::runtime::Handle;

type Failure = Box<dyn Error + Send + Sync>;

/// Which vault, and how to get there.
struct Place {
    url: String,
    name: String,
    /// `ManagedIdentityCredential` and `WorkloadIdentityCredential` are credentials as well.
    credential: Arc<dyn TokenCredential>,
    /// The defaults, but for the vault of the tests.
    options: ClientOptions,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (place, _server) = match from_environment() {
        Some(place) => (place?, None),
        None => {
            println!("no vault in the environment: the one of the tests it is");
            let server = tokio::task::spawn_blocking(KeyVault::start).await?;
            server.create(VAULT, "orders", "RSA");
            let (url, name) = (format!("https://{VAULT}"), "orders".to_owned());
            let (credential, options) = (server.places().secret(CLIENT_SECRET), server.places().options());
            (Place { url, name, credential, options }, Some(server))
        }
    };
    let Place { url, name, credential, options } = place;

    // The provider, on the runtime of this program.
    let vault =
        AzureKeyVault::vault(&url, Arc::clone(&credential)).client_options(options.clone()).build()?;
    let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(vault, Handle::current()));
    let kek = Kek::latest(&name);

    // Preflight blocks: on a thread for that.
    let report = tokio::task::spawn_blocking({
        let (kms, kek) = (Arc::clone(&kms), kek.clone());
        move || preflight(kms.as_ref(), &kek)
    });
    let report = report.await?;
    println!("{report}\n");
    if report.verdict() != Verdict::Ready {
        return Err("the key is not fit".into());
    }

    let cache = AekCache::builder().refresh_every(Duration::from_secs(6)).build()?;
    let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), kek);
    let account = cache.begin_create(spec).await?;
    let record = account.record();
    println!("account {} under version {}", account.id(), record.kek_version());
    let block = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(block, Aad::EMPTY, b"the customer's data")?;

    // Anybody with the public key can wrap for it. So whoever attaches this record says which AEK is in it; keep the
    // fingerprint where the record's writers cannot reach it.
    let expect = Expect::account(account.id()).kek(kms, &name).fingerprint(record.fingerprint());
    let elsewhere = AekCache::builder().build()?;
    let attached = elsewhere.attach(record, expect)?;
    attached.ready().await?;
    println!("sealed here, opened elsewhere: {}", String::from_utf8_lossy(&read(&attached, block, &sealed)?));

    // The customer's side, with a client of their own.
    let client_options = KeyClientOptions { client_options: options, ..KeyClientOptions::default() };
    let customer = KeyClient::new(&url, credential, Some(client_options))?;
    enable(&customer, &name, false).await?;
    println!("the customer disables the key");
    let refused = until(|| read(&account, block, &sealed).is_err()).await?;
    let refusal = read(&account, block, &sealed).err().and_then(|error| error.refusal());
    println!("  refused after {refused:.1?}: {refusal:?}");

    enable(&customer, &name, true).await?;
    println!("the customer enables it again");
    let back = until(|| read(&account, block, &sealed).is_ok()).await?;
    println!("  readable after {back:.1?}, by itself");
    if refusal == Some(Refusal::KeyDisabled) { Ok(()) } else { Err("not for the reason that we gave".into()) }
}

fn read(account: &Account, block: BlockId, sealed: &[u8]) -> Result<Vec<u8>, strongroom::Error> {
    account.open(block, Aad::EMPTY, sealed)
}

async fn enable(customer: &KeyClient, name: &str, enabled: bool) -> Result<(), Failure> {
    let key_attributes = Some(KeyAttributes { enabled: Some(enabled), ..KeyAttributes::default() });
    let change = UpdateKeyPropertiesParameters { key_attributes, ..UpdateKeyPropertiesParameters::default() };
    customer.update_key_properties(name, change.try_into()?, None).await?;
    Ok(())
}

/// Within an interval and a call deadline.
async fn until(done: impl Fn() -> bool) -> Result<Duration, &'static str> {
    let began = Instant::now();
    while !done() {
        if began.elapsed() > Duration::from_secs(60) {
            return Err("it did not happen within a minute");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(began.elapsed())
}

fn from_environment() -> Option<Result<Place, Failure>> {
    let get = |name: &str| env::var(name).ok();
    let (tenant, client) = (get("AZURE_TENANT_ID")?, get("AZURE_CLIENT_ID")?);
    let secret = Secret::new(get("AZURE_CLIENT_SECRET")?);
    let (url, name) = (get("AZURE_KEYVAULT_URL")?, get("KEY_NAME")?);
    let credential = ClientSecretCredential::new(&tenant, client, secret, None);
    Some(credential.map_err(Failure::from).map(|credential| {
        let options = ClientOptions::default();
        Place { url, name, credential, options }
    }))
}
