//! Takes the times: all contenders seal and open the same blocks in turns, and the median of each is kept.

use std::fs;
use std::time::{Duration, Instant};

use crate::contenders::Contender;

const KIB: usize = 1024;
pub(crate) const SIZES: [usize; 7] = [512, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, KIB * KIB];
/// What every block consists of.
pub(crate) const PLAIN: u8 = 0x5A;

/// GB/s of each contender at a size, in their order. A GB is 10^9 bytes of plaintext.
pub(crate) struct Figures {
    pub(crate) size: usize,
    pub(crate) seal: Vec<f64>,
    pub(crate) open: Vec<f64>,
}

pub(crate) fn measure(contenders: &mut [Box<dyn Contender>], size: usize) -> Figures {
    let mut memory = vec![PLAIN; batch(size) * size];
    let mut times = vec![(Vec::new(), Vec::new()); contenders.len()];
    for round in 0..rounds(memory.len()) + WARM_UP {
        for (contender, (seal, open)) in contenders.iter_mut().zip(&mut times) {
            // Whoever comes after another finds its memory and the processor's caches as the other left them.
            contender.seal(&mut memory, size);
            contender.open(&mut memory, size);
            let sealed = time(|| contender.seal(&mut memory, size));
            let opened = time(|| contender.open(&mut memory, size));
            if round >= WARM_UP {
                seal.push(sealed);
                open.push(opened);
            }
        }
    }
    assert!(memory.iter().all(|byte| *byte == PLAIN), "everything sealed was opened again");
    let speed = |times: Vec<Duration>| memory.len() as f64 / median(times).as_secs_f64() / 1e9;
    let (seal, open) = times.into_iter().map(|(seal, open)| (speed(seal), speed(open))).unzip();
    Figures { size, seal, open }
}

/// How many blocks of a size take part: 32, or as many as fit into 1 MiB.
const fn batch(size: usize) -> usize {
    let fit = KIB * KIB / size;
    if fit < 32 { fit } else { 32 }
}

/// Small blocks have as many rounds as they need, and no more than that: some peers take 100 µs for a block of any size.
fn rounds(bytes: usize) -> usize {
    let quick = std::env::var("STRONGROOM_EVIDENCE").is_ok_and(|counts| counts == "quick");
    let rounds = (VOLUME / bytes).min(MAX_ROUNDS);
    if quick { rounds / 16 } else { rounds }
}

/// What part of the time that this thread could run it waited for a processor, in percent; nothing where the kernel does not tell.
/// A turn of a slow peer takes longer than the kernel lets a thread run at once, so a busy machine disturbs it in every round.
pub(crate) fn waited() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut fields = text.split_whitespace().map(str::parse::<f64>);
    let (ran, waited) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(100.0 * waited / (ran + waited))
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How much of each size is sealed for a measurement, in bytes.
const VOLUME: usize = 256 * KIB * KIB;
const MAX_ROUNDS: usize = 1000;
const WARM_UP: usize = 5;
