//! A KMS that does nothing but answer, when it is told to, and keeps next to nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strongroom::provider::{
    Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapAlgorithm, WrapContext, WrapInput,
    Wrapped,
};
use strongroom::testing::ManualClock;
use strongroom::testing::virtual_time::{self, Latency};

#[derive(Clone, Debug)]
pub(super) struct Kms(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authority: Authority,
    clock: ManualClock,
    /// Nanoseconds; `FOREVER` hangs.
    latency: AtomicU64,
    /// Whether it is the client that gives up after that time.
    gives_up: AtomicBool,
    calls: AtomicU64,
    log: Mutex<Option<Vec<u64>>>,
}

const FOREVER: u64 = u64::MAX;
const SECOND: u64 = 1_000_000_000;

impl Kms {
    pub(super) fn new(clock: &ManualClock, name: &str) -> Self {
        Self(Arc::new(Shared {
            authority: Authority::new("bench", name),
            clock: clock.clone(),
            latency: AtomicU64::new(0),
            gives_up: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            log: Mutex::new(None),
        }))
    }

    pub(super) fn answer_after(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).expect("less than 500 years");
        self.0.latency.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn hang(&self) {
        self.0.latency.store(FOREVER, Ordering::Relaxed);
    }

    /// Nothing answers, and the client gives up after `timeout`.
    pub(super) fn give_up_after(&self, timeout: Duration) {
        self.answer_after(timeout);
        self.0.gives_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    pub(super) fn keep_log(&self) {
        *self.0.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// The most calls that began within any second.
    pub(super) fn most_in_a_second(&self) -> usize {
        let log = self.0.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut begun = log.clone().expect("a log is kept");
        begun.sort_unstable();
        let (mut first, mut most) = (0, 0);
        for (last, at) in begun.iter().enumerate() {
            while begun[first] + SECOND <= *at {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    fn begin(&self) -> Result<(), ProviderError> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(log) = self.0.log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            log.push(u64::try_from(self.0.clock.since_boot().as_nanos()).expect("less than 500 years"));
        }
        virtual_time::set(match self.0.latency.load(Ordering::Relaxed) {
            0 => None,
            FOREVER => Some(Latency::Forever),
            nanos => Some(Latency::For(Duration::from_nanos(nanos))),
        });
        let gives_up = self.0.gives_up.load(Ordering::Relaxed);
        if gives_up { Err(ProviderError::transient("timed out")) } else { Ok(()) }
    }

    fn version() -> KekVersion {
        KekVersion::new("1").expect("a version")
    }
}

impl KeyProvider for Kms {
    fn wrap(&self, kek: &Kek, _context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.begin()?;
        let algorithm = WrapAlgorithm::new("none").expect("a name");
        Wrapped::new(
            self.0.authority.uri_of(kek.name())?,
            Self::version(),
            algorithm,
            secret.expose().to_vec(),
        )
    }

    fn unwrap(&self, wrapped: &Wrapped, _context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.begin()?;
        WrapInput::from_slice(wrapped.bytes())
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.begin()?;
        let mut info = KekInfo::new(self.0.authority.uri_of(kek.name())?, Self::version());
        (info.soft_delete, info.purge_protection) = (true, true);
        Ok(info)
    }

    fn authority(&self) -> Authority {
        self.0.authority.clone()
    }

    fn wrap_is_authentic(&self) -> bool {
        true
    }
}
