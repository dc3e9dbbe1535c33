//! Has warnings told of generations that near a limit (contract E6).
//!
//! A chore of the event loop. Whoever seals can tell nobody, for that would wait; they ring a bell that all accounts of a cache have in common, and
//! the loop, which wakes at least once a second, looks for the accounts that rang. Imports: `cache`, `keeper`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Registry;
use crate::account::{AccountInner, Bell};
use crate::keeper::Chore;

/// The chore that answers `bell`, for as long as the event loop lives.
pub(super) fn chore(bell: Bell, registry: Arc<Mutex<Registry>>) -> Chore {
    Box::new(move |now| {
        if bell.rang() {
            let accounts: Vec<Arc<AccountInner>> = {
                let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
                registry.by_id.values().filter_map(Weak::upgrade).collect()
            };
            accounts.iter().for_each(|account| account.look_at_limits(now));
        }
        true
    })
}
