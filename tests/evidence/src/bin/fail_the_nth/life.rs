//! The program whose system calls fail: it goes through the script and says on standard output what it has done.
//!
//! ```text
//! ack INDEX FILE HASH      step INDEX is done; FILE survives a power cut; a record has the SHA-256 HASH
//! ack INDEX - -            done, but nothing that a power cut could take is promised
//! failed INDEX WHY         it was told of a failure, and tries again, as the documentation says
//! corrupt INDEX WHY        it was given something else than was written
//! stuck INDEX WHY          trying again did not help
//! ```
//!
//! What counts as acknowledged: a change of the KMS and of a record when the library's call returned `Ok`; an object when
//! `finish` and then `sync_all` on the file and on its directory did, for the library itself syncs no object. A second
//! try that finds the change made, and makes none, promises nothing of power cuts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use strongroom::provider::{KeyOptions, LocalKms};
use strongroom::{Account, AccountSpec, AekCache, Error, ErrorKind, FileRecordStore, RotateTo, SealedObject};

use crate::script::{Place, STEPS, State, Step, Who, attach, content, context, kek, keys_of, version};

type Failure = Box<dyn std::error::Error>;

/// What a step has done: the file that promises it, and a record's hash.
#[derive(Default)]
struct Done {
    file: Option<PathBuf>,
    hash: Option<String>,
}

struct Life {
    place: Place,
    kms: Option<Arc<LocalKms>>,
    store: Option<Arc<FileRecordStore>>,
    cache: AekCache,
    accounts: BTreeMap<Who, Account>,
}

/// Lives the life in `place`.
pub(crate) fn live(place: Place) -> Result<(), Failure> {
    let cache = place.cache()?;
    let mut life = Life { place, kms: None, store: None, cache, accounts: BTreeMap::new() };
    for (index, step) in STEPS.into_iter().enumerate() {
        let done = life.insist(index, step)?;
        let file = done.file.map_or("-".to_owned(), |file| file.display().to_string());
        println!("ack {index} {file} {}", done.hash.as_deref().unwrap_or("-"));
    }
    Ok(())
}

impl Life {
    /// Does a step, and again when it fails: no more than one call fails in a life.
    fn insist(&mut self, index: usize, step: Step) -> Result<Done, Failure> {
        for attempt in 0..TRIES {
            match self.attempt(index, step, attempt > 0) {
                Ok(done) => return Ok(done),
                Err(why) => println!("failed {index} {step:?}: {why}"),
            }
        }
        println!("stuck {index} {step:?}");
        Err("stuck".into())
    }

    fn attempt(&mut self, index: usize, step: Step, again: bool) -> Result<Done, Failure> {
        match step {
            Step::Kms => {
                self.kms = Some(Arc::new(LocalKms::open_or_create(self.place.kms())?));
                Ok(Done { file: (!again).then(|| self.place.kms()), hash: None })
            }
            Step::Store => {
                self.store = Some(Arc::new(FileRecordStore::open(self.place.records())?));
                Ok(Done { file: Some(self.place.records()), hash: None })
            }
            Step::Key(_)
            | Step::RotateKey(_)
            | Step::SwitchVersion(..)
            | Step::SwitchKey(..)
            | Step::DeleteKey(..) => self.change_kms(index, step, again),
            Step::Account(who) => self.create(who, again),
            Step::Rewrap(who) => {
                if again {
                    self.restart()?;
                }
                self.accounts[&who].rotate_kek(RotateTo::Latest)?;
                Ok(self.record(who))
            }
            Step::Object(name, who, len) => self.write(name, who, len),
            Step::Read(name) => {
                let (who, len) = State::after(index).objects[name];
                self.read(index, name, who, len)
            }
            Step::Restart => self.restart(),
        }
    }

    /// After a failure the file is the old one or the new one: it is asked which, and nothing is done twice.
    fn change_kms(&self, index: usize, step: Step, again: bool) -> Result<Done, Failure> {
        let kms = self.kms();
        if again && keys_of(kms)? == State::after(index + 1).keys {
            return Ok(Done::default());
        }
        match step {
            Step::Key(name) => drop(kms.create_key(name, KeyOptions::default())?),
            Step::RotateKey(name) => drop(kms.rotate_key(name)?),
            Step::SwitchVersion(name, index, true) => kms.enable_version(name, &version(kms, index)?)?,
            Step::SwitchVersion(name, index, false) => kms.disable_version(name, &version(kms, index)?)?,
            Step::SwitchKey(name, true) => kms.enable_key(name)?,
            Step::SwitchKey(name, false) => kms.disable_key(name)?,
            Step::DeleteKey(name, true) => kms.delete_key(name)?,
            Step::DeleteKey(name, false) => kms.recover_key(name)?,
            _ => unreachable!("no change of the KMS"),
        }
        Ok(Done { file: Some(self.place.kms()), hash: None })
    }

    fn create(&mut self, who: Who, again: bool) -> Result<Done, Failure> {
        if again {
            self.restart()?;
        }
        if !self.accounts.contains_key(&who) {
            let kms = self.kms();
            let spec = AccountSpec::new(who.id(), kms.clone(), kek(kms, who)?).store(self.store().clone());
            let account = self.cache.create(spec)?;
            self.accounts.insert(who, account);
        }
        Ok(self.record(who))
    }

    fn record(&self, who: Who) -> Done {
        let hash = hash(&self.accounts[&who].record().to_bytes());
        Done { file: Some(self.place.record(who)), hash: Some(hash) }
    }

    fn write(&self, name: &str, who: Who, len: usize) -> Result<Done, Failure> {
        let path = self.place.object(name);
        let written = self.write_to(&path, name, who, len);
        if written.is_err() {
            // It counts as not written.
            let _ = fs::remove_file(&path);
        }
        written.map(|()| Done { file: Some(path), hash: None })
    }

    fn write_to(&self, path: &Path, name: &str, who: Who, len: usize) -> Result<(), Failure> {
        let account = self.accounts[&who].clone();
        let file = File::create(path)?;
        let mut writer = SealedObject::writer_with(account, context(name), file, self.place.options())?;
        for piece in content(name, len).chunks(PIECE) {
            writer.write_all(piece)?;
        }
        let (file, _) = writer.finish()?;
        file.sync_all()?;
        File::open(self.place.folder())?.sync_all()?;
        Ok(())
    }

    fn read(&self, index: usize, name: &str, who: Who, len: usize) -> Result<Done, Failure> {
        let file = File::open(self.place.object(name))?;
        let mut reader = SealedObject::reader(self.accounts[&who].clone(), context(name), file)?;
        let mut read = Vec::new();
        reader.read_to_end(&mut read)?;
        if read != content(name, len) {
            println!("corrupt {index} {name} holds something else");
        }
        Ok(Done::default())
    }

    /// Begins anew with the accounts that the store has, as a process does that is started again.
    fn restart(&mut self) -> Result<Done, Failure> {
        self.accounts.clear();
        self.cache = self.place.cache()?;
        for who in Who::ALL {
            match attach(&self.cache, self.store(), self.kms(), who, PATIENCE) {
                Ok(account) => drop(self.accounts.insert(who, account)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Done::default())
    }

    fn kms(&self) -> &Arc<LocalKms> {
        self.kms.as_ref().expect("the script opens it first")
    }

    fn store(&self) -> &Arc<FileRecordStore> {
        self.store.as_ref().expect("the script opens it before any account")
    }
}

/// The store has no record of the account.
pub(crate) fn is_absent(error: &Error) -> bool {
    error.kind() == ErrorKind::Untrusted
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One for the fault, one for what it left, and some for a machine that is too busy to answer in time.
const TRIES: usize = 5;
/// A wait that lasts longer has met the failing call, and its next one comes seconds later: a restart is faster.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Pieces that fit no block.
const PIECE: usize = 3000;
