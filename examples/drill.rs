//! A revocation drill: how an engine's own tests show that it does right when a customer takes their key away.
//!
//! The engine here is an append-only log in a file, with an index and a cache of plaintext in memory. `cargo run --example drill --features
//! testing`; with the word `real` after `--` in real time, which takes about a minute.

use std::collections::HashMap;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use strongroom::testing::{DrillEngine, RevocationDrill};
use strongroom::{Aad, Account, BlockId, Guarded, ObjectId};

type Failure = Box<dyn Error + Send + Sync>;

struct Log {
    account: Account,
    path: PathBuf,
    file: File,
    object: ObjectId,
    /// Where the newest value of each key lies.
    index: HashMap<String, Place>,
    /// Plaintext, each value under the lease that it was read or written in.
    cache: HashMap<String, Guarded<Vec<u8>>>,
}

#[derive(Clone, Copy)]
struct Place {
    at: u64,
    len: usize,
    number: u64,
}

impl Log {
    fn create(account: &Account, path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new().create_new(true).read(true).append(true).open(path)?;
        Ok(Self {
            account: account.clone(),
            path: path.to_owned(),
            file,
            object: ObjectId::random(),
            index: HashMap::new(),
            cache: HashMap::new(),
        })
    }
}

impl DrillEngine for Log {
    fn write(&mut self, key: &str, value: &[u8], stored: &mut dyn FnMut()) -> Result<(), Failure> {
        let fence = self.account.fence()?;
        let number = self.index.len() as u64;
        let sealed = self.account.seal(BlockId::new(self.object, number), Aad::new(key.as_bytes()), value)?;
        let at = self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(&sealed)?;
        self.file.sync_data()?;
        stored();
        fence.check()?; // immediately before the write is acknowledged
        self.index.insert(key.to_owned(), Place { at, len: sealed.len(), number });
        self.cache.insert(key.to_owned(), self.account.guard(value.to_vec())?);
        Ok(())
    }

    fn read(&mut self, key: &str) -> Result<Vec<u8>, Failure> {
        if let Some(Ok(value)) = self.cache.get(key).map(Guarded::get) {
            return Ok(value.clone());
        }
        let Place { at, len, number } = *self.index.get(key).ok_or("there is no such key")?;
        let mut sealed = vec![0; len];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut sealed)?;
        let value =
            self.account.open(BlockId::new(self.object, number), Aad::new(key.as_bytes()), &sealed)?;
        self.cache.insert(key.to_owned(), self.account.guard(value.clone())?);
        Ok(value)
    }

    fn at_rest(&mut self) -> Option<Vec<u8>> {
        std::fs::read(&self.path).ok()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log");
    let drill = match std::env::args().nth(1).as_deref() {
        Some("real") => RevocationDrill::in_real_time(),
        _ => RevocationDrill::on_virtual_time(),
    };
    let report = drill.run(|account| Log::create(account, &path))?;
    print!("{report}");
    if report.is_complete() { Ok(()) } else { Err("not all of the drill was run".into()) }
}
