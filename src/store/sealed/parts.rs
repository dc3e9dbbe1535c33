//! Sealing what arrives in pieces of any size into parts of one size, as an upload needs them.
//! Imports: `object::sealer`, `account`, `format::object`, `error`.

use bytes::Bytes;

use crate::account::Account;
use crate::error::{Error, ErrorKind};
use crate::format::object::{Context, Layout};
use crate::object::sealer::Sealer;
use crate::store::sealed::span;

/// An object on its way into a store: plaintext goes in, parts of sealed bytes come out.
///
/// It holds at most one block of plaintext, and less than one part of sealed bytes between calls.
pub(crate) struct Parts {
    sealer: Sealer,
    layout: Layout,
    /// How long every part but the last is; settled by the first piece.
    part_len: Option<usize>,
    least: usize,
    /// Sealed bytes of the part that is being filled.
    part: Vec<u8>,
    failed: Option<Error>,
}

impl Parts {
    /// Parts of `least` bytes, or as long as the first piece is once sealed: so there are never more parts than pieces
    /// of at least that size, and a caller's plan for a store's limit on their number holds.
    ///
    /// # Errors
    /// The account's state, when it holds no valid lease; [`ErrorKind::Misuse`] when its suite is not the layout's.
    pub(crate) fn begin(
        account: Account,
        context: &Context,
        layout: Layout,
        least: usize,
    ) -> Result<Self, Error> {
        let mut part = Vec::new();
        let sealer = begin(account, context, layout, &mut part)?;
        Ok(Self { sealer, layout, part_len: None, least, part, failed: None })
    }

    /// Takes the next piece, and gives the parts that it fills.
    ///
    /// # Errors
    /// When the lease has been lost since the beginning, or the object is too long; from then on every call fails.
    pub(crate) fn take<'a>(
        &mut self,
        piece_len: usize,
        piece: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Bytes>, Error> {
        self.attempt(|parts| {
            parts.sealer.admit(piece_len)?;
            let part_len = parts.settle(piece_len)?;
            let mut full = Vec::new();
            for mut bytes in piece {
                parts.make_room(part_len);
                while parts.sealer.take(&mut bytes, &mut parts.part)? {
                    while parts.part.len() >= part_len {
                        full.push(parts.cut(part_len));
                        parts.make_room(part_len);
                    }
                }
            }
            Ok(full)
        })
    }

    /// Seals the last block, and gives what is left: at least one part, only the last of them short.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) fn finish(&mut self) -> Result<Vec<Bytes>, Error> {
        self.attempt(|parts| {
            parts.sealer.finish(&mut parts.part)?;
            let part_len = parts.part_len.unwrap_or(parts.least);
            let mut last = Vec::new();
            while parts.part.len() > part_len {
                last.push(parts.cut(part_len));
            }
            last.push(std::mem::take(&mut parts.part).into());
            Ok(last)
        })
    }

    /// The fence before the object is acknowledged (contract D11).
    ///
    /// # Errors
    /// Why it may not be.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => self.sealer.check_lease(),
        }
    }

    /// Ends it: plaintext that is held back is wiped, and every later call fails.
    pub(crate) fn give_up(&mut self) {
        self.sealer.wipe();
        self.part = Vec::new();
        self.failed.get_or_insert(Error::new(ErrorKind::Misuse, "the upload has ended"));
    }

    fn settle(&mut self, piece_len: usize) -> Result<usize, Error> {
        if let Some(part_len) = self.part_len {
            return Ok(part_len);
        }
        let part_len = span::stored_len(piece_len as u64, self.layout)?.max(self.least);
        self.part_len = Some(part_len);
        Ok(part_len)
    }

    /// A part grows to less than a frame more than its length before it is cut. All of that is taken at once: a buffer that
    /// doubles would hold up to twice as much, for as long as the part is on its way.
    fn make_room(&mut self, part_len: usize) {
        if self.part.capacity() < part_len {
            let frame = self.layout.frame_len(self.layout.block_len());
            self.part.reserve_exact(part_len + frame - self.part.len());
        }
    }

    /// What follows the cut begins the next part.
    fn cut(&mut self, part_len: usize) -> Bytes {
        let rest = self.part.split_off(part_len);
        std::mem::replace(&mut self.part, rest).into()
    }

    fn attempt<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let done = operation(self);
        if let Err(error) = &done {
            self.failed = Some(error.clone());
            self.give_up();
        }
        done
    }
}

/// Seals a whole object of `len` bytes that is in memory, into one buffer. The sealer that comes with it is the fence.
///
/// # Errors
/// The account's state when it holds no valid lease; [`ErrorKind::Limit`] for more than an object holds; [`ErrorKind::Misuse`] when
/// the account's suite is not the layout's.
pub(crate) fn seal_all<'a>(
    account: Account,
    context: &Context,
    layout: Layout,
    len: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Sealer, Bytes), Error> {
    let mut out = Vec::with_capacity(span::stored_len(len as u64, layout)?);
    let mut sealer = begin(account, context, layout, &mut out)?;
    for mut bytes in pieces {
        sealer.admit(bytes.len())?;
        while sealer.take(&mut bytes, &mut out)? {}
    }
    sealer.finish(&mut out)?;
    Ok((sealer, out.into()))
}

/// A store's objects have one layout, or its listings would lie: what an account of another suite seals is none of them.
fn begin(account: Account, context: &Context, layout: Layout, out: &mut Vec<u8>) -> Result<Sealer, Error> {
    let id = account.id();
    let sealer = Sealer::begin(account, context, layout.block_size, out)?;
    if sealer.info().layout() != layout {
        let message = "the account's suite is not this store's: all accounts of a store have one";
        return Err(Error::new(ErrorKind::Misuse, message).with_account(id));
    }
    Ok(sealer)
}
