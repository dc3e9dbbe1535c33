//! No key is left in memory after a revocation: a process's whole memory is searched by another one (contract D3).
//!
//! The test starts itself again as the process that holds the keys. That one never writes a secret anywhere but
//! masked, and is stopped while its memory is searched. Every needle is found once where it has to be, before
//! its absence counts: each AEK while a provider holds it, the HMAC states under the lease, the DEK of each layer and
//! the AES round keys in the middle of an open, and what lives for an instant only, such as a PRK, where it was planted.
//! The account has two generations, and under double encryption two AEKs in each.
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

use strongroom::{Engine, Suite};

use child::Form;
use evidence::report;
use needles::{BlockKeys, Keys, Needle, from_hex, to_hex};

#[test]
fn d3_r12_no_key_is_left_in_memory_by_the_fastest_engine() {
    let test = "d3_r12_no_key_is_left_in_memory_by_the_fastest_engine";
    no_key_is_left(test, Engine::Fastest, Form::Blocking, Suite::Aes256Gcm);
}

#[test]
fn d3_r12_no_key_is_left_in_memory_by_the_portable_engine() {
    let test = "d3_r12_no_key_is_left_in_memory_by_the_portable_engine";
    no_key_is_left(test, Engine::Portable, Form::Blocking, Suite::Aes256Gcm);
}

#[test]
fn a6_d3_r12_no_key_of_double_encryption_is_left_in_memory_by_the_fastest_engine() {
    let test = "a6_d3_r12_no_key_of_double_encryption_is_left_in_memory_by_the_fastest_engine";
    no_key_is_left(test, Engine::Fastest, Form::Blocking, Suite::Double);
}

#[test]
fn a6_d3_r12_no_key_of_double_encryption_is_left_in_memory_by_the_portable_engine() {
    let test = "a6_d3_r12_no_key_of_double_encryption_is_left_in_memory_by_the_portable_engine";
    no_key_is_left(test, Engine::Portable, Form::Blocking, Suite::Double);
}

#[cfg(feature = "tokio")]
#[test]
fn d3_r12_no_key_is_left_in_memory_by_an_asynchronous_provider() {
    let test = "d3_r12_no_key_is_left_in_memory_by_an_asynchronous_provider";
    no_key_is_left(test, Engine::Fastest, Form::Awaited, Suite::Aes256Gcm);
}

fn no_key_is_left(test: &str, engine: Engine, form: Form, suite: Suite) {
    if std::env::var_os(child::VARIABLE).is_some() {
        return child::live(engine, form, suite);
    }
    let mut subject = Subject::start(test);
    let layers = if suite == Suite::Double { 2 } else { 1 };

    let mut keys: Vec<Keys> = (0..GENERATIONS * layers).map(|_| subject.hear_of_an_aek()).collect();
    keys.sort_by(|a, b| a.aek.name.cmp(&b.aek.name));

    let sealed = subject.hear("sealed");
    let of_the_first: Vec<&Keys> = keys.iter().take(layers).collect();
    let block = BlockKeys::derive(&of_the_first, &from_hex(&sealed[0]), &from_hex(&sealed[1]));
    for state in keys.iter().flat_map(|keys| &keys.states) {
        assert!(subject.comes_to_hold(state), "the positive control: the lease lives by the {}", state.name);
    }
    for needles in &block.layers {
        subject.catch_in_the_act(needles);
    }
    subject.say("go on");

    subject.hear("idle");
    let planted: Vec<&Needle> = keys.iter().map(|keys| &keys.prk).chain(&block.pad).collect();
    let line: Vec<String> = planted.iter().map(|needle| to_hex(&needle.bytes)).collect();
    subject.say(&line.join(" "));
    subject.hear("planted");
    for needle in planted {
        assert!(subject.hits(needle) > 0, "the positive control: the {} was planted", needle.name);
    }
    subject.say("go on");

    subject.hear("revoked");
    let mut left = Vec::new();
    let mut searched = 0;
    for needle in keys.iter().flat_map(Keys::all).chain(block.all()) {
        searched += 1;
        let places = subject.places(needle);
        println!("{engine:?}: {} found {} times after the revocation", needle.name, places.len());
        left.extend(places.into_iter().map(|place| format!("{} at {place}", needle.name)));
    }
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let of = if suite == Suite::Double { " double" } else { "" };
    report("R12", &format!("needles searched, {engine:?} {form:?}{of} {build}"), searched, ">=", 5);
    report("R12", &format!("hits after revocation, {engine:?} {form:?}{of} {build}"), left.len(), "=", 0);
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

    /// The next AEK that a provider holds, and what it leads to.
    fn hear_of_an_aek(&mut self) -> Keys {
        let held = self.hear("held");
        let (generation, layer) = (held[2].parse().expect("a number"), held[3].parse().expect("a number"));
        let aek = format!("AEK of generation {generation}, layer {layer}");
        let aek = Needle::new(&aek, &child::masked(&from_hex(&held[0])));
        assert!(self.hits(&aek) > 0, "the positive control: a provider holds the {} right now", aek.name);
        self.say("go on");
        Keys::derive(aek, &from_hex(&held[1]), generation, layer)
    }

    fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").expect("it listens");
    }

    fn hits(&self, needle: &Needle) -> usize {
        let places = self.places(needle);
        println!("{} found {} times before: {places:?}", needle.name, places.len());
        places.len()
    }

    /// The newest generation's keys are adopted by the next refresh.
    fn comes_to_hold(&self, needle: &Needle) -> bool {
        (0..ATTEMPTS).any(|_| {
            let found = !self.places(needle).is_empty();
            if !found {
                thread::sleep(Duration::from_millis(100));
            }
            found
        })
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
                println!("{} and its round keys found during an open: {:?}", needles[0].name, found[0]);
                return;
            }
            thread::sleep(Duration::from_millis(3));
        }
        panic!("the positive control: in {ATTEMPTS} tries no open was caught with the {}", needles[0].name);
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // After a failed assertion it would wait for ever.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A layer is a part of an open, and of two the second takes most.
const ATTEMPTS: usize = 200;
const GENERATIONS: usize = 2;
