//! No key is left in memory after a revocation: a process's whole memory is searched by another one (contract D3).
//!
//! The test starts itself again as the process that holds the keys. That one never writes a secret anywhere but
//! masked, and is stopped while its memory is searched. Every needle is found once where it has to be, before
//! its absence counts: the AEK while a provider holds it, the HMAC states under the lease, the DEK and
//! its AES round keys in the middle of an open, and the PRK, which lives for an instant only, where it was planted.
//! `-- --nocapture` shows how often each was found.
#![cfg(target_os = "linux")]
#![expect(
    clippy::disallowed_methods,
    reason = "the ban is for the library; this test waits for two processes"
)]

#[path = "residue/child.rs"]
mod child;
#[path = "evidence/report.rs"]
mod evidence;
#[path = "residue/needles.rs"]
mod needles;
#[path = "residue/search.rs"]
mod search;

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use strongroom::Engine;

use child::Form;
use evidence::report;
use needles::{Needle, Needles, from_hex, to_hex};

#[test]
fn d3_r12_no_key_is_left_in_memory_by_the_fastest_engine() {
    let test = "d3_r12_no_key_is_left_in_memory_by_the_fastest_engine";
    no_key_is_left(test, Engine::Fastest, Form::Blocking);
}

#[test]
fn d3_r12_no_key_is_left_in_memory_by_the_portable_engine() {
    let test = "d3_r12_no_key_is_left_in_memory_by_the_portable_engine";
    no_key_is_left(test, Engine::Portable, Form::Blocking);
}

#[cfg(feature = "tokio")]
#[test]
fn d3_r12_no_key_is_left_in_memory_by_an_asynchronous_provider() {
    let test = "d3_r12_no_key_is_left_in_memory_by_an_asynchronous_provider";
    no_key_is_left(test, Engine::Fastest, Form::Awaited);
}

fn no_key_is_left(test: &str, engine: Engine, form: Form) {
    if std::env::var_os(child::VARIABLE).is_some() {
        return child::live(engine, form);
    }
    let mut subject = Subject::start(test);

    let held = subject.hear("held");
    let aek = Needle::new("AEK", &child::masked(&from_hex(&held[0])));
    assert!(subject.hits(&aek) > 0, "the positive control: a provider holds the AEK right now");
    subject.say("go on");

    let sealed = subject.hear("sealed");
    let needles = Needles::derive(aek, &from_hex(&held[1]), &from_hex(&sealed[0]), &from_hex(&sealed[1]));
    for state in [&needles.inner, &needles.outer] {
        assert!(subject.hits(state) > 0, "the positive control: the lease lives by the {}", state.name);
    }
    subject.catch_in_the_act(&needles.schedule);
    subject.say("go on");

    subject.hear("idle");
    subject.say(&to_hex(&needles.prk.bytes));
    subject.hear("planted");
    assert!(subject.hits(&needles.prk) > 0, "the positive control: the PRK was planted");
    subject.say("go on");

    subject.hear("revoked");
    let mut left = Vec::new();
    let mut searched = 0;
    for needle in needles.all() {
        searched += 1;
        let places = subject.places(needle);
        println!("{engine:?}: {} found {} times after the revocation", needle.name, places.len());
        left.extend(places.into_iter().map(|place| format!("{} at {place}", needle.name)));
    }
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    report("R12", &format!("needles searched, {engine:?} {form:?} {build}"), searched, ">=", 5);
    report("R12", &format!("hits after revocation, {engine:?} {form:?} {build}"), left.len(), "=", 0);
    assert!(left.is_empty(), "left in memory: {left:#?}");
    subject.say("go on");
    assert!(subject.process.wait().expect("ends").success());
}

/// The process that holds the keys.
struct Subject {
    process: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Subject {
    fn start(test: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a test has a file"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(child::VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let to = process.stdin.take().expect("piped");
        let from = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, to, from }
    }

    /// What it says next, which has to be about `topic`.
    fn hear(&mut self, topic: &str) -> Vec<String> {
        let line = self.from.by_ref().map(|line| line.expect("text")).find(|line| line.starts_with('@'));
        let line = line.expect("the process lives");
        let mut words = line[1..].split(' ').map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some(topic), "{line}");
        words.collect()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").expect("it listens");
    }

    fn hits(&self, needle: &Needle) -> usize {
        let places = self.places(needle);
        println!("{} found {} times before: {places:?}", needle.name, places.len());
        places.len()
    }

    fn places(&self, needle: &Needle) -> Vec<String> {
        search::stopped(&self.process, || search::places(self.process.id(), &[needle]).remove(0))
    }

    /// Stops the process again and again while it opens one block, until the key schedule is seen.
    fn catch_in_the_act(&self, schedule: &[Needle]) {
        let needles: Vec<&Needle> = schedule.iter().collect();
        for _ in 0..ATTEMPTS {
            let found = search::stopped(&self.process, || search::places(self.process.id(), &needles));
            if found.iter().all(|places| !places.is_empty()) {
                println!("DEK and round keys found during an open: {:?}", found[0]);
                return;
            }
            thread::sleep(Duration::from_millis(3));
        }
        panic!("the positive control: in {ATTEMPTS} tries no open was caught with its DEK and round keys");
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // After a failed assertion it would wait for ever.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

const ATTEMPTS: usize = 50;
