//! Blocks under test: commitment, wiping, limits, every bit.

use proptest::prelude::*;

use super::*;
use crate::format::frame::MAX_BLOCK;
use crate::id::ObjectId;

const ENGINES: [Engine; 2] = [Engine::Fastest, Engine::Portable];
/// Every engine with every suite.
const MODES: [Mode; 4] = [
    Mode(Engine::Fastest, Suite::Aes256Gcm),
    Mode(Engine::Portable, Suite::Aes256Gcm),
    Mode(Engine::Fastest, Suite::Double),
    Mode(Engine::Portable, Suite::Double),
];
const NOW: Moment = Moment::from_nanos(1, 1);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mode(Engine, Suite);

fn keys(account: u8, secret: u8, Mode(engine, suite): Mode) -> GenerationKeys {
    let outer = [secret ^ 0xFF; 32];
    let outer = (suite == Suite::Double).then_some(&outer);
    keys_of(account, Secrets { inner: &[secret; 32], outer }, engine)
}

fn keys_of(account: u8, secrets: Secrets<'_>, engine: Engine) -> GenerationKeys {
    let account = AccountId::from_bytes([account; 16]);
    GenerationKeys::new(account, Generation::FIRST, secrets, MemoryLock::BestEffort)
        .expect("maps")
        .with_engine(engine)
}

fn id(index: u64) -> BlockId {
    BlockId::new(ObjectId::from_bytes([5; 16]), index)
}

fn release() -> Result<(), Error> {
    Ok(())
}

fn seal(keys: &GenerationKeys, place: &Place<'_>, data: &mut [u8]) -> Result<(Head, Tags), Error> {
    let head = keys.fresh_head(place, NOW);
    keys.seal_in_place(place, &head, data).map(|tags| (head, tags))
}

fn bytes_of(tags: &Tags) -> Vec<u8> {
    let mut bytes = tags.masked.map_or(vec![], |masked| masked.to_vec());
    bytes.extend(tags.last.0);
    bytes
}

#[test]
fn keys_use_the_engine_that_was_chosen() {
    // Their bytes do not differ, so nothing else tells.
    assert_eq!(
        MODES.map(|mode| (keys(1, 2, mode).engine, keys(1, 2, mode).suite())),
        MODES.map(|Mode(engine, suite)| (engine, suite))
    );
}

#[test]
fn debug_shows_whose_keys_they_are_and_no_byte_of_them() {
    let keys = keys(1, 2, MODES[2]);
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
            let sealed = MODES.map(|mode| {
                let mut data = plain.clone();
                let (head, tags) =
                    keys(1, 2, mode).seal_with_for_tests(&place, Nonce24::from_bytes(r), &mut data).unwrap();
                prop_assert_eq!(head.r.as_bytes(), &r);
                Ok((head.header.to_bytes(), head.commitment, data, bytes_of(&tags)))
            });
            let [fastest, portable, double_fastest, double_portable] = sealed;
            prop_assert_eq!(fastest?, portable?);
            prop_assert_eq!(double_fastest?, double_portable?);
        }
    }

    #[test]
    fn what_is_sealed_opens_in_both_forms_on_both_engines(
        plain in prop::collection::vec(any::<u8>(), 0..2000), aad in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let place = Place::block(id(0), Aad::new(&aad));
        for (sealer, opener) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3)] {
            let mut sealed = vec![0; plain.len()];
            let sealer = keys(1, 2, MODES[sealer]);
            let head = sealer.fresh_head(&place, NOW);
            let tag = sealer.seal_to(&place, &head, &plain, &mut sealed).unwrap();
            let opener = keys(1, 2, MODES[opener]);
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
    for mode in MODES {
        let keys = keys(1, 2, mode);
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
    for mode in [MODES[0], MODES[2]] {
        let keys = keys(1, 2, mode);
        assert_eq!(seal(&keys, &place, &mut large).map(drop).unwrap_err().kind(), ErrorKind::Limit);
        assert!(large.iter().all(|byte| *byte == 1));
        seal(&keys, &place, &mut large[..MAX_BLOCK]).expect("the longest block");
        large.fill(1);
    }
}

#[test]
fn d4_a_refused_release_wipes_the_output() {
    for mode in MODES {
        let keys = keys(1, 2, mode);
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
    for mode in MODES {
        let place = Place::block(id(0), Aad::EMPTY);
        let mut sealed = vec![7; 100];
        let (head, tag) = seal(&keys(1, 2, mode), &place, &mut sealed).expect("seals");

        // Another AEK of the same account, and the same secret under another account.
        for other in [keys(1, 3, mode), keys(2, 2, mode)] {
            let mut out = vec![9; 100];
            let error =
                other.open_to(&place, &head, &tag, &sealed, &mut out, release).expect_err("wrong AEK");
            assert_eq!((error.kind(), out), (ErrorKind::UnknownGeneration, vec![9; 100]), "untouched");
        }
        sealed[0] ^= 1;
        let mut out = vec![9; 100];
        let error =
            keys(1, 2, mode).open_to(&place, &head, &tag, &sealed, &mut out, release).expect_err("damaged");
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
            let mode = Mode(engine, Suite::Aes256Gcm);
            let mallory = [keys(1, 2, mode), keys(3, 4, mode)];
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
                    let (_, tags) = mallory[i].seal_with_for_tests(&place, r, &mut data).expect("seals");
                    assert_eq!(data, ciphertext);
                    u128::from_be_bytes(tags.last.0)
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
                    engine.open_in_place(Aead::Aes256Gcm, dek, bound, &tag, &mut data)
                })
                .expect("the cipher does not commit");
                data
            });
            assert_ne!(plain[0], plain[1]);

            let opens = |keys: &GenerationKeys, head| {
                keys.open_to(&place, &head, &Tags::one(tag), &ciphertext, &mut [0; 32], release).is_ok()
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

/// A block of suite 2, and what opens it.
struct Doubly {
    keys: GenerationKeys,
    place: Place<'static>,
    head: Head,
    sealed: Vec<u8>,
    tags: Tags,
}

impl Doubly {
    fn new(engine: Engine) -> Self {
        let keys = keys(1, 2, Mode(engine, Suite::Double));
        let place = Place::block(id(0), Aad::new(b"tenant"));
        let mut sealed = b"sealed twice".to_vec();
        let (head, tags) = seal(&keys, &place, &mut sealed).expect("seals");
        Self { keys, place, head, sealed, tags }
    }

    /// Both forms refuse, and leave no byte.
    fn refuses(&self, keys: &GenerationKeys, head: &Head, tags: &Tags, sealed: &[u8]) -> ErrorKind {
        let mut out = vec![0; sealed.len()];
        let to = keys.open_to(&self.place, head, tags, sealed, &mut out, release).expect_err("refused");
        assert!(out.iter().all(|byte| *byte == 0), "wiped, or untouched");
        let mut data = sealed.to_vec();
        let in_place = keys.open_in_place(&self.place, head, tags, &mut data, release).expect_err("refused");
        let wiped = data.iter().all(|byte| *byte == 0);
        assert!(wiped || data == sealed, "wiped, or untouched");
        assert_eq!(to.kind(), in_place.kind());
        to.kind()
    }
}

#[test]
fn a6_each_key_alone_opens_nothing() {
    for engine in ENGINES {
        let block = Doubly::new(engine);
        let secrets = |inner: u8, outer: u8| {
            keys_of(1, Secrets { inner: &[inner; 32], outer: Some(&[outer; 32]) }, engine)
        };
        assert!(
            block
                .keys
                .open_to(&block.place, &block.head, &block.tags, &block.sealed, &mut [0; 12], release)
                .is_ok()
        );
        for wrong in [secrets(2, 0), secrets(0, 0xFD), secrets(0xFD, 2)] {
            let kind = block.refuses(&wrong, &block.head, &block.tags, &block.sealed);
            assert_eq!(kind, ErrorKind::UnknownGeneration, "told before anything is decrypted");
            // Also where the commitment is forged.
            let head = Head { commitment: wrong.head(&block.place, block.head.r).commitment, ..block.head };
            assert_eq!(block.refuses(&wrong, &head, &block.tags, &block.sealed), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn a6_a_block_opens_under_its_own_suite_only() {
    for engine in ENGINES {
        let block = Doubly::new(engine);
        let single = keys(1, 2, Mode(engine, Suite::Aes256Gcm));
        // As it is, and with a header and a commitment that say suite 1, with either of its tags.
        let head = single.head(&block.place, block.head.r);
        let inner = Tags::one(Tag(block.tags.masked.expect("suite 2")));
        for (head, tags) in [(block.head, block.tags), (head, Tags::one(block.tags.last)), (head, inner)] {
            block.refuses(&single, &head, &tags, &block.sealed);
        }
        // And a block of suite 1 for an account of suite 2, whatever its header says.
        let mut sealed = b"sealed once!".to_vec();
        let (head, tags) = seal(&single, &block.place, &mut sealed).expect("seals");
        let forged = block.keys.head(&block.place, head.r);
        for masked in [None, Some(tags.last.0), Some([0; 16])] {
            let tags = Tags { masked, ..tags };
            assert_eq!(block.refuses(&block.keys, &head, &tags, &sealed), ErrorKind::Corrupt);
            assert_eq!(block.refuses(&block.keys, &forged, &tags, &sealed), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn a6_both_layers_are_verified() {
    for engine in ENGINES {
        let block = Doubly::new(engine);
        let outer = block.keys.prks.outer().expect("suite 2");
        // Whoever has the outer key alone can make a genuine outer layer over anything: the inner tag refuses it.
        let mut forged = b"never sealed".to_vec();
        let tags = block
            .keys
            .cover_with(outer, &block.place, &block.head, Tag([7; 16]), &mut forged)
            .expect("covers");
        assert_eq!(block.refuses(&block.keys, &block.head, &tags, &forged), ErrorKind::Corrupt);
        // Whoever has the inner key alone cannot make the outer layer.
        let mut forged = b"never sealed".to_vec();
        let single = keys(1, 2, Mode(engine, Suite::Aes256Gcm));
        let inner = single.seal_in_place(&block.place, &block.head, &mut forged).expect("seals");
        for masked in [inner.last.0, block.tags.masked.expect("suite 2")] {
            for last in [inner.last, block.tags.last] {
                let tags = Tags { masked: Some(masked), last };
                assert_eq!(block.refuses(&block.keys, &block.head, &tags, &forged), ErrorKind::Corrupt);
            }
        }
    }
}

#[test]
fn a6_r4_every_flipped_bit_of_a_block_is_refused() {
    for engine in ENGINES {
        let block = Doubly::new(engine);
        for bit in 0..8 * block.sealed.len() {
            let mut sealed = block.sealed.clone();
            sealed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(block.refuses(&block.keys, &block.head, &block.tags, &sealed), ErrorKind::Corrupt);
        }
        for bit in 0..8 * 16 {
            let flip = |mut tag: [u8; 16]| {
                tag[bit / 8] ^= 1 << (bit % 8);
                tag
            };
            let masked = Tags { masked: block.tags.masked.map(flip), ..block.tags };
            let last = Tags { last: Tag(flip(block.tags.last.0)), ..block.tags };
            for tags in [masked, last] {
                assert_eq!(block.refuses(&block.keys, &block.head, &tags, &block.sealed), ErrorKind::Corrupt);
            }
        }
    }
}

#[test]
fn a6_the_layers_of_two_blocks_do_not_mix() {
    for engine in ENGINES {
        let (one, mut other) = (Doubly::new(engine), Doubly::new(engine));
        // Two versions of one block, of one length and one place.
        other.keys = keys(1, 2, Mode(engine, Suite::Double));
        for (head, masked, last, sealed) in [
            (other.head, one.tags.masked, one.tags.last, &one.sealed),
            (one.head, other.tags.masked, one.tags.last, &one.sealed),
            (one.head, one.tags.masked, other.tags.last, &one.sealed),
            (one.head, one.tags.masked, one.tags.last, &other.sealed),
            (one.head, other.tags.masked, other.tags.last, &one.sealed),
            (one.head, other.tags.masked, other.tags.last, &other.sealed),
            (one.head, one.tags.masked, other.tags.last, &other.sealed),
        ] {
            let kind = one.refuses(&one.keys, &head, &Tags { masked, last }, sealed);
            assert_eq!(kind, ErrorKind::Corrupt);
        }
    }
}

/// Nothing that is stored depends on the inner layer alone: to whoever has the inner key, and knows plaintext and place, ciphertext and
/// tag of the inner layer stand nowhere.
#[test]
fn a6_the_outer_layer_hides_the_inner_tag_too() {
    for engine in ENGINES {
        let block = Doubly::new(engine);
        let mut inner = b"sealed twice".to_vec();
        let tag = block
            .keys
            .with_bound(&block.head, &block.place, |dek, bound| {
                engine.seal_in_place(Aead::Aes256Gcm, dek, bound, &mut inner)
            })
            .expect("seals");
        assert!(block.tags.masked != Some(tag.0) && block.tags.last.0 != tag.0 && block.sealed != inner);
        let other = Doubly::new(engine);
        assert_ne!(block.tags.masked, other.tags.masked);
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
