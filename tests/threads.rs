//! A cache that has ended leaves no thread. A test binary of its own, because it counts the threads of the process.
#![cfg(all(feature = "testing", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::Kek;
use strongroom::testing::{Answer, ScriptedProvider};
use strongroom::{AccountId, AccountSpec, AekCache, RotateTo};

fn ours() -> usize {
    let names = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("strongroom")).count()
}

#[test]
fn b11_a_cache_that_has_ended_leaves_no_thread() {
    let kms = ScriptedProvider::new();
    let spec =
        || AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(ScriptedProvider::KEK));
    let settle = || {
        while ours() > 0 {
            std::thread::yield_now();
        }
    };
    let cache = AekCache::builder().build().unwrap();
    let account = cache.create(spec()).unwrap();
    assert!(ours() >= 2);
    assert!(cache.shutdown(Duration::from_secs(10)));
    settle();
    drop((account, cache));

    // Dropped, not shut down.
    let cache = AekCache::builder().build().unwrap();
    let account = cache.create(spec()).unwrap();
    drop(cache);
    assert!(account.permit().is_ok(), "accounts keep it alive");
    drop(account);
    settle();

    // A call that hangs leaves its worker behind until it returns.
    let cache = AekCache::builder().build().unwrap();
    let account = cache.create(spec()).unwrap();
    kms.every_call(&Answer::Hang);
    let rotating = account.begin_rotate_kek(RotateTo::Latest);
    while kms.in_flight() == 0 {
        std::thread::yield_now();
    }
    assert!(!cache.shutdown(Duration::from_millis(10)));
    assert!(rotating.wait().is_err());
    assert_eq!(ours(), 1);
    drop(kms.release_on_drop());
    settle();
}
