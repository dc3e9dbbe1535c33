//! A history of two accounts in which the Nth call of the KMS or of the record store goes wrong, for every N and in every way
//! (R14): nothing acknowledged is lost, what was sealed opens or is refused with a reason, and the accounts go on by themselves.
//!
//! On virtual time a control call hears of an answer at once, however late it is; only a refresh meets lateness. A late
//! answer counts as a fault where it was given up for it.

use std::sync::Arc;

use strongroom::provider::{Kek, KekVersion};
use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, AekCache, Error, ErrorKind, Loaded, OutageGrace,
    RecordStore, Refusal, RotateTo, Sequence,
};

use crate::common::{Block, KEK, Store, World, secs, usable};
use crate::evidence::{count, report};

const FOLLOWER: AccountId = AccountId::from_bytes([0xF0; 16]);
const PINNED: AccountId = AccountId::from_bytes([0xB0; 16]);

struct History {
    world: World,
    store: Arc<Store>,
    blocks: Vec<(AccountId, Block)>,
    acknowledged: Vec<(AccountId, Sequence, u32)>,
}

impl History {
    fn new() -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        let world = World::beside(&clock, kms, secs(60), OutageGrace::DEFAULT);
        Self { world, store: Store::new(), blocks: Vec::new(), acknowledged: Vec::new() }
    }

    /// Lives it. A failed control call is made again, as its documentation says; all else has to come by itself.
    fn live(&mut self) {
        let follower = self.create(FOLLOWER, Kek::latest(KEK));
        self.seal(&follower);
        self.pass(130, &[&follower]);
        let second = self.world.kms.add_version(KEK);
        self.rotate(&follower);
        let pinned = self.create(PINNED, Kek::pinned(KEK, second.clone()));
        let both = [&follower, &pinned];
        both.iter().for_each(|account| self.seal(account));
        self.world.kms.add_version(KEK);
        // Longer than it takes to look for a newer version twice.
        self.pass(1300, &both);
        self.rotate(&pinned);
        self.lock_and_unlock(&follower);
        self.world.kms.set_enabled(KEK, false);
        self.pass(130, &both);
        both.iter().for_each(|account| assert!(!usable(account), "refused"));
        self.world.kms.set_enabled(KEK, true);
        both.iter().for_each(|account| self.seal(account));
        self.pass(1300, &both);

        // The follower has moved on by itself, so what was acknowledged is all that is needed.
        for version in ["1", "2"] {
            self.world.kms.set_version_enabled(KEK, &KekVersion::new(version).unwrap(), false);
        }
        self.pass(130, &both);
        both.iter().for_each(|account| self.wait_until_usable(account));
        self.everything_is_there(&both);
        self.a_fresh_machine_finds_everything();
    }

    fn create(&mut self, id: AccountId, kek: Kek) -> Account {
        let store: Arc<dyn RecordStore> = self.store.clone();
        let account = self.insist("creating", || {
            let spec = AccountSpec::new(id, self.world.provider(), kek.clone()).store(store.clone());
            match self.world.cache.create(spec) {
                // An earlier try that failed may have persisted it.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.world.cache.attach_stored(store.clone(), self.world.expect(id))
                }
                created => created,
            }
        });
        self.acknowledge(&account);
        account
    }

    fn rotate(&mut self, account: &Account) {
        self.insist("rotating", || account.rotate_kek(RotateTo::Latest));
        self.acknowledge(account);
    }

    /// What the account goes by now was promised to the caller, so it is in the store.
    fn acknowledge(&mut self, account: &Account) {
        let record = account.record();
        assert_eq!(self.stored(account.id()).to_bytes(), record.to_bytes(), "acknowledged, so persisted");
        self.acknowledged.push((account.id(), record.sequence(), version(&record)));
    }

    fn seal(&mut self, account: &Account) {
        self.wait_until_usable(account);
        self.blocks.push((account.id(), Block::sealed_by(account)));
    }

    fn lock_and_unlock(&self, account: &Account) {
        account.lock();
        self.pass(70, &[account]);
        self.insist("unlocking", || {
            let unlocking = account.begin_unlock();
            self.world.run(secs(10));
            unlocking.wait()
        });
    }

    fn insist<T>(&self, what: &str, call: impl Fn() -> Result<T, Error>) -> T {
        for _ in 0..3 {
            match call() {
                Ok(done) => return done,
                Err(error) => assert!(is_reasoned(error.kind()), "{what}: {error}"),
            }
            self.world.run(secs(70));
        }
        panic!("{what} does not succeed, though nothing fails any more");
    }

    /// Lets time pass. Every block opens to what was sealed at each moment, or is refused with the account's reason.
    fn pass(&self, seconds: u64, accounts: &[&Account]) {
        for _ in 0..seconds.div_ceil(10) {
            self.world.run(secs(10));
            for account in accounts {
                for block in self.blocks_of(account.id()) {
                    // The block itself compares what it opens to.
                    block
                        .open(account)
                        .or_else(|kind| if is_reasoned(kind) { Ok(()) } else { Err(kind) })
                        .unwrap();
                }
            }
        }
    }

    fn wait_until_usable(&self, account: &Account) {
        self.world.run_until(secs(1), secs(300), || usable(account));
    }

    fn everything_is_there(&self, accounts: &[&Account]) {
        for (id, sequence, acknowledged) in &self.acknowledged {
            let record = self.stored(*id);
            assert!(record.sequence() >= *sequence && version(&record) >= *acknowledged, "a lost record");
        }
        for account in accounts {
            assert_eq!(version(&account.record()), 3);
            self.blocks_of(account.id()).for_each(|block| assert_eq!(block.open(account), Ok(())));
        }
    }

    fn a_fresh_machine_finds_everything(&self) {
        let cache = AekCache::builder().manual(&self.world.clock).build().unwrap();
        let accounts = [FOLLOWER, PINNED].map(|id| {
            let store: Arc<dyn RecordStore> = self.store.clone();
            let attach = || cache.attach_stored(store.clone(), self.world.expect(id));
            let account = attach().or_else(|_| attach()).unwrap();
            for _ in 0..300 {
                cache.run_for(secs(1));
                if usable(&account) {
                    break;
                }
            }
            account
        });
        self.everything_is_there(&[&accounts[0], &accounts[1]]);
    }

    fn blocks_of(&self, account: AccountId) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |(id, _)| *id == account).map(|(_, block)| block)
    }

    fn stored(&self, account: AccountId) -> AccountRecord {
        AccountRecord::parse(&self.store.bytes(account).expect("a record")).unwrap()
    }
}

fn version(record: &AccountRecord) -> u32 {
    record.kek_version().as_str().parse().unwrap()
}

/// A refusal that tells the caller what to do. Not among them: anything that says the data is wrong.
pub(crate) fn is_reasoned(kind: ErrorKind) -> bool {
    use ErrorKind::{Conflict, Io, Locked, Misuse, NotReady, Revoked, Unavailable, Untrusted};
    matches!(kind, Conflict | Io | Locked | Misuse | NotReady | Revoked | Unavailable | Untrusted)
}

/// Lives histories, each with another call struck, until one ends before the call that was to be struck. `strike` sets the
/// fault up, `struck` tells whether it came. A plain run of the tests strikes every twentieth call.
fn for_every_n(strike: impl Fn(&History, usize), struck: impl Fn(&History, usize) -> bool) -> usize {
    let step = usize::try_from(count(20, 1, 1)).unwrap();
    for n in (0..).step_by(step) {
        let mut history = History::new();
        strike(&history, n);
        history.live();
        if !struck(&history, n) {
            assert!(n > 0, "there was something to strike");
            return n.div_ceil(step);
        }
    }
    unreachable!("a history ends")
}

#[test]
fn e3_r14_the_nth_call_of_the_kms_goes_wrong_in_every_way_and_nothing_acknowledged_is_lost() {
    let answers = [
        Answer::Refused(Refusal::KeyDisabled),
        Answer::Transient,
        Answer::Integrity,
        Answer::Misconfigured,
        Answer::Garbage,
        Answer::OtherAek,
        Answer::Panic,
        Answer::Delay(secs(1)),
        Answer::Late(secs(1), Box::new(Answer::Refused(Refusal::PermissionRemoved))),
    ];
    let mut failed = 0;
    for answer in answers {
        for call in [Call::Wrap, Call::Unwrap, Call::Describe] {
            if call == Call::Describe && answer == Answer::OtherAek {
                continue;
            }
            let strike = |history: &History, n| {
                let before = std::iter::repeat_n(Answer::Ok, n);
                history.world.kms.next(call, before.chain([answer.clone()]));
            };
            failed += for_every_n(strike, |history, n| history.world.kms.calls(call) > n);
        }
    }
    report("R14", "provider calls failed", failed, ">=", count(50, 1000, 1000));
}

#[test]
fn e3_r14_the_nth_unwrap_hangs_or_succeeds_too_late_and_nothing_acknowledged_is_lost() {
    let late = std::cell::Cell::new(0);
    for answer in [Answer::Hang, Answer::Delay(secs(10))] {
        let strike = |history: &History, n| {
            let before = std::iter::repeat_n(Answer::Ok, n);
            history.world.kms.next(Call::Unwrap, before.chain([answer.clone()]));
        };
        for_every_n(strike, |history, n| {
            late.set(late.get() + history.world.cache.stats().late);
            history.world.kms.calls(Call::Unwrap) > n
        });
    }
    report("R14", "provider calls that hung or came too late", late.get(), ">=", count(5, 150, 150));
}

#[test]
fn e3_r14_the_nth_call_of_the_record_store_fails_and_nothing_acknowledged_is_lost() {
    let strikes: [fn(&History, usize); 3] = [
        |history, n| history.store.fail_nth(n, false),
        |history, n| history.store.fail_nth(n, true),
        |history, n| history.store.conflict_nth(n),
    ];
    let failed: usize =
        strikes.iter().map(|strike| for_every_n(strike, |history, _| !history.store.calm())).sum();
    report("R14", "record store calls failed", failed, ">=", count(10, 200, 200));
}

#[test]
fn a_store_that_conflicts_writes_nothing() {
    let store = Store::new();
    store.conflict_nth(0);
    assert_eq!(store.compare_and_swap(FOLLOWER, None, b"x").unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.load(FOLLOWER, None).unwrap(), Loaded::Absent);
}
