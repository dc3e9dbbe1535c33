//! 20 processes share an account: OpenBao as its KMS, its record on an object store server. KEK and AEK are rotated under load, processes are
//! killed at random, and old KEK versions are retired at the time that was stated (contracts E1 to E4, D12).
//!
//! No process may be told that the key was revoked, no block may be unreadable, and none that was acknowledged may be missing. Each process
//! notes what it was told by one write to a log of its own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider};
use strongroom::store::ObjectRecordStore;
use strongroom::{
    AccountId, AccountSpec, AekCache, ErrorKind, Expect, ObjectId, RecordStore, Retire, RotateTo,
};
use strongroom_kms_tests::openbao::OpenBao;
use strongroom_stores_tests::crowd::{Blocks, Process, logs};
use strongroom_stores_tests::{s3, s3_store};

const PROCESSES: usize = 20;
const BETWEEN_KILLS: Duration = Duration::from_millis(500);
const BETWEEN_VERSIONS: Duration = Duration::from_secs(4);
/// By when each one has to have come to an end by itself, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const FOLDER: &str = "STRONGROOM_MACHINES_FOLDER";
const ACCOUNT: &str = "STRONGROOM_MACHINES_ACCOUNT";
const S3: &str = "STRONGROOM_MACHINES_S3";
const BAO: &str = "STRONGROOM_MACHINES_BAO";
const TOKEN: &str = "STRONGROOM_MACHINES_TOKEN";
/// For how many seconds there is load; 150 unless set: an old version is retired after 71 s, and a second generation is used after 131 s.
const SECONDS: &str = "STRONGROOM_MACHINES_SECONDS";
const LOAD: u64 = 150;

#[test]
fn e3_e4_20_machines_under_rotation_of_kek_and_aek_lose_nothing_and_are_never_told_of_a_revocation() {
    let seconds = std::env::var(SECONDS).map_or(LOAD, |seconds| seconds.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let blocks = Blocks::below(folder);
    let bao = OpenBao::start();
    bao.create_key("orders");
    bao.allow("orders-user", "orders");
    let token = bao.token_for("orders-user", &serde_json::json!({}));
    let (server, _store) = s3();
    let (cache, id) = (cache(), AccountId::random());
    let spec = AccountSpec::new(id, kms(&bao.url(), &token), Kek::latest("orders"));
    let account = cache.create(spec.store(records(&server.url()))).expect("an account");
    blocks.seal(&account);

    let (id_text, s3_url, bao_url) = (id.to_string(), server.url(), bao.url());
    let texts = [(ACCOUNT, &id_text), (S3, &s3_url), (BAO, &bao_url), (TOKEN, &token)];
    let mut variables = vec![(FOLDER, folder.as_os_str())];
    variables.extend(texts.map(|(name, text)| (name, OsStr::new(text))));
    let machine = || Process::start("one_of_the_machines", &variables);
    let mut machines: Vec<Process> = (0..PROCESSES).map(|_| machine()).collect();
    let begun = Instant::now();
    let (mut kills, mut versions, mut generations, mut retired) = (0, 1_u64, 1, 0);
    let mut next_version = begun;
    while begun.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(BETWEEN_KILLS);
        let victim = &mut machines[usize::from(AccountId::random().as_bytes()[0]) % PROCESSES];
        assert!(victim.runs(), "a process has ended by itself");
        *victim = machine();
        kills += 1;
        if Instant::now() >= next_version {
            bao.rotate_key("orders");
            versions += 1;
            next_version = Instant::now() + BETWEEN_VERSIONS;
        }
        match account.rotate_aek() {
            Ok(_) => generations += 1,
            // Not active yet; or somebody rotated the KEK meanwhile.
            Err(error) if matches!(error.kind(), ErrorKind::Misuse | ErrorKind::Conflict) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Unavailable) => {}
            Err(error) => panic!("{error}"),
        }
        // The customer does what was stated, when it was stated, and not later.
        let safe = Told::of(folder).safe.into_iter().filter(|(_, from)| *from <= now()).map(|(safe, _)| safe);
        if let Some(least) = safe.max().filter(|least| *least > retired) {
            bao.configure_key(
                "orders",
                &serde_json::json!({ "min_decryption_version": least, "min_encryption_version": least }),
            );
            retired = least;
        }
    }
    File::create(folder.join("stop")).expect("a file");
    let stopped = Instant::now();
    for machine in &mut machines {
        machine.wait(stopped + PATIENCE);
    }

    // Another machine, which knows nothing: all of it opens.
    let fresh = self::cache();
    let expect = Expect::account(id).kek(kms(&bao.url(), &token), "orders");
    let reader = fresh.attach_stored(records(&server.url()), expect).expect("is attached");
    reader.wait_ready(Duration::from_secs(20)).expect("is ready");
    let told = Told::of(folder);
    let mut under: BTreeMap<u32, usize> = BTreeMap::new();
    for name in &told.blocks {
        *under.entry(blocks.open(&reader, name).number()).or_default() += 1;
    }
    println!(
        "measured for {seconds} s: {PROCESSES} processes, {kills} kills, {versions} KEK versions, those before {retired} retired, {} \
         rotations of the KEK acknowledged, {} conflicts, {generations} generations, {} blocks acknowledged, by generation {under:?}",
        told.rotations,
        told.conflicts,
        told.blocks.len(),
    );
    assert!(told.blocks.len() > PROCESSES && told.rotations > 0, "there was load");
    assert!(seconds < 90 || retired > 1, "a version was to be retired");
    assert!(seconds < 150 || under.len() > 1, "a second generation was to be used");
    assert!(generations > 1, "an AEK was to be rotated");
}

/// What all processes were told.
#[derive(Default)]
struct Told {
    blocks: Vec<String>,
    rotations: u64,
    conflicts: u64,
    /// KEK versions, and from when those before them can be retired, in seconds since 1970.
    safe: Vec<(u64, u64)>,
}

impl Told {
    fn of(folder: &Path) -> Self {
        let mut told = Self::default();
        for log in logs(folder) {
            for line in log.lines() {
                match line.split(' ').collect::<Vec<_>>()[..] {
                    ["block", name] => told.blocks.push(name.to_owned()),
                    ["rotated", version, from] => {
                        told.rotations += 1;
                        told.safe.push((version.parse().expect("a number"), from.parse().expect("a number")));
                    }
                    ["conflict"] => told.conflicts += 1,
                    _ => panic!("{line}"),
                }
            }
        }
        told
    }
}

/// Does nothing unless started by the test above.
#[test]
fn one_of_the_machines() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let given = |name| std::env::var(name).expect("is given");
    let id = given(ACCOUNT).parse().expect("an account");
    let (cache, blocks) = (cache(), Blocks::below(&folder));
    let expect = Expect::account(id).kek(kms(&given(BAO), &given(TOKEN)), "orders");
    let account = cache.attach_stored(records(&given(S3)), expect).expect("is attached");
    account.wait_ready(PATIENCE).expect("is ready");
    let path = folder.join(format!("{}.log", ObjectId::random()));
    let mut log = File::options().append(true).create(true).open(path).expect("a log");
    let mut note = |line: String| log.write_all(format!("{line}\n").as_bytes()).expect("is noted");
    let stop = folder.join("stop");
    let mut own = Vec::new();
    loop {
        let stopped = stop.exists();
        // Fails with whatever is no valid lease: nobody has taken anything away.
        let name = blocks.seal(&account);
        note(format!("block {name}"));
        own.push(name);
        for name in &own {
            blocks.open(&account, name);
        }
        own.truncate(20);
        // What is known before may be older than what the rotation finds: it leads to the version after it, or to a later one.
        let version = account.record().kek_version().as_str().parse::<u64>().expect("a number") + 1;
        match account.rotate_kek(RotateTo::Latest) {
            Ok(Retire::SafeAfter(from)) => {
                let from = from.duration_since(UNIX_EPOCH).expect("is later").as_secs() + 1;
                note(format!("rotated {version} {from}"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Conflict => note("conflict".to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Unavailable) => {}
            Err(error) => panic!("{error}"),
        }
        if stopped {
            break;
        }
        thread::sleep(Duration::from_millis(300));
    }
}

fn kms(url: &str, token: &str) -> Arc<dyn KeyProvider> {
    let login = Login::token(SecretText::new(token.to_owned()));
    Arc::new(VaultTransit::builder(url, login).build().expect("a provider"))
}

fn records(s3: &str) -> Arc<dyn RecordStore> {
    let store = ObjectRecordStore::with_own_runtime(s3_store(s3), "records").expect("a store");
    Arc::new(store.call_deadline(Duration::from_secs(10)).expect("in range"))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("is later").as_secs()
}

fn cache() -> AekCache {
    AekCache::builder()
        .refresh_every(Duration::from_secs(6))
        .call_deadline(Duration::from_secs(5))
        .build()
        .expect("a cache")
}
