//! Opening an object's frames as their bytes arrive, in pieces of any size.
//! Imports: `object::proven`, `account`, `format::object`, `error`, `store::sealed::span`.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use zeroize::{Zeroize, Zeroizing};

use crate::account::Account;
use crate::error::{Error, ErrorKind};
use crate::format::object::{HEADER_LEN, ObjectGeometry};
use crate::object::proven::Proven;
use crate::store::sealed::span::Cover;

/// Sealed bytes that have arrived and are not used yet.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    chunks: VecDeque<Bytes>,
    len: usize,
    /// Bytes that straddle chunks are put together here.
    gathered: Vec<u8>,
}

impl Arrived {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The object's first bytes, once they are there.
    pub(crate) fn header(&mut self) -> Option<[u8; HEADER_LEN]> {
        self.with_front(HEADER_LEN, |bytes| bytes.first_chunk().copied())?
    }

    /// Drops up to `len` bytes, and says how many.
    pub(crate) fn skip(&mut self, len: u64) -> u64 {
        let mut left = len;
        while let Some(chunk) = self.chunks.front_mut().filter(|_| left > 0) {
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            chunk.advance(here);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
            self.len -= here;
            left -= here as u64;
        }
        len - left
    }

    /// Takes the next `len` bytes, if they are there: from where they lie, or else put together.
    fn with_front<T>(&mut self, len: usize, use_them: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if self.len < len {
            return None;
        }
        let front = self.chunks.front().filter(|front| front.len() >= len);
        let used = if let Some(front) = front {
            use_them(&front[..len])
        } else {
            self.gathered.clear();
            self.gathered.reserve_exact(len);
            for chunk in &self.chunks {
                let missing = len - self.gathered.len();
                self.gathered.extend_from_slice(&chunk[..chunk.len().min(missing)]);
            }
            use_them(&self.gathered)
        };
        self.skip(len as u64);
        Some(used)
    }
}

/// Opens the frames of one cover, one after the other, into fresh chunks of plaintext.
///
/// No byte of a block is given out before that block is proven, and each chunk is given out by the call that opened its last
/// block, so that nothing lies between the last look at the lease and the release (contract D4). What was opened and not
/// given out is wiped.
pub(crate) struct Opener {
    account: Account,
    proven: Proven,
    geometry: ObjectGeometry,
    next: u64,
    last: u64,
    /// Where the last frame ends.
    stored_end: u64,
    /// How many bytes to leave out at the front of the next chunk, and how many are to be given out in all.
    skip: usize,
    left: u64,
    /// The most that one chunk holds; one block may hold more.
    chunk_len: usize,
    chunk: Zeroizing<Vec<u8>>,
    filled: usize,
}

impl Opener {
    pub(crate) fn new(account: Account, proven: Proven, geometry: ObjectGeometry, cover: &Cover) -> Self {
        let Cover { first, last, ref stored, skip, len } = *cover;
        Self {
            account,
            proven,
            geometry,
            next: first,
            last,
            stored_end: stored.end,
            skip,
            left: len,
            chunk_len: CHUNK_LEN,
            chunk: Zeroizing::default(),
            filled: 0,
        }
    }

    /// Everything in one chunk. Only for what has arrived as a whole: memory is then bounded by what the store gave.
    pub(crate) fn at_once(self) -> Self {
        Self { chunk_len: usize::MAX, ..self }
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.next > self.last
    }

    /// How many sealed bytes the frames take that are not opened yet.
    pub(crate) const fn remaining(&self) -> u64 {
        if self.is_done() { 0 } else { self.stored_end - self.geometry.frame_at(self.next) }
    }

    /// Opens what has arrived: a chunk of plaintext once one is full, `None` when more is needed.
    ///
    /// # Errors
    /// - the account's state, when it holds no valid lease
    /// - [`ErrorKind::Corrupt`] and [`ErrorKind::Format`] for a frame that is not the one of its place
    ///
    /// Nothing can be opened after that.
    pub(crate) fn open(&mut self, arrived: &mut Arrived) -> Result<Option<Bytes>, Error> {
        while !self.is_done() {
            if arrived.len() < self.geometry.frame_len(self.next) {
                return Ok(None);
            }
            if self.chunk.is_empty() {
                self.chunk = Zeroizing::new(vec![0; self.next_chunk_len()]);
                self.filled = 0;
            }
            self.open_next(arrived)?;
            if self.filled == self.chunk.len() || self.is_done() {
                return Ok(Some(self.give_out()));
            }
        }
        Ok(None)
    }

    /// How long the chunk is that begins with the next block: whole blocks, and at least one.
    fn next_chunk_len(&self) -> usize {
        let block = self.geometry.layout().block_len();
        let blocks = (self.chunk_len / block).max(1) as u64;
        let last = self.next.saturating_add(blocks - 1).min(self.last);
        // OK because all but the last are whole, and there are no more of them than fit into a chunk or have arrived.
        #[expect(clippy::cast_possible_truncation, reason = "at most `blocks`, which came from a usize")]
        let before_last = (last - self.next) as usize * block;
        before_last + self.geometry.block_len(last)
    }

    fn open_next(&mut self, arrived: &mut Arrived) -> Result<(), Error> {
        let Self { account, proven, geometry, next, chunk, filled, .. } = self;
        let block_len = geometry.block_len(*next);
        let plain = &mut chunk[*filled..*filled + block_len];
        arrived
            .with_front(geometry.frame_len(*next), |frame| {
                proven.open_frame(account, geometry, *next, frame, plain)
            })
            .unwrap_or_else(|| Err(ended_early()))?;
        *filled += block_len;
        *next += 1;
        Ok(())
    }

    /// The chunk without what was not asked for, which is blanked: it lies in the memory that is given out.
    fn give_out(&mut self) -> Bytes {
        let mut chunk = std::mem::take(&mut *self.chunk);
        let first = std::mem::take(&mut self.skip).min(self.filled);
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.filled - first);
        chunk[..first].fill(0);
        chunk[first + len..].fill(0);
        self.left -= len as u64;
        let mut chunk = Bytes::from(chunk);
        chunk.advance(first);
        chunk.truncate(len);
        chunk
    }
}

/// Wipes plaintext that is not to be given out after all.
pub(crate) fn wipe(plain: Bytes) {
    if let Ok(mut plain) = plain.try_into_mut() {
        plain.as_mut().zeroize();
    }
}

pub(crate) const fn ended_early() -> Error {
    Error::new(ErrorKind::Format, "the store gave fewer bytes than it said")
}

pub(crate) const fn too_long() -> Error {
    Error::new(ErrorKind::Format, "the store gave more bytes than it said")
}

pub(crate) const fn another_range() -> Error {
    Error::new(ErrorKind::Format, "the store gave another range than it was asked for")
}

/// What a stream gives out at a time: long enough that the work for each is nothing, short enough for a core's own cache.
const CHUNK_LEN: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_taken_across_chunks_in_order() {
        let mut arrived = Arrived::default();
        for chunk in [&b"ab"[..], b"", b"cdef", b"g", b"hijkl"] {
            arrived.push(Bytes::copy_from_slice(chunk));
        }
        assert_eq!(arrived.with_front(13, <[u8]>::to_vec), None);
        for (len, expected) in [(1, &b"a"[..]), (2, b"bc"), (2, b"de"), (3, b"fgh")] {
            assert_eq!(arrived.with_front(len, <[u8]>::to_vec).unwrap(), expected);
        }
        assert_eq!((arrived.skip(2), arrived.len()), (2, 2));
        assert_eq!((arrived.skip(9), arrived.len()), (2, 0));
        assert!(arrived.header().is_none());
    }
}
