//! How a LocalKms wraps an AEK.
//!
//! `nonce12 || AES-256-GCM(key = KEK version, nonce12, aad = context, plaintext = the 56 bytes)`, 84 bytes in all.
//! The nonce is random, so a KEK version makes at most 2^32 wraps (NIST SP 800-38D, 8.3); at one wrap a
//! second that is 136 years. Imports: `provider`, `engine`, `secret`,
//! `random`.

use zeroize::Zeroizing;

use crate::engine::{Aead, Bound, Engine, Tag};
use crate::provider::{ProviderError, WrapContext, WrapInput};
use crate::random;
use crate::secret::Dek;

/// Wraps `secret` under `kek`, bound to `context`.
pub(super) fn wrap(
    kek: &[u8; 32],
    context: &WrapContext,
    secret: &WrapInput,
) -> Result<Vec<u8>, ProviderError> {
    let mut out = vec![0; LEN];
    let (nonce, sealed) = out.split_first_chunk_mut::<NONCE>().expect("84 bytes begin with 12");
    let (text, tag) = sealed.split_first_chunk_mut::<{ WrapInput::LEN }>().expect("72 bytes begin with 56");
    random::fill(nonce);
    text.copy_from_slice(secret.expose());
    let bound = Bound { nonce, aad: &context.to_bytes() };
    let Tag(made) = Engine::default()
        .seal_in_place(Aead::Aes256Gcm, &key(kek), bound, text)
        .map_err(|_| ProviderError::transient("the cipher could not work, for want of memory"))?;
    tag.copy_from_slice(&made);
    Ok(out)
}

/// Unwraps what [`wrap`] gave.
pub(super) fn unwrap(
    kek: &[u8; 32],
    context: &WrapContext,
    wrapped: &[u8],
) -> Result<WrapInput, ProviderError> {
    let changed = || ProviderError::integrity("the wrapped AEK does not authenticate under this KEK version");
    let wrapped: &[u8; LEN] = wrapped.try_into().map_err(|_| changed())?;
    let (nonce, sealed) = wrapped.split_first_chunk::<NONCE>().expect("84 bytes begin with 12");
    let (text, tag) = sealed.split_first_chunk::<{ WrapInput::LEN }>().expect("72 bytes begin with 56");
    let tag = tag.first_chunk::<TAG>().expect("16 bytes remain");
    let mut text = Zeroizing::new(*text);
    let bound = Bound { nonce, aad: &context.to_bytes() };
    Engine::default()
        .open_in_place(Aead::Aes256Gcm, &key(kek), bound, &Tag(*tag), &mut text[..])
        .map_err(|_| changed())?;
    WrapInput::from_slice(&*text)
}

/// A KEK as an engine takes it.
const fn key(kek: &[u8; 32]) -> Dek {
    Dek::new(zerocopy::transmute!(*kek))
}

const NONCE: usize = 12;
const TAG: usize = Tag::LEN;
/// Length of a wrapped AEK, in bytes.
const LEN: usize = NONCE + WrapInput::LEN + TAG;
const _: () = assert!(LEN == 84);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{AccountId, Generation};
    use crate::provider::ErrorClass;

    const KEK: [u8; 32] = [3; 32];

    fn context(account: u8) -> WrapContext {
        WrapContext::for_tests(AccountId::from_bytes([account; 16]), Generation::FIRST)
    }

    #[test]
    fn b2_every_flipped_bit_and_every_other_length_is_refused() {
        let secret = context(1).input(&[9; 32]);
        let wrapped = wrap(&KEK, &context(1), &secret).expect("wraps");
        let again = unwrap(&KEK, &context(1), &wrapped).expect("unwraps");
        assert_eq!(again.expose(), secret.expose());

        let refused = |kek: &[u8; 32], context: &WrapContext, bytes: &[u8]| {
            let error = unwrap(kek, context, bytes).expect_err("changed");
            assert_eq!(error.class(), ErrorClass::Integrity);
        };
        for bit in 0..wrapped.len() * 8 {
            let mut changed = wrapped.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            refused(&KEK, &context(1), &changed);
        }
        for end in 0..wrapped.len() {
            refused(&KEK, &context(1), &wrapped[..end]);
        }
        refused(&KEK, &context(1), &[&wrapped[..], &[0]].concat());
        refused(&KEK, &context(2), &wrapped);
        refused(&[4; 32], &context(1), &wrapped);
    }

    #[test]
    fn b2_no_two_wraps_are_alike() {
        let secret = context(1).input(&[9; 32]);
        let wraps: Vec<_> = (0..2).map(|_| wrap(&KEK, &context(1), &secret).expect("wraps")).collect();
        assert_ne!(wraps[0], wraps[1]);
    }
}
