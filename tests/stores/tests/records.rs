//! Records in object stores over real servers: what every record store has to hold (contracts G2, E7, E10).

use std::sync::Arc;

use object_store::ObjectStore;
use strongroom::store::ObjectRecordStore;
use strongroom::testing::record_stores;
use strongroom_stores_tests::{azurite_store, in_a_process_given_an_azurite, is_given_an_azurite, s3};

fn suite(store: &Arc<dyn ObjectStore>) {
    let over = |prefix| {
        ObjectRecordStore::with_own_runtime(Arc::clone(store), prefix)
            .and_then(|store| store.call_deadline(std::time::Duration::from_secs(20)))
            .expect("a record store")
    };
    record_stores::lists_its_accounts(&over("listed"));
    record_stores::replaces_only_what_was_seen(&over("replaced"));
    record_stores::keeps_what_was_replaced(&over("kept").keep_history(3), 3);
    record_stores::destroys_what_it_keeps(&over("purged"));
    record_stores::loses_no_update_of_8_threads(&over("raced"));
}

#[test]
fn g2_e10_records_are_kept_in_s3() {
    let (_server, store) = s3();
    suite(&store);
}

#[test]
fn g2_e10_records_are_kept_in_azure_blob_storage() {
    in_a_process_given_an_azurite(
        "what_a_process_that_is_given_an_azurite_does",
        "records are kept in Azurite",
    );
}

#[test]
fn what_a_process_that_is_given_an_azurite_does() {
    if is_given_an_azurite() {
        suite(&azurite_store());
        println!("records are kept in Azurite");
    }
}
