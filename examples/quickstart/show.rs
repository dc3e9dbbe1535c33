//! One line a step, and the sum at the end.

use std::time::{Duration, Instant};

pub(crate) struct Show {
    begun: Instant,
    held: u32,
    failed: u32,
    skipped: u32,
}

impl Show {
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), held: 0, failed: 0, skipped: 0 }
    }

    /// A step, and whether it went as the library promises.
    pub(crate) fn step(&mut self, held: bool, text: &str) {
        let mark = if held { "ok  " } else { "FAIL" };
        if held {
            self.held += 1
        } else {
            self.failed += 1
        }
        println!("{:5.1} s  {mark}  {text}", self.begun.elapsed().as_secs_f64());
    }

    /// A step that this platform cannot run. It counts as not run, not as passed.
    #[cfg_attr(target_os = "linux", expect(dead_code, reason = "Linux runs every step"))]
    pub(crate) fn skip(&mut self, text: &str) {
        self.skipped += 1;
        println!("{:5.1} s  --    {text}", self.begun.elapsed().as_secs_f64());
    }

    /// True when every step that was run held.
    pub(crate) fn end(&self) -> bool {
        let Self { begun, held, failed, skipped } = self;
        println!(
            "{held} steps held, {failed} failed, {skipped} not run, in {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        *failed == 0
    }
}

/// `12.3 s`.
pub(crate) fn secs(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
