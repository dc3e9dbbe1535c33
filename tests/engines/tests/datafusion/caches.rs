//! What DataFusion knows in the plain from footers that it has read (contract D6).

use strongroom::ErrorKind;
use strongroom_engines_tests::story::{kind, texts};

use crate::spill::no_disk;
use crate::world::World;

const FROM_THE_FOOTER: &str = "SELECT max(id) FROM eve";

#[tokio::test]
async fn d6_a_session_that_caches_nothing_answers_nothing_of_a_revoked_tenant() {
    let world = World::new();
    let context = world.session(no_disk(), 256 << 20).await;
    let before = texts(&context, FROM_THE_FOOTER).await.expect("is answered");
    world.revoke();
    let error = texts(&context, FROM_THE_FOOTER).await.expect_err("is refused");
    assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{error}");
    world.restore();
    assert_eq!(texts(&context, FROM_THE_FOOTER).await.expect("is answered again"), before);
}

/// Why the sessions of these tests cache nothing: the other kind answers. Its owner has to drop the caches when it is told of a
/// revocation.
#[tokio::test]
async fn d6_datafusions_own_caches_have_to_be_dropped_when_a_tenant_is_revoked() {
    let world = World::new();
    let context = world.with_caches().await;
    let before = texts(&context, FROM_THE_FOOTER).await.expect("is answered");
    world.revoke();
    let cached = texts(&context, FROM_THE_FOOTER).await.expect("this is what the caches do");
    assert_eq!(cached, before);
    let runtime = context.runtime_env();
    runtime.cache_manager.get_file_metadata_cache().clear();
    runtime.cache_manager.get_file_statistic_cache().expect("there is one").clear();
    let error = texts(&context, FROM_THE_FOOTER).await.expect_err("is refused");
    assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{error}");
}
