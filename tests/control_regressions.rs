//! What a review of the control plane found, each as a test that failed before.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::provider::{Authority, Kek, KeyProvider};
use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    AccountId, AccountSpec, AekCache, Error, ErrorKind, Expect, Loaded, MemoryRecordStore, OutageGrace,
    RecordStore, RecordTag, RotateTo,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn spec(id: AccountId, kms: &Arc<ScriptedProvider>) -> AccountSpec {
    let provider: Arc<dyn KeyProvider> = kms.clone();
    AccountSpec::new(id, provider, Kek::latest(ScriptedProvider::KEK))
}

fn expect(id: AccountId, kms: &Arc<ScriptedProvider>) -> Expect {
    let provider: Arc<dyn KeyProvider> = kms.clone();
    Expect::account(id).kek(provider, ScriptedProvider::KEK)
}

fn cache(clock: &ManualClock, threads: usize) -> AekCache {
    let builder = AekCache::builder().refresh_every(secs(6)).outage_grace(OutageGrace::None);
    builder.kms_threads(threads).manual(clock).build().unwrap()
}

type Forgery = fn(&mut [u8]);

/// Forges what it loads, while told to.
#[derive(Debug, Default)]
struct Forger {
    store: MemoryRecordStore,
    forge: Mutex<Option<Forgery>>,
}

impl RecordStore for Forger {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        let Some(forge) = *self.forge.lock().unwrap() else { return self.store.load(account, known) };
        let Loaded::Found { mut bytes, .. } = self.store.load(account, None)? else { panic!("created") };
        forge(&mut bytes);
        let tag = RecordTag::sha256_of(&bytes);
        Ok(Loaded::Found { bytes, tag })
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        self.store.compare_and_swap(account, expected, bytes)
    }
}

/// The sequence stands after magic, version and account.
fn highest_sequence(record: &mut [u8]) {
    let at = record.len().min(MAGIC_LEN + 1 + 16);
    record[at..at + 8].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
}

/// The version of the KEK follows its URI: a length in two bytes, then the text.
fn other_version(record: &mut [u8]) {
    let uri = b"scripted://test/kek";
    let at = record.windows(uri.len()).position(|window| window == uri).unwrap() + uri.len();
    let digit = record[at..].iter().position(|byte| *byte == b'1').unwrap();
    record[at + digit] = b'2';
}

const MAGIC_LEN: usize = 8;

#[test]
fn a8_a_forged_record_that_was_attached_gives_way_to_the_authentic_one() {
    let clock = ManualClock::new();
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    let cache = cache(&clock, 4);
    let store = Arc::new(Forger::default());
    let id = AccountId::random();
    let honest = cache.create(spec(id, &kms).store(store.clone())).unwrap().record();
    cache.drive();

    *store.forge.lock().unwrap() = Some(highest_sequence);
    let account = cache.attach_stored(store.clone(), expect(id, &kms)).unwrap();
    assert_ne!(account.record().sequence(), honest.sequence(), "forged, and believed in nothing");
    *store.forge.lock().unwrap() = None;
    account.ready().wait().unwrap();
    assert_eq!(account.record().to_bytes(), honest.to_bytes());
}

#[test]
fn e3_a_forged_record_does_not_make_a_rotation_say_that_it_is_done() {
    let clock = ManualClock::new();
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    let cache = cache(&clock, 4);
    let store = Arc::new(Forger::default());
    let account = cache.create(spec(AccountId::random(), &kms).store(store.clone())).unwrap();
    kms.add_version(ScriptedProvider::KEK);
    *store.forge.lock().unwrap() = Some(other_version);
    account.rotate_kek(RotateTo::Latest).expect_err("nobody has wrapped it under version 2");
}

#[test]
fn c3_a_second_attempt_fits_into_f_after_a_call_that_hung() {
    for _ in 0..5 {
        let clock = ManualClock::new();
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        let cache = cache(&clock, 4);
        let account = cache.create(spec(AccountId::random(), &kms)).unwrap();
        // The second attempt takes almost as long as a call may take.
        kms.next(Call::Unwrap, [Answer::Hang, Answer::Delay(Duration::from_millis(1_900))]);
        for _ in 0..250 {
            cache.run_for(Duration::from_millis(100));
            account.permit().expect("one lost call costs nobody a lease");
        }
    }
}

#[test]
fn b12_slow_customers_with_a_backlog_leave_workers_to_the_last_in_order() {
    let clock = ManualClock::new();
    let kms = |endpoint: &str| {
        let kms = ScriptedProvider::on_virtual_time();
        Arc::new(kms.with_authority(Authority::new("scripted", endpoint)))
    };
    let last = kms("z");
    let cache = cache(&clock, 2);
    let mut slow = Vec::new();
    for kms in ["a", "b", "c", "d"].map(kms) {
        for _ in 0..10 {
            slow.push(cache.create(spec(AccountId::random(), &kms)).unwrap());
        }
        kms.every_call(&Answer::Delay(Duration::from_millis(1_900)));
    }
    let account = cache.create(spec(AccountId::random(), &last)).unwrap();
    for _ in 0..60 {
        cache.run_for(secs(1));
        account.permit().expect("its own KMS answers at once");
    }
}

#[test]
fn b12_rotating_every_account_leaves_room_for_their_refreshes() {
    let clock = ManualClock::new();
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    let cache = cache(&clock, 4);
    let account = cache.create(spec(AccountId::random(), &kms)).unwrap();
    kms.every_call(&Answer::Delay(secs(1)));
    for _ in 0..60 {
        for _ in 0..4 {
            drop(account.begin_rotate_kek(RotateTo::Latest));
        }
        cache.run_for(secs(1));
        account.permit().expect("refreshed meanwhile");
    }
}

#[test]
fn after_a_fork_no_call_waits_for_threads_that_are_not_there() {
    let clock = ManualClock::new();
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    let cache = cache(&clock, 4);
    let account = cache.create(spec(AccountId::random(), &kms)).unwrap();
    cache.after_fork();
    kms.clear_log();
    let mut ends = vec![account.unlock().unwrap_err()];
    ends.push(account.rotate_kek(RotateTo::Latest).unwrap_err());
    ends.push(cache.create(spec(AccountId::random(), &kms)).unwrap_err());
    assert!(ends.iter().all(|error| error.kind() == ErrorKind::Unavailable), "{ends:?}");
    assert!(kms.log().is_empty(), "ended by the call itself, not by a keeper that the child does not have");
}

#[test]
fn c5_grace_lasts_as_long_as_it_may_while_every_call_hangs() {
    for refresh in [6, 30, 60] {
        let clock = ManualClock::new();
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        let builder =
            AekCache::builder().refresh_every(secs(refresh)).outage_grace(OutageGrace::For(secs(600)));
        let cache = builder.manual(&clock).build().unwrap();
        let account = cache.create(spec(AccountId::random(), &kms)).unwrap();
        kms.always(Call::Unwrap, Answer::Hang);
        // The lease began with `create`; the last second is left to the steps of the loop below.
        let usable = cache.usable_for() - secs(1);
        for second in 0..usable.as_secs() {
            cache.run_for(secs(1));
            account.permit().unwrap_or_else(|error| panic!("{second} s, r = {refresh} s: {error}"));
        }
        cache.run_for(secs(3));
        assert_eq!(account.permit().expect_err("F + G is over").kind(), ErrorKind::Unavailable);
    }
}
