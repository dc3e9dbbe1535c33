//! Project Wycheproof's vectors for AES-GCM, ChaCha20-Poly1305, HKDF-SHA-256 and HMAC-SHA-256, on what this crate uses of them (goal R1).
//!
//! Vectors of other key, nonce and tag sizes cannot even be expressed in our types; they are counted as refused, so
//! that a set which changes shape is seen.

use wycheproof::{TestResult, aead, hkdf, mac};

use crate::derive;
use crate::engine::{Aead, Bound, Engine, Tag};
use crate::evidence::report;
use crate::secret::Dek;

/// What became of a set's vectors.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    valid: usize,
    invalid: usize,
    refused: usize,
}

impl Tally {
    fn count(&mut self, result: TestResult) {
        match result {
            TestResult::Valid | TestResult::Acceptable => self.valid += 1,
            TestResult::Invalid => self.invalid += 1,
        }
    }

    /// Every vector that is of our sizes was tried: what came out otherwise has failed the test by now.
    fn report(&self, what: &str, total: usize) {
        report("R1", what, self.valid + self.invalid, "=", total - self.refused);
    }
}

#[test]
fn r1_aes_256_gcm_portable() {
    aead_vectors(Engine::Portable, Aead::Aes256Gcm);
}

/// aws-lc where the feature `aws-lc` is on; the gate runs the tests with and without it.
#[test]
fn r1_aes_256_gcm_fastest() {
    aead_vectors(Engine::Fastest, Aead::Aes256Gcm);
}

#[test]
fn r1_chacha20_poly1305_portable() {
    aead_vectors(Engine::Portable, Aead::ChaCha20Poly1305);
}

#[test]
fn r1_chacha20_poly1305_fastest() {
    aead_vectors(Engine::Fastest, Aead::ChaCha20Poly1305);
}

fn aead_vectors(engine: Engine, aead: Aead) {
    let (name, set, expected) = match aead {
        Aead::Aes256Gcm => ("AES-256-GCM", aead::TestName::AesGcm, GCM_TALLY),
        Aead::ChaCha20Poly1305 => ("ChaCha20-Poly1305", aead::TestName::ChaCha20Poly1305, CHACHA_TALLY),
    };
    let set = aead::TestSet::load(set).expect("the set is well-formed");
    let total = set.number_of_tests;
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        match aead_case(engine, aead, test) {
            Some(()) => tally.count(test.result),
            None => tally.refused += 1,
        }
    }
    assert_eq!(tally.valid + tally.invalid + tally.refused, total, "every vector is accounted for");
    assert_eq!(tally, expected);
    tally.report(&format!("{name} {engine:?}"), total);
}

/// Runs one vector through all four forms; `None` where a size is not ours.
fn aead_case(engine: Engine, aead: Aead, test: &aead::Test) -> Option<()> {
    let key: [u8; 32] = test.key.as_slice().try_into().ok()?;
    let nonce: [u8; 12] = test.nonce.as_slice().try_into().ok()?;
    let tag: [u8; 16] = test.tag.as_slice().try_into().ok()?;
    let bound = Bound { nonce: &nonce, aad: &test.aad };
    let name = format!("{engine:?}, vector {}: {}", test.tc_id, test.comment);

    let mut opened = vec![0xEE; test.ct.len()];
    let to = engine.open_to(aead, &Dek::for_tests(key), bound, &Tag(tag), &test.ct, &mut opened);
    let mut in_place = test.ct.to_vec();
    let within = engine.open_in_place(aead, &Dek::for_tests(key), bound, &Tag(tag), &mut in_place);
    if test.result == TestResult::Invalid {
        assert!(to.is_err() && within.is_err(), "{name}: opened");
        return Some(());
    }
    assert!(to.is_ok() && within.is_ok(), "{name}: did not open");
    assert_eq!((&opened, &in_place), (&test.pt.to_vec(), &test.pt.to_vec()), "{name}");

    let mut sealed = vec![0xEE; test.pt.len()];
    let to = engine.seal_to(aead, &Dek::for_tests(key), bound, &test.pt, &mut sealed).expect("seals");
    let mut in_place = test.pt.to_vec();
    let within = engine.seal_in_place(aead, &Dek::for_tests(key), bound, &mut in_place).expect("seals");
    assert_eq!((to.0, within.0), (tag, tag), "{name}");
    assert_eq!((&sealed, &in_place), (&test.ct.to_vec(), &test.ct.to_vec()), "{name}");
    Some(())
}

/// Ours: a salt of at most 32 bytes (Extract's is a SHA-256) and the first 32 bytes of output, which longer outputs
/// begin with.
#[test]
fn r1_hkdf_sha_256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).expect("the set is well-formed");
    let total = set.number_of_tests;
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // An invalid vector asks for more output than HKDF has; ours is always 32 bytes.
        if test.salt.len() > 32 || test.result == TestResult::Invalid {
            tally.refused += 1;
            continue;
        }
        let mut salt = [0; 32];
        salt[..test.salt.len()].copy_from_slice(&test.salt);
        let prk = derive::hmac_for_tests(&salt, &[&test.ikm]);
        let okm = derive::hmac_for_tests(&prk, &[&test.info, &[1]]);
        let len = test.size.min(okm.len());
        assert_eq!(okm[..len], test.okm[..len], "vector {}: {}", test.tc_id, test.comment);
        tally.count(test.result);
    }
    assert_eq!(tally.valid + tally.invalid + tally.refused, total, "every vector is accounted for");
    assert_eq!(tally, HKDF_TALLY);
    tally.report("HKDF-SHA-256", total);
}

/// Ours: keys of exactly 32 bytes and whole tags.
#[test]
fn r1_hmac_sha_256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).expect("the set is well-formed");
    let total = set.number_of_tests;
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Ok(key), Ok(tag)) =
            (<[u8; 32]>::try_from(test.key.as_slice()), <[u8; 32]>::try_from(test.tag.as_slice()))
        else {
            tally.refused += 1;
            continue;
        };
        let same = derive::hmac_for_tests(&key, &[&test.msg]) == tag;
        assert_eq!(same, test.result != TestResult::Invalid, "vector {}: {}", test.tc_id, test.comment);
        tally.count(test.result);
    }
    assert_eq!(tally.valid + tally.invalid + tally.refused, total, "every vector is accounted for");
    assert_eq!(tally, HMAC_TALLY);
    tally.report("HMAC-SHA-256", total);
}

// As of version 0.7 of the crate `wycheproof`.
const GCM_TALLY: Tally = Tally { valid: 39, invalid: 27, refused: 250 };
const CHACHA_TALLY: Tally = Tally { valid: 256, invalid: 60, refused: 9 };
const HKDF_TALLY: Tally = Tally { valid: 72, invalid: 0, refused: 14 };
const HMAC_TALLY: Tally = Tally { valid: 27, invalid: 54, refused: 93 };
