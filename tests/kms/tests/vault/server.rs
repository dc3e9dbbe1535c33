//! The provider against a real OpenBao: conformance, rotation, and each way in which a customer takes a key away.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use strongroom::Refusal::{CredentialRejected, KeyDisabled, KeyGone, PermissionRemoved};
use strongroom::provider::ErrorClass::{Integrity, Misconfigured, Refused, Transient};
use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider, Verdict, preflight};
use strongroom::testing::ManualClock;
use strongroom::testing::conformance::{self, Subject};
use strongroom::{
    Aad, AccountId, AccountSpec, AekCache, BlockId, MemoryRecordStore, ObjectId, Retire, RotateTo,
};
use strongroom_kms_tests::openbao::OpenBao;

use crate::{class, connect, context, secret, unwrap, version, with_token, wrap};

/// A server with the key `orders`, and a provider that may use it and nothing else.
fn world() -> (OpenBao, String) {
    let bao = OpenBao::start();
    bao.create_key("orders");
    bao.allow("orders-user", "orders");
    let token = bao.token_for("orders-user", &json!({}));
    (bao, token)
}

fn conforms(bao: &OpenBao, provider: &dyn KeyProvider, key: &str, policy: &str) {
    let hook = |act: &dyn Fn()| {
        act();
        Ok::<(), String>(())
    };
    let subject = Subject::new(provider, key)
        .on_rotate(|| hook(&|| bao.rotate_key(key)))
        .on_disable(|| hook(&|| bao.deny(policy)))
        .on_enable(|| hook(&|| bao.allow(policy, key)))
        .on_delete(|| hook(&|| bao.soft_delete_key(key)))
        .on_recover(|| hook(&|| bao.restore_key(key)));
    let report = conformance::run(&subject);
    println!("{report}");
    assert!(report.is_complete(), "{report}");
}

#[test]
fn b10_it_conforms_to_the_suite() {
    let (bao, token) = world();
    conforms(&bao, &connect(&bao.url(), &token), "orders", "orders-user");
}

#[test]
fn b10_it_conforms_with_a_login_and_the_other_ciphers_as_well() {
    let bao = OpenBao::start();
    for cipher in ["chacha20-poly1305", "xchacha20-poly1305"] {
        let (key, policy) = (format!("of-{cipher}"), format!("user-of-{cipher}"));
        bao.admin("POST", &format!("transit/keys/{key}"), &json!({ "type": cipher }));
        bao.allow(&policy, &key);
        let role = bao.app_role(&key, &policy, &json!({}));
        let login = Login::app_role(role, SecretText::new(bao.secret_id(&key)));
        let kms = VaultTransit::builder(bao.url(), login).build().unwrap();
        conforms(&bao, &kms, &key, &policy);
    }
}

#[test]
fn preflight_is_satisfied_with_the_least_privileges() {
    let (bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let report = preflight(&kms, &Kek::latest("orders"));
    assert_eq!(report.verdict(), Verdict::Ready, "{report}");
    // They are the ones that users are told to paste.
    let rules = bao.admin("GET", "sys/policies/acl/orders-user", &json!({}));
    let rules = rules.pointer("/data/policy").and_then(|rules| rules.as_str()).unwrap().to_owned();
    assert!(include_str!("../../../../docs/PROVIDERS.md").contains(&rules), "{rules}");
    // With them nobody makes a key by wrapping under a name that is not there, and the provider would not ask.
    let all_powerful = connect(&bao.url(), bao.root_token());
    assert_eq!(class(wrap(&all_powerful, "orders-2")), Refused(KeyGone));
    let keys = bao.admin("LIST", "transit/keys", &json!({}));
    assert_eq!(keys.pointer("/data/keys"), Some(&json!(["orders"])));
}

#[test]
fn e1_a_rotation_is_adopted_and_old_data_stays_readable() {
    let (bao, token) = world();
    let kms: Arc<dyn KeyProvider> = Arc::new(connect(&bao.url(), &token));
    let clock = ManualClock::new();
    let cache = AekCache::builder().manual(&clock).build().unwrap();
    let create = |kek| {
        let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), kek);
        cache.create(spec.store(Arc::new(MemoryRecordStore::new()))).unwrap()
    };
    let (by_hand, by_itself) = (create(Kek::latest("orders")), create(Kek::latest("orders")));
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = [&by_hand, &by_itself].map(|account| account.seal(id, Aad::EMPTY, b"data").unwrap());
    bao.rotate_key("orders");

    assert!(matches!(by_hand.rotate_kek(RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
    assert_eq!(by_hand.record().kek_version(), &version("2"));
    assert_eq!(by_hand.rotate_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);
    // The other one looks for new versions by itself.
    assert_eq!(by_itself.record().kek_version(), &version("1"));
    cache.run_for(Duration::from_secs(660));
    assert_eq!(by_itself.record().kek_version(), &version("2"));

    // Now the old version may go.
    bao.configure_key("orders", &json!({ "min_decryption_version": 2 }));
    cache.run_for(Duration::from_secs(120));
    for (account, sealed) in [&by_hand, &by_itself].into_iter().zip(&sealed) {
        assert_eq!(account.open(id, Aad::EMPTY, sealed).unwrap(), b"data");
    }
}

#[test]
fn min_decryption_version_bars_a_version_and_lets_it_back() {
    let (bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let old = wrap(&kms, "orders").unwrap();
    bao.rotate_key("orders");
    let new = wrap(&kms, "orders").unwrap();
    assert_eq!((old.version(), new.version()), (&version("1"), &version("2")));
    bao.configure_key("orders", &json!({ "min_decryption_version": 2 }));
    assert_eq!(class(unwrap(&kms, &old)), Refused(KeyDisabled));
    unwrap(&kms, &new).unwrap();
    let pinned = Kek::pinned("orders", version("1"));
    assert!(!kms.describe(&pinned).unwrap().enabled);
    assert!(kms.describe(&Kek::latest("orders")).unwrap().enabled);
    assert_eq!(class(kms.wrap(&pinned, &context(), &secret())), Refused(KeyDisabled));
    bao.configure_key("orders", &json!({ "min_decryption_version": 1, "min_encryption_version": 2 }));
    unwrap(&kms, &old).unwrap();
    assert!(!kms.describe(&pinned).unwrap().enabled, "it cannot wrap");
    assert_eq!(class(kms.wrap(&pinned, &context(), &secret())), Refused(KeyDisabled));
}

#[test]
fn a_removed_permission_is_told_from_a_revoked_token_and_heals() {
    let (bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let wrapped = wrap(&kms, "orders").unwrap();
    bao.deny("orders-user");
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(PermissionRemoved));
    assert_eq!(class(kms.describe(&Kek::latest("orders"))), Refused(PermissionRemoved));
    bao.allow("orders-user", "orders");
    unwrap(&kms, &wrapped).unwrap();
    bao.revoke_token(&token);
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(CredentialRejected));
    // A token that never was any good.
    assert_eq!(class(unwrap(&connect(&bao.url(), "s.never"), &wrapped)), Refused(CredentialRejected));
}

#[test]
fn a_soft_deleted_key_is_gone_until_it_is_restored() {
    let (bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let wrapped = wrap(&kms, "orders").unwrap();
    bao.soft_delete_key("orders");
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(KeyGone));
    assert_eq!(class(wrap(&kms, "orders")), Refused(KeyGone));
    assert_eq!(class(kms.describe(&Kek::latest("orders"))), Refused(KeyGone));
    bao.restore_key("orders");
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn a_deleted_key_is_gone_and_one_made_anew_is_another() {
    let (bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let wrapped = wrap(&kms, "orders").unwrap();
    assert!(kms.describe(&Kek::latest("orders")).unwrap().recoverable());
    bao.delete_key("orders");
    assert_eq!(class(unwrap(&kms, &wrapped)), Refused(KeyGone));
    assert_eq!(class(kms.describe(&Kek::latest("orders"))), Refused(KeyGone));
    assert_eq!(class(wrap(&kms, "orders")), Refused(KeyGone));
    bao.create_key("orders");
    assert_eq!(class(unwrap(&kms, &wrapped)), Integrity);
    bao.admin("DELETE", "sys/mounts/transit", &json!({}));
    let all_powerful = connect(&bao.url(), bao.root_token());
    assert_eq!(class(unwrap(&all_powerful, &wrapped)), Refused(KeyGone));
}

#[test]
fn a_sealed_server_is_silent_or_refuses_as_was_asked_for() {
    let (bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let strict = with_token(&bao.url(), &token).sealed_counts_as_refused().build().unwrap();
    let wrapped = wrap(&kms, "orders").unwrap();
    unwrap(&strict, &wrapped).unwrap();
    bao.seal();
    assert_eq!(class(unwrap(&kms, &wrapped)), Transient);
    assert_eq!(class(unwrap(&strict, &wrapped)), Refused(KeyDisabled));
    bao.unseal();
    unwrap(&kms, &wrapped).unwrap();
    unwrap(&strict, &wrapped).unwrap();
}

#[test]
fn a_stopped_server_is_silent_and_its_dead_connections_fail_no_call_afterwards() {
    let (mut bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let wrapped = wrap(&kms, "orders").unwrap();
    bao.stop();
    assert_eq!(class(unwrap(&kms, &wrapped)), Transient);
    bao.start_again();
    unwrap(&kms, &wrapped).unwrap();
    // Stopped and started between two calls: the connection that was kept is dead, and is not used.
    bao.stop();
    bao.start_again();
    unwrap(&kms, &wrapped).unwrap();
}

#[test]
fn namespaces_are_apart_and_told_in_the_uri() {
    let (bao, token) = world();
    bao.admin("POST", "sys/namespaces/team-a", &json!({}));
    bao.admin_in("team-a", "POST", "sys/mounts/engines/transit", &json!({ "type": "transit" }));
    bao.admin_in("team-a", "POST", "engines/transit/keys/orders", &json!({}));
    let rules = r#"path "engines/transit/*" { capabilities = ["read", "update"] }"#;
    bao.admin_in("team-a", "PUT", "sys/policies/acl/user", &json!({ "policy": rules }));
    let made = bao.admin_in("team-a", "POST", "auth/token/create", &json!({ "policies": ["user"] }));
    let theirs = made.pointer("/auth/client_token").unwrap().as_str().unwrap().to_owned();

    let outside = connect(&bao.url(), &token);
    let inside =
        with_token(&bao.url(), &theirs).namespace("team-a").mount("engines/transit").build().unwrap();
    let wrapped = wrap(&inside, "orders").unwrap();
    unwrap(&inside, &wrapped).unwrap();
    let uri = format!("vault://{};team-a;engines%2Ftransit/orders", bao.address());
    assert_eq!(wrapped.kek().as_str(), uri);
    // Each refuses the other's records without asking, and has no rights there.
    assert_eq!(class(unwrap(&outside, &wrapped)), Misconfigured);
    assert_eq!(class(unwrap(&inside, &wrap(&outside, "orders").unwrap())), Misconfigured);
    let intruder =
        with_token(&bao.url(), &token).namespace("team-a").mount("engines/transit").build().unwrap();
    assert!(matches!(class(unwrap(&intruder, &wrapped)), Refused(_)));
    let nowhere =
        with_token(&bao.url(), &theirs).namespace("team-b").mount("engines/transit").build().unwrap();
    assert!(matches!(class(nowhere.describe(&Kek::latest("orders"))), Refused(_)));
}

#[test]
fn unfit_keys_and_names_are_a_mistake_of_ours() {
    let bao = OpenBao::start();
    let kms = connect(&bao.url(), bao.root_token());
    for (name, options) in [
        ("short", json!({ "type": "aes128-gcm96" })),
        ("derived", json!({ "derived": true })),
        ("convergent", json!({ "derived": true, "convergent_encryption": true })),
        ("public", json!({ "type": "rsa-4096" })),
    ] {
        bao.admin("POST", &format!("transit/keys/{name}"), &options);
        assert_eq!(class(wrap(&kms, name)), Misconfigured, "{name}");
        assert_eq!(class(kms.describe(&Kek::latest(name))), Misconfigured, "{name}");
    }
    for name in ["", "..", "../sys/seal", "a/b", "a?b", "a b", "a%2Fb", "\u{e9}"] {
        assert_eq!(class(wrap(&kms, name)), Misconfigured, "{name:?}");
    }
    bao.create_key("orders");
    for wrong in ["0", "01", "+1", "one", "4294967296"] {
        let answer = kms.wrap(&Kek::pinned("orders", version(wrong)), &context(), &secret());
        assert_eq!(class(answer), Misconfigured, "{wrong}");
    }
    let answer = kms.wrap(&Kek::pinned("orders", version("2")), &context(), &secret());
    assert_eq!(class(answer), Refused(KeyGone));
}

#[test]
fn a_rate_limit_is_transient() {
    let (bao, token) = world();
    let kms = connect(&bao.url(), &token);
    let wrapped = wrap(&kms, "orders").unwrap();
    let quota = json!({ "rate": 0.01, "interval": "60s", "path": "transit" });
    bao.admin("POST", "sys/quotas/rate-limit/little", &quota);
    let mut failed = None;
    for _ in 0..3 {
        failed = failed.or(unwrap(&kms, &wrapped).err());
    }
    assert_eq!(failed.expect("is limited").class(), Transient);
    bao.admin("DELETE", "sys/quotas/rate-limit/little", &json!({}));
    unwrap(&kms, &wrapped).unwrap();
}
