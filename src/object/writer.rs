//! Writing a sealed object as a stream of unknown length.
//!
//! Which block is the last is known only when the stream ends, and the last one carries the final flag:
//! so the writer holds back up to one block. Imports: `account`, `format`, `id`, `error`.

use std::fmt;
use std::io::{self, Write};

use zeroize::Zeroizing;

use crate::account::Account;
use crate::account::permit::Permit;
use crate::error::{Error, ErrorKind};
use crate::format::frame;
use crate::format::object::{Context, ObjectGeometry, ObjectInfo, frame_len, header_bytes};
use crate::id::{BlockId, Epoch, ObjectId};
use crate::object::ObjectOptions;

/// Seals what is written to it into `sink`, block by block.
///
/// - It needs no length beforehand, holds back at most one block, and uses memory for two or 256 KiB, whichever is
///   more. Whole blocks in the caller's buffer are sealed from there.
/// - **Only [`finish`](Self::finish) makes an object.** What a dropped writer leaves in the sink is
///   accepted by no reader.
/// - It belongs to one lease without a gap: once the account's key was out of service, or the sink has failed, that
///   call and every later one return the error, and the plaintext held back is wiped (contract D2, D11).
///
/// `flush` passes on what is sealed; it cannot pass on the block that is held back.
pub struct ObjectWriter<W> {
    account: Account,
    epoch: Epoch,
    info: ObjectInfo,
    sink: W,
    /// Plaintext of the block that may turn out to be the last. Empty only before the first byte.
    held: Zeroizing<Vec<u8>>,
    /// Sealed bytes on their way to the sink.
    out: Vec<u8>,
    /// How many frames are sealed: the index of the block in `held`.
    sealed: u64,
    /// How many bytes of plaintext were taken, those in `held` included.
    plain_len: u64,
    failed: Option<Error>,
}

/// How long a finished object is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectLen {
    /// What a reader will read.
    pub plain: u64,
    /// What the sink was given.
    pub stored: u64,
}

impl<W: Write> ObjectWriter<W> {
    pub(super) fn begin(
        account: Account,
        context: Context,
        sink: W,
        options: ObjectOptions,
    ) -> Result<Self, Error> {
        let ObjectOptions { block_size } = options;
        let permit = account.permit()?;
        let (generation, suite) = permit.newest()?;
        let object = ObjectId::random();
        let info = ObjectInfo { account: account.id(), generation, suite, object, block_size };
        let header = header_bytes(&info);
        let mac = permit.object_mac(generation, &[&header, context.as_bytes()])?;
        let out = [header.as_slice(), &mac].concat();
        let held = Zeroizing::new(Vec::new());
        let epoch = permit.epoch();
        Ok(Self { account, epoch, info, sink, held, out, sealed: 0, plain_len: 0, failed: None })
    }

    /// Seals the last block, passes everything on, flushes the sink and returns it with the object's length.
    ///
    /// Whether the bytes survive a power cut is the sink's business: sync the file afterwards. To keep the
    /// sink also when this fails, give the writer `&mut sink`.
    ///
    /// # Errors
    /// What an earlier call returned, if one failed; otherwise the account's state when the lease has been lost since
    /// the writer began, and [`ErrorKind::Io`] when the sink fails. The object must then count as not
    /// written, although all of its bytes may have arrived.
    pub fn finish(mut self) -> Result<(W, ObjectLen), Error> {
        self.attempt(|writer| {
            writer.check_lease()?;
            let held = std::mem::take(&mut writer.held);
            writer.seal(&held, Last::Yes)?;
            writer.drain()?;
            writer.sink.flush().map_err(sink_failed)?;
            // The fence: nothing is acknowledged that was sealed under a lease since lost.
            writer.check_lease()
        })?;
        let geometry = ObjectGeometry::of_plain(self.plain_len, self.info.block_size)?;
        Ok((self.sink, ObjectLen { plain: geometry.plain_len(), stored: geometry.stored_len() }))
    }

    /// The object's identity. Its id is drawn when the writer begins.
    #[must_use]
    pub const fn info(&self) -> ObjectInfo {
        self.info
    }

    /// How many bytes were written to this writer.
    #[must_use]
    pub const fn plain_len(&self) -> u64 {
        self.plain_len
    }

    #[cfg(test)]
    pub(super) fn holds_plaintext(&self) -> bool {
        self.held.capacity() > 0
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.check_lease()?;
        let plain_len = self.plain_len.saturating_add(bytes.len() as u64);
        ObjectGeometry::of_plain(plain_len, self.info.block_size)?;
        let block = self.info.block_size.bytes();
        // `>` and not `>=`: a block is sealed once a byte after it proves that it is not the last.
        while self.held.len() + bytes.len() > block {
            if self.held.is_empty() {
                let (whole, rest) = bytes.split_at(block);
                self.seal(whole, Last::No)?;
                bytes = rest;
            } else {
                let (fitting, rest) = bytes.split_at(block - self.held.len());
                let mut held = std::mem::take(&mut self.held);
                hold(&mut held, fitting, block);
                self.seal(&held, Last::No)?;
                held.clear();
                self.held = held;
                bytes = rest;
            }
            if self.out.len() >= DRAIN_AT {
                self.drain()?;
            }
        }
        hold(&mut self.held, bytes, block);
        self.plain_len = plain_len;
        self.drain()
    }

    fn seal(&mut self, plain: &[u8], last: Last) -> Result<(), Error> {
        self.out.reserve(frame_len(plain.len()));
        let start = self.out.len();
        let id = BlockId::new(self.info.object, self.sealed);
        let permit = permit_of(&self.account, self.epoch)?;
        permit.seal_object_frame(id, last == Last::Yes, plain, &mut self.out)?;
        // Frames are sealed under the newest generation, an object under one: that of its header.
        if frame::peek(&self.out[start..])?.generation() != self.info.generation {
            return Err(write_again(&self.account));
        }
        self.sealed += 1;
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Error> {
        self.sink.write_all(&self.out).map_err(sink_failed)?;
        self.out.clear();
        Ok(())
    }

    fn check_lease(&self) -> Result<(), Error> {
        permit_of(&self.account, self.epoch).map(drop)
    }

    /// Runs one operation, and makes its failure the end of this writer.
    fn attempt(&mut self, operation: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // It counts as failed until it returns: a sink that panics may have taken half of what it was given.
        self.failed = Some(Error::new(ErrorKind::Io, "the sink panicked in an earlier call"));
        let done = operation(self);
        self.failed = done.as_ref().err().cloned();
        if done.is_err() {
            self.held = Zeroizing::new(Vec::new());
            self.out = Vec::new();
        }
        done
    }
}

impl<W: Write> Write for ObjectWriter<W> {
    /// Takes all of `bytes`, or fails for good.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|writer| writer.take(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(|writer| {
            writer.check_lease()?;
            writer.drain()?;
            writer.sink.flush().map_err(sink_failed)
        })?;
        Ok(())
    }
}

impl<W> fmt::Debug for ObjectWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter")
            .field("info", &self.info)
            .field("plain_len", &self.plain_len)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// A permit of the epoch that the writer began in.
fn permit_of(account: &Account, epoch: Epoch) -> Result<Permit<'_>, Error> {
    let permit = account.permit()?;
    if permit.epoch() == epoch { Ok(permit) } else { Err(write_again(account)) }
}

fn write_again(account: &Account) -> Error {
    let message = "the key was out of service or replaced meanwhile: write the object again";
    Error::new(ErrorKind::NotReady, message).with_account(account.id())
}

/// Appends to the plaintext held back. A vector that grows by itself leaves its old bytes behind in freed memory;
/// here they are wiped. Grows by doubling, so that a small object does not pay for a large block.
fn hold(held: &mut Zeroizing<Vec<u8>>, bytes: &[u8], block: usize) {
    let needed = held.len() + bytes.len();
    if needed > held.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two().min(block)));
        larger.extend_from_slice(held);
        *held = larger;
    }
    held.extend_from_slice(bytes);
}

fn sink_failed(error: io::Error) -> Error {
    Error::io("writing a sealed object failed", error)
}

/// Frames that are ready together go to the sink together, up to about this many bytes: small blocks then do not
/// cost a system call each, and the buffer stays within a core's own cache.
const DRAIN_AT: usize = 256 * 1024;
