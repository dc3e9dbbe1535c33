//! Sealed objects beside a `Vec<u8>`, under forgery, under revocation, and over failing stores.

mod faults;
mod forgery;
mod lease;
mod model;
mod spill;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cache::{AccountSpec, AekCache};
use crate::format::object::Layout;
use crate::id::{AccountId, Suite};
use crate::provider::{Kek, KeyProvider};
use crate::testing::{ManualClock, ScriptedProvider};

const REFRESH: Duration = Duration::from_secs(6);
pub(super) const BLOCK: usize = 4096;
/// A full frame of suite 1.
pub(super) const FRAME: usize = BLOCK + 48;

/// An account with a lease, that a test takes away and gives back.
pub(super) struct Customer {
    pub(super) account: Account,
    kms: Arc<ScriptedProvider>,
    cache: AekCache,
}

impl Customer {
    pub(super) fn new() -> Self {
        Self::of(Suite::Aes256Gcm)
    }

    /// One of each suite.
    pub(super) fn each() -> [Self; 2] {
        [Suite::Aes256Gcm, Suite::Double].map(Self::of)
    }

    pub(super) fn of(suite: Suite) -> Self {
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        kms.add_key("orders");
        kms.add_key("second");
        let cache = AekCache::builder().refresh_every(REFRESH).manual(&ManualClock::new()).build().unwrap();
        let provider: Arc<dyn KeyProvider> = kms.clone();
        let mut spec = AccountSpec::new(AccountId::random(), provider.clone(), Kek::latest("orders"));
        if suite == Suite::Double {
            spec = spec.double_encryption(provider, Kek::latest("second"));
        }
        Self { account: cache.create(spec).unwrap(), kms, cache }
    }

    /// A full frame, in bytes.
    pub(super) fn frame(&self) -> usize {
        let suite = self.account.permit().unwrap().sealing().unwrap().1;
        Layout { block_size: BlockSize::MIN, suite }.frame_len(BLOCK)
    }

    /// The customer disables the key, and the cache notices.
    pub(super) fn revoke(&self) {
        self.kms.set_enabled("orders", false);
        self.cache.run_for(2 * REFRESH);
    }

    /// The customer enables it again. Those who flap are asked once a minute only.
    pub(super) fn restore(&self) {
        self.kms.set_enabled("orders", true);
        self.cache.run_for(Duration::from_secs(61));
        assert!(self.account.permit().is_ok());
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
