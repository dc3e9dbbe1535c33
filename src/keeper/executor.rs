//! Where provider calls run: a bounded pool of threads, or, under a test's clock, the caller.
//!
//! A piece of work is a future. A synchronous provider blocks in the poll: a call that hangs for ever costs its
//! worker; another may start while the bound on all threads allows, and the worker rejoins the pool if the call ever
//! returns. Work that waits for an asynchronous provider is parked, and holds no thread until it is woken.
//! Imports: `clock`, `secret`, `error`, and under `testing` its `virtual_time`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

#[cfg(any(test, feature = "testing"))]
use super::inline::Inline;
use super::{CallId, Message};
use crate::error::{Error, ErrorKind};
use crate::secret::wash_stack;
#[cfg(test)]
use crate::testing::virtual_time;

/// Calls providers, may block, and catches what they throw. What it answers is sent to the event loop.
pub(crate) type Work = Pin<Box<dyn Future<Output = Message> + Send>>;

/// The work of one call.
pub(crate) struct Job {
    pub(crate) id: CallId,
    /// How many workers the calls to this one's authority hold, or are about to.
    pub(crate) held: Arc<AtomicUsize>,
    /// Whether it holds its worker until it is answered.
    #[cfg_attr(
        not(any(test, feature = "testing")),
        expect(dead_code, reason = "threads find out by polling")
    )]
    pub(crate) holds_thread: bool,
    pub(crate) work: Work,
}

/// Where work runs.
#[derive(Debug)]
pub(crate) enum Executor {
    Threads(Pool),
    /// On the thread that drives the keeper, at the time of a test's clock.
    #[cfg(any(test, feature = "testing"))]
    Inline(Inline),
}

impl Executor {
    /// How many pieces of work may hold a thread at once.
    pub(crate) const fn most(&self) -> usize {
        match self {
            Self::Threads(pool) => pool.most,
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(inline) => inline.most(),
        }
    }

    /// How many pieces of work could start right now without waiting for another to end.
    pub(crate) fn free(&self) -> usize {
        match self {
            Self::Threads(pool) => pool.free(),
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(inline) => inline.free(),
        }
    }

    /// Runs `job`.
    ///
    /// # Errors
    /// `Limit` when the operating system gives no thread and none is left to run it.
    pub(crate) fn run(&mut self, job: Job) -> Result<(), Error> {
        match self {
            Self::Threads(pool) => pool.run(job),
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(inline) => {
                #[cfg(test)]
                if virtual_time::gives_no_thread() {
                    return Err(Error::new(ErrorKind::Limit, "the test gives no thread"));
                }
                inline.run(job);
                Ok(())
            }
        }
    }

    /// Drops the work of `id` if it is parked, or as soon as it would be, and says so with `Message::Dropped`.
    pub(crate) fn cancel(&mut self, id: CallId) {
        match self {
            Self::Threads(pool) => pool.cancel(id),
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(inline) => inline.cancel(id),
        }
    }

    /// Takes no more work and waits for what runs, at most `deadline`. True when nothing is left behind.
    pub(crate) fn close(&self, deadline: Duration) -> bool {
        match self {
            Self::Threads(pool) => pool.close(deadline),
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(_) => true,
        }
    }
}

/// A bounded pool of threads. Dropping it lets the workers go as they finish.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    most: usize,
}

struct Shared {
    state: Mutex<State>,
    results: Sender<Message>,
    most: usize,
    work_or_close: Condvar,
    gone: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    /// Work that waits to be woken.
    parked: HashMap<CallId, Job>,
    /// What came for work while a worker had it.
    running: HashMap<CallId, News>,
    threads: usize,
    idle: usize,
    closed: bool,
}

enum Queued {
    Poll(Job),
    Drop(Job),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    None,
    Woken,
    Cancelled,
}

/// Wakes parked work. Holds none of it: the runtime that keeps this keeps nobody's call alive.
struct Waking {
    id: CallId,
    pool: Weak<Shared>,
}

impl Pool {
    /// A pool of at most `most` threads that sends results to `results`. Threads start as they are needed.
    pub(crate) fn new(most: usize, results: Sender<Message>) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            results,
            most,
            work_or_close: Condvar::new(),
            gone: Condvar::new(),
        };
        Self { shared: Arc::new(shared), most }
    }

    fn free(&self) -> usize {
        let state = self.shared.lock();
        (state.idle + self.most.saturating_sub(state.threads)).saturating_sub(state.queue.len())
    }

    fn run(&self, job: Job) -> Result<(), Error> {
        let state = self.shared.lock();
        self.shared.enqueue(state, Queued::Poll(job))
    }

    fn cancel(&self, id: CallId) {
        let mut state = self.shared.lock();
        if let Some(job) = state.parked.remove(&id) {
            // OK because a queued job waits for the next worker where no thread can be had now.
            drop(self.shared.enqueue(state, Queued::Drop(job)));
        } else if let Some(news) = state.running.get_mut(&id) {
            *news = News::Cancelled;
        } else if let Some(at) = state.queue.iter().position(|queued| queued.job().id == id)
            && let Some(Queued::Poll(job)) = state.queue.remove(at)
        {
            state.queue.push_back(Queued::Drop(job));
        }
    }

    /// Workers that hang in a call are left behind, and end with the process or with their call.
    fn close(&self, deadline: Duration) -> bool {
        let mut state = self.shared.lock();
        state.closed = true;
        let dropped = (std::mem::take(&mut state.queue), std::mem::take(&mut state.parked));
        self.shared.work_or_close.notify_all();
        // Providers and waits are somebody else's code: not under the lock.
        drop(state);
        drop(catch_unwind(AssertUnwindSafe(|| drop(dropped))));
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .gone
            .wait_timeout_while(state, deadline, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.threads == 0
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // OK because no user code runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands `queued` to a worker, a new one where none is idle and the bound allows.
    fn enqueue(self: &Arc<Self>, mut state: MutexGuard<'_, State>, queued: Queued) -> Result<(), Error> {
        if state.idle <= state.queue.len() && state.threads < self.most {
            let shared = Arc::clone(self);
            let started = thread::Builder::new().name("strongroom-kms".into()).spawn(move || shared.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    drop(state);
                    drop(queued);
                    return Err(Error::new(ErrorKind::Limit, "no thread for KMS calls").with_source(error));
                }
                // Fewer workers than wished for: the work waits for one of them.
                Err(_) => {}
            }
        }
        queued.job().held.fetch_add(1, Ordering::Relaxed);
        state.queue.push_back(queued);
        drop(state);
        self.work_or_close.notify_one();
        Ok(())
    }

    fn work(self: &Arc<Self>) {
        let mut state = self.lock();
        loop {
            if let Some(queued) = state.queue.pop_front() {
                if let Queued::Poll(job) = &queued {
                    state.running.insert(job.id, News::None);
                }
                drop(state);
                match queued {
                    Queued::Poll(job) => self.poll(job),
                    Queued::Drop(job) => self.discard(job),
                }
                // An AEK passed through here.
                wash_stack::<WASHED>();
                state = self.lock();
            } else if state.closed {
                break;
            } else {
                state.idle += 1;
                state = self.work_or_close.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
        state.threads -= 1;
        drop(state);
        self.gone.notify_all();
    }

    fn poll(self: &Arc<Self>, mut job: Job) {
        let waker = Waker::from(Arc::new(Waking { id: job.id, pool: Arc::downgrade(self) }));
        let polled = job.work.as_mut().poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(result) = polled {
            self.lock().running.remove(&job.id);
            job.held.fetch_sub(1, Ordering::Relaxed);
            // What it held of keys goes before anybody hears of the result.
            drop(catch_unwind(AssertUnwindSafe(|| drop(job))));
            // The event loop may be gone; then nobody waits for the result.
            drop(self.results.send(result));
            return;
        }
        let mut state = self.lock();
        match state.running.remove(&job.id) {
            Some(News::Woken) => {
                job.held.fetch_sub(1, Ordering::Relaxed);
                // OK because this worker is there to take it.
                drop(self.enqueue(state, Queued::Poll(job)));
            }
            Some(News::None) if !state.closed => {
                job.held.fetch_sub(1, Ordering::Relaxed);
                state.parked.insert(job.id, job);
                drop(state);
                drop(self.results.send(Message::Parked));
            }
            _ => {
                drop(state);
                self.discard(job);
            }
        }
    }

    /// Drops work that was given up. A provider's own code may run in that.
    fn discard(&self, job: Job) {
        let Job { id, held, holds_thread: _, work } = job;
        drop(catch_unwind(AssertUnwindSafe(|| drop(work))));
        held.fetch_sub(1, Ordering::Relaxed);
        drop(self.results.send(Message::Dropped(id)));
    }
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut state = pool.lock();
        if let Some(job) = state.parked.remove(&self.id) {
            // Without any thread to run it the call ends as it began: given up at its deadline.
            drop(pool.enqueue(state, Queued::Poll(job)));
        } else if let Some(news @ News::None) = state.running.get_mut(&self.id) {
            *news = News::Woken;
        }
    }
}

impl Queued {
    const fn job(&self) -> &Job {
        match self {
            Self::Poll(job) | Self::Drop(job) => job,
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Pool").field("threads", &state.threads).field("most", &self.most).finish()
    }
}

/// Deeper than the library or a provider takes a key: 64 KiB, of the 2 MiB that a thread has.
const WASHED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::mpsc;

    use super::*;

    fn job(id: u64, work: impl Future<Output = Message> + Send + 'static) -> Job {
        Job { id: CallId(id), held: Arc::default(), holds_thread: true, work: Box::pin(work) }
    }

    /// Parks once, and hands its waker out.
    fn parks(wakers: mpsc::Sender<Waker>) -> impl Future<Output = Message> {
        let mut polled = false;
        poll_fn(move |context| {
            if polled {
                return Poll::Ready(Message::Shutdown);
            }
            polled = true;
            wakers.send(context.waker().clone()).unwrap();
            Poll::Pending
        })
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn b11_a_hanging_call_costs_one_worker() {
        let (results, _inbox) = mpsc::channel();
        let pool = Pool::new(2, results);
        let (release, held) = mpsc::channel::<()>();
        let hang = async move {
            let _ = held.recv();
            Message::Shutdown
        };
        pool.run(job(100, hang)).unwrap();
        let (done, seen) = mpsc::channel();
        for i in 0..10 {
            let done = done.clone();
            let work = async move {
                done.send(i).unwrap();
                Message::Shutdown
            };
            pool.run(job(i, work)).unwrap();
        }
        for i in 0..10 {
            assert_eq!(seen.recv_timeout(Duration::from_secs(10)).unwrap(), i);
        }
        assert!(!pool.close(Duration::from_millis(10)), "one still hangs");
        drop(release);
        assert!(pool.close(Duration::from_secs(10)));
    }

    #[test]
    fn results_reach_the_event_loop_and_threads_are_bounded() {
        let (results, inbox) = mpsc::channel();
        let pool = Pool::new(3, results);
        for i in 0..50 {
            pool.run(job(i, async { Message::Shutdown })).unwrap();
        }
        for _ in 0..50 {
            let message = inbox.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(matches!(message, Message::Shutdown));
        }
        assert!(pool.shared.lock().threads <= 3);
    }

    #[test]
    fn b11_a_thousand_parked_calls_hold_no_thread() {
        let (results, inbox) = mpsc::channel();
        let pool = Pool::new(2, results);
        let (wakers, parked) = mpsc::channel();
        let held = Arc::new(AtomicUsize::new(0));
        for id in 0..1000 {
            let work = Box::pin(parks(wakers.clone()));
            let job = Job { id: CallId(id), held: Arc::clone(&held), holds_thread: false, work };
            pool.run(job).unwrap();
        }
        let parked: Vec<Waker> = (0..1000).map(|_| parked.recv_timeout(PATIENCE).unwrap()).collect();
        for _ in 0..1000 {
            assert!(matches!(inbox.recv_timeout(PATIENCE).unwrap(), Message::Parked));
        }
        pool.run(job(1000, async { Message::ControlDone(CallId(1000), super::super::Met::Answers) }))
            .unwrap();
        let message = inbox.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(message, Message::ControlDone(..)), "the threads are free for others");
        assert!(pool.shared.lock().threads <= 2);
        parked.iter().for_each(Waker::wake_by_ref);
        for _ in 0..1000 {
            assert!(matches!(inbox.recv_timeout(PATIENCE).unwrap(), Message::Shutdown));
        }
        assert!(pool.close(PATIENCE));
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn b11_a_parked_call_that_is_given_up_is_dropped_and_says_so() {
        let (results, inbox) = mpsc::channel();
        let pool = Pool::new(1, results);
        let owned = Arc::new(());
        let witness = Arc::downgrade(&owned);
        let (wakers, parked) = mpsc::channel();
        let first = parks(wakers);
        pool.run(job(1, async move {
            let _owned = owned;
            first.await;
            pending().await
        }))
        .unwrap();
        parked.recv_timeout(PATIENCE).unwrap().wake();
        pool.cancel(CallId(1));
        let said = std::iter::from_fn(|| inbox.recv_timeout(PATIENCE).ok());
        let mut said = said.filter(|message| !matches!(message, Message::Parked));
        assert!(matches!(said.next(), Some(Message::Dropped(CallId(1)))));
        assert!(witness.upgrade().is_none());
        assert!(pool.close(PATIENCE));
    }

    #[test]
    fn closing_drops_what_is_parked() {
        let (results, _inbox) = mpsc::channel();
        let pool = Pool::new(1, results);
        let owned = Arc::new(());
        let witness = Arc::downgrade(&owned);
        let (wakers, parked) = mpsc::channel();
        let first = parks(wakers);
        pool.run(job(1, async move {
            let _owned = owned;
            first.await
        }))
        .unwrap();
        let waker = parked.recv_timeout(PATIENCE).unwrap();
        assert!(pool.close(PATIENCE));
        assert!(witness.upgrade().is_none());
        waker.wake();
    }
}
