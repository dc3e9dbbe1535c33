//! What a fresh process finds after a life that met a fault: everything acknowledged, nothing else than was written.
//!
//! It knows the script and how many steps were acknowledged. Of the next step nobody was told how it ended, so what it
//! changes may be as before or as after. It prints a line `lost`, `corrupt` or `stuck` for everything that is not as it has
//! to be, and `verified N` at the end.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{KeyOptions, LocalKms};
use strongroom::{
    Account, AccountRecord, AekCache, FileRecordStore, Loaded, RecordStore, RotateTo, SealedObject,
};

use crate::life::hash;
use crate::script::{KEK, Place, State, Who, attach, content, context, keys_of};

/// Verifies what lies in `place` after `acknowledged` steps. `hashes` are those of the accounts' last acknowledged records.
pub(crate) fn verify(place: &Place, acknowledged: usize, hashes: [&str; 2]) {
    let (before, after) = (State::after(acknowledged), State::after(acknowledged + 1));
    let mut verifier = Verifier { place, before, after, checks: 0 };
    let Some(kms) = verifier.kms() else { return verifier.end() };
    let Some(store) = verifier.store(hashes) else { return verifier.end() };
    let Ok(cache) = place.cache() else { return println!("stuck no cache") };
    // Twice: the second time after others have written, over whatever was left lying about.
    verifier.data(&cache, &store, &kms);
    drop(cache);
    verifier.next_writer(&store, &kms);
    let Ok(cache) = place.cache() else { return println!("stuck no cache") };
    verifier.data(&cache, &store, &kms);
    verifier.end();
}

struct Verifier<'a> {
    place: &'a Place,
    before: State,
    after: State,
    checks: usize,
}

impl Verifier<'_> {
    fn end(&self) {
        println!("verified {}", self.checks);
    }

    /// The KMS, with its keys as they have to be; then enabled, so that the rest can be looked at.
    fn kms(&mut self) -> Option<Arc<LocalKms>> {
        self.checks += 1;
        let kms = match LocalKms::open(self.place.kms()) {
            Ok(kms) => kms,
            Err(error) => {
                if self.before.kms {
                    println!("lost the KMS: {error}");
                } else if let Err(error) = LocalKms::open_or_create(self.place.kms()) {
                    println!("stuck no KMS can be made: {error}");
                }
                return None;
            }
        };
        let found = match keys_of(&kms) {
            Ok(found) => found,
            Err(error) => {
                println!("corrupt the KMS: {error}");
                return None;
            }
        };
        if found != self.before.keys && found != self.after.keys {
            println!(
                "lost the keys are {found:?}, and should be {:?} or {:?}",
                self.before.keys, self.after.keys
            );
        }
        if found.contains_key(KEK) {
            wants("the KEK is enabled", kms.enable_key(KEK));
        }
        Some(Arc::new(kms))
    }

    /// The store, with the records as they have to be.
    fn store(&mut self, hashes: [&str; 2]) -> Option<Arc<FileRecordStore>> {
        if self.before.store && !self.place.records().is_dir() {
            println!("lost the record store");
        }
        let store = wants("the store is opened", FileRecordStore::open(self.place.records()))?;
        for (who, hashed) in Who::ALL.into_iter().zip(hashes) {
            self.checks += 1;
            let bytes = match store.load(who.id(), None) {
                Ok(Loaded::Found { bytes, .. }) => bytes,
                Ok(_) => {
                    if self.before.accounts.contains_key(&who) {
                        println!("lost the record of {who:?}");
                    }
                    continue;
                }
                Err(error) => {
                    println!("corrupt the record of {who:?}: {error}");
                    continue;
                }
            };
            let uncertain = self.before.accounts.get(&who) != self.after.accounts.get(&who);
            match AccountRecord::parse(&bytes) {
                Err(error) => println!("corrupt the record of {who:?}: {error}"),
                Ok(_) if hash(&bytes) != hashed && !uncertain => {
                    println!("lost the record of {who:?} is not the one that was acknowledged");
                }
                Ok(_) => {}
            }
        }
        Some(Arc::new(store))
    }

    /// Every account opens, and every object with what was written to it.
    fn data(&mut self, cache: &AekCache, store: &Arc<FileRecordStore>, kms: &Arc<LocalKms>) {
        for who in Who::ALL {
            if !self.place.record(who).exists() {
                continue;
            }
            self.checks += 1;
            let account = match attach(cache, store, kms, who, PATIENCE) {
                Ok(account) => account,
                Err(error) => {
                    println!("lost the account {who:?}: {error}");
                    continue;
                }
            };
            for (name, (owner, len)) in self.after.objects.clone() {
                if owner == who {
                    self.object(&account, name, len);
                }
            }
        }
    }

    fn object(&mut self, account: &Account, name: &str, len: usize) {
        self.checks += 1;
        let read = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
            let file = File::open(self.place.object(name))?;
            let mut reader = SealedObject::reader(account.clone(), context(name), file)?;
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) if bytes == content(name, len) => {}
            Ok(bytes) => println!("corrupt {name} holds {} other bytes", bytes.len()),
            Err(error) if self.before.objects.contains_key(name) => println!("lost {name}: {error}"),
            // Nobody was told that it is written, and nobody is told that it can be read.
            Err(_) => {}
        }
    }

    /// Whoever changes things next is not disturbed.
    fn next_writer(&mut self, store: &Arc<FileRecordStore>, kms: &Arc<LocalKms>) {
        self.checks += 1;
        if !keys_of(kms).is_ok_and(|keys| keys.contains_key(KEK)) {
            wants("a KEK is made", kms.create_key(KEK, KeyOptions::default()));
        }
        wants("the KEK is rotated", kms.rotate_key(KEK));
        let Some(cache) = wants("a cache is built", self.place.cache()) else { return };
        for who in Who::ALL {
            if self.place.record(who).exists() {
                let account = wants("the account is attached", attach(&cache, store, kms, who, PATIENCE));
                let Some(account) = account else { continue };
                wants("the AEK is wrapped again", account.rotate_kek(RotateTo::Latest));
                write(&account);
            }
        }
    }
}

fn write(account: &Account) {
    let written = || -> Result<(), Box<dyn std::error::Error>> {
        let mut writer = SealedObject::writer(account.clone(), context("next"), Vec::new())?;
        writer.write_all(&content("next", 100))?;
        writer.finish()?;
        Ok(())
    };
    wants("an object is written", written());
}

/// Prints what does not succeed though nothing fails any more.
fn wants<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| println!("stuck {what}: {error}")).ok()
}

/// Nothing fails any more, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
