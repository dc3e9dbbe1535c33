//! Cutting a stream of plaintext into the frames of one object. Where the sealed bytes go is the caller's business.
//!
//! Which block is the last is known only when the stream ends, and the last one carries the final flag:
//! so a sealer holds back up to one block. Imports: `account`, `format`, `id`, `error`.

use zeroize::Zeroizing;

use crate::account::Account;
use crate::account::permit::Permit;
use crate::error::{Error, ErrorKind};
use crate::format::object::{BlockSize, Context, ObjectGeometry, ObjectInfo, header_bytes};
use crate::id::{BlockId, Epoch, ObjectId};

/// Seals one object, within one epoch of its account or not at all.
///
/// After an error it must not be used again, and the bytes that it gave are worth nothing.
pub(crate) struct Sealer {
    account: Account,
    epoch: Epoch,
    info: ObjectInfo,
    /// Plaintext of the block that may turn out to be the last. Empty only before the first byte.
    held: Zeroizing<Vec<u8>>,
    /// How many frames are sealed: the index of the block in `held`.
    sealed: u64,
    /// How many bytes of plaintext were taken, those in `held` included.
    plain_len: u64,
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

impl Sealer {
    /// Draws an object's id and appends its header to `out`.
    ///
    /// # Errors
    /// The account's state, when it holds no valid lease.
    pub(crate) fn begin(
        account: Account,
        context: &Context,
        block_size: BlockSize,
        out: &mut Vec<u8>,
    ) -> Result<Self, Error> {
        let permit = account.permit()?;
        let (generation, suite) = permit.sealing()?;
        let object = ObjectId::random();
        let info = ObjectInfo { account: account.id(), generation, suite, object, block_size };
        let header = header_bytes(&info);
        let mac = permit.object_mac(generation, &[&header, context.as_bytes()])?;
        out.extend_from_slice(&header);
        out.extend_from_slice(&mac);
        let epoch = permit.epoch();
        Ok(Self { account, epoch, info, held: Zeroizing::new(Vec::new()), sealed: 0, plain_len: 0 })
    }

    pub(crate) const fn info(&self) -> ObjectInfo {
        self.info
    }

    pub(crate) const fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Makes sure that `more` bytes may follow, now.
    ///
    /// # Errors
    /// When the lease has been lost since the sealer began; [`ErrorKind::Limit`] when the object would hold too much.
    pub(crate) fn admit(&self, more: usize) -> Result<(), Error> {
        self.check_lease()?;
        let plain_len = self.plain_len.saturating_add(more as u64);
        ObjectGeometry::of_plain(plain_len, self.info.layout()).map(drop)
    }

    /// Takes bytes that were admitted from the front of `bytes`, and appends at most one frame to `out`. Whether there is
    /// more to take.
    ///
    /// # Errors
    /// When the lease has been lost since the sealer began.
    pub(crate) fn take(&mut self, bytes: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Error> {
        let block = self.info.block_size.bytes();
        // `<=` and not `<`: a block is sealed once a byte after it proves that it is not the last.
        if self.held.len() + bytes.len() <= block {
            hold(&mut self.held, bytes, block);
            self.plain_len += bytes.len() as u64;
            *bytes = &[];
            return Ok(false);
        }
        let (front, rest) = bytes.split_at(block - self.held.len());
        if self.held.is_empty() {
            self.seal(front, Last::No, out)?;
        } else {
            let mut held = std::mem::take(&mut self.held);
            hold(&mut held, front, block);
            self.seal(&held, Last::No, out)?;
            held.clear();
            self.held = held;
        }
        self.plain_len += front.len() as u64;
        *bytes = rest;
        Ok(true)
    }

    /// Appends the last frame to `out`. Nothing may be taken after it.
    ///
    /// # Errors
    /// When the lease has been lost since the sealer began.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<ObjectLen, Error> {
        self.check_lease()?;
        let held = std::mem::take(&mut self.held);
        self.seal(&held, Last::Yes, out)?;
        let geometry = ObjectGeometry::of_plain(self.plain_len, self.info.layout())?;
        Ok(ObjectLen { plain: geometry.plain_len(), stored: geometry.stored_len() })
    }

    /// The fence: passes while the account has been in the sealer's epoch without a gap, with a valid lease (contract D11).
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_lease(&self) -> Result<(), Error> {
        permit_of(&self.account, self.epoch).map(drop)
    }

    #[cfg(test)]
    pub(crate) fn holds_plaintext(&self) -> bool {
        self.held.capacity() > 0
    }

    /// Wipes the plaintext that is held back.
    pub(crate) fn wipe(&mut self) {
        self.held = Zeroizing::new(Vec::new());
    }

    fn seal(&mut self, plain: &[u8], last: Last, out: &mut Vec<u8>) -> Result<(), Error> {
        out.reserve(self.info.layout().frame_len(plain.len()));
        let id = BlockId::new(self.info.object, self.sealed);
        let permit = permit_of(&self.account, self.epoch)?;
        permit.seal_object_frame(self.info.generation, id, last == Last::Yes, plain, out)?;
        self.sealed += 1;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// A permit of the epoch that the sealer began in.
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
