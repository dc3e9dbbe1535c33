//! Stores in the servers that are started here. Compiled once for each version of `object_store`, which is `upstream`.

use std::sync::Arc;

use super::upstream::ObjectStore;
use super::upstream::aws::AmazonS3Builder;
use super::upstream::azure::MicrosoftAzureBuilder;
use crate::BUCKET;

/// The store in the S3 at `url`.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn s3_store(url: &str) -> Arc<dyn ObjectStore> {
    let store = AmazonS3Builder::new()
        .with_endpoint(url)
        .with_allow_http(true)
        .with_bucket_name(BUCKET)
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .build()
        .expect("is complete");
    Arc::new(store)
}

/// The store of the Azurite whose address the variable [`AZURITE_URL`](crate::AZURITE_URL) has. `object_store` reads no other place, and knows
/// what Azurite lacks only if it is told this way.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn azurite_store() -> Arc<dyn ObjectStore> {
    let builder = MicrosoftAzureBuilder::new().with_use_emulator(true).with_container_name(BUCKET);
    Arc::new(builder.build().expect("is complete"))
}
