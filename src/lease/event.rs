//! What goes into the lease machine, and what comes out of it. Imports: `clock`, `error`, `id`.

use std::time::Duration;

use crate::clock::Moment;
use crate::error::Refusal;
use crate::id::Epoch;

/// Names one unwrap attempt of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AttemptId(pub(super) u64);

/// What the machine is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Time has passed.
    Wake,
    /// An attempt ended. Of one that is no longer current a refusal is heeded, or a success while the KMS
    /// is thought silent: as a reason to ask again, never as an answer.
    Answered(AttemptId, Answer),
    /// Another account's attempt at the same authority, begun at the given time, met silence.
    AuthoritySilent {
        begun: Moment,
        /// Whether the KMS was asked. Where what comes before that hangs it is silence all the same, but not the KMS's.
        asked: bool,
    },
    /// Another account at the same authority was refused: ask for ourselves, soon.
    AuthorityRefused,
    /// The record was changed by somebody: look at it, soon.
    RecordChanged,
    /// Of a failover custody: the second provider has unwrapped, in a call begun in `epoch`, while the first one was silent.
    StoodIn {
        epoch: Epoch,
        started: Moment,
        /// When the first one has last answered, as far as the record says.
        confirmed: Moment,
        /// For how long since then the second one may stand in.
        limit: Duration,
        max_grace: Option<Duration>,
    },
    /// The second provider has refused, or that of one share of a joint custody, in a call begun in `epoch`.
    SecondRefused {
        epoch: Epoch,
        refusal: Refusal,
    },
    /// The same, but the newest record has not been compared yet: close, and wait for the rest of the answer (contract D12).
    SecondRefusedPending {
        epoch: Epoch,
    },
    Lock,
    Unlock,
    Delete,
    Recover,
    /// The customer allows this much grace from now on. It can shorten the present lease's; what is longer counts from the next
    /// verified unwrap.
    Grace(Duration),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The KMS unwrapped, and the AEK is the record's. `started` is when the call began.
    Verified {
        started: Moment,
        max_grace: Option<Duration>,
    },
    /// The KMS did not answer.
    Transient,
    /// The KMS was not asked, or what it said came to nothing: no record could be read or confirmed. To the lease it is silence;
    /// of the KMS it says nothing, so that it brings in no second one.
    NotAsked,
    Integrity,
    /// The KMS refused, but the newest record has not been compared yet: close, and wait for the
    /// rest of the answer (contract D12).
    RefusedPending(Refusal),
    Refused(Refusal),
}

/// What the keeper does now, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) publish: Option<Publish>,
    /// The state that users see has changed: tell them.
    pub(crate) notify: bool,
    /// The KMS's answer cannot be right: tell a person.
    pub(crate) alarm: bool,
}

/// What the data plane is to see from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    /// The keys that came with this answer.
    Keys { fresh_until: Moment, valid_until: Moment },
    /// The same keys, other deadlines.
    Extend { fresh_until: Moment, valid_until: Moment },
    /// No keys, a new epoch.
    Close { epoch: Epoch, why: Closed },
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    NotReady,
    Silent,
    Integrity,
    Revoked(Refusal),
    Locked,
    Deleted,
}

impl Effects {
    /// What follows these effects. The later publication stands; a closing is never overtaken by an extension.
    pub(super) fn then(self, later: Self) -> Self {
        Self {
            publish: later.publish.or(self.publish),
            notify: self.notify || later.notify,
            alarm: self.alarm || later.alarm,
        }
    }
}
