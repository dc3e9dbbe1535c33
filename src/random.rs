//! The one door through which randomness enters.
//!
//! Keys, ids and lease salts come from the kernel. What each block needs comes from a generator of the
//! thread's own, seeded by the kernel: a system call per block would cost more than sealing it. It is never
//! seeded again, for what it gives is stored in the clear and there is nothing in it to protect; except in a
//! forked child, which would go on as its parent does. Imports: nothing of ours.

use std::cell::RefCell;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};

/// Fills `bytes` from the operating system's generator.
///
/// # Panics
/// When the operating system has no randomness. There is nothing safe to do then: every
/// key and id made afterwards could be guessed.
pub(crate) fn fill(bytes: &mut [u8]) {
    SysRng.try_fill_bytes(bytes).expect("the operating system gives randomness");
}

/// Words from the thread's own generator: no system call but for the first ones, no lock.
///
/// # Panics
/// As [`fill`], and without memory for a fork handler, when the thread asks for the first time.
#[inline]
pub(crate) fn fast_words<const N: usize>() -> [u64; N] {
    // Gone while the thread ends, when a destructor may still seal.
    GENERATOR.try_with(|own| own.borrow_mut().words()).unwrap_or_else(|_| Generator::new().words())
}

thread_local! {
    static GENERATOR: RefCell<Generator> = RefCell::new(Generator::new());
}

/// A seeded generator, and the process that it was seeded in.
struct Generator {
    stream: StdRng,
    process: forkguard::Guard,
}

impl Generator {
    fn new() -> Self {
        let process = forkguard::new();
        let mut seed = [0; 32];
        fill(&mut seed);
        Self { stream: StdRng::from_seed(seed), process }
    }

    #[inline]
    fn words<const N: usize>(&mut self) -> [u64; N] {
        if self.process.detected_fork() {
            *self = Self::new();
        }
        std::array::from_fn(|_| self.stream.next_u64())
    }
}
