//! Project Wycheproof's vectors for AES key wrap (RFC 3394, RFC 5649), on the token that wraps AEKs (goal R1).
//!
//! The provider wraps 56 bytes and no other length, which no vector has. So the token is asked here, by the provider's mechanisms
//! and with its template. KEKs of every size that the vectors have are tried: the choice is the customer's.
//!
//! SoftHSM pads a secret with zeros to a multiple of eight bytes before it wraps it. Of other lengths, which no AEK has, it makes
//! something else than RFC 5649 says; it unwraps them as it should. They are counted by themselves, and only unwrapped.

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use strongroom_kms_tests::softhsm::{Administrator, module};
use wycheproof::TestResult;
use wycheproof::keywrap::{Test, TestName, TestSet};

use crate::evidence::report;
use crate::world::with_a_token;

with_a_token! {
    fn r1_aes_key_wrap_is_as_published(_hsm: &SoftHsm) {
        run(TestName::AesKeyWrap, &Mechanism::AesKeyWrap, "AES-KW, SoftHSM", 0);
    }

    fn r1_aes_key_wrap_with_padding_is_as_published(_hsm: &SoftHsm) {
        run(TestName::AesKeyWrapWithPadding, &Mechanism::AesKeyWrapPad, "AES-KWP, SoftHSM", 44);
    }
}

/// `padded` is how many valid vectors have a length that no AEK has.
fn run(set: TestName, mechanism: &Mechanism<'_>, what: &str, padded: usize) {
    let set = TestSet::load(set).expect("the set is well-formed");
    let administrator = Administrator::log_in(&module()).unwrap();
    let token = Token { session: administrator.session(), mechanism };
    let (mut both_ways, mut unwrapped, mut wrong) = (0, 0, Vec::new());
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let ours = test.result != TestResult::Valid || test.pt.len().is_multiple_of(8);
        match token.try_vector(test, ours) {
            Ok(()) if ours => both_ways += 1,
            Ok(()) => unwrapped += 1,
            Err(why) => wrong.push(format!("{} ({:?}, {}): {why}", test.tc_id, test.result, test.comment)),
        }
    }
    report("R1", what, both_ways, "=", set.number_of_tests - padded);
    if padded > 0 {
        report("R1", &format!("{what}, only unwrapped"), unwrapped, "=", padded);
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

struct Token<'a> {
    session: &'a Session,
    mechanism: &'a Mechanism<'a>,
}

impl Token<'_> {
    /// Wraps, where that is `ours` to ask for, and unwraps.
    fn try_vector(&self, test: &Test, ours: bool) -> Result<(), String> {
        let kek = self.session.create_object(&kek(&test.key)).map_err(|error| format!("the KEK: {error}"))?;
        let (wrapped, unwrapped) = (self.wrap(kek, &test.pt), self.unwrap(kek, &test.ct));
        self.session.destroy_object(kek).map_err(|error| error.to_string())?;
        match test.result {
            TestResult::Valid => {
                let wrapped = wrapped.map_err(|error| format!("wrapping: {error}"))?;
                let unwrapped = unwrapped.map_err(|error| format!("unwrapping: {error}"))?;
                if (ours && wrapped != test.ct.as_slice()) || unwrapped != test.pt.as_slice() {
                    return Err(format!("wraps to {wrapped:02x?} and unwraps to {unwrapped:02x?}"));
                }
            }
            TestResult::Invalid => {
                if let Ok(unwrapped) = unwrapped {
                    return Err(format!("unwraps to {unwrapped:02x?}"));
                }
            }
            // Refused, or done as published.
            TestResult::Acceptable => {
                if wrapped.is_ok_and(|wrapped| wrapped != test.ct.as_slice())
                    || unwrapped.is_ok_and(|unwrapped| unwrapped != test.pt.as_slice())
                {
                    return Err("neither refused nor right".to_owned());
                }
            }
        }
        Ok(())
    }

    fn wrap(&self, kek: ObjectHandle, secret: &[u8]) -> Result<Vec<u8>, Error> {
        let mut template = TEMPORARY.to_vec();
        template.push(Attribute::Value(secret.to_vec()));
        let object = self.session.create_object(&template)?;
        let wrapped = self.session.wrap_key(self.mechanism, kek, object);
        self.session.destroy_object(object)?;
        wrapped
    }

    fn unwrap(&self, kek: ObjectHandle, wrapped: &[u8]) -> Result<Vec<u8>, Error> {
        let object = self.session.unwrap_key(self.mechanism, kek, wrapped, &TEMPORARY)?;
        let value = self.session.get_attributes(object, &[AttributeType::Value]);
        self.session.destroy_object(object)?;
        match value?.pop() {
            Some(Attribute::Value(value)) => Ok(value),
            _ => Err(Error::InvalidValue),
        }
    }
}

fn kek(value: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(false),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
        Attribute::Value(value.to_vec()),
    ]
}

/// The provider's: a secret of this session only, which may be read.
const TEMPORARY: [Attribute; 6] = [
    Attribute::Class(ObjectClass::SECRET_KEY),
    Attribute::KeyType(KeyType::GENERIC_SECRET),
    Attribute::Token(false),
    Attribute::Private(true),
    Attribute::Sensitive(false),
    Attribute::Extractable(true),
];
