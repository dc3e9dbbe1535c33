//! The life that is lived again and again, step by step, and what has to be there after each step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Kek, KekVersion, KeyProvider, KeySummary, LocalKms};
use strongroom::{
    Account, AccountId, AekCache, BlockSize, Context, Engine, Error, Expect, FileRecordStore, ObjectOptions,
};

/// One step. Each is acknowledged before the next begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A LocalKms, opened or created.
    Kms,
    /// A directory of records, opened or created.
    Store,
    /// A KEK.
    Key(&'static str),
    /// Another version of it.
    RotateKey(&'static str),
    /// One version of it, by its index, switched on or off.
    SwitchVersion(&'static str, usize, bool),
    /// The KEK switched on or off.
    SwitchKey(&'static str, bool),
    /// The KEK deleted softly, or recovered.
    DeleteKey(&'static str, bool),
    /// An account under the current version of [`KEK`].
    Account(Who),
    /// Its AEK wrapped under the current version.
    Rewrap(Who),
    /// An object of so many bytes, sealed under the account.
    Object(&'static str, Who, usize),
    /// The object read back.
    Read(&'static str),
    /// Another cache, as after a restart, with the accounts that the store has.
    Restart,
}

/// Whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// Follows the KEK's latest version.
    Follower,
    /// Is pinned to a version.
    Pinned,
}

pub(crate) const KEK: &str = "kek";
const SPARE: &str = "spare";

/// The life.
pub(crate) const STEPS: [Step; 24] = [
    Step::Kms,
    Step::Key(KEK),
    Step::Store,
    Step::Account(Who::Follower),
    Step::Object("first", Who::Follower, 10_000),
    Step::RotateKey(KEK),
    Step::Rewrap(Who::Follower),
    Step::SwitchVersion(KEK, 0, false),
    Step::Read("first"),
    Step::Object("second", Who::Follower, 70_000),
    Step::SwitchVersion(KEK, 0, true),
    Step::Account(Who::Pinned),
    Step::Object("third", Who::Pinned, 5_000),
    Step::RotateKey(KEK),
    Step::Rewrap(Who::Pinned),
    Step::SwitchKey(KEK, false),
    Step::SwitchKey(KEK, true),
    Step::Key(SPARE),
    Step::DeleteKey(SPARE, true),
    Step::DeleteKey(SPARE, false),
    Step::Restart,
    Step::Read("third"),
    Step::Object("empty", Who::Pinned, 0),
    Step::Rewrap(Who::Follower),
];

/// What is there after some steps, as far as a fresh process can see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) kms: bool,
    pub(crate) store: bool,
    pub(crate) keys: BTreeMap<String, Key>,
    /// The version, by its index, that each account is wrapped under.
    pub(crate) accounts: BTreeMap<Who, usize>,
    pub(crate) objects: BTreeMap<&'static str, (Who, usize)>,
}

/// A KEK in a [`State`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    disabled: bool,
    deleted: bool,
    /// Whether each version is enabled.
    versions: Vec<bool>,
}

impl State {
    /// After the first so many steps.
    pub(crate) fn after(steps: usize) -> Self {
        let mut state = Self::default();
        STEPS[..steps.min(STEPS.len())].iter().for_each(|step| state.apply(*step));
        state
    }

    fn apply(&mut self, step: Step) {
        let latest = self.keys.get(KEK).map_or(0, |key| key.versions.len().saturating_sub(1));
        match step {
            Step::Kms => self.kms = true,
            Step::Store => self.store = true,
            Step::Key(name) => self.key(name).versions = vec![true],
            Step::RotateKey(name) => self.key(name).versions.push(true),
            Step::SwitchVersion(name, version, on) => self.key(name).versions[version] = on,
            Step::SwitchKey(name, on) => self.key(name).disabled = !on,
            Step::DeleteKey(name, deleted) => self.key(name).deleted = deleted,
            Step::Account(who) | Step::Rewrap(who) => drop(self.accounts.insert(who, latest)),
            Step::Object(name, who, len) => drop(self.objects.insert(name, (who, len))),
            Step::Read(_) | Step::Restart => {}
        }
    }

    fn key(&mut self, name: &str) -> &mut Key {
        self.keys.entry(name.to_owned()).or_default()
    }
}

/// The keys as the KMS has them.
pub(crate) fn keys_of(kms: &LocalKms) -> Result<BTreeMap<String, Key>, Error> {
    let key = |key: KeySummary| {
        let versions = key.versions.iter().map(|version| version.enabled).collect();
        (key.name, Key { disabled: !key.enabled, deleted: key.deleted.is_some(), versions })
    };
    Ok(kms.keys()?.into_iter().map(key).collect())
}

/// The version at this index.
pub(crate) fn version(kms: &LocalKms, index: usize) -> Result<KekVersion, Error> {
    let keys = kms.keys()?;
    let key = keys.iter().find(|key| key.name == KEK).expect("the script creates it first");
    Ok(key.versions[index].version.clone())
}

impl Who {
    pub(crate) const ALL: [Self; 2] = [Self::Follower, Self::Pinned];

    pub(crate) const fn id(self) -> AccountId {
        AccountId::from_bytes([self as u8 + 0xA0; 16])
    }
}

/// Where things lie, and how a life goes about them.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    engine: Engine,
    block_size: BlockSize,
}

impl Place {
    pub(crate) fn new(folder: &str, variant: &str) -> Self {
        let (engine, block) = match variant {
            "small-blocks" => (Engine::Fastest, 4096),
            "large-blocks" => (Engine::Portable, 65536),
            other => panic!("no variant {other}"),
        };
        let block_size = BlockSize::new(block).expect("a block size that exists");
        Self { folder: PathBuf::from(folder), engine, block_size }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn kms(&self) -> PathBuf {
        self.folder.join("kms.json")
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.folder.join("records")
    }

    pub(crate) fn record(&self, who: Who) -> PathBuf {
        self.records().join(who.id().to_string())
    }

    pub(crate) fn object(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn options(&self) -> ObjectOptions {
        ObjectOptions::with_block_size(self.block_size)
    }

    /// A cache that makes no call of its own for as long as a life lasts.
    pub(crate) fn cache(&self) -> Result<AekCache, Error> {
        AekCache::builder().engine(self.engine).kms_threads(2).refresh_every(Duration::from_secs(60)).build()
    }
}

pub(crate) fn context(name: &str) -> Context {
    Context::new(&[b"r14", name.as_bytes()])
}

/// Attaches the account that the store has, and waits for its key.
pub(crate) fn attach(
    cache: &AekCache,
    store: &Arc<FileRecordStore>,
    kms: &Arc<LocalKms>,
    who: Who,
    patience: Duration,
) -> Result<Account, Error> {
    let provider: Arc<dyn KeyProvider> = kms.clone();
    let expect = Expect::account(who.id()).kek(provider, KEK);
    let account = cache.attach_stored(store.clone(), expect)?;
    account.wait_ready(patience)?;
    Ok(account)
}

/// The KEK that an account is created under.
pub(crate) fn kek(kms: &LocalKms, who: Who) -> Result<Kek, Error> {
    Ok(match who {
        Who::Follower => Kek::latest(KEK),
        Who::Pinned => {
            let latest = keys_of(kms)?[KEK].versions.len() - 1;
            Kek::pinned(KEK, version(kms, latest)?)
        }
    })
}

/// What object `name` holds: each byte depends on the name and on its place.
pub(crate) fn content(name: &str, len: usize) -> Vec<u8> {
    let mut state = name.bytes().fold(0x9E37_79B9_u32, |state, byte| state.rotate_left(5) ^ u32::from(byte));
    let mut byte = || {
        state = state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| byte()).collect()
}
