//! A child that is a copy of this process.

use rustix::process::{Pid, WaitOptions, waitpid};

/// Runs `work` in a forked child, which then ends without unwinding, flushing or running destructors.
#[allow(unsafe_code, reason = "there is no other way to fork; this file is nothing else")]
pub fn forked(work: impl FnOnce()) -> Child {
    // SAFETY: `fork` itself has no conditions. What the child may do afterwards has: where other threads held a lock of the C
    // library when it was made. glibc makes its heap usable again, and `work` uses nothing else of that kind.
    match unsafe { libc::fork() } {
        0 => {
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
            // SAFETY: it never returns, and runs nothing of this program.
            unsafe { libc::_exit(i32::from(!good)) }
        }
        pid => Child(Pid::from_raw(pid).expect("the system can fork")),
    }
}

/// A forked child.
#[derive(Debug)]
#[must_use = "a child that nobody waits for stays"]
pub struct Child(Pid);

impl Child {
    /// Waits for its end.
    ///
    /// # Panics
    /// When its work did.
    pub fn wait(self) {
        let ended = waitpid(Some(self.0), WaitOptions::empty()).expect("it is a child of ours");
        let good = ended.is_some_and(|(_, status)| status.exit_status() == Some(0));
        assert!(good, "a forked child failed");
    }
}
