//! Stores of `object_store` 0.13 in the servers that `strongroom-stores-tests` starts.

use std::sync::Arc;

use object_store_0_13::ObjectStore;
use object_store_0_13::aws::AmazonS3Builder;
use object_store_0_13::azure::MicrosoftAzureBuilder;
use strongroom_kms_tests::process::Server;
use strongroom_stores_tests::BUCKET;

/// The bucket of an S3 that [`strongroom_stores_tests::s3`] started.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn s3_of(server: &Server) -> Arc<dyn ObjectStore> {
    let store = AmazonS3Builder::new()
        .with_endpoint(server.url())
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .build();
    Arc::new(store.expect("is complete"))
}

/// The store of the Azurite whose address the environment has, as for [`strongroom_stores_tests::azurite_store`].
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn azurite_store() -> Arc<dyn ObjectStore> {
    let builder = MicrosoftAzureBuilder::new().with_use_emulator(true).with_container_name(BUCKET);
    Arc::new(builder.build().expect("is complete"))
}
