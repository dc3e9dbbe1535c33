//! What a fresh key for each block costs by itself: the work of the crates below us that nothing of ours can make cheaper.
//!
//! Each part is repeated with everything in the nearest cache, and its fastest round is printed. So the sum is a floor for the
//! nanoseconds over the bare cipher on this machine, and no more than that: between two real blocks the data has taken the cache.

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use rustix::time::{ClockId, clock_gettime};
use sha2::block_api::compress256;

/// Prints each part and their sum.
pub(super) fn print() {
    let mut key = [7_u8; 32];
    let new_key = fastest(|| {
        key[0] = key[0].wrapping_add(1);
        black_box(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, black_box(&key)).expect("32 bytes")));
    });
    let dek = fastest(|| {
        // The second works on what the first gave, as HMAC does.
        let mut state = black_box([1; 8]);
        let mut block = black_box([3; 64]);
        compress256(&mut state, std::slice::from_ref(&block));
        for (bytes, word) in block.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        compress256(&mut state, std::slice::from_ref(&block));
        black_box(state);
    });
    let clocks = fastest(|| {
        black_box((clock_gettime(ClockId::Boottime), clock_gettime(ClockId::RealtimeCoarse)));
    });
    println!(
        "    parts of a block, each alone: set-up of a new key {new_key:.0} ns, the two compressions of its DEK {dek:.0} ns,"
    );
    println!("    both clocks {clocks:.0} ns (once for a batch); together {:.0} ns", new_key + dek + clocks);
}

/// Nanoseconds for one of many, in the fastest round.
fn fastest(mut work: impl FnMut()) -> f64 {
    let round = || {
        let start = Instant::now();
        (0..REPETITIONS).for_each(|_| work());
        start.elapsed().as_nanos() as f64 / f64::from(REPETITIONS)
    };
    std::iter::repeat_with(round).take(ROUNDS).fold(f64::INFINITY, f64::min)
}

const REPETITIONS: u32 = 200;
const ROUNDS: usize = 200;
