//! What an unwrap leaves in the memory of its process, SoftHSM's included.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use strongroom::provider::pkcs11::Algorithm;
use strongroom::provider::{Kek, KeyProvider, WrapContext, WrapInput};
use strongroom::{AccountId, Generation};
use strongroom_kms_tests::softhsm::SoftHsm;

use crate::world::{KEK, builder, customer, usage, with_a_token};

/// The last 32 of the 56 bytes, each turned around: so that looking for them does not put them where they are looked for.
struct Needle([u8; 32]);

impl Needle {
    /// How many copies there are in what this process may write to.
    fn copies(&self) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut memory = File::open("/proc/self/mem").unwrap();
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (range, _) = line.split_once(' ').unwrap();
            let (begin, end) = range.split_once('-').unwrap();
            let address = |text| usize::from_str_radix(text, 16).unwrap();
            let mut page = vec![0_u8; address(end) - address(begin)];
            memory.seek(SeekFrom::Start(address(begin) as u64)).unwrap();
            // Pages that cannot be read hold nothing of ours.
            if memory.read_exact(&mut page).is_ok() {
                let own = page.as_ptr() as usize..page.as_ptr() as usize + page.len();
                let hits = (0..page.len().saturating_sub(31)).filter(|at| {
                    // The first byte decides nearly always: this runs without optimisation.
                    page[*at] == !self.0[0]
                        && page[*at..*at + 32].iter().zip(&self.0).all(|(byte, turned)| *byte == !turned)
                        && !own.contains(&(address(begin) + at))
                });
                found += hits.count();
            }
            page.fill(0);
            std::hint::black_box(&page);
        }
        found
    }
}

fn residue_of(hsm: &SoftHsm, algorithm: Algorithm) -> (usize, usize) {
    match algorithm {
        Algorithm::RsaOaepSha1 => customer(hsm, &["create-pair", KEK, "1"]).unwrap(),
        _ => customer(hsm, &["create", KEK, "1", usage(algorithm)]).unwrap(),
    }
    let provider = builder().algorithm(algorithm).build().unwrap();
    let context = WrapContext::for_tests(AccountId::random(), Generation::FIRST);
    let mut bytes = [0_u8; WrapInput::LEN];
    for half in bytes[24..].chunks_mut(16) {
        half.copy_from_slice(AccountId::random().as_bytes());
    }
    let needle = Needle(std::array::from_fn(|at| !bytes[24 + at]));
    let secret = WrapInput::from_slice(&bytes).unwrap();
    bytes.fill(0);
    std::hint::black_box(&bytes);
    let wrapped = provider.wrap(&Kek::latest(KEK), &context, &secret).unwrap();
    drop(secret);
    for _ in 0..20 {
        provider.unwrap(&wrapped, &context).unwrap();
    }
    let last = provider.unwrap(&wrapped, &context).unwrap();
    let control = needle.copies();
    drop(last);
    (control, needle.copies())
}

with_a_token! {
    fn aes_gcm_leaves_no_aek_in_memory(hsm: &SoftHsm) {
        let (control, left) = residue_of(hsm, Algorithm::AesGcm);
        assert!(control > 0, "the positive control");
        assert_eq!(left, 0);
    }

    fn rsa_leaves_no_aek_in_memory(hsm: &SoftHsm) {
        let (control, left) = residue_of(hsm, Algorithm::RsaOaepSha1);
        assert!(control > 0, "the positive control");
        assert_eq!(left, 0);
    }
}
