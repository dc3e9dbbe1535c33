//! Every system call on files fails once, in every way that it can, in the life of a LocalKms, a record store, accounts and
//! sealed objects (goal R14).
//!
//! ```text
//! fail_the_nth                             lives once to count the calls, then once for each call and each fault
//! fail_the_nth FILE                        the same, for calls on files of this name only
//! fail_the_nth live FOLDER VARIANT         a life; see `life`
//! fail_the_nth verify FOLDER VARIANT ...   what a fresh process makes of it; see `verify`
//! ```
//!
//! The life is an ordinary process of optimised code that runs under `ptrace`, which sees also calls that pass by the C
//! library. A fault counts once it has struck: the call that was planned, at its number, in its way. Only calls on the
//! life's own folder are counted and failed, and the lines on standard output by which it acknowledges: killed before
//! one, it has done what nobody was told.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("calls are failed by writing the registers of x86-64 under Linux");

mod disk;
mod fault;
mod life;
mod script;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use strongroom_evidence::report::{count, report};
use strongroom_evidence::tracer::{End, watch};

use fault::{Fault, Injector, Seen};
use script::{Place, STEPS, Step, Who};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["live", folder, variant] => {
            if let Err(error) = life::live(Place::new(folder, variant)) {
                println!("stuck: {error}");
                return ExitCode::FAILURE;
            }
        }
        ["verify", folder, variant, acknowledged, first, second] => {
            let acknowledged = acknowledged.parse().expect("a number of steps");
            verify::verify(&Place::new(folder, variant), acknowledged, [first, second]);
        }
        [] => return conduct(None),
        [file] => return conduct(Some(Path::new(file))),
        _ => panic!("see the head of main.rs"),
    }
    ExitCode::SUCCESS
}

/// What was planned, and what came of it.
#[derive(Default)]
struct Tally {
    struck: BTreeMap<Fault, usize>,
    missed: usize,
    verified: usize,
    lost: usize,
    corrupt: usize,
    stuck: usize,
    power_cuts: usize,
}

fn conduct(only: Option<&Path>) -> ExitCode {
    let variants = ["small-blocks", "large-blocks"];
    let variants = &variants[..usize::try_from(count(1, 1, 2)).expect("small")];
    let mut tally = Tally::default();
    let (mut calls, mut planned) = (0, 0);
    for variant in variants {
        let census = census(variant);
        let plans: Vec<(usize, Fault)> = (0..census.len())
            .flat_map(|at| Fault::ALL.into_iter().map(move |fault| (at, fault)))
            .filter(|(at, fault)| fault.befalls(&census[*at]))
            .filter(|(at, _)| only.is_none_or(|file| census[*at].path == file))
            .collect();
        calls += census.len();
        planned += plans.len();
        strike_all(variant, &census, &plans, &mut tally);
    }
    tally.print(calls, planned, variants.len());
    if tally.bad() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Tally {
    fn bad(&self) -> usize {
        self.missed + self.lost + self.corrupt + self.stuck + self.power_cuts
    }

    fn print(&self, calls: usize, planned: usize, lives: usize) {
        let struck = |fault| self.struck.get(&fault).copied().unwrap_or_default();
        report("R14", "system calls on files in the lives", calls, ">=", 500 * lives);
        report("R14", "calls failed with EIO", struck(Fault::Eio), ">=", 400 * lives);
        report("R14", "calls failed with ENOSPC", struck(Fault::Enospc), ">=", 100 * lives);
        report("R14", "calls done and reported as failed", struck(Fault::DoneButEio), ">=", 200 * lives);
        report("R14", "short reads and writes", struck(Fault::Short), ">=", 80 * lives);
        report("R14", "torn writes", struck(Fault::Torn), ">=", 30 * lives);
        report("R14", "kills between two calls", struck(Fault::Kill), ">=", 500 * lives);
        let all = self.struck.values().sum::<usize>();
        report("R14", "planned faults that did not strike", planned - all, "=", 0);
        report("R14", "outcomes that a fresh process verified", self.verified, "=", planned);
        report("R14", "silent corruptions", self.corrupt, "=", 0);
        report("R14", "lost acknowledged writes", self.lost, "=", 0);
        report("R14", "acknowledged or renamed before it was flushed", self.power_cuts, "=", 0);
        report("R14", "lives and next writers that did not recover", self.stuck, "=", 0);
    }
}

/// A life without a fault: its calls, and that it goes well.
fn census(variant: &str) -> Vec<Seen> {
    let folder = new_folder();
    let mut injector = Injector::new(folder.path(), None);
    let end = live(folder.path(), variant, &mut injector);
    assert_eq!(end, End::Exited(0), "a life without a fault: {:?}", injector.said);
    assert_eq!(injector.said.len(), STEPS.len(), "one acknowledgement a step: {:?}", injector.said);
    assert_eq!(injector.power_cuts(), 0, "what is acknowledged is flushed");
    let mut tally = Tally::default();
    judge(&mut tally, variant, folder.path(), &injector);
    assert!(tally.lost + tally.corrupt + tally.stuck == 0, "a life without a fault");
    injector.census
}

/// Strikes each plan once, on as many threads as there are processors.
fn strike_all(variant: &str, census: &[Seen], plans: &[(usize, Fault)], tally: &mut Tally) {
    let next = AtomicUsize::new(0);
    let shared = Mutex::new(tally);
    let work = || {
        while let Some((at, fault)) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
            strike(variant, *at, *fault, &census[*at], &shared);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

/// One life, one fault. A call that was not the planned one is tried again: the order can differ where threads race.
fn strike(variant: &str, at: usize, fault: Fault, expected: &Seen, tally: &Mutex<&mut Tally>) {
    for _ in 0..3 {
        let folder = new_folder();
        let mut injector = Injector::new(folder.path(), Some((at, fault, expected.clone())));
        let end = live(folder.path(), variant, &mut injector);
        if !injector.struck {
            continue;
        }
        let expected_end = if fault.kills() { End::Signalled(libc::SIGKILL) } else { End::Exited(0) };
        let mut one = Tally::default();
        judge(&mut one, variant, folder.path(), &injector);
        one.stuck += usize::from(end != expected_end);
        if one.lost + one.corrupt + one.stuck + one.power_cuts > 0 {
            let said = injector.said.join("\n    ");
            println!("call {at} {expected:?}: {fault:?}, {end:?}\n    {said}");
        }
        let mut tally = tally.lock().expect("no thread panics with it");
        *tally.struck.entry(fault).or_default() += 1;
        tally.verified += one.verified;
        tally.lost += one.lost;
        tally.corrupt += one.corrupt;
        tally.stuck += one.stuck;
        tally.power_cuts += one.power_cuts;
        return;
    }
    println!("call {at} {expected:?}: {fault:?} did not strike");
    tally.lock().expect("no thread panics with it").missed += 1;
}

fn live(folder: &Path, variant: &str, injector: &mut Injector<'_>) -> End {
    let mut command = this_program();
    command.arg("live").arg(folder).arg(variant).stdout(Stdio::null()).stderr(Stdio::null());
    watch(command, injector).expect("ptrace is allowed")
}

/// Has a fresh process look at what is there, and counts what it finds.
fn judge(tally: &mut Tally, variant: &str, folder: &Path, injector: &Injector<'_>) {
    let (mut acknowledged, mut hashes) = (0, ["-"; 2]);
    for line in &injector.said {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["ack", step, _, hash] => {
                acknowledged = step.parse::<usize>().expect("a life counts its steps") + 1;
                if let Step::Account(who) | Step::Rewrap(who) = STEPS[acknowledged - 1] {
                    hashes[usize::from(who == Who::Pinned)] = hash;
                }
            }
            ["corrupt", ..] => tally.corrupt += 1,
            ["stuck", ..] => tally.stuck += 1,
            _ => {}
        }
    }
    tally.power_cuts += injector.power_cuts();
    let mut command = this_program();
    command.arg("verify").arg(folder).arg(variant).arg(acknowledged.to_string()).args(hashes);
    let output = command.output().expect("this program starts");
    let said = String::from_utf8_lossy(&output.stdout);
    for line in said.lines() {
        let found = match line.split(' ').next() {
            Some("verified") => &mut tally.verified,
            Some("lost") => &mut tally.lost,
            Some("corrupt") => &mut tally.corrupt,
            _ => &mut tally.stuck,
        };
        *found += 1;
    }
    let all = said.lines().filter(|line| !line.starts_with("verified")).collect::<Vec<_>>();
    if !all.is_empty() || !output.status.success() || !said.contains("verified") {
        println!("{}: {}", all.join("\n"), String::from_utf8_lossy(&output.stderr));
        tally.stuck += usize::from(all.is_empty());
    }
}

fn this_program() -> Command {
    Command::new(std::env::current_exe().expect("Linux tells"))
}

/// In memory where there is such a place: what is flushed is watched, and not waited for.
fn new_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let within = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(within).expect("a writable temporary folder")
}
