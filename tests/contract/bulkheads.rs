//! Calls that hang, panic or answer late, and neighbours that do not notice: B11, B12.

use std::sync::Arc;

use strongroom::provider::{Authority, Kek, KeyProvider};
use strongroom::testing::virtual_time::Awaited;
use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountSpec, AekCache, ErrorKind, Expect, OutageGrace, Refusal, Retire, RotateTo,
    Status, UnavailableCause,
};

use crate::common::{KEK, NANO, World, kind, millis, secs, usable};

#[test]
fn b11_calls_that_hang_for_ever_hold_few_workers_and_extend_nothing() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.every_call(&Answer::Hang);
    world.run(world.cache.fresh_for() - NANO);
    assert!(usable(&account));
    world.run(NANO);
    assert_eq!(account.status(), Status::Unavailable(UnavailableCause::Silent));
    world.run(secs(3600));
    let stats = world.cache.stats();
    assert!(stats.late >= 1 && stats.hanging_workers <= 4, "{stats:?}");
}

#[test]
fn b11_a_late_success_renews_nothing() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.always(Call::Unwrap, Answer::Late(millis(2001), Box::new(Answer::Ok)));
    world.run(world.cache.fresh_for());
    assert_eq!(kind(account.permit()), Some(ErrorKind::Unavailable));
    world.run(secs(600));
    assert!(!usable(&account), "every answer comes after its deadline");
}

#[test]
fn b11_a_late_refusal_is_a_reason_to_ask_at_once() {
    let world = World::new(60, OutageGrace::DEFAULT);
    let account = world.create();
    world.kms.clear_log();
    let refused = Box::new(Answer::Refused(Refusal::KeyDisabled));
    world.kms.next(Call::Unwrap, [Answer::Late(secs(4), refused)]);
    world.kms.always(Call::Unwrap, Answer::Refused(Refusal::KeyDisabled));
    let begun = world.run_until(millis(10), secs(61), || !world.unwraps().is_empty());
    let closed = begun + world.run_until(millis(10), secs(61), || !usable(&account));
    assert!(closed - begun <= secs(6) + millis(10), "{:?}", closed - begun);
}

#[test]
fn b11_a_panic_counts_as_silence_and_the_keeper_lives_on() {
    let world = World::new(6, OutageGrace::For(secs(60)));
    let account = world.create();
    world.kms.every_call(&Answer::Panic);
    world.run(secs(30));
    assert!(matches!(account.status(), Status::Grace { .. }));
    assert_eq!(kind(world.cache.create(world.spec())), Some(ErrorKind::Unavailable));
    assert_eq!(kind(account.rotate_kek(RotateTo::Latest)), Some(ErrorKind::Unavailable));
    world.kms.every_call(&Answer::Ok);
    world.run(secs(12));
    assert!(matches!(account.status(), Status::Fresh { .. }));
}

/// As many accounts as there are threads at an authority whose calls all hang, beside healthy ones.
#[test]
fn b12_a_dark_authority_delays_no_other_on_virtual_time() {
    for refresh in [6, 60] {
        let world = World::new(refresh, OutageGrace::None);
        let dark = ScriptedProvider::on_virtual_time().with_authority(Authority::new("scripted", "dark"));
        let create = |kms: &ScriptedProvider| {
            let spec = AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK));
            world.cache.create(spec).unwrap()
        };
        let darkened: Vec<_> = (0..64).map(|_| create(&dark)).collect();
        let healthy: Vec<_> = (0..64).map(|_| create(&world.kms)).collect();
        world.kms.every_call(&Answer::Delay(millis(15)));
        dark.every_call(&Answer::Hang);
        let mut most_failed = 0;
        for _ in 0..600 {
            world.run(secs(1));
            most_failed = most_failed.max(healthy.iter().filter(|account| !usable(account)).count());
        }
        assert_eq!(most_failed, 0, "r = {refresh}");
        assert!(darkened.iter().all(|account| !usable(account)));
        // A quarter of the threads, as many as it may hold while it answers.
        assert!(world.cache.stats().hanging_workers <= 8);
    }
}

/// An account each at `count` authorities of which two fifths are dark, without grace.
struct Neighbours {
    world: World,
    dark: Vec<(ScriptedProvider, Account)>,
    healthy: Vec<Account>,
}

impl Neighbours {
    fn new(count: usize, asynchronous: bool) -> Self {
        let world = World::new(6, OutageGrace::None);
        let (mut dark, mut healthy) = (Vec::new(), Vec::new());
        for n in 0..count {
            let authority = Authority::new("scripted", n.to_string());
            let kms = ScriptedProvider::on_virtual_time().with_authority(authority);
            let mut provider: Arc<dyn KeyProvider> = Arc::new(kms.clone());
            if asynchronous {
                provider = Arc::new(Awaited::new(provider));
            }
            let spec = AccountSpec::new(AccountId::random(), provider, Kek::latest(KEK));
            let account = world.cache.create(spec).unwrap();
            kms.every_call(&Answer::Delay(millis(15)));
            // Mixed in every order that a keeper could serve them in.
            match n % 5 {
                0 | 1 => dark.push((kms, account)),
                _ => healthy.push(account),
            }
        }
        Self { world, dark, healthy }
    }

    fn darken(&self, answer: &Answer) {
        self.dark.iter().for_each(|(kms, _)| kms.every_call(answer));
    }

    /// How many operations on healthy accounts fail, of one each a second.
    fn failed_in(&self, seconds: usize) -> usize {
        let failed = |()| self.healthy.iter().filter(|account| !usable(account)).count();
        (0..seconds).map(|_| self.world.run(secs(1))).map(failed).sum()
    }

    fn dark_in_use(&self) -> usize {
        self.dark.iter().filter(|(_, account)| usable(account)).count()
    }
}

#[test]
fn b12_hundreds_of_asynchronous_authorities_that_hang_delay_no_other_and_hold_no_thread() {
    let neighbours = Neighbours::new(500, true);
    neighbours.darken(&Answer::Hang);
    assert_eq!(neighbours.failed_in(90), 0);
    assert_eq!(neighbours.dark_in_use(), 0);
    let stats = neighbours.world.cache.stats();
    assert!(stats.late >= 200, "{stats:?}");
    assert_eq!((stats.hanging_workers, stats.probes_waiting), (0, 0), "{stats:?}");
    // D7, for all of them at once.
    neighbours.darken(&Answer::Ok);
    neighbours.world.run(secs(8));
    assert_eq!(neighbours.dark_in_use(), 200);
}

/// 80 authorities that fall silent together, where each holds a thread of 32 for 4 s, are more than F leaves time for. Once it is known
/// which they are, nobody else waits for them, and it shows that they wait for each other.
#[test]
fn b12_c8_more_dark_authorities_than_threads_can_probe_wait_for_each_other_and_for_nobody_else() {
    let neighbours = Neighbours::new(200, false);
    neighbours.darken(&Answer::Late(secs(4), Box::new(Answer::Transient)));
    neighbours.failed_in(60);
    let mut waited = 0;
    for _ in 0..120 {
        assert_eq!(neighbours.failed_in(1), 0);
        waited = waited.max(neighbours.world.cache.stats().probes_waiting);
    }
    assert!(waited > 0);
    assert_eq!(neighbours.dark_in_use(), 0);
    // Those that are asked already hold their threads for 4 s more; then all are asked.
    neighbours.darken(&Answer::Ok);
    neighbours.world.run(secs(6 + 4 + 6));
    assert_eq!(neighbours.dark_in_use(), 80);
    assert_eq!(neighbours.world.cache.stats().probes_waiting, 0);
}

#[test]
fn b12_a_refused_customer_delays_no_other() {
    let world = World::new(6, OutageGrace::None);
    world.kms.add_key("theirs");
    let spec = AccountSpec::new(AccountId::random(), world.provider(), Kek::latest("theirs"));
    let (ours, theirs) = (world.create(), world.cache.create(spec).unwrap());
    world.kms.set_enabled("theirs", false);
    for _ in 0..300 {
        world.run(secs(1));
        assert!(usable(&ours));
    }
    assert!(!usable(&theirs));
}

#[test]
fn b12_a_dark_authority_delays_no_other_on_real_threads() {
    let dark = ScriptedProvider::new().with_authority(Authority::new("scripted", "dark"));
    let healthy = ScriptedProvider::new();
    let cache = AekCache::builder().kms_threads(4).build().unwrap();
    let record = |kms: &ScriptedProvider| {
        let provider: Arc<dyn KeyProvider> = Arc::new(kms.clone());
        let id = AccountId::random();
        let account = cache.create(AccountSpec::new(id, Arc::clone(&provider), Kek::latest(KEK))).unwrap();
        (account.record(), Expect::account(id).kek(provider, KEK))
    };
    let dark_records: Vec<_> = (0..16).map(|_| record(&dark)).collect();
    let healthy_records: Vec<_> = (0..16).map(|_| record(&healthy)).collect();
    let _release = dark.release_on_drop();
    dark.every_call(&Answer::Hang);
    let attach = |records: Vec<_>| -> Vec<Account> {
        records.into_iter().map(|(record, expect)| cache.attach(record, expect).unwrap()).collect()
    };
    let dark_accounts = attach(dark_records);
    let waiting: Vec<_> = dark_accounts.iter().map(Account::ready).collect();
    while dark.in_flight() == 0 {
        std::thread::yield_now();
    }
    for account in attach(healthy_records) {
        account.wait_ready(secs(5)).unwrap();
    }
    assert!(dark.max_in_flight() <= 2, "at most half of the threads");
    assert!(dark_accounts.iter().all(|account| account.status() == Status::NotReady));
    drop(waiting);
}

#[test]
fn b12_a_record_store_that_fails_is_not_silence_of_the_kms() {
    for phase in 0..30 {
        let world = World::new(6, OutageGrace::DEFAULT);
        let store = crate::common::Store::new();
        let stored: Vec<_> = (0..8)
            .map(|_| world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap())
            .collect();
        let others: Vec<_> = (0..8).map(|_| world.create()).collect();
        world.run(secs(30));
        store.fail_all();
        world.run(secs(60) + millis(211) * phase);
        assert!(others.iter().all(|other| matches!(other.status(), Status::Fresh { .. })));
        assert!(stored.iter().all(|stored| matches!(stored.status(), Status::Grace { .. })));
        // A refusal reaches the neighbours as fast as ever.
        world.kms.set_enabled(KEK, false);
        world.run(world.cache.staleness_bound());
        assert!(others.iter().all(|other| matches!(other.status(), Status::Revoked(_))), "{phase}");
    }
}

#[test]
fn b12_what_did_not_ask_a_silent_kms_is_no_answer_of_it() {
    for damaged in [true, false] {
        let world = World::new(6, OutageGrace::DEFAULT);
        let crowd: Vec<_> = (0..20).map(|_| world.create()).collect();
        let store = crate::common::Store::new();
        let account = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap();
        world.kms.every_call(&Answer::Transient);
        world.run(secs(30));
        if damaged {
            store.plant(account.id(), b"no record");
        }
        world.kms.clear_log();
        for _ in 0..60 {
            world.run(secs(1));
            if !damaged {
                let here = RotateTo::Version(account.record().kek_version().clone());
                assert_eq!(account.rotate_kek(here).unwrap(), Retire::AlreadyCurrent);
            }
        }
        let probes = world.unwraps().len();
        assert!((9..=11).contains(&probes), "{damaged}: {probes}");
        assert!(crowd.iter().all(|one| matches!(one.status(), Status::Grace { .. })));
    }
}

/// Its store hangs, so it never came to ask the KMS.
#[test]
fn b12_a_rotation_that_hangs_before_it_asks_makes_no_kms_suspect() {
    let world = World::new(60, OutageGrace::None);
    let others: Vec<_> = (0..6).map(|_| world.create()).collect();
    let store = crate::common::Store::new();
    let account = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap();
    world.run(secs(10));
    store.delay_nth(0, secs(60));
    let here = RotateTo::Version(account.record().kek_version().clone());
    drop(account.begin_rotate_kek(here));
    for _ in 0..600 {
        if world.cache.stats().late == 0 {
            world.run(millis(100));
        }
    }
    assert_eq!(world.cache.stats().late, 1, "it was given up");
    world.kms.every_call(&Answer::Delay(secs(1)));
    world.kms.clear_log();
    others.iter().for_each(Account::record_changed);
    world.run(millis(100));
    assert_eq!(world.unwraps().len(), others.len(), "all at the same time, as where a KMS answers");
}
