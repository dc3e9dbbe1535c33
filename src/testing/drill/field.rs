//! Where a drill takes place: a cache, an account, a KMS under command, and time. Imports: `cache`, `account`, `clock`, `error`,
//! `id`, `provider`, `testing::scripted`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::account::Account;
use crate::account::settings::OutageGrace;
use crate::cache::{AccountSpec, AekCache};
use crate::clock::{Clock, ManualClock};
use crate::error::Error;
use crate::id::AccountId;
use crate::provider::Kek;
use crate::testing::scripted::ScriptedProvider;

/// How time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Virtual,
    Real,
}

pub(super) struct Field {
    pub(super) kms: ScriptedProvider,
    pub(super) account: Account,
    pub(super) cache: AekCache,
    clock: Clock,
    pace: Pace,
    refresh: Duration,
}

impl Field {
    pub(super) fn new(pace: Pace, refresh: Duration, grace: OutageGrace) -> Result<Self, Error> {
        let manual = ManualClock::new();
        let builder =
            AekCache::builder().refresh_every(refresh).outage_grace(grace).call_deadline(CALL_DEADLINE);
        let (kms, builder, clock) = match pace {
            Pace::Virtual => {
                let kms = ScriptedProvider::on_virtual_time().with_clock(&manual);
                (kms, builder.manual(&manual), Clock::Manual(manual))
            }
            Pace::Real => (ScriptedProvider::new(), builder, Clock::System),
        };
        let cache = builder.build()?;
        let kek = Kek::latest(ScriptedProvider::KEK);
        let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), kek))?;
        Ok(Self { kms, account, cache, clock, pace, refresh })
    }

    /// Whether a lease is valid.
    pub(super) fn is_open(&self) -> bool {
        self.account.permit().is_ok()
    }

    /// Since boot.
    pub(super) fn now(&self) -> Duration {
        Duration::from_nanos(self.clock.now().boot_nanos())
    }

    pub(super) fn pass(&self, duration: Duration) {
        match self.pace {
            Pace::Virtual => self.cache.run_for(duration),
            Pace::Real => {
                #[expect(clippy::disallowed_methods, reason = "a drill in real time waits in real time")]
                thread::sleep(duration);
            }
        }
    }

    /// How often the drill looks.
    pub(super) const fn step(&self) -> Duration {
        Duration::from_millis(100)
    }

    /// What looking adds to what is measured, and a busy machine in real time.
    pub(super) const fn slack(&self) -> Duration {
        match self.pace {
            Pace::Virtual => Duration::from_millis(200),
            Pace::Real => Duration::from_secs(2),
        }
    }

    /// By when a refresh would have come.
    pub(super) fn long_enough_to_refresh(&self) -> Duration {
        self.refresh + self.refresh / 10 + CALL_DEADLINE
    }
}

/// c, the shortest.
const CALL_DEADLINE: Duration = Duration::from_secs(1);
