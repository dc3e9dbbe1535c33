//! What an account's call says while it runs, before it is done. Imports: `keeper`, `error`, and under `testing` its `virtual_time`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use super::{CallId, Message};
use crate::error::Refusal;
#[cfg(any(test, feature = "testing"))]
use crate::testing::virtual_time;

/// How far a call has come.
#[derive(Clone, Default)]
pub(super) struct Progress {
    /// It is at what it asks its KMS, or waits for its turn in the cap's pace. Control calls do not say.
    asks: Arc<AtomicBool>,
    /// It has asked its authority, at least once.
    reached: Arc<AtomicBool>,
}

impl Progress {
    /// Whether it is the KMS that does not answer.
    pub(super) fn asks_kms(&self) -> bool {
        self.asks.load(Ordering::Relaxed) && self.has_asked()
    }

    /// What ends without that says nothing of the authority.
    pub(super) fn has_asked(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    /// It has asked its authority.
    pub(super) fn asked(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }
}

/// Of one call, to the event loop.
pub(crate) struct Report {
    call: CallId,
    asks: Arc<AtomicBool>,
    outbox: Sender<Message>,
}

impl Report {
    pub(super) fn of(call: CallId, progress: &Progress, outbox: Sender<Message>) -> Self {
        Self { call, asks: Arc::clone(&progress.asks), outbox }
    }

    #[cfg(test)]
    pub(crate) fn to_nobody() -> Self {
        Self::of(CallId(0), &Progress::default(), std::sync::mpsc::channel().0)
    }

    /// Waits for `call` of the KMS. What hangs meanwhile is the KMS; what hangs before it or after it is the record store.
    pub(crate) async fn asking<T>(&self, call: impl Future<Output = T>) -> T {
        #[cfg(any(test, feature = "testing"))]
        let was_late = virtual_time::is_late();
        self.asks.store(true, Ordering::Relaxed);
        let answer = call.await;
        // On virtual time a call runs as a whole before its answer is late: the KMS that is late is asked until then.
        #[cfg(any(test, feature = "testing"))]
        if virtual_time::is_late() && !was_late {
            return answer;
        }
        self.asks.store(false, Ordering::Relaxed);
        answer
    }

    /// The KMS has refused. Said before the newest record is compared (contract D12), so that reads close first.
    pub(crate) fn refused(&self, refusal: Refusal) {
        drop(self.outbox.send(Message::RefusedPending(self.call, refusal)));
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, pending};
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn b12_who_waits_for_its_turn_does_not_ask_the_kms_yet() {
        let progress = Progress::default();
        let report = Report::of(CallId(1), &progress, std::sync::mpsc::channel().0);
        assert!(!progress.asks_kms());
        let mut asking = pin!(report.asking(pending::<()>()));
        assert!(asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(!progress.asks_kms(), "the cap has not let it through");
        progress.asked();
        assert!(progress.asks_kms());
        crate::provider::block_on(report.asking(async {}));
        assert!(progress.has_asked() && !progress.asks_kms(), "it has answered: what is late is the store");
    }
}
