//! Custody under double encryption: the first AEK is held by two KEKs, the second one by a third. A7 with A6 and E4.

use strongroom::provider::KekVersion;
use strongroom::{Error, Suite, peek};

use super::*;

const ACTIVE: Duration = secs(132);
const BOTH: [Custody; 2] = [FAILOVER, Custody::Joint];

type Rotate = fn(&Account, RotateTo) -> Result<Retire, Error>;

/// A block of each of three generations, and a machine that has read none of the records before.
fn rotated(two: &Two) -> (AekCache, Account, Vec<Block>) {
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let mut blocks = vec![Block::sealed_by(&account)];
    for number in 2..=3 {
        let before = account.record().fingerprint();
        assert_eq!(account.rotate_aek().unwrap().generation.number(), number);
        assert_ne!(account.record().fingerprint(), before);
        cache.run_for(ACTIVE);
        blocks.push(Block::sealed_by(&account));
    }
    for (block, number) in blocks.iter().zip(1..) {
        let info = peek(&block.frame).unwrap();
        assert_eq!((info.generation().number(), info.suite()), (number, Suite::Double));
    }
    (cache, account, blocks)
}

fn all_open(account: &Account, blocks: &[Block]) -> Result<(), ErrorKind> {
    blocks.iter().try_for_each(|block| block.open(account))
}

#[test]
fn a7_a6_e4_every_generation_takes_one_unwrap_of_each_and_each_kms_takes_all_of_them_away() {
    for custody in BOTH {
        let two = Two::doubled(custody);
        let (_cache, _account, blocks) = rotated(&two);
        for kms in [&two.first, &two.second, two.outer.as_ref().unwrap()] {
            kms.clear_log();
        }
        let again = two.cache(OutageGrace::None);
        let account = two.attach(&again);
        again.run_for(secs(1));
        assert_eq!(all_open(&account, &blocks), Ok(()));
        let needed = two.needed();
        assert!(needed.iter().all(|kms| kms.calls(Call::Unwrap) == 1), "one unwrap of each");
        assert_eq!(two.second.calls(Call::Unwrap), usize::from(custody == Custody::Joint));
        for kms in needed {
            for (says, expected) in
                [(Says::Refused, ErrorKind::Revoked), (Says::Silent, ErrorKind::Unavailable)]
            {
                // A first one that is silent is what the second one of a failover is for.
                let stands_in =
                    custody == FAILOVER && says == Says::Silent && kms.authority() == two.first.authority();
                says.tell(kms);
                again.run_for(STEP);
                let expected = if stands_in { Ok(()) } else { Err(expected) };
                assert_eq!(blocks[0].open(&account), expected, "{custody:?} {says:?} {:?}", kms.authority());
                assert_eq!(blocks[2].open(&account), expected);
                Says::Ok.tell(kms);
                again.run_for(STEP);
                assert_eq!((seen(&account), all_open(&account, &blocks)), (Some(Seen::Fresh), Ok(())));
            }
        }
    }
}

#[test]
fn a7_a6_the_second_kek_stands_in_beside_the_outer_one_and_not_without_it() {
    let two = Two::doubled(FAILOVER);
    let (_cache, _account, blocks) = rotated(&two);
    let outer = two.outer.as_ref().unwrap();
    // A process that starts in an outage of the first.
    Says::Silent.tell(&two.first);
    let cache = two.cache(OutageGrace::None);
    let account = two.attach(&cache);
    cache.run_for(STEP);
    assert_eq!((seen(&account), all_open(&account, &blocks)), (Some(Seen::Grace), Ok(())));
    Says::Silent.tell(outer);
    cache.run_for(STEP);
    assert_eq!(all_open(&account, &blocks), Err(ErrorKind::Unavailable));
    Says::Ok.tell(outer);
    cache.run_for(STEP);
    assert_eq!(all_open(&account, &blocks), Ok(()));
    Says::Refused.tell(outer);
    cache.run_for(STEP);
    assert_eq!(all_open(&account, &blocks), Err(ErrorKind::Revoked));
    // Whoever has the outer one back and the first one not is where it was before: at most as open as without double encryption.
    Says::Ok.tell(outer);
    Says::Ok.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!((seen(&account), all_open(&account, &blocks)), (Some(Seen::Fresh), Ok(())));
}

#[test]
fn a7_a6_e1_each_of_three_keks_is_rotated_by_itself_after_the_aek_was() {
    for custody in BOTH {
        let two = Two::doubled(custody);
        let (cache, account, blocks) = rotated(&two);
        let outer = two.outer.as_ref().unwrap();
        let versions = |account: &Account| {
            let record = account.record();
            let all = [Some(record.kek_version()), record.second_kek_version(), record.outer_kek_version()];
            all.map(|version| version.unwrap().as_str().to_owned())
        };
        for (kms, rotate, expected) in [
            (outer, Account::rotate_outer_kek as Rotate, ["1", "1", "2"]),
            (&two.second, Account::rotate_second_kek, ["1", "2", "2"]),
            (&two.first, Account::rotate_kek, ["2", "2", "2"]),
        ] {
            kms.add_version(KEK);
            assert!(matches!(rotate(&account, RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
            assert_eq!(versions(&account), expected);
            kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
        }
        cache.run_for(STEP);
        assert_eq!((seen(&account), all_open(&account, &blocks)), (Some(Seen::Fresh), Ok(())));
        // A new AEK goes under what is the newest by then, of each.
        for kms in [&two.first, &two.second, outer] {
            kms.add_version(KEK);
        }
        account.rotate_aek().unwrap();
        assert_eq!(versions(&account), ["3", "3", "3"]);
        cache.run_for(ACTIVE);
        let again = two.cache(OutageGrace::None);
        let anew = two.attach(&again);
        again.run_for(secs(1));
        assert_eq!(all_open(&anew, &blocks), Ok(()));
    }
}
