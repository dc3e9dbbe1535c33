//! A fleet in one process, all at one OpenBao, part of whose customers' networks swallow everything: B12, C8.
//!
//! `STRONGROOM_FLEET_MINUTES=30` makes it 5,000 accounts for as long; a plain run is short. `STRONGROOM_FLEET_REFRESH` is r in seconds,
//! `STRONGROOM_FLEET_AUTHORITIES` how many networks there are, two fifths of them dark.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use strongroom::provider::{Kek, KeyProvider};
use strongroom::{Account, AccountId, AccountSpec, AekCache, OutageGrace};
use strongroom_kms_tests::openbao::OpenBao;
use strongroom_kms_tests::proxy::{Mode, Proxy};

use crate::with_token;

#[test]
fn b12_c8_a_fleet_beside_dark_authorities_in_real_time() {
    let (accounts, refresh, length) = match asked("MINUTES") {
        Some(minutes) => (5000, asked("REFRESH").unwrap_or(30), 60 * minutes),
        None => (200, 6, 40),
    };
    let (refresh, length) = (Duration::from_secs(refresh), Duration::from_secs(length));
    let authorities = asked("AUTHORITIES").map_or(10, |count| usize::try_from(count).unwrap());
    let dark = authorities * 2 / 5;
    // As the documentation of `kms_threads` has it.
    let threads = (dark * 5 / 2).max(32);
    let bao = OpenBao::start();
    bao.create_key("orders");
    let proxies: Vec<_> = (0..authorities).map(|_| Proxy::before(bao.address())).collect();
    let kms: Vec<Arc<dyn KeyProvider>> = proxies
        .iter()
        .map(|proxy| Arc::new(with_token(&proxy.url(), bao.root_token()).build().unwrap()) as _)
        .collect();
    // Twice what it needs when all is well.
    let cap = u32::try_from(2 * accounts as u64 / refresh.as_secs()).unwrap();
    // Without grace each late answer of the server counts, and other tests keep the machine busy: the longest deadline there is.
    let builder = AekCache::builder().refresh_every(refresh).outage_grace(OutageGrace::None);
    let builder = builder.call_deadline(Duration::from_secs(5)).kms_threads(threads);
    let cache = builder.kms_calls_per_second(cap).build().unwrap();

    let begun = Instant::now();
    let mut fleet: Vec<Account> = Vec::new();
    while fleet.len() < accounts {
        // A few at a time, so that none waits longer for its turn than it may.
        let creating: Vec<_> = (fleet.len()..accounts.min(fleet.len() + 40))
            .map(|n| {
                let spec = AccountSpec::new(
                    AccountId::random(),
                    Arc::clone(&kms[n % authorities]),
                    Kek::latest("orders"),
                );
                cache.begin_create(spec.allow_unrecoverable_kek())
            })
            .collect();
        fleet.extend(creating.into_iter().map(|pending| pending.wait().expect("OpenBao answers")));
    }
    println!("measured | {accounts} accounts created | {:.1} s", begun.elapsed().as_secs_f64());

    proxies[..dark].iter().for_each(|proxy| proxy.set(Mode::Hang));
    let is_dark = |n: usize| n % authorities < dark;
    let (begun, before, cpu) = (Instant::now(), cache.stats(), cpu_time());
    let (mut failed, mut operations, mut busiest) = (0_u64, 0_u64, 0);
    let mut last = (Instant::now(), before.kms_calls());
    // The seconds of the first and of the last one.
    let mut failures = None;
    while begun.elapsed() < length {
        for (_, account) in fleet.iter().enumerate().filter(|(n, _)| !is_dark(*n)) {
            operations += 1;
            if account.permit().is_err() {
                failed += 1;
                let at = begun.elapsed().as_secs();
                failures = Some(failures.map_or((at, at), |(first, _)| (first, at)));
            }
        }
        thread::sleep(Duration::from_millis(100));
        if last.0.elapsed() >= Duration::from_secs(1) {
            let calls = cache.stats().kms_calls();
            busiest =
                busiest.max((calls - last.1) * 1000 / u64::try_from(last.0.elapsed().as_millis()).unwrap());
            last = (Instant::now(), calls);
        }
    }
    let (elapsed, after) = (begun.elapsed(), cache.stats());
    let closed =
        fleet.iter().enumerate().filter(|(n, account)| is_dark(*n) && account.permit().is_err()).count();
    println!(
        "measured | {accounts} accounts, {dark} of {authorities} authorities dark, {threads} threads, r = {refresh:?} | {failed} of {operations} operations failed in {:.0} s",
        elapsed.as_secs_f64()
    );
    println!(
        "measured | the fleet's calls | {} in all, at most {busiest} a second under a cap of {cap}; {} late, {} hang; {:.2} dollars a month at 0.03 for 10,000",
        after.kms_calls() - before.kms_calls(),
        after.late - before.late,
        after.hanging_workers,
        after.cost_per_month(&before, elapsed, 0.03)
    );
    println!(
        "measured | the process, asking for all leases ten times a second, with the proxies | {:.1} % of a core",
        (cpu_time() - cpu).as_secs_f64() / elapsed.as_secs_f64() * 100.0
    );
    assert_eq!(failed, 0, "of {operations} on healthy accounts, in seconds {failures:?}");
    assert_eq!(
        closed,
        fleet.iter().enumerate().filter(|(n, _)| is_dark(*n)).count(),
        "dark accounts are closed once they are no longer fresh"
    );
    assert!(busiest <= u64::from(cap), "{busiest} calls in a second");
    assert!(after.hanging_workers <= threads as u64 / 2, "{after:?}");

    // The networks come back, and so do the accounts, by themselves.
    proxies[..dark].iter().for_each(|proxy| proxy.set(Mode::Pass));
    let begun = Instant::now();
    while fleet.iter().any(|account| account.permit().is_err()) {
        assert!(begun.elapsed() < refresh + Duration::from_secs(20), "accounts come back");
        thread::sleep(Duration::from_millis(50));
    }
    println!("measured | all accounts are back | {:.1} s", begun.elapsed().as_secs_f64());
}

/// A number that whoever runs this sets in the environment.
fn asked(what: &str) -> Option<u64> {
    std::env::var(format!("STRONGROOM_FLEET_{what}")).ok()?.parse().ok()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
