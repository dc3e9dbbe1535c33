//! What an operator is told as it happens: each transition, each account that could not be attached (contract H1).
//!
//! A chore of the event loop reads transitions as an engine would, from a queue of its own. Recorder and subscriber are
//! somebody else's code: they are called there, with no lock held. Imports: `account`, `keeper`, `error`, `id`, `telemetry`.

#[cfg(feature = "tracing")]
use std::collections::HashMap;

use crate::account::events::{Events, Transition};
#[cfg(feature = "tracing")]
use crate::account::usage::LimitWarning;
use crate::error::Error;
#[cfg(feature = "tracing")]
use crate::id::AccountId;
use crate::keeper::Chore;
use crate::telemetry::{self, shielded};

/// The chore that tells of `events`, until the event loop ends, and then of those that are left.
pub(super) fn chore(cache: String, events: Events) -> Chore {
    let mut reports = Reports {
        cache,
        events,
        #[cfg(feature = "tracing")]
        warned: HashMap::new(),
    };
    Box::new(move |_| {
        reports.tell();
        true
    })
}

struct Reports {
    cache: String,
    events: Events,
    /// What was told of limits, of accounts that are near one.
    #[cfg(feature = "tracing")]
    warned: HashMap<AccountId, LimitWarning>,
}

impl Reports {
    fn tell(&mut self) {
        while let Some(transition) = self.events.try_next() {
            shielded(|| of_transition(&self.cache, &transition));
            #[cfg(feature = "tracing")]
            self.tell_of_limit(&transition);
        }
    }

    #[cfg(feature = "tracing")]
    fn tell_of_limit(&mut self, transition: &Transition) {
        let Some(limit) = transition.limit else {
            self.warned.remove(&transition.account);
            return;
        };
        if self.warned.insert(transition.account, limit) != Some(limit) {
            shielded(|| of_limit(&self.cache, transition, limit));
        }
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        self.tell();
    }
}

fn of_transition(cache: &str, transition: &Transition) {
    let state = transition.status.label();
    #[cfg(feature = "metrics")]
    metrics::counter!(telemetry::TRANSITIONS, "cache" => cache.to_owned(), "state" => state).increment(1);
    #[cfg(feature = "tracing")]
    {
        use crate::account::state::{Status, UnavailableCause};
        /// A level is part of an event's place in the code, so there is one place for each.
        macro_rules! tell {
            ($level:ident, $message:literal) => {
                tracing::event!(
                    name: telemetry::TRANSITION,
                    target: telemetry::TARGET,
                    tracing::Level::$level,
                    cache,
                    account = %transition.account,
                    state,
                    epoch = transition.epoch.number(),
                    cause = transition.cause.as_ref().map(tracing::field::display),
                    request_id = transition.cause.as_ref().and_then(Error::request_id),
                    newer_kek_version = transition.newer_kek_version,
                    $message
                )
            };
        }
        match transition.status {
            Status::Fresh { .. } => tell!(INFO, "the account is in use"),
            Status::Grace { .. } => tell!(WARN, "the KMS is silent: the account is in use for its grace"),
            Status::NotReady => tell!(WARN, "the account has no verified key"),
            Status::Unavailable(UnavailableCause::Silent) => {
                tell!(WARN, "the KMS is silent and grace is used up: the account is closed");
            }
            Status::Unavailable(UnavailableCause::Integrity) => {
                tell!(ERROR, "the KMS gives answers that cannot be right: the account is closed");
            }
            Status::Revoked(_) => tell!(WARN, "the KMS refused: the account is closed"),
            Status::Locked => tell!(INFO, "the account was locked"),
            Status::Deleted => tell!(INFO, "the account is deleted"),
        }
    }
}

#[cfg(feature = "tracing")]
fn of_limit(cache: &str, transition: &Transition, limit: LimitWarning) {
    macro_rules! tell {
        ($level:ident, $message:literal) => {
            tracing::event!(
                name: telemetry::GENERATION_LIMIT,
                target: telemetry::TARGET,
                tracing::Level::$level,
                cache,
                account = %transition.account,
                limit = limit.label(),
                $message
            )
        };
    }
    match limit {
        LimitWarning::Age => tell!(WARN, "the generation is as old as the record allows: rotate the AEK"),
        LimitWarning::Near => tell!(WARN, "80 % of a generation's limit are used up: rotate the AEK"),
        LimitWarning::Imminent => tell!(WARN, "95 % of a generation's limit are used up: rotate the AEK now"),
        LimitWarning::Reached => {
            tell!(ERROR, "a generation's limit is reached and sealing is refused: rotate the AEK");
        }
    }
}

/// Tells of an account that could not be attached.
pub(super) fn of_attach_failure(cache: &str, error: &Error) {
    shielded(|| {
        #[cfg(feature = "metrics")]
        {
            let (cache, kind) = (cache.to_owned(), error.kind().to_string());
            metrics::counter!(telemetry::ATTACH_FAILURES, "cache" => cache, "kind" => kind).increment(1);
        }
        #[cfg(feature = "tracing")]
        tracing::event!(
            name: telemetry::ATTACH_FAILED,
            target: telemetry::TARGET,
            tracing::Level::ERROR,
            cache,
            account = error.account().map(tracing::field::display),
            cause = %error,
            "the account could not be attached"
        );
    });
}
