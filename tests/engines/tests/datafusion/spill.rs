//! Sorts and groups that do not fit into memory spill to sealed files, and to nothing else (contract G7).

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::spill::{SpillManager, spill_pool};
use datafusion::prelude::SessionContext;
use futures_util::StreamExt;
use strongroom::ErrorKind;
use strongroom_engines_tests::data::{MARKER, ROWS};
use strongroom_engines_tests::spill::SealedSpills;
use strongroom_engines_tests::story::{kind, texts};

use crate::world::World;

/// A fifth of what the table takes.
const MEMORY: usize = 1 << 20;
const SORT: &str = "SELECT shuffled, note FROM eve ORDER BY shuffled";

pub(crate) fn no_disk() -> DiskManagerBuilder {
    DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled)
}

/// Second hands on all files that were made.
type Files = Arc<Mutex<Vec<File>>>;

fn sealed_disk(world: &World) -> (DiskManagerBuilder, Files) {
    let files = Files::default();
    let hands = Arc::clone(&files);
    let make = move || {
        let file = tempfile::tempfile()?;
        hands.lock().expect("nobody panics").push(file.try_clone()?);
        io::Result::Ok(file)
    };
    let spills = SealedSpills::new(world.account.clone(), make);
    (DiskManagerBuilder::default().with_temp_file_factory(Arc::new(spills)), files)
}

/// How many bytes lie in the files, and how often the marker is among them.
fn search(files: &Files) -> (usize, usize) {
    let mut all = Vec::new();
    for file in files.lock().expect("nobody panics").iter_mut() {
        file.rewind().expect("is a file");
        file.read_to_end(&mut all).expect("is read");
    }
    (all.len(), markers(&all))
}

fn markers(bytes: &[u8]) -> usize {
    bytes.windows(MARKER.len()).filter(|window| *window == MARKER.as_bytes()).count()
}

async fn numbers(context: &SessionContext) -> Vec<i64> {
    let found = texts(context, SORT).await.expect("is sorted");
    found.iter().map(|number| number.parse().expect("is a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_a_sort_that_spills_leaves_nothing_to_read_on_the_disk() {
    let world = World::new();
    let (disk, files) = sealed_disk(&world);
    let context = world.session(disk, MEMORY).await;
    assert!(numbers(&context).await.into_iter().eq(0..ROWS));
    let (bytes, seen) = search(&files);
    assert!(bytes > MEMORY && seen == 0, "{bytes} bytes, {seen} markers");
    assert!(context.runtime_env().disk_manager.temp_dir_paths().is_empty(), "it has no folder of its own");
}

/// The positive control: as DataFusion does it by itself, notes lie on the disk to be read.
#[tokio::test(flavor = "multi_thread")]
async fn g7_the_same_sort_without_us_leaves_notes_to_read_on_the_disk() {
    let world = World::new();
    let folder = tempfile::tempdir().expect("a folder");
    let mode = DiskManagerMode::Directories(vec![folder.path().to_owned()]);
    let context = world.session(DiskManagerBuilder::default().with_mode(mode), MEMORY).await;
    let mut rows = context.sql(SORT).await.expect("plans").execute_stream().await.expect("begins");
    rows.next().await.expect("has rows").expect("is sorted");
    assert!(markers(&all_of(folder.path())) > 0);
}

fn all_of(folder: &Path) -> Vec<u8> {
    let entries = fs::read_dir(folder).expect("is a folder");
    let paths = entries.map(|entry| entry.expect("is listed").path());
    paths
        .flat_map(|path| if path.is_dir() { all_of(&path) } else { fs::read(path).expect("is read") })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_d1_a_tenant_revoked_while_its_sort_is_merged_gets_an_error_and_later_the_whole_answer() {
    let world = World::new();
    let (disk, files) = sealed_disk(&world);
    let context = world.session(disk, MEMORY).await;
    let mut rows = context.sql(SORT).await.expect("plans").execute_stream().await.expect("begins");
    let first = rows.next().await.expect("has rows").expect("is sorted");
    assert_eq!(first.column(0).as_primitive::<Int64Type>().value(0), 0);
    assert!(search(&files).0 > MEMORY, "everything was read by now, and most of it spilled");
    world.revoke();
    let mut given_out = first.num_rows();
    let error = loop {
        match rows.next().await {
            Some(Ok(batch)) => given_out += batch.num_rows(),
            Some(Err(error)) => break error,
            None => panic!("the whole answer was given out"),
        }
    };
    assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{error}");
    // What was in memory already.
    assert!((given_out as i64) < ROWS / 2, "{given_out} rows");
    let error = texts(&context, SORT).await.expect_err("is refused");
    assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{error}");
    world.restore();
    assert!(numbers(&context).await.into_iter().eq(0..ROWS));
}

/// What a repartition does whose consumer is slower than its producer: each file is read while it is written.
#[tokio::test(flavor = "multi_thread")]
async fn g7_a_spill_that_is_read_while_it_is_written_is_sealed_and_whole() {
    let world = World::new();
    let (disk, files) = sealed_disk(&world);
    let context = world.session(disk, 256 << 20).await;
    let batches = context.table("eve").await.expect("is there").collect().await.expect("is read");
    let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
    let manager = Arc::new(SpillManager::new(context.runtime_env(), metrics, batches[0].schema()));
    let (writer, mut reader) = spill_pool::spsc_channel(64 * 1024, manager);
    for batch in batches.iter().take(50) {
        writer.push_batch(batch).expect("is spilled");
        assert_eq!(reader.next().await.expect("is there at once").expect("is read"), *batch);
    }
    batches.iter().take(50).for_each(|batch| writer.push_batch(batch).expect("is spilled"));
    drop(writer);
    for batch in batches.iter().take(50) {
        assert_eq!(reader.next().await.expect("is there").expect("is read"), *batch);
    }
    assert!(reader.next().await.is_none());
    let (bytes, seen) = search(&files);
    assert!(files.lock().expect("nobody panics").len() > 5 && bytes > 50 * 64 && seen == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn g7_groups_that_spill_are_sealed_and_complete() {
    let world = World::new();
    let (disk, files) = sealed_disk(&world);
    let context = world.session(disk, 2 * MEMORY).await;
    let query = "SELECT sum(n) FROM (SELECT note, count(*) AS n FROM eve GROUP BY note)";
    assert_eq!(texts(&context, query).await.expect("is answered"), [ROWS.to_string()]);
    let (bytes, seen) = search(&files);
    assert!(bytes > 0 && seen == 0, "{bytes} bytes, {seen} markers");
}
