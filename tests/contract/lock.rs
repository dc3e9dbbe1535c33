//! The panic button: D5.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use strongroom::testing::{Answer, Call};
use strongroom::{ErrorKind, OutageGrace, Refusal, Status};

use crate::common::{Block, KEK, World, kind, millis, secs};
use crate::evidence::{count, report};

#[test]
fn d5_a_locked_account_stays_locked_whatever_the_kms_says() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let block = Block::sealed_by(&account);
    account.lock();
    assert_eq!(block.open(&account), Err(ErrorKind::Locked));
    world.run(secs(3600));
    assert_eq!(block.open(&account), Err(ErrorKind::Locked));
    assert_eq!(kind(account.ready().wait()), Some(ErrorKind::Locked));
    account.unlock().unwrap();
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn d5_an_unwrap_that_began_before_the_lock_does_not_open() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.clear_log();
    world.kms.next(Call::Unwrap, [Answer::Delay(millis(1500))]);
    world.run_until(millis(10), secs(10), || !world.unwraps().is_empty());
    account.lock();
    world.run(secs(2));
    assert_eq!(account.status(), Status::Locked);
}

#[test]
fn d5_unlock_needs_an_unwrap_that_starts_after_it() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.clear_log();
    world.kms.next(Call::Unwrap, [Answer::Delay(millis(1500)), Answer::Refused(Refusal::KeyGone)]);
    world.run_until(millis(10), secs(10), || !world.unwraps().is_empty());
    account.lock();
    let unlocking = account.begin_unlock();
    world.run(secs(5));
    assert_eq!(kind(unlocking.wait()), Some(ErrorKind::Revoked));
    assert_eq!(account.status(), Status::Locked, "a refused unlock stays locked");
    account.unlock().unwrap();
}

#[test]
fn d5_an_unlock_that_meets_silence_or_nonsense_fails_and_stays_locked() {
    let meets = [
        (Answer::Transient, ErrorKind::Unavailable),
        (Answer::Panic, ErrorKind::Unavailable),
        (Answer::OtherAek, ErrorKind::Untrusted),
        (Answer::Late(secs(3), Box::new(Answer::Ok)), ErrorKind::Unavailable),
    ];
    for (answer, expected) in meets {
        let world = World::new(6, OutageGrace::DEFAULT);
        let account = world.create();
        account.lock();
        world.kms.next(Call::Unwrap, [answer]);
        let unlocking = account.begin_unlock();
        world.run(secs(10));
        assert_eq!(kind(unlocking.wait()), Some(expected));
        assert_eq!(account.status(), Status::Locked);
        world.run(secs(600));
        assert_eq!(account.status(), Status::Locked);
        account.unlock().unwrap();
    }
}

#[test]
fn d5_a_lock_during_an_unlock_wins() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    account.lock();
    world.kms.next(Call::Unwrap, [Answer::Delay(secs(1))]);
    let unlocking = account.begin_unlock();
    world.run(millis(500));
    account.lock();
    assert_eq!(kind(unlocking.wait()), Some(ErrorKind::Locked));
    world.run(secs(600));
    assert_eq!(account.status(), Status::Locked);
    account.unlock().unwrap();
}

#[test]
fn d5_lock_closes_from_every_state() {
    let world = World::new(6, OutageGrace::For(secs(60)));
    let (account, _) = world.attached();
    account.lock();
    world.run(secs(60));
    assert_eq!(account.status(), Status::Locked, "before it ever was ready");
    account.unlock().unwrap();
    world.kms.set_enabled(KEK, false);
    world.run(secs(12));
    account.lock();
    world.kms.set_enabled(KEK, true);
    world.run(secs(60));
    assert_eq!(account.status(), Status::Locked, "recovery does not pass a lock");
    account.unlock().unwrap();
    world.kms.every_call(&Answer::Transient);
    world.run(secs(30));
    assert!(matches!(account.status(), Status::Grace { .. }));
    account.lock();
    assert_eq!(account.status(), Status::Locked);
    assert_eq!(kind(account.unlock()), Some(ErrorKind::Unavailable));
}

#[test]
fn d5_unlocking_what_is_not_locked_asks_nobody() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.clear_log();
    account.unlock().unwrap();
    assert_eq!(world.kms.log().len(), 0);
}

/// Seven threads open as fast as they can while one locks and unlocks. An open that began after `lock` had
/// returned, and ended before `unlock` was called, must have failed.
#[test]
fn d5_no_open_that_starts_after_lock_has_returned_releases() {
    let wanted = count(if cfg!(debug_assertions) { 50_000 } else { 1_000_000 }, 5_000_000, 100_000_000);
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let block = Block::sealed_by(&account);
    let (turn, released) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (opens, behind_the_lock, too_late) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..7 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let before = turn.load(Ordering::SeqCst);
                    let result = block.open(&account);
                    let after = turn.load(Ordering::SeqCst);
                    // Odd while locked.
                    if before % 2 == 1 && before == after {
                        behind_the_lock.fetch_add(1, Ordering::Relaxed);
                        too_late.fetch_add(u64::from(result != Err(ErrorKind::Locked)), Ordering::Relaxed);
                    }
                    opens.fetch_add(1, Ordering::Relaxed);
                    released.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
                }
            });
        }
        let _readers_end = OnDrop(|| stop.store(true, Ordering::Relaxed));
        let mut rounds = 0;
        // One that was released is enough to know.
        while too_late.load(Ordering::Relaxed) == 0
            && (opens.load(Ordering::Relaxed) < wanted || rounds < 200)
        {
            account.lock();
            turn.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            turn.fetch_add(1, Ordering::SeqCst);
            world.run(secs(6));
            account.unlock().unwrap();
            thread::yield_now();
            rounds += 1;
        }
    });
    let [opens, behind, too_late] = [opens, behind_the_lock, too_late].map(AtomicU64::into_inner);
    report("R8", "racing reads", opens, ">=", wanted);
    report("R8", "of them begun after lock() had returned", behind, ">", 0);
    report("R8", "of these released", too_late, "=", 0);
    assert!(released.load(Ordering::Relaxed) > 0 && behind > 0);
    assert_eq!(too_late, 0, "of {behind} reads that began after `lock` had returned");
}

/// Readers that spin until they are told to stop are told so by a panic too: it would otherwise wait for them.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}
