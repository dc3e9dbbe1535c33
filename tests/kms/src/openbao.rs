//! OpenBao, the server itself, and what a customer's administrator does there.
//!
//! Storage in files, so that keys survive a stop; initialised and unsealed by us, so that it can be sealed again.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Deref;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::install::installed;
use crate::process::{Ready, Server, free_port};
use crate::wait::wait_until;

/// An unsealed OpenBao with a Transit engine at `transit`. Ends when dropped.
///
/// What a [`Customer`] does can be called on it.
#[derive(Debug)]
pub struct OpenBao {
    server: Server,
    customer: Customer,
    unseal_key: String,
}

/// An administrator's connection to a server, over HTTP in the clear.
#[derive(Clone, Debug)]
pub struct Customer {
    address: SocketAddr,
    token: String,
}

impl OpenBao {
    /// Installs it where needed, starts it, initialises it.
    ///
    /// # Panics
    /// When any of that fails.
    #[must_use]
    pub fn start() -> Self {
        let program = installed("openbao").join("bin/bao");
        let server = Server::start("openbao", Ready::Http("/v1/sys/seal-status"), |place| {
            let data = place.folder.join("data");
            std::fs::create_dir(&data).expect("a folder for its data");
            // Of no use to a single node, but asked for.
            let cluster = format!("127.0.0.1:{}", free_port());
            let config = json!({
                "storage": { "raft": { "path": data, "node_id": "one", "performance_multiplier": 1 } },
                "listener": { "tcp": {
                    "address": place.address().to_string(), "cluster_address": cluster, "tls_disable": true,
                } },
                "api_addr": format!("http://{}", place.address()),
                "cluster_addr": format!("https://{cluster}"),
            });
            let file = place.folder.join("config.json");
            std::fs::write(&file, config.to_string()).expect("a configuration file");
            let mut command = Command::new(&program);
            command.arg("server").arg("-config").arg(&file);
            command
        });
        let asked = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = call(server.address(), None, None, "PUT", "sys/init", &asked);
        assert_eq!(made.status, 200, "{}", made.text());
        let text = |pointer: &str| {
            made.json().pointer(pointer).and_then(Value::as_str).expect("init tells its secrets").to_owned()
        };
        let customer = Customer { address: server.address(), token: text("/root_token") };
        let bao = Self { customer, unseal_key: text("/keys_base64/0"), server };
        bao.unseal();
        bao.admin("POST", "sys/mounts/transit", &json!({ "type": "transit" }));
        bao
    }

    /// The token that may do everything.
    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.customer.token
    }

    /// The administrator, apart from the server.
    #[must_use]
    pub fn customer(&self) -> Customer {
        self.customer.clone()
    }

    /// Seals it: everything is answered with 503.
    pub fn seal(&self) {
        self.admin("PUT", "sys/seal", &json!({}));
    }

    /// Unseals it, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn unseal(&self) {
        let asked = json!({ "key": self.unseal_key });
        let answer = call(self.address(), None, None, "PUT", "sys/unseal", &asked);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let serves = || {
            http::get(self.address(), "/v1/sys/health").is_ok_and(|answer| answer.status == 200)
                && call(self.address(), Some(&self.customer.token), None, "GET", "sys/mounts", &json!({}))
                    .status
                    == 200
        };
        wait_until(Duration::from_secs(20), serves).expect("an unsealed OpenBao serves");
    }

    /// Ends it as a crash would.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Starts it again with its data, and unseals it.
    pub fn start_again(&mut self) {
        self.server.start_again();
        self.unseal();
    }
}

impl Deref for OpenBao {
    type Target = Customer;

    fn deref(&self) -> &Customer {
        &self.customer
    }
}

impl Customer {
    /// At a server of somebody else's, at `http://host:port`.
    ///
    /// # Errors
    /// When that is no such address, or does not resolve.
    pub fn at(url: &str, token: &str) -> io::Result<Self> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "this example needs http://host:port");
        let host = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        let address = host.to_socket_addrs()?.next().ok_or_else(wrong)?;
        Ok(Self { address, token: token.to_owned() })
    }

    /// Where the server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The administrator's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A request by the administrator, in the root namespace. `path` without `/v1/`.
    ///
    /// # Panics
    /// When it fails.
    pub fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        self.admin_in("", method, path, body)
    }

    /// The same in a namespace.
    ///
    /// # Panics
    /// When it fails.
    pub fn admin_in(&self, namespace: &str, method: &str, path: &str, body: &Value) -> Value {
        let namespace = Some(namespace).filter(|name| !name.is_empty());
        let answer = call(self.address, Some(&self.token), namespace, method, path, body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// Makes a key that a strongroom can use.
    pub fn create_key(&self, name: &str) {
        self.admin("POST", &format!("transit/keys/{name}"), &json!({ "type": "aes256-gcm96" }));
    }

    /// Adds a version.
    pub fn rotate_key(&self, name: &str) {
        self.admin("POST", &format!("transit/keys/{name}/rotate"), &json!({}));
    }

    /// Sets what can be set of a key, for example `{"min_decryption_version": 2}`.
    pub fn configure_key(&self, name: &str, what: &Value) {
        self.admin("POST", &format!("transit/keys/{name}/config"), what);
    }

    /// Deletes the key so that it can be restored.
    pub fn soft_delete_key(&self, name: &str) {
        self.admin("DELETE", &format!("transit/keys/{name}/soft-delete"), &json!({}));
    }

    /// Restores it.
    pub fn restore_key(&self, name: &str) {
        self.admin("POST", &format!("transit/keys/{name}/soft-delete-restore"), &json!({}));
    }

    /// Deletes the key for good.
    pub fn delete_key(&self, name: &str) {
        self.configure_key(name, &json!({ "deletion_allowed": true }));
        self.admin("DELETE", &format!("transit/keys/{name}"), &json!({}));
    }

    /// Gives the policy `name` what docs/PROVIDERS.md says a provider needs for `key`.
    pub fn allow(&self, policy: &str, key: &str) {
        let rules = format!(
            r#"path "transit/keys/{key}" {{ capabilities = ["read"] }}
path "transit/encrypt/{key}" {{ capabilities = ["update"] }}
path "transit/decrypt/{key}" {{ capabilities = ["update"] }}"#
        );
        self.set_policy(policy, &rules);
    }

    /// Takes away everything that the policy gave.
    pub fn deny(&self, policy: &str) {
        self.set_policy(policy, r#"path "nothing/at/all" { capabilities = ["deny"] }"#);
    }

    fn set_policy(&self, policy: &str, rules: &str) {
        self.admin("PUT", &format!("sys/policies/acl/{policy}"), &json!({ "policy": rules }));
    }

    /// A token with a policy, for so many seconds, as `options` like it.
    #[must_use]
    pub fn token_for(&self, policy: &str, options: &Value) -> String {
        let mut asked = json!({ "policies": [policy], "ttl": "1h" });
        for (key, value) in options.as_object().into_iter().flatten() {
            asked[key] = value.clone();
        }
        text_at(&self.admin("POST", "auth/token/create", &asked), "/auth/client_token")
    }

    /// Revokes a token, and all that were made with it.
    pub fn revoke_token(&self, token: &str) {
        self.admin("POST", "auth/token/revoke", &json!({ "token": token }));
    }

    /// An AppRole that gives the policy's rights for a time, and its role id.
    #[must_use]
    pub fn app_role(&self, role: &str, policy: &str, options: &Value) -> String {
        if self.admin("GET", "sys/auth", &json!({})).pointer("/data/approle~1").is_none() {
            self.admin("POST", "sys/auth/approle", &json!({ "type": "approle" }));
        }
        let mut asked = json!({ "token_policies": [policy], "token_ttl": "1h" });
        for (key, value) in options.as_object().into_iter().flatten() {
            asked[key] = value.clone();
        }
        self.admin("POST", &format!("auth/approle/role/{role}"), &asked);
        text_at(&self.admin("GET", &format!("auth/approle/role/{role}/role-id"), &json!({})), "/data/role_id")
    }

    /// A secret id for an AppRole.
    #[must_use]
    pub fn secret_id(&self, role: &str) -> String {
        let made = self.admin("POST", &format!("auth/approle/role/{role}/secret-id"), &json!({}));
        text_at(&made, "/data/secret_id")
    }
}

/// An OpenBao in development mode with a certificate that it made itself.
#[derive(Debug)]
pub struct OpenBaoTls {
    server: Server,
}

impl OpenBaoTls {
    /// The root token.
    pub const TOKEN: &'static str = "root";

    /// Starts it. The key `orders` is there.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        let program = installed("openbao").join("bin/bao");
        let server = Server::start("openbao with TLS", Ready::Connect, |place| {
            let mut command = Command::new(&program);
            command.args(["server", "-dev-tls", "-dev-root-token-id=root", "-dev-no-store-token"]);
            command.arg(format!("-dev-listen-address={}", place.address()));
            command.arg(format!("-dev-tls-cert-dir={}", place.folder.display()));
            command
        });
        let made = Self { server };
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.args(arguments).env("BAO_ADDR", made.url()).env("BAO_TOKEN", Self::TOKEN);
            command.env("BAO_CACERT", made.ca_file()).output().expect("bao runs").status.success()
        };
        // The port is open before the engine is.
        wait_until(Duration::from_secs(20), || run(&["secrets", "enable", "transit"])).expect("serves");
        assert!(run(&["write", "-f", "transit/keys/orders"]));
        made
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The certificate of the CA that signed the server's.
    #[must_use]
    pub fn ca(&self) -> Vec<u8> {
        std::fs::read(self.ca_file()).expect("the server wrote it")
    }

    /// The server's own certificate and its key, as PEM.
    #[must_use]
    pub fn server_certificate(&self) -> (String, String) {
        let read = |end: &str| {
            let file =
                ["vault", "openbao"].map(|name| self.server.folder().join(format!("{name}-{end}.pem")));
            let file = file.iter().find(|file| file.exists()).expect("the server wrote it");
            std::fs::read_to_string(file).expect("is text")
        };
        (read("cert"), read("key"))
    }

    fn ca_file(&self) -> std::path::PathBuf {
        let folder = self.server.folder();
        ["vault-ca.pem", "openbao-ca.pem"]
            .iter()
            .map(|name| folder.join(name))
            .find(|file| file.exists())
            .unwrap_or_else(|| folder.join("ca.pem"))
    }
}

fn call(
    address: SocketAddr,
    token: Option<&str>,
    namespace: Option<&str>,
    method: &str,
    path: &str,
    body: &Value,
) -> Answer {
    let mut headers = vec![("X-Vault-Request", "true")];
    headers.extend(token.map(|token| ("X-Vault-Token", token)));
    headers.extend(namespace.map(|namespace| ("X-Vault-Namespace", namespace)));
    let body = if method == "GET" { String::new() } else { body.to_string() };
    http::call(address, method, &format!("/v1/{path}"), &headers, body.as_bytes())
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

fn text_at(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {value}")).to_owned()
}
