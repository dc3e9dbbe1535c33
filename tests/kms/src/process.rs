//! A server of somebody else's as a child process: started on a free port of loopback, and never left behind.
//!
//! A shell of three lines stands between the test and the server. It waits for the end of a pipe that only the test holds,
//! and then ends its process group: so the server goes with the test, also when that is killed. Signals for this
//! would need `unsafe` code.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http;

/// A running server. Ended when dropped; its log is shown if a test fails meanwhile.
#[derive(Debug)]
pub struct Server {
    name: String,
    place: Place,
    command: Command,
    ready: Ready,
    guard: Option<Child>,
    folder: tempfile::TempDir,
}

/// Where a server is to run.
#[derive(Clone, Debug)]
pub struct Place {
    /// A port of 127.0.0.1 that was free a moment ago.
    pub port: u16,
    /// An empty folder that lives as long as the server: for its state.
    pub folder: PathBuf,
}

impl Place {
    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

/// How to see that a server is there.
#[derive(Clone, Debug)]
pub enum Ready {
    /// It accepts connections.
    Connect,
    /// It answers `GET` of this path with a status below 500.
    Http(&'static str),
}

impl Server {
    /// Starts the command that `command` makes for a place, and waits until the server is ready.
    ///
    /// # Panics
    /// With the end of the server's log, when it does not become ready.
    #[must_use]
    pub fn start(name: &str, ready: Ready, command: impl Fn(&Place) -> Command) -> Self {
        let mut failures = String::new();
        // Another process may take the port between our look and the server's.
        for _ in 0..ATTEMPTS {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let state = folder.path().join("state");
            fs::create_dir(&state).expect("a folder for the server");
            let place = Place { port: free_port(), folder: state };
            let command = command(&place);
            let mut server =
                Self { name: name.to_owned(), place, command, ready: ready.clone(), guard: None, folder };
            match server.run() {
                Ok(()) => return server,
                Err(why) => {
                    failures = format!("{why}\n{}", server.log_end());
                    server.stop();
                }
            }
        }
        panic!("{name} does not start: {failures}");
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.place.address()
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The folder of the server's state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// Ends the server at once, as a crash would. What it keeps in its folder stays.
    pub fn stop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            drop(guard.wait());
        }
    }

    /// Starts the server that was stopped again, at the same address, over the same folder.
    ///
    /// # Panics
    /// With the end of its log, when it does not become ready.
    pub fn start_again(&mut self) {
        self.stop();
        if let Err(why) = self.run() {
            panic!("{} does not start again: {why}\n{}", self.name, self.log_end());
        }
    }

    /// What the server has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn run(&mut self) -> Result<(), String> {
        let exit = self.folder.path().join("exit");
        drop(fs::remove_file(&exit));
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", GUARD, "guard"]).arg(&exit);
        guard.arg(self.command.get_program()).args(self.command.get_args());
        for (key, value) in self.command.get_envs() {
            match value {
                Some(value) => guard.env(key, value),
                None => guard.env_remove(key),
            };
        }
        guard.current_dir(self.command.get_current_dir().unwrap_or(&self.place.folder));
        guard.stdin(Stdio::piped()).stderr(log.try_clone().expect("a log file")).stdout(log);
        // A group of its own, so that ending the group ends nobody else.
        guard.process_group(0);
        self.guard = Some(guard.spawn().map_err(|error| error.to_string())?);

        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(status) = fs::read_to_string(&exit) {
                return Err(format!("it ended with status {}", status.trim()));
            }
            if self.is_ready() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(format!("it was not ready after {PATIENCE:?}"))
    }

    fn is_ready(&self) -> bool {
        match self.ready {
            Ready::Connect => TcpStream::connect_timeout(&self.address(), Duration::from_secs(1)).is_ok(),
            Ready::Http(path) => http::get(self.address(), path).is_ok_and(|answer| answer.status < 500),
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        format!("---- the end of the log of {}\n{end}\n----", self.name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("{}", self.log_end());
        }
    }
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("is bound").port()
}

/// `$1` is where the server's exit status goes, the rest is its command. `kill 0` is the whole group, this shell too.
const GUARD: &str = r#"exit=$1; shift
{ "$@"; echo $? >"$exit"; } </dev/null &
cat >/dev/null
kill -KILL 0"#;

const ATTEMPTS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);
const SHOWN_LINES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::wait_until;

    /// A server that everybody has.
    fn files() -> Server {
        Server::start("files", Ready::Http("/"), |place| {
            let mut command = Command::new("python3");
            command.args(["-m", "http.server", "--bind", "127.0.0.1", &place.port.to_string()]);
            command
        })
    }

    #[test]
    fn a_server_starts_stops_starts_again_and_ends_when_dropped() {
        let mut server = files();
        fs::write(server.folder().join("kept"), "1").unwrap();
        let address = server.address();
        let kept = || http::get(address, "/kept").map(|answer| answer.body);
        assert_eq!(kept().unwrap(), b"1");
        assert!(server.log().contains("GET /kept"));
        server.stop();
        kept().unwrap_err();
        server.start_again();
        assert_eq!(kept().unwrap(), b"1");
        drop(server);
        kept().unwrap_err();
    }

    #[test]
    fn a_server_ends_with_the_process_that_started_it() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        // What `Server` does, in a process that is then killed. The server is a grandchild in a group of its own.
        let script = r#"import subprocess, sys, time
subprocess.Popen(["/bin/sh", "-c", sys.argv[1], "guard", "/dev/null", "/bin/sh", "-c", "echo $$ >$0.new; mv $0.new $0; sleep 100; :", sys.argv[2]],
    stdin=subprocess.PIPE, process_group=0)
time.sleep(100)"#;
        let mut owner = Command::new("python3").args(["-c", script, GUARD]).arg(&pid).spawn().unwrap();
        wait_until(Duration::from_secs(20), || pid.exists()).expect("the server starts");
        let pid = fs::read_to_string(&pid).unwrap();
        let alive = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        assert!(alive());
        owner.kill().unwrap();
        owner.wait().unwrap();
        wait_until(Duration::from_secs(5), || !alive()).expect("the server ends");
    }

    #[test]
    #[should_panic(expected = "it ended with status 3")]
    fn a_server_that_ends_at_once_fails_the_test_with_its_log() {
        let _server = Server::start("nothing", Ready::Connect, |_| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "echo why; exit 3"]);
            command
        });
    }
}
