//! Writing a sealed object as a stream of unknown length. Imports: `account`, `format`, `error`.

use std::fmt;
use std::io::{self, Write};

use crate::account::Account;
use crate::error::{Error, ErrorKind};
use crate::format::object::{Context, ObjectInfo};
use crate::object::ObjectOptions;
use crate::object::sealer::{ObjectLen, Sealer};

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
    sealer: Sealer,
    sink: W,
    /// Sealed bytes on their way to the sink.
    out: Vec<u8>,
    failed: Option<Error>,
}

impl<W: Write> ObjectWriter<W> {
    pub(super) fn begin(
        account: Account,
        context: Context,
        sink: W,
        options: ObjectOptions,
    ) -> Result<Self, Error> {
        let ObjectOptions { block_size } = options;
        let mut out = Vec::new();
        let sealer = Sealer::begin(account, &context, block_size, &mut out)?;
        Ok(Self { sealer, sink, out, failed: None })
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
        let len = self.attempt(|writer| {
            let len = writer.sealer.finish(&mut writer.out)?;
            writer.drain()?;
            writer.sink.flush().map_err(sink_failed)?;
            // The fence: nothing is acknowledged that was sealed under a lease since lost.
            writer.sealer.check_lease()?;
            Ok(len)
        })?;
        Ok((self.sink, len))
    }

    /// The object's identity. Its id is drawn when the writer begins.
    #[must_use]
    pub const fn info(&self) -> ObjectInfo {
        self.sealer.info()
    }

    /// How many bytes were written to this writer.
    #[must_use]
    pub const fn plain_len(&self) -> u64 {
        self.sealer.plain_len()
    }

    #[cfg(test)]
    pub(super) fn holds_plaintext(&self) -> bool {
        self.sealer.holds_plaintext()
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.sealer.admit(bytes.len())?;
        while self.sealer.take(&mut bytes, &mut self.out)? {
            if self.out.len() >= DRAIN_AT {
                self.drain()?;
            }
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), Error> {
        self.sink.write_all(&self.out).map_err(sink_failed)?;
        self.out.clear();
        Ok(())
    }

    /// Runs one operation, and makes its failure the end of this writer.
    fn attempt<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // It counts as failed until it returns: a sink that panics may have taken half of what it was given.
        self.failed = Some(Error::new(ErrorKind::Io, "the sink panicked in an earlier call"));
        let done = operation(self);
        self.failed = done.as_ref().err().cloned();
        if done.is_err() {
            self.sealer.wipe();
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
            writer.sealer.check_lease()?;
            writer.drain()?;
            writer.sink.flush().map_err(sink_failed)
        })?;
        Ok(())
    }
}

impl<W> fmt::Debug for ObjectWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter")
            .field("info", &self.sealer.info())
            .field("plain_len", &self.sealer.plain_len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

fn sink_failed(error: io::Error) -> Error {
    Error::io("writing a sealed object failed", error)
}

/// Frames that are ready together go to the sink together, up to about this many bytes: small blocks then do not
/// cost a system call each, and the buffer stays within a core's own cache.
const DRAIN_AT: usize = 256 * 1024;
