//! Records in object stores over real servers: what every record store has to hold (contracts G2, E10).

use std::process::Command;
use std::sync::Arc;

use object_store::ObjectStore;
use strongroom::store::ObjectRecordStore;
use strongroom::testing::record_stores;
use strongroom_stores_tests::{AZURITE_URL, azurite, azurite_store, s3_one_by_one};

/// Set for the process that the test over Azurite starts.
const CHILD: &str = "STRONGROOM_RECORDS_CHILD";

fn suite(store: &Arc<dyn ObjectStore>) {
    let over = |prefix| {
        ObjectRecordStore::with_own_runtime(Arc::clone(store), prefix)
            .and_then(|store| store.call_deadline(std::time::Duration::from_secs(20)))
            .expect("a record store")
    };
    record_stores::lists_its_accounts(&over("listed"));
    record_stores::replaces_only_what_was_seen(&over("replaced"));
    record_stores::keeps_what_was_replaced(&over("kept").keep_history(3), 3);
    record_stores::loses_no_update_of_8_threads(&over("raced"));
}

#[test]
fn g2_e10_records_are_kept_in_s3() {
    let (_server, store) = s3_one_by_one();
    suite(&store);
}

/// The address goes through the environment, which only another process can be given.
#[test]
fn g2_e10_records_are_kept_in_azure_blob_storage() {
    let server = azurite();
    let mut child = Command::new(std::env::current_exe().expect("a path"));
    child.args(["--exact", "what_a_process_that_is_given_an_azurite_does", "--nocapture"]);
    let output = child.env(AZURITE_URL, server.url()).env(CHILD, "1").output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("records are kept in Azurite"), "{text}");
}

#[test]
fn what_a_process_that_is_given_an_azurite_does() {
    if std::env::var_os(CHILD).is_some() {
        suite(&azurite_store());
        println!("records are kept in Azurite");
    }
}
