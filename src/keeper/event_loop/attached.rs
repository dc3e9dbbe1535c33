//! The accounts that the loop looks after, as they come and go. Imports: `account`, `authority`, `lane`, `lanes`.

use std::num::NonZeroU64;
use std::sync::{Arc, Weak};

use super::EventLoop;
use crate::account::{AccountInner, AccountKey};
use crate::keeper::authority::Destination;
use crate::keeper::lane::Turn;
use crate::keeper::lanes::LaneId;

/// An account, as the loop knows it.
pub(super) struct Tracked {
    pub(super) account: Weak<AccountInner>,
    pub(super) lane: LaneId,
    /// Which of its lane's accounts it is.
    pub(super) place: u32,
    pub(super) queued: Option<Turn>,
    /// Of a failover custody.
    pub(super) second: Option<Box<Second>>,
    /// The timer that counts, of those in the heap: a superseded one is passed over.
    pub(super) timer: Option<NonZeroU64>,
}

/// The second provider of a failover custody.
pub(super) struct Second {
    /// Where it is asked.
    pub(super) destination: Destination,
    /// Where that waits for its turn.
    pub(super) queued: Option<(LaneId, Turn)>,
    /// Whether it waits, or is under way.
    pub(super) busy: bool,
}

impl EventLoop {
    pub(super) fn attach(&mut self, account: &Arc<AccountInner>) {
        let lane = self.lanes.id(account.destination());
        let key = account.key();
        let place = self.lanes.get_mut(lane).map_or(0, |lane| lane.accounts.add(key));
        let tracked = Tracked {
            account: Arc::downgrade(account),
            lane,
            place,
            queued: None,
            second: account.second_destination().map(|destination| {
                Box::new(Second { destination: destination.clone(), queued: None, busy: false })
            }),
            timer: None,
        };
        self.accounts.insert(key, Box::new(tracked));
        self.look_at(self.clock.now(), key);
    }

    pub(super) fn detach(&mut self, key: AccountKey) {
        let Some(tracked) = self.accounts.remove(&key) else { return };
        let lane = self.lanes.get_mut(tracked.lane);
        let moved = lane.and_then(|lane| lane.accounts.remove(key, tracked.place));
        if let Some(moved) = moved.and_then(|moved| self.accounts.get_mut(&moved)) {
            moved.place = tracked.place;
        }
        if let Some(turn) = tracked.queued {
            self.leave(tracked.lane, turn);
        }
        self.lanes.settle(tracked.lane);
        if let Some((lane, turn)) = tracked.second.and_then(|second| second.queued) {
            self.leave(lane, turn);
            self.lanes.settle(lane);
        }
    }
}
