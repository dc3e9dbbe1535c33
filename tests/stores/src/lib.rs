//! Object stores on loopback: an S3 of moto's and an Azure Blob Storage of Azurite's, each with an empty bucket.

pub mod crowd;
pub mod measured;
pub mod v0_13;
mod v0_14;

use std::process::Command;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::HttpRequestBody;
use strongroom_kms_tests::http;
use strongroom_kms_tests::install::installed;
use strongroom_kms_tests::process::{Ready, Server};

pub use v0_14::{azurite_store, s3_store};

/// Amazon's S3, as moto has it, and the store in it, where nothing is sealed yet. The server takes one request after the other: of
/// two conditional puts at once moto lets both find their condition met. For another process, [`s3_store`] makes the store by the
/// server's address.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn s3() -> (Server, Arc<dyn ObjectStore>) {
    let program = installed("moto").join("bin/python");
    let server = Server::start("moto", Ready::Http("/moto-api/"), |place| {
        let mut command = Command::new(&program);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/moto_one_by_one.py"));
        command.arg(place.port.to_string());
        command
    });
    let store = make_bucket(&server);
    (server, store)
}

fn make_bucket(server: &Server) -> Arc<dyn ObjectStore> {
    let made = http::call(server.address(), "PUT", &format!("/{BUCKET}"), &[], b"").expect("moto answers");
    assert_eq!(made.status, 200, "{}", made.text());
    s3_store(&server.url())
}

/// A server of Azurite's, which is Microsoft's Azure Blob Storage on one machine, with an empty container. For its store, see
/// [`azurite_store`].
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn azurite() -> Server {
    let program = installed("azurite").join("node_modules/.bin/azurite-blob");
    let server = Server::start("azurite", Ready::Connect, |place| {
        let mut command = if std::env::var_os(FOR_MANY).is_some() {
            let mut node = Command::new("node");
            node.args(["--require", concat!(env!("CARGO_MANIFEST_DIR"), "/servers/azurite_for_many.js")]);
            node.arg(&program);
            node
        } else {
            Command::new(&program)
        };
        command.args(["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]);
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &place.port.to_string()]);
        command
    });
    create_container(&server);
    server
}

/// Runs the test `name` of this program in a process of its own, which is given an Azurite, and returns what it printed. An address goes
/// through the environment, which only another process can be given. That test asks [`is_given_an_azurite`] first.
///
/// # Panics
/// When that test fails, and when it does not say `done`: a name that fits no test would run none, and succeed.
pub fn in_a_process_given_an_azurite(name: &str, done: &str) -> String {
    let server = azurite();
    let mut child = Command::new(std::env::current_exe().expect("a path"));
    child.args(["--exact", name, "--nocapture"]);
    let output = child.env(AZURITE_URL, server.url()).env(GIVEN, "1").output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(done), "{text}");
    text
}

/// Whether this is a process that [`in_a_process_given_an_azurite`] has started. Not any that finds an Azurite in its environment: it
/// may be somebody's, and the tests delete everything.
#[must_use]
pub fn is_given_an_azurite() -> bool {
    std::env::var_os(GIVEN).is_some()
}

const GIVEN: &str = "STRONGROOM_GIVEN_AN_AZURITE";

/// Azurite looks at every blob for each request. Where this environment variable is set, it does not: `servers/azurite_for_many.js`.
const FOR_MANY: &str = "STRONGROOM_AZURITE_FOR_MANY";

/// The environment variable that `object_store` takes an emulator's address from.
pub const AZURITE_URL: &str = "AZURITE_BLOB_STORAGE_URL";

/// What `object_store` cannot do: it is signed by it, and sent by us.
fn create_container(server: &Server) {
    let path = format!("/{ACCOUNT}/{BUCKET}?restype=container");
    let mut request = ::http::Request::put(format!("{}{path}", server.url()))
        .header("content-length", "0")
        .body(HttpRequestBody::empty())
        .expect("is a request");
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).expect("is a key"));
    AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).expect("is signed");
    let headers: Vec<(&str, &str)> = request
        .headers()
        .iter()
        .filter(|(name, _)| *name != "content-length")
        .map(|(name, value)| (name.as_str(), value.to_str().expect("is text")))
        .collect();
    let made = http::call(server.address(), "PUT", &path, &headers, b"").expect("Azurite answers");
    assert_eq!(made.status, 201, "{}", made.text());
}

/// The bucket or container that each server has.
pub const BUCKET: &str = "bucket";

/// The account of every Azurite, and its key, which everybody knows.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
