//! The data plane: sealing and opening blocks, in every form that spares a copy.
//!
//! No call waits, takes a lock, makes a system call or allocates, except for the buffer that it returns (contract
//! C6; `aws-lc-rs` allocates its cipher context). Sealing reads the clock once before, and looks at the epoch
//! again after; opening reads the clock once, in the final check after decryption and before release (D1, D2, D4).
//! Imports: `state`, `block`, `format`, `derive`, `id`, `error`.

use std::fmt;
use std::io::IoSlice;
use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};

use super::budget::Amount;
use super::state::{AccountState, Guard};
use crate::block::{Place, wipe};
use crate::derive::{Kind, MacUse};
use crate::error::{Error, ErrorKind};
use crate::format::frame::{self, Detached, Tags};
use crate::id::{Aad, BlockId, Epoch, Generation, Suite};

/// The right to seal and open while the account stays in one epoch.
///
/// It holds no key: every call holds the keys for its own length only. Once the account was taken out of
/// service, for whatever reason and however shortly, each call through an older permit fails; renewals of
/// the lease pass unnoticed. A permit cannot be sent to another thread, and so does not live across an `await`:
/// take a new one, it costs a few nanoseconds.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ObjectId};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// use bytes::BytesMut;
/// use std::io::IoSlice;
///
/// let permit = account.permit()?;
/// let (id, aad) = (BlockId::new(ObjectId::random(), 0), Aad::new(b"tenant-42"));
///
/// // Gathered from several places and appended to a buffer: no copy but the one that is encrypted.
/// let mut page = BytesMut::new();
/// permit.seal_append(id, aad, &[IoSlice::new(b"head"), IoSlice::new(b"body")], &mut page)?;
/// assert_eq!(permit.open(id, aad, &page)?, b"headbody");
///
/// // In place, for page formats that keep the 64 bytes beside them elsewhere.
/// let mut data = *b"as long sealed as plain";
/// let detached = permit.seal_detached(id, aad, &mut data)?;
/// permit.open_detached(id, aad, &detached, &mut data)?;
/// assert_eq!(&data, b"as long sealed as plain");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Not `Send`, so this does not compile:
///
/// ```compile_fail,E0277
/// fn send<T: Send>(_: T) {}
/// fn example(account: &strongroom::Account) {
///     send(account.permit().unwrap());
/// }
/// ```
///
/// and this, which differs in one word, does:
///
/// ```
/// fn keep<T>(_: T) {}
/// fn example(account: &strongroom::Account) {
///     keep(account.permit().unwrap());
/// }
/// ```
///
/// # Errors
/// Every call can fail for want of a valid lease, with [`ErrorKind::Revoked`], [`ErrorKind::Unavailable`],
/// [`ErrorKind::Locked`], [`ErrorKind::Deleted`] or [`ErrorKind::NotReady`]; and with [`ErrorKind::Limit`] for blocks
/// beyond [`MAX_BLOCK`](crate::MAX_BLOCK) or an AAD beyond [`MAX_AAD`](crate::MAX_AAD). Sealing fails with [`ErrorKind::Limit`] also once the
/// generation is used up: [`Account::generation_use`](crate::Account::generation_use) tells how far it is. Opening can fail with
/// - [`ErrorKind::Format`]: not a frame of a version, suite and kind known here, or too short for one;
/// - [`ErrorKind::UnknownGeneration`]: sealed under another AEK, or under a generation that is not known;
/// - [`ErrorKind::Corrupt`]: damaged, or of another place.
///
/// A buffer given to a call that fails is either untouched, because nothing was encrypted or decrypted yet,
/// or all zeros. It never holds plaintext that was not released.
pub struct Permit<'a> {
    state: &'a AccountState,
    epoch: Epoch,
    not_send: PhantomData<*const ()>,
}

impl<'a> Permit<'a> {
    /// A permit for the epoch that the account is in, if a lease is valid now.
    pub(crate) fn new(state: &'a AccountState) -> Result<Self, Error> {
        state.enter(None)?.check_lease()?;
        Self::unchecked(state)
    }

    /// The same, leaving it to the first call to look at the deadline.
    #[inline]
    pub(crate) fn unchecked(state: &'a AccountState) -> Result<Self, Error> {
        let epoch = state.enter(None)?.epoch();
        Ok(Self { state, epoch, not_send: PhantomData })
    }

    /// The epoch that the permit is for.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The generation that new blocks are sealed under now, and its suite.
    ///
    /// # Errors
    /// For want of a valid lease.
    pub fn sealing(&self) -> Result<(Generation, Suite), Error> {
        let guard = self.enter()?;
        let keys = guard.sealing(guard.check_lease()?);
        guard.check_epoch()?;
        Ok((keys.generation(), keys.suite()))
    }

    /// Seals `plain` into a new buffer of [`sealed_len`](crate::sealed_len) bytes.
    ///
    /// # Errors
    /// As [`Permit`].
    pub fn seal(&self, id: BlockId, aad: Aad<'_>, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        self.seal_frame(&Place::block(id, aad), None, plain, &mut out)?;
        Ok(out)
    }

    /// Seals the concatenation of `parts` and appends the block to `out`. The parts are copied once, to where
    /// they are encrypted.
    ///
    /// # Errors
    /// As [`Permit`]; `out` is then as long as before, with the same bytes.
    pub fn seal_append(
        &self,
        id: BlockId,
        aad: Aad<'_>,
        parts: &[IoSlice<'_>],
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let place = Place::block(id, aad);
        let plain_len = parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()));
        place.check(plain_len)?;
        let guard = self.enter()?;
        let now = guard.check_lease()?;

        let keys = guard.sealing(now);
        guard.pay(keys, Amount::block(plain_len))?;
        let start = out.len();
        let suite = keys.suite();
        out.reserve(plain_len + frame::overhead(Kind::Block, suite));
        out.resize(start + frame::head_len(Kind::Block), 0);
        parts.iter().for_each(|part| out.extend_from_slice(part));
        let (head_bytes, data) = out[start..].split_at_mut(frame::head_len(Kind::Block));
        let head = keys.fresh_head(&place, now);
        let sealed = keys.seal_in_place(&place, &head, data);
        match sealed.and_then(|tags| guard.check_epoch().map(|()| tags)) {
            Ok(tags) => {
                head.write(head_bytes);
                let end = out.len();
                out.resize(end + Tags::len(suite), 0);
                tags.write(&mut out[end..]);
                guard.tally().sealed(plain_len);
                Ok(())
            }
            Err(error) => {
                wipe(&mut out[start..]);
                out.truncate(start);
                Err(error)
            }
        }
    }

    /// Seals `data` in place and gives what else has to be stored to open it.
    ///
    /// # Errors
    /// As [`Permit`]. Should the lease be lost in the midst, `data` is all zeros: where the plaintext exists nowhere else,
    /// use [`Self::seal_append`].
    pub fn seal_detached(&self, id: BlockId, aad: Aad<'_>, data: &mut [u8]) -> Result<Detached, Error> {
        let guard = self.enter()?;
        let now = guard.check_lease()?;
        let place = Place::block(id, aad);
        place.check(data.len())?;
        let keys = guard.sealing(now);
        guard.pay(keys, Amount::block(data.len()))?;
        let head = keys.fresh_head(&place, now);
        let tags = keys.seal_in_place(&place, &head, data)?;
        guard.check_epoch().inspect_err(|_| wipe(data))?;
        guard.tally().sealed(data.len());
        Ok(Detached { head, tags })
    }

    /// Opens a block into a new buffer.
    ///
    /// # Errors
    /// As [`Permit`].
    pub fn open(&self, id: BlockId, aad: Aad<'_>, frame: &[u8]) -> Result<Vec<u8>, Error> {
        let guard = self.enter()?;
        let (head, sealed, tags) = frame::split(Kind::Block, frame)?;
        let keys = guard.keys(head.header.generation)?;
        let mut out = vec![0; sealed.len()];
        keys.open_to(&Place::block(id, aad), &head, &tags, sealed, &mut out, || guard.release())?;
        guard.tally().opened(out.len());
        Ok(out)
    }

    /// Opens a block into `out`, without an extra copy. `out` is exactly as long as the plaintext, which
    /// [`peek`](crate::peek) tells.
    ///
    /// # Errors
    /// As [`Permit`]; [`ErrorKind::Misuse`] when `out` is of another length.
    pub fn open_into(&self, id: BlockId, aad: Aad<'_>, frame: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let guard = self.enter()?;
        open_apart(&guard, &Place::block(id, aad), frame, out, || guard.release())?;
        guard.tally().opened(out.len());
        Ok(())
    }

    /// Opens a block in place where nobody else holds the bytes, else into a new buffer.
    ///
    /// # Errors
    /// As [`Permit`]. The bytes are gone then: keep a clone to retry, which has the block opened into a new buffer.
    pub fn open_bytes(&self, id: BlockId, aad: Aad<'_>, frame: Bytes) -> Result<Bytes, Error> {
        let place = Place::block(id, aad);
        // Dropping shared bytes may run their owner's code: they are declared before the guard, and outlive it.
        let mut unique = match frame.try_into_mut() {
            Ok(unique) => unique,
            Err(shared) => return self.open(id, aad, &shared).map(Bytes::from),
        };
        let guard = self.enter()?;
        let (head, data, tags) = frame::split_mut(Kind::Block, &mut unique)?;
        let plain_len = data.len();
        let keys = guard.keys(head.header.generation)?;
        keys.open_in_place(&place, &head, &tags, data, || guard.release())?;
        guard.tally().opened(plain_len);
        drop(guard);
        unique.advance(frame::head_len(Kind::Block));
        unique.truncate(plain_len);
        Ok(unique.freeze())
    }

    /// Opens in place what [`Self::seal_detached`] sealed.
    ///
    /// # Errors
    /// As [`Permit`].
    pub fn open_detached(
        &self,
        id: BlockId,
        aad: Aad<'_>,
        detached: &Detached,
        data: &mut [u8],
    ) -> Result<(), Error> {
        let guard = self.enter()?;
        let keys = guard.keys(detached.head.header.generation)?;
        keys.open_in_place(&Place::block(id, aad), &detached.head, &detached.tags, data, || guard.release())?;
        guard.tally().opened(data.len());
        Ok(())
    }

    /// Seals one frame of an object, under the generation that its header names, and appends it to `out`.
    pub(crate) fn seal_object_frame(
        &self,
        generation: Generation,
        id: BlockId,
        last: bool,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.seal_frame(&Place::object_frame(id, last), Some(generation), plain, out)
    }

    /// Opens one frame of an object whose header named `generation`. `out` is as long as its plaintext.
    pub(crate) fn open_object_frame(
        &self,
        generation: Generation,
        id: BlockId,
        last: bool,
        frame: &[u8],
        out: &mut [u8],
    ) -> Result<(), Error> {
        let guard = self.enter()?;
        let info = frame::peek(frame)?;
        if info.generation() != generation {
            return Err(Error::corrupt());
        }
        open_apart(&guard, &Place::object_frame(id, last), frame, out, || guard.release())?;
        guard.tally().opened(out.len());
        Ok(())
    }

    /// The MAC of an object's header, which commits the object to its key.
    pub(crate) fn object_mac(&self, generation: Generation, parts: &[&[u8]]) -> Result<[u8; 32], Error> {
        let guard = self.enter()?;
        let mac = guard.keys(generation)?.mac(MacUse::ObjectHeader, OBJECT_MAC_NAME, parts);
        guard.release()?;
        Ok(mac)
    }

    /// Compares in constant time. A header of another suite than its generation's is not one of ours.
    pub(crate) fn verify_object_mac(
        &self,
        generation: Generation,
        suite: Suite,
        parts: &[&[u8]],
        mac: &[u8; 32],
    ) -> Result<(), Error> {
        let guard = self.enter()?;
        let keys = guard.keys(generation)?;
        if keys.suite() != suite {
            return Err(Error::corrupt());
        }
        keys.verify_mac(MacUse::ObjectHeader, OBJECT_MAC_NAME, parts, mac)?;
        guard.release()
    }

    /// The MAC of a data scope's state.
    pub(crate) fn scope_mac(&self, generation: Generation, content: &[u8]) -> Result<[u8; 32], Error> {
        self.mac(MacUse::Scope, SCOPE_MAC_NAME, generation, content)
    }

    /// Compares in constant time.
    pub(crate) fn verify_scope_mac(
        &self,
        generation: Generation,
        content: &[u8],
        mac: &[u8; 32],
    ) -> Result<(), Error> {
        self.verify_mac(MacUse::Scope, SCOPE_MAC_NAME, generation, content, mac)
    }

    /// The MAC of what is noted of an operation.
    pub(crate) fn operation_mac(&self, generation: Generation, content: &[u8]) -> Result<[u8; 32], Error> {
        self.mac(MacUse::Operation, OPERATION_MAC_NAME, generation, content)
    }

    /// Compares in constant time.
    pub(crate) fn verify_operation_mac(
        &self,
        generation: Generation,
        content: &[u8],
        mac: &[u8; 32],
    ) -> Result<(), Error> {
        self.verify_mac(MacUse::Operation, OPERATION_MAC_NAME, generation, content, mac)
    }

    fn mac(
        &self,
        purpose: MacUse,
        name: &[u8],
        generation: Generation,
        content: &[u8],
    ) -> Result<[u8; 32], Error> {
        let guard = self.enter()?;
        let mac = guard.keys(generation)?.mac(purpose, name, &[content]);
        guard.release()?;
        Ok(mac)
    }

    fn verify_mac(
        &self,
        purpose: MacUse,
        name: &[u8],
        generation: Generation,
        content: &[u8],
        mac: &[u8; 32],
    ) -> Result<(), Error> {
        let guard = self.enter()?;
        guard.keys(generation)?.verify_mac(purpose, name, &[content], mac)?;
        guard.release()
    }

    #[inline]
    pub(super) fn enter(&self) -> Result<Guard<'a>, Error> {
        self.state.enter(Some(self.epoch))
    }

    /// Appends a whole frame of `plain`, encrypted out of place.
    fn seal_frame(
        &self,
        place: &Place<'_>,
        generation: Option<Generation>,
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        place.check(plain.len())?;
        let guard = self.enter()?;
        let now = guard.check_lease()?;
        let keys = match generation {
            None => guard.sealing(now),
            Some(generation) => guard.keys(generation)?,
        };
        guard.pay(keys, Amount::block(plain.len()))?;

        let start = out.len();
        let head_len = frame::head_len(place.kind);
        let sealed_len = plain.len() + frame::overhead(place.kind, keys.suite());
        if out.capacity() == 0 {
            // Zeroed memory is often free when it is new.
            *out = vec![0; sealed_len];
        } else {
            out.resize(start + sealed_len, 0);
        }
        let (head_bytes, rest) = out[start..].split_at_mut(head_len);
        let (data, tags_bytes) = rest.split_at_mut(plain.len());
        let head = keys.fresh_head(place, now);
        let sealed = keys.seal_to(place, &head, plain, data);
        match sealed.and_then(|tags| guard.check_epoch().map(|()| tags)) {
            Ok(tags) => {
                head.write(head_bytes);
                tags.write(tags_bytes);
                guard.tally().sealed(plain.len());
                Ok(())
            }
            Err(error) => {
                wipe(&mut out[start..]);
                out.truncate(start);
                Err(error)
            }
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({}, epoch {})", self.state.id(), self.epoch.number())
    }
}

/// Opens a frame of `place.kind` into `out`.
#[inline]
pub(super) fn open_apart(
    guard: &Guard<'_>,
    place: &Place<'_>,
    frame: &[u8],
    out: &mut [u8],
    release: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let (head, sealed, tags) = frame::split(place.kind, frame)?;
    let keys = guard.keys(head.header.generation)?;
    if out.len() != sealed.len() {
        // How long a plaintext is in a frame of another suite than the account's is not the caller's business.
        if head.header.suite != keys.suite() {
            return Err(Error::corrupt());
        }
        return Err(Error::new(ErrorKind::Misuse, "the output has to be exactly as long as the plaintext"));
    }
    keys.open_to(place, &head, &tags, sealed, out, release)
}

const OBJECT_MAC_NAME: &[u8] = b"object header";
const SCOPE_MAC_NAME: &[u8] = b"scope state";
const OPERATION_MAC_NAME: &[u8] = b"operation";

#[cfg(test)]
mod tests;
