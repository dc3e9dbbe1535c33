//! What an account of a large fleet takes of memory (goal P11). A test binary of its own, because it counts what the process allocates.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "benches/fleet.rs uses all of it")]
#[path = "../benches/fleet/kms.rs"]
mod kms;

use std::sync::Arc;
use std::time::Duration;

use cap::Cap;
use kms::Kms;
use strongroom::provider::Kek;
use strongroom::testing::ManualClock;
use strongroom::{Account, AccountId, AccountSpec, AekCache};

/// The system's, with a count of the bytes that are taken.
#[global_allocator]
static HEAP: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

const ACCOUNTS: usize = 1000;
/// What it takes at one KMS, and what its authority's lane adds. The goal is 2 KiB; the slot of locked memory that the keys are in is not on
/// the heap, and what the system's allocator adds to each block is not counted here: benches/fleet.rs measures resident memory.
const MOST: usize = 1536;
const MOST_FOR_LANE: usize = 160;
/// With counters for metrics: four, each with cache lines to itself, the room that lines up with those, and what gauges remember.
const COUNTED: usize = if cfg!(feature = "metrics") { 512 + 256 + 256 } else { 0 };

/// Bytes of heap for each account, through one refresh: what it grows to is counted.
fn heap_for_each(authorities: usize) -> usize {
    let clock = ManualClock::new();
    let kms: Vec<_> = (0..authorities).map(|n| Kms::new(&clock, &n.to_string())).collect();
    let cache = AekCache::builder().refresh_every(Duration::from_secs(30)).manual(&clock).build().unwrap();
    let create = |kms: &Kms| -> Account {
        let spec = AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest("kek"));
        cache.create(spec).unwrap()
    };
    // What the first one of a cache brings along is not counted.
    let warm = create(&kms[0]);
    let before = HEAP.allocated();
    let fleet: Vec<_> = (0..ACCOUNTS).map(|n| create(&kms[n % authorities])).collect();
    kms.iter().for_each(|kms| kms.answer_after(Duration::from_millis(1)));
    let verified = cache.stats().verified;
    cache.run_for(Duration::from_secs(40));
    let each = (HEAP.allocated() - before) / ACCOUNTS;
    assert!(cache.stats().verified >= verified + ACCOUNTS as u64, "each was refreshed");
    assert!(fleet.iter().all(|account| account.permit().is_ok()));
    drop(warm);
    each
}

// One test: two at once would count each other's.
#[test]
fn p11_an_account_takes_less_than_2_kib_at_one_kms_and_at_one_of_its_own() {
    for authorities in [1, ACCOUNTS] {
        let each = heap_for_each(authorities);
        let lane = if authorities == 1 { 0 } else { MOST_FOR_LANE };
        let most = MOST + lane + COUNTED;
        assert!(each <= most, "{each} bytes for an account at {authorities} KMSs; the most is {most}");
    }
}
