//! The life of an account with two KEKs, in which the Nth call of either KMS or of the record store goes wrong, for every N (R14):
//! nothing acknowledged is lost, nothing opens to anything else than what was sealed, and nothing opens after a refusal.
//!
//! Of double encryption, failover and joint custody. What is particular to one KEK is in `fail_the_nth`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strongroom::provider::{
    Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped,
};
use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, AekCache, Error, ErrorKind, Expect, OutageGrace,
    RecordStore, Refusal, RotateTo, Sequence, peek,
};

use crate::common::{Block, KEK, Store, World, secs, usable};
use crate::evidence::{count, report};
use crate::fail_the_nth::is_reasoned;

const ID: AccountId = AccountId::from_bytes([0xA2; 16]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldBy {
    /// Two AEKs, of one KEK each.
    Double,
    Failover,
    Joint,
}

const ALL: [HeldBy; 3] = [HeldBy::Double, HeldBy::Failover, HeldBy::Joint];

/// A KMS whose line can be cut: silence that no script knows of.
#[derive(Clone, Debug)]
struct Line {
    kms: ScriptedProvider,
    cut: Arc<AtomicBool>,
}

impl Line {
    fn new(clock: &ManualClock, name: &str) -> Self {
        let authority = Authority::new("scripted", name);
        let kms = ScriptedProvider::on_virtual_time().with_clock(clock).with_authority(authority);
        Self { kms, cut: Arc::default() }
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }

    fn over(&self) -> Result<&ScriptedProvider, ProviderError> {
        let cut = self.cut.load(Ordering::SeqCst);
        if cut { Err(ProviderError::transient("the line is cut")) } else { Ok(&self.kms) }
    }
}

impl KeyProvider for Line {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.over()?.wrap(kek, context, secret)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.over()?.unwrap(wrapped, context)
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.over()?.describe(kek)
    }

    fn authority(&self) -> Authority {
        self.kms.authority()
    }
}

struct History {
    held: HeldBy,
    world: World,
    lines: [Line; 2],
    store: Arc<Store>,
    blocks: Vec<Block>,
    acknowledged: Vec<(Sequence, [u32; 2])>,
}

impl History {
    fn new(held: HeldBy) -> Self {
        let clock = ManualClock::new();
        let lines = ["first", "second"].map(|name| Line::new(&clock, name));
        let world = World::beside(&clock, lines[0].kms.clone(), secs(60), OutageGrace::DEFAULT);
        Self { held, world, lines, store: Store::new(), blocks: Vec::new(), acknowledged: Vec::new() }
    }

    /// Lives it. A failed control call is made again, as its documentation says; all else has to come by itself.
    fn live(&mut self) {
        let account = self.create();
        self.seal(&account);
        self.lines.iter().for_each(|line| drop(line.kms.add_version(KEK)));
        self.rotate(&account, Account::rotate_kek);
        self.rotate(
            &account,
            if self.held == HeldBy::Double { Account::rotate_outer_kek } else { Account::rotate_second_kek },
        );
        self.seal(&account);
        self.rotate_aek(&account);
        for silent in 0..2 {
            self.lines[silent].cut(true);
            self.pass(130, &account);
            self.lines[silent].cut(false);
            self.seal(&account);
        }
        self.lock_and_unlock(&account);
        for refusing in 0..2 {
            self.refuse(refusing, &account);
            self.seal(&account);
        }
        // What was acknowledged is all that is needed.
        for line in &self.lines {
            line.kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
        }
        self.pass(130, &account);
        self.wait_until_usable(&account);
        self.everything_is_there(&account);
        self.a_fresh_machine_finds_everything(None);
        if self.held == HeldBy::Failover {
            self.a_fresh_machine_finds_everything(Some(0));
        }
    }

    /// One KMS refuses. Only the second one of a failover does so unheard, as nobody asks it.
    fn refuse(&self, refusing: usize, account: &Account) {
        self.lines[refusing].kms.set_enabled(KEK, false);
        self.pass(130, account);
        let heard = self.held != HeldBy::Failover || refusing == 0;
        if heard {
            self.nothing_opens(account);
        }
        if heard && self.held == HeldBy::Failover {
            // The second one would say yes: here, and to whoever starts now.
            self.lines[0].cut(true);
            self.world.run(secs(130));
            self.nothing_opens(account);
            let (cache, late) = self.fresh_machine();
            for _ in 0..13 {
                cache.run_for(secs(10));
                self.nothing_opens(&late);
            }
            self.lines[0].cut(false);
        }
        self.lines[refusing].kms.set_enabled(KEK, true);
    }

    fn provider(&self, at: usize) -> Arc<dyn KeyProvider> {
        Arc::new(self.lines[at].clone())
    }

    fn expect(&self) -> Expect {
        let expect = Expect::account(ID).kek(self.provider(0), KEK);
        match self.held {
            HeldBy::Double => expect.outer_kek(self.provider(1), KEK),
            HeldBy::Failover => expect.failover_kek(self.provider(1), KEK),
            HeldBy::Joint => expect.joint_kek(self.provider(1), KEK),
        }
    }

    fn create(&mut self) -> Account {
        let store: Arc<dyn RecordStore> = self.store.clone();
        let account = self.insist("creating", || {
            let spec = AccountSpec::new(ID, self.provider(0), Kek::latest(KEK)).store(store.clone());
            let (second, kek) = (self.provider(1), Kek::latest(KEK));
            let spec = match self.held {
                HeldBy::Double => spec.double_encryption(second, kek),
                HeldBy::Failover => spec.failover(second, kek, AccountSpec::FAILOVER_LIMIT),
                HeldBy::Joint => spec.joint_with(second, kek),
            };
            match self.world.cache.create(spec) {
                // An earlier try that failed may have persisted it.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.world.cache.attach_stored(store.clone(), self.expect())
                }
                created => created,
            }
        });
        self.acknowledge(&account);
        account
    }

    fn rotate(
        &mut self,
        account: &Account,
        rotate: fn(&Account, RotateTo) -> Result<strongroom::Retire, Error>,
    ) {
        self.insist("rotating", || rotate(account, RotateTo::Latest));
        self.acknowledge(account);
    }

    /// Longer than it takes until the new AEK is sealed under.
    fn rotate_aek(&mut self, account: &Account) {
        let before = account.record().generation();
        self.insist("rotating the AEK", || match account.rotate_aek() {
            // An earlier try that failed may have persisted it.
            Err(error) if error.kind() == ErrorKind::Misuse && account.record().generation() > before => {
                Ok(())
            }
            rotated => rotated.map(drop),
        });
        self.acknowledge(account);
        self.pass(140, account);
        self.seal(account);
        let newest = peek(&self.blocks.last().expect("was sealed").frame).unwrap();
        assert!(newest.generation() > before, "the new AEK is in use");
    }

    /// What the account goes by now was promised to the caller, so the store has it, or what came after it.
    fn acknowledge(&mut self, account: &Account) {
        let (record, stored) = (account.record(), self.stored());
        assert!(stored.sequence() >= record.sequence(), "acknowledged, so persisted");
        assert_eq!(versions(&stored), versions(&record));
        self.acknowledged.push((record.sequence(), versions(&record)));
    }

    fn seal(&mut self, account: &Account) {
        self.wait_until_usable(account);
        self.blocks.push(Block::sealed_by(account));
    }

    fn lock_and_unlock(&self, account: &Account) {
        account.lock();
        self.pass(70, account);
        self.nothing_opens(account);
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
    fn pass(&self, seconds: u64, account: &Account) {
        for _ in 0..seconds.div_ceil(10) {
            self.world.run(secs(10));
            for block in &self.blocks {
                // The block itself compares what it opens to.
                if let Err(kind) = block.open(account) {
                    assert!(is_reasoned(kind), "{kind:?}");
                }
            }
        }
    }

    fn nothing_opens(&self, account: &Account) {
        assert!(!usable(account) && account.valid_until().is_none(), "{:?}", account.status());
        self.blocks.iter().for_each(|block| assert!(block.open(account).is_err_and(is_reasoned)));
    }

    fn wait_until_usable(&self, account: &Account) {
        self.world.run_until(secs(1), secs(300), || usable(account));
    }

    fn everything_is_there(&self, account: &Account) {
        let record = self.stored();
        for (sequence, acknowledged) in &self.acknowledged {
            let versions = versions(&record);
            let later = versions.iter().zip(acknowledged).all(|(now, then)| now >= then);
            assert!(record.sequence() >= *sequence && later, "a lost record");
        }
        assert_eq!(versions(&account.record()), [2, 2]);
        self.blocks.iter().for_each(|block| assert_eq!(block.open(account), Ok(())));
    }

    fn fresh_machine(&self) -> (AekCache, Account) {
        let cache = AekCache::builder().manual(&self.world.clock).build().unwrap();
        let store: Arc<dyn RecordStore> = self.store.clone();
        let attach = || cache.attach_stored(store.clone(), self.expect());
        let account = attach().or_else(|_| attach()).unwrap();
        (cache, account)
    }

    fn a_fresh_machine_finds_everything(&self, silent: Option<usize>) {
        silent.iter().for_each(|silent| self.lines[*silent].cut(true));
        let (cache, account) = self.fresh_machine();
        for _ in 0..300 {
            cache.run_for(secs(1));
            if usable(&account) {
                break;
            }
        }
        self.everything_is_there(&account);
        silent.iter().for_each(|silent| self.lines[*silent].cut(false));
    }

    fn stored(&self) -> AccountRecord {
        AccountRecord::parse(&self.store.bytes(ID).expect("a record")).unwrap()
    }
}

fn versions(record: &AccountRecord) -> [u32; 2] {
    let second = record.second_kek_version().or_else(|| record.outer_kek_version()).expect("two KEKs");
    [record.kek_version(), second].map(|version| version.as_str().parse().unwrap())
}

/// Lives histories, each with another call struck, until one ends before the call that was to be struck.
fn for_every_n(
    held: HeldBy,
    strike: impl Fn(&History, usize),
    struck: impl Fn(&History, usize) -> bool,
) -> usize {
    let step = usize::try_from(count(7, 1, 1)).unwrap();
    for n in (0..).step_by(step) {
        let mut history = History::new(held);
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
fn a6_a7_r14_the_nth_call_of_either_kms_goes_wrong_and_nothing_acknowledged_is_lost_or_opens_too_long() {
    let answers = [
        Answer::Refused(Refusal::KeyDisabled),
        Answer::Transient,
        Answer::Integrity,
        Answer::Garbage,
        Answer::OtherAek,
        Answer::Panic,
        Answer::Late(secs(1), Box::new(Answer::Refused(Refusal::PermissionRemoved))),
    ];
    let mut failed = 0;
    for (held, side) in ALL.into_iter().flat_map(|held| [0, 1].map(|side: usize| (held, side))) {
        for answer in &answers {
            for call in [Call::Wrap, Call::Unwrap, Call::Describe] {
                if call == Call::Describe && *answer == Answer::OtherAek {
                    continue;
                }
                let strike = |history: &History, n| {
                    let before = std::iter::repeat_n(Answer::Ok, n);
                    history.lines[side].kms.next(call, before.chain([answer.clone()]));
                };
                failed += for_every_n(held, strike, |history, n| history.lines[side].kms.calls(call) > n);
            }
        }
    }
    report("R14", "calls of two providers failed", failed, ">=", count(200, 1_000, 1_000));
}

#[test]
fn a6_a7_r14_the_nth_call_of_the_record_store_fails_under_two_keks_and_nothing_acknowledged_is_lost() {
    let strikes: [fn(&History, usize); 3] = [
        |history, n| history.store.fail_nth(n, false),
        |history, n| history.store.fail_nth(n, true),
        |history, n| history.store.conflict_nth(n),
    ];
    let mut failed = 0;
    for held in ALL {
        for strike in strikes {
            failed += for_every_n(held, strike, |history, _| !history.store.calm());
        }
    }
    report("R14", "record store calls failed under two KEKs", failed, ">=", count(30, 200, 200));
}
