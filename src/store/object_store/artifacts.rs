//! Small named artifacts with versions in a sealed store (contract G4): a convenience, and no format of its own.
//! Imports: `error`, `store::{route, sealed}`, the layer.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::SealedStore;
use super::upstream::path::Path;
use super::upstream::{self, GetOptions, ObjectMeta, ObjectStore, PutMode, PutOptions};
use crate::error::{Error, ErrorKind};
use crate::store::route::Binding;
use crate::store::sealed::artifact::{self, Artifact, ArtifactInfo, ArtifactVersion};

/// Saved queries, alert rules and the like: named, with versions, each version an object of its own under the account that the store's
/// router chooses: the customer's, in the customer's own store (contract G4).
///
/// A version lies at `<prefix>/<name>/<version>`, bound to that path, so that an older one does not pass for a newer one, nor one artifact for another.
/// Numbers are not used twice: a deletion is a version too, one without content.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{AccountId, AccountSpec, AekCache, ErrorKind};
/// use object_store::memory::InMemory;
/// # #[cfg(feature = "object-store")]
/// use strongroom::store::{Artifacts, OneAccount, SealedStore};
/// # #[cfg(not(feature = "object-store"))]
/// # fn main() {}
/// # #[cfg(feature = "object-store")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// let store = SealedStore::builder(Arc::new(InMemory::new()), "their-bucket", OneAccount::new(account.clone())).build()?;
/// let queries = Artifacts::new(store, "saved-queries")?;
///
/// let first = queries.put("Errors by host", "errors | summarize count() by host".into(), None).await?;
/// let second = queries.put("Errors by host", "errors | top 10 by count".into(), Some(first)).await?;
/// let stale = queries.put("Errors by host", "something else".into(), Some(first)).await;
/// assert_eq!(stale.unwrap_err().kind(), ErrorKind::Conflict);
///
/// let newest = queries.get("Errors by host").await?.expect("is there");
/// assert_eq!((newest.version, &newest.bytes[..]), (second, &b"errors | top 10 by count"[..]));
///
/// account.lock(); // or the customer takes the key away
/// assert_eq!(queries.get("Errors by host").await.unwrap_err().kind(), ErrorKind::Locked);
/// assert_eq!(queries.list().await?[0].name, "Errors by host"); // needs no key
/// # Ok(()) }
/// ```
///
/// **Not detected**, as everywhere without an anchor: that the storage left out the newest versions, so that an older one is the newest, or a whole artifact. Who has to know notes
/// the version that [`Self::put`] gave, and compares it with what [`Self::get`] gives. What listings show is the storage's word.
///
/// Needs a store that puts on the condition that nothing is there: without it, changes fail.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: SealedStore,
    prefix: Path,
}

/// The newest version of an artifact, by a listing.
#[derive(Clone, Copy)]
struct Newest {
    version: ArtifactVersion,
    size: u64,
}

impl Artifacts {
    /// The longest artifact, in bytes: 1 MiB. The shortest is 1 byte long.
    pub const MAX_LEN: usize = 1 << 20;

    /// The longest name, in bytes: 80. Any UTF-8 is a name.
    pub const MAX_NAME: usize = artifact::MAX_NAME;

    /// How many versions a listing goes through, at the most, before it is an error: 65536.
    pub const MAX_LISTED: usize = 1 << 16;

    /// The artifacts below `prefix` in `store`.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for a prefix that is no path.
    pub fn new(store: SealedStore, prefix: &str) -> Result<Self, Error> {
        let prefix = Path::parse(prefix)
            .map_err(|error| Error::new(ErrorKind::Misuse, "the prefix is no path").with_source(error))?;
        Ok(Self { store, prefix })
    }

    /// Puts a version that follows `expected`, which has to be the newest one; `None` where there has to be none, or a deleted one. Two who put at the same time do not
    /// both succeed. Gives the new version.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`] when the newest version is another one.
    /// - [`ErrorKind::Misuse`] for a name that is empty or too long or content that is empty; [`ErrorKind::Limit`] for more than 1 MiB.
    /// - The account's state when it holds no valid lease. When that was lost in the midst, and after [`ErrorKind::Io`], the version may be there or not.
    pub async fn put(
        &self,
        name: &str,
        bytes: Bytes,
        expected: Option<ArtifactVersion>,
    ) -> Result<ArtifactVersion, Error> {
        if bytes.is_empty() {
            return Err(Error::new(ErrorKind::Misuse, "an artifact is not empty: delete it"));
        }
        if bytes.len() > Self::MAX_LEN {
            return Err(Error::new(ErrorKind::Limit, "an artifact is at most 1 MiB long"));
        }
        self.follow(name, expected, bytes).await
    }

    /// The newest version; `None` where there is none, or it is deleted. Two requests, one of them a listing.
    ///
    /// # Errors
    /// The account's state when it holds no valid lease; [`ErrorKind::Corrupt`] and [`ErrorKind::Format`] for what is not that version;
    /// [`ErrorKind::Limit`] for more than 1 MiB; [`ErrorKind::Io`] for the store.
    pub async fn get(&self, name: &str) -> Result<Option<Artifact>, Error> {
        for _ in 0..ATTEMPTS {
            let Some(newest) = self.newest(name).await? else { return Ok(None) };
            match self.read(name, newest.version).await {
                Ok(artifact) => return Ok(artifact),
                // Gone since it was listed.
                Err(upstream::Error::NotFound { .. }) => {}
                Err(error) => return Err(mine(error)),
            }
        }
        Err(Error::new(
            ErrorKind::Io,
            "the artifact's versions were removed again and again while it was read",
        ))
    }

    /// Exactly this version; `None` where it is not there or is a deletion. One request.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_version(&self, name: &str, version: ArtifactVersion) -> Result<Option<Artifact>, Error> {
        match self.read(name, version).await {
            Err(upstream::Error::NotFound { .. }) => Ok(None),
            read => read.map_err(mine),
        }
    }

    /// The versions that are there, the oldest first, without deletions. No key is needed, and nothing is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] for more than [`Self::MAX_LISTED`]; [`ErrorKind::Io`] for the store.
    pub async fn versions(&self, name: &str) -> Result<Vec<ArtifactInfo>, Error> {
        let mut found = self.listed(&self.folder(name)?).await?;
        found.retain(|info| info.size > 0);
        found.sort_unstable_by_key(|info| info.version);
        Ok(found)
    }

    /// All artifacts that are not deleted, each with its newest version, by name. No key is needed, and nothing is opened.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub async fn list(&self) -> Result<Vec<ArtifactInfo>, Error> {
        let mut newest: BTreeMap<String, ArtifactInfo> = BTreeMap::new();
        for info in self.listed(&self.prefix).await? {
            match newest.get(&info.name) {
                Some(other) if other.version > info.version => {}
                _ => drop(newest.insert(info.name.clone(), info)),
            }
        }
        Ok(newest.into_values().filter(|info| info.size > 0).collect())
    }

    /// Deletes the artifact, whose newest version has to be `expected`, and then what was there before. An empty version stays behind, so that no number is used twice.
    /// A process that ends in the midst may leave old versions: [`Self::prune`] removes them.
    ///
    /// # Errors
    /// As [`Self::put`]: a deletion is under the account's key too.
    pub async fn delete(&self, name: &str, expected: ArtifactVersion) -> Result<(), Error> {
        let deletion = self.follow(name, Some(expected), Bytes::new()).await?;
        self.prune(name, deletion).await
    }

    /// Removes the versions before `keep`, but never the newest.
    ///
    /// # Errors
    /// As [`Self::versions`].
    pub async fn prune(&self, name: &str, keep: ArtifactVersion) -> Result<(), Error> {
        let folder = self.folder(name)?;
        let versions: Vec<_> = self.listed(&folder).await?.into_iter().map(|info| info.version).collect();
        let newest = versions.iter().max().copied();
        let old = versions.into_iter().filter(move |version| *version < keep && Some(*version) != newest);
        let paths: Vec<_> = old.map(|version| Ok(folder.clone().join(version.to_segment()))).collect();
        let deleted = self.store.delete_stream(stream::iter(paths).boxed());
        let gone = |result: upstream::Result<Path>| match result {
            Ok(_) | Err(upstream::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(mine(error)),
        };
        deleted.map(gone).try_collect::<()>().await
    }

    /// Puts what follows the newest version, if that is the expected one.
    async fn follow(
        &self,
        name: &str,
        expected: Option<ArtifactVersion>,
        bytes: Bytes,
    ) -> Result<ArtifactVersion, Error> {
        let newest = self.newest(name).await?;
        let live = newest.filter(|newest| newest.size > 0).map(|newest| newest.version);
        if live != expected {
            return Err(conflict());
        }
        let version = newest.map_or(Ok(ArtifactVersion::FIRST), |newest| newest.version.next())?;
        let path = self.path(name, version).await.map_err(mine)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&path, bytes.into(), options).await {
            Ok(_) => Ok(version),
            Err(upstream::Error::AlreadyExists { .. } | upstream::Error::Precondition { .. }) => {
                Err(conflict())
            }
            Err(error) => Err(mine(error)),
        }
    }

    async fn newest(&self, name: &str) -> Result<Option<Newest>, Error> {
        let found = self.listed(&self.folder(name)?).await?;
        let newest = found.iter().max_by_key(|info| info.version);
        Ok(newest.map(|info| Newest { version: info.version, size: info.size }))
    }

    async fn read(&self, name: &str, version: ArtifactVersion) -> upstream::Result<Option<Artifact>> {
        let path = self.path(name, version).await?;
        let object = self.store.get_opts(&path, GetOptions::default()).await?;
        if object.meta.size > Self::MAX_LEN as u64 {
            let error = Error::new(ErrorKind::Limit, "an artifact is at most 1 MiB long");
            return Err(super::error::ours(error));
        }
        let bytes = object.bytes().await?;
        Ok((!bytes.is_empty()).then_some(Artifact { version, bytes }))
    }

    /// Where a version lies, and whether its object will be bound to that: otherwise the storage could exchange versions.
    async fn path(&self, name: &str, version: ArtifactVersion) -> upstream::Result<Path> {
        let path = self.folder(name).map_err(super::error::ours)?.join(version.to_segment());
        let shared = &self.store.shared;
        if shared.place(&path).await?.context != Binding::Location.context(&shared.id, path.as_ref()) {
            let message = "artifacts have to be bound to where they lie, by a route of `sealed` or `scoped`";
            return Err(super::error::ours(Error::new(ErrorKind::Misuse, message)));
        }
        Ok(path)
    }

    fn folder(&self, name: &str) -> Result<Path, Error> {
        Ok(self.prefix.clone().join(artifact::to_segment(name)?))
    }

    /// Every version below `folder`. What has no name or version of ours is somebody else's.
    async fn listed(&self, folder: &Path) -> Result<Vec<ArtifactInfo>, Error> {
        let mut out = Vec::new();
        let mut seen = 0;
        let mut objects: BoxStream<'_, upstream::Result<ObjectMeta>> = self.store.list(Some(folder));
        while let Some(object) = objects.try_next().await.map_err(mine)? {
            seen += 1;
            if seen > Self::MAX_LISTED {
                let message = "more than 65536 versions are listed: prune old ones";
                return Err(Error::new(ErrorKind::Limit, message));
            }
            out.extend(self.info(&object));
        }
        Ok(out)
    }

    fn info(&self, object: &ObjectMeta) -> Option<ArtifactInfo> {
        let mut segments = object.location.prefix_match(&self.prefix)?;
        let (name, version) = (segments.next()?, segments.next()?);
        if segments.next().is_some() {
            return None;
        }
        let name = artifact::from_segment(name.as_ref())?;
        let version = ArtifactVersion::from_segment(version.as_ref())?;
        Some(ArtifactInfo { name, version, size: object.size })
    }
}

const fn conflict() -> Error {
    Error::new(ErrorKind::Conflict, "another version of the artifact is the newest: read it, then retry")
}

/// Ours where the store wraps one of ours.
fn mine(error: upstream::Error) -> Error {
    match Error::find(&error) {
        Some(found) => found.clone(),
        None => Error::new(ErrorKind::Io, "the store of the artifacts failed").with_source(error),
    }
}

/// How often a read begins again because the version it was to read is gone.
const ATTEMPTS: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_g4_format_md_has_the_limits_of_artifacts() {
        let format = include_str!("../../../docs/FORMAT.md");
        for (name, value) in [
            ("MAX_LEN", Artifacts::MAX_LEN),
            ("MAX_NAME", Artifacts::MAX_NAME),
            ("MAX_LISTED", Artifacts::MAX_LISTED),
        ] {
            let row = format!("| `Artifacts::{name}` | {value} |");
            assert!(format.contains(&row), "{row}");
        }
    }
}
