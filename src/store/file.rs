//! Records in a directory: one file per account, shared by any number of processes of one machine.
//!
//! Replacing is atomic and durable (`atomic_file`); writers take turns at a lock file; readers take no
//! lock. Imports: `record_store`, `format::record`, `atomic_file`, `id`, `error`.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::atomic_file::{Files, Readers};
use crate::error::{Error, ErrorKind};
use crate::format::record::AccountRecord;
use crate::id::AccountId;
use crate::record_store::{Loaded, RecordStore, RecordTag};

/// A [`RecordStore`] in a directory of a local file system.
///
/// The file of an account is named by the account's id, beside up to 256 lock files that are never removed. Files
/// and the directory are created for their owner only. A file system that does not keep `flock` between the machines that
/// mount it (many network file systems) may lose an update there; it cannot make a forged record be believed.
#[derive(Clone, Debug)]
pub struct FileRecordStore {
    directory: PathBuf,
    files: Files,
}

impl FileRecordStore {
    /// The store in `directory`, which is created if it is not there; its parent must be.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the directory cannot be created.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open_with(directory.into(), Files::default())
    }

    /// Where the records are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn open_with(directory: PathBuf, files: Files) -> Result<Self, Error> {
        files.create_directory(&directory)?;
        Ok(Self { directory, files })
    }

    fn path(&self, account: AccountId) -> PathBuf {
        self.directory.join(account.to_string())
    }

    /// Accounts whose ids begin alike share a lock file: 256 of them, so that writers of different accounts
    /// rarely wait for each other, and no file per account is left behind.
    fn lock_path(&self, account: AccountId) -> PathBuf {
        let [first, ..] = account.as_bytes();
        self.directory.join(format!("lock-{first:02x}"))
    }

    fn read(&self, account: AccountId) -> Result<Option<(Vec<u8>, RecordTag)>, Error> {
        let bytes = self.files.read(&self.path(account), AccountRecord::MAX_LEN, Readers::Any)?;
        bytes.map(|bytes| tag_of(&bytes).map(|tag| (bytes, tag))).transpose()
    }
}

impl RecordStore for FileRecordStore {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        let loaded = match self.read(account)? {
            None => Loaded::Absent,
            Some((_, tag)) if known == Some(&tag) => Loaded::Unchanged,
            Some((bytes, tag)) => {
                // Its writer may have died between renaming and flushing.
                self.files.settle(&self.path(account))?;
                Loaded::Found { bytes, tag }
            }
        };
        Ok(loaded)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        if bytes.len() > AccountRecord::MAX_LEN {
            return Err(Error::new(ErrorKind::Limit, "a record is longer than 1 MiB").with_account(account));
        }
        let tag = tag_of(bytes)?;
        let lock = self.files.lock(&self.lock_path(account))?;
        let current = self.read(account)?.map(|(_, tag)| tag);
        if current.as_ref() != expected {
            return Err(Error::record_conflict(account));
        }
        self.files.replace(&self.path(account), bytes, &lock)?;
        Ok(tag)
    }
}

/// The hash of the bytes: exact, and the same for whoever reads them.
fn tag_of(bytes: &[u8]) -> Result<RecordTag, Error> {
    RecordTag::new(&Sha256::digest(bytes))
}
