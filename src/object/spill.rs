//! Temporary files of an engine, sealed block by block, and read while they grow. Imports: `account`, `id`, `error`.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::{Zeroize, Zeroizing};

use crate::account::Account;
use crate::error::Error;
use crate::id::{Aad, BlockId, ObjectId};
use crate::object::source::read_exact_at;

/// A temporary file under an account's key: what a query engine spills when memory is short (contract G7).
///
/// - It is a run of sealed blocks, of up to 128 KiB of plaintext, each bound to this file and its place in it. Which blocks
///   there are is known in memory only, 8 bytes for each, so nothing of the file is believed: changed, swapped, cut,
///   from another file, it is an error.
/// - Unlike a [`SealedObject`](crate::SealedObject) it can be read while it is written: what was flushed is there at once.
/// - It lives as long as this value. Give it a file without a name, as the crate `tempfile` makes them: then nothing has to
///   be cleaned up, and what a crash leaves in free blocks of the disk is sealed.
/// - When the account is revoked, blocks are neither written nor read; when it recovers, the file is usable again.
///
/// ```
/// # use std::io::Write;
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{AccountId, AccountSpec, AekCache};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// use strongroom::SpillFile;
///
/// let spill = Arc::new(SpillFile::new(account, tempfile::tempfile()?));
/// let mut writer = SpillFile::writer(&spill);
/// writer.write_all(b"a sorted run")?;
/// writer.flush()?; // seals what was held back
/// assert_eq!(spill.read_block(0)?.as_deref(), Some(&b"a sorted run"[..]));
/// assert_eq!(spill.read_block(1)?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SpillFile {
    account: Account,
    file: File,
    /// Drawn when it is made: blocks of another file do not open here.
    object: ObjectId,
    /// Where each block ends. Held while a block is appended, so that no two have one index.
    ends: Mutex<Vec<u64>>,
}

impl SpillFile {
    /// Over `file`, which is empty, open for reading and writing, and nobody else's.
    #[must_use]
    pub fn new(account: Account, file: File) -> Self {
        Self { account, file, object: ObjectId::random(), ends: Mutex::default() }
    }

    /// Appends to it. Blocks of several writers stand between one another.
    #[must_use]
    pub fn writer(this: &Arc<Self>) -> SpillWriter {
        let held = Zeroizing::new(Vec::with_capacity(BLOCK));
        SpillWriter { spill: Arc::clone(this), held, failed: None }
    }

    /// The plaintext of a block, by its number from 0 on; `None` where none was written yet.
    ///
    /// # Errors
    /// - the account's state, when it holds no valid lease
    /// - [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::Format`](crate::ErrorKind::Format): somebody changed the file
    /// - [`ErrorKind::Io`](crate::ErrorKind::Io): the file cannot be read
    pub fn read_block(&self, index: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some((start, len)) = self.place_of(index) else { return Ok(None) };
        // A closed account costs no read.
        self.account.permit().map(drop)?;
        let mut sealed = vec![0; len];
        read_exact_at(&self.file, &mut sealed, start)?;
        self.account.open(self.block(index), AAD, &sealed).map(Some)
    }

    /// How many bytes it takes on the disk.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).last().copied().unwrap_or_default()
    }

    fn place_of(&self, index: usize) -> Option<(u64, usize)> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = *ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| ends[before]);
        Some((start, usize::try_from(end - start).ok()?))
    }

    /// A block is there once all of it was written; where that fails, the next one takes its place.
    fn append(&self, plain: &[u8]) -> Result<(), Error> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.account.seal(self.block(ends.len()), AAD, plain)?;
        let start = ends.last().copied().unwrap_or_default();
        write_all_at(&self.file, &sealed, start)
            .map_err(|error| Error::io("writing a temporary file failed", error))?;
        // OK because no buffer is longer than 2^64 - 1 bytes, and no file either.
        ends.push(start + sealed.len() as u64);
        Ok(())
    }

    const fn block(&self, index: usize) -> BlockId {
        // OK because no index of memory is beyond 2^64.
        BlockId::new(self.object, index as u64)
    }
}

impl fmt::Debug for SpillFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillFile")
            .field("account", &self.account.id())
            .field("object", &self.object)
            .field("stored_len", &self.stored_len())
            .finish_non_exhaustive()
    }
}

/// Writes to a [`SpillFile`]. It holds back up to one block, in memory that is wiped; `flush` seals that too. What was not flushed
/// when it is dropped was not written.
///
/// Once a call has failed, every later one returns that error: bytes between were lost.
pub struct SpillWriter {
    spill: Arc<SpillFile>,
    /// Shorter than a block.
    held: Zeroizing<Vec<u8>>,
    failed: Option<Error>,
}

impl SpillWriter {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while self.held.len() + bytes.len() >= BLOCK {
            let (now, rest) = bytes.split_at(BLOCK - self.held.len());
            if self.held.is_empty() {
                self.spill.append(now)?;
            } else {
                self.held.extend_from_slice(now);
                self.seal_held()?;
            }
            bytes = rest;
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn seal_held(&mut self) -> Result<(), Error> {
        if !self.held.is_empty() {
            self.spill.append(&self.held)?;
            self.held.clear();
        }
        Ok(())
    }

    /// Runs one operation, and makes its failure the end of this writer.
    fn attempt(&mut self, operation: impl FnOnce(&mut Self) -> Result<(), Error>) -> io::Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        operation(self).map_err(|error| {
            self.held.zeroize();
            self.failed = Some(error.clone());
            error.into()
        })
    }
}

impl Write for SpillWriter {
    /// Takes all of `bytes`, or fails for good.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|writer| writer.take(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Self::seal_held)
    }
}

impl fmt::Debug for SpillWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillWriter")
            .field("spill", &self.spill)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            len => {
                bytes = &bytes[len..];
                offset += len as u64;
            }
        }
    }
    Ok(())
}

/// Says what these blocks are, so that no block of an embedder's own passes for one.
const AAD: Aad<'static> = Aad::new(b"strongroom spill");
/// Plaintext of a full block: 64 bytes more of it are 0.05 %, and sealing it stays within a core's own cache.
const BLOCK: usize = 128 * 1024;
