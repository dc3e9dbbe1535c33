//! Waiting for something to hold, and how long that took.

use std::thread;
use std::time::{Duration, Instant};

/// Polls every millisecond until `done`, and tells how long that took; `None` when `limit` passed first.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        let elapsed = begun.elapsed();
        if done() {
            return (elapsed <= limit).then_some(elapsed);
        }
        if elapsed > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
