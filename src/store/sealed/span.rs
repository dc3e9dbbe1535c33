//! Which stored bytes a range of plaintext needs.
//!
//! A store pins block size and suite, so a range can be asked for before anything is known of the object; only the end, and what
//! is counted from it, has to wait for the stored size that comes with the answer. Imports: `format::object`, `error`.

use std::ops::Range;

use crate::error::{Error, ErrorKind};
use crate::format::object::{Layout, MAX_PLAIN_LEN, ObjectGeometry};

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
    pub(crate) fn stored(&self, layout: Layout) -> Self {
        let start = |offset: u64| {
            let first = index_of(offset, layout);
            if first == 0 { 0 } else { layout.frame_at(first) }
        };
        match *self {
            Self::All => Self::All,
            Self::Within(Range { start: from, end }) => {
                let last = index_of(end.saturating_sub(1).max(from), layout);
                Self::Within(start(from)..layout.frame_at(last + 1))
            }
            Self::From(from) if start(from) == 0 => Self::All,
            Self::From(from) => Self::From(start(from)),
            Self::Last(len) => Self::Last(longest_tail(len, layout)),
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
        let end = geometry.frame_at(last) + geometry.frame_len(last) as u64;
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
pub(crate) fn runs(ranges: &[Range<u64>], layout: Layout) -> Vec<Run> {
    let of = |range: &Range<u64>| Run {
        first: index_of(range.start, layout),
        last: index_of(range.end.saturating_sub(1), layout),
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
pub(crate) fn fetches(runs: &[Run], layout: Layout) -> Vec<(Wanted, Vec<Run>)> {
    let mut out: Vec<Vec<Run>> = Vec::new();
    for run in runs {
        match out.last_mut() {
            Some(fetch) if fetch.last().is_some_and(|before| near(before, run, layout)) => fetch.push(*run),
            _ => out.push(vec![*run]),
        }
    }
    let asked = |runs: &[Run]| {
        let first = runs.first().map_or(0, |run| run.first);
        let last = runs.last().map_or(0, |run| run.last);
        let start = if first == 0 { 0 } else { layout.frame_at(first) };
        Wanted::Within(start..layout.frame_at(last + 1))
    };
    out.into_iter().map(|runs| (asked(&runs), runs)).collect()
}

fn near(before: &Run, run: &Run, layout: Layout) -> bool {
    layout.frame_at(run.first) - layout.frame_at(before.last + 1) <= GAP
}

/// The plain length of the object that is `stored` bytes long; `None` where no sealed object is.
pub(crate) fn plain_len(stored: u64, layout: Layout) -> Option<u64> {
    ObjectGeometry::of_stored(stored, layout).ok().map(|geometry| geometry.plain_len())
}

/// How long the object is that holds `plain` bytes.
///
/// # Errors
/// [`ErrorKind::Limit`] above 2^60.
pub(crate) fn stored_len(plain: u64, layout: Layout) -> Result<usize, Error> {
    let stored = ObjectGeometry::of_plain(plain, layout)?.stored_len();
    usize::try_from(stored).map_err(|_| Error::new(ErrorKind::Limit, "the object does not fit into memory"))
}

/// Which block holds byte `offset`. Offsets beyond any object are taken for the longest one's end, so that the
/// arithmetic after it cannot overflow; the store then says that there is nothing.
fn index_of(offset: u64, layout: Layout) -> u64 {
    offset.min(MAX_PLAIN_LEN) / layout.block_len() as u64
}

/// From the start of the block that holds the first of the last `len` bytes to the end, at the most.
fn longest_tail(len: u64, layout: Layout) -> u64 {
    let block = layout.block_len() as u64;
    let plain = len.clamp(1, MAX_PLAIN_LEN) + block - 1;
    plain + (plain.div_ceil(block) + 1) * layout.overhead() as u64
}

/// Ranges that lie no farther apart than this are fetched together, as `object_store` does by itself.
const GAP: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::object::{BlockSize, HEADER_LEN};
    use crate::id::Suite;

    const BLOCK: u64 = 4096;
    const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::Double];
    const LAYOUT: Layout = Layout { block_size: BlockSize::MIN, suite: Suite::Aes256Gcm };

    fn geometry(plain: u64) -> ObjectGeometry {
        ObjectGeometry::of_plain(plain, LAYOUT).unwrap()
    }

    proptest! {
        /// What is asked for holds what is needed, and not a block more, but for a tail, whose start is not known.
        #[test]
        fn f4_what_is_asked_for_is_the_blocks_that_the_range_covers(
            plain in 0..5 * BLOCK, start in 0..5 * BLOCK, len in 1..3 * BLOCK, kind in 0..4_u8, suite in 0..2_usize,
        ) {
            let layout = Layout { suite: SUITES[suite], ..LAYOUT };
            let wanted = match kind {
                0 => Wanted::All,
                1 => Wanted::Within(start..start + len),
                2 => Wanted::From(start),
                _ => Wanted::Last(len),
            };
            let range = wanted.in_length(plain);
            prop_assume!(kind == 0 || kind == 3 || start < plain);
            let geometry = ObjectGeometry::of_plain(plain, layout).unwrap();
            let cover = Cover::new(&geometry, &range);
            prop_assert!(cover.first <= cover.last && cover.last <= geometry.last_index());
            let asked = wanted.stored(layout).in_length(geometry.stored_len());
            prop_assert_eq!(asked.end, cover.stored.end);
            prop_assert!(asked.start <= cover.stored.start);
            match kind {
                3 => prop_assert!(cover.stored.start - asked.start <= BLOCK + layout.overhead() as u64 + HEADER_LEN as u64),
                _ if cover.first == 0 => prop_assert_eq!(asked.start, 0),
                _ => prop_assert_eq!(asked.start, cover.stored.start),
            }
            prop_assert_eq!(cover.first * BLOCK + cover.skip as u64, range.start);
            prop_assert_eq!(cover.len, range.end - range.start);
        }

        #[test]
        fn f2_no_range_overflows(start: u64, len: u64, tail: u64, stored: u64) {
            let sizes = [BlockSize::MIN, BlockSize::DEFAULT, BlockSize::MAX];
            for layout in SUITES.into_iter().flat_map(|suite| sizes.map(|block_size| Layout { block_size, suite })) {
                let range = start..start.saturating_add(len);
                for wanted in [Wanted::Within(range.clone()), Wanted::From(start), Wanted::Last(tail)] {
                    let asked = wanted.stored(layout).in_length(stored);
                    prop_assert!(asked.start <= asked.end && asked.end <= stored);
                }
                fetches(&runs(&[range, 0..1, u64::MAX - 1..u64::MAX], layout), layout);
            }
        }

        #[test]
        fn each_block_is_in_one_run_and_each_run_in_one_fetch(
            ranges in prop::collection::vec((0..900 * BLOCK, 1..4 * BLOCK), 1..9),
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(start, len)| *start..start + len).collect();
            let runs = runs(&ranges, LAYOUT);
            prop_assert!(runs.windows(2).all(|pair| pair[0].last + 1 < pair[1].first));
            for range in &ranges {
                let covers = |run: &&Run| run.first * BLOCK <= range.start && range.end <= (run.last + 1) * BLOCK;
                prop_assert_eq!(runs.iter().filter(covers).count(), 1);
            }
            let fetches = fetches(&runs, LAYOUT);
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
            let stored = stored_len(plain, LAYOUT).unwrap() as u64;
            assert_eq!(plain_len(stored, LAYOUT), Some(plain));
        }
        for stored in [0, 1, 79, 80, 127, 80 + 4096 + 48 + 48] {
            assert_eq!(plain_len(stored, LAYOUT), None, "{stored}");
        }
        assert!(stored_len(u64::MAX, LAYOUT).is_err());
    }
}
