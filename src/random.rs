//! The one door through which randomness enters.
//!
//! Keys, ids and lease salts come from the kernel. What each block needs comes from the
//! thread's generator, seeded by the kernel: a system call per block would cost more than
//! sealing it. Imports: nothing of ours.

use rand::rngs::SysRng;
use rand::{Rng, TryRng};

/// Fills `bytes` from the operating system's generator.
///
/// # Panics
/// When the operating system has no randomness. There is nothing safe to do then: every
/// key and id made afterwards could be guessed.
pub(crate) fn fill(bytes: &mut [u8]) {
    SysRng.try_fill_bytes(bytes).expect("the operating system gives randomness");
}

/// Words from the thread's own generator: no system call, no lock.
#[inline]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn fast_words<const N: usize>() -> [u64; N] {
    let mut generator = rand::rng();
    std::array::from_fn(|_| generator.next_u64())
}
