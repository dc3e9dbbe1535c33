//! A DataFusion session over a sealed store, and the tables that its tests ask.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::config::TableParquetOptions;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use object_store_0_13::ObjectStore;

/// Where the store is registered.
pub const URL: &str = "sealed://bucket/";
/// Rows of a table, and of a row group: 400 groups, each of them read when its turn comes.
pub const ROWS: i64 = 25_600;
/// As many rows are in a row group, and in a batch.
pub const GROUP: usize = 64;
/// A part of every note, and of nothing else.
pub const MARKER: &str = "confidential-note";

/// A session whose files are in `store`, and which spills through `disk` when `memory` bytes are used up.
///
/// It keeps nothing that it has read: DataFusion's caches hold footers of Parquet files with the least and the greatest value
/// of each column, in the plain, and answer `count`, `min` and `max` from them without a read, whether or not the key is still
/// there.
///
/// # Errors
/// DataFusion's.
pub fn session(
    store: Arc<dyn ObjectStore>,
    disk: DiskManagerBuilder,
    memory: usize,
) -> Result<SessionContext> {
    let caches_nothing =
        RuntimeEnvBuilder::new().with_metadata_cache_limit(0).with_file_statistics_cache_limit(0);
    session_with(
        store,
        caches_nothing.with_disk_manager_builder(disk).with_memory_limit(memory, 1.0).build_arc()?,
    )
}

/// The same with a runtime of the caller's.
///
/// # Errors
/// DataFusion's.
pub fn session_with(store: Arc<dyn ObjectStore>, runtime: Arc<RuntimeEnv>) -> Result<SessionContext> {
    runtime.register_object_store(ObjectStoreUrl::parse(URL)?.as_ref(), store);
    let mut config = SessionConfig::new().with_target_partitions(1).with_batch_size(GROUP);
    config.options_mut().execution.sort_spill_reservation_bytes = 64 * 1024;
    // A sort counts what its batches hold on to: of views, the buffers of all other rows too.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    // A footer is read when it is asked for, and no more than it.
    config.options_mut().execution.parquet.metadata_size_hint = None;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// Writes a tenant's table as one Parquet file of many row groups, and registers it under the tenant's name.
///
/// # Errors
/// DataFusion's.
pub async fn write_table(context: &SessionContext, tenant: &str) -> Result<()> {
    let mut options = TableParquetOptions::default();
    options.global.max_row_group_size = GROUP;
    // So that a search for plaintext could find it.
    options.global.compression = Some("uncompressed".to_owned());
    options.global.dictionary_enabled = Some(false);
    options.global.allow_single_file_parallelism = false;
    let file = format!("{URL}{tenant}/notes/part-0.parquet");
    let single = DataFrameWriteOptions::new().with_single_file_output(true);
    context.read_batch(rows(tenant)?)?.write_parquet(&file, single, Some(options)).await?;
    let folder = format!("{URL}{tenant}/notes/");
    context.register_parquet(tenant, folder, ParquetReadOptions::default()).await
}

/// `id` counts up, `shuffled` goes through the same numbers in another order, `note` holds the marker.
fn rows(tenant: &str) -> Result<RecordBatch> {
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..ROWS))),
        ("shuffled", Arc::new(Int64Array::from_iter_values((0..ROWS).map(shuffled)))),
        ("note", Arc::new(StringArray::from_iter_values((0..ROWS).map(|id| note(tenant, id))))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The number at `id`, of a permutation of all.
#[must_use]
pub const fn shuffled(id: i64) -> i64 {
    id * 7_919 % ROWS
}

/// The note of a row.
#[must_use]
pub fn note(tenant: &str, id: i64) -> String {
    format!("{tenant}'s {MARKER} number {id}: {}", "what nobody else may read. ".repeat(4))
}
