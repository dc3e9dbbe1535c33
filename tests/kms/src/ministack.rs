//! ministack: AWS KMS, IAM and STS, with signatures, policies, sessions and key states that are enforced.

use std::fs;
use std::future::Future;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{BehaviorVersion, Builder, Credentials, ProvideCredentials, Region};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::install::installed;
use crate::process::{Ready, Server};
use crate::wait::wait_until;

/// A ministack on a port of its own.
#[derive(Debug)]
pub struct Ministack {
    server: Server,
    python: PathBuf,
    keys: KeyAdmin,
}

/// The customer: makes keys and changes their state, with a client of its own. For any emulator of AWS KMS.
#[derive(Debug)]
pub struct KeyAdmin {
    client: Client,
    runtime: Runtime,
}

impl Ministack {
    /// Installs and starts it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let folder = installed("ministack");
        let server = Server::start("ministack", Ready::Http("/_ministack/health"), |place| {
            // Its own process writes its id, so that it can be asked to end: only then does it save its keys.
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "echo $$ >pid; exec \"$0\""]).arg(folder.join("bin/ministack"));
            command.env("PERSIST_STATE", "1").env("STATE_DIR", place.folder.join("keys"));
            command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", place.port.to_string());
            command.env("AUTH", "true").env("SERVICES", "kms,iam,sts");
            command.env("SFTP_ENABLED", "0").env("IOT_MTLS_ENABLED", "0").env("HOME", &place.folder);
            command
        });
        let keys = KeyAdmin::new(&server.url());
        Self { server, python: folder.join("bin/python"), keys }
    }

    /// Shuts it down. Keys, users and sessions stay.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) {
        let pid = fs::read_to_string(self.server.folder().join("pid")).expect("it wrote its id");
        let asked = Command::new("kill").args(["-TERM", pid.trim()]).status();
        assert!(asked.expect("there is a kill").success());
        let ended = || TcpStream::connect(self.address()).is_err();
        wait_until(Duration::from_secs(20), ended).expect("it ends");
        // Connections are refused before the last file is written.
        let saved = || self.server.folder().join("keys/sts.json").exists();
        wait_until(Duration::from_secs(20), saved).expect("it saves");
        self.server.stop();
    }

    /// Starts it again at the same address.
    pub fn start_again(&mut self) {
        self.server.start_again();
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// What the customer does to keys.
    #[must_use]
    pub fn keys(&self) -> &KeyAdmin {
        &self.keys
    }

    /// A new IAM user that may do nothing, and an access key of it.
    #[must_use]
    pub fn user(&self, name: &str) -> Credentials {
        credentials(&self.iam("user", &[name]))
    }

    /// Lets the user do these actions, for example `kms:Decrypt`, with every key; nothing if there are none.
    pub fn allow(&self, user: &str, actions: &[&str]) {
        self.iam("allow", &[user, &actions.join(",")]);
    }

    /// Takes the user's access key out of use, or puts it back.
    pub fn set_access_key(&self, user: &str, credentials: &Credentials, active: bool) {
        let state = if active { "Active" } else { "Inactive" };
        self.iam("access-key", &[user, credentials.access_key_id(), state]);
    }

    /// Temporary credentials of a role that may use every key. The SDK is not told when they expire.
    #[must_use]
    pub fn session(&self, lifetime: Duration) -> Credentials {
        credentials(&self.iam("session", &[&lifetime.as_secs().to_string()]))
    }

    /// IAM speaks another protocol than KMS: botocore comes with ministack and speaks both.
    fn iam(&self, command: &str, arguments: &[&str]) -> Value {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/iam.py");
        let output = Command::new(&self.python)
            .args([script, &self.url(), command])
            .args(arguments)
            .output()
            .expect("Python runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} {arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

impl KeyAdmin {
    /// For the server at `url`.
    ///
    /// # Panics
    /// When there is no thread to be had.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread");
        Self { client: Client::from_conf(config(url, root()).build()), runtime }
    }

    /// A new key, and its id.
    #[must_use]
    pub fn create(&self) -> String {
        let made = self.wait(self.client.create_key().send());
        made.key_metadata.expect("it was made").key_id
    }

    /// A new multi-Region key, and its id.
    #[must_use]
    pub fn create_multi_region(&self) -> String {
        let made = self.wait(self.client.create_key().multi_region(true).send());
        made.key_metadata.expect("it was made").key_id
    }

    /// The key's ARN.
    #[must_use]
    pub fn arn(&self, key: &str) -> String {
        let described = self.wait(self.client.describe_key().key_id(key).send());
        described.key_metadata.and_then(|key| key.arn).expect("it has one")
    }

    /// Disables the key.
    pub fn disable(&self, key: &str) {
        self.wait(self.client.disable_key().key_id(key).send());
    }

    /// Enables it again.
    pub fn enable(&self, key: &str) {
        self.wait(self.client.enable_key().key_id(key).send());
    }

    /// Schedules its deletion, in seven days.
    pub fn delete(&self, key: &str) {
        self.wait(self.client.schedule_key_deletion().key_id(key).pending_window_in_days(7).send());
    }

    /// Cancels the deletion. A key is disabled after that, so it is enabled too.
    pub fn recover(&self, key: &str) {
        self.wait(self.client.cancel_key_deletion().key_id(key).send());
        self.enable(key);
    }

    /// Makes an alias, for example `alias/orders`.
    pub fn alias(&self, alias: &str, key: &str) {
        self.wait(self.client.create_alias().alias_name(alias).target_key_id(key).send());
    }

    /// Points the alias to another key.
    pub fn point_alias(&self, alias: &str, key: &str) {
        self.wait(self.client.update_alias().alias_name(alias).target_key_id(key).send());
    }

    /// Deletes the alias.
    pub fn delete_alias(&self, alias: &str) {
        self.wait(self.client.delete_alias().alias_name(alias).send());
    }

    /// Rotates the key material on demand.
    pub fn rotate(&self, key: &str) {
        self.wait(self.client.rotate_key_on_demand().key_id(key).send());
    }

    fn wait<T, E: std::fmt::Debug>(&self, call: impl Future<Output = Result<T, E>>) -> T {
        self.runtime.block_on(call).unwrap_or_else(|error| panic!("the administrator failed: {error:?}"))
    }
}

/// A client's configuration for the server at `url`.
#[must_use]
pub fn config(url: &str, credentials: impl ProvideCredentials + 'static) -> Builder {
    aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(url)
        .credentials_provider(credentials)
}

/// The root user of both emulators.
#[must_use]
pub fn root() -> Credentials {
    Credentials::new("test", "test", None, None, "the tests")
}

fn credentials(made: &Value) -> Credentials {
    let text = |name: &str| made[name].as_str().map(str::to_owned);
    let (id, secret) = (text("id").expect("an id"), text("secret").expect("a secret"));
    Credentials::new(id, secret, text("token"), None, "the tests")
}

/// Where the emulators think they are.
pub const REGION: &str = "us-east-1";
