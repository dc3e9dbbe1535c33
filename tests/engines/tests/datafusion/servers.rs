//! The story of one revoked tenant among three, over an S3 and an Azure Blob Storage.

use std::sync::Arc;

use object_store_0_13::ObjectStore;
use strongroom_engines_tests::story;
use strongroom_stores_tests::v0_13::{azurite_store, s3_store};
use strongroom_stores_tests::{in_a_process_given_an_azurite, is_given_an_azurite, s3};

async fn story(inner: Arc<dyn ObjectStore>) {
    let (mut steps, mut failed) = (0, Vec::new());
    let mut tell = |held: bool, text: &str| {
        println!("{} {text}", if held { "ok  " } else { "FAIL" });
        steps += 1;
        if !held {
            failed.push(text.to_owned());
        }
    };
    story::tell(inner, &mut tell).await.expect("nothing else fails");
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(steps, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_d1_d7_datafusion_over_s3_ends_a_revoked_tenants_query_and_no_other() {
    let (server, _) = s3();
    story(s3_store(&server.url())).await;
}

#[test]
fn g1_d1_d7_datafusion_over_azure_blob_storage_ends_a_revoked_tenants_query_and_no_other() {
    in_a_process_given_an_azurite(
        "servers::what_a_process_that_is_given_an_azurite_does",
        "the story was told over Azurite",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_is_given_an_azurite_does() {
    if !is_given_an_azurite() {
        return;
    }
    story(azurite_store()).await;
    println!("the story was told over Azurite");
}
