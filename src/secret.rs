//! Memory for secrets: locked, left out of core dumps, wiped.
//!
//! What lives as long as a lease is in one process-wide arena of small slots instead of a map per account: a hundred thousand accounts
//! share a few hundred pages. Slots are read as relaxed atomic words, so readers take no
//! lock and need no unsafe code. What lives for one block, a [`Dek`], is
//! only wiped. Imports: `error`.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;
use zerocopy::FromBytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::{Error, ErrorKind};

/// What to do where the system refuses to lock memory (usually for its `RLIMIT_MEMLOCK`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryLock {
    /// Fail with [`ErrorKind::Limit`] rather than hold a key in memory that can be swapped out.
    Require,
    /// Lock where the system allows, and go on where it does not. The default: a container's limit
    /// should not decide whether data can be read. [`Protections::active`] tells what holds.
    #[default]
    BestEffort,
}

/// What the system granted for the memory that long-lived secrets are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Protections {
    /// Never written to swap.
    pub locked: bool,
    /// Left out of core dumps. Linux only.
    pub excluded_from_dumps: bool,
}

impl Protections {
    /// What holds for *every* page of secrets that this process has mapped so far; maps the first
    /// one if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when no page can be mapped.
    pub fn active() -> Result<Self, Error> {
        let mut arena = Arena::get();
        if arena.granted.is_none() {
            arena.grow(MemoryLock::BestEffort)?;
        }
        arena.granted.ok_or_else(|| Error::new(ErrorKind::Io, "no memory for secrets"))
    }

    const fn and(self, other: Self) -> Self {
        Self {
            locked: self.locked && other.locked,
            excluded_from_dumps: self.excluded_from_dumps && other.excluded_from_dumps,
        }
    }
}

/// 128 bytes of the arena, wiped when dropped. Intentionally neither `Clone` nor comparable.
pub(crate) struct Slot {
    place: Place,
}

impl Slot {
    /// 64-bit words in a slot.
    pub(crate) const WORDS: usize = 16;

    /// A slot that holds `words`. The caller wipes its own copy.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when `lock` requires locked memory and the system refuses;
    /// [`ErrorKind::Io`] when no page can be mapped.
    pub(crate) fn new(words: &[u64; Self::WORDS], lock: MemoryLock) -> Result<Self, Error> {
        let place = Arena::get().take(lock)?;
        for (word, value) in place.words.iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
        Ok(Self { place })
    }

    /// The `N` words from `FIRST` on. That they are inside the slot is checked at compile time.
    #[inline]
    pub(crate) fn load<const FIRST: usize, const N: usize>(&self) -> [u64; N] {
        const { assert!(FIRST + N <= Self::WORDS) };
        std::array::from_fn(|i| self.place.words[FIRST + i].load(Ordering::Relaxed))
    }

    /// The same, into a place that is wiped later: an array that is returned leaves copies on the stack.
    #[inline]
    pub(crate) fn load_to<const FIRST: usize, const N: usize>(&self, to: &mut [u64; N]) {
        const { assert!(FIRST + N <= Self::WORDS) };
        for (to, word) in to.iter_mut().zip(&self.place.words[FIRST..]) {
            *to = word.load(Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for word in self.place.words {
            word.store(0, Ordering::Relaxed);
        }
        // The stores come before the slot can be handed out again; the fence keeps the compiler from
        // judging them dead.
        compiler_fence(Ordering::SeqCst);
        Arena::get().free.push(self.place);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot(..)")
    }
}

/// A data encryption key, for one seal or one open. Wiped when dropped. Intentionally neither `Copy` nor
/// `Clone`, and filled where it lies: a move would leave a copy behind that nobody wipes.
///
/// In words rather than bytes, so that wiping it takes four stores.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Dek([u64; 4]);

impl Dek {
    /// The key whose 32 bytes are these words' bytes in memory. For the KEKs of a LocalKms, on threads whose stack
    /// is washed.
    #[inline]
    pub(crate) const fn new(words: [u64; 4]) -> Self {
        Self(words)
    }

    /// A place for a key.
    #[inline]
    pub(crate) const fn empty() -> Self {
        Self([0; 4])
    }

    /// Becomes the key whose 32 bytes are these words' bytes in memory.
    #[inline]
    pub(crate) fn set(&mut self, words: &[u64; 4]) {
        self.0.copy_from_slice(words);
    }

    /// For the engine only.
    #[inline]
    pub(crate) fn expose(&self) -> &[u8; 32] {
        zerocopy::transmute_ref!(&self.0)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(bytes: [u8; 32]) -> Self {
        Self(zerocopy::transmute!(bytes))
    }
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(..)")
    }
}

/// Overwrites the stack below its caller, where the calls that have returned left what they worked on: spilled
/// registers, moved values, the temporaries of an engine, of a parser, of a provider. Wiping each where it
/// arises is done as well, but only this reaches what the compiler and other crates leave.
#[inline(never)]
pub(crate) fn wash_stack<const DEPTH: usize>() {
    let mut below = [0_u8; DEPTH];
    std::hint::black_box(&mut below);
}

/// Where a slot's words are. `Copy`: only the arena and a [`Slot`] ever hold one, never both.
#[derive(Clone, Copy)]
struct Place {
    words: &'static [AtomicU64; Slot::WORDS],
    locked: bool,
}

/// Every slot that is not in use. Pages are mapped once and never given back: they are reused.
struct Arena {
    free: Vec<Place>,
    granted: Option<Protections>,
}

impl Arena {
    fn get() -> MutexGuard<'static, Self> {
        static ARENA: Mutex<Arena> = Mutex::new(Arena { free: Vec::new(), granted: None });
        // OK after a panic elsewhere: no step below leaves the free list half changed.
        ARENA.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&mut self, lock: MemoryLock) -> Result<Place, Error> {
        if let Some(place) = self.take_free(lock) {
            return Ok(place);
        }
        self.grow(lock)?;
        Ok(self.take_free(lock).expect("a chunk that was just added has free slots of the kind asked for"))
    }

    fn take_free(&mut self, lock: MemoryLock) -> Option<Place> {
        match lock {
            MemoryLock::BestEffort => self.free.pop(),
            MemoryLock::Require => {
                let at = self.free.iter().rposition(|place| place.locked)?;
                Some(self.free.swap_remove(at))
            }
        }
    }

    /// Adds a chunk. One that cannot be locked though it has to be is unmapped again, not leaked.
    fn grow(&mut self, lock: MemoryLock) -> Result<(), Error> {
        let map = MmapMut::map_anon(CHUNK_LEN).map_err(|e| Error::io("cannot map memory for secrets", e))?;
        let granted =
            Protections { locked: map.lock().is_ok(), excluded_from_dumps: exclude_from_dumps(&map) };
        if lock == MemoryLock::Require && !granted.locked {
            return Err(Error::new(
                ErrorKind::Limit,
                "the system refuses to lock memory: raise RLIMIT_MEMLOCK, or allow MemoryLock::BestEffort",
            ));
        }
        // Leaked on purpose: slots are handed out for the life of the process.
        let bytes: &'static mut [u8] = &mut *Box::leak(Box::new(map));
        let words = <[AtomicU64]>::mut_from_bytes(bytes)
            .expect("a map is page-aligned, and its length a multiple of a word");
        let (slots, _) = words.as_chunks::<{ Slot::WORDS }>();
        self.free.extend(slots.iter().map(|words| Place { words, locked: granted.locked }));
        self.granted = Some(self.granted.map_or(granted, |before| before.and(granted)));
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn exclude_from_dumps(map: &MmapMut) -> bool {
    map.advise(memmap2::Advice::DontDump).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn exclude_from_dumps(_: &MmapMut) -> bool {
    false
}

/// Four pages of 4 KiB: small beside the smallest usual `RLIMIT_MEMLOCK` of 64 KiB, and still 128 slots.
const CHUNK_LEN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_a_dropped_slot_is_wiped() {
        const MARK: u64 = 0xA5A5_5A5A_C3C3_3C3C;
        let slot = Slot::new(&[MARK; Slot::WORDS], MemoryLock::BestEffort).expect("maps");
        let words = slot.place.words;
        assert_eq!(slot.load::<8, 2>(), [MARK; 2], "the positive control");
        drop(slot);
        // Another test may own the slot by now, but nobody else writes this mark.
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) != MARK));
    }

    #[test]
    fn slots_do_not_overlap_and_the_arena_grows() {
        let slots: Vec<Slot> =
            (0..1000).map(|i| Slot::new(&[i; Slot::WORDS], MemoryLock::BestEffort).expect("maps")).collect();
        for (slot, i) in slots.iter().zip(0..) {
            assert_eq!(slot.load::<0, { Slot::WORDS }>(), [i; Slot::WORDS]);
        }
        assert_eq!(format!("{:?}", slots[0]), "Slot(..)");
    }

    #[test]
    fn protections_are_reported() {
        let active = Protections::active().expect("maps");
        let required = Slot::new(&[0; Slot::WORDS], MemoryLock::Require);
        match required {
            Ok(slot) => assert!(slot.place.locked),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Limit);
                assert!(!active.locked);
            }
        }
        #[cfg(target_os = "linux")]
        assert!(active.excluded_from_dumps);
    }
}
