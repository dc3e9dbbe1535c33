//! Reading any range of a sealed object. Imports: `account`, `format`, `id`, `error`.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use zeroize::{Zeroize, Zeroizing};

use crate::account::Account;
use crate::error::{Error, ErrorKind};
use crate::format::object::{Context, HEADER_LEN, ObjectGeometry, ObjectInfo};
use crate::id::Epoch;
use crate::object::proven::Proven;
use crate::object::source::{ReadAt, ended_early, read_exact_at};

/// Opens any range of an object, at the cost of the blocks that the range covers (contract F4).
///
/// - Opening it proves the header and the last block, and so the length; each block read is proven before a byte
///   of it is released. Nothing the source answers is trusted.
/// - Whole blocks are opened straight into the caller's buffer. Of a block that is wanted in part, the reader keeps the
///   plaintext for the next call; it is given out under a valid lease of the same epoch only, and wiped by the
///   first call that finds the lease gone, by [`purge`](Self::purge), and on drop (contract D1, D6).
/// - After an error the buffer given to the call is zeroed, and the reader can be used again: it works once the
///   account has a lease.
///
/// [`read_at`](Self::read_at) takes `&self`: threads share a reader and do not wait for each other.
pub struct ObjectReader<S> {
    account: Account,
    source: S,
    proven: Proven,
    geometry: ObjectGeometry,
    /// Where `Read` goes on; may lie past the end.
    position: u64,
    /// Taken by a call while it runs. A second one at the same time makes do with new buffers.
    idle: Mutex<Option<Scratch>>,
}

/// Buffers that outlive a call.
#[derive(Default)]
struct Scratch {
    /// Sealed bytes as the source gave them; never longer than [`FETCH_AT_MOST`] or one frame.
    sealed: Vec<u8>,
    cached: Option<CachedBlock>,
}

/// The plaintext of a block that was wanted in part.
struct CachedBlock {
    index: u64,
    /// The epoch of the permit that opened it. While it lasts, the key was never out of service since.
    epoch: Epoch,
    plain: Zeroizing<Vec<u8>>,
}

impl<S: ReadAt> ObjectReader<S> {
    pub(super) fn open(account: Account, context: Context, source: S) -> Result<Self, Error> {
        // A closed account costs no read of the source.
        account.permit().map(drop)?;
        let stored_len =
            source.size().map_err(|error| Error::io("asking for an object's size failed", error))?;
        let mut header = [0; HEADER_LEN];
        read_exact_at(&source, &mut header, 0)?;
        let proven = Proven::new(&account, &context, header)?;
        let geometry = ObjectGeometry::of_stored(stored_len, proven.info().layout())?;
        let reader = Self { account, source, proven, geometry, position: 0, idle: Mutex::new(None) };
        // An object that was cut at a block's edge has a possible length; only its last frame shows it.
        let mut scratch = Scratch::default();
        reader.open_run(&mut scratch, geometry.last_index(), 0, &mut [])?;
        reader.put_back(scratch);
        Ok(reader)
    }

    /// Reads from `offset` on until `buf` is full or the object ends; returns how many bytes that was.
    ///
    /// # Errors
    /// - the account's state, when it holds no valid lease
    /// - [`ErrorKind::Corrupt`]: a block of the range was changed, or comes from another place
    /// - [`ErrorKind::Format`]: a block is malformed, or the source has become shorter
    /// - [`ErrorKind::Io`]: the source failed
    ///
    /// `buf` is then zeroed, the blocks before the failing one included.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let left = usize::try_from(self.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let buf = &mut buf[..len];
        let mut scratch = self.take_idle();
        // A failure drops the scratch, and with it wipes what was cached.
        self.fill(&mut scratch, offset, buf).inspect_err(|_| buf.zeroize())?;
        self.put_back(scratch);
        Ok(len)
    }

    /// How many bytes of plaintext the object holds; proven when it was opened.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.geometry.plain_len()
    }

    /// Whether the object holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The object's identity, proven when it was opened.
    #[must_use]
    pub const fn info(&self) -> ObjectInfo {
        self.proven.info()
    }

    /// Wipes the plaintext that the reader keeps between calls. For whoever is told that the
    /// account closed: it could not be read any more, and now it is gone.
    pub fn purge(&self) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    #[cfg(test)]
    pub(super) fn caches_plaintext(&self) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.as_mut().is_some_and(|scratch| scratch.cached.is_some())
    }

    fn fill(&self, scratch: &mut Scratch, mut offset: u64, mut buf: &mut [u8]) -> Result<(), Error> {
        while !buf.is_empty() {
            let (index, within) = self.geometry.locate(offset);
            let len = match self.copy_cached(scratch, index, within, buf)? {
                Some(len) => len,
                None => self.open_run(scratch, index, within, buf)?,
            };
            buf = &mut buf[len..];
            offset += len as u64;
        }
        Ok(())
    }

    /// Copies from the cached block, if it is block `index` and its lease has lasted.
    fn copy_cached(
        &self,
        scratch: &mut Scratch,
        index: u64,
        within: usize,
        buf: &mut [u8],
    ) -> Result<Option<usize>, Error> {
        let Some(cached) = scratch.cached.as_ref().filter(|cached| cached.index == index) else {
            return Ok(None);
        };
        let len = copy(&cached.plain[within..], buf);
        // The final check comes after the copy and before its release, as it does for a block (contract D4).
        if self.account.permit()?.epoch() != cached.epoch {
            scratch.cached = None;
            return Ok(None);
        }
        Ok(Some(len))
    }

    /// Opens blocks from `index` on into `buf`, whose first byte lies `within` the first of them: as many as one
    /// read of the source brings. The last block, if wanted in part, stays cached. Returns how many bytes of `buf` are
    /// filled.
    fn open_run(
        &self,
        scratch: &mut Scratch,
        index: u64,
        within: usize,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        self.account.permit().map(drop)?;
        let Scratch { sealed, cached } = scratch;
        let run = self.run(index, within + buf.len());
        let mut frames = self.fetch(sealed, &run)?;
        let mut filled = 0;
        for index in run.first..=run.last {
            let within = if index == run.first { within } else { 0 };
            let rest = &mut buf[filled..];
            let block_len = self.geometry.block_len(index);
            let (frame, next) = frames.split_at(self.geometry.frame_len(index));
            frames = next;
            if within == 0 && rest.len() >= block_len && block_len > 0 {
                self.open_frame(index, frame, &mut rest[..block_len])?;
                filled += block_len;
                continue;
            }
            let mut plain = cached.take().map_or_else(Zeroizing::default, |block| block.plain);
            resize_wiping(&mut plain, block_len);
            let epoch = self.open_frame(index, frame, &mut plain)?;
            filled += copy(&plain[within..], rest);
            *cached = Some(CachedBlock { index, epoch, plain });
        }
        Ok(filled)
    }

    /// Opens one frame under a permit taken after the source has answered, and tells the permit's epoch.
    fn open_frame(&self, index: u64, frame: &[u8], plain: &mut [u8]) -> Result<Epoch, Error> {
        self.proven.open_frame(&self.account, &self.geometry, index, frame, plain)
    }

    /// The frames to fetch at once for the `span` bytes from the start of block `first` on.
    fn run(&self, first: u64, span: usize) -> Run {
        let layout = self.geometry.layout();
        let full = layout.frame_len(layout.block_len());
        let wanted = span.div_ceil(layout.block_len()).max(1);
        let at_once = (FETCH_AT_MOST / full).max(1);
        // OK because both are small, or `first` is the last block and one is wanted.
        let last = first + (wanted.min(at_once) as u64 - 1);
        let start = self.geometry.frame_at(first);
        let before_last = (wanted.min(at_once) - 1) * full;
        Run { first, last, start, len: before_last + self.geometry.frame_len(last) }
    }

    fn fetch<'a>(&'a self, sealed: &'a mut Vec<u8>, run: &Run) -> Result<&'a [u8], Error> {
        if let Some(bytes) = self.source.borrow_at(run.start, run.len) {
            return bytes.get(..run.len).ok_or_else(ended_early);
        }
        if sealed.len() < run.len {
            sealed.resize(run.len, 0);
        }
        let sealed = &mut sealed[..run.len];
        read_exact_at(&self.source, sealed, run.start)?;
        Ok(sealed)
    }

    fn take_idle(&self) -> Scratch {
        match self.idle.try_lock() {
            Ok(mut idle) => idle.take().unwrap_or_default(),
            Err(_) => Scratch::default(),
        }
    }

    /// Keeps the buffers for the next call. Under the lock, the lease is looked at: plaintext of a closed epoch
    /// is not put back behind a `purge` that was called for that closing.
    fn put_back(&self, mut scratch: Scratch) {
        if let Ok(mut idle) = self.idle.try_lock() {
            let epoch = self.account.permit().ok().map(|permit| permit.epoch());
            scratch.cached = scratch.cached.filter(|cached| Some(cached.epoch) == epoch);
            *idle = Some(scratch);
        }
    }
}

impl<S: ReadAt> Read for ObjectReader<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.read_at(self.position, buf)?;
        self.position += len as u64;
        Ok(len)
    }

    /// Makes room once, for what the object is proven to hold. On an error `out` is as it was.
    fn read_to_end(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        let left = usize::try_from(self.len().saturating_sub(self.position))
            .map_err(|_| Error::new(ErrorKind::Limit, "the object does not fit into memory"))?;
        out.try_reserve(left)?;
        let start = out.len();
        out.resize(start + left, 0);
        self.read_exact(&mut out[start..]).inspect_err(|_| out.truncate(start))?;
        Ok(left)
    }
}

impl<S: ReadAt> Seek for ObjectReader<S> {
    /// Past the end is allowed, and reads nothing there; before the start is [`ErrorKind::Misuse`].
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "seeking before the start or past 2^64 of an object")
        })?;
        Ok(self.position)
    }
}

impl<S> fmt::Debug for ObjectReader<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader")
            .field("info", &self.proven.info())
            .field("len", &self.geometry.plain_len())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Frames that lie side by side and are fetched together.
struct Run {
    first: u64,
    last: u64,
    /// Where they start in the stored object, and how long they are.
    start: u64,
    len: usize,
}

/// Copies what fits, and says how much that is.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

/// A vector that grows by itself leaves its old bytes behind in freed memory; here they are wiped.
fn resize_wiping(plain: &mut Zeroizing<Vec<u8>>, len: usize) {
    if len > plain.capacity() {
        *plain = Zeroizing::new(vec![0; len]);
    }
    plain.resize(len, 0);
}

/// The most that one read of the source asks for, unless a single frame is longer.
const FETCH_AT_MOST: usize = 1024 * 1024;
