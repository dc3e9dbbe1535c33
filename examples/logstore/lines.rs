//! Real log files: what this machine has written, line by line, with the time that each line says.

use std::process::Command;

/// When a line was written: its date and time as one number of 14 digits, 20261127121500, in the clock of whoever wrote it.
pub(crate) type Time = u64;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) time: Time,
    pub(crate) text: String,
}

/// A log, and where it is from.
pub(crate) struct Log {
    pub(crate) tenant: &'static str,
    pub(crate) source: String,
    pub(crate) lines: Vec<Line>,
}

/// Three logs, each of another tenant. One that this machine does not have is made up, and its source says so.
pub(crate) fn logs() -> [Log; 3] {
    let file = |name: &str| std::fs::read_to_string(name).ok().map(|text| (name.to_owned(), text));
    [
        log("ada", file("/var/log/dpkg.log")),
        log("bob", file("/var/log/alternatives.log").or_else(|| file("/var/log/bootstrap.log"))),
        log("eve", history()),
    ]
}

fn log(tenant: &'static str, found: Option<(String, String)>) -> Log {
    let (source, text) = found.unwrap_or_default();
    let mut lines: Vec<Line> = text.lines().filter_map(Line::parse).collect();
    // In the order of time; lines of one second stay in the order that they were in.
    lines.sort_by_key(|line| line.time);
    if lines.len() >= FEWEST {
        return Log { tenant, source, lines };
    }
    let made_up = (0..2000_u64).filter_map(|at| {
        let (day, minute, second) = (1 + at / 100, at % 100 / 60, at % 100 % 60);
        let time = format!("2026-11-{day:02} 09:{minute:02}:{second:02}");
        Line::parse(&format!("{time} {tenant} request {at} answered in {} ms", at * 7 % 90))
    });
    Log {
        tenant,
        source: "lines made up, because there is no such log here".to_owned(),
        lines: made_up.collect(),
    }
}

/// This repository's own history, which is a log as well.
fn history() -> Option<(String, String)> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git").args(["-C", folder, "log", "--format=%cI %h %s"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(("git log".to_owned(), text))
}

impl Line {
    /// `None` where no date and time stand in the line.
    fn parse(text: &str) -> Option<Self> {
        let time = text.as_bytes().windows(SHAPE.len()).find(|window| has_shape(window))?;
        let digits: String =
            time.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
        Some(Self { time: digits.parse().ok()?, text: text.to_owned() })
    }
}

fn has_shape(window: &[u8]) -> bool {
    window.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b' '),
        separator => byte == separator,
    })
}

const SHAPE: &[u8] = b"0000-00-00T00:00:00";
/// Fewer lines are no log to show anything with.
const FEWEST: usize = 20;
