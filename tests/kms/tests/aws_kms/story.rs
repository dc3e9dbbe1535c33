//! The story in real time: revoked at the server, and silent behind a proxy.

use std::sync::Arc;

use strongroom::Refusal;
use strongroom::provider::{Kek, KeyProvider};
use strongroom_kms_tests::ministack;
use strongroom_kms_tests::proxy::{Mode, Proxy};
use strongroom_kms_tests::story::{Silence, Story};

use super::{connect, provider, provider_of, shared};

#[test]
fn r8_r9_r10_aws_disabled_keys_and_silent_servers_in_real_time() {
    let (server, kms) = (shared(), connect());
    let (key, other) = (server.keys().create(), server.keys().create());
    let (hanging, refusing) = (Proxy::before(server.address()), Proxy::before(server.address()));
    let [through_hanging, through_refusing] =
        [&hanging, &refusing].map(|proxy| Arc::new(provider(&proxy.url())) as Arc<dyn KeyProvider>);
    let (kek, other) = (Kek::latest(key.as_str()), Kek::latest(other));
    let story = Story {
        name: "AWS KMS",
        provider: &kms,
        kek: &kek,
        revoke: &|| server.keys().disable(&key),
        restore: &|| server.keys().enable(&key),
        refusal: Refusal::KeyDisabled,
        silences: &[
            Silence {
                name: "answers stop",
                provider: &through_hanging,
                kek: &other,
                on: &|| hanging.set(Mode::Hang),
                off: &|| hanging.set(Mode::Pass),
            },
            Silence {
                name: "connections refused",
                provider: &through_refusing,
                kek: &other,
                on: &|| refusing.set(Mode::Refuse),
                off: &|| refusing.set(Mode::Pass),
            },
        ],
    };
    story.run();
}

#[test]
fn r8_r10_aws_removed_permission_in_real_time() {
    let server = shared();
    let user = server.user("story");
    let all = ["kms:DescribeKey", "kms:Encrypt", "kms:Decrypt"];
    server.allow("story", &all);
    let kms: Arc<dyn KeyProvider> = Arc::new(provider_of(ministack::config(&server.url(), user)));
    let story = Story {
        name: "AWS KMS, policy",
        provider: &kms,
        kek: &Kek::latest(server.keys().create()),
        revoke: &|| server.allow("story", &["kms:DescribeKey", "kms:Encrypt"]),
        restore: &|| server.allow("story", &all),
        refusal: Refusal::PermissionRemoved,
        silences: &[],
    };
    story.run();
}
