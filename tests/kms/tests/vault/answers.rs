//! What an answer that was kept becomes: the provider asks a server that says nothing else.

use std::time::Duration;

use strongroom::provider::vault::{Login, SecretText, VaultTransit, VaultTransitBuilder};
use strongroom::provider::{ErrorClass, Kek, KekInfo, KeyProvider, WrapAlgorithm, Wrapped};
use strongroom_kms_tests::canned::{Canned, Request, fixture};

use crate::{class, context, secret, version};

/// Where in a conversation the answer is given.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// The unwrap.
    Unwrap,
    /// A wrap, after a look at the key.
    Wrap,
    /// A look at the key.
    Describe,
    /// `lookup-self`, after a 403 to an unwrap.
    Lookup,
    /// A login by AppRole, before an unwrap.
    Login,
}

/// The class of a call whose conversation has `name` in it.
pub(crate) fn judged(to: To, name: &str) -> ErrorClass {
    judged_by(to, name, |builder| builder)
}

pub(crate) fn judged_by(
    to: To,
    name: &str,
    set: impl FnOnce(VaultTransitBuilder) -> VaultTransitBuilder,
) -> ErrorClass {
    let canned = serving(to, fixture("vault", name));
    let kms = set(builder(to, &canned)).build().unwrap();
    match to {
        To::Wrap => class(kms.wrap(&Kek::latest("orders"), &context(), &secret())),
        To::Describe => class(kms.describe(&Kek::latest(asked_for(name)))),
        To::Unwrap | To::Lookup | To::Login => class(kms.unwrap(&wrapped(&kms), &context())),
    }
}

/// The key that an answer about a key was given for.
fn asked_for(name: &str) -> &str {
    match name {
        "key_soft_deleted" => "softly",
        "key_aes128" => "aes128",
        "key_rsa" => "rsa",
        "key_der" => "der",
        _ => "orders",
    }
}

pub(crate) fn described(name: &str, kek: &Kek) -> KekInfo {
    let canned = serving(To::Describe, fixture("vault", name));
    builder(To::Describe, &canned).build().unwrap().describe(kek).unwrap()
}

pub(crate) fn builder(to: To, canned: &Canned) -> VaultTransitBuilder {
    let secret = || SecretText::new("s.given");
    let login = match to {
        To::Login => Login::app_role("role", secret()),
        _ => Login::token(secret()),
    };
    VaultTransit::builder(canned.url(), login).timeouts(Duration::from_secs(1), Duration::from_secs(2))
}

/// Something that Transit might have wrapped.
pub(crate) fn wrapped(kms: &VaultTransit) -> Wrapped {
    let text = format!("vault:v1:{}", "A".repeat(112));
    let uri = kms.authority().uri_of("orders").unwrap();
    Wrapped::new(uri, version("1"), WrapAlgorithm::new("aes256-gcm96").unwrap(), text.into_bytes()).unwrap()
}

/// Gives `answer` where `to` says, and what belongs there elsewhere.
pub(crate) fn serving(to: To, answer: Vec<u8>) -> Canned {
    let mut unwraps = 0;
    Canned::serving(move |request: &Request| {
        let usual = |name| fixture("vault", name);
        let path = request.path.as_str();
        let here = match to {
            To::Unwrap => path.starts_with("/v1/transit/decrypt/"),
            To::Wrap => path.starts_with("/v1/transit/encrypt/"),
            To::Describe => path.starts_with("/v1/transit/keys/"),
            To::Login => path.starts_with("/v1/auth/approle/"),
            // The first is the token's own look-up, when it is new.
            To::Lookup => path == "/v1/auth/token/lookup-self" && unwraps > 0,
        };
        if path.starts_with("/v1/transit/decrypt/") {
            unwraps += 1;
        }
        match path {
            _ if here => answer.clone(),
            "/v1/auth/token/lookup-self" => usual("lookup_ok"),
            "/v1/auth/approle/login" => usual("login_ok"),
            "/v1/transit/keys/orders" => usual("key_ok"),
            "/v1/transit/encrypt/orders" => usual("encrypt_ok"),
            "/v1/transit/decrypt/orders" if matches!(to, To::Lookup) => usual("denied"),
            "/v1/transit/decrypt/orders" => usual("decrypt_ok"),
            other => panic!("nobody should ask for {other}"),
        }
    })
}
