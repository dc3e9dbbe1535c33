//! The story of revocation, silence and recovery, in real time; and every kind of program.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use strongroom::Refusal;
use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider};
use strongroom_kms_tests::openbao::OpenBao;
use strongroom_kms_tests::proxy::{Mode, Proxy};
use strongroom_kms_tests::runtimes;
use strongroom_kms_tests::story::{Silence, Story};

/// Two keys, each with its policy and role: one that is taken away, one that falls silent.
struct World {
    bao: OpenBao,
    logins: [Login; 2],
}

impl World {
    fn new() -> Self {
        let bao = OpenBao::start();
        let logins = ["orders", "bills"].map(|key| {
            bao.create_key(key);
            bao.allow(key, key);
            let role_id = bao.app_role(key, key, &json!({}));
            Login::app_role(role_id, SecretText::new(bao.secret_id(key)))
        });
        Self { bao, logins }
    }

    fn connect(&self, url: &str, which: usize) -> Arc<dyn KeyProvider> {
        Arc::new(VaultTransit::builder(url, self.logins[which].clone()).build().unwrap())
    }
}

#[test]
fn r8_r9_r10_the_story_when_a_policy_is_removed_and_the_server_falls_silent() {
    let world = World::new();
    let bao = &world.bao;
    let hanging = Proxy::before(bao.address());
    let refusing = Proxy::before(bao.address());
    let delaying = Proxy::before(bao.address());
    let garbling = Proxy::before(bao.address());
    let provider = world.connect(&bao.url(), 0);
    let [hung, refused, delayed, garbled] =
        [&hanging, &refusing, &delaying, &garbling].map(|proxy| world.connect(&proxy.url(), 1));
    let (orders, bills) = (Kek::latest("orders"), Kek::latest("bills"));
    let pass = |proxy: &Proxy| proxy.set(Mode::Pass);
    Story {
        name: "OpenBao: policy",
        provider: &provider,
        kek: &orders,
        revoke: &|| bao.deny("orders"),
        restore: &|| bao.allow("orders", "orders"),
        refusal: Refusal::PermissionRemoved,
        silences: &[
            Silence {
                name: "no answer",
                provider: &hung,
                kek: &bills,
                on: &|| hanging.set(Mode::Hang),
                off: &|| pass(&hanging),
            },
            Silence {
                name: "connection refused",
                provider: &refused,
                kek: &bills,
                on: &|| refusing.set(Mode::Refuse),
                off: &|| pass(&refusing),
            },
            Silence {
                name: "answers too late",
                provider: &delayed,
                kek: &bills,
                on: &|| delaying.set(Mode::Delay(Duration::from_secs(5))),
                off: &|| pass(&delaying),
            },
            Silence {
                name: "garbled",
                provider: &garbled,
                kek: &bills,
                on: &|| garbling.set(Mode::Garble),
                off: &|| pass(&garbling),
            },
        ],
    }
    .run();
}

#[test]
fn r8_r10_the_story_when_the_key_is_soft_deleted_and_the_server_is_sealed() {
    let world = World::new();
    // The seal closes all of a server: the silence has one of its own.
    let other = World::new();
    let provider = world.connect(&world.bao.url(), 0);
    let sealed = other.connect(&other.bao.url(), 1);
    let (orders, bills) = (Kek::latest("orders"), Kek::latest("bills"));
    Story {
        name: "OpenBao: key",
        provider: &provider,
        kek: &orders,
        revoke: &|| world.bao.soft_delete_key("orders"),
        restore: &|| world.bao.restore_key("orders"),
        refusal: Refusal::KeyGone,
        silences: &[Silence {
            name: "sealed",
            provider: &sealed,
            kek: &bills,
            on: &|| other.bao.seal(),
            off: &|| other.bao.unseal(),
        }],
    }
    .run();
}

#[test]
fn b4_it_works_in_programs_without_a_runtime_and_in_both_flavours() {
    let world = World::new();
    let (url, login) = (world.bao.url(), world.logins[0].clone());
    let make = move || -> Arc<dyn KeyProvider> {
        Arc::new(VaultTransit::builder(url.as_str(), login.clone()).build().unwrap())
    };
    runtimes::check(make, &Kek::latest("orders"));
}
