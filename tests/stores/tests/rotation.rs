//! 20 processes share an account under KEK rotation, and are killed at random: nothing that was acknowledged is lost, and
//! nobody is wedged (contracts G2, E3, E10).
//!
//! Each process notes what it begins and what it was told, by one write to a log of its own. The record's sequence counts the
//! changes that came to be: those that were acknowledged, and at most those of which nobody was told.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::store::ObjectRecordStore;
use strongroom::{
    AccountId, AccountRecord, AccountSpec, AekCache, ErrorKind, Expect, FileRecordStore, Loaded, ObjectId,
    RecordArchive, RecordStore, Retire, RotateTo,
};
use strongroom_stores_tests::crowd::{Blocks, Process, logs};
use strongroom_stores_tests::{s3, s3_store};

const PROCESSES: usize = 20;
/// For how long processes are killed and started again.
const CHAOS: Duration = Duration::from_secs(8);
const BETWEEN_KILLS: Duration = Duration::from_millis(100);
/// By when each one has to have come to an end by itself, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const FOLDER: &str = "STRONGROOM_ROTATION_FOLDER";
const ACCOUNT: &str = "STRONGROOM_ROTATION_ACCOUNT";
const S3: &str = "STRONGROOM_ROTATION_S3";

/// One after the other: each has 20 processes of its own.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn g2_e3_20_processes_on_files_under_rotation_lose_nothing_and_wedge_never() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run("files", None);
}

#[test]
fn g2_e3_20_processes_on_an_object_store_under_rotation_lose_nothing_and_wedge_never() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, _store) = s3();
    run("an object store", Some(&server.url()));
}

fn run(over: &str, s3: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let blocks = Blocks::below(folder);
    let kms = Arc::new(LocalKms::create(folder.join("kms.json")).expect("a KMS"));
    kms.create_key("orders", KeyOptions::default()).expect("a key");
    let (cache, id) = (cache(), AccountId::random());
    let spec = AccountSpec::new(id, kms.clone(), Kek::latest("orders"));
    let account = cache.create(spec.store(store(folder, s3))).expect("an account");
    blocks.seal(&account);

    let id_text = id.to_string();
    let mut variables = vec![(FOLDER, folder.as_os_str()), (ACCOUNT, OsStr::new(&id_text))];
    variables.extend(s3.map(|url| (S3, OsStr::new(url))));
    let start = || Process::start("one_of_the_processes", &variables);
    let mut processes: Vec<Process> = (0..PROCESSES).map(|_| start()).collect();
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < CHAOS {
        thread::sleep(BETWEEN_KILLS);
        let random = AccountId::random().as_bytes()[0];
        let victim = &mut processes[usize::from(random) % PROCESSES];
        assert!(victim.runs(), "a process has ended by itself");
        *victim = start();
        kills += 1;
    }
    File::create(folder.join("stop")).expect("a file");
    let stopped = Instant::now();
    for process in &mut processes {
        process.wait(stopped + PATIENCE);
    }

    let told = Told::of(folder);
    let archive = store(folder, s3);
    let Loaded::Found { bytes, .. } = archive.load(id, None).expect("is asked") else { panic!("a record") };
    let record = AccountRecord::parse(&bytes).expect("a record");
    let changes = record.sequence().number() - 1;
    println!(
        "measured over {over}: {changes} changes, {told:?}, {kills} kills, ended in {:?}",
        stopped.elapsed()
    );
    assert!(told.acknowledged >= 5 && told.unknown + told.conflicts > 0, "there was a race: {told:?}");
    assert!(told.acknowledged <= changes, "a change that was acknowledged is lost");
    assert!(changes <= told.acknowledged + told.unknown, "a change that nobody has made");
    let kept: BTreeSet<u64> =
        archive.history(id).expect("is listed").into_iter().filter_map(sequence).collect();
    // Of the 32 that are kept, one may be of a process that was killed before it came to be.
    for number in record.sequence().number().saturating_sub(29).max(1)..=record.sequence().number() {
        assert!(kept.contains(&number), "the record of sequence {number} is not kept: {kept:?}");
    }

    // Another machine, which knows nothing: all of it opens.
    let fresh = AekCache::builder().build().expect("a cache");
    let expect = Expect::account(id).kek(kms.clone(), "orders").least_sequence(record.sequence());
    let account = fresh.attach_stored(store(folder, s3), expect).expect("is attached");
    account.wait_ready(Duration::from_secs(10)).expect("is ready");
    assert!(blocks.open_all(&account) > PROCESSES);
    let expect = move |id| Some(Expect::account(id).kek(kms.clone(), "orders"));
    let report = fresh.verify_all(archive, expect, 100).expect("a pace").report().expect("is listed");
    assert_eq!((report.accounts, report.authentic), (1, 1), "{report:?}");
}

fn sequence(kept: strongroom::KeptRecord) -> Option<u64> {
    kept.sequence().map(strongroom::Sequence::number)
}

/// What all processes were told.
#[derive(Debug, Default)]
struct Told {
    acknowledged: u64,
    conflicts: u64,
    /// Begun, and then the process was killed, or told that nobody knows.
    unknown: u64,
}

impl Told {
    fn of(folder: &Path) -> Self {
        let mut told = Self::default();
        for log in logs(folder) {
            let mut begun = 0;
            for line in log.lines() {
                match line {
                    "begun" => begun += 1,
                    "acknowledged" => told.acknowledged += 1,
                    "conflict" => told.conflicts += 1,
                    "current" => {}
                    "unknown" => told.unknown += 1,
                    other => panic!("{other}"),
                }
                begun -= i32::from(line != "begun");
            }
            assert!((0..=1).contains(&begun), "{log}");
            told.unknown += u64::try_from(begun).expect("is 0 or 1");
        }
        told
    }
}

/// Does nothing unless started by the tests above.
#[test]
fn one_of_the_processes() {
    let (Some(folder), Ok(id)) = (std::env::var_os(FOLDER), std::env::var(ACCOUNT)) else { return };
    let (folder, id) = (PathBuf::from(folder), id.parse().expect("an account"));
    let (s3, blocks) = (std::env::var(S3).ok(), Blocks::below(&folder));
    let kms = Arc::new(LocalKms::open(folder.join("kms.json")).expect("a KMS"));
    let cache = cache();
    let expect = Expect::account(id).kek(kms.clone(), "orders");
    let records: Arc<dyn RecordStore> = store(&folder, s3.as_deref());
    let account = cache.attach_stored(records, expect).expect("is attached");
    account.wait_ready(Duration::from_secs(20)).expect("is ready");
    let path = folder.join(format!("{}.log", ObjectId::random()));
    let mut log = File::options().append(true).create(true).open(path).expect("a log");
    let mut note = |line: &str| log.write_all(format!("{line}\n").as_bytes()).expect("is noted");
    let stop = folder.join("stop");
    let mut rounds = 0;
    loop {
        let stopped = stop.exists();
        if !stopped {
            blocks.seal(&account);
            kms.rotate_key("orders").expect("a new version");
        }
        note("begun");
        let outcome = account.rotate_kek(RotateTo::Latest);
        let done = outcome.is_ok();
        note(match outcome {
            Ok(Retire::SafeAfter(_)) => "acknowledged",
            Ok(_) => "current",
            Err(error) if error.kind() == ErrorKind::Conflict => "conflict",
            Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Unavailable) => "unknown",
            Err(error) => panic!("{error}"),
        });
        // The last rotation of each has to succeed.
        if stopped && done {
            break;
        }
        rounds += u32::from(stopped);
        assert!(rounds < 200, "wedged");
        thread::sleep(Duration::from_millis(50));
    }
    blocks.open_all(&account);
}

fn store(folder: &Path, s3: Option<&str>) -> Arc<dyn RecordArchive> {
    match s3 {
        None => Arc::new(FileRecordStore::open(folder.join("records")).expect("a store")),
        Some(url) => {
            let store = ObjectRecordStore::with_own_runtime(s3_store(url), "records").expect("a store");
            Arc::new(store.call_deadline(Duration::from_secs(10)).expect("in range"))
        }
    }
}

/// One that makes no change that is not asked for: it looks for newer versions at its second refresh, and that is later.
fn cache() -> AekCache {
    AekCache::builder()
        .refresh_every(Duration::from_secs(60))
        .call_deadline(Duration::from_secs(5))
        .build()
        .expect("a cache")
}
