//! The file under a LocalKms: read whole, replaced whole, never changed in place.
//!
//! A reader takes no lock, for the file is replaced by a rename and is at any time the old one or the
//! new one. A writer holds the advisory lock `<file>.lock` while it reads, changes and replaces, so that two
//! processes do not lose each other's changes. Imports: `provider`, `error`.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use zeroize::Zeroizing;

use super::document::{Document, MAX_FILE};
use crate::error::{Error, ErrorKind, Refusal};
use crate::provider::ProviderError;

/// One file at one place.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    #[cfg(test)]
    pub(super) fault: tests::Fault,
}

/// Why the file could not be read or replaced. It becomes an [`Error`] for administrators, a [`ProviderError`] for
/// the keeper.
#[derive(Debug)]
pub(super) enum FileError {
    /// There is no file.
    Missing,
    /// There is one already.
    Exists,
    /// It is a directory, a device, a pipe.
    NotAFile,
    /// Group or others may use it; the permission bits.
    Exposed(u32),
    /// The operating system denies us access.
    Denied(io::Error),
    /// Anything else that the operating system says.
    Io(&'static str, io::Error),
    /// A named limit would be exceeded.
    TooLarge,
    /// It is not a LocalKms file of a version known here; why.
    Malformed(&'static str),
    /// The checksum is wrong.
    Damaged,
    /// Another LocalKms file lies in its place.
    Replaced,
}

/// The steps of a replacement, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Lock,
    Create,
    Write,
    Sync,
    Rename,
    SyncDirectory,
}

impl KeyFile {
    /// The file at `path`. Its directory must exist; symbolic links are followed now and not again, so that a
    /// replacement replaces the file and not the link.
    pub(super) fn at(path: &Path) -> Result<Self, FileError> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or(FileError::NotAFile)?;
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                fs::canonicalize(parent.unwrap_or(Path::new("."))).map_err(FileError::from)?.join(name)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            path,
            #[cfg(test)]
            fault: tests::Fault::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it is now.
    pub(super) fn read(&self) -> Result<Document, FileError> {
        // Non-blocking, so that a pipe in the file's place cannot hold the caller.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mut file =
            File::from(rustix::fs::open(&self.path, flags, Mode::empty()).map_err(io::Error::from)?);
        let size = check_metadata(&file)?;
        // Grown once, because growth leaves copies of keys behind. One byte more shows a file that grew meanwhile.
        let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
        (&mut file).take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
        Document::parse(&bytes)
    }

    /// Writes a first document; there must be no file yet.
    pub(super) fn create(&self, document: &Document) -> Result<(), FileError> {
        let _lock = self.lock()?;
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.replace(document),
            Err(error) => Err(error.into()),
            Ok(_) => Err(FileError::Exists),
        }
    }

    /// Reads the file, lets `change` change it, and replaces it. When `change` fails nothing is written.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _lock = self.lock().map_err(|error| error.into_error(&self.path))?;
        let mut document = self.read().map_err(|error| error.into_error(&self.path))?;
        let changed = change(&mut document)?;
        self.replace(&document).map_err(|error| error.into_error(&self.path))?;
        Ok(changed)
    }

    /// Waits for other writers, in this process and in others. The kernel ends the lock with the process that holds
    /// it, so a crash leaves none behind; the lock file itself stays.
    fn lock(&self) -> Result<File, FileError> {
        self.step(Step::Lock)?;
        let file = open_private(&self.beside(".lock"), OFlags::CREATE)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(FileError::Io("cannot lock the LocalKms file", error.into())),
            }
        }
    }

    /// Puts `document` in the file's place; the caller holds the lock. When it fails, the file is the old one, or, if
    /// only the last step failed, the new one, which a power cut may still turn into the old one.
    fn replace(&self, document: &Document) -> Result<(), FileError> {
        let bytes = document.to_bytes()?;
        let temporary = self.beside(".tmp");
        let replaced = self.write_new(&temporary, &bytes).and_then(|()| {
            self.step(Step::Rename)?;
            fs::rename(&temporary, &self.path)?;
            Ok(())
        });
        if replaced.is_err() {
            // It holds keys. Whether it can be removed changes nothing about the error: the next writer removes it too.
            let _ = fs::remove_file(&temporary);
        }
        replaced?;
        self.step(Step::SyncDirectory)?;
        File::open(self.directory())?.sync_all()?;
        Ok(())
    }

    fn write_new(&self, temporary: &Path, bytes: &[u8]) -> Result<(), FileError> {
        self.step(Step::Create)?;
        // A writer that crashed may have left one. Nobody else has it open: we hold the lock.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut file = open_private(temporary, OFlags::CREATE | OFlags::EXCL)?;
        self.step(Step::Write)?;
        file.write_all(bytes)?;
        self.step(Step::Sync)?;
        file.sync_all()?;
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn directory(&self) -> &Path {
        // OK because `at` makes an absolute path that ends in a file's name.
        self.path.parent().unwrap_or(Path::new("/"))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests make steps fail here")]
    const fn step(&self, _step: Step) -> Result<(), FileError> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self, step: Step) -> Result<(), FileError> {
        self.fault.at(step).map_err(FileError::from)
    }
}

/// Opens for writing, readable by its owner only from the first moment on, whatever the umask.
fn open_private(path: &Path, flags: OFlags) -> Result<File, FileError> {
    let flags = flags | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, OWNER_ONLY).map_err(io::Error::from)?;
    rustix::fs::fchmod(&file, OWNER_ONLY).map_err(io::Error::from)?;
    Ok(File::from(file))
}

/// The file's size, if it is a regular file of bounded size that nobody but its owner may use.
fn check_metadata(file: &File) -> Result<usize, FileError> {
    use std::os::unix::fs::PermissionsExt;

    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile);
    }
    let mode = metadata.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(FileError::Exposed(mode & 0o777));
    }
    usize::try_from(metadata.len()).ok().filter(|size| *size <= MAX_FILE).ok_or(FileError::TooLarge)
}

impl FileError {
    /// For an administrator: what happened to the file at `path`, and what to do.
    pub(super) fn into_error(self, path: &Path) -> Error {
        let kind = match &self {
            Self::Missing | Self::Exists | Self::NotAFile | Self::Exposed(_) => ErrorKind::Misuse,
            Self::Denied(_) | Self::Io(..) => ErrorKind::Io,
            Self::TooLarge => ErrorKind::Limit,
            Self::Malformed(_) => ErrorKind::Format,
            Self::Damaged => ErrorKind::Corrupt,
            Self::Replaced => ErrorKind::Untrusted,
        };
        let message = self.message();
        let detail = match &self {
            Self::Exposed(mode) => format!("{}: mode {mode:03o}", path.display()),
            Self::Malformed(why) => format!("{}: {why}", path.display()),
            _ => path.display().to_string(),
        };
        let error = Error::new(kind, message).with_detail(detail);
        match self {
            Self::Denied(source) | Self::Io(_, source) => error.with_source(source),
            _ => error,
        }
    }

    /// For the keeper: what it means for a lease. A file that is not there, or cannot be read just now, is silence,
    /// not the customer's will; one that we may no longer read is.
    pub(super) fn into_provider_error(self) -> ProviderError {
        let message = self.message();
        match &self {
            Self::Missing | Self::Io(..) => ProviderError::transient(message),
            Self::Denied(_) => ProviderError::refused(Refusal::PermissionRemoved, message),
            Self::Exists | Self::NotAFile | Self::Exposed(_) | Self::Replaced => {
                ProviderError::misconfigured(message)
            }
            Self::TooLarge | Self::Damaged => ProviderError::integrity(message),
            Self::Malformed(why) => ProviderError::integrity(&format!("{message}: {why}")),
        }
    }

    const fn message(&self) -> &'static str {
        match self {
            Self::Missing => "there is no LocalKms file; check the path, or create one",
            Self::Exists => "there is a file already; open it, or choose another path",
            Self::NotAFile => "the LocalKms path does not name a regular file",
            Self::Exposed(_) => {
                "others than its owner may use the LocalKms file, and with it every key; look who did, then `chmod 600` it"
            }
            Self::Denied(_) => "the operating system denies access to the LocalKms file; run as its owner",
            Self::Io(message, _) => message,
            Self::TooLarge => {
                "a LocalKms file holds at most 1 MiB, 1000 keys and 1000 versions of each; purge keys, or use a second file"
            }
            Self::Malformed(_) => "the LocalKms file cannot be understood; restore it from a backup",
            Self::Damaged => "the LocalKms file is damaged: its checksum is wrong; restore it from a backup",
            Self::Replaced => {
                "another LocalKms file lies in the place of the one that was opened; put it back, or open anew"
            }
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied(error),
            _ => Self::Io("reading or writing the LocalKms file failed", error),
        }
    }
}

/// Read and write for the owner.
const OWNER_ONLY: Mode = Mode::RUSR.union(Mode::WUSR);
/// Any right of group or others.
const OTHERS: u32 = 0o077;

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    use super::*;

    /// Makes a step of a replacement fail, or the process die there.
    #[derive(Debug, Default)]
    pub(crate) struct Fault(Mutex<Option<(Step, How)>>);

    #[derive(Clone, Copy, Debug)]
    enum How {
        Fails,
        Dies,
    }

    impl Fault {
        pub(super) fn at(&self, step: Step) -> io::Result<()> {
            // Copied out, so that dying does not poison the lock.
            let planned = *self.0.lock().unwrap();
            match planned {
                Some((at, How::Fails)) if at == step => Err(io::Error::other("planned")),
                Some((at, How::Dies)) if at == step => panic!("planned death at {at:?}"),
                _ => Ok(()),
            }
        }
    }

    const STEPS: [Step; 6] =
        [Step::Lock, Step::Create, Step::Write, Step::Sync, Step::Rename, Step::SyncDirectory];

    fn add_key(file: &KeyFile, document_keys: usize) -> Result<(), Error> {
        file.update(|document| {
            document.keys.push(super::super::Key {
                name: format!("key-{document_keys}"),
                enabled: true,
                purge_protection: true,
                retention_seconds: super::super::document::MIN_RETENTION,
                deleted_at: None,
                versions: vec![super::super::Version::generate(1)],
            });
            Ok(())
        })
    }

    #[test]
    fn b2_a_crash_at_any_step_leaves_the_old_or_the_new_file() {
        for step in STEPS {
            for how in [How::Fails, How::Dies] {
                let folder = tempfile::tempdir().unwrap();
                let file = KeyFile::at(&folder.path().join("kms.json")).unwrap();
                file.create(&Document::new()).unwrap();
                let old = fs::read(file.path()).unwrap();

                *file.fault.0.lock().unwrap() = Some((step, how));
                let outcome = catch_unwind(AssertUnwindSafe(|| add_key(&file, 1)));
                assert!(!matches!(outcome, Ok(Ok(()))), "{step:?} {how:?} is reported");
                let now = file.read().expect("a whole file");
                if step == Step::SyncDirectory {
                    assert_eq!(now.keys.len(), 1, "{step:?} {how:?}: the new file");
                } else {
                    assert_eq!(fs::read(file.path()).unwrap(), old, "{step:?} {how:?}: the old file");
                }

                // The next writer is not disturbed by what the crash left.
                *file.fault.0.lock().unwrap() = None;
                add_key(&file, 2).expect("goes on");
                assert!(!file.beside(".tmp").exists());
                file.read().expect("a whole file");
            }
        }
    }

    #[test]
    fn b2_a_crash_while_creating_leaves_no_file_or_a_whole_one() {
        for step in STEPS {
            let folder = tempfile::tempdir().unwrap();
            let file = KeyFile::at(&folder.path().join("kms.json")).unwrap();
            *file.fault.0.lock().unwrap() = Some((step, How::Dies));
            catch_unwind(AssertUnwindSafe(|| file.create(&Document::new()))).expect_err("dies");
            match file.read() {
                Ok(_) => assert_eq!(step, Step::SyncDirectory),
                Err(error) => assert!(matches!(error, FileError::Missing), "{step:?}: {error}"),
            }
        }
    }

    #[test]
    fn b2_a_torn_temporary_file_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(&folder.path().join("kms.json")).unwrap();
        fs::write(file.beside(".tmp"), "{\"form").unwrap();
        file.create(&Document::new()).unwrap();
        fs::write(file.beside(".tmp"), "{\"form").unwrap();
        add_key(&file, 1).unwrap();
        assert_eq!(file.read().unwrap().keys.len(), 1);
    }

    #[test]
    fn b2_nothing_is_written_when_the_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(&folder.path().join("kms.json")).unwrap();
        file.create(&Document::new()).unwrap();
        let old = fs::read(file.path()).unwrap();
        file.update(|document| {
            document.keys.clear();
            Err::<(), _>(Error::new(ErrorKind::Misuse, "no"))
        })
        .expect_err("refused");
        assert_eq!(fs::read(file.path()).unwrap(), old);
    }

    #[test]
    fn b2_owner_only_from_the_first_moment_and_in_every_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(&folder.path().join("kms.json")).unwrap();
        file.create(&Document::new()).unwrap();
        *file.fault.0.lock().unwrap() = Some((Step::Write, How::Dies));
        catch_unwind(AssertUnwindSafe(|| add_key(&file, 1))).expect_err("dies");
        for path in [file.path.clone(), file.beside(".tmp"), file.beside(".lock")] {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }

    #[test]
    fn b2_a_symbolic_link_is_followed_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target.json");
        KeyFile::at(&target).unwrap().create(&Document::new()).unwrap();
        let link = folder.path().join("link.json");
        symlink(&target, &link).unwrap();
        add_key(&KeyFile::at(&link).unwrap(), 1).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(KeyFile::at(&target).unwrap().read().unwrap().keys.len(), 1);
    }

    #[test]
    fn b2_what_is_not_a_regular_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(folder.path()).unwrap();
        assert!(matches!(file.read(), Err(FileError::NotAFile)));
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, OWNER_ONLY).unwrap();
        assert!(matches!(KeyFile::at(&pipe).unwrap().read(), Err(FileError::NotAFile)));
    }
}
