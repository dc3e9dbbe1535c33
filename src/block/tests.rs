//! Blocks under test: commitment, wiping, limits, every bit.

use proptest::prelude::*;

use super::*;
use crate::format::frame::MAX_BLOCK;
use crate::id::ObjectId;

const ENGINES: [Engine; 2] = [Engine::Fastest, Engine::Portable];
const NOW: Moment = Moment::from_nanos(1, 1);

fn keys(account: u8, secret: u8, engine: Engine) -> GenerationKeys {
    let account = AccountId::from_bytes([account; 16]);
    GenerationKeys::new(account, Generation::FIRST, Secrets::single(&[secret; 32]), MemoryLock::BestEffort)
        .expect("maps")
        .with_engine(engine)
}

fn id(index: u64) -> BlockId {
    BlockId::new(ObjectId::from_bytes([5; 16]), index)
}

fn release() -> Result<(), Error> {
    Ok(())
}

fn seal(keys: &GenerationKeys, place: &Place<'_>, data: &mut [u8]) -> Result<(Head, Tag), Error> {
    let head = keys.fresh_head(place, NOW);
    keys.seal_in_place(place, &head, data).map(|tag| (head, tag))
}

#[test]
fn keys_use_the_engine_that_was_chosen() {
    // Their bytes do not differ, so nothing else tells.
    assert_eq!(ENGINES.map(|engine| keys(1, 2, engine).engine), ENGINES);
}

#[test]
fn debug_shows_whose_keys_they_are_and_no_byte_of_them() {
    let keys = keys(1, 2, Engine::default());
    assert_eq!(format!("{keys:?}"), format!("GenerationKeys({} generation 1)", keys.account));
}

proptest! {
    #[test]
    fn both_engines_seal_to_the_same_bytes(
        r: [u8; 24], index: u64, last: bool,
        plain in prop::collection::vec(any::<u8>(), 0..2000),
        aad in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for place in [Place::block(id(index), Aad::new(&aad)), Place::object_frame(id(index), last)] {
            let sealed = ENGINES.map(|engine| {
                let mut data = plain.clone();
                let (head, tag) =
                    keys(1, 2, engine).seal_with_for_tests(&place, Nonce24::from_bytes(r), &mut data).unwrap();
                prop_assert_eq!(head.r.as_bytes(), &r);
                Ok((head.header.to_bytes(), head.commitment, data, tag.0))
            });
            let [fastest, portable] = sealed;
            prop_assert_eq!(fastest?, portable?);
        }
    }

    #[test]
    fn what_is_sealed_opens_in_both_forms_on_both_engines(
        plain in prop::collection::vec(any::<u8>(), 0..2000), aad in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let place = Place::block(id(0), Aad::new(&aad));
        for (sealer, opener) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let mut sealed = vec![0; plain.len()];
            let sealer = keys(1, 2, ENGINES[sealer]);
            let head = sealer.fresh_head(&place, NOW);
            let tag = sealer.seal_to(&place, &head, &plain, &mut sealed).unwrap();
            let opener = keys(1, 2, ENGINES[opener]);
            let mut out = vec![0; plain.len()];
            opener.open_to(&place, &head, &tag, &sealed, &mut out, release).unwrap();
            prop_assert_eq!(&out, &plain);
            opener.open_in_place(&place, &head, &tag, &mut sealed, release).unwrap();
            prop_assert_eq!(&sealed, &plain);
        }
    }
}

#[test]
fn f2_blocks_and_aad_are_bounded_before_anything_is_touched() {
    for engine in ENGINES {
        let keys = keys(1, 2, engine);
        let long = [0; MAX_AAD + 1];
        let mut data = *b"data";
        let place = Place::block(id(0), Aad::new(&long));
        assert_eq!(seal(&keys, &place, &mut data).map(drop).unwrap_err().kind(), ErrorKind::Limit);
        assert_eq!(&data, b"data");
        let place = Place::block(id(0), Aad::new(&long[..MAX_AAD]));
        let (head, tag) = seal(&keys, &place, &mut data).expect("the longest AAD");
        keys.open_in_place(&place, &head, &tag, &mut data, release).expect("opens");
        assert_eq!(&data, b"data");
    }
    let mut large = vec![1; MAX_BLOCK + 1];
    let place = Place::block(id(0), Aad::EMPTY);
    let keys = keys(1, 2, Engine::Fastest);
    assert_eq!(seal(&keys, &place, &mut large).map(drop).unwrap_err().kind(), ErrorKind::Limit);
    assert!(large.iter().all(|byte| *byte == 1));
    seal(&keys, &place, &mut large[..MAX_BLOCK]).expect("the longest block");
}

#[test]
fn d4_a_refused_release_wipes_the_output() {
    for engine in ENGINES {
        let keys = keys(1, 2, engine);
        let place = Place::block(id(0), Aad::EMPTY);
        let mut sealed = vec![7; 1000];
        let (head, tag) = seal(&keys, &place, &mut sealed).expect("seals");
        let refuse = || Err(Error::new(ErrorKind::Revoked, "meanwhile"));
        let mut out = vec![9; 1000];
        let error = keys.open_to(&place, &head, &tag, &sealed, &mut out, refuse).expect_err("not released");
        assert_eq!((error.kind(), out), (ErrorKind::Revoked, vec![0; 1000]));
        keys.open_in_place(&place, &head, &tag, &mut sealed, refuse).expect_err("not released");
        assert_eq!(sealed, vec![0; 1000]);
    }
}

#[test]
fn a5_a_wrong_aek_is_told_from_damaged_data_and_before_decryption() {
    for engine in ENGINES {
        let place = Place::block(id(0), Aad::EMPTY);
        let mut sealed = vec![7; 100];
        let (head, tag) = seal(&keys(1, 2, engine), &place, &mut sealed).expect("seals");

        // Another AEK of the same account, and the same secret under another account.
        for other in [keys(1, 3, engine), keys(2, 2, engine)] {
            let mut out = vec![9; 100];
            let error =
                other.open_to(&place, &head, &tag, &sealed, &mut out, release).expect_err("wrong AEK");
            assert_eq!((error.kind(), out), (ErrorKind::UnknownGeneration, vec![9; 100]), "untouched");
        }
        sealed[0] ^= 1;
        let mut out = vec![9; 100];
        let error =
            keys(1, 2, engine).open_to(&place, &head, &tag, &sealed, &mut out, release).expect_err("damaged");
        assert_eq!((error.kind(), out), (ErrorKind::Corrupt, vec![0; 100]), "wiped");
    }
}

/// AES-GCM does not commit to its key: whoever knows two keys can make one ciphertext that verifies under
/// both. The tag is affine in any one block of the ciphertext, under each key; so the block that makes
/// both tags equal solves a linear system of 128 equations. No field arithmetic is needed: the
/// columns of the two maps are read off by sealing the 128 unit vectors.
#[test]
fn f5_a_frame_built_to_open_under_two_accounts_is_refused() {
    for engine in ENGINES {
        for kind in [Kind::Block, Kind::ObjectFrame] {
            let place = Place { kind, last: false, id: id(7), aad: Aad::EMPTY };
            let r = Nonce24::from_bytes([0x5C; 24]);
            let mallory = [keys(1, 2, engine), keys(3, 4, engine)];
            let [first, second] = &mallory;

            let keystreams = mallory.each_ref().map(|keys| {
                let mut zeros = [0; 32];
                keys.seal_with_for_tests(&place, r, &mut zeros).expect("seals");
                zeros
            });
            // Under both keys, the tag of the ciphertext "this block is chosen" || free.
            let tags = |free: u128| {
                let mut ciphertext = *b"first half fixed................";
                ciphertext[16..].copy_from_slice(&free.to_be_bytes());
                let tags = [0, 1].map(|i| {
                    let mut data = ciphertext;
                    data.iter_mut().zip(keystreams[i]).for_each(|(byte, key)| *byte ^= key);
                    let (_, tag) = mallory[i].seal_with_for_tests(&place, r, &mut data).expect("seals");
                    assert_eq!(data, ciphertext);
                    u128::from_be_bytes(tag.0)
                });
                (ciphertext, tags)
            };
            let difference = |free| tags(free).1.into_iter().fold(0, |a, b| a ^ b);
            let constant = difference(0);
            let columns: Vec<u128> = (0..128).map(|bit| difference(1 << bit) ^ constant).collect();
            let free = solve(&columns, constant).expect("the sum of two powers of H is invertible");

            let (ciphertext, [tag, same_tag]) = tags(free);
            assert_eq!(tag, same_tag, "one frame, two keys");
            let tag = Tag(tag.to_be_bytes());

            // The positive control: the cipher alone accepts it twice, with different plaintexts.
            let plain = mallory.each_ref().map(|keys| {
                let mut data = ciphertext;
                let head = keys.head(&place, r);
                keys.with_bound(&head, &place, |dek, bound| {
                    engine.open_in_place(dek, bound, &tag, &mut data)
                })
                .expect("the cipher does not commit");
                data
            });
            assert_ne!(plain[0], plain[1]);

            let opens = |keys: &GenerationKeys, head| {
                keys.open_to(&place, &head, &tag, &ciphertext, &mut [0; 32], release).is_ok()
            };
            let heads = mallory.each_ref().map(|keys| keys.head(&place, r));
            match kind {
                // Whatever commitment the frame is given, one of the two at most opens it.
                Kind::Block => {
                    assert!(opens(first, heads[0]) && !opens(second, heads[0]));
                    assert!(!opens(first, heads[1]) && opens(second, heads[1]));
                }
                // Frames of an object rely on the MAC in its header, which is checked before any frame is.
                Kind::ObjectFrame => assert!(opens(first, heads[0]) && opens(second, heads[0])),
            }
        }
    }
}

/// `x` such that the sum of the columns at its set bits is `target`: Gaussian elimination over GF(2).
fn solve(columns: &[u128], mut target: u128) -> Option<u128> {
    // Each entry: a reduced column with its leading bit, and which columns it is the sum of.
    let mut basis: Vec<(u128, u128)> = Vec::new();
    let reduce = |basis: &[(u128, u128)], mut value: u128, mut from: u128| {
        for (column, parts) in basis {
            if value & (1 << column.ilog2()) != 0 {
                value ^= column;
                from ^= parts;
            }
        }
        (value, from)
    };
    for (bit, column) in columns.iter().enumerate() {
        let (value, from) = reduce(&basis, *column, 1 << bit);
        if value != 0 {
            basis.push((value, from));
        }
    }
    let mut solution = 0;
    (target, solution) = reduce(&basis, target, solution);
    (target == 0).then_some(solution)
}
