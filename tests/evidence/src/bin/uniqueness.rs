//! Whether any two writes anywhere ever had the same R: processes that fork from one state, that are killed in the
//! midst, and that start again, all seal the same places under the same generation (goal R13).
//!
//! `uniqueness SEALS`. Each process appends the R of every block that it sealed to a file of its own; a killed one leaves
//! what it had written by then.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
use strongroom::{Aad, Account, AccountId, AccountRecord, AccountSpec, AekCache, BlockId, Expect, ObjectId};
use strongroom_evidence::fork::{Child, forked};
use strongroom_evidence::report::report;

/// How many children each state is copied to. Half of them fork once more.
const CHILDREN: u64 = 6;
const GRANDCHILDREN: u64 = CHILDREN / 2;
/// Seals of one process from one state.
const SHARE: u64 = 100_000;
/// Restarted processes, every other of which is killed.
const RESTARTS: u64 = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["again", folder, log, seals] => again(Path::new(folder), Path::new(log), number(seals)),
        [seals] => return conduct(number(seals)),
        _ => panic!("uniqueness SEALS"),
    }
    ExitCode::SUCCESS
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn conduct(seals: u64) -> ExitCode {
    let folder = tempfile::tempdir().expect("a writable temporary folder");
    let folder = folder.path();
    let account = create(folder);
    let share = SHARE.min(seals / 20);
    let mut logs = Logs { folder: folder.to_owned(), next: 0 };

    let mut forks = 0;
    let restarted = restarts(folder, &mut logs, share);
    // The parent goes on from the state that its children began with.
    while forks * share < seals {
        forks += CHILDREN + GRANDCHILDREN + 1;
        from_one_state(&account, &mut logs, share);
    }
    // Threads have a generator each.
    thread::scope(|scope| {
        for log in [logs.next(), logs.next()] {
            scope.spawn(|| seal_to(&account, &mut open(log), share));
        }
    });

    let mut all = logs.read();
    let tried = all.len();
    // By what the generator gave alone, in front of the clock: a repetition shows without the same nanosecond too.
    all.sort_unstable_by_key(|r| (r[1], r[2], r[0]));
    let repeats = all.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let timeless = all.windows(2).filter(|pair| pair[0][1..] == pair[1][1..]).count();
    report("R13", "seals of the same places", tried, ">=", seals);
    report("R13", "by processes forked from a state that others go on from", forks, ">=", CHILDREN);
    report("R13", "by processes killed or started again", restarted, "=", RESTARTS);
    report("R13", "repeats of R", repeats, "=", 0);
    report("R13", "repeats but for the clock", timeless, "=", 0);
    if repeats + timeless == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn create(folder: &Path) -> Account {
    let kms = Arc::new(LocalKms::create(folder.join("kms.json")).expect("a new file"));
    kms.create_key("r13", KeyOptions::default()).expect("a new key");
    let cache = AekCache::builder().build().expect("threads");
    let spec = AccountSpec::new(AccountId::from_bytes([13; 16]), kms, Kek::latest("r13"));
    let account = cache.create(spec).expect("the KMS answers");
    fs::write(folder.join("record"), account.record().to_bytes()).expect("writable");
    account
}

/// Children, their children and this process seal on from one state of the generator, at the same time.
fn from_one_state(account: &Account, logs: &mut Logs, share: u64) {
    // The generator gives what it has in store before it makes more, so the state that is copied is in the middle.
    account.permit().expect("a lease").seal(place(0), Aad::EMPTY, &[]).expect("seals");
    let children: Vec<Child> = (0..CHILDREN)
        .map(|number| {
            let (own, childs) = (logs.next(), (number < GRANDCHILDREN).then(|| logs.next()));
            forked(|| {
                let mut log = open(own);
                seal_to(account, &mut log, share / 2);
                let child = childs.map(|log| forked(|| seal_to(account, &mut open(log), share)));
                seal_to(account, &mut log, share - share / 2);
                child.into_iter().for_each(Child::wait);
            })
        })
        .collect();
    seal_to(account, &mut open(logs.next()), share);
    // They sealed without an error: a forked child can, as long as its lease lasts.
    children.into_iter().for_each(Child::wait);
}

/// Processes that attach the account from its record, as after a crash; some crash again.
#[expect(clippy::disallowed_methods, reason = "it waits for a real process")]
fn restarts(folder: &Path, logs: &mut Logs, share: u64) -> u64 {
    let program = std::env::current_exe().expect("has a path");
    for number in 0..RESTARTS {
        let log = logs.next();
        let killed = number % 2 == 0;
        // One that is killed would go on for ever.
        let seals = if killed { u64::MAX } else { share };
        let mut process = Command::new(&program)
            .arg("again")
            .args([folder, &log])
            .arg(seals.to_string())
            .spawn()
            .expect("starts");
        if killed {
            while fs::metadata(&log).map_or(0, |log| log.len()) < 24 * share {
                assert!(process.try_wait().expect("is ours").is_none(), "it seals until it is killed");
                thread::sleep(Duration::from_millis(5));
            }
            process.kill().expect("is ours");
        }
        assert_eq!(process.wait().expect("is ours").success(), !killed);
    }
    RESTARTS
}

fn again(folder: &Path, log: &Path, seals: u64) {
    let kms: Arc<dyn KeyProvider> = Arc::new(LocalKms::open(folder.join("kms.json")).expect("is there"));
    let record = AccountRecord::parse(&fs::read(folder.join("record")).expect("is there")).expect("a record");
    let expect = Expect::account(record.account()).kek(kms, "r13");
    let cache = AekCache::builder().build().expect("threads");
    let account = cache.attach(record, expect).expect("is expected");
    account.ready().wait_timeout(Duration::from_secs(10)).expect("the KMS answers");
    seal_to(&account, &mut open(log.to_owned()), seals);
}

/// Seals the first places there are, and writes down each R.
fn seal_to(account: &Account, log: &mut BufWriter<File>, seals: u64) {
    let mut sealed = BytesMut::new();
    for index in 0..seals {
        sealed.clear();
        let permit = account.permit().expect("a lease");
        permit.seal_append(place(index), Aad::EMPTY, &[], &mut sealed).expect("seals");
        log.write_all(&sealed[8..32]).expect("writable");
    }
    log.flush().expect("writable");
}

fn place(index: u64) -> BlockId {
    BlockId::new(ObjectId::from_bytes([13; 16]), index)
}

/// A file for each process.
struct Logs {
    folder: PathBuf,
    next: u64,
}

impl Logs {
    fn next(&mut self) -> PathBuf {
        self.next += 1;
        self.path(self.next)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.log"))
    }

    /// Every R, as three words; what a killed process had begun to write is left out.
    fn read(&self) -> Vec<[u64; 3]> {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let mut all = Vec::new();
        for number in 1..=self.next {
            let log = fs::read(self.path(number)).expect("every process wrote one");
            assert!(log.len() >= 24, "every process sealed something");
            all.extend(
                log.as_chunks::<24>().0.iter().map(|r| [word(&r[..8]), word(&r[8..16]), word(&r[16..])]),
            );
        }
        all
    }
}

fn open(log: PathBuf) -> BufWriter<File> {
    BufWriter::new(File::create(log).expect("writable"))
}
