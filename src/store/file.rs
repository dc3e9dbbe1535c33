//! Records in a directory: one file per account, shared by any number of processes of one machine.
//!
//! Replacing is atomic and durable (`atomic_file`); writers take turns at a lock file; readers take no
//! lock. A record is kept in the history before it replaces another. Imports: `record_store`,
//! `format::{record, tombstone}`, `atomic_file`, `id`, `error`.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::atomic_file::{FileLock, Files, Readers, TEMPORARY_SUFFIX, with_suffix};
use crate::error::{Error, ErrorKind};
use crate::format::record::AccountRecord;
use crate::id::AccountId;
use crate::record_store::archive::{DEFAULT_HISTORY, KeptRecord, Listed, RecordArchive, first_after};
use crate::record_store::{Loaded, RecordStore, RecordTag};

/// A [`RecordStore`] in a directory of a local file system.
///
/// The file of an account is named by the account's id, beside up to 256 lock files that are never removed and the directory
/// `history`, with a directory for each account. Files and directories are created for their owner only. Readers never wait; a writer waits for as long as another one that
/// holds its lock, so a process that is stopped in the middle of a change holds up changes, and no refresh.
///
/// A file system that does not keep `flock` between the machines that mount it (many network file systems) may lose
/// an update there; it cannot make a forged record be believed.
///
/// ```
/// use strongroom::{AccountId, FileRecordStore, Loaded, RecordStore};
///
/// # let folder = tempfile::tempdir()?;
/// let store = FileRecordStore::open(folder.path().join("records"))?;
/// let account = AccountId::random();
/// let tag = store.compare_and_swap(account, None, b"the bytes of a record")?;
/// assert_eq!(store.load(account, Some(&tag))?, Loaded::Unchanged);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileRecordStore {
    directory: PathBuf,
    files: Files,
    most_kept: usize,
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
        Ok(Self { directory, files, most_kept: DEFAULT_HISTORY })
    }

    /// Keeps the last `most` records of each account, the newest one included; none with zero. Default: 32. Each process
    /// that writes trims by its own number.
    #[must_use]
    pub const fn keep_history(mut self, most: usize) -> Self {
        self.most_kept = most;
        self
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
        let read = self.files.read(&self.path(account), AccountRecord::MAX_LEN, Readers::Any)?;
        Ok(read.map(|bytes| {
            let tag = RecordTag::sha256_of(&bytes);
            (bytes, tag)
        }))
    }
}

impl FileRecordStore {
    fn history_path(&self, account: AccountId) -> PathBuf {
        self.directory.join(HISTORY).join(account.to_string())
    }

    /// Before the record is the newest one, so that no crash leaves one that is not kept.
    fn keep(&self, account: AccountId, bytes: &[u8], lock: &FileLock) -> Result<(), Error> {
        if self.most_kept == 0 {
            return Ok(());
        }
        let folder = self.history_path(account);
        self.files.create_directory(&self.directory.join(HISTORY))?;
        self.files.create_directory(&folder)?;
        self.files.replace(&folder.join(KeptRecord::naming(bytes).to_string()), bytes, lock)
    }

    /// Once the new record is in place. What cannot be removed now is, by the next change.
    fn trim(&self, account: AccountId) {
        let kept = self.history(account).unwrap_or_default();
        for surplus in KeptRecord::surplus(&kept, self.most_kept) {
            drop(std::fs::remove_file(self.history_path(account).join(surplus.to_string())));
        }
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
        let lock = self.files.lock(&self.lock_path(account))?;
        let current = self.read(account)?.map(|(_, tag)| tag);
        if current.as_ref() != expected {
            return Err(Error::record_conflict(account));
        }
        self.keep(account, bytes, &lock)?;
        self.files.replace(&self.path(account), bytes, &lock)?;
        self.trim(account);
        Ok(RecordTag::sha256_of(bytes))
    }

    fn destroy_kept(&self, account: AccountId) -> Result<(), Error> {
        let _lock = self.files.lock(&self.lock_path(account))?;
        self.destroy_files(account)
    }
}

impl FileRecordStore {
    /// The names that hold nothing but records of `account` and the beginnings of some: its history, and what a writer that died
    /// has left.
    fn destroy_files(&self, account: AccountId) -> Result<(), Error> {
        let folder = self.history_path(account);
        let left = with_suffix(&self.path(account), TEMPORARY_SUFFIX);
        for path in files_in(&folder)?.into_iter().chain([left]) {
            self.files.remove(&path)?;
        }
        // The newest record's own folder: also where nothing was removed now, but by somebody who died before it was flushed.
        self.files.settle(&self.path(account))?;
        if folder.is_dir() {
            self.files.settle(&folder.join(HISTORY))?;
        }
        Ok(())
    }
}

impl RecordArchive for FileRecordStore {
    fn list(&self, after: Option<AccountId>) -> Result<Vec<Listed>, Error> {
        let accounts = names_in::<AccountId>(&self.directory)?;
        let unread = accounts.into_iter().map(|account| Listed::new(account, RecordTag::sha256_of(&[])));
        let mut listed = Vec::new();
        for Listed { account, .. } in first_after(unread, after) {
            // Its content is its stamp: what a file system notes of times depends on a clock that somebody can set.
            match self.read(account) {
                Ok(None) => {}
                Ok(Some((_, stamp))) => listed.push(Listed { account, stamp }),
                // One file that cannot be read hides no other: whoever loads it is told why.
                Err(_) => listed.push(Listed { account, stamp: RecordTag::sha256_of(&[]) }),
            }
        }
        Ok(listed)
    }

    fn history(&self, account: AccountId) -> Result<Vec<KeptRecord>, Error> {
        let mut kept = names_in::<KeptRecord>(&self.history_path(account))?;
        kept.sort_unstable();
        Ok(kept)
    }

    fn load_kept(&self, account: AccountId, kept: KeptRecord) -> Result<Vec<u8>, Error> {
        let path = self.history_path(account).join(kept.to_string());
        let read = self.files.read(&path, AccountRecord::MAX_LEN, Readers::Any)?;
        read.ok_or_else(|| Error::record_not_kept(account))
    }
}

/// The names in a directory that are some `T`'s, spelt as it spells them. None where there is no such directory.
fn names_in<T: FromStr + ToString>(directory: &Path) -> Result<Vec<T>, Error> {
    let parsed = |path: PathBuf| {
        let text = path.file_name()?.to_str()?;
        text.parse::<T>().ok().filter(|name| name.to_string() == text)
    };
    Ok(files_in(directory)?.into_iter().filter_map(parsed).collect())
}

/// What is in a directory, whatever it is called. Nothing where there is no such directory.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unlisted(directory, error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| unlisted(directory, error))).collect()
}

fn unlisted(directory: &Path, source: io::Error) -> Error {
    let detail = format!("{}: {source}", directory.display());
    Error::io("cannot list the directory", source).with_detail(detail)
}

const HISTORY: &str = "history";

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::atomic_file::faults::Fault;
    use crate::format::record::{Sequence, Timestamp};
    use crate::format::tombstone::{Purged, Tombstone};
    use crate::testing::record_stores::{
        self, add_one, count, keeps_what_was_replaced, lists_its_accounts, loses_no_update_of_8_threads,
        replaces_only_what_was_seen,
    };

    const ACCOUNT: AccountId = AccountId::from_bytes([0xAC; 16]);
    const RACE_DIRECTORY: &str = "STRONGROOM_TEST_RACE_DIRECTORY";
    const ADDED_BY_EACH_PROCESS: u64 = 50;

    fn bytes_of(store: &FileRecordStore) -> Option<Vec<u8>> {
        match store.load(ACCOUNT, None).unwrap() {
            Loaded::Found { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    fn kept(store: &FileRecordStore) -> Vec<Vec<u8>> {
        let kept = store.history(ACCOUNT).unwrap();
        kept.iter().map(|kept| store.load_kept(ACCOUNT, *kept).unwrap()).collect()
    }

    #[test]
    fn e10_file_store_lists_and_keeps_history() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileRecordStore::open(directory.path().join("records")).unwrap();
        lists_its_accounts(&store);
        keeps_what_was_replaced(&store.clone().keep_history(3), 3);
        // What else lies there is nobody's record.
        std::fs::write(store.directory().join("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"), b"foreign").unwrap();
        std::fs::write(store.directory().join("notes.txt"), b"foreign").unwrap();
        assert_eq!(store.list(None).unwrap().len(), 7);
        // Without a history nothing is kept, and what was is dropped.
        let without = store.clone().keep_history(0);
        without.compare_and_swap(ACCOUNT, None, b"one").unwrap();
        assert_eq!(kept(&store), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn g2_file_store_replaces_only_what_was_seen() {
        let directory = tempfile::tempdir().unwrap();
        replaces_only_what_was_seen(&FileRecordStore::open(directory.path().join("records")).unwrap());
    }

    #[test]
    fn g2_file_store_loses_no_update_of_8_threads() {
        let directory = tempfile::tempdir().unwrap();
        loses_no_update_of_8_threads(&FileRecordStore::open(directory.path()).unwrap());
    }

    #[test]
    fn g2_records_outlive_the_store_and_are_named_by_their_account() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        let tag = FileRecordStore::open(&path).unwrap().compare_and_swap(ACCOUNT, None, b"one").unwrap();
        let again = FileRecordStore::open(&path).unwrap();
        assert_eq!(again.load(ACCOUNT, Some(&tag)).unwrap(), Loaded::Unchanged);
        assert_eq!(std::fs::read(again.directory().join(ACCOUNT.to_string())).unwrap(), b"one");
    }

    #[test]
    fn f1_files_and_tags_are_as_format_md_says() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileRecordStore::open(directory.path()).unwrap();
        let tag = store.compare_and_swap(ACCOUNT, None, b"no record").unwrap();
        assert_eq!(tag.as_bytes(), <sha2::Sha256 as sha2::Digest>::digest(b"no record").as_slice());
        let purged_at = Timestamp::from_wall_nanos(7_000_000_000);
        let sequence = Sequence::new(40).unwrap();
        let tombstone =
            Tombstone { account: ACCOUNT, sequence, purged_at, reason: Purged::Shredded }.to_bytes();
        store.compare_and_swap(ACCOUNT, Some(&tag), &tombstone).unwrap();
        let names = |path: &Path| {
            let names = files_in(path).unwrap().into_iter();
            let mut names: Vec<_> =
                names.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        let own = "ac".repeat(16);
        assert_eq!(names(directory.path()), [own.as_str(), "history", "lock-ac"]);
        let kept = names(&directory.path().join("history").join(&own));
        let begin = ["00000000000000000000-", "00000000000000000040-"];
        assert_eq!(kept.len(), begin.len());
        for (name, begin) in kept.iter().zip(begin) {
            let drawn = name.strip_prefix(begin).expect("the sequence, or zero for what is no record");
            assert_eq!(drawn.len(), 32);
            assert!(drawn.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{name}");
        }
    }

    #[test]
    fn e3_g2_any_failing_step_leaves_the_old_or_the_new_record_and_never_lies() {
        for old in [None, Some(&b"old"[..])] {
            for fault in Fault::ALL {
                for failing in 0.. {
                    let directory = tempfile::tempdir().unwrap();
                    let sound = FileRecordStore::open(directory.path()).unwrap();
                    let tag = old.map(|old| sound.compare_and_swap(ACCOUNT, None, old).unwrap());

                    let files = Files::failing_at(failing, fault);
                    let store = FileRecordStore { files: files.clone(), ..sound.clone() };
                    let outcome = store.compare_and_swap(ACCOUNT, tag.as_ref(), b"new");
                    let struck = files.steps() > failing;
                    let after = bytes_of(&sound);
                    let is_new = after.as_deref() == Some(b"new");
                    let context = format!("{fault:?} at step {failing}, old {old:?}: {outcome:?}, {after:?}");
                    assert!(is_new || after.as_deref() == old, "{context}");
                    match &outcome {
                        Ok(_) => assert!(is_new && !struck, "{context}"),
                        Err(error) => assert!(error.kind() == ErrorKind::Io && struck, "{context}"),
                    }

                    // Whatever is there is kept.
                    assert!(after.is_none_or(|after| kept(&sound).contains(&after)), "{context}");

                    // Whoever comes next, loads, and goes on from what is there.
                    let next = bytes_of(&sound).as_deref().map(RecordTag::sha256_of);
                    sound.compare_and_swap(ACCOUNT, next.as_ref(), b"next").expect("nothing is stuck");
                    assert_eq!(bytes_of(&sound).as_deref(), Some(&b"next"[..]));
                    if !struck {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn e7_file_store_destroys_what_it_keeps_once_it_is_purged() {
        let directory = tempfile::tempdir().unwrap();
        record_stores::destroys_what_it_keeps(&FileRecordStore::open(directory.path()).unwrap());
    }

    /// Whether any file below holds `wanted`.
    fn holds(directory: &Path, wanted: &[u8]) -> bool {
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
            if path.is_dir() {
                return holds(&path, wanted);
            }
            std::fs::read(path).unwrap().windows(wanted.len()).any(|window| window == wanted)
        })
    }

    #[test]
    fn e7_a_destruction_that_fails_at_any_step_says_so_and_is_finished_by_the_next_one() {
        let reason = Purged::AfterRetention;
        let (sequence, purged_at) = (Sequence::FIRST, Timestamp::from_wall_nanos(0));
        let tombstone = Tombstone { account: ACCOUNT, sequence, purged_at, reason }.to_bytes();
        for fault in Fault::ALL {
            for failing in 0.. {
                let directory = tempfile::tempdir().unwrap();
                let sound = FileRecordStore::open(directory.path()).unwrap();
                let tag = sound.compare_and_swap(ACCOUNT, None, b"a wrapped key").unwrap();
                sound.compare_and_swap(ACCOUNT, Some(&tag), &tombstone).unwrap();
                // What writers have left that died.
                std::fs::write(directory.path().join(format!("{ACCOUNT}.new")), b"a wrapped key").unwrap();
                let half = sound.history_path(ACCOUNT).join("half of a name.new");
                std::fs::write(half, b"a wrapped key").unwrap();
                assert!(holds(directory.path(), b"a wrapped key"));

                let files = Files::failing_at(failing, fault);
                let store = FileRecordStore { files: files.clone(), ..sound.clone() };
                let outcome = store.destroy_kept(ACCOUNT);
                let struck = files.steps() > failing;
                assert_eq!(outcome.is_err(), struck, "{fault:?} at step {failing}: {outcome:?}");
                if struck {
                    sound.destroy_kept(ACCOUNT).unwrap();
                }
                assert!(!holds(directory.path(), b"a wrapped key"), "{fault:?} at step {failing}");
                assert_eq!(bytes_of(&sound), Some(tombstone.clone()));
                if !struck {
                    break;
                }
            }
        }
    }

    #[test]
    fn e3_g2_a_load_that_fails_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let sound = FileRecordStore::open(directory.path()).unwrap();
        sound.compare_and_swap(ACCOUNT, None, b"one").unwrap();
        for fault in Fault::ALL {
            for failing in 0.. {
                let files = Files::failing_at(failing, fault);
                let store = FileRecordStore { files: files.clone(), ..sound.clone() };
                let outcome = store.load(ACCOUNT, None);
                if files.steps() <= failing {
                    assert!(matches!(outcome, Ok(Loaded::Found { .. })));
                    break;
                }
                assert_eq!(outcome.expect_err("struck").kind(), ErrorKind::Io);
            }
        }
    }

    #[test]
    fn e3_g2_opening_fails_or_leaves_a_usable_directory() {
        for fault in Fault::ALL {
            for failing in 0..3 {
                let parent = tempfile::tempdir().unwrap();
                let directory = parent.path().join("records");
                FileRecordStore::open_with(directory.clone(), Files::failing_at(failing, fault))
                    .expect_err("struck");
                let store = FileRecordStore::open(&directory).unwrap();
                store.compare_and_swap(ACCOUNT, None, b"one").unwrap();
            }
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(FileRecordStore::open(file.path()).expect_err("a file").kind(), ErrorKind::Io);
    }

    #[test]
    fn f2_a_record_above_its_limit_is_neither_written_nor_read() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileRecordStore::open(directory.path()).unwrap();
        let long = vec![0; AccountRecord::MAX_LEN + 1];
        let error = store.compare_and_swap(ACCOUNT, None, &long).expect_err("too long");
        assert_eq!((error.kind(), error.account()), (ErrorKind::Limit, Some(ACCOUNT)));
        assert_eq!(store.load(ACCOUNT, None).unwrap(), Loaded::Absent);
        std::fs::write(store.path(ACCOUNT), &long).unwrap();
        assert_eq!(store.load(ACCOUNT, None).expect_err("too long").kind(), ErrorKind::Limit);
        store.compare_and_swap(AccountId::from_bytes([1; 16]), None, &long[1..]).expect("exactly 1 MiB");
    }

    #[test]
    fn e3_g2_two_processes_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileRecordStore::open(directory.path()).unwrap();
        store.compare_and_swap(ACCOUNT, None, &0_u64.to_be_bytes()).unwrap();
        let race = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::file::tests::one_of_the_racing_processes"])
                .env(RACE_DIRECTORY, directory.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut processes = [race(), race()];
        for process in &mut processes {
            assert!(process.wait().unwrap().success());
        }
        assert_eq!(count(&store.load(ACCOUNT, None).unwrap()), 2 * ADDED_BY_EACH_PROCESS);
    }

    /// Does nothing unless started by the test above.
    #[test]
    fn one_of_the_racing_processes() {
        if let Some(directory) = std::env::var_os(RACE_DIRECTORY) {
            let store = FileRecordStore::open(directory).unwrap();
            (0..ADDED_BY_EACH_PROCESS).for_each(|_| add_one(&store, ACCOUNT));
        }
    }
}
