//! Derivations beside the `hkdf` and `hmac` crates, and published vectors.

use hkdf::Hkdf;
use hmac::{KeyInit, Mac};
use proptest::prelude::*;

use super::*;
use crate::id::ObjectId;

fn prk_of(secret: &[u8; 32], account: [u8; 16], generation: u32) -> (Prk, Hkdf<Sha256>) {
    let account = AccountId::from_bytes(account);
    let generation = Generation::new(generation).expect("not zero");
    let ours =
        Prk::extract(account, generation, Family::Inner, secret, MemoryLock::BestEffort).expect("maps");
    (ours, reference(secret, account, generation, 1))
}

/// The PRK of a family as the `hkdf` crate extracts it.
fn reference(secret: &[u8; 32], account: AccountId, generation: Generation, family: u8) -> Hkdf<Sha256> {
    let mut salt = b"strongroom/v1".to_vec();
    salt.extend_from_slice(account.as_bytes());
    salt.extend_from_slice(&generation.number().to_be_bytes());
    salt.push(family);
    Hkdf::new(Some(&Sha256::digest(salt)), secret)
}

fn hmac_reference(key: [u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut reference = hmac::Hmac::<Sha256>::new_from_slice(&key).expect("any length is a key");
    parts.iter().for_each(|part| reference.update(part));
    reference.finalize().into_bytes().into()
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf.expand(info, &mut out).expect("32 bytes are not too many");
    out
}

proptest! {
    #[test]
    fn a3_a6_a_dek_is_hkdf_of_the_documented_info(
        secret: [u8; 32], account: [u8; 16], generation in 1..=u32::MAX, object: [u8; 16], index: u64, r: [u8; 24],
    ) {
        let (ours, theirs) = prk_of(&secret, account, generation);
        let id = BlockId::new(ObjectId::from_bytes(object), index);
        let uses = [(DekUse::Inner, b"SRD1"), (DekUse::Outer, b"SRD2"), (DekUse::Mask, b"SRT2")];
        let kinds = [(Kind::Block, 1), (Kind::ObjectFrame, 2)];
        let suites = [(Suite::Aes256Gcm, 1), (Suite::Double, 2)];
        for ((kind, number), ((purpose, label), (suite, suite_number))) in
            kinds.into_iter().flat_map(|kind| uses.into_iter().flat_map(move |of| suites.map(move |s| (kind, (of, s)))))
        {
            let mut info = label.to_vec();
            info.extend_from_slice(&[suite_number, number]);
            info.extend_from_slice(&object);
            info.extend_from_slice(&index.to_be_bytes());
            info.extend_from_slice(&r);
            prop_assert_eq!(info.len(), 54);
            let mut dek = Dek::empty();
            ours.dek(purpose, suite, kind, id, &Nonce24::from_bytes(r), &mut dek);
            prop_assert_eq!(dek.expose(), &expand(&theirs, &info));
        }
        prop_assert_eq!(*ours.kcv().as_bytes(), expand(&theirs, b"SRK1"));
    }

    #[test]
    fn a6_a_mac_is_hmac_under_a_key_of_its_own_label_and_under_both_keys_where_there_are_two(
        secret: [u8; 32], second: [u8; 32], name in "[a-z-]{0,80}", parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
    ) {
        let account = AccountId::from_bytes([3; 16]);
        let prks = |secrets| Prks::extract(account, Generation::FIRST, secrets, MemoryLock::BestEffort).expect("maps");
        let (single, double) = (prks(Secrets::single(&secret)), prks(Secrets { inner: &secret, outer: Some(&second) }));
        let inner = reference(&secret, account, Generation::FIRST, 1);
        let outer = reference(&second, account, Generation::FIRST, 2);
        let slices: Vec<&[u8]> = [name.as_bytes(), &[0]].into_iter().chain(parts.iter().map(Vec::as_slice)).collect();
        let given = &slices[2..];
        let uses = [
            (MacUse::Record, b"SRR1"),
            (MacUse::ObjectHeader, b"SRH1"),
            (MacUse::Scope, b"SRS1"),
            (MacUse::Operation, b"SRW1"),
        ];
        for (purpose, label) in uses {
            let one = hmac_reference(expand(&inner, label), &slices);
            let both: Vec<&[u8]> = slices.iter().copied().chain([one.as_slice()]).collect();
            let both = hmac_reference(expand(&outer, label), &both);
            for (ours, theirs, other) in [(&single, one, both), (&double, both, one)] {
                prop_assert_eq!(ours.mac(purpose, name.as_bytes(), given), theirs);
                prop_assert!(ours.verify_mac(purpose, name.as_bytes(), given, &theirs).is_ok());
                prop_assert!(ours.verify_mac(purpose, name.as_bytes(), given, &other).is_err());
                let mut wrong = theirs;
                wrong[31] ^= 1;
                prop_assert!(ours.verify_mac(purpose, name.as_bytes(), given, &wrong).is_err());
            }
        }
    }

    #[test]
    fn a6_f5_two_keys_have_one_check_value_that_either_changes(
        secret: [u8; 32], second: [u8; 32], other: [u8; 32],
    ) {
        prop_assume!(other != secret && other != second);
        let account = AccountId::from_bytes([3; 16]);
        let prks = |inner, outer| {
            Prks::extract(account, Generation::FIRST, Secrets { inner, outer }, MemoryLock::BestEffort).expect("maps")
        };
        let ours = prks(&secret, Some(&second)).kcv();
        let [inner, outer] = [(&secret, 1), (&second, 2)]
            .map(|(secret, family)| expand(&reference(secret, account, Generation::FIRST, family), b"SRK1"));
        let both = Sha256::digest([b"strongroom/v1 both".as_slice(), &inner, &outer].concat());
        prop_assert_eq!(ours.as_bytes(), both.as_slice());
        for wrong in [prks(&other, Some(&second)), prks(&secret, Some(&other)), prks(&secret, None)] {
            prop_assert!(!ours.ct_eq(&wrong.kcv()));
        }
    }
}

#[test]
fn hmac_matches_at_every_length_around_a_block() {
    let message: Vec<u8> = (0..200).map(|i: u8| i.wrapping_mul(7)).collect();
    for len in 0..message.len() {
        let mut reference = hmac::Hmac::<Sha256>::new_from_slice(&[9; 32]).expect("any length is a key");
        reference.update(&message[..len]);
        let reference: [u8; 32] = reference.finalize().into_bytes().into();
        let (a, b) = message[..len].split_at(len / 3);
        assert_eq!(hmac_for_tests(&[9; 32], &[a, b]), reference, "{len} bytes");
    }
}

/// RFC 5869, appendix A.1, for the part of HKDF that is used here: its PRK, and the first 32 bytes of its OKM.
#[test]
fn rfc5869_test_case_1() {
    let prk = hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
    let info = [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9];
    let okm = hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
    assert_eq!(hmac_for_tests(&prk, &[&info, &[1]]), okm);
    // Extract: the salt is the HMAC key; one shorter than a block is padded with zeros.
    let mut salt = [0; 32];
    (0..13).for_each(|i| salt[usize::from(i)] = i);
    assert_eq!(hmac_for_tests(&salt, &[&[0x0b; 22]]), prk);
}

#[test]
fn f5_accounts_generations_and_secrets_have_their_own_check_value() {
    let (base, _) = prk_of(&[1; 32], [1; 16], 1);
    for (secret, account, generation) in [([2; 32], [1; 16], 1), ([1; 32], [2; 16], 1), ([1; 32], [1; 16], 2)]
    {
        let (other, _) = prk_of(&secret, account, generation);
        assert!(!base.kcv().ct_eq(&other.kcv()));
    }
    let (same, _) = prk_of(&[1; 32], [1; 16], 1);
    assert!(base.kcv().ct_eq(&same.kcv()));
}

#[test]
fn a3_every_write_draws_another_nonce_and_every_lease_another_salt() {
    let (first, _) = prk_of(&[1; 32], [1; 16], 1);
    let (second, _) = prk_of(&[1; 32], [1; 16], 1);
    let salt = |prk: &Prk| prk.slot.load::<{ SALT_WORDS.start }, 3>();
    assert_ne!(salt(&first), salt(&second));
    let now = Moment::from_nanos(1, 1);
    assert_ne!(first.fresh_nonce(now), first.fresh_nonce(now));
}

/// Salt and clock are mixed in so that nothing is taken out: no bit of a nonce hangs on them alone.
#[test]
fn a3_every_bit_of_a_nonce_is_drawn_whatever_salt_and_clock_hold() {
    let (prk, _) = prk_of(&[1; 32], [1; 16], 1);
    for boot_nanos in [0, u64::MAX] {
        let (mut ever, mut always) = ([0; 3], [u64::MAX; 3]);
        for _ in 0..128 {
            for (at, word) in prk.fresh_nonce(Moment::from_nanos(boot_nanos, 1)).0.into_iter().enumerate() {
                ever[at] |= word;
                always[at] &= word;
            }
        }
        // By chance alone one of these fails once in 2^118 runs.
        assert_eq!((ever, always), ([u64::MAX; 3], [0; 3]), "boot clock at {boot_nanos}");
    }
}

#[test]
fn debug_shows_no_byte() {
    let (prk, _) = prk_of(&[1; 32], [1; 16], 1);
    assert_eq!(format!("{prk:?} {:?} {:?}", prk.kcv(), Dek::for_tests([7; 32])), "Prk(..) Kcv(..) Dek(..)");
    assert_eq!(format!("{:?}", Secrets::single(&[1; 32])), "Secrets(..)");
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal"))
}
