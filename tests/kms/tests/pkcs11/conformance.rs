//! The library's own suite, for each way to wrap that SoftHSM has.

use std::cell::Cell;

use strongroom::provider::pkcs11::Algorithm;
use strongroom::testing::conformance::{self, Subject};
use strongroom_kms_tests::softhsm::SoftHsm;

use crate::world::{KEK, builder, customer, usage, with_a_token};

/// The customer acts in another process; ids count up from one.
fn conforms(hsm: &SoftHsm, algorithm: Algorithm) {
    let rsa = matches!(algorithm, Algorithm::RsaOaepSha1 | Algorithm::RsaOaepSha256);
    let usage = usage(algorithm);
    let newest = Cell::new(0_u8);
    let rotate = || {
        let id = newest.get() + 1;
        newest.set(id);
        let id = id.to_string();
        if rsa {
            customer(hsm, &["create-pair", KEK, &id])
        } else {
            customer(hsm, &["create", KEK, &id, usage])
        }
    };
    rotate().unwrap();
    // A version that is destroyed leaves the one before it current: the whole KEK goes.
    let each_version = |act: &dyn Fn(&str, &str) -> Result<(), String>| {
        (1..=newest.get()).try_for_each(|id| {
            let backup = hsm.folder().join(format!("backup-{id}"));
            act(&id.to_string(), backup.to_str().unwrap())
        })
    };
    let newest_id = || newest.get().to_string();
    let provider = builder().algorithm(algorithm).build().unwrap();
    let mut subject = Subject::new(&provider, KEK)
        .on_rotate(rotate)
        .on_disable(|| customer(hsm, &["forbid", KEK, &newest_id(), usage]))
        .on_enable(|| customer(hsm, &["allow", KEK, &newest_id(), usage]))
        .on_delete(|| each_version(&|id, backup| customer(hsm, &["destroy", KEK, id, backup])))
        .on_recover(|| each_version(&|id, backup| customer(hsm, &["restore", KEK, id, usage, backup])));
    if algorithm != Algorithm::AesGcm {
        subject = subject.without_additional_data();
    }
    let report = conformance::run(&subject);
    println!("{report}");
    assert!(report.is_complete(), "{report}");
}

with_a_token! {
    fn aes_gcm_conforms(hsm: &SoftHsm) {
        conforms(hsm, Algorithm::AesGcm);
    }

    fn aes_key_wrap_with_padding_conforms(hsm: &SoftHsm) {
        conforms(hsm, Algorithm::AesKeyWrapPad);
    }

    fn aes_key_wrap_conforms(hsm: &SoftHsm) {
        conforms(hsm, Algorithm::AesKeyWrap);
    }

    fn rsa_oaep_conforms(hsm: &SoftHsm) {
        conforms(hsm, Algorithm::RsaOaepSha1);
    }
}
