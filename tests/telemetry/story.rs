//! The life of an account on virtual time, and what a recorder and a subscriber hear of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::provider::{
    Authority, Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped,
};
use strongroom::telemetry::{self as names, METRICS};
use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, AekCacheBuilder, BlockId, ErrorKind, Expect,
    GenerationLimits, ObjectId, OutageGrace, RecordPolicy, Refusal, RotateTo,
};

use crate::ears::{Ear, Eye};

pub(crate) const KEK: &str = ScriptedProvider::KEK;
const PLAIN: &str = "the-plaintext-of-the-customer-77";
const REQUEST: &str = "req-4711";
/// A second authority.
pub(crate) const ELSEWHERE: &str = "elsewhere";

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A scripted KMS that gives its requests an id, and remembers the secrets that pass, to look for them.
#[derive(Clone, Debug)]
pub(crate) struct Kms {
    pub(crate) scripted: ScriptedProvider,
    secrets: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Kms {
    fn keep(&self, input: &WrapInput) {
        self.secrets.lock().unwrap().push(input.expose().to_vec());
    }
}

fn named(error: ProviderError) -> ProviderError {
    error.with_request_id(REQUEST)
}

impl KeyProvider for Kms {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.keep(secret);
        self.scripted.wrap(kek, context, secret).map_err(named)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.scripted.unwrap(wrapped, context).map_err(named)
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.scripted.describe(kek).map_err(named)
    }

    fn authority(&self) -> Authority {
        self.scripted.authority()
    }
}

pub(crate) struct Story {
    pub(crate) ear: Ear,
    eye: Eye,
    pub(crate) kms: Kms,
    pub(crate) cache: AekCache,
    /// Of what the account sealed: opened in turn.
    block: BlockId,
}

/// Lives a story with a recorder and a subscriber of its own. Whatever happens on virtual time happens on this thread.
pub(crate) fn live<T>(label_accounts: bool, story: impl FnOnce(Story) -> T) -> T {
    let (ear, eye) = (Ear::default(), Eye::default());
    let clock = ManualClock::new();
    let scripted = ScriptedProvider::on_virtual_time().with_clock(&clock);
    let kms = Kms { scripted, secrets: Arc::default() };
    metrics::with_local_recorder(&ear.clone(), || {
        tracing::subscriber::with_default(eye.clone(), || {
            let mut builder = AekCache::builder()
                .refresh_every(secs(30))
                .outage_grace(OutageGrace::For(secs(60)))
                .manual(&clock)
                .name("orders");
            if label_accounts {
                builder = builder.label_accounts();
            }
            let cache = builder.build().unwrap();
            story(Story { ear, eye, kms, cache, block: BlockId::new(ObjectId::random(), 7) })
        })
    })
}

impl Story {
    pub(crate) fn create(&self) -> Account {
        let spec = AccountSpec::new(AccountId::random(), Arc::new(self.kms.clone()), Kek::latest(KEK));
        self.cache.create(spec).unwrap()
    }

    /// Whose generation may seal so many blocks.
    fn limited(&self, seals: u64) -> Account {
        let limits = GenerationLimits::new(seals, 1 << 60, 365).unwrap();
        let spec = AccountSpec::new(AccountId::random(), Arc::new(self.kms.clone()), Kek::latest(KEK));
        self.cache.create(spec.policy(RecordPolicy::default().with_limits(limits))).unwrap()
    }

    fn expect(&self, id: AccountId) -> Expect {
        Expect::account(id).kek(Arc::new(self.kms.clone()), KEK)
    }

    fn seal(&self, account: &Account) -> Vec<u8> {
        account.seal(self.block, Aad::EMPTY, PLAIN.as_bytes()).unwrap()
    }

    pub(crate) fn run(&self, seconds: u64) {
        self.cache.run_for(secs(seconds));
    }

    fn accounts(&self, state: &str) -> f64 {
        self.ear.gauge(names::ACCOUNTS, &[("state", state), ("cache", "orders")])
    }

    pub(crate) fn gauge(&self, name: &str) -> f64 {
        self.ear.gauge(name, &[])
    }

    fn transitions(&self, state: &str) -> u64 {
        self.ear.count(names::TRANSITIONS, &[("state", state)])
    }

    /// Everything from creation to the end of the cache.
    fn whole(self) -> (Ear, Eye, Vec<Vec<u8>>) {
        let account = self.limited(4);
        let frame = self.seal(&account);
        account.open(self.block, Aad::EMPTY, &frame).unwrap();
        (0..3).for_each(|_| drop(self.seal(&account)));
        self.run(6);
        self.kms.scripted.next(Call::Unwrap, [Answer::Hang]);
        self.run(60);
        self.kms.scripted.every_call(&Answer::Transient);
        self.run(200);
        self.kms.scripted.every_call(&Answer::Refused(Refusal::KeyDisabled));
        self.run(90);
        self.kms.scripted.every_call(&Answer::Integrity);
        self.run(90);
        self.kms.scripted.every_call(&Answer::Ok);
        self.run(90);
        self.kms.scripted.add_version(KEK);
        account.rotate_kek(RotateTo::Latest).unwrap();
        account.lock();
        self.run(6);
        let elsewhere = self.expect(AccountId::random());
        assert!(self.cache.attach(account.record(), elsewhere).is_err());
        self.cache.shutdown(Duration::ZERO);
        let Self { ear, eye, kms, cache, .. } = self;
        drop((account, cache));
        let secrets = kms.secrets.lock().unwrap().clone();
        (ear, eye, secrets)
    }
}

#[test]
fn h1_the_documented_metrics_and_labels_appear_and_nothing_else() {
    let (ear, _, _) = live(true, Story::whole);
    let told: BTreeSet<String> = ear.series().into_iter().map(|series| series.name).collect();
    let documented: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(told, documented);
    for series in ear.series() {
        let metric = METRICS.iter().find(|metric| metric.name == series.name).unwrap();
        let labels: BTreeSet<&str> = series.labels.keys().map(String::as_str).collect();
        assert_eq!(labels, metric.labels.iter().copied().collect(), "{}", series.name);
    }
}

#[test]
fn h1_the_documented_spans_and_events_appear_and_nothing_else() {
    let (_, eye, _) = live(false, Story::whole);
    let documented = [
        (names::KMS_CALL, names::KMS_CALL_FIELDS),
        (names::TRANSITION, names::TRANSITION_FIELDS),
        (names::GENERATION_LIMIT, names::GENERATION_LIMIT_FIELDS),
        (names::ATTACH_FAILED, names::ATTACH_FAILED_FIELDS),
    ];
    let all: BTreeSet<&str> = eye.all().iter().map(|told| told.name).collect();
    assert_eq!(all, documented.iter().map(|(name, _)| *name).collect());
    for told in eye.all() {
        let (_, fields) = documented.iter().find(|(name, _)| *name == told.name).unwrap();
        assert_eq!(told.fields, fields.iter().copied().collect(), "{}", told.name);
        assert_eq!(told.target, names::TARGET);
    }
}

#[test]
fn h1_neither_secrets_nor_plaintext_nor_unasked_for_accounts_are_told() {
    let (ear, eye, secrets) = live(false, Story::whole);
    let mut all = format!("{:?}", eye.all());
    for series in ear.series() {
        all.push_str(&format!("{series:?}"));
        assert!(!series.labels.contains_key("account"), "{series:?}");
    }
    assert!(secrets.len() >= 2 && all.contains("orders") && all.contains(REQUEST), "there is where to look");
    assert!(!all.contains(PLAIN));
    for secret in secrets {
        // The AEK stands at the end; what is before it is no secret.
        let aek = &secret[secret.len() - 32..];
        let hex: String = aek.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers = format!("{aek:?}");
        let needles = [&hex[..16], &hex[48..], &numbers[1..numbers.len() - 1]];
        for needle in needles {
            assert!(!all.to_lowercase().contains(needle), "a secret was told");
        }
    }
}

#[test]
fn h1_sealing_and_opening_are_counted_also_of_accounts_that_are_gone() {
    live(false, |story| {
        let account = story.create();
        let frames: Vec<_> = (0..3).map(|_| story.seal(&account)).collect();
        for frame in &frames[..2] {
            account.open(story.block, Aad::EMPTY, frame).unwrap();
        }
        let mut damaged = frames[0].clone();
        damaged[60] ^= 1;
        assert!(account.open(story.block, Aad::EMPTY, &damaged).is_err());
        story.run(5);
        let bytes = PLAIN.len() as u64;
        let counts = |story: &Story| {
            [names::SEALS, names::SEALED_BYTES, names::OPENS, names::OPENED_BYTES]
                .map(|name| story.ear.count(name, &[("cache", "orders")]))
        };
        assert_eq!(counts(&story), [3, 3 * bytes, 2, 2 * bytes]);

        story.seal(&account);
        drop(account);
        story.run(5);
        assert_eq!(counts(&story), [4, 4 * bytes, 2, 2 * bytes]);
        let again = story.create();
        story.seal(&again);
        // What was not told by then is told at the end.
        story.cache.shutdown(Duration::ZERO);
        assert_eq!(counts(&story), [5, 5 * bytes, 2, 2 * bytes]);
    });
}

#[test]
fn h1_an_outage_shows_as_grace_and_then_as_unavailable_and_passes() {
    live(false, |story| {
        let account = story.create();
        story.run(25);
        assert_eq!((story.accounts("fresh"), story.accounts("unavailable")), (1.0, 0.0));
        assert_eq!(story.gauge(names::LEASE_AGE_SECONDS), 25.0);
        let bound = |bound| story.ear.gauge(names::BOUND_SECONDS, &[("bound", bound)]);
        // J + c, F and F + G.
        assert_eq!((bound("staleness"), bound("fresh"), bound("usable")), (35.0, 41.0, 101.0));

        story.kms.scripted.every_call(&Answer::Transient);
        story.run(40);
        assert_eq!((story.accounts("grace"), story.accounts("fresh")), (1.0, 0.0));
        assert!(story.gauge(names::LEASE_AGE_SECONDS) > bound("fresh"));
        assert!(story.gauge(names::LEASE_LEFT_SECONDS) > 0.0);
        story.run(60);
        assert_eq!((story.accounts("unavailable"), story.accounts("grace")), (1.0, 0.0));
        assert_eq!(story.gauge(names::LEASE_LEFT_SECONDS), 0.0);
        assert!(account.permit().is_err());
        let silent = story.ear.count(names::REFRESHES, &[("outcome", "transient")]);
        assert!(silent >= 2, "{silent}");
        let calls = [("operation", "unwrap"), ("outcome", "transient"), ("authority", "test")];
        assert_eq!(story.ear.count(names::KMS_CALLS, &calls), silent);

        story.kms.scripted.every_call(&Answer::Ok);
        story.run(65);
        assert_eq!((story.accounts("fresh"), story.accounts("unavailable")), (1.0, 0.0));
        assert_eq!([story.transitions("grace"), story.transitions("unavailable")], [1, 1]);
        assert_eq!(story.transitions("revoked"), 0, "an outage is no refusal");
        let fatal = story.eye.named(names::TRANSITION);
        assert!(fatal.iter().any(|told| told.values["state"] == "unavailable"
            && told.values["request_id"] == REQUEST
            && told.level == tracing::Level::WARN));
    });
}

#[test]
fn h1_e6_a_generation_that_nears_its_limit_is_told_of_once_for_each_warning() {
    live(false, |story| {
        let account = story.limited(100);
        let ratio = |limit| story.ear.gauge(names::LIMIT_RATIO, &[("limit", limit)]);
        let mut told = Vec::new();
        for seals in [79, 1, 15, 5] {
            (0..seals).for_each(|_| drop(story.seal(&account)));
            story.run(70);
            account.lock();
            account.unlock().unwrap();
            story.run(70);
            told = story.eye.named(names::GENERATION_LIMIT);
        }
        assert!(account.seal(story.block, Aad::EMPTY, b"one more").is_err());
        story.run(70);
        let limits: Vec<&str> = told.iter().map(|told| told.values["limit"].as_str()).collect();
        assert_eq!(limits, ["near", "imminent", "reached"]);
        assert_eq!(told[1].level, tracing::Level::WARN);
        assert_eq!(
            (told[2].level, &told[2].values["account"]),
            (tracing::Level::ERROR, &account.id().to_string())
        );
        assert_eq!((ratio("seals"), ratio("bytes") > 0.0), (1.0, true));
    });
}

#[test]
fn h1_c8_what_a_cap_on_calls_allows_and_puts_off_is_told() {
    let (ear, clock) = (Ear::default(), ManualClock::new());
    let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
    metrics::with_local_recorder(&ear.clone(), || {
        let built = |builder: AekCacheBuilder| builder.refresh_every(secs(6)).manual(&clock).build().unwrap();
        let (free, cache) =
            (built(AekCache::builder()), built(AekCache::builder().kms_calls_per_second(2).name("capped")));
        let most = u32::try_from(cache.stats().most_accounts.unwrap()).unwrap();
        let attach = |_| {
            let spec = AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK));
            let record = free.create(spec).unwrap().record();
            let expect = Expect::account(record.account()).kek(Arc::new(kms.clone()), KEK);
            cache.attach(record, expect).unwrap()
        };
        let accounts: Vec<_> = (0..most).map(attach).collect();
        // The first look for versions comes with the second refresh.
        cache.run_for(secs(30));
        let gauge = |name| ear.gauge(name, &[("cache", "capped")]);
        let begun = |cause| ear.count(names::KMS_CALLS_BEGUN, &[("cause", cause), ("cache", "capped")]);
        assert_eq!(
            [gauge(names::KMS_CALLS_CAP), gauge(names::SEATS), gauge(names::SEATS_TAKEN)],
            [2.0, f64::from(most), f64::from(most)]
        );
        drop(accounts);
        cache.run_for(secs(5));
        assert_eq!(gauge(names::SEATS_TAKEN), 0.0);
        // What was not told by then is told at the end.
        let stats = cache.stats();
        cache.shutdown(Duration::ZERO);
        assert_eq!(
            [begun("refresh"), begun("control"), begun("version_check")],
            [stats.refresh_calls, stats.control_calls, stats.version_check_calls]
        );
        assert_eq!(ear.count(names::REFRESHES_DEFERRED, &[("cache", "capped")]), stats.deferred);
        assert!(stats.deferred > 0 && stats.refresh_calls > 0 && stats.version_check_calls > 0, "{stats:?}");
        assert_eq!(ear.count(names::IDLE_DROPPED, &[("cache", "capped")]), stats.idle_dropped);
    });
}

#[test]
fn h1_a_refusal_shows_as_revoked_with_the_request_that_was_refused() {
    live(false, |story| {
        let account = story.create();
        story.run(5);
        story.kms.scripted.every_call(&Answer::Refused(Refusal::KeyDisabled));
        story.run(40);
        assert_eq!((story.accounts("revoked"), story.accounts("unavailable")), (1.0, 0.0));
        assert_eq!([story.transitions("revoked"), story.transitions("unavailable")], [1, 0]);
        let refused = [("operation", "unwrap"), ("outcome", "refused"), ("provider", "scripted")];
        assert!(story.ear.count(names::KMS_CALLS, &refused) >= 1);
        assert!(story.ear.count(names::REFRESHES, &[("outcome", "refused")]) >= 1);

        let spans = story.eye.named(names::KMS_CALL);
        let refused: Vec<_> = spans.iter().filter(|span| span.values["outcome"] == "refused").collect();
        assert!(!refused.is_empty() && story.eye.entered() >= spans.len() as u64);
        for span in refused {
            assert_eq!(span.values["request_id"], REQUEST);
            assert_eq!(span.values["account"], account.id().to_string());
            assert_eq!(span.values["operation"], "unwrap");
        }
        let answered = spans.iter().find(|span| span.values["outcome"] == "answered").unwrap();
        assert!(!answered.values.contains_key("request_id"), "the KMS gives one with its failures");
        let told = story.eye.named(names::TRANSITION);
        let told = told.iter().find(|told| told.values["state"] == "revoked").unwrap();
        assert!(told.values["cause"].contains("key disabled"), "{told:?}");

        story.kms.scripted.every_call(&Answer::Ok);
        story.run(65);
        assert_eq!((story.accounts("fresh"), story.accounts("revoked")), (1.0, 0.0));
    });
}

#[test]
fn h1_locks_wrong_answers_and_rotations_show() {
    live(true, |story| {
        let account = story.create();
        story.run(100);
        let usable = |story: &Story| story.ear.gauge(names::ACCOUNT_USABLE, &[]);
        assert_eq!(usable(&story), 1.0);
        assert!(story.gauge(names::KEK_VERSION_AGE_SECONDS) >= 85.0);
        assert!(story.gauge(names::GENERATION_AGE_SECONDS) >= 90.0);
        story.kms.scripted.add_version(KEK);
        account.rotate_kek(RotateTo::Latest).unwrap();
        story.run(10);
        assert!(story.gauge(names::KEK_VERSION_AGE_SECONDS) <= 10.0);
        assert!(story.gauge(names::GENERATION_AGE_SECONDS) >= 100.0, "the AEK is the same");

        account.lock();
        story.run(5);
        assert_eq!((story.accounts("locked"), usable(&story)), (1.0, 0.0));
        account.unlock().unwrap();
        story.kms.scripted.every_call(&Answer::OtherAek);
        story.run(150);
        assert_eq!((story.accounts("integrity"), story.accounts("unavailable")), (1.0, 0.0));
        let told = story.eye.named(names::TRANSITION);
        assert!(told.iter().any(|told| told.level == tracing::Level::ERROR));

        drop(account);
        story.run(5);
        assert_eq!(story.accounts("integrity"), 0.0, "an account that is gone is counted nowhere");
    });
}

#[test]
fn h1_accounts_lost_on_restart_are_told_apart_from_those_that_are_starting() {
    live(false, |story| {
        let account = story.create();
        story.run(5);
        let (record, id) = (account.record(), account.id());
        drop(account);
        story.run(5);
        assert_eq!(story.gauge(names::LOST_ON_RESTART), 0.0);

        story.kms.scripted.every_call(&Answer::Transient);
        let account = story.cache.attach(record.clone(), story.expect(id)).unwrap();
        story.run(20);
        assert_eq!(story.accounts("not_ready") + story.accounts("unavailable"), 1.0);
        assert_eq!(story.gauge(names::LOST_ON_RESTART), 1.0);
        let waiting = story.gauge(names::NOT_READY_SECONDS);
        assert!((10.0..=20.0).contains(&waiting), "{waiting}");

        story.kms.scripted.every_call(&Answer::Ok);
        story.run(65);
        assert_eq!(story.gauge(names::LOST_ON_RESTART), 0.0);
        assert_eq!(story.gauge(names::NOT_READY_SECONDS), 0.0);

        let wrong = story.cache.attach(record, story.expect(AccountId::random())).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Untrusted);
        assert_eq!(story.ear.count(names::ATTACH_FAILURES, &[("kind", "untrusted record")]), 1);
        assert_eq!(story.eye.named(names::ATTACH_FAILED).len(), 1);
        drop(account);
    });
}

#[test]
fn h1_an_account_that_is_starting_is_not_lost() {
    live(false, |story| {
        let other = story.create();
        let account = story.create();
        let (record, id) = (account.record(), account.id());
        drop(account);
        story.run(60);
        // Just after a look, so that the next one falls into the time of the call.
        let age = story.gauge(names::LEASE_AGE_SECONDS);
        while story.gauge(names::LEASE_AGE_SECONDS) == age {
            story.cache.run_for(Duration::from_millis(100));
        }
        story.run(4);
        story.kms.scripted.next(Call::Unwrap, [Answer::Hang]);
        let account = story.cache.attach(record, story.expect(id)).unwrap();
        for _ in 0..19 {
            story.cache.run_for(Duration::from_millis(100));
            assert_eq!(story.gauge(names::LOST_ON_RESTART), 0.0, "nobody has been answered yet");
        }
        assert_eq!(story.accounts("not_ready"), 1.0, "there was a look");
        story.run(6);
        assert_eq!(story.gauge(names::LOST_ON_RESTART), 1.0);
        drop((account, other));
    });
}

#[test]
fn h1_how_long_calls_take_and_those_given_up_are_told() {
    live(false, |story| {
        let _account = story.create();
        story.kms.scripted.next(Call::Unwrap, [Answer::Hang]);
        story.run(45);
        assert_eq!(story.ear.count(names::KMS_CALLS_LATE, &[]), 1);
        assert_eq!(story.gauge(names::KMS_CALLS_HANGING), 1.0);
        let unwraps = story.ear.observed(names::KMS_CALL_SECONDS, &[("operation", "unwrap")]);
        assert!(unwraps.len() >= 2);
        // The virtual clock stands during a call.
        assert!(unwraps.iter().all(|seconds| *seconds == 0.0));
    });
}

#[test]
fn h1_a_cache_that_ends_leaves_no_gauge_standing() {
    live(true, |story| {
        let account = story.create();
        story.run(5);
        assert_eq!(story.accounts("fresh"), 1.0);
        story.cache.shutdown(Duration::ZERO);
        for name in [names::LEASE_AGE_SECONDS, names::ACCOUNT_USABLE, names::GENERATION_AGE_SECONDS] {
            assert_eq!(story.gauge(name), 0.0, "{name}");
        }
        assert_eq!(story.accounts("fresh"), 0.0);
        assert_eq!(story.transitions("locked"), 1, "told of at the end");
        drop(account);
    });
}

/// A recorder whose code panics.
struct Bomb;

impl metrics::Recorder for Bomb {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        panic!("the test's recorder panics")
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        panic!("the test's recorder panics")
    }

    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        panic!("the test's recorder panics")
    }
}

#[test]
fn h1_d8_a_recorder_that_panics_changes_no_answer() {
    live(false, |story| {
        metrics::with_local_recorder(&Bomb, || {
            let account = story.create();
            story.run(90);
            assert!(account.permit().is_ok());
            story.kms.scripted.every_call(&Answer::Refused(Refusal::KeyDisabled));
            story.run(40);
            assert_eq!(account.permit().unwrap_err().kind(), ErrorKind::Revoked, "not silence");
        });
    });
}

#[test]
fn h1_authorities_have_labels_of_their_own_up_to_a_bound() {
    live(false, |story| {
        let authorities = names::MOST_AUTHORITIES + 20;
        // Those of other tests of this process come first, whichever test does.
        let others = ["test", ELSEWHERE].map(str::to_owned);
        let endpoints = (0..authorities).map(|number| format!("endpoint-{number}"));
        for endpoint in others.into_iter().chain(endpoints) {
            let kms =
                ScriptedProvider::on_virtual_time().with_authority(Authority::new("scripted", endpoint));
            let spec = AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest(KEK));
            drop(story.cache.create(spec).unwrap());
        }
        let series = story.ear.series();
        let labels: BTreeSet<&str> =
            series.iter().filter_map(|series| series.labels.get("authority")).map(String::as_str).collect();
        // Other tests of this process may have used up some of them.
        assert!(labels.len() <= names::MOST_AUTHORITIES + 1 && labels.len() > names::MOST_AUTHORITIES / 2);
        let other = [("authority", "other"), ("operation", "describe")];
        assert!(story.ear.count(names::KMS_CALLS, &other) >= 20);
    });
}
