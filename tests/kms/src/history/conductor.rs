//! Makes a wave of history: starts readers, does to them, to the network and to the keys what it may, and writes all of it down.
//!
//! ```text
//! each key       taken away for longer than J + c, given back, taken away for longer than F + G, given back
//! calm           nothing happens to it
//! elsewhere      a time namespace: its machine booted long before this one
//! paused         SIGSTOP for up to 5 s, again and again
//! asleep         SIGSTOP for longer than J + c, later for longer than F + G
//! stepped        its wall clock is stepped back and forth
//! hang, refuse, delay, garble, garble-body, cut, answer-503
//!                its proxy falls silent in this way: for longer than F + G, later for a while
//! ```
//! Every reader has all accounts. The last accounts' keys are never taken away.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use strongroom::AccountId;

use super::reader::Orders;
use super::{Change, History, Process, What, now};
use crate::canned::answer;
use crate::openbao::OpenBao;
use crate::proxy::{Mode, Proxy};

/// Keys of a wave, and how many of them are taken away.
pub const KEYS: usize = 10;
/// Of these, from the first on.
pub const TAKEN: usize = 8;
/// How often each of these is taken away. A third time in ten minutes would make the library ask less often.
pub const LOSSES: usize = 2;
/// Proxies that fall silent, twice each.
pub const CUT_OFF: usize = 7;

/// A reader, and what happens to it.
struct Reader {
    name: &'static str,
    fate: Fate,
    proxy: Proxy,
    child: Child,
    input: Mutex<Option<ChildStdin>>,
}

#[derive(Clone, Debug)]
enum Fate {
    Calm,
    Elsewhere,
    Paused,
    Asleep,
    Stepped,
    CutOff(Mode),
}

/// Makes one wave; its logs are in `folder`. `number` tells its keys from those of other waves.
///
/// # Panics
/// When anything fails that is not part of the plan, a reader among it.
pub fn wave(bao: &OpenBao, number: usize, folder: &Path) {
    let keys: Vec<(String, String)> =
        (0..KEYS).map(|key| make_key(bao, &format!("wave-{number}-{key}"))).collect();
    let fates = fates();
    let mut readers: Vec<Reader> =
        fates.into_iter().map(|(name, fate)| Reader::start(bao, folder, name, fate, &keys)).collect();
    readers.iter_mut().for_each(Reader::wait_ready);

    let over = AtomicBool::new(false);
    let history = thread::scope(|scope| {
        let over = &over;
        let acts: Vec<_> = readers.iter().map(|reader| scope.spawn(move || reader.suffer(over))).collect();
        let customers: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(at, (key, _))| scope.spawn(move || customer(bao, at, key)))
            .collect();
        let keys: Vec<_> = customers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        // Who is cut off has a plan of its own, which is as long; the others go on until all keys are back, or somebody has failed.
        over.store(true, Ordering::SeqCst);
        let processes = readers.iter().zip(acts).map(|(reader, act)| Process {
            name: reader.name.to_owned(),
            changes: outcome(act.join()),
            reads: Vec::new(),
        });
        History { processes: processes.collect(), keys: keys.into_iter().map(outcome).collect() }
    });
    readers.into_iter().for_each(Reader::end);
    history.write_truth(folder).expect("the truth is written");
}

fn outcome<T>(ended: thread::Result<T>) -> T {
    ended.unwrap_or_else(|why| std::panic::resume_unwind(why))
}

/// A key, and a token with a policy for it alone; all are called alike.
fn make_key(bao: &OpenBao, name: &str) -> (String, String) {
    bao.create_key(name);
    bao.allow(name, name);
    (name.to_owned(), bao.token_for(name, &json!({})))
}

fn fates() -> Vec<(&'static str, Fate)> {
    let unavailable = answer(503, &[], br#"{"errors":["not now"]}"#);
    let silences: [(&str, Mode); CUT_OFF] = [
        ("hang", Mode::Hang),
        ("refuse", Mode::Refuse),
        ("delay", Mode::Delay(Duration::from_secs(5))),
        ("garble", Mode::Garble),
        ("garble-body", Mode::GarbleBody),
        ("cut", Mode::Cut(40)),
        ("answer-503", Mode::Answer(unavailable)),
    ];
    let others = [
        ("calm", Fate::Calm),
        ("elsewhere", Fate::Elsewhere),
        ("paused", Fate::Paused),
        ("asleep", Fate::Asleep),
        ("stepped", Fate::Stepped),
    ];
    others.into_iter().chain(silences.map(|(name, mode)| (name, Fate::CutOff(mode)))).collect()
}

/// What the customer does to a key: half of them delete and restore it, half change the policy.
fn customer(bao: &OpenBao, at: usize, key: &str) -> Vec<Change> {
    let mut truth = Vec::new();
    if at >= TAKEN {
        return truth;
    }
    for away in [PAST_STALENESS, PAST_USE] {
        thread::sleep(random(SPREAD));
        truth.push(note(What::Revoked, || {
            if at.is_multiple_of(2) { bao.soft_delete_key(key) } else { bao.deny(key) }
        }));
        thread::sleep(away + random(SECOND));
        truth.push(note(What::Restored, || {
            if at.is_multiple_of(2) { bao.restore_key(key) } else { bao.allow(key, key) }
        }));
        thread::sleep(RECOVERY);
    }
    truth
}

impl Reader {
    fn start(
        bao: &OpenBao,
        folder: &Path,
        name: &'static str,
        fate: Fate,
        keys: &[(String, String)],
    ) -> Self {
        let proxy = Proxy::before(bao.address());
        let ahead = if matches!(fate, Fate::Elsewhere) { AHEAD } else { Duration::ZERO };
        let orders = Orders { name: name.to_owned(), url: proxy.url(), ahead, keys: keys.to_vec() };
        let orders = orders.write(folder).expect("orders");
        let program = std::env::current_exe().expect("this program");
        let mut command = match fate {
            Fate::Elsewhere => in_time_namespace(&program),
            _ => Command::new(program),
        };
        command.arg("reader").arg(orders).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a reader");
        let input = Mutex::new(child.stdin.take());
        Self { name, fate, proxy, child, input }
    }

    fn wait_ready(&mut self) {
        let mut line = String::new();
        let output = self.child.stdout.take().expect("is piped");
        BufReader::new(output).read_line(&mut line).expect("its output");
        assert_eq!(line, "ready\n", "{} does not begin", self.name);
    }

    fn suffer(&self, over: &AtomicBool) -> Vec<Change> {
        let mut truth = Vec::new();
        let wait = |time| wait(time, over);
        match &self.fate {
            Fate::Calm | Fate::Elsewhere => {}
            Fate::Paused => {
                while wait(SECOND + random(SECOND * 5)) {
                    self.stop_for(random(SECOND * 5), &mut truth);
                }
            }
            Fate::Asleep => {
                wait(random(SPREAD));
                self.stop_for(PAST_STALENESS, &mut truth);
                wait(RECOVERY);
                self.stop_for(PAST_USE, &mut truth);
            }
            Fate::Stepped => {
                while wait(SECOND + random(SECOND * 6)) {
                    let millis = STEPS[usize::from(AccountId::random().as_bytes()[0]) % STEPS.len()];
                    truth.push(note(What::Stepped, || self.tell(&format!("{millis}\n"))));
                }
            }
            Fate::CutOff(mode) => {
                for away in [PAST_USE, random(PAST_STALENESS)] {
                    thread::sleep(random(SPREAD));
                    truth.push(note(What::Silent, || self.proxy.set(mode.clone())));
                    thread::sleep(away);
                    truth.push(note(What::Speaking, || self.proxy.set(Mode::Pass)));
                    thread::sleep(RECOVERY);
                }
            }
        }
        truth
    }

    fn stop_for(&self, time: Duration, truth: &mut Vec<Change>) {
        let signal = |signal| kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        truth.push(note(What::Stopped, || signal(Signal::STOP)));
        thread::sleep(time);
        truth.push(note(What::Continued, || signal(Signal::CONT)));
    }

    fn tell(&self, line: &str) {
        let mut input = self.input.lock().expect("nobody panicked");
        input.as_mut().expect("is piped").write_all(line.as_bytes()).expect("it listens");
    }

    /// Lets it write its logs to the end.
    fn end(mut self) {
        drop(self.input.lock().expect("nobody panicked").take());
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{}: {status}", self.name);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Only where something else failed: it has ended otherwise.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The command in a namespace where the machine booted `AHEAD` earlier; as root or as a user who is root within.
fn in_time_namespace(program: &Path) -> Command {
    let ahead = AHEAD.as_secs().to_string();
    let with = |program: &Path, user: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(user).args(["--time", "--boottime", &ahead, "--monotonic", &ahead]).arg(program);
        command
    };
    let works =
        |user: &[&str]| with(Path::new("true"), user).output().is_ok_and(|output| output.status.success());
    let user: &[&str] = if works(&[]) { &[] } else { &["--user", "--map-root-user"] };
    with(program, user)
}

fn note(what: What, act: impl FnOnce()) -> Change {
    let begun = now(Duration::ZERO);
    act();
    Change { what, begun, done: now(Duration::ZERO) }
}

/// False when it is over meanwhile.
fn wait(time: Duration, over: &AtomicBool) -> bool {
    let until = now(Duration::ZERO) + super::nanos(time);
    while now(Duration::ZERO) < until && !over.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(10));
    }
    !over.load(Ordering::SeqCst)
}

/// Somewhere below `most`.
fn random(most: Duration) -> Duration {
    let [high, low, ..] = *AccountId::random().as_bytes();
    most * u32::from(u16::from_be_bytes([high, low])) / (1 << 16)
}

const SECOND: Duration = Duration::from_secs(1);
/// More than an interval: so everything falls at any time of it.
const SPREAD: Duration = Duration::from_secs(7);
/// More than J + c.
const PAST_STALENESS: Duration = Duration::from_secs(11);
/// More than F + G, and long enough that some of it is over when a reader that slept for as long wakes.
const PAST_USE: Duration = Duration::from_secs(22);
/// More than r + 1 s, so that who is late is seen to be.
const RECOVERY: Duration = Duration::from_secs(10);
const AHEAD: Duration = Duration::from_secs(40 * 86_400);
/// Of the wall clock, in milliseconds: less and more than a lease.
const STEPS: [i64; 8] = [5_000, -5_000, 20_000, -20_000, 3_600_000, -3_600_000, -86_400_000, 86_400_000];
