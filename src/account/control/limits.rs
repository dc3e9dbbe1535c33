//! The limits of the generations that an account may seal under, followed and told of (contract E6).
//!
//! What is left is counted in `budget`, by the data plane. Here it is set by the record whenever that changes, and looked at with each refresh and
//! when the cache's bell has rung. Imports: `control`, `budget`, `usage`, `clock`, `format`, `id`.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::Arc;
use std::time::Duration;

use super::{AccountInner, Control};
use crate::account::budget::{Budget, Budgets};
use crate::account::refresh::Known;
use crate::account::usage::GenerationUse;
use crate::clock::Moment;
use crate::format::record::GenerationEntry;

impl AccountInner {
    /// How far the generation is used up that new data is sealed under now; `None` before the first key.
    pub(crate) fn generation_use(&self) -> Option<GenerationUse> {
        let control = self.lock_control();
        control.generation_use(self.clock().now(), &control.known.wake())
    }

    /// Tells of a warning that nobody was told of, if it was this account that rang. The record is not looked at before: of thousands
    /// of accounts one has rung.
    pub(crate) fn look_at_limits(&self, now: Moment) {
        let mut control = self.lock_control();
        // Each is asked: what they rang for is heard now.
        let rang = control.budgets.iter().filter(|budget| budget.rang()).count();
        if rang == 0 || control.retired {
            return;
        }
        let known = control.known.wake();
        if control.warns_anew(now, &known) {
            self.post(&control);
        }
    }

    /// Sets the limits that `known` says, by which the account goes now, for each generation that may seal. Those that this process has sealed under keep their count.
    pub(super) fn follow_limits(&self, control: &mut Control, known: &Known) {
        let Known { record, verified, .. } = known;
        let Some(limits) = verified.as_ref().map(|verified| verified.policy().limits()) else { return };
        let older: Vec<_> = record.older().list.iter().map(|older| older.entry.number).collect();
        // The one before the newest seals until that is active, and a writer that began under it goes on.
        let may_seal = std::iter::once(record.generation()).chain(older.first().copied());
        let had = control.budgets.iter().map(|budget| budget.generation());
        let mut numbers: Vec<_> = may_seal.chain(had.filter(|number| older.contains(number))).collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.dedup();
        if !control.budgets.iter().map(|budget| budget.generation()).eq(numbers.iter().copied()) {
            let budget = |number| {
                let had = control.budgets.iter().find(|budget| budget.generation() == number);
                had.cloned().unwrap_or_else(|| {
                    Arc::new(Budget::new(number, limits, self.parts.common.limits_bell.clone()))
                })
            };
            let budgets: Budgets = numbers.into_iter().map(budget).collect();
            control.budgets = budgets;
        }
        control.budgets.iter().for_each(|budget| budget.set_limits(limits));
    }
}

impl Control {
    /// Whether what is to be told of the limits has changed since it was told; then it counts as told.
    pub(super) fn warns_anew(&mut self, now: Moment, known: &Known) -> bool {
        let warning = self.generation_use(now, known).and_then(|used| used.warning());
        let in_use = sealing(now, known).number;
        for budget in self.budgets.iter() {
            match budget.generation().cmp(&in_use) {
                // It can still fill up, by objects that were begun under it.
                Less => budget.hush(),
                Equal => budget.tell(warning),
                Greater => {}
            }
        }
        std::mem::replace(&mut self.warned, warning) != warning
    }

    pub(super) fn generation_use(&self, now: Moment, known: &Known) -> Option<GenerationUse> {
        let limits = known.verified.as_ref()?.policy().limits();
        let entry = sealing(now, known);
        let used = self.budget(entry)?.used();
        let age = now.wall_nanos().saturating_sub(entry.created.wall_nanos());
        Some(GenerationUse {
            generation: entry.number,
            seals: used.seals,
            bytes: used.bytes,
            age: Duration::from_nanos(age),
            limits,
        })
    }

    fn budget(&self, entry: &GenerationEntry) -> Option<&Arc<Budget>> {
        self.budgets.iter().find(|budget| budget.generation() == entry.number)
    }
}

/// What the record says of the generation that new data is sealed under at `now`.
fn sealing(now: Moment, known: &Known) -> &GenerationEntry {
    let record = &known.record;
    let newest = record.newest();
    let before = record.older().list.first().map(|older| &older.entry);
    if now.wall_nanos() >= newest.active_from.wall_nanos() { newest } else { before.unwrap_or(newest) }
}
