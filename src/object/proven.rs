//! A header that was proven, and the frames that open under it. Where sealed bytes come from is the caller's business.
//! Imports: `account`, `format`, `id`, `error`.

use crate::account::Account;
use crate::error::Error;
use crate::format::object::{Context, HEADER_LEN, ObjectGeometry, ObjectInfo, UnverifiedHeader};
use crate::id::{BlockId, Epoch};

/// What an object is, proven with its account's key and for its context.
///
/// A proof does not end: what ends is the lease, and every frame is opened under a permit of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proven {
    info: ObjectInfo,
}

impl Proven {
    /// Compares the header's account, then its MAC.
    ///
    /// # Errors
    /// - the account's state, when it holds no valid lease
    /// - [`ErrorKind::Format`](crate::error::ErrorKind::Format): not a sealed object, or of an unknown version
    /// - [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt): changed, of another account, or of another context
    /// - [`ErrorKind::UnknownGeneration`](crate::error::ErrorKind::UnknownGeneration)
    pub(crate) fn new(account: &Account, context: &Context, header: [u8; HEADER_LEN]) -> Result<Self, Error> {
        let header = UnverifiedHeader::parse(header)?;
        let info = header.info();
        if info.account != account.id() {
            return Err(Error::corrupt().with_account(account.id()));
        }
        let parts = [header.authenticated(), context.as_bytes().as_slice()];
        account.permit()?.verify_object_mac(info.generation, info.suite, &parts, &header.mac())?;
        Ok(Self { info })
    }

    pub(crate) const fn info(&self) -> ObjectInfo {
        self.info
    }

    /// Opens frame `index` into `plain`, which is as long as that block, under a permit taken now; tells the permit's epoch.
    ///
    /// # Errors
    /// The account's state, when it holds no valid lease; [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt) and
    /// [`ErrorKind::Format`](crate::error::ErrorKind::Format) for what is not this frame. `plain` is then untouched or zeroed.
    pub(crate) fn open_frame(
        &self,
        account: &Account,
        geometry: &ObjectGeometry,
        index: u64,
        frame: &[u8],
        plain: &mut [u8],
    ) -> Result<Epoch, Error> {
        let id = BlockId::new(self.info.object, index);
        let last = index == geometry.last_index();
        let permit = account.permit()?;
        permit.open_object_frame(self.info.generation, id, last, frame, plain)?;
        Ok(permit.epoch())
    }
}
