//! Long work as operations: E8.

use std::sync::Arc;
use std::time::Duration;

use strongroom::{
    Account, AccountId, ErrorKind, Expect, OperationKind, OperationStatus, OperationTarget, Operations,
    OutageGrace,
};

use crate::common::{KEK, Store, World, kind, millis, secs};

const TARGET: OperationTarget = OperationTarget::from_bytes([0x7A; 16]);

struct Desk {
    world: World,
    account: Account,
    store: Arc<Store>,
    operations: Operations,
}

impl Desk {
    fn new() -> Self {
        let world = World::new(6, OutageGrace::None);
        let (account, store) = (world.create(), Store::new());
        let operations = Operations::new(store.clone(), account.clone());
        Self { world, account, store, operations }
    }

    /// The same store, seen by a process that has just started.
    fn elsewhere(&self) -> Operations {
        Operations::new(self.store.clone(), self.account.clone())
    }

    fn bytes(&self) -> Vec<u8> {
        self.store.bytes(AccountId::from_bytes(*TARGET.as_bytes())).unwrap()
    }

    fn plant(&self, bytes: &[u8]) {
        self.store.plant(AccountId::from_bytes(*TARGET.as_bytes()), bytes);
    }
}

#[test]
fn e8_an_operation_has_id_status_times_and_progress_and_ends() {
    let desk = Desk::new();
    assert!(desk.operations.find(TARGET).unwrap().is_none());
    let mut run = desk.operations.begin(OperationKind::Rewrap, TARGET).unwrap();
    let begun = desk.elsewhere().find(TARGET).unwrap().unwrap();
    assert_eq!((begun.id(), begun.status()), (run.operation().id(), &OperationStatus::InProgress));
    assert_eq!((begun.kind(), begun.target(), begun.ended()), (OperationKind::Rewrap, TARGET, None));

    desk.world.run(secs(10));
    run.progress_mut().total = Some(40);
    run.progress_mut().done = 10;
    run.progress_mut().bytes = 77;
    assert_eq!(desk.elsewhere().find(TARGET).unwrap().unwrap().progress().done, 0, "noted at a checkpoint");
    run.checkpoint(b"ten").unwrap();
    let seen = desk.elsewhere().find(TARGET).unwrap().unwrap();
    assert_eq!((seen.status(), seen.progress().bytes), (&OperationStatus::Updating, 77));
    assert_eq!(seen.progress().worked, secs(10));
    assert_eq!((seen.progress().per_second(), seen.progress().remaining()), (Some(1.0), Some(secs(30))));

    desk.world.run(secs(20));
    let ended = run.succeed().unwrap();
    assert_eq!(ended.ended().unwrap().duration_since(ended.started()).unwrap(), secs(30));
    assert_eq!(*desk.elsewhere().find(TARGET).unwrap().unwrap().status(), OperationStatus::Succeeded);
}

#[test]
fn e8_a_second_operation_on_the_target_is_refused_until_the_first_has_ended() {
    let desk = Desk::new();
    let first = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    for operations in [desk.operations.clone(), desk.elsewhere()] {
        for kind in [OperationKind::Reseal, OperationKind::Delete] {
            let error = operations.begin(kind, TARGET).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            assert!(error.to_string().contains(&first.operation().id().to_string()), "{error}");
        }
    }
    drop(desk.operations.begin(OperationKind::Delete, AccountId::random()).expect("another target"));
    let failed = strongroom::Error::record_conflict(AccountId::random());
    let ended = first.fail(&failed).unwrap();
    let OperationStatus::Failed { code, message } = ended.status() else { panic!("failed") };
    assert_eq!((*code, message), (ErrorKind::Conflict, &failed.to_string()));
    assert_eq!(desk.elsewhere().find(TARGET).unwrap().unwrap().status(), ended.status(), "after a restart");
    let second = desk.elsewhere().begin(OperationKind::Delete, TARGET).unwrap();
    assert_ne!(second.operation().id(), ended.id());
}

#[test]
fn e8_of_two_who_begin_at_once_one_is_refused() {
    let desk = Desk::new();
    desk.store.conflict_nth(0);
    assert_eq!(kind(desk.operations.begin(OperationKind::Reseal, TARGET)), Some(ErrorKind::Conflict));
    assert!(desk.operations.find(TARGET).unwrap().is_none());
}

#[test]
fn e8_an_operation_survives_a_restart_and_goes_on_from_its_cursor() {
    let desk = Desk::new();
    let mut run = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    run.progress_mut().done = 5;
    run.checkpoint(b"object 5").unwrap();
    run.progress_mut().done = 9;
    let id = run.operation().id();
    drop(run); // Without a checkpoint: the process was killed.
    desk.world.run(secs(100));

    let mut run = desk.elsewhere().resume(TARGET).unwrap().unwrap();
    assert_eq!((run.operation().id(), run.cursor()), (id, &b"object 5"[..]));
    assert_eq!((run.progress_mut().done, run.progress_mut().worked), (5, Duration::ZERO));
    desk.world.run(secs(3));
    assert_eq!(run.succeed().unwrap().progress().worked, secs(3), "nobody worked in between");
    assert!(desk.elsewhere().resume(TARGET).unwrap().is_none());
}

#[test]
fn e8_who_was_taken_over_writes_no_more() {
    let desk = Desk::new();
    let mut first = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    first.checkpoint(b"1").unwrap();
    let mut second = desk.elsewhere().resume(TARGET).unwrap().unwrap();
    assert_eq!(kind(first.checkpoint(b"2")), Some(ErrorKind::Conflict));
    second.checkpoint(b"1.5").unwrap();
    assert_eq!(kind(first.succeed()), Some(ErrorKind::Conflict));
    assert_eq!(second.succeed().unwrap().status(), &OperationStatus::Succeeded);
    // Nor does one whose operation has ended, or been followed by another.
    let third = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    let fourth = desk.elsewhere().resume(TARGET).unwrap().unwrap();
    fourth.cancelled().unwrap();
    assert_eq!(kind(third.succeed()), Some(ErrorKind::Conflict));
}

#[test]
fn e8_cancelling_is_heard_here_at_once_and_elsewhere_at_the_next_checkpoint() {
    let desk = Desk::new();
    let mut run = desk.operations.begin(OperationKind::Purge, TARGET).unwrap();
    desk.operations.find(TARGET).unwrap().unwrap().cancel().unwrap();
    assert!(run.is_cancelled());
    run.checkpoint(b"x").expect("the piece that was under way is noted");
    assert_eq!(*run.operation().status(), OperationStatus::Deleting);
    assert_eq!(*run.cancelled().unwrap().status(), OperationStatus::Cancelled);

    let mut run = desk.operations.begin(OperationKind::Purge, TARGET).unwrap();
    let from_elsewhere = desk.elsewhere().find(TARGET).unwrap().unwrap();
    from_elsewhere.cancel().unwrap();
    from_elsewhere.cancel().expect("once more");
    assert!(!run.is_cancelled());
    run.checkpoint(b"y").unwrap();
    assert!(run.is_cancelled() && run.operation().is_cancel_requested());
    drop(run);
    let run = desk.elsewhere().resume(TARGET).unwrap().unwrap();
    assert!(run.is_cancelled(), "also for who takes it over");
    run.cancelled().unwrap();
    assert_eq!(kind(from_elsewhere.cancel()), Some(ErrorKind::Conflict), "it has ended");
}

#[test]
fn e8_a_forged_cursor_or_status_is_not_believed() {
    let desk = Desk::new();
    let mut run = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    run.checkpoint(b"object 5").unwrap();
    let honest = desk.bytes();
    for at in 0..honest.len() {
        let mut forged = honest.clone();
        forged[at] ^= 1;
        desk.plant(&forged);
        for error in [
            desk.elsewhere().resume(TARGET).map(drop).unwrap_err(),
            desk.elsewhere().begin(OperationKind::Reseal, TARGET).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Untrusted, "byte {at}");
        }
    }
    // Nor a state of another target, of another account, or of a record's kind.
    let other = desk.operations.begin(OperationKind::Reseal, AccountId::from_bytes([9; 16])).unwrap();
    drop(other);
    let of_other = desk.store.bytes(AccountId::from_bytes([9; 16])).unwrap();
    for foreign in [of_other, desk.account.record().to_bytes(), vec![]] {
        desk.plant(&foreign);
        assert_eq!(kind(desk.elsewhere().find(TARGET)), Some(ErrorKind::Untrusted));
    }
    let stranger = Operations::new(desk.store.clone(), desk.world.create());
    desk.plant(&honest);
    assert_eq!(kind(stranger.find(TARGET)), Some(ErrorKind::Untrusted));
    assert_eq!(run.cursor(), b"object 5");
    assert!(!desk.operations.discard_damaged(TARGET).unwrap(), "it is sound");
    desk.plant(&honest[..honest.len() - 1]);
    assert!(desk.operations.discard_damaged(TARGET).unwrap());
    assert_eq!(kind(run.checkpoint(b"6")), Some(ErrorKind::Conflict), "it was given up");
    desk.operations.begin(OperationKind::Reseal, TARGET).unwrap().succeed().unwrap();
}

#[test]
fn e8_e10_a_record_in_the_place_of_a_state_is_not_given_up() {
    let desk = Desk::new();
    let account = desk.world.cache.create(desk.world.spec().store(desk.store.clone())).unwrap();
    let record = desk.store.bytes(account.id()).unwrap();
    // By mistake in the record store itself, under the account's id.
    assert_eq!(kind(desk.operations.begin(OperationKind::Rewrap, account.id())), Some(ErrorKind::Untrusted));
    assert_eq!(kind(desk.operations.discard_damaged(account.id())), Some(ErrorKind::Misuse));
    assert_eq!(desk.store.bytes(account.id()).unwrap(), record);
    // Nor is one that is damaged itself: it may be put right.
    let damaged = &record[..record.len() - 1];
    desk.store.plant(account.id(), damaged);
    assert_eq!(kind(desk.operations.discard_damaged(account.id())), Some(ErrorKind::Misuse));
    assert_eq!(desk.store.bytes(account.id()).unwrap(), damaged);
}

#[test]
fn e8_f6_who_runs_it_notices_an_older_state_that_is_put_back() {
    let desk = Desk::new();
    let mut run = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    run.checkpoint(b"1").unwrap();
    let old = desk.bytes();
    run.checkpoint(b"2").unwrap();
    desk.plant(&old);
    assert_eq!(kind(run.checkpoint(b"3")), Some(ErrorKind::Untrusted));
}

#[test]
fn e8_d1_d2_without_a_lease_nothing_is_noted_and_nothing_believed() {
    let desk = Desk::new();
    let mut run = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    desk.world.kms.set_enabled(KEK, false);
    desk.world.run(secs(20));
    let before = desk.bytes();
    assert_eq!(kind(run.checkpoint(b"1")), Some(ErrorKind::Revoked));
    assert_eq!(kind(desk.operations.find(TARGET)), Some(ErrorKind::Revoked));
    assert_eq!(kind(desk.operations.begin(OperationKind::Reseal, TARGET)), Some(ErrorKind::Revoked));
    assert_eq!(desk.bytes(), before);
    desk.world.kms.set_enabled(KEK, true);
    desk.world.run(secs(20));
    run.checkpoint(b"1").expect("and goes on by itself");
}

#[test]
fn e8_r14_the_nth_call_of_the_store_fails_and_the_operation_goes_on() {
    for after in [false, true] {
        for n in 0.. {
            let desk = Desk::new();
            desk.store.fail_nth(n, after);
            let mut struck = 0;
            // A failed call is made again, as its documentation says.
            let mut insist = |call: &mut dyn FnMut() -> Result<(), strongroom::Error>| {
                while let Err(error) = call() {
                    assert_eq!(error.kind(), ErrorKind::Io, "call {n}: {error}");
                    struck += 1;
                }
            };
            let mut run = None;
            insist(&mut || {
                run = match desk.operations.resume(TARGET)? {
                    Some(run) => Some(run),
                    None => Some(desk.operations.begin(OperationKind::Reseal, TARGET)?),
                };
                Ok(())
            });
            let mut run = run.unwrap();
            for step in 1..=3_u64 {
                run.progress_mut().done = step;
                insist(&mut || run.checkpoint(&step.to_be_bytes()));
            }
            insist(&mut || desk.elsewhere().find(TARGET)?.unwrap().cancel());
            insist(&mut || run.checkpoint(b"end"));
            assert!(run.is_cancelled());
            // Whether an end that failed is there, is looked up.
            if let Err(error) = run.cancelled() {
                assert_eq!(error.kind(), ErrorKind::Io);
                struck += 1;
                desk.store.calm();
                if let Some(run) = desk.elsewhere().resume(TARGET).unwrap() {
                    assert_eq!(run.cursor(), b"end");
                    run.cancelled().unwrap();
                }
            }
            desk.store.calm();
            let ended = desk.elsewhere().find(TARGET).unwrap().unwrap();
            assert_eq!((ended.status(), ended.progress().done), (&OperationStatus::Cancelled, 3));
            if struck == 0 {
                assert!(n >= 8, "there was something to strike");
                break;
            }
        }
    }
}

#[test]
fn e8_a_checkpoint_that_is_overtaken_by_a_request_to_end_loses_neither() {
    let desk = Desk::new();
    let mut run = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    desk.world.run(millis(1));
    desk.elsewhere().find(TARGET).unwrap().unwrap().cancel().unwrap();
    run.progress_mut().done = 8;
    run.checkpoint(b"8").unwrap();
    let seen = desk.elsewhere().find(TARGET).unwrap().unwrap();
    assert!(seen.is_cancel_requested());
    assert_eq!(seen.progress().done, 8);
}

#[test]
fn e8_operations_are_noted_in_files_and_seen_by_another_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("operations");
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let open = || Arc::new(strongroom::FileRecordStore::open(&path).unwrap());
    let mut run =
        Operations::new(open(), account.clone()).begin(OperationKind::Delete, account.id()).unwrap();
    run.checkpoint(b"here").unwrap();
    drop(run);
    let (record, id) = (account.record(), account.id());
    let other = World::beside(&world.clock, world.kms.clone(), secs(6), OutageGrace::None);
    let there = other.cache.attach(record, Expect::account(id).kek(world.provider(), KEK)).unwrap();
    other.run(secs(1));
    let run = Operations::new(open(), there).resume(id).unwrap().unwrap();
    assert_eq!(run.cursor(), b"here");
}

#[test]
fn e8_f2_a_cursor_is_bounded() {
    let desk = Desk::new();
    let mut run = desk.operations.begin(OperationKind::Reseal, TARGET).unwrap();
    run.checkpoint(&[7; 4096]).unwrap();
    assert_eq!(kind(run.checkpoint(&[7; 4097])), Some(ErrorKind::Limit));
    drop(run);
    assert_eq!(desk.elsewhere().resume(TARGET).unwrap().unwrap().cursor(), [7; 4096]);
}
