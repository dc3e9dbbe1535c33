//! What the keeper publishes of a cache's accounts as metrics, every few seconds (contract H1).
//!
//! A chore of the event loop: it looks at each account once, and calls the recorder with sums by authority. The data plane is
//! not touched. Whatever was set is set to zero when the cache ends. Imports: `cache`, `account`, `keeper`, `format`, `clock`, `id`, `telemetry`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, UNIX_EPOCH};

use super::Registry;
use crate::account::glance::{Glance, LeaseTimes};
use crate::account::seats::Seats;
use crate::account::state::STATES;
use crate::account::tally::{Sum, Tally};
use crate::account::{AccountInner, AccountKey};
use crate::clock::Moment;
use crate::id::AccountId;
use crate::keeper::{Chore, Counters, Destination};
use crate::provider::KekVersion;
use crate::telemetry::{self, authority_label, shielded};

/// What the gauges are of.
pub(super) struct Subject {
    pub(super) cache: String,
    pub(super) registry: Arc<Mutex<Registry>>,
    pub(super) counters: Arc<Counters>,
    pub(super) seats: Arc<Seats>,
    /// What accounts that are gone have done.
    pub(super) departed: Arc<Tally>,
    pub(super) bounds: [(&'static str, Duration); 3],
    pub(super) label_accounts: bool,
}

/// The chore that publishes `subject`, for as long as the event loop lives.
pub(super) fn chore(subject: Subject) -> Chore {
    let mut gauges = Gauges {
        subject,
        next: None,
        seen: HashMap::new(),
        groups: BTreeSet::new(),
        labelled: BTreeSet::new(),
        told: HashMap::new(),
    };
    Box::new(move |now| {
        if gauges.next.is_none_or(|next| now.reached(next)) {
            gauges.next = Some(now.plus(Duration::from_secs(telemetry::GAUGES_EVERY_SECONDS)));
            shielded(|| gauges.tell(now));
        }
        true
    })
}

struct Gauges {
    subject: Subject,
    next: Option<Moment>,
    seen: HashMap<AccountKey, Seen>,
    /// Provider and authority of the groups that have been set.
    groups: BTreeSet<(String, String)>,
    labelled: BTreeSet<AccountId>,
    /// How far each counter was told.
    told: HashMap<(&'static str, &'static str), u64>,
}

/// What is remembered of an account between two looks.
struct Seen {
    attached: Moment,
    version: KekVersion,
    version_since: Moment,
}

/// The accounts of one authority.
#[derive(Default)]
struct Group {
    by_state: [u32; STATES.len()],
    oldest: Duration,
    shortest: Option<Duration>,
    waiting: Duration,
    lost: u32,
}

/// What is a maximum over all accounts.
#[derive(Default)]
struct Most {
    generation_age: Duration,
    version_age: Duration,
    seals: f64,
    bytes: f64,
    age: f64,
}

impl Gauges {
    fn tell(&mut self, now: Moment) {
        // Before the accounts: one that goes in between is counted at the next look, and none twice.
        let mut done = self.subject.departed.sum();
        let accounts = self.accounts();
        let mut by_destination: HashMap<&Destination, Group> = HashMap::new();
        let mut most = Most::default();
        let mut here = HashMap::new();
        for account in &accounts {
            let Some(glance) = account.glance() else {
                done = done.plus(account.done());
                continue;
            };
            done = done.plus(glance.done);
            let seen = self.look_again(now, account.key(), &glance);
            most.take(now, &glance, &seen);
            by_destination.entry(account.destination()).or_default().take(now, &glance, &seen);
            here.insert(account.key(), seen);
            self.tell_of_account(account.id(), Some(&glance));
        }
        self.seen = here;
        self.forget_accounts_but(&accounts);
        // Several connections to one endpoint are one to an operator.
        let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
        for (destination, group) in by_destination {
            groups.entry(labels_of(destination)).or_default().add(&group);
        }
        self.tell_of_groups(&groups);
        self.tell_of_most(&most);
        self.tell_of_counters(done);
    }

    fn accounts(&self) -> Vec<Arc<AccountInner>> {
        let registry = self.subject.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.by_id.values().filter_map(Weak::upgrade).collect()
    }

    fn look_again(&mut self, now: Moment, key: AccountKey, glance: &Glance) -> Seen {
        let mut seen = self.seen.remove(&key).unwrap_or_else(|| Seen {
            attached: now,
            version: glance.record.kek_version().clone(),
            version_since: now,
        });
        if seen.version != *glance.record.kek_version() {
            seen.version = glance.record.kek_version().clone();
            seen.version_since = now;
        }
        seen
    }

    fn forget_accounts_but(&mut self, accounts: &[Arc<AccountInner>]) {
        if self.labelled.is_empty() {
            return;
        }
        let ids: BTreeSet<AccountId> = accounts.iter().map(|account| account.id()).collect();
        let gone: Vec<_> = self.labelled.difference(&ids).copied().collect();
        for id in gone {
            self.tell_of_account(id, None);
            self.labelled.remove(&id);
        }
    }

    fn tell_of_account(&mut self, id: AccountId, glance: Option<&Glance>) {
        if !self.subject.label_accounts {
            return;
        }
        let known = self.labelled.contains(&id);
        if !known && self.labelled.len() >= telemetry::MOST_ACCOUNTS {
            return;
        }
        self.labelled.insert(id);
        let lease = glance.and_then(|glance| glance.lease.as_ref());
        let set = |name: &'static str, value: f64| {
            let (cache, account) = (self.subject.cache.clone(), id.to_string());
            metrics::gauge!(name, "cache" => cache, "account" => account).set(value);
        };
        set(telemetry::ACCOUNT_USABLE, if lease.is_some() { 1.0 } else { 0.0 });
        set(telemetry::ACCOUNT_LEASE_AGE_SECONDS, lease.map_or(0.0, |lease| lease.age.as_secs_f64()));
    }

    fn tell_of_groups(&mut self, groups: &BTreeMap<(String, String), Group>) {
        let empty = Group::default();
        self.groups.extend(groups.keys().cloned());
        for labels in &self.groups {
            let group = groups.get(labels).unwrap_or(&empty);
            for (state, accounts) in STATES.iter().zip(group.by_state) {
                metrics::gauge!(
                    telemetry::ACCOUNTS,
                    "cache" => self.subject.cache.clone(),
                    "provider" => labels.0.clone(),
                    "authority" => labels.1.clone(),
                    "state" => *state,
                )
                .set(accounts);
            }
            let set = |name: &'static str, value: f64| {
                let (cache, provider, authority) =
                    (self.subject.cache.clone(), labels.0.clone(), labels.1.clone());
                metrics::gauge!(name, "cache" => cache, "provider" => provider, "authority" => authority)
                    .set(value);
            };
            set(telemetry::LEASE_AGE_SECONDS, group.oldest.as_secs_f64());
            set(telemetry::LEASE_LEFT_SECONDS, group.shortest.unwrap_or_default().as_secs_f64());
            set(telemetry::NOT_READY_SECONDS, group.waiting.as_secs_f64());
            set(telemetry::LOST_ON_RESTART, group.lost.into());
        }
        // Of authorities without accounts nothing is remembered: they may be many over time.
        self.groups.retain(|labels| groups.contains_key(labels));
    }

    fn tell_of_most(&self, most: &Most) {
        let set = |name: &'static str, value: f64| {
            metrics::gauge!(name, "cache" => self.subject.cache.clone()).set(value);
        };
        set(telemetry::GENERATION_AGE_SECONDS, most.generation_age.as_secs_f64());
        set(telemetry::KEK_VERSION_AGE_SECONDS, most.version_age.as_secs_f64());
        let hanging = self.subject.counters.hanging.load(Ordering::Relaxed);
        set(telemetry::KMS_CALLS_HANGING, u32::try_from(hanging).unwrap_or(u32::MAX).into());
        let seats = &self.subject.seats;
        set(telemetry::KMS_CALLS_CAP, seats.cap().unwrap_or(0).into());
        set(telemetry::SEATS, count(seats.most().unwrap_or(0)));
        set(telemetry::SEATS_TAKEN, count(seats.taken()));
        let waiting = self.subject.counters.probes_waiting.load(Ordering::Relaxed);
        set(telemetry::KMS_PROBES_WAITING, u32::try_from(waiting).unwrap_or(u32::MAX).into());
        for (limit, ratio) in [("seals", most.seals), ("bytes", most.bytes), ("age", most.age)] {
            let cache = self.subject.cache.clone();
            metrics::gauge!(telemetry::LIMIT_RATIO, "cache" => cache, "limit" => limit).set(ratio);
        }
        for (bound, duration) in self.subject.bounds {
            let cache = self.subject.cache.clone();
            metrics::gauge!(telemetry::BOUND_SECONDS, "cache" => cache, "bound" => bound)
                .set(duration.as_secs_f64());
        }
    }

    fn tell_of_counters(&mut self, done: Sum) {
        let counters = Arc::clone(&self.subject.counters);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (outcome, total) in [
            ("verified", read(&counters.verified)),
            ("transient", read(&counters.transient)),
            ("refused", read(&counters.refused)),
            ("integrity", read(&counters.integrity)),
        ] {
            let by = self.told_now(telemetry::REFRESHES, outcome, total);
            let cache = self.subject.cache.clone();
            metrics::counter!(telemetry::REFRESHES, "cache" => cache, "outcome" => outcome).increment(by);
        }
        for (cause, total) in [
            ("refresh", read(&counters.refresh_calls)),
            ("control", read(&counters.control_calls)),
            ("version_check", read(&counters.version_check_calls)),
        ] {
            let by = self.told_now(telemetry::KMS_CALLS_BEGUN, cause, total);
            let cache = self.subject.cache.clone();
            metrics::counter!(telemetry::KMS_CALLS_BEGUN, "cache" => cache, "cause" => cause).increment(by);
        }
        for (name, total) in [
            (telemetry::KMS_CALLS_LATE, read(&counters.late)),
            (telemetry::REFRESHES_DEFERRED, read(&counters.deferred)),
            (telemetry::IDLE_DROPPED, read(&counters.idle_dropped)),
            (telemetry::SEALS, done.seals),
            (telemetry::SEALED_BYTES, done.sealed_bytes),
            (telemetry::OPENS, done.opens),
            (telemetry::OPENED_BYTES, done.opened_bytes),
        ] {
            let by = self.told_now(name, "", total);
            metrics::counter!(name, "cache" => self.subject.cache.clone()).increment(by);
        }
    }

    /// By how much a counter has grown since it was last told.
    fn told_now(&mut self, name: &'static str, label: &'static str, total: u64) -> u64 {
        let told = self.told.entry((name, label)).or_default();
        let by = total.saturating_sub(*told);
        *told += by;
        by
    }
}

impl Group {
    fn take(&mut self, now: Moment, glance: &Glance, seen: &Seen) {
        self.by_state[glance.status.number()] += 1;
        if let Some(LeaseTimes { age, left }) = glance.lease {
            self.oldest = self.oldest.max(age);
            self.shortest = Some(self.shortest.map_or(left, |shortest| shortest.min(left)));
        }
        if !glance.had_key {
            self.waiting = self.waiting.max(now.age_since(seen.attached));
            self.lost += u32::from(glance.asked);
        }
    }

    fn add(&mut self, other: &Self) {
        self.by_state.iter_mut().zip(other.by_state).for_each(|(sum, more)| *sum += more);
        self.oldest = self.oldest.max(other.oldest);
        self.shortest = self.shortest.into_iter().chain(other.shortest).min();
        self.waiting = self.waiting.max(other.waiting);
        self.lost += other.lost;
    }
}

impl Most {
    fn take(&mut self, now: Moment, glance: &Glance, seen: &Seen) {
        let wall = UNIX_EPOCH + Duration::from_nanos(now.wall_nanos());
        let age = wall.duration_since(glance.record.generation_created()).unwrap_or_default();
        self.generation_age = self.generation_age.max(age);
        self.version_age = self.version_age.max(now.age_since(seen.version_since));
        let Some(used) = glance.used else { return };
        let most = Duration::from_secs(u64::from(used.limits.age_days()) * 24 * 3600);
        self.age = self.age.max(age.as_secs_f64() / most.as_secs_f64());
        self.seals = self.seals.max(ratio(used.seals, used.limits.seals()));
        self.bytes = self.bytes.max(ratio(used.bytes, used.limits.bytes()));
    }
}

fn ratio(used: u64, limit: u64) -> f64 {
    count(used) / count(limit)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
const fn count(number: u64) -> f64 {
    number as f64
}

fn labels_of(destination: &Destination) -> (String, String) {
    match destination {
        Destination::Kms { authority, .. } => {
            (authority.provider().to_owned(), authority_label(authority.provider(), authority.endpoint()))
        }
        Destination::Together(together) => {
            let labels =
                together.authorities.iter().map(|one| authority_label(one.provider(), one.endpoint()));
            ("together".to_owned(), labels.collect::<Vec<_>>().join(" and "))
        }
        Destination::Records(_) => ("records".to_owned(), String::new()),
    }
}

impl Drop for Gauges {
    /// The cache ends: nothing is open any more. What the counters lack is told.
    fn drop(&mut self) {
        shielded(|| {
            let done = self.subject.departed.sum();
            let done = self.accounts().iter().map(|account| account.done()).fold(done, Sum::plus);
            self.tell_of_counters(done);
            self.tell_of_groups(&BTreeMap::new());
            for id in std::mem::take(&mut self.labelled) {
                self.tell_of_account(id, None);
            }
            self.tell_of_most(&Most::default());
        });
    }
}
