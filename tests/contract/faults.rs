//! Every operation fails in turn: a crash at any step leaves a usable account (E3).

use std::sync::Arc;

use strongroom::provider::{Kek, KekVersion, KeyProvider};
use strongroom::testing::{FaultyRecordStore, ManualClock, ScriptedProvider, StoreFault};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, AekCache, Error, ErrorKind, Expect, MemoryRecordStore,
    OutageGrace, RotateTo, Status,
};

use crate::common::{Block, C, KEK, Meddler, Store, World, kind, secs};

struct Faulty {
    world: World,
    meddler: Arc<Meddler>,
    store: Arc<Store>,
}

impl Faulty {
    fn new() -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time();
        let meddler = Meddler::new(kms.clone());
        let world = World::beside(&clock, kms, secs(6), OutageGrace::DEFAULT);
        Self { world, meddler, store: Store::new() }
    }

    fn provider(&self) -> Arc<dyn KeyProvider> {
        self.meddler.clone()
    }

    fn create(&self, id: AccountId) -> Result<Account, Error> {
        let spec = AccountSpec::new(id, self.provider(), Kek::latest(KEK));
        self.world.cache.create(spec.store(Arc::clone(&self.store) as _))
    }

    fn calm(&self) -> bool {
        let (a, b) = (self.meddler.calm(), self.store.calm());
        a || b
    }

    /// As after a crash: another process finds what the store has, and opens.
    fn opens_elsewhere(&self, id: AccountId, block: Option<&Block>) {
        let cache = AekCache::builder().manual(&self.world.clock).build().unwrap();
        let expect = Expect::account(id).kek(self.provider(), KEK);
        let account = cache.attach_stored(Arc::clone(&self.store) as _, expect).unwrap();
        account.ready().wait().unwrap();
        if let Some(block) = block {
            assert_eq!(block.open(&account), Ok(()));
        }
    }
}

/// Fails the `n`th call to the provider or to the store, before or after its effect.
fn each_fault(mut test: impl FnMut(&dyn Fn(&Faulty)) -> bool) {
    let arms: [fn(&Faulty, usize); 4] = [
        |faulty, n| faulty.meddler.fail_nth(n, false),
        |faulty, n| faulty.meddler.fail_nth(n, true),
        |faulty, n| faulty.store.fail_nth(n, false),
        |faulty, n| faulty.store.fail_nth(n, true),
    ];
    for arm in arms {
        let mut n = 0;
        while test(&|faulty| arm(faulty, n)) {
            n += 1;
            assert!(n < 50, "the operation ends");
        }
        assert!(n > 0, "there was something to fail");
    }
}

#[test]
fn e3_create_fails_at_any_step_and_leaves_nothing_or_a_usable_account() {
    each_fault(|arm| {
        let faulty = Faulty::new();
        let id = AccountId::random();
        arm(&faulty);
        let created = faulty.create(id);
        let not_reached = faulty.calm();
        assert_eq!(created.is_ok(), not_reached);
        if let Err(error) = &created {
            assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Io), "{error}");
            match faulty.store.bytes(id) {
                None => drop(faulty.create(id).unwrap()),
                Some(_) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "else nothing was persisted");
                    assert_eq!(kind(faulty.create(id)), Some(ErrorKind::Conflict));
                }
            }
        }
        faulty.opens_elsewhere(id, None);
        !not_reached
    });
}

#[test]
fn e3_rotation_fails_at_any_step_and_the_account_stays_usable_under_the_old_or_the_new_record() {
    each_fault(|arm| {
        let faulty = Faulty::new();
        let account = faulty.create(AccountId::random()).unwrap();
        let block = Block::sealed_by(&account);
        faulty.world.kms.add_version(KEK);
        arm(&faulty);
        let rotated = account.rotate_kek(RotateTo::Latest);
        let not_reached = faulty.calm();
        assert_eq!(rotated.is_ok(), not_reached);
        if let Err(error) = &rotated {
            assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Io), "{error}");
        }
        assert_eq!(block.open(&account), Ok(()));
        let stored = AccountRecord::parse(&faulty.store.bytes(account.id()).unwrap()).unwrap();
        assert!(["1", "2"].contains(&stored.kek_version().as_str()));
        faulty.opens_elsewhere(account.id(), Some(&block));
        // It is finished by trying again, and the old version is not needed any more.
        match account.rotate_kek(RotateTo::Latest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
        }
        account.rotate_kek(RotateTo::Latest).unwrap();
        faulty.world.kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
        faulty.world.run(secs(30));
        assert_eq!(block.open(&account), Ok(()));
        faulty.opens_elsewhere(account.id(), Some(&block));
        !not_reached
    });
}

#[test]
fn e4_an_aek_rotation_fails_at_any_step_and_either_record_opens_everything() {
    each_fault(|arm| {
        let faulty = Faulty::new();
        let account = faulty.create(AccountId::random()).unwrap();
        let block = Block::sealed_by(&account);
        arm(&faulty);
        let rotated = account.rotate_aek();
        let not_reached = faulty.calm();
        assert_eq!(rotated.is_ok(), not_reached);
        if let Err(error) = &rotated {
            assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Io), "{error}");
        }
        assert_eq!(block.open(&account), Ok(()));
        faulty.opens_elsewhere(account.id(), Some(&block));
        // Tried again, as long as it was not done by the call that failed.
        faulty.world.run(secs(140));
        let stored = AccountRecord::parse(&faulty.store.bytes(account.id()).unwrap()).unwrap();
        if stored.generation().number() == 1 {
            account.rotate_aek().unwrap();
            faulty.world.run(secs(140));
        }
        let sealed = Block::sealed_by(&account);
        assert_eq!(strongroom::peek(&sealed.frame).unwrap().generation().number(), 2);
        assert_eq!((block.open(&account), sealed.open(&account)), (Ok(()), Ok(())));
        faulty.opens_elsewhere(account.id(), Some(&sealed));
        !not_reached
    });
}

#[test]
fn e3_a_refresh_fails_at_any_step_and_the_lease_lives_on() {
    each_fault(|arm| {
        let faulty = Faulty::new();
        let account = faulty.create(AccountId::random()).unwrap();
        let block = Block::sealed_by(&account);
        arm(&faulty);
        for _ in 0..60 {
            faulty.world.run(secs(1));
            assert_eq!(block.open(&account), Ok(()));
        }
        // Enough refreshes in a minute for the first few; then the test has seen all.
        !faulty.calm()
    });
}

#[test]
fn h5_a_record_store_that_is_late_on_virtual_time_makes_refreshes_late() {
    let world = World::new(30, OutageGrace::For(secs(60)));
    let store = Arc::new(FaultyRecordStore::on_virtual_time(Arc::new(MemoryRecordStore::new())));
    let account = world.cache.create(world.spec().store(store.clone())).unwrap();
    store.fail_every(StoreFault::Late(C + secs(1)));
    world.run(secs(45));
    assert!(world.cache.stats().late >= 1);
    assert!(matches!(account.status(), Status::Grace { .. }), "{:?}", account.status());
    store.calm();
    world.run(secs(65));
    assert!(matches!(account.status(), Status::Fresh { .. }), "{:?}", account.status());
}
