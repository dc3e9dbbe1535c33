//! What was left under an id that is not in use any more, until it is again; of so many ids at most, the latest. Imports: `id`.

use std::collections::{BTreeMap, HashMap};

use crate::id::AccountId;

pub(super) struct Left<T> {
    most: usize,
    by_id: HashMap<AccountId, (u64, T)>,
    /// In the order in which they were left.
    ids: BTreeMap<u64, AccountId>,
    next: u64,
}

impl<T> Left<T> {
    pub(super) fn at_most(most: usize) -> Self {
        Self { most, by_id: HashMap::new(), ids: BTreeMap::new(), next: 0 }
    }

    pub(super) fn keep(&mut self, id: AccountId, what: T) {
        self.take(id);
        self.by_id.insert(id, (self.next, what));
        self.ids.insert(self.next, id);
        self.next += 1;
        if self.ids.len() > self.most
            && let Some((_, oldest)) = self.ids.pop_first()
        {
            self.by_id.remove(&oldest);
        }
    }

    pub(super) fn take(&mut self, id: AccountId) -> Option<T> {
        let (number, what) = self.by_id.remove(&id)?;
        self.ids.remove(&number);
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_than_are_kept_the_latest_are() {
        let ids = [1, 2, 3, 4].map(|byte| AccountId::from_bytes([byte; 16]));
        let mut left = Left::at_most(2);
        left.keep(ids[0], "first");
        left.keep(ids[1], "second");
        left.keep(ids[0], "first again");
        left.keep(ids[2], "third");
        assert_eq!((left.by_id.len(), left.ids.len()), (2, 2));
        assert_eq!(ids.map(|id| left.take(id)), [Some("first again"), None, Some("third"), None]);
        assert_eq!((left.by_id.len(), left.ids.len()), (0, 0));
        left.keep(ids[3], "fourth");
        assert_eq!((left.take(ids[3]), left.take(ids[3])), (Some("fourth"), None));
    }
}
