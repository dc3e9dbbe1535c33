//! Which system calls there are to fail, and in which ways: the census of one life, and the watcher that has one call fail.

use std::path::{Path, PathBuf};

use strongroom_evidence::tracer::{Call, Verdict, Watcher};

use crate::disk::{Change, Disk};

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Not done: an input/output error.
    Eio,
    /// Not done: no space is left.
    Enospc,
    /// Done, and reported as an input/output error.
    DoneButEio,
    /// The kernel takes, or gives, half of the bytes.
    Short,
    /// The kernel takes half of the bytes, and the program is killed.
    Torn,
    /// The program is killed before the call: after the one before it.
    Kill,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Eio, Self::Enospc, Self::DoneButEio, Self::Short, Self::Torn, Self::Kill];

    pub(crate) const fn kills(self) -> bool {
        matches!(self, Self::Torn | Self::Kill)
    }

    /// Whether such a thing can befall the call, in a way that makes a difference.
    pub(crate) fn befalls(self, seen: &Seen) -> bool {
        let Seen { number, result, kind, .. } = seen;
        // An error that comes anyway, as for a file that is not there, is not one of ours.
        let succeeded = *result >= 0;
        match self {
            Self::Kill => true,
            _ if *kind == Kind::Acknowledgement => false,
            // Linux closes a descriptor also when it reports an error.
            Self::DoneButEio => succeeded && (*kind == Kind::Change || *number == libc::SYS_close),
            Self::Eio => *number != libc::SYS_close,
            Self::Enospc => *kind == Kind::Change,
            Self::Short => moves_bytes(*number) && *result >= 2,
            Self::Torn => takes_bytes(*number) && *result >= 2,
        }
    }

    fn verdict(self, seen: &Seen) -> Verdict {
        let half = seen.result.unsigned_abs() / 2;
        match self {
            Self::Eio => Verdict::Fail(libc::EIO),
            Self::Enospc => Verdict::Fail(libc::ENOSPC),
            Self::DoneButEio => Verdict::FailAfter(libc::EIO),
            Self::Short => Verdict::Shorten(half),
            Self::Torn => Verdict::ShortenAndKill(half),
            Self::Kill => Verdict::Kill,
        }
    }
}

/// A call of the census.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    number: i64,
    /// Below the life's folder.
    pub(crate) path: PathBuf,
    kind: Kind,
    result: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of the file system, and nothing is changed.
    Question,
    Change,
    /// A line on standard output.
    Acknowledgement,
}

/// Sees the calls of a life that concern its folder, and what it says; has one call fail.
pub(crate) struct Injector<'a> {
    folder: &'a Path,
    plan: Option<(usize, Fault, Seen)>,
    pub(crate) census: Vec<Seen>,
    /// Lines that the life has written.
    pub(crate) said: Vec<String>,
    pub(crate) struck: bool,
    disk: Disk,
    /// Acknowledged, and lost with the next power cut.
    pub(crate) unflushed: usize,
    /// Between a call's beginning and its end; one at a time, since the life waits for each of its steps.
    under_way: Option<(i32, usize, Option<Change>)>,
}

impl<'a> Injector<'a> {
    /// `plan`: at which call, what befalls it, and what it has to be.
    pub(crate) fn new(folder: &'a Path, plan: Option<(usize, Fault, Seen)>) -> Self {
        Self {
            folder,
            plan,
            census: Vec::new(),
            said: Vec::new(),
            struck: false,
            disk: Disk::default(),
            unflushed: 0,
            under_way: None,
        }
    }

    /// How many times bytes were in danger of a power cut, though they had been promised or had taken others' place.
    pub(crate) fn power_cuts(&self) -> usize {
        self.unflushed + self.disk.renamed_too_early
    }

    fn say(&mut self, line: String) {
        if let ["ack", _, file, _] = line.split_whitespace().collect::<Vec<_>>()[..] {
            self.unflushed += usize::from(file != "-" && !self.disk.keeps(Path::new(file)));
        }
        self.said.push(line);
    }
}

impl Watcher for Injector<'_> {
    fn entered(&mut self, call: &Call) -> Verdict {
        let Some((kind, path, change)) = subject(call, self.folder) else { return Verdict::Pass };
        let path = without_chance(path.strip_prefix(self.folder).unwrap_or(&path));
        let at = self.census.len();
        self.census.push(Seen { number: call.number, path, kind, result: 0 });
        self.under_way = Some((call.thread, at, change));
        match &self.plan {
            Some((planned, fault, expected)) if *planned == at => {
                let (seen, fault) = (&self.census[at], *fault);
                if (seen.number, &seen.path, seen.kind) != (expected.number, &expected.path, expected.kind) {
                    return Verdict::Pass;
                }
                self.struck = true;
                fault.verdict(expected)
            }
            _ => Verdict::Pass,
        }
    }

    fn left(&mut self, call: &Call, result: i64) {
        let Some((_, at, change)) = self.under_way.take_if(|(thread, ..)| *thread == call.thread) else {
            return;
        };
        self.census[at].result = result;
        if self.census[at].kind == Kind::Acknowledgement {
            let line = call.memory(call.args[1], call.args[2] as usize).unwrap_or_default();
            self.say(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if let Some(change) = change.filter(|_| result >= 0) {
            self.disk.took(change);
        }
    }
}

/// What is kept of a record has 32 random digits in its name, which are others in the next life.
fn without_chance(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    match text.split_once("-").filter(|(kept, _)| kept.starts_with("records/history/")) {
        Some((kept, random)) => {
            PathBuf::from(format!("{kept}-{}", random.trim_start_matches(|c: char| c.is_ascii_hexdigit())))
        }
        None => path.to_owned(),
    }
}

/// What a call is about, if it is about the folder or is something said.
fn subject(call: &Call, folder: &Path) -> Option<(Kind, PathBuf, Option<Change>)> {
    let [first, second, third, fourth, ..] = call.args;
    if call.number == libc::SYS_write && first == 1 {
        return Some((Kind::Acknowledgement, PathBuf::new(), None));
    }
    let path_at = |address| call.path(address);
    let path = match call.number {
        libc::SYS_openat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_mkdirat
        | libc::SYS_unlinkat
        | libc::SYS_readlinkat
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_linkat => path_at(second).filter(|path| !path.as_os_str().is_empty()),
        libc::SYS_open
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_mkdir
        | libc::SYS_unlink
        | libc::SYS_rmdir
        | libc::SYS_readlink
        | libc::SYS_access
        | libc::SYS_rename
        | libc::SYS_link
        | libc::SYS_truncate
        | libc::SYS_chmod => path_at(first),
        _ => None,
    };
    let path = match call.number {
        _ if path.is_some() => path?,
        libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_fstat
        | libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_readv
        | libc::SYS_preadv
        | libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_writev
        | libc::SYS_pwritev
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_ftruncate
        | libc::SYS_fallocate
        | libc::SYS_flock
        | libc::SYS_fchmod
        | libc::SYS_lseek
        | libc::SYS_getdents64
        | libc::SYS_close => call.descriptor(first)?,
        _ => return None,
    };
    if !path.starts_with(folder) {
        return None;
    }
    let created = |flags: u64| {
        let flags = flags as i32;
        flags & libc::O_CREAT != 0 && !path.exists()
    };
    let change = match call.number {
        libc::SYS_openat if created(third) => Some(Change::Made(path.clone())),
        libc::SYS_open if created(second) => Some(Change::Made(path.clone())),
        libc::SYS_mkdir | libc::SYS_mkdirat => Some(Change::Made(path.clone())),
        libc::SYS_unlink | libc::SYS_unlinkat | libc::SYS_rmdir => Some(Change::Removed(path.clone())),
        libc::SYS_rename => Some(Change::Renamed(path.clone(), path_at(second)?)),
        libc::SYS_renameat | libc::SYS_renameat2 => Some(Change::Renamed(path.clone(), path_at(fourth)?)),
        libc::SYS_fsync | libc::SYS_fdatasync => Some(Change::Flushed(path.clone())),
        number if takes_bytes(number) || number == libc::SYS_ftruncate => Some(Change::Wrote(path.clone())),
        _ => None,
    };
    let kind = if change.is_some() { Kind::Change } else { Kind::Question };
    Some((kind, path, change))
}

const fn takes_bytes(number: i64) -> bool {
    matches!(number, libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev)
}

/// The third argument counts its bytes.
const fn moves_bytes(number: i64) -> bool {
    matches!(number, libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_read | libc::SYS_pread64)
}
