//! A look at the record while the KMS is silent: what it takes away must not wait for the KMS (contracts C5, E7).
//!
//! A refresh reads the record first. But in an outage few refreshes are made: one account's silence serves all behind the same authority, and where
//! calls hang none is made at all. So an account that lives on its neighbours' silence looks at its record by itself, about as often as it
//! would have. Runs on workers. Imports: `control`, `refresh`, `keeper`, `clock`, `error`.

use std::sync::Arc;

use super::AccountInner;
use super::refresh::Refreshed;
use crate::keeper::{ControlCall, Destination, Met, Pending};

impl AccountInner {
    /// Looks, unless it did lately, or has nothing to lose, or no store to look into.
    pub(crate) fn begin_look(self: &Arc<Self>) {
        let Some(store) = self.record_store() else { return };
        if !self.may_look() {
            return;
        }
        let destination = Destination::of_records(store);
        let deadline = self.settings().policy.call_deadline();
        let inner = Arc::downgrade(self);
        let run = Box::pin(async move { inner.upgrade().map_or(Met::Answers, |inner| inner.look()) });
        let call = ControlCall { destination, patience: deadline, deadline, run, abandon: Box::new(drop) };
        // Nobody waits: what comes of it is a transition, or nothing.
        drop(self.keeper().control(Pending::ready(Ok(())), call));
    }

    fn look(&self) -> Met {
        let known = self.known();
        let looked = self.newest(&known).and_then(|newest| self.heed(self.clock(), &known, &newest));
        let met = match &looked {
            Err(Refreshed::NoRecord(_)) => Met::Silence,
            _ => Met::Answers,
        };
        if let Err(Refreshed::DeletedUnasked(known)) = looked {
            self.take_deletion(self.clock().now(), known);
        }
        met
    }
}
