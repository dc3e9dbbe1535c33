//! One share of a joint custody, asked for alone beside attempts that meet silence (contract A7): for the refusal that it may meet. What it unwraps
//! is nobody's key, and proves nothing of the other one. Imports: `account::{refresh, unwrap}`, `format`, `keeper`, `lease`, `clock`, `id`.

use super::AccountInner;
use super::refresh::{Known, Refreshed};
use crate::clock::Moment;
use crate::format::record::Custody;
use crate::id::Epoch;
use crate::keeper::{Destination, Report};
use crate::lease::MOST_SHARES;

impl AccountInner {
    /// Where each share is asked for alone; nowhere for another custody, and where both are under one authority, which is silent for both.
    pub(crate) fn share_destinations(&self) -> Vec<Destination> {
        let known = self.known();
        let joint = matches!(known.record.custody(), Custody::Joint { .. });
        if !joint || !self.destination().is_together() {
            return Vec::new();
        }
        let Ok(providers) = self.admit(&known, &known.record) else { return Vec::new() };
        let held = known.record.held();
        let of = held.iter().filter_map(|held| Some(Destination::of(providers.get(held.at)?.as_ref())));
        of.take(MOST_SHARES).collect()
    }

    /// Begins the call for the share at `at` that is due, if one still is.
    pub(crate) fn begin_share(&self, now: Moment, at: usize) -> Option<Epoch> {
        let mut control = self.lock_control();
        (!control.retired && control.lease.wants_share(now, at)).then(|| control.lease.begin_share(now, at))
    }

    /// Asks for one share. A refusal is compared with the newest record before it counts (contract D12).
    pub(crate) async fn ask_for_share(&self, at: usize, report: &Report) -> Result<Refreshed, Refreshed> {
        let known = self.known();
        let newest = self.newest(&known)?;
        match report.asking(self.unwrap_share(&known, &newest, at)).await {
            Err(Refreshed::Refused(refusal, error)) if self.store().is_some() => {
                report.refused(refusal);
                let again = self.newest(&newest)?;
                if again.record.wraps().get(at) == newest.record.wraps().get(at) {
                    return Err(Refreshed::Refused(refusal, error));
                }
                report.asking(self.unwrap_share(&known, &again, at)).await
            }
            other => other,
        }
    }

    async fn unwrap_share(&self, known: &Known, newest: &Known, at: usize) -> Result<Refreshed, Refreshed> {
        let providers = self.admit(known, &newest.record).map_err(Refreshed::Wrong)?;
        let (held, wraps) = (newest.record.held(), newest.record.wraps());
        super::unwrap::unwrap_share(self.clock(), &providers, held.get(at), wraps.get(at).copied()).await?;
        Ok(Refreshed::OneShare)
    }
}
