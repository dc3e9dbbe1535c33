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
    /// What is asked beside its attempts.
    pub(super) beside: Option<Box<Beside>>,
    /// The timer that counts, of those in the heap: a superseded one is passed over.
    pub(super) timer: Option<NonZeroU64>,
}

/// What is asked beside the attempts of an account.
pub(super) enum Beside {
    /// The second provider of a failover custody.
    Second([Call; 1]),
    /// Each share of a joint custody.
    Shares(Vec<Call>),
}

/// One that is asked.
pub(super) struct Call {
    /// Where it is asked.
    pub(super) destination: Destination,
    /// Where that waits for its turn.
    pub(super) queued: Option<(LaneId, Turn)>,
    /// Whether it waits, or is under way.
    pub(super) busy: bool,
}

impl Beside {
    fn of(account: &AccountInner) -> Option<Box<Self>> {
        let call = |destination| Call { destination, queued: None, busy: false };
        if let Some(destination) = account.second_destination() {
            return Some(Box::new(Self::Second([call(destination.clone())])));
        }
        let shares: Vec<_> = account.share_destinations().into_iter().map(call).collect();
        (!shares.is_empty()).then(|| Box::new(Self::Shares(shares)))
    }

    pub(super) fn calls(&mut self) -> &mut [Call] {
        match self {
            Self::Second(calls) => calls,
            Self::Shares(calls) => calls,
        }
    }
}

impl Tracked {
    pub(super) fn beside(&mut self, at: u8) -> Option<&mut Call> {
        self.beside.as_mut()?.calls().get_mut(usize::from(at))
    }
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
            beside: Beside::of(account),
            timer: None,
        };
        self.accounts.insert(key, Box::new(tracked));
        self.look_at(self.clock.now(), key);
    }

    pub(super) fn detach(&mut self, key: AccountKey) {
        let Some(mut tracked) = self.accounts.remove(&key) else { return };
        let lane = self.lanes.get_mut(tracked.lane);
        let moved = lane.and_then(|lane| lane.accounts.remove(key, tracked.place));
        if let Some(moved) = moved.and_then(|moved| self.accounts.get_mut(&moved)) {
            moved.place = tracked.place;
        }
        if let Some(turn) = tracked.queued {
            self.leave(tracked.lane, turn);
        }
        self.lanes.settle(tracked.lane);
        let beside =
            tracked.beside.iter_mut().flat_map(|beside| beside.calls()).filter_map(|call| call.queued);
        for (lane, turn) in beside {
            self.leave(lane, turn);
            self.lanes.settle(lane);
        }
    }
}
