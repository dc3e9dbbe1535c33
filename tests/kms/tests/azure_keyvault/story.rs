//! End to end, in real time: revoked at the server, restored there; silence, grace, unavailable, recovery.

use serde_json::json;
use strongroom::Refusal;
use strongroom::provider::Kek;
use strongroom_kms_tests::key_vault::{HSM, KeyVault, VAULT, own_runtime};
use strongroom_kms_tests::proxy::{Mode, Proxy};
use strongroom_kms_tests::story::{Silence, Story};

use super::NAME;

#[test]
fn azure_lives_through_the_story() {
    let service = KeyVault::start();
    service.create(VAULT, NAME, "RSA");
    service.create(VAULT, "steady", "RSA");
    let kek = Kek::latest(NAME);
    let steady = Kek::latest("steady");
    let hanging = Proxy::before(service.places().vault);
    let refusing = Proxy::before(service.places().vault);
    let through = |proxy: &Proxy| own_runtime(service.places().with_vault(proxy.address()).at_vault());
    let silences = [
        Silence {
            name: "hanging",
            provider: &through(&hanging),
            kek: &steady,
            on: &|| hanging.set(Mode::Hang),
            off: &|| hanging.set(Mode::Pass),
        },
        Silence {
            name: "refused connections",
            provider: &through(&refusing),
            kek: &steady,
            on: &|| refusing.set(Mode::Refuse),
            off: &|| refusing.set(Mode::Pass),
        },
    ];
    let story = Story {
        name: "Key Vault",
        provider: &service.vault(),
        kek: &kek,
        revoke: &|| service.enable(VAULT, NAME, false),
        restore: &|| service.enable(VAULT, NAME, true),
        refusal: Refusal::KeyDisabled,
        silences: &silences,
    };
    drop(story.run());
}

#[test]
fn azure_managed_hsm_lives_through_the_story() {
    let service = KeyVault::start();
    service.create(HSM, NAME, "oct-HSM");
    let kek = Kek::latest(NAME);
    let story = Story {
        name: "Managed HSM",
        provider: &service.managed_hsm(),
        kek: &kek,
        revoke: &|| service.deny(HSM, &json!({ "unwrap": "rbac" })),
        restore: &|| service.deny(HSM, &json!({})),
        refusal: Refusal::PermissionRemoved,
        silences: &[],
    };
    drop(story.run());
}
