//! Small files that are replaced whole: after a crash at any step the old or the new one is there,
//! never neither, and never half of one.
//!
//! [`Files::replace`] writes a temporary file beside the target, flushes it, renames it over the target and flushes
//! the directory. It asks for a [`FileLock`], so that two writers, in one process or in two, take turns; readers
//! need no lock. What [`Files::settle`] has flushed survives a power cut. Every step can be made to fail by a
//! test. Imports: `error`.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::error::{Error, ErrorKind};

/// The file system, with owner-only files. In tests it can be told to fail at the Nth step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    #[cfg(test)]
    faults: Option<std::sync::Arc<faults::Faults>>,
}

/// Who may have read access to a file that is about to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// A file that its group or anyone else may read or write is refused: it holds keys.
    OwnerOnly,
    /// Any: what the file holds is authenticated, and no secret.
    Any,
}

/// The exclusive right to replace files, until dropped. Advisory: it binds those who ask for it.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub(crate) struct FileLock {
    file: File,
}

impl Files {
    /// Waits for the lock file at `path`, which is created if it is not there and never removed: a removed lock
    /// file could be held twice.
    ///
    /// The lock goes with the process that holds it, however that ends. It blocks: never call it
    /// on the data plane.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn lock(&self, path: &Path) -> Result<FileLock, Error> {
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY);
            options.open(path)
        };
        let take = |file: File| {
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
            Ok(FileLock { file })
        };
        self.run(open)
            .and_then(|file| self.run(|| take(file)))
            .map_err(|source| at(path, "cannot take the lock file", source))
    }

    /// The whole file at `path`, or `None` when there is none. At most `max_len` bytes, checked before
    /// anything is allocated.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when it is longer, [`ErrorKind::Misuse`] when it is not a regular file or `readers` forbids
    /// its permissions, [`ErrorKind::Io`] when it cannot be read.
    pub(crate) fn read(
        &self,
        path: &Path,
        max_len: usize,
        readers: Readers,
    ) -> Result<Option<Vec<u8>>, Error> {
        // Non-blocking, because opening a named pipe that somebody put there would wait for ever.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let open = || OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
        let file = match self.run(open) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(at(path, "cannot open the file", source)),
        };
        // Of the open file, not of the path: what was checked is what is read.
        let metadata =
            self.run(|| file.metadata()).map_err(|source| at(path, "cannot inspect the file", source))?;
        if !metadata.is_file() {
            return Err(misuse(path, "not a regular file"));
        }
        if readers == Readers::OwnerOnly && metadata.mode() & OTHERS != 0 {
            return Err(misuse(path, "the file is open to others: make it owner-only (chmod 600)"));
        }
        let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if len > max_len {
            return Err(too_long(path, max_len));
        }
        let mut bytes = Vec::with_capacity(len);
        // One more than allowed, so that a file that grew meanwhile is seen and not cut short.
        let bound = u64::try_from(max_len).unwrap_or(u64::MAX).saturating_add(1);
        self.run(|| file.take(bound).read_to_end(&mut bytes))
            .map_err(|source| at(path, "cannot read the file", source))?;
        if bytes.len() > max_len {
            return Err(too_long(path, max_len));
        }
        Ok(Some(bytes))
    }

    /// Replaces the file at `path`, or creates it, with owner-only permissions. `lock` must be one that every
    /// writer of this file takes.
    ///
    /// After `Ok` the new file survives a power cut. After an error the old or the new one is there, whole: read
    /// it again, under the same lock, to know which.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8], lock: &FileLock) -> Result<(), Error> {
        let FileLock { file: _held } = lock;
        let temporary = with_suffix(path, TEMPORARY_SUFFIX);
        let written =
            self.write_new(&temporary, bytes).and_then(|()| self.run(|| std::fs::rename(&temporary, path)));
        if let Err(source) = written {
            // Best effort: the next writer removes what stays.
            let _ = self.run(|| std::fs::remove_file(&temporary));
            return Err(at(path, "cannot replace the file", source));
        }
        self.settle(path)
    }

    /// Flushes the directory that holds `path`: what was read from there then survives a power cut, also
    /// when its writer died between renaming and flushing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn settle(&self, path: &Path) -> Result<(), Error> {
        let directory = directory_of(path);
        self.run(|| File::open(directory)).and_then(|directory| self.run(|| directory.sync_all())).map_err(
            |source| at(directory, "the file is in place, but its directory cannot be flushed", source),
        )
    }

    /// Creates the directory at `path` with owner-only permissions; one that exists is left as it is. Either way its name
    /// survives a power cut afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], also when its parent does not exist.
    pub(crate) fn create_directory(&self, path: &Path) -> Result<(), Error> {
        match self.run(|| DirBuilder::new().mode(OWNER_ONLY_DIRECTORY).create(path)) {
            Ok(()) => self.settle(path),
            // Who made it may have died, or failed, before it was flushed. A parent that we may not read is not ours, and so
            // its directory is not of our making.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                self.settle(path).or_else(|error| if is_denial(&error) { Ok(()) } else { Err(error) })
            }
            Err(source) => Err(at(path, "cannot create the directory", source)),
        }
    }

    /// Removes the file at `path`; one that is not there is no error. Its name may come back after a power cut until its directory
    /// is flushed: [`Self::settle`].
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub(crate) fn remove(&self, path: &Path) -> Result<(), Error> {
        match self.run(|| std::fs::remove_file(path)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(at(path, "cannot remove the file", source))
            }
            _ => Ok(()),
        }
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match self.run(|| std::fs::remove_file(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // `create_new` follows no link that somebody may have put there, and the mode holds from the start.
        let mut file =
            self.run(|| OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path))?;
        self.run(|| file.write_all(bytes))?;
        self.run(|| file.sync_all())
    }

    #[cfg(not(test))]
    fn run<T>(&self, step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        step()
    }

    #[cfg(test)]
    fn run<T>(&self, step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.faults {
            None => step(),
            Some(faults) => faults.run(step),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Said, not left to the close: a forked child may hold a copy of the descriptor.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Whether the file system answered, and forbade it.
pub(crate) fn is_denial(error: &Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::PermissionDenied)
}

/// `path` with `suffix` added to its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn at(path: &Path, message: &'static str, source: io::Error) -> Error {
    let detail = format!("{}: {source}", path.display());
    Error::io(message, source).with_detail(detail)
}

fn misuse(path: &Path, message: &'static str) -> Error {
    Error::new(ErrorKind::Misuse, message).with_detail(path.display().to_string())
}

fn too_long(path: &Path, max_len: usize) -> Error {
    Error::new(ErrorKind::Limit, "the file is too long")
        .with_detail(format!("{}: at most {max_len} bytes are read", path.display()))
}

const OWNER_ONLY: u32 = 0o600;
const OWNER_ONLY_DIRECTORY: u32 = 0o700;
/// Every permission of the group and of others.
const OTHERS: u32 = 0o077;
/// What the next file is called while it is written.
pub(crate) const TEMPORARY_SUFFIX: &str = ".new";

/// Makes the Nth step fail.
#[cfg(test)]
pub(crate) mod faults {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Files;

    /// What the failing step does, and what comes after it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// The step is not done and reports an error; later steps work.
        NotDone,
        /// The step is done and reports an error all the same; later steps work.
        DoneButFailed,
        /// The machine stops before this step: neither it nor any later one is done.
        Crash,
    }

    impl Fault {
        pub(crate) const ALL: [Self; 3] = [Self::NotDone, Self::DoneButFailed, Self::Crash];
    }

    #[derive(Debug)]
    pub(crate) struct Faults {
        steps: AtomicUsize,
        failing: usize,
        fault: Fault,
    }

    impl Files {
        /// Fails at step `failing`, counted from zero.
        pub(crate) fn failing_at(failing: usize, fault: Fault) -> Self {
            Self { faults: Some(Arc::new(Faults { steps: AtomicUsize::new(0), failing, fault })) }
        }

        /// How many steps were asked for so far.
        pub(crate) fn steps(&self) -> usize {
            self.faults.as_ref().map_or(0, |faults| faults.steps.load(Ordering::SeqCst))
        }
    }

    impl Faults {
        pub(super) fn run<T>(&self, step: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
            let number = self.steps.fetch_add(1, Ordering::SeqCst);
            match self.fault {
                Fault::Crash if number >= self.failing => Err(io::Error::other("injected: crashed")),
                Fault::NotDone if number == self.failing => Err(io::Error::other("injected: not done")),
                Fault::DoneButFailed if number == self.failing => {
                    let _ = step();
                    Err(io::Error::other("injected: done, but reported as failed"))
                }
                _ => step(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::faults::Fault;
    use super::*;

    const MAX: usize = 1024;

    fn read(path: &Path) -> Option<Vec<u8>> {
        Files::default().read(path, MAX, Readers::Any).unwrap()
    }

    fn replace(files: &Files, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let lock = files.lock(&with_suffix(path, ".lock"))?;
        files.replace(path, bytes, &lock)
    }

    #[test]
    fn g2_a_failure_at_any_step_leaves_the_old_or_the_new_file() {
        for fault in Fault::ALL {
            for failing in 0.. {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("file");
                replace(&Files::default(), &path, b"old").unwrap();

                let files = Files::failing_at(failing, fault);
                let outcome = replace(&files, &path, b"newer");
                let after = read(&path).expect("never neither");
                assert!(after == b"old" || after == b"newer", "{fault:?} at {failing}");
                if outcome.is_ok() {
                    assert_eq!(after, b"newer", "{fault:?} at {failing}");
                }
                replace(&Files::default(), &path, b"next").expect("whatever was left does not bar the next");
                assert_eq!(read(&path).as_deref(), Some(&b"next"[..]));
                if files.steps() <= failing {
                    break;
                }
            }
        }
    }

    #[test]
    fn g2_a_directory_whose_maker_failed_before_flushing_is_flushed_by_the_next_who_opens_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("inner");
        // Made, and then its parent cannot be opened, or not flushed.
        for (step, exists) in [(1, false), (1, true), (2, true)] {
            assert_eq!(path.is_dir(), exists);
            let error =
                Files::failing_at(step, Fault::NotDone).create_directory(&path).expect_err("not flushed");
            assert_eq!(error.kind(), ErrorKind::Io);
        }
        Files::default().create_directory(&path).unwrap();
    }

    #[test]
    fn b2_a_file_that_is_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace(&Files::default(), &path, b"key").unwrap();
        assert!(Files::default().read(&path, MAX, Readers::OwnerOnly).unwrap().is_some());
        for mode in [0o640, 0o604, 0o602, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Files::default().read(&path, MAX, Readers::OwnerOnly).expect_err("open to others");
            assert_eq!(error.kind(), ErrorKind::Misuse);
            assert!(Files::default().read(&path, MAX, Readers::Any).unwrap().is_some());
        }
    }

    #[test]
    fn g2_files_and_directories_are_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        Files::default().create_directory(&inner).unwrap();
        let path = inner.join("file");
        replace(&Files::default(), &path, b"record").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&path), mode(&with_suffix(&path, ".lock"))), (0o700, 0o600, 0o600));
    }

    #[test]
    fn g2_a_link_in_the_place_of_the_temporary_file_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("file"), directory.path().join("victim"));
        std::fs::write(&victim, b"untouched").unwrap();
        std::os::unix::fs::symlink(&victim, with_suffix(&path, TEMPORARY_SUFFIX)).unwrap();
        replace(&Files::default(), &path, b"new").unwrap();
        assert_eq!(read(&path).as_deref(), Some(&b"new"[..]));
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    }

    #[test]
    fn f2_a_long_file_and_a_pipe_are_refused_before_reading() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path), None);
        replace(&Files::default(), &path, &[1; MAX]).unwrap();
        assert_eq!(read(&path).map(|bytes| bytes.len()), Some(MAX));
        replace(&Files::default(), &path, &[1; MAX + 1]).unwrap();
        let error = Files::default().read(&path, MAX, Readers::Any).expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::Limit);

        let error = Files::default().read(directory.path(), MAX, Readers::Any).expect_err("a directory");
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if made.is_ok_and(|status| status.success()) {
            let error = Files::default().read(&pipe, MAX, Readers::Any).expect_err("a pipe");
            assert_eq!(error.kind(), ErrorKind::Misuse);
        }
    }

    #[test]
    fn g2_one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("counter");
        replace(&Files::default(), &path, &0_u64.to_be_bytes()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let files = Files::default();
                        let lock = files.lock(&with_suffix(&path, ".lock")).unwrap();
                        let count = u64::from_be_bytes(read(&path).unwrap().try_into().unwrap());
                        files.replace(&path, &(count + 1).to_be_bytes(), &lock).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&path), Some(100_u64.to_be_bytes().to_vec()));
    }
}
