//! Sealed objects: files of any length under an account's key, written as a stream, read at random. And temporary files.
//!
//! An object is immutable: a new version is a new object with an id of its own. What it looks like on
//! disk is in `format::object`. Imports: `account`, `format`, `id`, `error`.

pub(crate) mod proven;
mod reader;
pub(crate) mod sealer;
mod source;
mod spill;
#[cfg(test)]
mod tests;
mod writer;

use std::io::Write;

use crate::account::Account;
use crate::error::{Error, ErrorKind};
use crate::format::object::{BlockSize, Context, HEADER_LEN, ObjectInfo, UnverifiedHeader};

pub use reader::ObjectReader;
pub use sealer::ObjectLen;
pub use source::ReadAt;
pub use spill::{SpillFile, SpillWriter};
pub use writer::ObjectWriter;

/// A file sealed under an account's key (contract F3, F4, F5).
///
/// ```no_run
/// # use std::{fs::File, io::{Read, Write}};
/// # use strongroom::{Account, Context, Error, SealedObject};
/// # fn example(account: Account) -> Result<(), Box<dyn std::error::Error>> {
/// let context = Context::new(&[b"orders", b"2026/11/part-0001"]);
///
/// let mut writer = SealedObject::writer(account.clone(), context, File::create("part-0001")?)?;
/// writer.write_all(b"as much as you like, in pieces of any size")?;
/// let (file, len) = writer.finish()?;
/// file.sync_all()?;
/// println!("{} bytes sealed into {}", len.plain, len.stored);
///
/// let reader = SealedObject::reader(account, context, File::open("part-0001")?)?;
/// let mut range = [0; 10];
/// reader.read_at(11, &mut range)?;
/// # Ok(()) }
/// ```
///
/// Never constructed: it is the name under which the functions stand.
#[derive(Debug)]
#[non_exhaustive]
pub struct SealedObject;

impl SealedObject {
    /// Begins an object with blocks of 64 KiB. See [`ObjectWriter`].
    ///
    /// # Errors
    /// The account's state, when it holds no valid lease. Nothing has been written then.
    pub fn writer<W: Write>(account: Account, context: Context, sink: W) -> Result<ObjectWriter<W>, Error> {
        Self::writer_with(account, context, sink, ObjectOptions::default())
    }

    /// Begins an object with other choices than the defaults.
    ///
    /// # Errors
    /// The account's state, when it holds no valid lease. Nothing has been written then.
    pub fn writer_with<W: Write>(
        account: Account,
        context: Context,
        sink: W,
        options: ObjectOptions,
    ) -> Result<ObjectWriter<W>, Error> {
        ObjectWriter::begin(account, context, sink, options)
    }

    /// Opens an object: proves its header and its last block, and with them its length. See [`ObjectReader`].
    ///
    /// # Errors
    /// - the account's state, when it holds no valid lease
    /// - [`ErrorKind::Format`]: not a sealed object, of an unknown version, or of a length that none has
    /// - [`ErrorKind::Corrupt`]: changed, cut at a block's edge, of another account, or of another context
    /// - [`ErrorKind::UnknownGeneration`]: sealed under a generation that the account's record does not know
    /// - [`ErrorKind::Io`]: the source failed
    pub fn reader<S: ReadAt>(
        account: Account,
        context: Context,
        source: S,
    ) -> Result<ObjectReader<S>, Error> {
        ObjectReader::open(account, context, source)
    }

    /// What an object's first bytes claim, without a key: which account to attach in order to read it. A claim, not a
    /// fact: only [`SealedObject::reader`] proves it.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] when `start` is shorter than 80 bytes or not the start of a sealed object.
    pub fn peek(start: &[u8]) -> Result<ObjectInfo, Error> {
        let Some(header) = start.first_chunk::<HEADER_LEN>() else {
            return Err(Error::new(ErrorKind::Format, "shorter than a sealed object's header"));
        };
        Ok(UnverifiedHeader::parse(*header)?.info())
    }
}

/// Choices for a new object. The defaults are right for files that are scanned and sometimes read at random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectOptions {
    /// The unit of random access; [`BlockSize::DEFAULT`] unless set.
    pub block_size: BlockSize,
}

impl ObjectOptions {
    /// The defaults, with blocks of this size.
    #[must_use]
    pub const fn with_block_size(block_size: BlockSize) -> Self {
        Self { block_size }
    }
}
