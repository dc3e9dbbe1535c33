//! Signing in: AppRole, JWT, files that change, renewal before expiry, and what happens when the login is refused or silent.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use strongroom::Refusal::{CredentialRejected, PermissionRemoved};
use strongroom::provider::ErrorClass::{Misconfigured, Refused, Transient};
use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider};
use strongroom_kms_tests::canned::{Canned, Request, answer, fixture};
use strongroom_kms_tests::install::installed;
use strongroom_kms_tests::openbao::OpenBao;
use strongroom_kms_tests::proxy::{Mode, Proxy};

use crate::answers::wrapped;
use crate::{class, context, unwrap, wrap};

/// A server with the key `orders` and the policy `user` for it.
fn world() -> OpenBao {
    let bao = OpenBao::start();
    bao.create_key("orders");
    bao.allow("user", "orders");
    bao
}

fn app_role(bao: &OpenBao, url: &str, options: &serde_json::Value) -> VaultTransit {
    let role_id = bao.app_role("service", "user", options);
    let login = Login::app_role(role_id, SecretText::new(bao.secret_id("service")));
    VaultTransit::builder(url, login).build().unwrap()
}

/// How many tokens have been made by logins, and live.
fn tokens(bao: &OpenBao) -> usize {
    let list = bao.admin("LIST", "auth/token/accessors", &json!({}));
    // One is the root token.
    list.pointer("/data/keys").and_then(|keys| keys.as_array()).unwrap().len() - 1
}

#[test]
fn an_app_role_signs_in_once_for_many_threads() {
    let bao = world();
    let kms = app_role(&bao, &bao.url(), &json!({}));
    assert_eq!(tokens(&bao), 0, "nothing is asked before the first call");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| unwrap(&kms, &wrap(&kms, "orders").unwrap()).unwrap());
        }
    });
    assert_eq!(tokens(&bao), 1);
}

#[test]
fn a_token_is_renewed_before_it_expires_and_stays_the_same() {
    let bao = world();
    let kms = app_role(&bao, &bao.url(), &json!({ "token_ttl": "3s", "token_max_ttl": "1h" }));
    let wrapped = wrap(&kms, "orders").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        unwrap(&kms, &wrapped).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(tokens(&bao), 1, "renewed, not replaced");
}

#[test]
fn a_token_that_can_be_renewed_no_further_is_replaced_before_it_expires() {
    let bao = world();
    let options = json!({ "token_ttl": "3s", "token_max_ttl": "5s" });
    let kms = app_role(&bao, &bao.url(), &options);
    let wrapped = wrap(&kms, "orders").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        unwrap(&kms, &wrapped).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    assert!(tokens(&bao) <= 3, "a new one for every few seconds: {}", tokens(&bao));
}

#[test]
fn a_token_that_expired_while_nobody_called_is_replaced() {
    let bao = world();
    let kms = app_role(&bao, &bao.url(), &json!({ "token_ttl": "1s" }));
    let wrapped = wrap(&kms, "orders").unwrap();
    thread::sleep(Duration::from_millis(1500));
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn a_revoked_token_is_replaced_by_one_new_login_and_the_call_goes_on() {
    let bao = world();
    let kms = app_role(&bao, &bao.url(), &json!({}));
    let wrapped = wrap(&kms, "orders").unwrap();
    bao.admin("PUT", "sys/leases/revoke-prefix/auth/approle", &json!({}));
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn a_refused_login_is_a_refusal_and_heals() {
    let bao = world();
    let role_id = bao.app_role("service", "user", &json!({}));
    let current = Arc::new(Mutex::new(bao.secret_id("service")));
    let read = Arc::clone(&current);
    let login = Login::app_role_from(role_id, move || Ok(SecretText::new(read.lock().unwrap().clone())));
    let kms = VaultTransit::builder(bao.url(), login).build().unwrap();
    let wrapped = wrap(&kms, "orders").unwrap();
    // The customer takes the role's secret and its tokens.
    let secret_id = current.lock().unwrap().clone();
    bao.admin("POST", "auth/approle/role/service/secret-id/destroy", &json!({ "secret_id": secret_id }));
    unwrap(&kms, &wrapped).expect("the token lives on");
    bao.admin("PUT", "sys/leases/revoke-prefix/auth/approle", &json!({}));
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(CredentialRejected));
    // And gives another one, which the callback finds.
    *current.lock().unwrap() = bao.secret_id("service");
    unwrap(&kms, &wrapped).unwrap();
    // The whole auth method goes.
    bao.admin("DELETE", "sys/auth/approle", &json!({}));
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(CredentialRejected));
}

#[test]
fn a_denied_policy_costs_the_customer_no_stream_of_logins() {
    let bao = world();
    let kms = app_role(&bao, &bao.url(), &json!({}));
    let wrapped = wrap(&kms, "orders").unwrap();
    bao.deny("user");
    for _ in 0..20 {
        assert_eq!(class(unwrap(&kms, &wrapped)), Refused(PermissionRemoved));
    }
    assert_eq!(tokens(&bao), 1);
    bao.allow("user", "orders");
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn a_role_that_was_given_another_policy_is_signed_in_to_anew() {
    let bao = world();
    let kms = app_role(&bao, &bao.url(), &json!({}));
    let wrapped = wrap(&kms, "orders").unwrap();
    bao.deny("user");
    bao.allow("another", "orders");
    // The token keeps the policies that it was made with.
    bao.admin("POST", "auth/approle/role/service", &json!({ "token_policies": ["another"] }));
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(PermissionRemoved));
    let begun = Instant::now();
    while unwrap(&kms, &wrapped).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(31), "a login was due");
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(tokens(&bao), 2);
}

#[test]
fn a_silent_login_service_is_of_no_account_while_the_token_lasts_and_transient_afterwards() {
    let token_for_4_s = fixture_with("login_ok", r#""lease_duration":3600"#, r#""lease_duration":4"#);
    let (logins, silent) = (Arc::new(AtomicUsize::new(0)), answer(503, &[], "<html>nobody is there</html>"));
    let counted = Arc::clone(&logins);
    let canned = Canned::serving(move |request: &Request| match request.path.as_str() {
        "/v1/auth/approle/login" if counted.fetch_add(1, Ordering::SeqCst) == 0 => token_for_4_s.clone(),
        "/v1/auth/approle/login" | "/v1/auth/token/renew-self" => silent.clone(),
        "/v1/transit/decrypt/orders" => fixture("vault", "decrypt_ok"),
        other => panic!("nobody should ask for {other}"),
    });
    let login = Login::app_role("role", SecretText::new("secret"));
    let kms = VaultTransit::builder(canned.url(), login).build().unwrap();
    let wrapped = wrapped(&kms);
    let begun = Instant::now();
    let mut worked = Duration::ZERO;
    while let Ok(_aek) = kms.unwrap(&wrapped, &context()) {
        worked = begun.elapsed();
        thread::sleep(Duration::from_millis(100));
    }
    assert!((3.5..4.2).contains(&worked.as_secs_f64()), "{worked:?}");
    // No refusal: we know by ourselves that it has expired.
    assert_eq!(class(kms.unwrap(&wrapped, &context())), Transient);
    let renewals = canned.requests().iter().filter(|request| request.path.ends_with("renew-self")).count();
    assert!((1..=3).contains(&renewals), "tried, and not at every call: {renewals}");
}

#[test]
fn a_hanging_renewal_does_not_hold_up_a_call_for_long() {
    let bao = world();
    let proxy = Proxy::before(bao.address());
    let kms = app_role(&bao, &proxy.url(), &json!({ "token_ttl": "6s" }));
    let wrapped = wrap(&kms, "orders").unwrap();
    thread::sleep(Duration::from_millis(4500));
    proxy.set(Mode::Hang);
    let begun = Instant::now();
    assert_eq!(class(unwrap(&kms, &wrapped)), Transient);
    // A whole call may take 4 s, the renewal on its way included.
    assert!(begun.elapsed() < Duration::from_millis(4300), "{:?}", begun.elapsed());
    proxy.set(Mode::Pass);
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn what_a_renewal_grants_is_what_counts() {
    let token_for_3_s = fixture_with("login_ok", r#""lease_duration":3600"#, r#""lease_duration":3"#);
    let canned = Canned::serving(move |request: &Request| match request.path.as_str() {
        "/v1/auth/approle/login" => token_for_3_s.clone(),
        "/v1/auth/token/renew-self" => fixture("vault", "renew_ok"),
        "/v1/transit/decrypt/orders" => fixture("vault", "decrypt_ok"),
        other => panic!("nobody should ask for {other}"),
    });
    let login = Login::app_role("role", SecretText::new("secret"));
    let kms = VaultTransit::builder(canned.url(), login).build().unwrap();
    let wrapped = wrapped(&kms);
    for _ in 0..10 {
        kms.unwrap(&wrapped, &context()).unwrap();
        thread::sleep(Duration::from_millis(500));
    }
    let paths: Vec<String> = canned.requests().into_iter().map(|request| request.path).collect();
    let count = |path: &str| paths.iter().filter(|asked| asked.ends_with(path)).count();
    assert_eq!((count("login"), count("renew-self")), (1, 1), "an hour was granted: {paths:?}");
}

#[test]
fn a_token_that_cannot_be_renewed_after_all_is_replaced() {
    let token_for_3_s = fixture_with("login_ok", r#""lease_duration":3600"#, r#""lease_duration":3"#);
    let canned = Canned::serving(move |request: &Request| match request.path.as_str() {
        "/v1/auth/approle/login" => token_for_3_s.clone(),
        "/v1/auth/token/renew-self" => fixture("vault", "renew_not_renewable"),
        "/v1/transit/decrypt/orders" => fixture("vault", "decrypt_ok"),
        other => panic!("nobody should ask for {other}"),
    });
    let login = Login::app_role("role", SecretText::new("secret"));
    let kms = VaultTransit::builder(canned.url(), login).build().unwrap();
    let wrapped = wrapped(&kms);
    kms.unwrap(&wrapped, &context()).unwrap();
    thread::sleep(Duration::from_millis(2200));
    kms.unwrap(&wrapped, &context()).unwrap();
    let logins = canned.requests().iter().filter(|request| request.path.ends_with("login")).count();
    assert_eq!(logins, 2);
}

#[test]
fn a_given_token_is_renewed_and_a_file_with_a_newer_one_is_read() {
    let bao = world();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let first = bao.token_for("user", &json!({ "ttl": "3s", "explicit_max_ttl": "0" }));
    // A sink file, as an agent writes it: with the end of a line.
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let read = file.clone();
    let login = Login::token_from(move || std::fs::read_to_string(&read).map(SecretText::new));
    let kms = VaultTransit::builder(bao.url(), login).build().unwrap();
    let wrapped = wrap(&kms, "orders").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        unwrap(&kms, &wrapped).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    bao.revoke_token(&first);
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(CredentialRejected));
    std::fs::write(&file, bao.token_for("user", &json!({}))).unwrap();
    unwrap(&kms, &wrapped).unwrap();
    // Without the file there is silence, but only once a new token is needed.
    std::fs::remove_file(&file).unwrap();
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn a_jwt_from_a_file_signs_in_as_a_kubernetes_pod_does() {
    let bao = world();
    let (private, public) = key_pair();
    bao.admin("POST", "sys/auth/cluster/one", &json!({ "type": "jwt" }));
    bao.admin("POST", "auth/cluster/one/config", &json!({ "jwt_validation_pubkeys": [public] }));
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"],
        "bound_subject": "system:serviceaccount:shop:orders", "token_policies": ["user"], "token_ttl": "2s",
    });
    bao.admin("POST", "auth/cluster/one/role/orders", &role);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let projected = |subject: &str| std::fs::write(&file, jwt(&private, subject)).unwrap();
    projected("system:serviceaccount:shop:orders");
    let login = Login::jwt_file("orders", &file).at_mount("cluster/one");
    let kms = VaultTransit::builder(bao.url(), login).build().unwrap();
    assert!(format!("{:?}", kms.authority()).contains("cluster/one:orders"), "{:?}", kms.authority());
    let wrapped = wrap(&kms, "orders").unwrap();
    // The kubelet replaces the file; it is read again at the next login.
    projected("system:serviceaccount:shop:orders");
    thread::sleep(Duration::from_millis(2100));
    unwrap(&kms, &wrapped).unwrap();
    projected("system:serviceaccount:shop:somebody-else");
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(CredentialRejected));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(class(unwrap(&kms, &wrapped)), Transient, "a missing file is not Vault's answer");
    projected("system:serviceaccount:shop:orders");
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn a_kubernetes_login_sends_role_and_jwt_to_its_mount() {
    let canned = Canned::serving(|request: &Request| match request.path.as_str() {
        "/v1/auth/kubernetes/login" => fixture("vault", "login_ok"),
        _ => fixture("vault", "decrypt_ok"),
    });
    let login = Login::jwt_from("orders", || Ok(SecretText::new("a.b.c"))).at_mount("kubernetes");
    let kms = VaultTransit::builder(canned.url(), login).namespace("team/a").build().unwrap();
    kms.unwrap(&wrapped(&kms), &context()).unwrap();
    let requests = canned.requests();
    let [login, unwrap] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!((login.method.as_str(), login.header("x-vault-token")), ("POST", None));
    assert_eq!(login.json(), json!({ "role": "orders", "jwt": "a.b.c" }));
    assert_eq!(unwrap.header("x-vault-token"), Some("s.fixture"));
    for request in [login, unwrap] {
        assert_eq!(request.header("x-vault-request"), Some("true"));
        assert_eq!(request.header("x-vault-namespace"), Some("team/a"));
    }
    // Outside of a pod its usual file is not there: silence.
    let kms = VaultTransit::builder(canned.url(), Login::kubernetes("orders")).build().unwrap();
    assert_eq!(class(kms.describe(&Kek::latest("orders"))), Transient);
}

#[test]
fn what_cannot_be_a_secret_is_a_mistake_of_ours() {
    let canned = Canned::answers([fixture("vault", "login_ok")]);
    for wrong in ["", "two words", "line\nbreak"] {
        let login = Login::app_role("role", SecretText::new(wrong));
        let kms = VaultTransit::builder(canned.url(), login).build().unwrap();
        assert_eq!(class(kms.describe(&Kek::latest("orders"))), Misconfigured, "{wrong:?}");
    }
    let login = Login::jwt_from("role", || Err(io::ErrorKind::PermissionDenied.into()));
    let kms = VaultTransit::builder(canned.url(), login).build().unwrap();
    assert_eq!(class(kms.describe(&Kek::latest("orders"))), Transient);
    assert_eq!(canned.requests().len(), 0);
}

/// A kept answer with something changed.
fn fixture_with(name: &str, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(fixture("vault", name)).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(body.contains(from), "{body}");
    answer(200, &[("Content-Type", "application/json")], body.replace(from, to))
}

/// A private and a public key for ES256, as PEM.
fn key_pair() -> (String, String) {
    let script = r#"
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
key = ec.generate_private_key(ec.SECP256R1())
print(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(), end="")
print("|" + key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), end="")
"#;
    let both = python(script, &[], "");
    let (private, public) = both.split_once('|').unwrap();
    (private.to_owned(), public.to_owned())
}

/// A JWT that the cluster's issuer could have signed.
fn jwt(private: &str, subject: &str) -> String {
    let script = r#"
import base64, json, sys, time
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
text = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()
now = int(time.time())
claims = {"sub": sys.argv[1], "aud": "vault", "iat": now, "exp": now + 600}
head = ".".join(text(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims))
key = serialization.load_pem_private_key(sys.stdin.buffer.read(), None)
r, s = utils.decode_dss_signature(key.sign(head.encode(), ec.ECDSA(hashes.SHA256())))
print(head + "." + text(r.to_bytes(32, "big") + s.to_bytes(32, "big")), end="")
"#;
    python(script, &[subject], private)
}

/// With the package `cryptography`.
fn python(script: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(installed("key_vault").join("bin/python"));
    command.args(["-c", script]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it is installed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}
