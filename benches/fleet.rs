//! A fleet of accounts in one process: what each costs in memory and work, how a cap on calls holds, how many calls are made, and
//! what dark neighbours do (goals P11, P12, P13). `cargo bench --features testing --bench fleet` prints it.
//!
//! Time is virtual, so that half an hour takes seconds; the work is real, and so is the CPU time that is measured. The KMS here
//! does nothing but answer: what is measured is ours.
#![expect(clippy::disallowed_methods, reason = "the ban is for the library; this reads the CPU's clock")]

#[path = "fleet/kms.rs"]
mod kms;
#[path = "../tests/evidence/report.rs"]
mod report;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cap::Cap;
use kms::Kms;
use report::{count, report, timed};
use rustix::time::{ClockId, clock_gettime};
use strongroom::provider::{Kek, KeyProvider};
use strongroom::testing::ManualClock;
use strongroom::testing::virtual_time::Awaited;
use strongroom::{
    Aad, Account, AccountId, AccountRecord, AccountSpec, AekCache, BlockId, ErrorKind, Expect, ObjectId,
    OutageGrace,
};

/// The system's, with a count of the bytes that are taken.
#[global_allocator]
static HEAP: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

const KEK: &str = "kek";
/// Asks for the fleet with a KMS each, and nothing else.
const OWN: &str = "P11 at a KMS each";
/// Asks for the smallest of the neighbourhoods, and nothing else: what a planted fault needs to be found.
const SMALL: &str = "P13 of 20";
/// For 10,000 calls, as AWS KMS and Azure Key Vault ask: dollars.
const PRICE: f64 = 0.03;

fn main() {
    let accounts = usize::try_from(count(20_000, 20_000, 100_000)).expect("a number of accounts");
    // All goals, or those that are named.
    let named: Vec<String> = std::env::args().filter(|word| word.starts_with('P')).collect();
    let wanted = |goal: &str| named.is_empty() || named.iter().any(|name| name == goal);
    if named.iter().any(|name| name == OWN) {
        // A customer's KMS each: as many authorities as accounts.
        return fleet(accounts, accounts);
    }
    if named.iter().any(|name| name == SMALL) {
        return beside(
            &Shape { dark: Dark::Hang, authorities: 20, threads: 32, refresh: 6 },
            count(2, 2, 30),
        );
    }
    if wanted("P11") {
        fleet(accounts, 1);
        // In a process of its own: memory that the first fleet has given back would seem to cost the second one nothing.
        let this = std::env::current_exe().expect("a benchmark is a file");
        let own = std::process::Command::new(this).arg(OWN).status().expect("it runs once more");
        assert!(own.success());
        capped(accounts / 10);
    }
    if wanted("P12") {
        round_trips();
    }
    if wanted("P13") {
        neighbours();
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// P11: memory, the refresh of all at once, steady state.
fn fleet(accounts: usize, authorities: usize) {
    let clock = ManualClock::new();
    let kms: Vec<_> = (0..authorities).map(|n| Kms::new(&clock, &n.to_string())).collect();
    let cache =
        AekCache::builder().refresh_every(secs(30)).manual(&clock).build().expect("settings in range");
    let warm = create(&cache, &kms[0]);
    let (heap, resident) = (HEAP.allocated(), resident());
    let fleet: Vec<_> = (0..accounts).map(|n| create(&cache, &kms[n % authorities])).collect();
    let each = |bytes: usize| bytes as f64 / accounts as f64;
    // Through one refresh, so that what an account grows to is counted.
    kms.iter().for_each(|kms| kms.answer_after(millis(1)));
    cache.run_for(secs(40));
    let heap = each(HEAP.allocated().saturating_sub(heap));
    let resident = each(self::resident().saturating_sub(resident));

    // All at once, as after an outage.
    let begun = clock.since_boot();
    let done = cache.stats().verified + accounts as u64;
    fleet.iter().for_each(Account::record_changed);
    while cache.stats().verified < done {
        cache.run_for(millis(100));
    }
    let forced = clock.since_boot() - begun;
    cache.run_for(secs(60));

    // Steady state: the CPU time of a minute's work.
    let minute = secs(60);
    let before = cache.stats();
    let cpu = cpu_time();
    cache.run_for(minute);
    let share = (cpu_time() - cpu).as_secs_f64() / minute.as_secs_f64();
    let after = cache.stats();
    let refreshed = after.refreshes - before.refreshes;
    let usable = fleet.iter().filter(|account| account.permit().is_ok()).count();
    println!("{accounts} accounts at {authorities} KMSs that answer in 1 ms, r = 30 s:");
    println!("  each {heap:.0} bytes of heap, {resident:.0} bytes resident with the keys' locked memory");
    println!(
        "  all of them, due at once, in {forced:?}; {refreshed} refreshes in a minute with {:.2} % of a core",
        share * 100.0
    );
    println!(
        "  {:.0} calls a month and account, {:.2} dollars for each at {PRICE} for 10,000",
        (after.kms_calls() - before.kms_calls()) as f64 * 43_200.0 / accounts as f64,
        after.cost_per_month(&before, minute, PRICE) / accounts as f64
    );
    let shape = if authorities == 1 { "one KMS" } else { "a KMS each" };
    report("P11", &format!("accounts at {shape}"), usable, "=", accounts);
    report("P11", &format!("bytes for each, {shape}"), format!("{:.0}", heap.max(resident)), "<=", 2048);
    report("P11", &format!("seconds for all, {shape}"), format!("{:.1}", forced.as_secs_f64()), "<=", 60);
    // What a core does in a second does not shrink with the fleet.
    let scaled = share * 100_000.0 / accounts as f64 * 100.0;
    timed("P11", &format!("% of a core for 100,000, {shape}"), scaled, "<=", 5.0);
    drop(warm);
}

/// P11: a cap holds in every window of a second, those in use go first, and nobody's lease ends.
fn capped(accounts: usize) {
    let clock = ManualClock::new();
    let kms = Kms::new(&clock, "capped");
    let records = records(&clock, &kms, accounts);
    // The least that serves them, as the builder's documentation has it: for 25.8 s, the intervals of 27 s and 600 s together.
    let cap = u32::try_from(accounts * 100 / (9 * 258)).expect("a small fleet") + 3;
    let builder =
        AekCache::builder().refresh_every(secs(30)).outage_grace(OutageGrace::None).kms_calls_per_second(cap);
    let cache = builder.manual(&clock).build().expect("settings in range");
    kms.answer_after(millis(1));
    kms.keep_log();
    let attach = |(record, id): &(AccountRecord, AccountId)| cache.attach(record.clone(), expect(&kms, *id));
    let fleet: Vec<_> = records.iter().map(|known| attach(known).expect("the cap serves them")).collect();
    cache.run_for(secs(60));
    // Two minutes, all due at once in the midst of them; a tenth is in use.
    let in_use = accounts / 10;
    let mut failed = 0;
    for second in 0..120 {
        if second == 60 {
            fleet.iter().for_each(Account::record_changed);
        }
        failed += fleet[..in_use].iter().filter(|account| account.permit().is_err()).count();
        cache.run_for(secs(1));
    }
    let failed_of_all = fleet.iter().filter(|account| account.permit().is_err()).count();
    let most = kms.most_in_a_second();
    let deferred = cache.stats().deferred;
    println!(
        "{accounts} accounts under a cap of {cap} calls a second: at most {most} in any; {deferred} refreshes waited for it"
    );
    report("P11", "calls over the cap", most.saturating_sub(cap as usize), "=", 0);
    report("P11", "failed under the cap", failed + failed_of_all, "=", 0);
    report("P11", "refreshes that the cap put off", deferred, ">", 0);

    let too_low = AekCache::builder().refresh_every(secs(30)).kms_calls_per_second(cap / 2);
    let cache = too_low.manual(&clock).build().expect("settings in range");
    let (mut attached, mut refused) = (Vec::new(), 0);
    for (record, id) in &records {
        match cache.attach(record.clone(), expect(&kms, *id)) {
            Ok(account) => attached.push(account),
            Err(error) if error.kind() == ErrorKind::Limit => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(Some(attached.len() as u64), cache.stats().most_accounts);
    report("P11", "refused by half the cap", refused, ">", 0);
}

/// P12: calls for a first read, and for each refresh.
fn round_trips() {
    let clock = ManualClock::new();
    let kms = Kms::new(&clock, "counted");
    // No look at versions falls into the time.
    let cache = AekCache::builder().refresh_every(secs(30)).version_check_every(secs(86_400));
    let cache = cache.manual(&clock).build().expect("settings in range");
    let first = create(&cache, &kms);
    let (id, block) = (first.id(), BlockId::new(ObjectId::random(), 0));
    let sealed = first.seal(block, Aad::new(b"tenant"), b"plain").expect("a lease");
    let record = first.record();
    drop(first);
    cache.run_for(secs(10));
    let before = kms.calls();
    let account = cache.attach(record, expect(&kms, id)).expect("attaches");
    assert_eq!(kms.calls(), before, "attaching calls nobody");
    cache.drive();
    assert_eq!(account.open(block, Aad::new(b"tenant"), &sealed).expect("opens"), b"plain");
    report("P12", "round trips from attach to first read", kms.calls() - before, "=", 1);
    // Past the second refresh, with which the first look at versions comes.
    cache.run_for(secs(70));
    let (before, refreshes) = (kms.calls(), cache.stats().refreshes);
    cache.run_for(secs(3600));
    let refreshes = cache.stats().refreshes - refreshes;
    report("P12", "refreshes in an hour", refreshes, ">=", 100);
    report("P12", "round trips for each refresh", (kms.calls() - before) as f64 / refreshes as f64, "=", 1);
}

/// How the calls of dark authorities end.
#[derive(Clone, Copy)]
enum Dark {
    /// Not at all: each holds its thread.
    Hang,
    /// The client gives up, after as long as ours do unless told otherwise.
    GiveUp,
    /// Not at all, but the client is asynchronous: they hold no thread.
    Awaited,
}

/// P13: two fifths of the authorities are dark, and nobody else notices.
fn neighbours() {
    let minutes = count(2, 2, 30);
    report("P13", "minutes", minutes, ">=", count(2, 2, 30));
    for (dark, authorities, threads) in [
        (Dark::Hang, 20, 32),
        (Dark::Awaited, 500, 32),
        (Dark::Awaited, 5000, 32),
        (Dark::GiveUp, 500, 32),
        (Dark::Hang, 500, 32),
        (Dark::GiveUp, 500, 512),
        (Dark::Hang, 500, 512),
    ] {
        for refresh in [6, 60] {
            beside(&Shape { dark, authorities, threads, refresh }, minutes);
        }
    }
}

struct Shape {
    dark: Dark,
    authorities: usize,
    threads: usize,
    refresh: u64,
}

fn beside(shape: &Shape, minutes: u64) {
    let accounts = 5000;
    let clock = ManualClock::new();
    let kms: Vec<_> = (0..shape.authorities).map(|n| Kms::new(&clock, &n.to_string())).collect();
    let builder = AekCache::builder().refresh_every(secs(shape.refresh)).outage_grace(OutageGrace::None);
    let cache = builder.kms_threads(shape.threads).manual(&clock).build().expect("settings in range");
    let awaited = |n: usize| Arc::new(Awaited::new(provider(&kms[n]))) as Arc<dyn KeyProvider>;
    let fleet: Vec<_> = (0..accounts)
        .map(|n| n % shape.authorities)
        .map(|n| match shape.dark {
            Dark::Awaited => create_at(&cache, awaited(n)),
            Dark::Hang | Dark::GiveUp => create(&cache, &kms[n]),
        })
        .collect();
    // Dark and healthy ones stand mixed in every order that a keeper could serve them in.
    let is_dark = |n: usize| n % shape.authorities % 5 < 2;
    for (n, kms) in kms.iter().enumerate() {
        kms.answer_after(millis(15));
        match shape.dark {
            _ if !is_dark(n) => {}
            Dark::Hang | Dark::Awaited => kms.hang(),
            Dark::GiveUp => kms.give_up_after(secs(4)),
        }
    }
    let (mut failed, mut operations, mut last) = (0, 0, 0);
    for second in 0..minutes * 60 {
        cache.run_for(secs(1));
        let healthy = fleet.iter().enumerate().filter(|(n, _)| !is_dark(*n));
        let tried = healthy.map(|(_, account)| account.permit().is_ok());
        let (ok, bad): (Vec<bool>, Vec<bool>) = tried.partition(|ok| *ok);
        failed += bad.len();
        operations += ok.len() + bad.len();
        if !bad.is_empty() {
            last = second + 1;
        }
    }
    let dark = fleet.iter().enumerate().filter(|(n, _)| is_dark(*n));
    let closed = dark.clone().filter(|(_, account)| account.permit().is_err()).count();
    println!(
        "{accounts} accounts, {shape}, {minutes} minutes: {failed} of {operations} failed, the last after {last} s; {} hang",
        cache.stats().hanging_workers
    );
    report("P13", &format!("failed on healthy accounts, {shape}"), failed, "=", 0);
    report("P13", &format!("dark accounts closed, {shape}"), closed, "=", dark.count());
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dark, authorities, threads, refresh } = self;
        let how = match dark {
            Dark::Hang => "hang for ever",
            Dark::GiveUp => "time out after 4 s",
            Dark::Awaited => "hang, asynchronous",
        };
        write!(f, "{} of {authorities} {how}, {threads} threads, r = {refresh} s", authorities * 2 / 5)
    }
}

fn create(cache: &AekCache, kms: &Kms) -> Account {
    create_at(cache, provider(kms))
}

fn create_at(cache: &AekCache, provider: Arc<dyn KeyProvider>) -> Account {
    let spec = AccountSpec::new(AccountId::random(), provider, Kek::latest(KEK));
    cache.create(spec).expect("the KMS answers")
}

fn provider(kms: &Kms) -> Arc<dyn KeyProvider> {
    Arc::new(kms.clone())
}

fn expect(kms: &Kms, id: AccountId) -> Expect {
    Expect::account(id).kek(provider(kms), KEK)
}

/// Accounts that a cache has created which is gone.
fn records(clock: &ManualClock, kms: &Kms, accounts: usize) -> Vec<(AccountRecord, AccountId)> {
    let cache = AekCache::builder().manual(clock).build().expect("settings in range");
    let made = (0..accounts).map(|_| create(&cache, kms)).map(|account| (account.record(), account.id()));
    made.collect()
}

/// Bytes of this process in memory, the keys' included.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size()
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
