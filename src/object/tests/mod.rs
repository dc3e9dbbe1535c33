//! Sealed objects beside a `Vec<u8>`, under forgery, under revocation, and over failing stores.

mod faults;
mod forgery;
mod lease;
mod model;

use std::cell::Cell;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::account::state::{AccountState, Keyless};
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::Clock;
use crate::error::Refusal;
use crate::format::object::FRAME_OVERHEAD;
use crate::id::{AccountId, Epoch, Generation, Suite};
use crate::secret::MemoryLock;

pub(super) const BLOCK: usize = 4096;
pub(super) const FRAME: usize = BLOCK + FRAME_OVERHEAD;

/// An account with a lease, that a test takes away and gives back.
pub(super) struct Customer {
    pub(super) account: Account,
    keys: Arc<KeyRing>,
    epoch: Cell<Epoch>,
}

impl Customer {
    pub(super) fn new() -> Self {
        let id = AccountId::random();
        let mut secret = [0; 32];
        crate::random::fill(&mut secret);
        let keys =
            GenerationKeys::new(id, Generation::FIRST, Suite::Aes256Gcm, &secret, MemoryLock::BestEffort)
                .unwrap();
        let account = Account::of_state(AccountState::new(id, Clock::System));
        let customer = Self { account, keys: Arc::new(KeyRing::new(keys)), epoch: Cell::new(Epoch::FIRST) };
        customer.restore();
        customer
    }

    /// The KMS refused: the key goes, and a new epoch begins.
    pub(super) fn revoke(&self) {
        self.epoch.set(self.epoch.get().next());
        self.account.0.state.close(self.epoch.get(), Keyless::Revoked(Refusal::KeyDisabled));
    }

    /// The KMS allows again: the same key comes back in the new epoch.
    pub(super) fn restore(&self) {
        let state = &self.account.0.state;
        let until = state.clock().now().plus(Duration::from_secs(3600));
        state.publish_keys(self.epoch.get(), Arc::clone(&self.keys), until, until);
    }

    pub(super) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let mut writer = self.writer(Vec::new());
        writer.write_all(plain).expect("the lease is valid");
        let (sealed, len) = writer.finish().expect("the lease is valid");
        assert_eq!((len.plain, len.stored), (plain.len() as u64, sealed.len() as u64));
        sealed
    }

    pub(super) fn writer<W: Write>(&self, sink: W) -> ObjectWriter<W> {
        let options = ObjectOptions::with_block_size(BlockSize::MIN);
        SealedObject::writer_with(self.account.clone(), context(), sink, options).expect("the lease is valid")
    }

    pub(super) fn reader<S: ReadAt>(&self, source: S) -> Result<ObjectReader<S>, Error> {
        SealedObject::reader(self.account.clone(), context(), source)
    }

    /// Opens and reads all of it.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        self.reader(sealed)?
            .read_to_end(&mut plain)
            .map_err(|error| Error::find(&error).expect("ours").clone())?;
        Ok(plain)
    }
}

pub(super) fn context() -> Context {
    Context::new(&[b"store", b"path"])
}

/// Bytes in which no two blocks are alike.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at % 251) ^ (at / BLOCK)).to_le_bytes()[0]).collect()
}
