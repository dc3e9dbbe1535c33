//! Where a lease stands. Imports: `clock`, `error`.

use crate::clock::Moment;
use crate::error::Refusal;

/// Where the machine stands. `Held` is the table's *fresh* and *grace*: which of them is a matter of age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Cold,
    Held(Held),
    /// Refused, with reads closed, until the newest record has been compared.
    Confirming(Refusal),
    Unavailable,
    Revoked,
    Locked,
    /// `locked` when `lock` was called before or since: recovery then leads back to a lock, not past it.
    Deleted {
        locked: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// When the last verified unwrap started: all age counts from here (contract C2). `None` where only a second provider has
    /// unwrapped since there was no key.
    pub(super) since: Option<Moment>,
    /// Until when the second provider stands in, where it was the last to unwrap.
    pub(super) stood_in: Option<Moment>,
    /// When the last attempt that was due met silence: what grace is earned by.
    pub(super) silent_at: Option<Moment>,
    /// An answer that cannot be right has come since: no grace any more.
    pub(super) tainted: bool,
    pub(super) seen: Seen,
}

/// What users were last told of a key that is held. Time alone moves it, and each move is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    Fresh,
    Grace,
    /// Past its deadline with nothing earned: the data plane refuses it, until an attempt has ended.
    Lapsed,
}
