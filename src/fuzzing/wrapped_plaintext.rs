//! What a KMS unwraps: an AEK comes out of it only under the one context that it was wrapped for.

use crate::id::{AccountId, Generation, Suite};
use crate::provider::{ErrorClass, WrapContext, WrapInput, WrapRole};

/// The bytes are an unwrapped plaintext; the context asked for is its own, as far as its bytes can name one.
pub fn wrapped_plaintext(data: &[u8]) {
    let input = match WrapInput::from_slice(data) {
        Ok(input) => input,
        Err(error) => {
            assert_ne!(data.len(), WrapInput::LEN);
            return assert_eq!(error.class(), ErrorClass::Integrity);
        }
    };
    let account = AccountId::from_bytes(data[8..24].try_into().expect("16 bytes"));
    let number = u32::from_be_bytes(data[4..8].try_into().expect("4 bytes"));
    let generation = Generation::new(number).unwrap_or(Generation::FIRST);
    for role in [WrapRole::Inner, WrapRole::Preflight] {
        let context = WrapContext::new(account, generation, Suite::Aes256Gcm, role);
        let secret: [u8; 32] = data[24..].try_into().expect("32 bytes");
        let expected = context.input(&secret);
        let found = input.secret_for(&context);
        assert_eq!(found.is_some(), expected.expose() == data, "one plaintext for each context");
        assert!(found.is_none_or(|found| *found == secret));
    }
}
