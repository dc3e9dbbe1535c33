//! `gocryptfs -speed`, where it is installed: another program's own figures, made by it and not by our rounds.

use std::process::Command;

/// One line of what it printed.
pub(crate) struct Speed {
    pub(crate) cipher: String,
    pub(crate) gb_per_s: f64,
    /// Whether it is what gocryptfs uses for its kind of cipher on this machine.
    pub(crate) selected: bool,
}

/// The size of its blocks.
pub(crate) const BLOCK: usize = 4096;

/// Nothing where it is not installed.
pub(crate) fn speed() -> Option<Vec<Speed>> {
    let output = Command::new("gocryptfs").arg("-speed").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let speeds: Vec<Speed> = text.lines().filter_map(parse).collect();
    assert!(output.status.success() && !speeds.is_empty(), "gocryptfs -speed printed no figures: {text}");
    Some(speeds)
}

/// `AES-GCM-256-OpenSSL             1005.97 MB/s    (selected in auto mode)`
fn parse(line: &str) -> Option<Speed> {
    let (left, right) = line.split_once(" MB/s")?;
    let mut words = left.split_whitespace();
    let cipher = words.next()?.to_owned();
    let mb_per_s: f64 = words.next()?.parse().ok()?;
    Some(Speed { cipher, gb_per_s: mb_per_s / 1e3, selected: right.contains("selected") })
}
