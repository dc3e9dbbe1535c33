//! Searching another process's memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::needles::Needle;

/// Runs `look` while `process` stands still.
pub(crate) fn stopped<T>(process: &Child, look: impl FnOnce() -> T) -> T {
    let pid = Pid::from_child(process);
    kill_process(pid, Signal::STOP).expect("our own child");
    let stat = format!("/proc/{}/stat", process.id());
    // The state comes after the name, which stands in brackets.
    while !fs::read_to_string(&stat).expect("it lives").rsplit(')').next().unwrap_or("").starts_with(" T") {
        thread::sleep(Duration::from_millis(1));
    }
    let seen = look();
    kill_process(pid, Signal::CONT).expect("our own child");
    seen
}

/// Where in the memory that process `pid` can write to each needle lies.
pub(crate) fn places(pid: u32, needles: &[&Needle]) -> Vec<Vec<String>> {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("a child's memory can be read");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a child's maps can be read");
    let mut starts = [false; 256];
    needles.iter().for_each(|needle| starts[usize::from(needle.bytes[0])] = true);

    let mut found = vec![Vec::new(); needles.len()];
    for map in maps.lines().filter(|map| map.contains(" rw")) {
        let (from, to) = map.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let bytes = read(&memory, address(from), address(to));
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| starts[usize::from(**byte)]) {
            for (places, needle) in found.iter_mut().zip(needles) {
                if bytes[at..].starts_with(&needle.bytes) {
                    let name = map.split_whitespace().nth(5).unwrap_or("unnamed");
                    let from_end = bytes.len() - at;
                    places.push(format!("{name} {from}+{at:#x}, {from_end:#x} below its end"));
                }
            }
        }
    }
    found
}

/// Memory that cannot be read, such as a device's, is left out.
fn read(memory: &File, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(to - from).expect("fits our own memory")];
    let mut read = 0;
    while read < bytes.len() {
        match memory.read_at(&mut bytes[read..], from + read as u64) {
            Ok(more) if more > 0 => read += more,
            _ => break,
        }
    }
    bytes.truncate(read);
    bytes
}
