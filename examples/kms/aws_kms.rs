//! AWS KMS as the holder of the KEK: connect, check, seal, and see the customer take the key away.
//!
//! ```text
//! cargo run --release --manifest-path tests/kms/Cargo.toml --example aws_kms
//! ```
//! Without more it starts ministack, an emulator, on loopback. With AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
//! AWS_REGION and KMS_KEY_ID (AWS_SESSION_TOKEN, AWS_ENDPOINT_URL as needed) it uses that key at AWS: it disables and
//! enables it, so take one that nobody else uses. The steps after the first are the same for every key service.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kms::{Client, Config};
use strongroom::provider::aws_kms::AwsKms;
use strongroom::provider::{Kek, KeyProvider, OnTokio, Verdict};
use strongroom::{Aad, Account, AccountId, AccountSpec, AekCache, BlockId, ObjectId, Refusal};
use strongroom_kms_tests::ministack::{self, Ministack};
use tokio::runtime::Handle;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // A service would have its client from `aws_config::load_from_env`: roles, profiles and renewal come with it.
    let (client, key, _emulator) = match from_environment() {
        Some((client, key)) => (client, key, None),
        None => {
            println!("no AWS in the environment: ministack it is");
            // It has a runtime of its own, so it is started and ended outside of ours.
            let emulator = tokio::task::spawn_blocking(Ministack::start).await?;
            let client = Client::from_conf(ministack::config(&emulator.url(), ministack::root()).build());
            let made = client.create_key().send().await?;
            let key = made.key_metadata.and_then(|key| key.arn).ok_or("the new key has no ARN")?;
            (client, key, Some(OffTheRuntime(Some(emulator))))
        }
    };

    // The provider, on the runtime of this program.
    let kms = AwsKms::new(&client)?;
    let rotation = kms.rotation(&Kek::latest(key.as_str())).await;
    let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(kms, Handle::current()));
    let kek = Kek::latest(key.as_str());

    let cache = AekCache::builder().refresh_every(Duration::from_secs(6)).build()?;
    let report = cache.begin_preflight(Arc::clone(&kms), kek.clone()).await?;
    println!("{report}\nrotation of its key material: {rotation:?}\n");
    if report.verdict() != Verdict::Ready {
        return Err("the key is not fit".into());
    }

    let account = cache.begin_create(AccountSpec::new(AccountId::random(), kms, kek)).await?;
    println!("account {} under version {}", account.id(), account.record().kek_version());
    let block = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(block, Aad::EMPTY, b"the customer's data")?;
    println!("sealed and opened: {}", String::from_utf8_lossy(&account.open(block, Aad::EMPTY, &sealed)?));

    client.disable_key().key_id(&key).send().await?;
    println!("the customer disables the key");
    let refused = until(|| read(&account, block, &sealed).is_err()).await?;
    let refusal = read(&account, block, &sealed).err().and_then(|error| error.refusal());
    println!("  refused after {refused:.1?}: {refusal:?}");

    client.enable_key().key_id(&key).send().await?;
    println!("the customer enables it again");
    let back = until(|| read(&account, block, &sealed).is_ok()).await?;
    println!("  readable after {back:.1?}, by itself");
    if refusal == Some(Refusal::KeyDisabled) { Ok(()) } else { Err("not for the reason that we gave".into()) }
}

fn read(account: &Account, block: BlockId, sealed: &[u8]) -> Result<Vec<u8>, strongroom::Error> {
    account.open(block, Aad::EMPTY, sealed)
}

/// Within an interval and a call deadline; at AWS itself a change takes some seconds more to arrive everywhere.
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

fn from_environment() -> Option<(Client, String)> {
    let get = |name: &str| env::var(name).ok();
    let credentials = Credentials::new(
        get("AWS_ACCESS_KEY_ID")?,
        get("AWS_SECRET_ACCESS_KEY")?,
        get("AWS_SESSION_TOKEN"),
        None,
        "environment",
    );
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(get("AWS_REGION")?))
        .credentials_provider(credentials);
    if let Some(url) = get("AWS_ENDPOINT_URL") {
        config = config.endpoint_url(url);
    }
    Some((Client::from_conf(config.build()), get("KMS_KEY_ID")?))
}

/// A runtime may not be dropped within another.
struct OffTheRuntime(Option<Ministack>);

impl Drop for OffTheRuntime {
    fn drop(&mut self) {
        let emulator = self.0.take();
        drop(std::thread::spawn(move || drop(emulator)).join());
    }
}
