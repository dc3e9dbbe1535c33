//! What an account with a second provider takes along where a directory drops it and attaches it again. A7 with C7.

use super::*;

const LIMIT: Duration = secs(3600);

#[test]
fn a7_c7_neither_an_idle_drop_nor_registering_anew_lengthens_the_limit() {
    for (anew, registered_anew) in [(false, false), (false, true), (true, false), (true, true)] {
        let two = Two::new(Custody::Failover(LIMIT));
        let cache = two.cache(OutageGrace::None);
        let block = Block::sealed_by(&two.create(&cache));
        cache.drive();
        let again = two.cache(OutageGrace::None);
        let directory = Directory::builder(again.clone(), two.store.clone());
        let directory = directory.idle_after(Some(secs(60))).build().unwrap();
        directory.register(two.expect()).unwrap();
        let account = directory.account(two.id).unwrap();
        if !anew {
            again.run_for(NANO);
            assert_eq!(seen(&account), Some(Seen::Fresh));
        }
        Says::Silent.tell(&two.first);
        again.run_for(secs(1800));
        assert_eq!(block.open(&account), Ok(()));
        two.clock.jump_wall_back(secs(1500));
        drop(account);
        if registered_anew {
            assert!(directory.unregister(two.id));
            directory.register(two.expect()).unwrap();
        }
        again.run_for(STEP);
        assert_eq!(again.stats().accounts, 0, "it is idle");
        let account = directory.account(two.id).unwrap();
        again.run_for(LIMIT - secs(1800) - STEP - secs(1));
        assert_eq!(block.open(&account), Ok(()), "{anew}");
        again.run_for(secs(2));
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{anew}");
        again.run_for(LIMIT);
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{anew}");
    }
}

#[test]
fn a7_a_refusal_that_cannot_be_recorded_bars_also_where_the_account_is_registered_anew() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let block = Block::sealed_by(&two.create(&cache));
    cache.drive();
    let again = two.cache(OutageGrace::None);
    let directory = Directory::builder(again.clone(), two.store.clone()).build().unwrap();
    directory.register(two.expect()).unwrap();
    let account = directory.account(two.id).unwrap();
    again.run_for(NANO);
    assert_eq!(block.open(&account), Ok(()));
    let open = two.store.bytes(two.id).unwrap();
    Says::Refused.tell(&two.first);
    two.store.fail_nth(2, false);
    while block.open(&account).is_ok() {
        again.run_for(secs(1));
    }
    again.run_for(secs(1));
    Says::Silent.tell(&two.first);
    assert_eq!((seen(&account), two.store.bytes(two.id).unwrap() == open), (Some(Seen::Revoked), true));
    drop(account);
    assert!(directory.unregister(two.id));
    directory.register(two.expect()).unwrap();
    two.second.clear_log();
    let account = directory.account(two.id).unwrap();
    again.run_for(secs(600));
    assert!(block.open(&account).is_err(), "{:?}", account.status());
    assert_eq!(two.second.log(), []);
}
