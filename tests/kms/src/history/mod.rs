//! A history in real time: many readers log every read with its times, a writer of truth logs every change of access,
//! and a checker, afterwards and from the logs alone, holds the published bounds to each release.
//!
//! ```text
//! customer ── revokes, restores ──► OpenBao ◄── proxies that fall silent ◄── readers ──► a log for each thread
//! conductor: what it did, when it asked and when it was done ──► truth.txt ──► checker ──► figures
//! ```
//! Readers are processes of their own. Some are stopped and continued, some run in a time namespace, of some the wall
//! clock is stepped. All times are the machine's boot-time clock in nanoseconds.

pub mod checker;
#[cfg(feature = "vault")]
pub mod conductor;
#[cfg(feature = "vault")]
pub mod reader;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// One wave of the history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What was done to each account's key.
    pub keys: Vec<Vec<Change>>,
    /// The readers.
    pub processes: Vec<Process>,
}

/// A reader.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// For example `hang`.
    pub name: String,
    /// What was done to it and to its way to the server.
    pub changes: Vec<Change>,
    /// Every read of each account, in the order of `begin`.
    pub reads: Vec<Vec<Read>>,
}

/// Something that the conductor did: asked for at `begun`, in effect at `done` at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub what: What,
    /// Before it was asked for.
    pub begun: u64,
    /// After it was acknowledged.
    pub done: u64,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The customer took the key or the right to it away.
    Revoked,
    /// And gave it back.
    Restored,
    /// The proxy fell silent.
    Silent,
    /// And lets calls through.
    Speaking,
    /// The reader got SIGSTOP.
    Stopped,
    /// And SIGCONT.
    Continued,
    /// The reader's wall clock was stepped.
    Stepped,
}

/// One read: a call of `open`. The library's final check was somewhere between its begin and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Before the call.
    pub begin: u64,
    /// After it.
    pub end: u64,
    /// What it gave.
    pub outcome: Outcome,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The plaintext.
    Released,
    /// `ErrorKind::Revoked`.
    Revoked,
    /// `ErrorKind::Unavailable`.
    Unavailable,
    /// `ErrorKind::NotReady`.
    NotReady,
}

impl What {
    const ALL: [Self; 7] = [
        Self::Revoked,
        Self::Restored,
        Self::Silent,
        Self::Speaking,
        Self::Stopped,
        Self::Continued,
        Self::Stepped,
    ];
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Released, Self::Revoked, Self::Unavailable, Self::NotReady];
}

/// The boot-time clock of the machine, in a namespace where it is `ahead`.
#[must_use]
pub fn now(ahead: Duration) -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    nanos(Duration::try_from(time).unwrap_or_default().saturating_sub(ahead))
}

/// A duration in nanoseconds.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a thread of a reader writes its reads.
#[derive(Debug)]
pub struct Log {
    file: BufWriter<File>,
}

impl Log {
    /// A new one.
    ///
    /// # Errors
    /// Of the file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(1 << 16, File::create_new(path)?) })
    }

    /// Adds a read of an account, by its place among the accounts.
    ///
    /// # Errors
    /// Of the file.
    pub fn add(&mut self, account: u8, read: Read) -> io::Result<()> {
        let mut row = [0; ROW];
        row[..8].copy_from_slice(&read.begin.to_le_bytes());
        row[8..16].copy_from_slice(&read.end.to_le_bytes());
        row[16..].copy_from_slice(&[account, read.outcome as u8]);
        self.file.write_all(&row)
    }

    /// Ends it. A log that was not ended is not whole.
    ///
    /// # Errors
    /// Of the file.
    pub fn end(mut self) -> io::Result<()> {
        self.file.write_all(&[u8::MAX; ROW])?;
        self.file.flush()
    }
}

impl History {
    /// Writes down what was done.
    ///
    /// # Errors
    /// Of the file.
    pub fn write_truth(&self, folder: &Path) -> io::Result<()> {
        let mut text = String::new();
        let keys = self.keys.iter().enumerate().map(|(at, changes)| (format!("key {at}"), changes));
        let processes =
            self.processes.iter().map(|process| (format!("process {}", process.name), &process.changes));
        for (of, changes) in keys.chain(processes) {
            text += &format!("{of}\n");
            for Change { what, begun, done } in changes {
                text += &format!("{} {begun} {done}\n", *what as u8);
            }
        }
        fs::write(folder.join(TRUTH), text)
    }

    /// Reads the logs of a folder: of truth, and of every thread of every reader.
    ///
    /// # Errors
    /// When one is missing, or not whole.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut history = Self::default();
        let mut of_key = false;
        for line in fs::read_to_string(folder.join(TRUTH))?.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["key", _] => {
                    of_key = true;
                    history.keys.push(Vec::new());
                }
                ["process", name] => {
                    of_key = false;
                    history.processes.push(Process { name: name.to_owned(), ..Process::default() });
                }
                [what, begun, done] => {
                    let number = |text: &str| text.parse::<u64>().map_err(|_| invalid(line));
                    let what = What::ALL.iter().find(|known| (**known as u8).to_string() == what);
                    let what = *what.ok_or_else(|| invalid(line))?;
                    let changes = match of_key {
                        true => history.keys.last_mut(),
                        false => history.processes.last_mut().map(|process| &mut process.changes),
                    };
                    let change = Change { what, begun: number(begun)?, done: number(done)? };
                    changes.ok_or_else(|| invalid(line))?.push(change);
                }
                _ => return Err(invalid(line)),
            }
        }
        let accounts = history.keys.len();
        for process in &mut history.processes {
            process.load(folder, accounts)?;
        }
        Ok(history)
    }
}

impl Process {
    /// All of its threads' logs, told by their names: `NAME.THREAD.log`.
    fn load(&mut self, folder: &Path, accounts: usize) -> io::Result<()> {
        self.reads = vec![Vec::new(); accounts];
        for thread in 0..THREADS {
            let bytes = fs::read(log_file(folder, &self.name, thread))?;
            let (rows, rest) = bytes.as_chunks::<ROW>();
            let whole = rest.is_empty() && rows.last() == Some(&[u8::MAX; ROW]);
            for row in &rows[..rows.len().saturating_sub(1)] {
                let number =
                    |at: usize| row[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
                let [account, outcome] = [row[16], row[17]].map(usize::from);
                let reads = self.reads.get_mut(account).ok_or_else(|| invalid("an account"))?;
                let outcome = *Outcome::ALL.get(outcome).ok_or_else(|| invalid("an outcome"))?;
                reads.push(Read { begin: number(0), end: number(8), outcome });
            }
            if !whole {
                return Err(invalid(&self.name));
            }
        }
        for reads in &mut self.reads {
            reads.sort_by_key(|read| read.begin);
        }
        Ok(())
    }
}

fn log_file(folder: &Path, process: &str, thread: usize) -> std::path::PathBuf {
    folder.join(format!("{process}.{thread}.log"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a log that is not whole or not ours: {what}"))
}

/// r and c. The interval is the shortest that is allowed.
pub const REFRESH: Duration = Duration::from_secs(6);
/// c.
pub const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// G: short, so that many outages outlast it.
pub const GRACE: Duration = Duration::from_secs(4);
/// Threads of a reader.
const THREADS: usize = 2;
/// Begin, end, account, outcome.
const ROW: usize = 18;
const TRUTH: &str = "truth.txt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let change = |what, begun| Change { what, begun, done: begun + 1 };
        let mut written = History {
            keys: vec![vec![change(What::Revoked, 5), change(What::Restored, 9)], Vec::new()],
            processes: vec![Process {
                name: "calm".to_owned(),
                changes: vec![change(What::Stepped, 7)],
                reads: vec![Vec::new(), Vec::new()],
            }],
        };
        written.write_truth(folder.path()).unwrap();
        for thread in 0..THREADS {
            let mut log = Log::create(&log_file(folder.path(), "calm", thread)).unwrap();
            for (at, outcome) in (0..).zip(Outcome::ALL) {
                let begin = at * 10 + thread as u64;
                let read = Read { begin, end: begin + 3, outcome };
                log.add(1, read).unwrap();
                written.processes[0].reads[1].push(read);
            }
            log.end().unwrap();
        }
        written.processes[0].reads[1].sort_by_key(|read| read.begin);
        let read = History::load(folder.path()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{written:?}"));

        let log = log_file(folder.path(), "calm", 0);
        let bytes = fs::read(&log).unwrap();
        fs::write(&log, &bytes[..bytes.len() - ROW]).unwrap();
        History::load(folder.path()).expect_err("its reader was killed");
    }
}
