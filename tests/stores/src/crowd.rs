//! Many processes that share an account and are killed at random: how they are started, and what they leave in a folder of theirs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use strongroom::{Aad, Account, BlockId, Generation, ObjectId, peek};

/// A process of the test program that runs one test of it, and its end: SIGKILL when it is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Runs `test`, which does nothing unless it finds `variables` in its environment.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(test: &str, variables: &[(&str, &OsStr)]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a path"));
        child.args(["--exact", test, "--nocapture"]).stdout(Stdio::null());
        child.envs(variables.iter().copied());
        Self(child.spawn().expect("starts"))
    }

    /// Whether it has not ended.
    ///
    /// # Panics
    /// When the system cannot tell.
    #[must_use]
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().expect("is a child").is_none()
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// When it has not ended well by `until`.
    pub fn wait(&mut self, until: Instant) {
        loop {
            if let Some(status) = self.0.try_wait().expect("is a child") {
                assert!(status.success(), "a process has failed");
                return;
            }
            assert!(Instant::now() < until, "a process is wedged");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What each process noted in `folder`, in a file called `*.log`.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn logs(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let logs = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.map(|path| fs::read_to_string(path).expect("a log")).collect()
}

/// Blocks in files of a folder, each under the name of its object.
#[derive(Clone, Debug)]
pub struct Blocks(PathBuf);

impl Blocks {
    const PLAIN: &[u8] = b"sealed before, under whatever version and generation";

    /// Below `folder`.
    ///
    /// # Panics
    /// When the folder cannot be made.
    #[must_use]
    pub fn below(folder: &Path) -> Self {
        let blocks = folder.join("blocks");
        fs::create_dir_all(&blocks).expect("a folder");
        Self(blocks)
    }

    /// Seals one more: it is there whole or not at all. Its name.
    ///
    /// # Panics
    /// When that fails.
    pub fn seal(&self, account: &Account) -> String {
        let object = ObjectId::random();
        let frame = account.seal(BlockId::new(object, 0), Aad::EMPTY, Self::PLAIN).expect("is sealed");
        let name = object.to_string();
        let temporary = self.0.with_file_name(&name);
        fs::write(&temporary, frame).expect("is written");
        fs::rename(temporary, self.0.join(&name)).expect("is renamed");
        name
    }

    /// The generation of a block, which has to open.
    ///
    /// # Panics
    /// When it does not.
    pub fn open(&self, account: &Account, name: &str) -> Generation {
        let frame = fs::read(self.0.join(name)).expect("is there");
        let id = BlockId::new(name.parse().expect("an object"), 0);
        assert_eq!(account.open(id, Aad::EMPTY, &frame).expect("opens"), Self::PLAIN);
        peek(&frame).expect("a block").generation()
    }

    /// Opens all that there are. How many.
    ///
    /// # Panics
    /// When one does not open.
    pub fn open_all(&self, account: &Account) -> usize {
        let entries = fs::read_dir(&self.0).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
        names.fold(0, |opened, name| {
            self.open(account, &name);
            opened + 1
        })
    }
}
