//! The file under a LocalKms: read whole, replaced whole, one writer at a time.
//!
//! A reader takes no lock, for the file is at any time the old one or the new one. A writer holds `<file>.lock` while
//! it reads, changes and replaces, so that two processes do not lose each other's changes. Imports: `atomic_file`,
//! `provider`, `error`.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::document::{Document, MAX_FILE};
use crate::atomic_file::{FileLock, Files, Readers, is_denial, with_suffix};
use crate::error::{Error, ErrorKind, Refusal};
use crate::provider::{ErrorClass, ProviderError};

/// One file at one place.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    files: Files,
}

impl KeyFile {
    /// The file at `path`, which need not exist; its directory must. Symbolic links are followed now and not again, so
    /// that a replacement replaces the file and not the link.
    pub(super) fn at(path: &Path) -> Result<Self, Error> {
        Self::at_with(path, Files::default())
    }

    fn at_with(path: &Path, files: Files) -> Result<Self, Error> {
        let resolved = match path.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => resolve_parent(path),
            resolved => resolved,
        };
        match resolved {
            Ok(path) => Ok(Self { path, files }),
            Err(source) => Err(Error::io("cannot find the LocalKms file or its directory", source)
                .with_detail(path.display().to_string())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it is now, if there is one.
    pub(super) fn read_if_there(&self) -> Result<Option<Document>, Error> {
        let Some(bytes) = self.files.read(&self.path, MAX_FILE, Readers::OwnerOnly)? else { return Ok(None) };
        let bytes = Zeroizing::new(bytes);
        Document::parse(&bytes).map(Some).map_err(|error| self.name(error))
    }

    /// The file as it is now.
    pub(super) fn read(&self) -> Result<Document, Error> {
        self.read_if_there()?.ok_or_else(|| {
            let missing = io::Error::from(io::ErrorKind::NotFound);
            self.name(Error::io("there is no LocalKms file; check the path, or create one", missing))
        })
    }

    /// The file as it is now and will be after a power cut. A key that was only just renamed into place may still be
    /// taken back by one: whatever is wrapped under it would be lost.
    pub(super) fn read_durable(&self) -> Result<Document, Error> {
        let document = self.read()?;
        self.files.settle(&self.path)?;
        Ok(document)
    }

    /// Writes a first document.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when there is something already.
    pub(super) fn create(&self, document: &Document) -> Result<(), Error> {
        // Once before the lock as well, so that a wrong path does not leave a lock file beside somebody else's.
        self.expect_nothing()?;
        let lock = self.lock()?;
        self.expect_nothing()?;
        self.write(document, &lock)
    }

    fn expect_nothing(&self) -> Result<(), Error> {
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(self.name(Error::io("cannot inspect the LocalKms file", source))),
            Ok(_) => Err(self.name(Error::new(
                ErrorKind::Misuse,
                "there is a file already; open it, or choose another path",
            ))),
        }
    }

    /// Reads the file, lets `change` change it, and replaces it. When `change` fails nothing is written.
    ///
    /// After an error of kind [`ErrorKind::Io`] the file is the old one or the new one.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Document) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let lock = self.lock()?;
        let mut document = self.read()?;
        let changed = change(&mut document)?;
        self.write(&document, &lock)?;
        Ok(changed)
    }

    fn lock(&self) -> Result<FileLock, Error> {
        self.files.lock(&with_suffix(&self.path, ".lock"))
    }

    fn write(&self, document: &Document, lock: &FileLock) -> Result<(), Error> {
        let bytes = document.to_bytes().map_err(|error| self.name(error))?;
        self.files.replace(&self.path, &bytes, lock)
    }

    /// Says which file an error is about.
    pub(super) fn name(&self, error: Error) -> Error {
        error.with_detail(self.path.display().to_string())
    }
}

/// What trouble with the file means for a lease. A file that is not there or cannot be read just now is silence,
/// not the customer's will; one that we may no longer read is their will, as far as anybody can see.
pub(super) fn provider_error(error: &Error) -> ProviderError {
    let class = match error.kind() {
        ErrorKind::Io if is_denial(error) => ErrorClass::Refused(Refusal::PermissionRemoved),
        ErrorKind::Io => ErrorClass::Transient,
        ErrorKind::Format | ErrorKind::Corrupt | ErrorKind::Limit => ErrorClass::Integrity,
        _ => ErrorClass::Misconfigured,
    };
    ProviderError::new(class, &error.to_string())
}

fn resolve_parent(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(parent.canonicalize()?.join(name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::document::{Key, MIN_RETENTION, Version};
    use super::*;
    use crate::atomic_file::faults::Fault;

    fn add_key(file: &KeyFile, name: &str) -> Result<(), Error> {
        file.update(|document| {
            document.keys.push(Key {
                name: name.to_owned(),
                enabled: true,
                purge_protection: true,
                retention_seconds: MIN_RETENTION,
                deleted_at: None,
                versions: vec![Version::generate(1)],
            });
            Ok(())
        })
    }

    /// Fails each step in turn, in each way; `act` gets the failing file and a sound one at the same place.
    fn at_every_step(prepare: fn(&KeyFile), act: fn(&KeyFile, &KeyFile) -> Result<(), Error>) {
        for fault in Fault::ALL {
            for failing in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("kms.json");
                let sound = KeyFile::at(&path).unwrap();
                prepare(&sound);
                let files = Files::failing_at(failing, fault);
                let outcome = act(&KeyFile::at_with(&path, files.clone()).unwrap(), &sound);
                if files.steps() <= failing {
                    outcome.expect("no step was struck");
                    break;
                }
                let error = outcome.expect_err("a struck step is reported");
                assert_eq!(error.kind(), ErrorKind::Io, "{fault:?} at step {failing}");
            }
        }
    }

    #[test]
    fn b2_a_failure_at_any_step_of_a_change_leaves_the_old_or_the_new_file() {
        let prepare = |sound: &KeyFile| {
            sound.create(&Document::new()).unwrap();
            add_key(sound, "old").unwrap();
        };
        at_every_step(prepare, |failing, sound| {
            let outcome = add_key(failing, "new");
            let names = |file: &KeyFile| -> Vec<String> {
                file.read().expect("a whole file").keys.iter().map(|key| key.name.clone()).collect()
            };
            let after = names(sound);
            assert!(after == ["old"] || after == ["old", "new"], "{after:?}");
            add_key(sound, "next").expect("the next writer is not disturbed by what was left");
            assert_eq!(names(sound).len(), after.len() + 1);
            outcome
        });
    }

    #[test]
    fn b2_a_failure_at_any_step_of_creating_leaves_no_file_or_a_whole_one() {
        at_every_step(
            |_| (),
            |failing, sound| {
                let outcome = failing.create(&Document::new());
                if sound.read_if_there().expect("whole, or not there").is_none() {
                    sound.create(&Document::new()).expect("creating again works");
                }
                outcome
            },
        );
    }

    #[test]
    fn b2_nothing_is_written_when_the_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(&folder.path().join("kms.json")).unwrap();
        file.create(&Document::new()).unwrap();
        add_key(&file, "kept").unwrap();
        let old = fs::read(file.path()).unwrap();
        file.update(|document| {
            document.keys.clear();
            Err::<(), _>(Error::new(ErrorKind::Misuse, "no"))
        })
        .expect_err("refused");
        assert_eq!(fs::read(file.path()).unwrap(), old);
    }

    #[test]
    fn b2_a_symbolic_link_is_followed_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target.json");
        KeyFile::at(&target).unwrap().create(&Document::new()).unwrap();
        let link = folder.path().join("link.json");
        symlink(&target, &link).unwrap();
        add_key(&KeyFile::at(&link).unwrap(), "new").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(KeyFile::at(&target).unwrap().read().unwrap().keys.len(), 1);
    }

    #[test]
    fn b2_b1_trouble_with_the_file_has_the_right_class() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::at(&folder.path().join("kms.json")).unwrap();
        let class = || provider_error(&file.read().expect_err("trouble")).class();
        assert_eq!(class(), ErrorClass::Transient, "no file is silence");
        file.create(&Document::new()).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(class(), ErrorClass::Misconfigured, "others may read it");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(file.path(), "damaged").unwrap();
        assert_eq!(class(), ErrorClass::Integrity);
        fs::write(file.path(), vec![0; MAX_FILE + 1]).unwrap();
        assert_eq!(class(), ErrorClass::Integrity);

        let denied = Error::io("denied", io::ErrorKind::PermissionDenied.into());
        assert_eq!(provider_error(&denied).class(), ErrorClass::Refused(Refusal::PermissionRemoved));
        let failed = Error::io("failed", io::Error::other("disk"));
        assert_eq!(provider_error(&failed).class(), ErrorClass::Transient);
    }
}
