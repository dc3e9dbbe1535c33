//! One look at an account, for gauges (contract H1). Imports: `account::*`, `clock`, `format`.

use std::sync::Arc;
use std::time::Duration;

use super::AccountInner;
use crate::account::state::Status;
use crate::account::tally::Sum;
use crate::account::usage::GenerationUse;
use crate::format::record::AccountRecord;

/// What gauges show of an account, as it stood at one moment.
pub(crate) struct Glance {
    pub(crate) status: Status,
    /// Of a valid lease.
    pub(crate) lease: Option<LeaseTimes>,
    /// Whether there has been a key since the account was attached.
    pub(crate) had_key: bool,
    /// Whether an attempt to get one has ended.
    pub(crate) asked: bool,
    pub(crate) record: Arc<AccountRecord>,
    /// Once there has been a key.
    pub(crate) used: Option<GenerationUse>,
    pub(crate) done: Sum,
}

pub(crate) struct LeaseTimes {
    /// Since the start of its last verified unwrap, by the first provider of a failover custody: where that was in another process, since the
    /// record says that it was.
    pub(crate) age: Duration,
    /// Until it ends unless it is renewed.
    pub(crate) left: Duration,
}

impl AccountInner {
    /// How much it has sealed and opened.
    pub(crate) fn done(&self) -> Sum {
        self.state.tally().sum()
    }

    /// `None` once it is closed for good.
    pub(crate) fn glance(&self) -> Option<Glance> {
        let now = self.state.clock().now();
        let (known, used, asked) = {
            let control = self.lock_control();
            if control.retired {
                return None;
            }
            let known = control.known.wake();
            let used = control.generation_use(now, &known);
            (known, used, control.ended > 0)
        };
        let fresh_for = self.settings().policy.fresh_for();
        let terms = known.record.custody().terms();
        let wall = self.clock().now().wall_nanos();
        let recorded =
            terms.map(|terms| Duration::from_nanos(wall.saturating_sub(terms.confirmed.wall_nanos())));
        Some(Glance {
            status: self.state.status(),
            lease: self.state.lease_left().map(|lease| LeaseTimes {
                age: (fresh_for.saturating_sub(lease.fresh) + lease.stale)
                    .min(recorded.unwrap_or(Duration::MAX)),
                left: lease.valid,
            }),
            used,
            had_key: known.verified.is_some(),
            asked,
            record: known.record,
            done: self.done(),
        })
    }
}

impl Drop for AccountInner {
    fn drop(&mut self) {
        // What it did since the last look is not lost with it.
        self.parts.common.departed.add(self.done());
    }
}
