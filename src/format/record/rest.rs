//! A record at rest: its bytes, and whether they were authenticated.
//!
//! What is parsed is several times as large as what is written, and an account looks at its record only when it is refreshed or
//! changed. So between these a fleet keeps bytes. Imports: `record`.

use std::sync::Arc;

use super::{AccountRecord, Sequence, VerifiedRecord};

/// The record that an account goes by, while nobody looks at it.
pub(crate) struct RecordAtRest {
    bytes: Box<[u8]>,
    sequence: Sequence,
    is_verified: bool,
}

impl RecordAtRest {
    pub(crate) fn of(record: &AccountRecord, verified: Option<&VerifiedRecord>) -> Self {
        let is_verified = verified.is_some_and(|verified| verified.record().bytes == record.bytes);
        Self { bytes: record.bytes.clone(), sequence: record.sequence(), is_verified }
    }

    /// The same record as it was.
    pub(crate) fn wake(&self) -> (Arc<AccountRecord>, Option<VerifiedRecord>) {
        let record = AccountRecord::parse(&self.bytes).expect("these bytes were parsed or sealed before");
        let record = Arc::new(record);
        let verified = self.is_verified.then(|| VerifiedRecord(Arc::clone(&record)));
        (record, verified)
    }

    /// Whether it is this very record.
    pub(crate) fn is(&self, record: &AccountRecord) -> bool {
        self.bytes == record.bytes
    }

    pub(crate) const fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub(crate) const fn is_verified(&self) -> bool {
        self.is_verified
    }
}
