//! A Key Vault, a Managed HSM and their login service, under the names that Azure's have: `fake_key_vault/server.py`. Clients
//! trust its authority and are told where the names lead; nothing else about them is special.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use azure_core::base64;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, Transport};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use serde_json::{Value, json};
use strongroom::provider::azure_keyvault::{AzureKeyVault, AzureKeyVaultBuilder};
use strongroom::provider::{KeyProvider, OnTokio};

use crate::http;
use crate::install::installed;
use crate::process::{Ready, Server};

/// The vault that tests use.
pub const VAULT: &str = "contoso.vault.azure.net";
/// The Managed HSM that tests use.
pub const HSM: &str = "contoso.managedhsm.azure.net";
/// The application that has a secret, and its directory.
pub const CLIENT: &str = "00000000-1111-2222-3333-444444444444";
/// The application's directory.
pub const TENANT: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
/// The application's secret.
pub const CLIENT_SECRET: &str = "correct horse";
/// What a Kubernetes cluster tells Entra ID of a workload.
pub const ASSERTION: &str = "a federated token";

/// The running server.
#[derive(Debug)]
pub struct KeyVault {
    server: Server,
    places: Places,
}

/// Where the names of Azure lead.
#[derive(Clone, Debug)]
pub struct Places {
    /// All vaults and Managed HSMs.
    pub vault: SocketAddr,
    /// The login service.
    pub login: SocketAddr,
    /// The identity service of a virtual machine, as a proxy for HTTP in the clear.
    pub identity: SocketAddr,
    ca: PathBuf,
}

impl KeyVault {
    /// Starts it, with no keys.
    ///
    /// # Panics
    /// When it cannot be installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        let python = installed("key_vault").join("bin/python");
        let script = folder().join("server.py");
        let server = Server::start("key_vault", Ready::Http("/admin"), |place| {
            let mut command = Command::new(&python);
            // Its folder is where it is run, and nothing is written beside the script.
            command.arg("-B").arg(&script).arg(place.port.to_string()).arg(&place.folder);
            command
        });
        let places = http::get(server.address(), "/admin").expect("it is ready").json();
        let at = |name: &str| {
            let port = places[name].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            SocketAddr::from(([127, 0, 0, 1], port))
        };
        let ca = PathBuf::from(places["ca"].as_str().expect("a path"));
        let places = Places { vault: at("vault"), login: at("login"), identity: server.address(), ca };
        Self { server, places }
    }

    /// Measures this server with Microsoft's own client; gives what that says.
    ///
    /// # Panics
    /// When the client does not take it for Key Vault.
    #[must_use]
    pub fn measure(&self) -> String {
        let python = installed("key_vault").join("bin/python");
        let port = self.server.address().port().to_string();
        let output = Command::new(python).arg("-B").arg(folder().join("validate.py")).arg(port).output();
        let output = output.expect("python runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Where it is.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The process.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// The REST surface, as somebody who may do everything.
    ///
    /// # Panics
    /// When it refuses.
    pub fn owner(&self, method: &str, host: &str, path: &str, body: &Value) -> Value {
        self.admin(method, &format!("/owner/{host}/{path}"), body)
    }

    /// A new key, or a new version of it; gives the version.
    pub fn create(&self, host: &str, name: &str, kty: &str) -> String {
        version_of(&self.owner("POST", host, &format!("keys/{name}/create"), &json!({ "kty": kty })))
    }

    /// A new version; gives it.
    pub fn rotate(&self, host: &str, name: &str) -> String {
        version_of(&self.owner("POST", host, &format!("keys/{name}/rotate"), &json!({})))
    }

    /// Enables or disables all versions.
    ///
    /// # Panics
    /// When there is no such key.
    pub fn enable(&self, host: &str, name: &str, enabled: bool) {
        let versions = self.owner("GET", host, &format!("keys/{name}/versions"), &Value::Null);
        for version in versions["value"].as_array().expect("a list") {
            let kid = version["kid"].as_str().expect("an identifier");
            let version = kid.rsplit('/').next().unwrap_or_default();
            self.change(host, &format!("{name}/{version}"), &json!({ "attributes": { "enabled": enabled } }));
        }
    }

    /// Changes a version, `name/version`, or the newest one, `name`.
    pub fn change(&self, host: &str, key: &str, change: &Value) {
        self.owner("PATCH", host, &format!("keys/{key}"), change);
    }

    /// Deletes a key; it can be recovered.
    pub fn delete(&self, host: &str, name: &str) {
        self.owner("DELETE", host, &format!("keys/{name}"), &json!({}));
    }

    /// Brings a deleted key back.
    pub fn recover(&self, host: &str, name: &str) {
        self.owner("POST", host, &format!("deletedkeys/{name}/recover"), &json!({}));
    }

    /// Takes permissions away: `{"unwrap": "rbac"}`, or `{}` to give all back. Of `rbac`, `policy`, `firewall`, `connection`.
    pub fn deny(&self, host: &str, denied: &Value) {
        self.admin("POST", "/admin/vault", &json!({ "host": host, "denied": denied }));
    }

    /// What the attributes of the vault's keys say of their recovery.
    pub fn recovery_level(&self, host: &str, level: &str) {
        self.admin("POST", "/admin/vault", &json!({ "host": host, "recoveryLevel": level }));
    }

    /// Changes the login service: `secret`, `assertion`, `state` (`good` or `expired`), `identity`, `lifetime` in seconds.
    pub fn login(&self, change: &Value) {
        self.admin("POST", "/admin/login", change);
    }

    /// No token that was issued is good any more.
    pub fn revoke_tokens(&self) {
        self.admin("POST", "/admin/revoke-tokens", &Value::Null);
    }

    /// The next requests are answered with 429.
    pub fn throttle(&self, times: u32) {
        self.admin("POST", &format!("/admin/throttle/{times}"), &Value::Null);
    }

    /// The next requests to `vault`, `login` or `identity` are answered with these bytes; `challenge` are those to a vault that
    /// come without a token.
    pub fn answer_with(&self, service: &str, raw: &[u8], times: u32) {
        let raw = base64::encode(raw);
        self.admin("POST", "/admin/answer", &json!({ "service": service, "raw": raw, "times": times }));
    }

    /// What was asked since the last time: `service`, `method`, `path`, `host`, `authorized`, `length`.
    ///
    /// # Panics
    /// When the server is away.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        self.admin("GET", "/admin/requests", &Value::Null).as_array().cloned().expect("a list")
    }

    fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer =
            http::call(self.server.address(), method, path, &[], &body).expect("the server is there");
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }

    /// A provider for the vault, with the application's secret, on a runtime of its own.
    #[must_use]
    pub fn vault(&self) -> Arc<dyn KeyProvider> {
        own_runtime(self.places.at_vault())
    }

    /// A provider for the Managed HSM.
    #[must_use]
    pub fn managed_hsm(&self) -> Arc<dyn KeyProvider> {
        own_runtime(self.places.at_managed_hsm())
    }
}

impl Places {
    /// The same with the vaults behind a proxy.
    #[must_use]
    pub fn with_vault(&self, vault: SocketAddr) -> Self {
        Self { vault, ..self.clone() }
    }

    /// The same with the login service behind a proxy.
    #[must_use]
    pub fn with_login(&self, login: SocketAddr) -> Self {
        Self { login, ..self.clone() }
    }

    /// A transport as Microsoft's default is made, but for the names and the authority.
    ///
    /// # Panics
    /// When the authority's file is not there.
    #[must_use]
    pub fn transport(&self) -> Transport {
        let pem = std::fs::read(&self.ca).expect("the authority's certificate");
        let ca = reqwest::Certificate::from_pem(&pem).expect("a certificate");
        let identity = reqwest::Proxy::http(format!("http://{}", self.identity)).expect("a proxy");
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([ca])
            .redirect(reqwest::redirect::Policy::none())
            .proxy(identity);
        for host in [VAULT, HSM, "fabrikam.vault.azure.net", "orders.vault.example"] {
            builder = builder.resolve(host, self.vault);
        }
        let client = builder.resolve("login.microsoftonline.com", self.login).build().expect("a client");
        Transport::new(Arc::new(client))
    }

    /// Options with that transport.
    #[must_use]
    pub fn options(&self) -> ClientOptions {
        ClientOptions { transport: Some(self.transport()), ..ClientOptions::default() }
    }

    /// The application's secret, as a credential.
    ///
    /// # Panics
    /// When `azure_identity` refuses it.
    #[must_use]
    pub fn secret(&self, secret: &str) -> Arc<dyn TokenCredential> {
        let options = ClientSecretCredentialOptions { client_options: self.options() };
        ClientSecretCredential::new(TENANT, CLIENT.to_owned(), Secret::new(secret.to_owned()), Some(options))
            .expect("a credential")
    }

    /// A provider for the vault, in the making.
    pub fn at_vault(&self) -> AzureKeyVaultBuilder {
        AzureKeyVault::vault(format!("https://{VAULT}"), self.secret(CLIENT_SECRET))
            .client_options(self.options())
    }

    /// A provider for the Managed HSM, in the making.
    pub fn at_managed_hsm(&self) -> AzureKeyVaultBuilder {
        AzureKeyVault::managed_hsm(format!("https://{HSM}"), self.secret(CLIENT_SECRET))
            .client_options(self.options())
    }
}

/// A provider for programs without a runtime.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn own_runtime(builder: AzureKeyVaultBuilder) -> Arc<dyn KeyProvider> {
    Arc::new(OnTokio::with_own_runtime(builder.build().expect("in order")).expect("a runtime"))
}

fn version_of(key: &Value) -> String {
    let kid = key["key"]["kid"].as_str().expect("an identifier");
    kid.rsplit('/').next().unwrap_or_default().to_owned()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fake_key_vault")
}
