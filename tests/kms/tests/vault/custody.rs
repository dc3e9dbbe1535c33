//! Two OpenBao servers that hold one account between them, in real time (contract A7): one that stands in for the other, and two
//! that both have to agree.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Error, ErrorKind, Expect, FileRecordStore,
    ObjectId, OutageGrace, Refusal, Status, UnavailableCause,
};
use strongroom_kms_tests::openbao::OpenBao;
use strongroom_kms_tests::proxy::{Mode, Proxy};
use strongroom_kms_tests::wait::wait_until;

/// A server with a key and an AppRole that may use it, behind a proxy.
struct Server {
    bao: OpenBao,
    proxy: Proxy,
    login: Login,
}

impl Server {
    fn start() -> Self {
        let bao = OpenBao::start();
        bao.create_key(KEY);
        bao.allow(POLICY, KEY);
        let role_id = bao.app_role("orders", POLICY, &json!({}));
        let login = Login::app_role(role_id, SecretText::new(bao.secret_id("orders")));
        Self { proxy: Proxy::before(bao.address()), bao, login }
    }

    /// Both at once.
    fn two() -> [Self; 2] {
        thread::scope(|scope| {
            [scope.spawn(Self::start), scope.spawn(Self::start)].map(|started| started.join().unwrap())
        })
    }

    fn connect(&self) -> Arc<dyn KeyProvider> {
        Arc::new(VaultTransit::builder(self.proxy.url(), self.login.clone()).build().unwrap())
    }

    fn says(&self, mode: Mode) -> Instant {
        self.proxy.set(mode);
        Instant::now()
    }
}

/// An account in a cache of its own, as in a process of its own: all that two of them share is the directory of records.
struct Process {
    cache: AekCache,
    account: Account,
}

impl Process {
    fn cache(grace: OutageGrace) -> AekCache {
        let builder = AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE);
        builder.outage_grace(grace).build().unwrap()
    }

    fn status(&self) -> Status {
        self.account.status()
    }

    fn read(&self, block: &Block) -> Result<(), Error> {
        let plain = self.account.open(block.id, Aad::EMPTY, &block.sealed)?;
        assert_eq!(plain, PLAIN);
        Ok(())
    }

    /// How long reads went on after `since`, until they were refused as revoked.
    fn is_revoked(&self, block: &Block, since: Instant, bound: Duration, refusal: Refusal) -> Duration {
        let left = (bound + MEASURING).saturating_sub(since.elapsed());
        wait_until(left, || self.read(block).is_err()).expect("no read is served beyond the bound");
        let stale = since.elapsed();
        // The record is looked at before the refusal counts.
        let counts = || self.status() == Status::Revoked(refusal);
        wait_until(CALL_DEADLINE + MEASURING, counts).unwrap_or_else(|| panic!("{:?}", self.status()));
        assert_eq!(self.read(block).unwrap_err().kind(), ErrorKind::Revoked);
        stale
    }

    fn comes_back(&self, block: &Block, since: Instant) -> Duration {
        let left = (RECOVERY + MEASURING).saturating_sub(since.elapsed());
        wait_until(left, || self.read(block).is_ok()).expect("reads come back by themselves");
        since.elapsed()
    }
}

struct Block {
    id: BlockId,
    sealed: Vec<u8>,
}

impl Block {
    fn sealed_by(account: &Account) -> Self {
        let id = BlockId::new(ObjectId::random(), 0);
        Self { id, sealed: account.seal(id, Aad::EMPTY, PLAIN).unwrap() }
    }
}

fn records(folder: &Path) -> Arc<FileRecordStore> {
    Arc::new(FileRecordStore::open(folder.join("records")).unwrap())
}

fn measured(what: &str, took: Duration, bound: Duration) {
    println!("measured | {what:<60} | {:6.2} s | bound {:5.2} s", took.as_secs_f64(), bound.as_secs_f64());
}

#[test]
fn a7_r8_a_second_server_stands_in_while_the_first_is_silent_and_never_after_it_refused() {
    let [first, second] = Server::two();
    let folder = tempfile::tempdir().unwrap();
    let id = AccountId::random();
    let kek = || Kek::latest(KEY);
    let cache = Process::cache(OutageGrace::None);
    let spec = AccountSpec::new(id, first.connect(), kek()).store(records(folder.path()));
    let account = cache.create(spec.failover(second.connect(), kek(), Duration::from_secs(3600))).unwrap();
    let here = Process { cache, account };
    let block = Block::sealed_by(&here.account);
    let elsewhere = || {
        let cache = Process::cache(OutageGrace::None);
        let expect = Expect::account(id).kek(first.connect(), KEY).failover_kek(second.connect(), KEY);
        let account = cache.attach_stored(records(folder.path()), expect).unwrap();
        Process { cache, account }
    };

    // Without grace of its own the lease would end with F: the second one carries it on, and beyond.
    let silent = first.says(Mode::Hang);
    let fresh_for = here.cache.fresh_for();
    while silent.elapsed() < fresh_for + Duration::from_secs(3) {
        here.read(&block).unwrap_or_else(|error| panic!("{error} after {:?}", silent.elapsed()));
        thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(here.status(), Status::Grace { .. }), "{:?}", here.status());
    let there = elsewhere();
    let begun = Instant::now();
    let ready = CALL_DEADLINE * 3 + MEASURING;
    wait_until(ready, || there.read(&block).is_ok()).expect("a process that starts in the outage reads");
    measured("a process that started in silence reads", begun.elapsed(), ready);
    assert!(matches!(there.status(), Status::Grace { .. }), "what stands in is never fresh");

    // The customer has taken the key away at the first one, which is heard again.
    first.bao.deny(POLICY);
    let heard = first.says(Mode::Pass);
    let bound = here.cache.staleness_bound() + PROBES;
    for (process, name) in [(&here, "here"), (&there, "elsewhere")] {
        let stale = process.is_revoked(&block, heard, bound, Refusal::PermissionRemoved);
        measured(&format!("refused once the first one was heard to refuse, {name}"), stale, bound);
    }

    // It falls silent again: the second one would answer, and is asked by nobody, in this process or another.
    first.says(Mode::Hang);
    let late = elsewhere();
    let barred = Instant::now();
    while barred.elapsed() < Duration::from_secs(7) {
        for process in [&here, &there, &late] {
            process.read(&block).expect_err("the second one is barred");
        }
        thread::sleep(Duration::from_millis(10));
    }
    for process in [&here, &there] {
        assert_eq!(process.status(), Status::Revoked(Refusal::PermissionRemoved));
    }

    // Access returns, and the data by itself.
    first.bao.allow(POLICY, KEY);
    let back = first.says(Mode::Pass);
    for process in [&here, &there, &late] {
        measured("back after access returned", process.comes_back(&block, back), RECOVERY);
        let fresh = || matches!(process.status(), Status::Fresh { .. });
        wait_until(RECOVERY, fresh).expect("by the first one");
    }
}

/// An account that both servers hold.
fn joint([first, second]: &[Server; 2], folder: &Path, grace: OutageGrace) -> Process {
    let cache = Process::cache(grace);
    let spec =
        AccountSpec::new(AccountId::random(), first.connect(), Kek::latest(KEY)).store(records(folder));
    let account = cache.create(spec.joint_with(second.connect(), Kek::latest(KEY))).unwrap();
    Process { cache, account }
}

#[test]
fn a7_r8_r10_under_joint_custody_either_server_revokes() {
    let servers = Server::two();
    let folder = tempfile::tempdir().unwrap();
    let process = joint(&servers, folder.path(), OutageGrace::DEFAULT);
    let block = Block::sealed_by(&process.account);
    let bound = process.cache.staleness_bound();
    let [first, second] = &servers;

    // The version that wrapped the first one's share is no longer allowed.
    first.bao.rotate_key(KEY);
    let version = |least: u32| first.bao.configure_key(KEY, &json!({ "min_decryption_version": least }));
    version(2);
    let stale = process.is_revoked(&block, Instant::now(), bound, Refusal::KeyDisabled);
    measured("refused after the first one's share was taken away", stale, bound);
    version(1);
    measured("back", process.comes_back(&block, Instant::now()), RECOVERY);

    second.bao.deny(POLICY);
    let stale = process.is_revoked(&block, Instant::now(), bound, Refusal::PermissionRemoved);
    measured("refused after the second one's share was taken away", stale, bound);
    second.bao.allow(POLICY, KEY);
    measured("back", process.comes_back(&block, Instant::now()), RECOVERY);
}

#[test]
fn a7_r9_under_joint_custody_the_silence_of_one_is_silence() {
    let servers = Server::two();
    let folder = tempfile::tempdir().unwrap();
    let grace = Duration::from_secs(4);
    let process = joint(&servers, folder.path(), OutageGrace::For(grace));
    let block = Block::sealed_by(&process.account);
    let [_, second] = &servers;

    // Grace, as of one KMS that is silent, and then its end. Never a refusal, whatever the other one says.
    let silent = second.says(Mode::Hang);
    let (fresh_for, usable_for) = (process.cache.fresh_for(), process.cache.usable_for());
    assert_eq!(usable_for, fresh_for + grace);
    let in_grace = || {
        process.read(&block).expect("silence alone ends no lease before its time");
        matches!(process.status(), Status::Grace { .. })
    };
    wait_until(fresh_for + MEASURING, in_grace).expect("grace begins by F");
    let left = (usable_for + MEASURING).saturating_sub(silent.elapsed());
    wait_until(left, || process.read(&block).is_err()).expect("no read is served beyond F + G");
    measured("unusable after the second one fell silent", silent.elapsed(), usable_for);
    let unavailable = || process.status() == Status::Unavailable(UnavailableCause::Silent);
    wait_until(MEASURING, unavailable).unwrap_or_else(|| panic!("{:?}", process.status()));
    let heard = second.says(Mode::Pass);
    measured("back after its silence", process.comes_back(&block, heard), RECOVERY);
}

const KEY: &str = "orders";
const POLICY: &str = "orders";
const PLAIN: &[u8] = b"a block";
/// r and c. The interval is the shortest that is allowed.
const REFRESH: Duration = Duration::from_secs(6);
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// A silent endpoint is probed at this distance: so much later is it heard again.
const PROBES: Duration = Duration::from_secs(6);
/// By when access that returned is noticed: the next probe of a silent endpoint, the account's own, and an answer.
const RECOVERY: Duration = Duration::from_secs(6 + 6 + 2);
/// What a busy machine adds.
const MEASURING: Duration = Duration::from_secs(2);
