//! A look at the record while the KMS is silent: what it takes away must not wait for the KMS (contracts C5, E7).
//!
//! A refresh reads the record first. But in an outage few refreshes are made: one account's silence serves all behind the same authority, and where
//! calls hang none is made at all. So an account that lives on its neighbours' silence looks at its record by itself, about as often as it
//! would have. Runs on workers. Imports: `control`, `refresh`, `keeper`, `lease`, `format::record`.

use std::sync::Arc;

use super::AccountInner;
use super::refresh::{Known, Refreshed, believe};
use crate::format::record::RecordState;
use crate::keeper::{ControlCall, Destination, Met, Pending};
use crate::lease::Event;

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
        match self.newest(&known) {
            Ok(newest) => self.heed(&known, &newest),
            Err(Refreshed::Purged) => self.take_deletion(self.clock().now(), None),
            Err(Refreshed::NoRecord(_)) => return Met::Silence,
            // What cannot be right is for the next refresh to tell.
            Err(_) => {}
        }
        Met::Answers
    }

    /// A changed record is verified by the keys that are held. What it takes away is in force now: a deletion, and grace that was made
    /// shorter. What it gives, and what these keys do not verify, is left to the next unwrap.
    fn heed(&self, known: &Known, newest: &Known) {
        if newest.verified.is_some() || self.admit(known, &newest.record).is_err() {
            return;
        }
        let verified = self.with_keys(newest.record.generation(), |keys| believe(known, newest, keys));
        let Some(Ok(verified)) = verified else { return };
        let now = self.clock().now();
        if verified.state() == RecordState::Active {
            self.feed(now, Event::Grace(self.settings().grace.allowed_by(verified.policy())));
        } else {
            let verified = Some(verified);
            self.take_deletion(now, Some(Known { verified, ..newest.clone() }));
        }
        self.poke();
    }
}
