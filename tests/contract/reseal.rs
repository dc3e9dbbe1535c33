//! An engine's own data is sealed anew: E4, E8.

use std::sync::Arc;

use strongroom::provider::Kek;
use strongroom::{
    Aad, Account, BlockId, Error, ErrorKind, Generation, MemoryRecordStore, ObjectId, OperationKind,
    OperationStatus, Operations, OutageGrace, Reseal, ResealItems, ResealLimits, ResealStep, Resealed, Suite,
    peek,
};

use crate::common::{KEK, World, secs};

/// An engine whose pages are durable once it has committed.
struct Pages {
    account: Account,
    object: ObjectId,
    pages: Vec<Vec<u8>>,
    written: Vec<(usize, Vec<u8>)>,
    next: usize,
    looks: usize,
    broken: Option<usize>,
}

impl Pages {
    fn new(account: &Account, count: u64) -> Self {
        let object = ObjectId::random();
        let seal = |index| account.seal(BlockId::new(object, index), Aad::EMPTY, &[7; 100]).unwrap();
        let pages = (0..count).map(seal).collect();
        Self { account: account.clone(), object, pages, written: vec![], next: 0, looks: 0, broken: None }
    }

    fn generations(&self) -> Vec<u32> {
        self.pages.iter().map(|page| peek(page).unwrap().generation().number()).collect()
    }

    fn all_open(&self) -> bool {
        self.pages.iter().zip(0..).all(|(page, index)| {
            self.account.open(BlockId::new(self.object, index), Aad::EMPTY, page).unwrap() == [7; 100]
        })
    }

    /// As after a crash.
    fn lose_what_is_not_durable(&mut self) {
        self.written.clear();
        self.next = usize::MAX;
    }
}

impl ResealItems for Pages {
    fn seek(&mut self, cursor: &[u8]) -> Result<(), Error> {
        self.next = cursor.try_into().map_or(0, usize::from_be_bytes);
        Ok(())
    }

    fn reseal_next(&mut self, oldest: Generation) -> Result<Option<Resealed>, Error> {
        let index = self.next;
        let Some(page) = self.pages.get(index) else { return Ok(None) };
        self.next += 1;
        self.looks += 1;
        if self.broken == Some(index) {
            return Ok(Some(Resealed::Failed));
        }
        if peek(page)?.generation() >= oldest {
            return Ok(Some(Resealed::Current));
        }
        let id = BlockId::new(self.object, index as u64);
        let plain = self.account.open(id, Aad::EMPTY, page)?;
        self.written.push((index, self.account.seal(id, Aad::EMPTY, &plain)?));
        Ok(Some(Resealed::Anew(plain.len() as u64)))
    }

    fn commit(&mut self) -> Result<Vec<u8>, Error> {
        for (index, page) in self.written.drain(..) {
            self.pages[index] = page;
        }
        Ok(self.next.to_be_bytes().to_vec())
    }
}

struct Rotated {
    world: World,
    account: Account,
    operations: Operations,
    pages: Pages,
}

fn rotated(pages: u64) -> Rotated {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    rotated_in(world, account, pages)
}

fn rotated_in(world: World, account: Account, pages: u64) -> Rotated {
    let pages = Pages::new(&account, pages);
    account.rotate_aek().unwrap();
    world.run(secs(132));
    let operations = Operations::new(Arc::new(MemoryRecordStore::new()), account.clone());
    Rotated { world, account, operations, pages }
}

impl Rotated {
    fn begin(&self, limits: ResealLimits) -> Reseal {
        let run = self.operations.begin(OperationKind::Reseal, self.account.id()).unwrap();
        Reseal::new(&self.account, run, limits).unwrap()
    }

    fn resume(&self, limits: ResealLimits) -> Reseal {
        let run = self.operations.resume(self.account.id()).unwrap().unwrap();
        Reseal::new(&self.account, run, limits).unwrap()
    }
}

#[test]
fn e4_e8_an_engines_data_is_sealed_anew_at_a_pace_with_progress_and_estimate() {
    let mut all = rotated(10);
    let mut job = all.begin(ResealLimits::DEFAULT.batch(4).bytes_per_second(200));
    job.set_total(10);
    let mut pauses = Vec::new();
    let operation = loop {
        match job.step(&mut all.pages).unwrap() {
            ResealStep::Ended(operation) => break operation,
            ResealStep::More { pause } => {
                pauses.push(pause);
                all.world.run(pause);
                if job.progress().done == 8 {
                    assert_eq!(job.progress().remaining(), Some(secs(2) / 4), "8 in 2 s");
                }
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pauses, [secs(2), secs(2)], "400 bytes, 200 a second");
    assert_eq!(operation.status(), &OperationStatus::Succeeded);
    assert_eq!((operation.progress().done, operation.progress().bytes), (10, 1000));
    assert_eq!(all.pages.generations(), [2; 10]);
    assert!(all.pages.all_open());
}

#[test]
fn e4_e8_a_job_that_was_killed_goes_on_at_its_cursor_and_one_that_is_cancelled_ends() {
    let mut all = rotated(10);
    let limits = ResealLimits::DEFAULT.batch(4);
    all.begin(limits).step(&mut all.pages).unwrap();
    // Killed in the middle of the next batch.
    all.pages.reseal_next(Generation::new(2).unwrap()).unwrap();
    all.pages.lose_what_is_not_durable();
    assert_eq!(all.pages.generations(), [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
    all.pages.looks = 0;
    let mut job = all.resume(limits);
    assert!(matches!(job.step(&mut all.pages).unwrap(), ResealStep::More { .. }));
    assert_eq!((all.pages.looks, job.progress().done), (4, 8));
    all.operations.find(all.account.id()).unwrap().unwrap().cancel().unwrap();
    let ResealStep::Ended(operation) = job.step(&mut all.pages).unwrap() else { panic!("was cancelled") };
    assert_eq!(operation.status(), &OperationStatus::Cancelled);
    assert_eq!(all.pages.generations(), [2, 2, 2, 2, 2, 2, 2, 2, 1, 1], "what was done stays");
    assert!(all.pages.all_open());
}

#[test]
fn e4_d1_d2_a_job_of_a_revoked_account_stops_and_goes_on_with_the_key() {
    let mut all = rotated(6);
    let mut job = all.begin(ResealLimits::DEFAULT.batch(2));
    job.step(&mut all.pages).unwrap();
    all.world.kms.set_enabled(KEK, false);
    all.world.run(secs(20));
    assert_eq!(job.step(&mut all.pages).unwrap_err().kind(), ErrorKind::Revoked);
    all.world.kms.set_enabled(KEK, true);
    all.world.run(secs(70));
    while !matches!(job.step(&mut all.pages).unwrap(), ResealStep::Ended(_)) {}
    assert_eq!(all.pages.generations(), [2; 6]);
}

#[test]
fn a6_e4_an_engines_data_under_double_encryption_is_sealed_anew_and_either_key_stops_the_job() {
    let world = World::new(6, OutageGrace::None);
    world.kms.add_key("second");
    let spec = world.spec().double_encryption(world.provider(), Kek::latest("second"));
    let account = world.cache.create(spec).unwrap();
    let mut all = rotated_in(world, account, 6);
    let mut job = all.begin(ResealLimits::DEFAULT.batch(2));
    job.step(&mut all.pages).unwrap();
    for kek in [KEK, "second"] {
        all.world.kms.set_enabled(kek, false);
        all.world.run(secs(20));
        assert_eq!(job.step(&mut all.pages).unwrap_err().kind(), ErrorKind::Revoked, "{kek}");
        assert_eq!(all.pages.generations(), [2, 2, 1, 1, 1, 1]);
        all.world.kms.set_enabled(kek, true);
        all.world.run(secs(70));
    }
    while !matches!(job.step(&mut all.pages).unwrap(), ResealStep::Ended(_)) {}
    assert_eq!(all.pages.generations(), [2; 6]);
    assert!(all.pages.pages.iter().all(|page| peek(page).unwrap().suite() == Suite::Double));
    assert!(all.pages.all_open());
}

#[test]
fn e4_a_piece_that_fails_is_counted_and_the_operation_has_not_succeeded() {
    let mut all = rotated(5);
    all.pages.broken = Some(2);
    let mut job = all.begin(ResealLimits::DEFAULT);
    let ResealStep::Ended(operation) = job.step(&mut all.pages).unwrap() else { panic!("one batch") };
    assert!(matches!(operation.status(), OperationStatus::Failed { code: ErrorKind::Conflict, .. }));
    assert_eq!((operation.progress().done, operation.progress().failed), (4, 1));
    assert_eq!(all.pages.generations(), [2, 2, 1, 2, 2]);
}

#[test]
fn e4_a_job_before_the_generation_is_active_or_of_another_kind_is_refused() {
    let all = rotated(1);
    all.account.rotate_aek().unwrap();
    for kind in [OperationKind::Reseal, OperationKind::Rewrap] {
        let target = all.account.id();
        let run = all.operations.begin(kind, target).unwrap();
        let early = Reseal::new(&all.account, run, ResealLimits::DEFAULT);
        assert_eq!(early.unwrap_err().kind(), ErrorKind::Misuse, "{kind:?}");
        all.operations.resume(target).unwrap().unwrap().cancelled().unwrap();
        all.world.run(secs(132));
    }
}
