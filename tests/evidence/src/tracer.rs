//! A program run under `ptrace`: whoever watches sees each system call before and after it, and can have it fail.
//!
//! The program is not changed and does not know. What fails, fails in the kernel's own interface: an error in the
//! place of a result, fewer bytes taken than were given, a process that is gone. Linux on x86-64 only: elsewhere the
//! registers have other names.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// A system call that the program is about to make, or has made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The thread that makes it.
    pub thread: i32,
    /// Which call, as in `libc::SYS_write`.
    pub number: i64,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel does it.
    Pass,
    /// The kernel does not do it, and the program gets this error.
    Fail(i32),
    /// The kernel does it, and the program gets this error all the same.
    FailAfter(i32),
    /// The kernel is given this many bytes of those that the third argument counts.
    Shorten(u64),
    /// The same, and the program is killed before it hears of it.
    ShortenAndKill(u64),
    /// The program is killed before the call.
    Kill,
}

/// Who watches.
pub trait Watcher {
    /// The program is about to make this call.
    fn entered(&mut self, call: &Call) -> Verdict;
    /// The kernel has done the call, with this result, whatever the program is told.
    fn left(&mut self, call: &Call, result: i64);
}

/// How a watched program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

impl Call {
    /// Up to `len` bytes of the program's memory.
    ///
    /// # Errors
    /// When there is no such memory.
    pub fn memory(&self, address: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = File::open(format!("/proc/{}/mem", self.thread))?.read_at(&mut bytes, address)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// The path that begins at `address` in the program's memory.
    #[must_use]
    pub fn path(&self, address: u64) -> Option<PathBuf> {
        // A path may lie at the end of what is mapped.
        let bytes =
            self.memory(address, 4096).or_else(|_| self.memory(address, 4096 - (address % 4096) as usize));
        let bytes = bytes.ok()?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(PathBuf::from(String::from_utf8(bytes[..end].to_vec()).ok()?))
    }

    /// What the descriptor stands for, as the kernel names it.
    #[must_use]
    pub fn descriptor(&self, number: u64) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{}/fd/{number}", self.thread)).ok()
    }
}

/// Runs `command` to its end under the eyes of `watcher`, with all its threads.
///
/// # Errors
/// When it cannot be started or traced.
pub fn watch(mut command: Command, watcher: &mut impl Watcher) -> io::Result<End> {
    stop_at_start(&mut command);
    // Dropped without waiting: `next_stop` has collected it by then.
    let leader = command.spawn()?.id().cast_signed();
    let mut started = false;
    let mut end = None;
    let mut under_way: HashMap<i32, (Call, Verdict)> = HashMap::new();
    while let Some((thread, stop)) = next_stop()? {
        let mut signal = 0;
        match stop {
            Stop::Ended(how) => {
                under_way.remove(&thread);
                if thread == leader {
                    end = Some(how);
                }
                continue;
            }
            Stop::Signal(libc::SIGTRAP) if !started && thread == leader => {
                started = true;
                set_options(leader)?;
            }
            // A new thread begins with it.
            Stop::Signal(libc::SIGSTOP) | Stop::Event => {}
            Stop::Signal(other) => signal = other,
            Stop::Call => match under_way.remove(&thread) {
                None => {
                    let Ok(call) = call_of(thread) else { continue };
                    let verdict = watcher.entered(&call);
                    before(leader, &call, verdict);
                    under_way.insert(thread, (call, verdict));
                }
                Some((call, verdict)) => {
                    let Ok(result) = after(leader, &call, verdict) else { continue };
                    if !matches!(verdict, Verdict::Fail(_)) {
                        watcher.left(&call, result);
                    }
                }
            },
        }
        go_on(thread, signal);
    }
    end.ok_or_else(|| io::Error::other("the program's end was not seen"))
}

enum Stop {
    /// Before a system call, or after it.
    Call,
    /// A signal is about to be delivered.
    Signal(i32),
    Event,
    Ended(End),
}

/// Does to the call what its verdict says, while its thread waits before it.
fn before(leader: i32, call: &Call, verdict: Verdict) {
    let change = |change: &dyn Fn(&mut libc::user_regs_struct)| {
        // An error means that the thread is gone.
        if let Ok(mut registers) = registers(call.thread) {
            change(&mut registers);
            let _ = set_registers(call.thread, &registers);
        }
    };
    match verdict {
        Verdict::Pass | Verdict::FailAfter(_) => {}
        // No call has this number, so the kernel does nothing.
        Verdict::Fail(_) => change(&|registers| registers.orig_rax = u64::MAX),
        Verdict::Shorten(len) | Verdict::ShortenAndKill(len) => change(&|registers| registers.rdx = len),
        Verdict::Kill => kill(leader),
    }
}

/// The same after the call. Returns what the kernel answered.
fn after(leader: i32, call: &Call, verdict: Verdict) -> io::Result<i64> {
    let mut registers = registers(call.thread)?;
    let result = registers.rax.cast_signed();
    match verdict {
        Verdict::Fail(error) | Verdict::FailAfter(error) => {
            registers.rax = i64::from(-error).cast_unsigned();
            set_registers(call.thread, &registers)?;
        }
        Verdict::ShortenAndKill(_) => kill(leader),
        Verdict::Pass | Verdict::Shorten(_) | Verdict::Kill => {}
    }
    Ok(result)
}

fn call_of(thread: i32) -> io::Result<Call> {
    let registers = registers(thread)?;
    let libc::user_regs_struct { orig_rax, rdi, rsi, rdx, r10, r8, r9, .. } = registers;
    Ok(Call { thread, number: orig_rax.cast_signed(), args: [rdi, rsi, rdx, r10, r8, r9] })
}

/// Makes the program stop before its first instruction, traced by the thread that starts it.
#[allow(unsafe_code, reason = "between fork and exec, only a call that is safe there")]
fn stop_at_start(command: &mut Command) {
    // SAFETY: the closure makes one system call and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Waits for a program of this thread; others may watch programs of theirs at the same time.
#[allow(unsafe_code, reason = "the wrapper of this call has no __WNOTHREAD")]
fn next_stop() -> io::Result<Option<(i32, Stop)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    if thread == -1 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    let stop = if libc::WIFEXITED(status) {
        Stop::Ended(End::Exited(libc::WEXITSTATUS(status)))
    } else if libc::WIFSIGNALED(status) {
        Stop::Ended(End::Signalled(libc::WTERMSIG(status)))
    } else if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
        Stop::Call
    } else if status >> 16 != 0 {
        Stop::Event
    } else {
        Stop::Signal(libc::WSTOPSIG(status))
    };
    Ok(Some((thread, stop)))
}

#[allow(unsafe_code, reason = "ptrace has no safe wrapper")]
fn set_options(leader: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    // SAFETY: no memory is involved.
    done(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, leader, 0, options) })
}

#[allow(unsafe_code, reason = "ptrace has no safe wrapper")]
fn go_on(thread: i32, signal: i32) {
    // SAFETY: no memory is involved. It fails for a thread that is gone, which the next wait tells.
    unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, signal) };
}

#[allow(unsafe_code, reason = "ptrace has no safe wrapper")]
fn registers(thread: i32) -> io::Result<libc::user_regs_struct> {
    // SAFETY: a structure of integers, which the kernel fills.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure there.
    done(unsafe { libc::ptrace(libc::PTRACE_GETREGS, thread, 0, &raw mut registers) })?;
    Ok(registers)
}

#[allow(unsafe_code, reason = "ptrace has no safe wrapper")]
fn set_registers(thread: i32, registers: &libc::user_regs_struct) -> io::Result<()> {
    // SAFETY: the kernel reads one such structure there.
    done(unsafe { libc::ptrace(libc::PTRACE_SETREGS, thread, 0, std::ptr::from_ref(registers)) })
}

#[allow(unsafe_code, reason = "one call without memory")]
fn kill(leader: i32) {
    // SAFETY: no memory is involved; the process is a child of ours that nobody has waited for.
    unsafe { libc::kill(leader, libc::SIGKILL) };
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
