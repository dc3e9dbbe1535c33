//! All authorities of a cache, those with work in the order in which they are served.
//!
//! Nothing here grows with the number of authorities that are idle: a service whose customers bring a KMS each has as many
//! of them as accounts. Imports: `lane`, `authority`.

use std::collections::{BTreeSet, HashMap};

use super::authority::{Bulkhead, Destination};
use super::lane::Lane;

/// Names a lane while it has accounts, work or calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId(u32);

/// A lane with work: by the rank of what it would start next, the least first.
pub(super) type Ready = (u32, LaneId);

#[derive(Default)]
pub(super) struct Lanes {
    slots: Vec<Option<Box<Lane>>>,
    free: Vec<LaneId>,
    ids: HashMap<Destination, LaneId>,
    ready: BTreeSet<Ready>,
    /// Those of them with accounts whose attempt is due.
    due: BTreeSet<Ready>,
    /// Those whose calls hold no thread while they wait: how many workers they hold changes without an event.
    asynchronous: BTreeSet<LaneId>,
    /// Workers that all others hold while they do not answer.
    suspects: usize,
}

impl Lanes {
    /// The lane of `destination`, a new one where there is none.
    pub(super) fn id(&mut self, destination: &Destination) -> LaneId {
        if let Some(id) = self.ids.get(destination) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            LaneId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(slot) = self.slots.get_mut(id.index()) {
            *slot = Some(Box::new(Lane::new(destination)));
        }
        if !destination.holds_threads() {
            self.asynchronous.insert(id);
        }
        self.ids.insert(destination.clone(), id);
        id
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.slots.get(id.index())?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.slots.get_mut(id.index())?.as_deref_mut()
    }

    /// Changes a bulkhead, and with it what all suspects hold together.
    pub(super) fn change<R>(&mut self, id: LaneId, change: impl FnOnce(&mut Bulkhead) -> R) -> Option<R> {
        let lane = self.slots.get_mut(id.index())?.as_mut()?;
        // Of asynchronous ones this is none.
        let before = lane.bulkhead.suspect_workers(0);
        let result = change(&mut lane.bulkhead);
        self.suspects = (self.suspects + lane.bulkhead.suspect_workers(0)).saturating_sub(before);
        Some(result)
    }

    /// Workers that all suspects together hold.
    pub(super) fn suspect_workers(&self) -> usize {
        let lanes = self.asynchronous.iter().filter_map(|id| self.get(*id));
        self.suspects + lanes.map(|lane| lane.bulkhead.suspect_workers(lane.held())).sum::<usize>()
    }

    /// To be called whenever work was added to a lane or taken from it, or one of its calls has ended.
    pub(super) fn settle(&mut self, id: LaneId) {
        let Some(lane) = self.slots.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let (rank, due) = (lane.rank(), lane.due_rank());
        if let Some(waiting) = &mut lane.waiting {
            let (listed, listed_due) = std::mem::replace(&mut waiting.listed, (rank, due));
            list(&mut self.ready, id, listed, rank);
            list(&mut self.due, id, listed_due, due);
        }
        if rank.is_none() {
            lane.waiting = None;
        }
        if lane.is_unused() {
            self.ids.remove(&lane.destination);
            self.asynchronous.remove(&id);
            self.slots[id.index()] = None;
            self.free.push(id);
        }
    }

    /// The lanes with work.
    pub(super) fn ready(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.ready.iter().filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    pub(super) fn with_work(&self) -> usize {
        self.ready.len()
    }

    /// The lane with work that is served after `last`.
    pub(super) fn after(&self, last: Option<Ready>) -> Option<Ready> {
        next_in(&self.ready, last)
    }

    /// The same of those with accounts whose attempt is due.
    pub(super) fn due_after(&self, last: Option<Ready>) -> Option<Ready> {
        next_in(&self.due, last)
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.slots.iter_mut().flatten().map(Box::as_mut)
    }
}

/// Moves a lane from the one rank to the other.
fn list(lanes: &mut BTreeSet<Ready>, id: LaneId, from: Option<u32>, to: Option<u32>) {
    if from != to {
        from.map(|rank| lanes.remove(&(rank, id)));
        lanes.extend(to.map(|rank| (rank, id)));
    }
}

fn next_in(lanes: &BTreeSet<Ready>, last: Option<Ready>) -> Option<Ready> {
    use std::ops::Bound::{Excluded, Unbounded};
    match last {
        None => lanes.first().copied(),
        Some(last) => lanes.range((Excluded(last), Unbounded)).next().copied(),
    }
}

impl LaneId {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::{Bulkhead, Purpose};
    use super::*;
    use crate::account::AccountKey;
    use crate::clock::ManualClock;
    use crate::keeper::lane::Turn;
    use crate::provider::Authority;

    fn destination(name: &str) -> Destination {
        Destination::Kms { authority: Authority::new("scripted", name), holds_threads: true }
    }

    const fn turn(rank: u32, number: u64) -> Turn {
        Turn { rank, ..Turn::new(0, number, AccountKey::new(number), None) }
    }

    #[test]
    fn c8_lanes_with_work_are_served_by_the_rank_of_their_first() {
        let mut lanes = Lanes::default();
        let ids: Vec<_> = ["a", "b", "c"].iter().map(|name| lanes.id(&destination(name))).collect();
        for (id, ranks) in ids.iter().zip([[7, 9], [5, 8], [6, 10]]) {
            for rank in ranks {
                lanes.get_mut(*id).unwrap().waiting().due.insert(turn(rank, u64::from(rank)));
                lanes.settle(*id);
            }
        }
        let mut served = Vec::new();
        while let Some((rank, id)) = lanes.after(None) {
            served.push(rank);
            lanes.get_mut(id).unwrap().waiting().due.pop_first();
            lanes.settle(id);
        }
        assert_eq!(served, [5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn b12_whose_turn_it_is_outlasts_an_empty_queue() {
        let clock = ManualClock::new();
        let mut lanes = Lanes::default();
        let id = lanes.id(&destination("a"));
        let begun = clock.moment();
        lanes.get_mut(id).unwrap().waiting().due.insert(turn(1, 1));
        lanes.change(id, Bulkhead::begin_asked);
        // Nothing waits any more, so the lane keeps nothing for its queue.
        lanes.get_mut(id).unwrap().waiting().due.pop_first();
        lanes.settle(id);
        let lane = lanes.get(id).unwrap();
        assert!(lane.waiting.is_none() && lane.bulkhead.asked_was_last(), "a refresh is next");
        lanes.change(id, |bulkhead| bulkhead.begin(begun));
        assert!(!lanes.get(id).unwrap().bulkhead.asked_was_last());
    }

    #[test]
    fn b12_what_suspects_hold_is_the_sum_over_all_lanes() {
        let clock = ManualClock::new();
        let mut lanes = Lanes::default();
        let names: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        for (n, name) in names.iter().enumerate() {
            let id = lanes.id(&destination(name));
            let begun = clock.moment();
            lanes.change(id, |bulkhead| bulkhead.begin(begun));
            match n % 3 {
                0 => lanes.change(id, |bulkhead| bulkhead.abandon(Purpose::Refresh, begun, true)),
                1 => lanes.change(id, |bulkhead| bulkhead.finish(Purpose::Refresh, begun, Some(false))),
                _ => None,
            };
            let summed: usize =
                lanes.slots.iter().flatten().map(|lane| lane.bulkhead.suspect_workers(0)).sum();
            assert_eq!(lanes.suspect_workers(), summed);
        }
        assert_eq!(lanes.suspect_workers(), 6);
        // A lane that nobody needs is gone, and its place is used again.
        let one = lanes.id(&destination("1"));
        lanes.settle(one);
        assert!(lanes.get(one).is_none());
        assert_eq!(lanes.id(&destination("new")), one);
    }
}
