//! Whether the time that something takes depends on a secret: two classes of inputs, measured in random order, and Welch's
//! t-test between them (Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?", 2017).
//!
//! ```text
//! t = (mean0 - mean1) / sqrt(var0 / n0 + var1 / n1)
//! ```
//! Where time does not depend on the class, t is close to a normal variable, on a busy machine too: who draws the class does
//! not know what the machine will do. A machine that interrupts has long tails, which drown small differences, so the
//! test is also made on the measurements below each of [`QUANTILES`] of a pilot run that is not used otherwise. The largest
//! |t| of these counts. That of one test exceeds [`BOUND`] by chance 6.8 times in a million, and so that of all
//! [`TESTS`] at most 4.1 times in a hundred thousand. There is no test of second order.

use std::hint::black_box;

use rand::RngExt;
use rand::rngs::SmallRng;

/// The |t| that is no longer taken for chance.
pub const BOUND: f64 = 4.5;

/// Which of the two kinds of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The one.
    Left,
    /// The other.
    Right,
}

/// What a comparison of two classes came to.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The largest |t| of all tests.
    pub t: f64,
    /// The same on the way: after how many measurements, and what it was then.
    pub curve: Vec<(u64, f64)>,
}

/// Measures so often, of either class at random. `input` makes an input of a class where the one before it lies, and
/// `ticks_of` times what is done with one.
pub fn compare(
    measurements: u64,
    random: &mut SmallRng,
    input: impl FnMut(Class, &mut [u8]),
    ticks_of: impl FnMut(&[u8]) -> u64,
    example: &[u8],
) -> Finding {
    let mut bench =
        Bench { random, input, ticks_of, inputs: vec![example.to_vec(); CHUNK], work: example.to_vec() };
    let mut times: Vec<u64> = Vec::new();
    while times.len() < 1000 || (times.len() as u64) < measurements / 10 {
        times.extend(bench.chunk().map(|(_, ticks)| ticks));
    }
    times.sort_unstable();
    let limits = QUANTILES.map(|share| times[(share * (times.len() - 1) as f64) as usize]);

    let mut tests = [Test::default(); TESTS];
    let mut curve = Vec::new();
    let stops: Vec<u64> = (0..STOPS).rev().map(|half| measurements >> half).collect();
    let mut done = 0;
    while done < measurements {
        for (class, ticks) in bench.chunk() {
            tests[TESTS - 1].take(class, ticks);
            for (test, limit) in tests.iter_mut().zip(limits) {
                if ticks <= limit {
                    test.take(class, ticks);
                }
            }
            done += 1;
            if stops.contains(&done) {
                curve.push((done, largest(&tests)));
            }
        }
    }
    Finding { t: largest(&tests), curve }
}

/// Where measurements are made, a chunk at a time: first all inputs, then all times, so that nothing of what the classes leave
/// behind in the processor, in the predictions of a branch for one, is close to a measurement. All inputs lie at the same place
/// when they are used.
struct Bench<'a, I, T> {
    random: &'a mut SmallRng,
    input: I,
    ticks_of: T,
    inputs: Vec<Vec<u8>>,
    work: Vec<u8>,
}

impl<I: FnMut(Class, &mut [u8]), T: FnMut(&[u8]) -> u64> Bench<'_, I, T> {
    fn chunk(&mut self) -> impl Iterator<Item = (Class, u64)> + use<I, T> {
        let Self { random, input, ticks_of, inputs, work } = self;
        let classes: [Class; CHUNK] =
            std::array::from_fn(|_| if random.random::<bool>() { Class::Left } else { Class::Right });
        for (class, place) in classes.iter().zip(&mut *inputs) {
            input(*class, place);
        }
        let mut times = [0; CHUNK];
        for (time, made) in times.iter_mut().zip(inputs) {
            work.copy_from_slice(made);
            *time = ticks_of(black_box(work));
        }
        classes.into_iter().zip(times)
    }
}

const QUANTILES: [f64; TESTS - 1] = [0.25, 0.5, 0.75, 0.9, 0.99];
/// One for each quantile, and one on everything.
const TESTS: usize = 6;
/// The points of a curve: all measurements, a half, a quarter and so on.
const STOPS: u32 = 9;
/// How many inputs are made before they are measured.
const CHUNK: usize = 100;

fn largest(tests: &[Test]) -> f64 {
    tests.iter().map(|test| test.t().abs()).fold(0.0, f64::max)
}

/// Welch's t-test, on measurements as they come.
#[derive(Clone, Copy, Default)]
struct Test {
    left: Moments,
    right: Moments,
}

impl Test {
    fn take(&mut self, class: Class, ticks: u64) {
        match class {
            Class::Left => self.left.take(ticks as f64),
            Class::Right => self.right.take(ticks as f64),
        }
    }

    fn t(&self) -> f64 {
        let error = (self.left.error() + self.right.error()).sqrt();
        if error > 0.0 { (self.left.mean - self.right.mean) / error } else { 0.0 }
    }
}

/// Count, mean and squared distance from it, by Welford's rule.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn take(&mut self, value: f64) {
        self.count += 1.0;
        let off = value - self.mean;
        self.mean += off / self.count;
        self.squares += off * (value - self.mean);
    }

    /// The squared standard error of the mean.
    fn error(&self) -> f64 {
        if self.count < 2.0 { f64::INFINITY } else { self.squares / (self.count - 1.0) / self.count }
    }
}

/// The comparison that must not be: it ends at the first byte that differs. The control of every measurement.
#[inline(never)]
#[must_use]
pub fn early_exit(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(one, other)| black_box(*one) == black_box(*other))
}

/// The time-stamp counter, read after what was begun before has ended.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the finest clock that there is")]
#[inline]
#[must_use]
pub fn ticks() -> u64 {
    // SAFETY: SSE2, which every x86-64 has, is all that either needs.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let ticks = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        ticks
    }
}

/// Nanoseconds of the monotonic clock, the finest clock that this processor has for everyone.
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec * 1_000_000_000 + now.tv_nsec) as u64
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn welch_is_computed_as_defined() {
        let mut test = Test::default();
        [1, 2, 3, 4].into_iter().for_each(|ticks| test.take(Class::Left, ticks));
        [3, 5, 7].into_iter().for_each(|ticks| test.take(Class::Right, ticks));
        // Means 2.5 and 5, variances 5/3 and 4.
        assert!((test.t() + 2.5 / (5.0_f64 / 12.0 + 4.0 / 3.0).sqrt()).abs() < 1e-12);
    }

    /// Noise as of a machine that interrupts: most measurements close together, some far off.
    fn noise(random: &mut SmallRng) -> u64 {
        let tail = if random.random_ratio(1, 50) { random.random_range(0..100_000) } else { 0 };
        1000 + random.random_range(0..60) + random.random_range(0..60) + tail
    }

    /// What `compare` finds where the one class takes `more` ticks than the other.
    fn found(measurements: u64, more: u64, random: &mut SmallRng, noises: &mut SmallRng) -> Finding {
        let input = |class, place: &mut [u8]| place[0] = u8::from(class == Class::Left);
        compare(measurements, random, input, |input| noise(noises) + more * u64::from(input[0]), &[0])
    }

    #[test]
    fn noise_without_a_difference_stays_below_the_bound() {
        let (mut random, mut noises) = (SmallRng::seed_from_u64(16), SmallRng::seed_from_u64(17));
        for _ in 0..200 {
            assert!(found(5000, 0, &mut random, &mut noises).t < BOUND);
        }
    }

    #[test]
    fn a_difference_below_the_noise_is_found() {
        let (mut random, mut noises) = (SmallRng::seed_from_u64(16), SmallRng::seed_from_u64(17));
        let found = found(20_000, 4, &mut random, &mut noises);
        assert!(found.t > 2.0 * BOUND, "{found:?}");
        let stops: Vec<u64> = found.curve.iter().map(|(done, _)| *done).collect();
        assert_eq!(stops, [78, 156, 312, 625, 1250, 2500, 5000, 10_000, 20_000]);
    }
}
