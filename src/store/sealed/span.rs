//! Which stored bytes a range of plaintext needs.
//!
//! A store pins the block size, so a range can be asked for before anything is known of the object; only the end, and what
//! is counted from it, has to wait for the stored size that comes with the answer. Imports: `format::object`, `error`.

use std::ops::Range;

use crate::error::{Error, ErrorKind};
use crate::format::object::{
    BlockSize, FRAME_OVERHEAD, HEADER_LEN, MAX_PLAIN_LEN, ObjectGeometry, frame_len,
};

/// A range of an object whose length is not known yet: of its plaintext, or of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    /// From here to there, or to the end.
    Within(Range<u64>),
    From(u64),
    /// The last bytes, at most this many.
    Last(u64),
}

impl Wanted {
    /// What is to be asked of the store for this range of plaintext. Where the first block is wanted, so is the header.
    pub(crate) fn stored(&self, block_size: BlockSize) -> Self {
        let start = |offset: u64| {
            let first = index_of(offset, block_size);
            if first == 0 { 0 } else { frame_at(first, block_size) }
        };
        match *self {
            Self::All => Self::All,
            Self::Within(Range { start: from, end }) => {
                let last = index_of(end.saturating_sub(1).max(from), block_size);
                Self::Within(start(from)..frame_at(last + 1, block_size))
            }
            Self::From(from) if start(from) == 0 => Self::All,
            Self::From(from) => Self::From(start(from)),
            Self::Last(len) => Self::Last(longest_tail(len, block_size)),
        }
    }

    /// Whether the answer begins with the object's first byte, whatever its length.
    pub(crate) const fn begins_at_zero(&self) -> bool {
        matches!(self, Self::All | Self::From(0) | Self::Within(Range { start: 0, .. }))
    }

    /// The range in something that is `len` bytes long; it may be empty.
    pub(crate) fn in_length(&self, len: u64) -> Range<u64> {
        match *self {
            Self::All => 0..len,
            Self::Within(Range { start, end }) => start.min(len)..end.min(len),
            Self::From(start) => start.min(len)..len,
            Self::Last(last) => len.saturating_sub(last)..len,
        }
    }
}

/// The blocks that a range of plaintext covers. At least one, so that every read proves something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cover {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Where their frames lie.
    pub(crate) stored: Range<u64>,
    /// How many bytes of the first block come before the range, and how long the range is.
    pub(crate) skip: usize,
    pub(crate) len: u64,
}

impl Cover {
    /// `range` lies within the object's plaintext.
    pub(crate) fn new(geometry: &ObjectGeometry, range: &Range<u64>) -> Self {
        let last_byte = range.end.saturating_sub(1).max(range.start);
        let last = geometry.locate(last_byte).0.min(geometry.last_index());
        let (first, within) = geometry.locate(range.start);
        // Only an empty range at the very end begins behind the last block.
        let (first, skip) = if first > last { (last, geometry.block_len(last)) } else { (first, within) };
        let end = geometry.frame_at(last) + frame_len(geometry.block_len(last)) as u64;
        Self { first, last, stored: geometry.frame_at(first)..end, skip, len: range.end - range.start }
    }
}

/// Blocks that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// The blocks of all `ranges`, each once, in order; none of the ranges is empty.
pub(crate) fn runs(ranges: &[Range<u64>], block_size: BlockSize) -> Vec<Run> {
    let of = |range: &Range<u64>| Run {
        first: index_of(range.start, block_size),
        last: index_of(range.end.saturating_sub(1), block_size),
    };
    let mut all: Vec<Run> = ranges.iter().map(of).collect();
    all.sort_unstable_by_key(|run| run.first);
    let mut out: Vec<Run> = Vec::new();
    for run in all {
        match out.last_mut() {
            Some(before) if run.first <= before.last + 1 => before.last = before.last.max(run.last),
            _ => out.push(run),
        }
    }
    out
}

/// Runs that are fetched together because what lies between them is not worth a request, with the range to ask for.
pub(crate) fn fetches(runs: &[Run], block_size: BlockSize) -> Vec<(Wanted, Vec<Run>)> {
    let mut out: Vec<Vec<Run>> = Vec::new();
    for run in runs {
        match out.last_mut() {
            Some(fetch) if fetch.last().is_some_and(|before| near(before, run, block_size)) => {
                fetch.push(*run)
            }
            _ => out.push(vec![*run]),
        }
    }
    let asked = |runs: &[Run]| {
        let first = runs.first().map_or(0, |run| run.first);
        let last = runs.last().map_or(0, |run| run.last);
        let start = if first == 0 { 0 } else { frame_at(first, block_size) };
        Wanted::Within(start..frame_at(last + 1, block_size))
    };
    out.into_iter().map(|runs| (asked(&runs), runs)).collect()
}

fn near(before: &Run, run: &Run, block_size: BlockSize) -> bool {
    frame_at(run.first, block_size) - frame_at(before.last + 1, block_size) <= GAP
}

/// The plain length of the object that is `stored` bytes long; `None` where no sealed object is.
pub(crate) fn plain_len(stored: u64, block_size: BlockSize) -> Option<u64> {
    ObjectGeometry::of_stored(stored, block_size).ok().map(|geometry| geometry.plain_len())
}

/// How long the object is that holds `plain` bytes.
///
/// # Errors
/// [`ErrorKind::Limit`] above 2^60.
pub(crate) fn stored_len(plain: u64, block_size: BlockSize) -> Result<usize, Error> {
    let stored = ObjectGeometry::of_plain(plain, block_size)?.stored_len();
    usize::try_from(stored).map_err(|_| Error::new(ErrorKind::Limit, "the object does not fit into memory"))
}

/// Which block holds byte `offset`. Offsets beyond any object are taken for the longest one's end, so that the
/// arithmetic after it cannot overflow; the store then says that there is nothing.
fn index_of(offset: u64, block_size: BlockSize) -> u64 {
    offset.min(MAX_PLAIN_LEN) / block_size.bytes() as u64
}

fn frame_at(index: u64, block_size: BlockSize) -> u64 {
    HEADER_LEN as u64 + index * frame_len(block_size.bytes()) as u64
}

/// From the start of the block that holds the first of the last `len` bytes to the end, at the most.
fn longest_tail(len: u64, block_size: BlockSize) -> u64 {
    let block = block_size.bytes() as u64;
    let plain = len.clamp(1, MAX_PLAIN_LEN) + block - 1;
    plain + (plain.div_ceil(block) + 1) * FRAME_OVERHEAD as u64
}

/// Ranges that lie no farther apart than this are fetched together, as `object_store` does by itself.
const GAP: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: u64 = 4096;

    fn geometry(plain: u64) -> ObjectGeometry {
        ObjectGeometry::of_plain(plain, BlockSize::MIN).unwrap()
    }

    proptest! {
        /// What is asked for holds what is needed, and not a block more, but for a tail, whose start is not known.
        #[test]
        fn f4_what_is_asked_for_is_the_blocks_that_the_range_covers(
            plain in 0..5 * BLOCK, start in 0..5 * BLOCK, len in 1..3 * BLOCK, kind in 0..4_u8,
        ) {
            let wanted = match kind {
                0 => Wanted::All,
                1 => Wanted::Within(start..start + len),
                2 => Wanted::From(start),
                _ => Wanted::Last(len),
            };
            let range = wanted.in_length(plain);
            prop_assume!(kind == 0 || kind == 3 || start < plain);
            let geometry = geometry(plain);
            let cover = Cover::new(&geometry, &range);
            prop_assert!(cover.first <= cover.last && cover.last <= geometry.last_index());
            let asked = wanted.stored(BlockSize::MIN).in_length(geometry.stored_len());
            prop_assert_eq!(asked.end, cover.stored.end);
            prop_assert!(asked.start <= cover.stored.start);
            match kind {
                3 => prop_assert!(cover.stored.start - asked.start <= BLOCK + 48 + HEADER_LEN as u64),
                _ if cover.first == 0 => prop_assert_eq!(asked.start, 0),
                _ => prop_assert_eq!(asked.start, cover.stored.start),
            }
            prop_assert_eq!(cover.first * BLOCK + cover.skip as u64, range.start);
            prop_assert_eq!(cover.len, range.end - range.start);
        }

        #[test]
        fn f2_no_range_overflows(start: u64, len: u64, tail: u64, stored: u64) {
            for block_size in [BlockSize::MIN, BlockSize::DEFAULT, BlockSize::MAX] {
                let range = start..start.saturating_add(len);
                for wanted in [Wanted::Within(range.clone()), Wanted::From(start), Wanted::Last(tail)] {
                    let asked = wanted.stored(block_size).in_length(stored);
                    prop_assert!(asked.start <= asked.end && asked.end <= stored);
                }
                fetches(&runs(&[range, 0..1, u64::MAX - 1..u64::MAX], block_size), block_size);
            }
        }

        #[test]
        fn each_block_is_in_one_run_and_each_run_in_one_fetch(
            ranges in prop::collection::vec((0..900 * BLOCK, 1..4 * BLOCK), 1..9),
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(start, len)| *start..start + len).collect();
            let runs = runs(&ranges, BlockSize::MIN);
            prop_assert!(runs.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            for range in &ranges {
                let covers = |run: &&Run| run.first * BLOCK <= range.start && range.end <= (run.last + 1) * BLOCK;
                prop_assert_eq!(runs.iter().filter(covers).count(), 1);
            }
            let fetches = fetches(&runs, BlockSize::MIN);
            let again: Vec<Run> = fetches.iter().flat_map(|(_, runs)| runs.clone()).collect();
            prop_assert_eq!(again, runs);
        }
    }

    #[test]
    fn an_empty_range_still_proves_a_block() {
        for plain in [0, 1, BLOCK, BLOCK + 1] {
            let geometry = geometry(plain);
            let cover = Cover::new(&geometry, &(plain..plain));
            assert_eq!(
                (cover.first, cover.last, cover.len),
                (geometry.last_index(), geometry.last_index(), 0)
            );
        }
    }

    #[test]
    fn sizes_are_arithmetic_and_some_are_no_objects() {
        for plain in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 7 * BLOCK] {
            let stored = stored_len(plain, BlockSize::MIN).unwrap() as u64;
            assert_eq!(plain_len(stored, BlockSize::MIN), Some(plain));
        }
        for stored in [0, 1, 79, 80, 127, 80 + 4096 + 48 + 48] {
            assert_eq!(plain_len(stored, BlockSize::MIN), None, "{stored}");
        }
        assert!(stored_len(u64::MAX, BlockSize::MIN).is_err());
    }
}
