//! A reader: a process that opens one block of each account over and over, in several threads, and logs every read.
//!
//! What it is told stands in a file; `ready` on its output says that it holds a lease of every account. Each line of its
//! input steps its wall clock by so many milliseconds; the end of its input ends it.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::{Value, json};
use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider};
use strongroom::testing::SteppedWall;
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Error, ErrorKind, ObjectId, OutageGrace,
};

use super::{CALL_DEADLINE, GRACE, Log, Outcome, REFRESH, Read, THREADS, log_file, now};

/// What a reader is told.
#[derive(Clone, Debug)]
pub struct Orders {
    /// What its logs are called.
    pub name: String,
    /// Where it finds the server: its proxy.
    pub url: String,
    /// By how much its boot-time clock is ahead of the machine's.
    pub ahead: Duration,
    /// Keys, and a token for each.
    pub keys: Vec<(String, String)>,
}

impl Orders {
    /// Writes them down; tells where.
    ///
    /// # Errors
    /// Of the file.
    pub fn write(&self, folder: &Path) -> io::Result<PathBuf> {
        let Self { name, url, ahead, keys } = self;
        let file = folder.join(format!("{name}.json"));
        let orders = json!({ "name": name, "url": url, "ahead": ahead.as_secs(), "keys": keys });
        std::fs::write(&file, orders.to_string())?;
        Ok(file)
    }

    fn read(file: &Path) -> Option<Self> {
        let orders: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let pair = |pair: &Value| Some((text(&pair[0])?, text(&pair[1])?));
        Some(Self {
            name: text(&orders["name"])?,
            url: text(&orders["url"])?,
            ahead: Duration::from_secs(orders["ahead"].as_u64()?),
            keys: orders["keys"].as_array()?.iter().map(pair).collect::<Option<_>>()?,
        })
    }
}

/// Follows the orders in a file, until its input ends. Logs go beside it.
///
/// # Panics
/// When it cannot begin, or reads something that no reader may: its logs are then not whole.
pub fn run(file: &Path) {
    // Also while it is stopped: a signal from within the conductor would not reach it then.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("ends with the conductor");
    let orders = Orders::read(file).expect("orders");
    let folder = file.parent().expect("a folder");
    let wall = SteppedWall::new();
    let subjects: Vec<_> =
        orders.keys.iter().map(|(key, token)| Subject::new(&orders.url, key, token, &wall)).collect();
    println!("ready");

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = Log::create(&log_file(folder, &orders.name, thread)).expect("a log");
            let (subjects, ended) = (&subjects, &ended);
            scope.spawn(move || read_on(subjects, log, orders.ahead, ended).expect("a log"));
        }
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let millis: i64 = line.parse().expect("milliseconds");
            wall.step(millis * 1_000_000);
        }
        ended.store(true, Ordering::SeqCst);
    });
}

fn read_on(subjects: &[Subject], mut log: Log, ahead: Duration, ended: &AtomicBool) -> io::Result<()> {
    while !ended.load(Ordering::SeqCst) {
        for (account, subject) in (0..).zip(subjects) {
            let begin = now(ahead);
            let opened = subject.open();
            let end = now(ahead);
            log.add(account, Read { begin, end, outcome: outcome(opened) })?;
        }
        thread::sleep(PACE);
    }
    log.end()
}

fn outcome(opened: Result<Vec<u8>, Error>) -> Outcome {
    match opened {
        Ok(plain) if plain == BLOCK => Outcome::Released,
        Ok(other) => panic!("what was opened is not what was sealed: {other:?}"),
        Err(error) => match error.kind() {
            ErrorKind::Revoked => Outcome::Revoked,
            ErrorKind::Unavailable => Outcome::Unavailable,
            ErrorKind::NotReady => Outcome::NotReady,
            _ => panic!("no reason to fail: {error}"),
        },
    }
}

/// An account in a cache of its own, so that it learns nothing from another.
struct Subject {
    _cache: AekCache,
    account: Account,
    id: BlockId,
    sealed: Vec<u8>,
}

impl Subject {
    fn new(url: &str, key: &str, token: &str, wall: &SteppedWall) -> Self {
        let login = Login::token(SecretText::new(token));
        let kms: Arc<dyn KeyProvider> =
            Arc::new(VaultTransit::builder(url, login).build().expect("a provider"));
        let builder = AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE);
        let cache =
            builder.outage_grace(OutageGrace::For(GRACE)).stepped_wall(wall).build().expect("a cache");
        let account =
            cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest(key))).expect("a fit KEK");
        let id = BlockId::new(ObjectId::random(), 0);
        let sealed = account.seal(id, Aad::EMPTY, BLOCK).expect("a lease");
        Self { _cache: cache, account, id, sealed }
    }

    fn open(&self) -> Result<Vec<u8>, Error> {
        self.account.open(self.id, Aad::EMPTY, &self.sealed)
    }
}

/// Between two rounds of a thread over all accounts.
const PACE: Duration = Duration::from_millis(5);
const BLOCK: &[u8] = b"a block";
