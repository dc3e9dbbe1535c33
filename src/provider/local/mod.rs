//! The embedded default: a KMS in one file (contract B2).
//!
//! For development, tests, and machines whose operator is the customer. It keeps the KEKs in the clear, so whoever
//! reads the file holds every key: keep it apart from the data, on a volume of its own or on another machine's.
//! Imports: `provider`, `clock`, `error`.

mod document;
mod file;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod wrap;

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::document::{Document, Key, Version};
use self::file::{KeyFile, provider_error};
use super::{
    Authority, Kek, KekInfo, KekVersion, KeyProvider, ProviderError, WrapAlgorithm, WrapContext, WrapInput,
    Wrapped,
};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Refusal};

/// A KMS in one file: keys with versions, enable, disable, soft delete, recover, purge.
///
/// The file is created readable by its owner only, and a file that others can use is not opened. Every call reads it
/// anew, so a change by another process counts from the next call on; it is replaced whole, by a rename, so a crash
/// leaves the old one or the new one. Writers exclude each other by an advisory lock on `<file>.lock`, which
/// stays. While a new file is being written, `<file>.new` holds it.
///
/// To take a key away, disable or delete it. Moving the file away is silence, and silence earns grace.
///
/// ```
/// use strongroom::provider::{KeyOptions, LocalKms};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("kms.json");
/// let kms = LocalKms::create(&path)?;
/// let first = kms.create_key("orders", KeyOptions::default())?;
/// let second = kms.rotate_key("orders")?;
/// kms.disable_version("orders", &first)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct LocalKms {
    file: KeyFile,
    /// The id in the file, which is the endpoint: the file may move, but not be another.
    id: String,
    clock: Clock,
}

/// How a key is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOptions {
    retention: Duration,
    purge_protection: bool,
}

/// What [`LocalKms::keys`] tells of a key. No secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySummary {
    /// Its name.
    pub name: String,
    /// Whether it may be used, as far as the key itself goes; its versions have a switch each.
    pub enabled: bool,
    /// When it was deleted; `None` for a live key.
    pub deleted: Option<SystemTime>,
    /// When a deleted key may be purged: at once without purge protection.
    pub purgeable: Option<SystemTime>,
    /// Whether nobody can purge it before its retention is over.
    pub purge_protection: bool,
    /// Its versions, oldest first; the last is the current one.
    pub versions: Vec<VersionSummary>,
}

/// One version in a [`KeySummary`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionSummary {
    /// Its name.
    pub version: KekVersion,
    /// Whether it may be used, if the key may.
    pub enabled: bool,
    /// When it was made.
    pub created: SystemTime,
}

impl Default for KeyOptions {
    /// Recoverable: purge protection, and a retention of 90 days.
    fn default() -> Self {
        Self { retention: Duration::from_secs(document::MAX_RETENTION), purge_protection: true }
    }
}

impl KeyOptions {
    /// How long a deleted key can be recovered before it may be purged: 7 to 90 days, in whole seconds.
    #[must_use]
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Lets a deleted key be purged at once, and all data under it be lost with one mistake. Accounts are not created
    /// on such a key unless told to.
    #[must_use]
    pub const fn allow_immediate_purge(mut self) -> Self {
        self.purge_protection = false;
        self
    }
}

/// Opening and creating.
impl LocalKms {
    /// Creates the file at `path`, without keys, readable by its owner only. Its directory must exist.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when there is something at `path` already; [`ErrorKind::Io`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = KeyFile::at(path.as_ref())?;
        let document = Document::new();
        file.create(&document)?;
        Ok(Self { file, id: document.id(), clock: Clock::System })
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when group or others have any right to the file: every key in it must then be taken for
    /// known. [`ErrorKind::Format`], [`ErrorKind::Corrupt`] or [`ErrorKind::Limit`] when it is not a whole LocalKms file
    /// of a version known here; [`ErrorKind::Io`], also when there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let file = KeyFile::at(path.as_ref())?;
        let id = file.read()?.id();
        Ok(Self { file, id, clock: Clock::System })
    }

    /// Opens the file at `path`, or creates it if there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        if KeyFile::at(path)?.read_if_there()?.is_some() {
            return Self::open(path);
        }
        match Self::create(path) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::Misuse => Self::open(path),
            created => created,
        }
    }

    /// Takes the time from `clock`.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn with_clock(mut self, clock: &crate::clock::ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self
    }
}

/// Administration: what the customer does. Every method reads the file as it is now and, where it changes something,
/// has replaced it durably when it returns.
///
/// Errors of all: [`ErrorKind::Misuse`] for a key or version that there is not, or that is in the wrong state;
/// [`ErrorKind::Limit`] for a full file; [`ErrorKind::Untrusted`] when another file lies in this one's place; those of
/// [`LocalKms::open`]. After [`ErrorKind::Io`] the file is the old one or the new one: ask [`LocalKms::keys`].
#[expect(clippy::missing_errors_doc, reason = "said once for all, above")]
impl LocalKms {
    /// Makes a key with its first version. `name` is 1 to 128 bytes without control characters.
    pub fn create_key(&self, name: &str, options: KeyOptions) -> Result<KekVersion, Error> {
        let retention_seconds = options.retention.as_secs();
        if !document::is_name(name) {
            return Err(misuse("a key's name has 1 to 128 bytes and no control characters", name));
        }
        if !(document::MIN_RETENTION..=document::MAX_RETENTION).contains(&retention_seconds) {
            return Err(misuse("a key's retention is 7 to 90 days", name));
        }
        let version = Version::generate(self.now());
        let made = version.name();
        self.grow(|document| match document.key(name) {
            Some(key) if key.deleted_at.is_some() => {
                Err(misuse("a deleted key has that name; recover it, or purge it first", name))
            }
            Some(_) => Err(misuse("a key of that name exists; rotate it for a new version", name)),
            None => {
                document.keys.push(Key {
                    name: name.to_owned(),
                    enabled: true,
                    purge_protection: options.purge_protection,
                    retention_seconds,
                    deleted_at: None,
                    versions: vec![version],
                });
                Ok(made)
            }
        })
    }

    /// Adds a version, enabled; it becomes the current one. Older versions stay, and stay usable.
    pub fn rotate_key(&self, name: &str) -> Result<KekVersion, Error> {
        let version = Version::generate(self.now());
        let made = version.name();
        self.grow(|document| {
            live_key(document, name)?.versions.push(version);
            Ok(made)
        })
    }

    /// Allows use of the key again.
    pub fn enable_key(&self, name: &str) -> Result<(), Error> {
        self.change_live_key(name, |key| {
            key.enabled = true;
            Ok(())
        })
    }

    /// Refuses every use of the key, in all its versions, from the next call on.
    pub fn disable_key(&self, name: &str) -> Result<(), Error> {
        self.change_live_key(name, |key| {
            key.enabled = false;
            Ok(())
        })
    }

    /// Allows use of one version again.
    pub fn enable_version(&self, name: &str, version: &KekVersion) -> Result<(), Error> {
        self.set_version(name, version, true)
    }

    /// Refuses every use of one version. When it is the current one, nothing can be wrapped without a pin.
    pub fn disable_version(&self, name: &str, version: &KekVersion) -> Result<(), Error> {
        self.set_version(name, version, false)
    }

    /// Deletes the key softly: it refuses every use, and can be recovered until it is purged.
    pub fn delete_key(&self, name: &str) -> Result<(), Error> {
        let now = self.now();
        self.change_live_key(name, |key| {
            key.deleted_at = Some(now);
            Ok(())
        })
    }

    /// Brings a deleted key back as it was. Works until somebody purges it, also after the retention.
    pub fn recover_key(&self, name: &str) -> Result<(), Error> {
        self.update(|document| {
            let key = find(document, name)?;
            match key.deleted_at.take() {
                Some(_) => Ok(()),
                None => Err(misuse("the key is not deleted", name)),
            }
        })
    }

    /// Destroys a deleted key for ever, and with it all data under it. A key with purge protection refuses until its
    /// retention is over, by this machine's wall clock.
    pub fn purge_key(&self, name: &str) -> Result<(), Error> {
        let now = self.now();
        self.update(|document| {
            let Some(purgeable) = find(document, name)?.purgeable_at() else {
                return Err(misuse("only a deleted key can be purged; delete it first", name));
            };
            if now < purgeable {
                let wait = purgeable - now;
                return Err(misuse("purge protection holds until the retention is over", name)
                    .with_detail(format!("{name}: {wait} seconds more")));
            }
            document.keys.retain(|key| key.name != name);
            Ok(())
        })
    }

    /// All keys, deleted ones included, in the order of their creation.
    pub fn keys(&self) -> Result<Vec<KeySummary>, Error> {
        let document = self.file.read()?;
        self.check_is_ours(&document)?;
        Ok(document.keys.iter().map(KeySummary::of).collect())
    }

    fn set_version(&self, name: &str, version: &KekVersion, enabled: bool) -> Result<(), Error> {
        self.change_live_key(name, |key| match key.version_mut(version) {
            Some(version) => {
                version.enabled = enabled;
                Ok(())
            }
            None => Err(misuse("the key has no such version", version.as_str())),
        })
    }

    fn change_live_key<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Key) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.update(|document| change(live_key(document, name)?))
    }

    /// A change that needs room of its own, beyond what is kept for closing what is there.
    fn grow<T>(&self, change: impl FnOnce(&mut Document) -> Result<T, Error>) -> Result<T, Error> {
        self.update(|document| {
            let changed = change(document)?;
            document.check_room().map_err(|error| self.file.name(error))?;
            Ok(changed)
        })
    }

    fn update<T>(&self, change: impl FnOnce(&mut Document) -> Result<T, Error>) -> Result<T, Error> {
        self.file.update(|document| {
            self.check_is_ours(document)?;
            change(document)
        })
    }

    fn read(&self) -> Result<Document, ProviderError> {
        self.check(self.file.read())
    }

    fn check(&self, document: Result<Document, Error>) -> Result<Document, ProviderError> {
        let document = document.map_err(|error| provider_error(&error))?;
        self.check_is_ours(&document).map_err(|error| provider_error(&error))?;
        Ok(document)
    }

    fn check_is_ours(&self, document: &Document) -> Result<(), Error> {
        if document.id() == self.id {
            return Ok(());
        }
        Err(self.file.name(Error::new(
            ErrorKind::Untrusted,
            "another LocalKms file lies in the place of the one that was opened; put it back, or open anew",
        )))
    }

    /// Seconds since the Unix epoch.
    fn now(&self) -> u64 {
        self.clock.now().wall_nanos() / 1_000_000_000
    }
}

impl KeyProvider for LocalKms {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        let uri = self.authority().uri_of(kek.name())?;
        let document = self.check(self.file.read_durable())?;
        let key = usable_key(&document, kek.name())?;
        let version = match kek.version() {
            Some(pinned) => existing_version(key, pinned)?,
            None => key.current(),
        };
        let bytes = wrap::wrap(usable(version)?.material(), context, secret)?;
        Wrapped::new(uri, version.name(), WrapAlgorithm::new(ALGORITHM)?, bytes)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let authority = self.authority();
        let name = authority.name_of(wrapped.kek())?;
        let document = self.read()?;
        let version = usable(existing_version(usable_key(&document, name)?, wrapped.version())?)?;
        if wrapped.algorithm().as_str() != ALGORITHM {
            return Err(ProviderError::integrity("a LocalKms did not wrap this: it names another algorithm"));
        }
        wrap::unwrap(version.material(), context, wrapped.bytes())
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        let document = self.read()?;
        let key = existing_key(&document, kek.name())?;
        let version = match kek.version() {
            Some(pinned) => existing_version(key, pinned)?,
            None => key.current(),
        };
        let mut info = KekInfo::new(self.authority().uri_of(&key.name)?, version.name());
        info.enabled = key.enabled && version.enabled;
        info.soft_delete = true;
        info.purge_protection = key.purge_protection;
        info.hsm_backed = Some(false);
        Ok(info)
    }

    /// `local`, and the id in the file: the same wherever the file lies.
    fn authority(&self) -> Authority {
        Authority::new("local", self.id.clone())
    }
}

impl Key {
    /// When the deleted key may be purged, in seconds since the Unix epoch; `None` for a live key.
    fn purgeable_at(&self) -> Option<u64> {
        let wait = if self.purge_protection { self.retention_seconds } else { 0 };
        Some(self.deleted_at?.saturating_add(wait))
    }
}

impl KeySummary {
    fn of(key: &Key) -> Self {
        let version = |version: &Version| VersionSummary {
            version: version.name(),
            enabled: version.enabled,
            created: time(version.created_at),
        };
        Self {
            name: key.name.clone(),
            enabled: key.enabled,
            deleted: key.deleted_at.map(time),
            purgeable: key.purgeable_at().map(time),
            purge_protection: key.purge_protection,
            versions: key.versions.iter().map(version).collect(),
        }
    }
}

impl fmt::Debug for LocalKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKms")
            .field("path", &self.file.path())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn existing_key<'d>(document: &'d Document, name: &str) -> Result<&'d Key, ProviderError> {
    match document.key(name) {
        Some(key) if key.deleted_at.is_none() => Ok(key),
        Some(_) => Err(ProviderError::refused(Refusal::KeyGone, "the key is deleted; recover it")),
        None => Err(ProviderError::refused(Refusal::KeyGone, "there is no such key")),
    }
}

fn usable_key<'d>(document: &'d Document, name: &str) -> Result<&'d Key, ProviderError> {
    let key = existing_key(document, name)?;
    if key.enabled { Ok(key) } else { Err(disabled("the key is disabled; enable it")) }
}

fn existing_version<'k>(key: &'k Key, version: &KekVersion) -> Result<&'k Version, ProviderError> {
    key.version(version)
        .ok_or_else(|| ProviderError::refused(Refusal::KeyGone, "the key has no such version"))
}

fn usable(version: &Version) -> Result<&Version, ProviderError> {
    if version.enabled { Ok(version) } else { Err(disabled("the key's version is disabled; enable it")) }
}

fn disabled(message: &str) -> ProviderError {
    ProviderError::refused(Refusal::KeyDisabled, message)
}

fn find<'d>(document: &'d mut Document, name: &str) -> Result<&'d mut Key, Error> {
    document.key_mut(name).ok_or_else(|| misuse("there is no such key", name))
}

fn live_key<'d>(document: &'d mut Document, name: &str) -> Result<&'d mut Key, Error> {
    let key = find(document, name)?;
    if key.deleted_at.is_some() { Err(misuse("the key is deleted; recover it first", name)) } else { Ok(key) }
}

fn misuse(message: &'static str, name: &str) -> Error {
    Error::new(ErrorKind::Misuse, message).with_detail(name.escape_debug().to_string())
}

/// A time in a file may be any number; one beyond what the platform can say is shown as the epoch.
fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

const ALGORITHM: &str = "AES-256-GCM";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_d1_what_would_fill_the_file_is_not_made_and_what_is_there_can_be_closed() {
        let folder = tempfile::tempdir().unwrap();
        let kms = LocalKms::create(folder.path().join("kms.json")).unwrap();
        kms.create_key("last", KeyOptions::default()).unwrap();
        let fill = |document: &mut Document| {
            for name in 0..6 {
                let versions = (0..document::MAX_VERSIONS).map(|_| Version::generate(u64::MAX)).collect();
                document.keys.push(Key {
                    name: name.to_string(),
                    enabled: true,
                    purge_protection: true,
                    retention_seconds: document::MIN_RETENTION,
                    deleted_at: None,
                    versions,
                });
            }
            while document.check_room().is_ok() {
                find(document, "last")?.versions.extend((0..20).map(|_| Version::generate(u64::MAX)));
            }
            while document.check_room().is_err() {
                find(document, "last")?.versions.pop();
            }
            Ok(())
        };
        kms.update(fill).unwrap();
        assert_eq!(kms.rotate_key("last").unwrap_err().kind(), ErrorKind::Limit);
        assert_eq!(kms.create_key("more", KeyOptions::default()).unwrap_err().kind(), ErrorKind::Limit);
        for KeySummary { name, .. } in kms.keys().unwrap() {
            kms.disable_key(&name).unwrap();
            kms.delete_key(&name).unwrap();
        }
    }
}
