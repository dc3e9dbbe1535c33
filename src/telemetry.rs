//! What is told to an operator: the names of all metrics, spans, events and labels, and how many values a label may have.
//!
//! Each name stands here and nowhere else; `docs/OPERATIONS.md` lists them, and a test compares. What is told is gathered where
//! it happens: calls in `provider/observed`, states in `cache/gauges` and `cache/reports`, sealing in `account/tally`.
//! Imports: `id`.
//!
//! No secret and no plaintext is ever a value. No label names an account, unless
//! [`AekCacheBuilder::label_accounts`](crate::AekCacheBuilder::label_accounts) asks for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a metric's values mean.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// Grows only.
    Counter,
    /// The present value, at most [`GAUGES_EVERY_SECONDS`] old.
    Gauge,
    /// A distribution of observed values.
    Histogram,
}

/// One metric: what [`METRICS`] lists.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, in Prometheus' manner: the unit, and `_total` for a counter, at the end.
    pub name: &'static str,
    /// What its values mean.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// For people.
    pub help: &'static str,
}

#[cfg(feature = "metrics")]
macro_rules! metrics {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// Every metric that this library emits.
        pub const METRICS: &[Metric] = &[
            $(Metric { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

#[cfg(feature = "metrics")]
metrics! {
    KMS_CALLS = "strongroom_kms_calls_total" Counter ["provider", "authority", "operation", "outcome"]
        "Calls to a KMS that have returned, by what came of them.";
    KMS_CALL_SECONDS = "strongroom_kms_call_seconds" Histogram ["provider", "authority", "operation"]
        "How long a call to a KMS took, in seconds.";
    KMS_CALLS_LATE = "strongroom_kms_calls_late_total" Counter ["cache"]
        "Calls given up at their deadline.";
    KMS_CALLS_HANGING = "strongroom_kms_calls_hanging" Gauge ["cache"]
        "Calls given up that have not returned.";
    KMS_CALLS_BEGUN = "strongroom_kms_calls_begun_total" Counter ["cache", "cause"]
        "Calls to KMSs begun, by what for: what customers are billed for.";
    KMS_CALLS_CAP = "strongroom_kms_calls_cap" Gauge ["cache"]
        "The cap on calls to KMSs in each second; 0 without one.";
    REFRESHES_DEFERRED = "strongroom_refreshes_deferred_total" Counter ["cache"]
        "Refreshes that were due and had to wait for the cap.";
    SEATS = "strongroom_seats" Gauge ["cache"]
        "How many accounts the cap can serve, those with two KEKs counting twice; 0 without a cap.";
    SEATS_TAKEN = "strongroom_seats_taken" Gauge ["cache"]
        "How many of them are attached, counted in the same way.";
    IDLE_DROPPED = "strongroom_accounts_idle_dropped_total" Counter ["cache"]
        "Accounts that a directory has dropped because nobody used them.";
    KMS_PROBES_WAITING = "strongroom_kms_probes_waiting" Gauge ["cache"]
        "Silent authorities whose probe is due and waits for a thread.";
    REFRESHES = "strongroom_refreshes_total" Counter ["cache", "outcome"]
        "Refreshes that have ended, by what came of them.";
    ACCOUNTS = "strongroom_accounts" Gauge ["cache", "provider", "authority", "state"]
        "Accounts attached, by state.";
    LEASE_AGE_SECONDS = "strongroom_lease_age_max_seconds" Gauge ["cache", "provider", "authority"]
        "Age of the oldest lease in use: time since the start of its last verified unwrap.";
    LEASE_LEFT_SECONDS = "strongroom_lease_left_min_seconds" Gauge ["cache", "provider", "authority"]
        "Time until the first lease in use ends unless it is renewed.";
    NOT_READY_SECONDS = "strongroom_not_ready_max_seconds" Gauge ["cache", "provider", "authority"]
        "For how long the account that waits longest for its first key since it was attached has waited.";
    LOST_ON_RESTART = "strongroom_accounts_lost_on_restart" Gauge ["cache", "provider", "authority"]
        "Accounts that have had no key since they were attached, though one was asked for.";
    ATTACH_FAILURES = "strongroom_attach_failures_total" Counter ["cache", "kind"]
        "Accounts that could not be attached, by kind of error.";
    TRANSITIONS = "strongroom_transitions_total" Counter ["cache", "state"]
        "Transitions that were told of, by the state they led to.";
    GENERATION_AGE_SECONDS = "strongroom_generation_age_max_seconds" Gauge ["cache"]
        "Age of the oldest AEK that new data is sealed under: time since its creation or last rotation.";
    KEK_VERSION_AGE_SECONDS = "strongroom_kek_version_age_max_seconds" Gauge ["cache"]
        "For how long this process has known the KEK version that has been in use longest without a rotation.";
    LIMIT_RATIO = "strongroom_generation_limit_max_ratio" Gauge ["cache", "limit"]
        "The share that is used up of the record's limit on a generation, for the account nearest to it. 1 is the limit.";
    SEALS = "strongroom_seals_total" Counter ["cache"]
        "Blocks and frames of objects sealed.";
    SEALED_BYTES = "strongroom_sealed_bytes_total" Counter ["cache"]
        "Bytes of plaintext sealed.";
    OPENS = "strongroom_opens_total" Counter ["cache"]
        "Blocks and frames of objects opened.";
    OPENED_BYTES = "strongroom_opened_bytes_total" Counter ["cache"]
        "Bytes of plaintext opened.";
    BOUND_SECONDS = "strongroom_bound_seconds" Gauge ["cache", "bound"]
        "The published bounds of this cache: staleness J + c, fresh F, usable F + G.";
    ACCOUNT_USABLE = "strongroom_account_usable" Gauge ["cache", "account"]
        "1 while the account has a valid lease, else 0. By `label_accounts` only.";
    ACCOUNT_LEASE_AGE_SECONDS = "strongroom_account_lease_age_seconds" Gauge ["cache", "account"]
        "Age of the account's lease, 0 without one. By `label_accounts` only.";
}

/// How old a gauge may be.
#[cfg(feature = "metrics")]
pub const GAUGES_EVERY_SECONDS: u64 = 5;

/// How many authorities have labels of their own in a process. Those that come later share the label `other`.
#[cfg(feature = "metrics")]
pub const MOST_AUTHORITIES: usize = 256;

/// How many accounts of a cache have labels of their own, where it is set to label accounts.
#[cfg(feature = "metrics")]
pub const MOST_ACCOUNTS: usize = 1000;

/// The target of every span and event, for filters.
#[cfg(feature = "tracing")]
pub const TARGET: &str = "strongroom";

/// The span around a call to a KMS. Level DEBUG. Fields: [`KMS_CALL_FIELDS`].
#[cfg(feature = "tracing")]
pub const KMS_CALL: &str = "kms_call";

/// The account is missing for `describe`; `outcome` and `request_id` are recorded when the call ends, the latter where it failed
/// and the KMS gave one.
#[cfg(feature = "tracing")]
pub const KMS_CALL_FIELDS: &[&str] =
    &["operation", "provider", "authority", "account", "outcome", "request_id"];

/// An account has changed its state. Level INFO, WARN without a valid lease and in grace, ERROR for
/// answers that cannot be right. Fields: [`TRANSITION_FIELDS`].
#[cfg(feature = "tracing")]
pub const TRANSITION: &str = "transition";

/// `cause` is the last failure's text, missing where there is none.
#[cfg(feature = "tracing")]
pub const TRANSITION_FIELDS: &[&str] =
    &["message", "cache", "account", "state", "epoch", "cause", "request_id", "newer_kek_version"];

/// A generation nears a limit, or has reached it. Level WARN, ERROR once sealing is refused. Told once for each of
/// `LimitWarning`'s values. Fields: [`GENERATION_LIMIT_FIELDS`].
#[cfg(feature = "tracing")]
pub const GENERATION_LIMIT: &str = "generation_limit";

/// `limit` is `age`, `near`, `imminent` or `reached`.
#[cfg(feature = "tracing")]
pub const GENERATION_LIMIT_FIELDS: &[&str] = &["message", "cache", "account", "limit"];

/// An account could not be attached. Level ERROR. Fields: [`ATTACH_FAILED_FIELDS`].
#[cfg(feature = "tracing")]
pub const ATTACH_FAILED: &str = "attach_failed";

/// `account` is missing where the record did not name one.
#[cfg(feature = "tracing")]
pub const ATTACH_FAILED_FIELDS: &[&str] = &["message", "cache", "account", "cause"];

/// The name of a cache that was not given one.
pub(crate) const DEFAULT_CACHE: &str = "default";

/// Calls a recorder or subscriber, which is somebody else's code: its panic costs what it was told, and nothing else.
pub(crate) fn shielded<T>(tell: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(tell)).ok()
}

/// The label of an authority, `other` once there are too many.
#[cfg(feature = "metrics")]
pub(crate) fn authority_label(provider: &str, endpoint: &str) -> String {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    static KNOWN: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (provider.to_owned(), endpoint.to_owned());
    if known.contains(&key) {
        return endpoint.to_owned();
    }
    if known.len() >= MOST_AUTHORITIES {
        return OTHER.to_owned();
    }
    known.insert(key);
    endpoint.to_owned()
}

#[cfg(feature = "metrics")]
const OTHER: &str = "other";
