//! Many accounts in one process: a cap on calls, who goes first, what is counted: C8.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strongroom::provider::{Authority, Kek, KeyProvider};
use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, AekCache, Directory, ErrorKind, Expect,
    MemoryRecordStore, OutageGrace, Pending, RecordStore, RotateTo,
};

use crate::common::{KEK, kind, millis, secs, usable};

/// A cache with a cap, and accounts that another has created.
struct Fleet {
    clock: ManualClock,
    kms: ScriptedProvider,
    cache: AekCache,
    records: Vec<(AccountRecord, AccountId)>,
}

impl Fleet {
    fn new(accounts: usize, refresh: u64, cap: u32) -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        let first = AekCache::builder().manual(&clock).build().unwrap();
        let spec = || AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK));
        let created = (0..accounts).map(|_| first.create(spec()).unwrap());
        let records = created.map(|account| (account.record(), account.id())).collect();
        kms.clear_log();
        let builder = AekCache::builder().refresh_every(secs(refresh)).outage_grace(OutageGrace::None);
        let cache = builder.kms_calls_per_second(cap).manual(&clock).build().unwrap();
        Self { clock, kms, cache, records }
    }

    fn attach(&self, number: usize) -> Result<Account, strongroom::Error> {
        let (record, id) = &self.records[number];
        let provider: Arc<dyn KeyProvider> = Arc::new(self.kms.clone());
        self.cache.attach(record.clone(), Expect::account(*id).kek(provider, KEK))
    }

    fn attach_all(&self) -> Vec<Account> {
        (0..self.records.len()).map(|number| self.attach(number).unwrap()).collect()
    }

    /// All of them, after a minute in which they were used every second, so that none goes before another.
    fn in_use(&self) -> Vec<Account> {
        let accounts = self.attach_all();
        for _ in 0..60 {
            self.cache.run_for(secs(1));
            for account in &accounts {
                let _ = usable(account);
            }
        }
        accounts
    }

    /// The most calls within any second.
    fn most_in_a_second(&self) -> usize {
        most_in_a_second(&self.kms)
    }
}

fn most_in_a_second(kms: &ScriptedProvider) -> usize {
    let mut begun: Vec<Duration> = kms.log().iter().map(|call| call.started).collect();
    begun.sort_unstable();
    let (mut first, mut most) = (0, 0);
    for (last, at) in begun.iter().enumerate() {
        while begun[first] + secs(1) <= *at {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

#[test]
fn c8_a_cap_is_kept_in_every_second_and_nobodys_lease_ends() {
    for (refresh, cap) in [(6, 10), (30, 10), (60, 3)] {
        let most = Fleet::new(0, refresh, cap).cache.stats().most_accounts.unwrap();
        let fleet = Fleet::new(usize::try_from(most).unwrap(), refresh, cap);
        let accounts = fleet.attach_all();
        fleet.kms.every_call(&Answer::Delay(millis(15)));
        // As many as the cap serves, which took a refresh interval to attach: then minutes in which none may fail, two looks for versions among them.
        fleet.cache.run_for(secs(70));
        for minute in 0..11 {
            assert!(accounts.iter().all(usable), "r = {refresh}, minute {minute}");
            fleet.cache.run_for(secs(60));
        }
        assert!(fleet.most_in_a_second() <= cap as usize, "{}", fleet.most_in_a_second());
        let stats = fleet.cache.stats();
        assert!(stats.version_check_calls >= most && stats.deferred > 0, "{stats:?}");
    }
}

/// A creation makes five calls: taking turns with them would leave the refreshes a sixth of the cap.
#[test]
fn c8_creations_without_an_end_keep_no_account_from_its_refresh() {
    for authority in ["the same", "another"] {
        let fleet = Fleet::new(500, 60, 16);
        let accounts = fleet.in_use();
        let kms = match authority {
            "another" => fleet.kms.clone().with_authority(Authority::new("scripted", authority)),
            _ => fleet.kms.clone(),
        };
        let spec = || AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK));
        let (mut creating, mut created) = (Vec::new(), 0);
        for second in 0..300 {
            while creating.len() < 4 {
                creating.push(fleet.cache.begin_create(spec()));
            }
            fleet.cache.run_for(secs(1));
            created += take_done(&mut creating);
            assert!(accounts.iter().all(usable), "{authority} authority, second {second}");
        }
        // Of 300 s at 15 calls a second the refreshes need 2,600 to 2,900.
        assert!(created > 200, "{created} created at {authority} authority");
    }
}

/// What is asked for takes its place in the pace also where it turns out that no KMS has to be asked.
#[test]
fn c8_what_asks_no_kms_keeps_no_account_from_its_refresh_either() {
    for authority in ["the same", "another"] {
        let fleet = Fleet::new(500, 60, 16);
        let kms = match authority {
            "another" => fleet.kms.clone().with_authority(Authority::new("scripted", authority)),
            _ => fleet.kms.clone(),
        };
        let one = AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest(KEK));
        let one = fleet.cache.create(one).unwrap();
        let accounts = fleet.in_use();
        let (mut rotating, mut done) = (Vec::new(), 0);
        for second in 0..120 {
            while rotating.len() < 40 {
                rotating.push(one.begin_rotate_kek(RotateTo::Version(one.record().kek_version().clone())));
            }
            fleet.cache.run_for(secs(1));
            done += take_done(&mut rotating);
            assert!(accounts.iter().all(usable), "{authority} authority, second {second}");
        }
        assert!(done > 20, "{done} at {authority} authority");
    }
}

/// Takes out what has ended, and tells how much of it was done. What finds no room in time fails, and says so.
fn take_done<T>(begun: &mut Vec<Pending<T>>) -> usize {
    let mut done = 0;
    begun.retain_mut(|pending| match Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => {
            done += usize::from(result.is_ok());
            false
        }
        Poll::Pending => true,
    });
    done
}

#[test]
fn c8_the_accounts_used_most_recently_go_first_when_calls_are_scarce() {
    let fleet = Fleet::new(40, 60, 10);
    let accounts = fleet.attach_all();
    fleet.cache.run_for(secs(20));
    // Not those that come first in any order.
    let used: Vec<_> = accounts.iter().skip(3).step_by(4).collect();
    fleet.cache.run_for(secs(5));
    assert!(used.iter().all(|account| usable(account)));
    fleet.kms.clear_log();
    accounts.iter().for_each(Account::record_changed);
    fleet.cache.run_for(secs(10));
    let called: Vec<_> = fleet.kms.log().iter().filter_map(|call| call.account).collect();
    assert_eq!(called.len(), 40);
    let first: HashSet<_> = called[..10].iter().copied().collect();
    assert_eq!(first, used.iter().map(|account| account.id()).collect());
    assert_eq!(fleet.cache.stats().deferred, 2 * 39, "all but the first, when they were attached and now");
}

#[test]
fn c8_authorities_share_the_cap_and_the_order_by_use() {
    let fleet = Fleet::new(0, 60, 10);
    let kms: Vec<_> = (0..20)
        .map(|n| fleet.kms.clone().with_authority(Authority::new("scripted", format!("{n:02}"))))
        .collect();
    let first = AekCache::builder().manual(&fleet.clock).build().unwrap();
    let accounts: Vec<_> = kms
        .iter()
        .map(|kms| {
            let provider: Arc<dyn KeyProvider> = Arc::new(kms.clone());
            let spec = AccountSpec::new(AccountId::random(), Arc::clone(&provider), Kek::latest(KEK));
            let account = first.create(spec).unwrap();
            fleet.cache.attach(account.record(), Expect::account(account.id()).kek(provider, KEK)).unwrap()
        })
        .collect();
    drop(first);
    fleet.cache.run_for(secs(20));
    assert!(usable(&accounts[19]) && usable(&accounts[7]));
    fleet.kms.clear_log();
    accounts.iter().for_each(Account::record_changed);
    fleet.cache.run_for(secs(10));
    let called: Vec<_> = fleet.kms.log().iter().filter_map(|call| call.account).collect();
    let first: HashSet<_> = called[..2].iter().copied().collect();
    assert_eq!(first, HashSet::from([accounts[7].id(), accounts[19].id()]));
    assert!(fleet.most_in_a_second() <= 10);
}

#[test]
fn c8_a_cap_that_cannot_serve_one_more_account_is_an_error_and_a_dropped_one_gives_its_place_back() {
    let fleet = Fleet::new(6, 6, 1);
    let mut accounts: Vec<_> = (0..5).map(|number| fleet.attach(number).unwrap()).collect();
    assert_eq!(fleet.cache.stats().most_accounts, Some(5));
    let error = fleet.attach(5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(error.account(), Some(fleet.records[5].1));
    let arithmetic = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        arithmetic.contains("1 calls a second") && arithmetic.contains("serve 5 accounts"),
        "{arithmetic}"
    );
    // The same where it is created, before anything is persisted.
    let store = Arc::new(MemoryRecordStore::new());
    let id = AccountId::random();
    let spec =
        AccountSpec::new(id, Arc::new(fleet.kms.clone()), Kek::latest(KEK)).store(Arc::clone(&store) as _);
    let creating = fleet.cache.begin_create(spec);
    fleet.cache.run_for(secs(11));
    assert_eq!(kind(creating.wait()), Some(ErrorKind::Limit));
    assert!(matches!(store.load(id, None).unwrap(), strongroom::Loaded::Absent));
    // A directory's lookup is an attachment; a sweep makes room.
    accounts.pop();
    let account = fleet.attach(5).unwrap();
    assert_eq!(kind(fleet.attach(4)), Some(ErrorKind::Limit));
    drop(account);
    fleet.attach(4).unwrap();
}

#[test]
fn c8_what_a_directory_drops_is_counted_and_costs_nothing() {
    let fleet = Fleet::new(0, 30, 100);
    let store: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
    let ids: Vec<_> = (0..20)
        .map(|_| {
            let id = AccountId::random();
            let spec =
                AccountSpec::new(id, Arc::new(fleet.kms.clone()), Kek::latest(KEK)).store(Arc::clone(&store));
            let creating = fleet.cache.begin_create(spec);
            fleet.cache.run_for(secs(1));
            drop(creating.wait().unwrap());
            id
        })
        .collect();
    let directory = Directory::builder(fleet.cache.clone(), store).build().unwrap();
    for id in &ids {
        let provider: Arc<dyn KeyProvider> = Arc::new(fleet.kms.clone());
        directory.register(Expect::account(*id).kek(provider, KEK)).unwrap();
        drop(directory.account(*id).unwrap());
    }
    assert_eq!(fleet.cache.stats().accounts, 20);
    fleet.cache.run_for(secs(700));
    let before = fleet.cache.stats();
    assert_eq!((before.accounts, before.idle_dropped), (0, 20));
    fleet.cache.run_for(secs(3600));
    assert_eq!(fleet.cache.stats().kms_calls(), before.kms_calls());
    assert_eq!(before.cost_per_month(&before, secs(3600), 0.03).to_bits(), 0.0_f64.to_bits());
}

#[test]
fn c8_every_call_is_counted_once_by_what_it_was_for() {
    let clock = ManualClock::new();
    let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
    let cache = AekCache::builder().manual(&clock).build().unwrap();
    let spec = AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK));
    let account = cache.create(spec).unwrap();
    let created = cache.stats();
    assert_eq!((created.control_calls, created.refresh_calls), (5, 0), "get, wrap, unwrap; wrap, unwrap");
    assert_eq!(created.kms_calls(), kms.log().len() as u64);
    kms.clear_log();
    cache.run_for(secs(3600));
    let stats = cache.stats();
    assert_eq!(stats.control_calls, 5);
    assert_eq!(stats.refresh_calls, kms.calls(Call::Unwrap) as u64);
    assert_eq!(stats.refresh_calls, stats.refreshes, "one round trip each");
    assert_eq!(stats.version_check_calls, kms.calls(Call::Describe) as u64);
    assert!((5..=7).contains(&stats.version_check_calls), "{stats:?}");
    assert_eq!((stats.deferred, stats.most_accounts), (0, None));
    // 720 hours of a month, at 0.03 for 10,000.
    let cost = stats.cost_per_month(&created, secs(3600), 0.03);
    let calls = (stats.kms_calls() - created.kms_calls()) as f64;
    assert!((cost - calls * 720.0 / 10_000.0 * 0.03).abs() < 1e-9, "{cost}");
    drop(account);
}

#[test]
fn c8_a_cap_holds_for_calls_that_somebody_asks_for_on_real_threads() {
    const CAP: u32 = 20;
    let kms = ScriptedProvider::new();
    let cache = AekCache::builder().kms_calls_per_second(CAP).build().unwrap();
    let spec = || AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK));
    let creating: Vec<_> = (0..8).map(|_| cache.begin_create(spec())).collect();
    let accounts: Vec<_> = creating.into_iter().map(|pending| pending.wait().unwrap()).collect();
    assert_eq!(accounts.len(), 8);
    assert_eq!(kms.log().len(), 40);
    // One more where a call that may begin is noted after the one behind it.
    assert!(most_in_a_second(&kms) <= CAP as usize + 1, "{}", most_in_a_second(&kms));
}

#[test]
fn c8_a_cap_out_of_range_is_refused() {
    for cap in [0, 1_000_001] {
        assert_eq!(kind(AekCache::builder().kms_calls_per_second(cap).build()), Some(ErrorKind::Misuse));
    }
}
