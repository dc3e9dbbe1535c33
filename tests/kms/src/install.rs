//! The servers on this machine: installed by `install.sh` when they are not there yet. What cannot be installed fails the test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of a server, by the name that `install.sh` has for it: `bin/` in it holds its programs.
///
/// Below `target/servers` of the repository, or below `STRONGROOM_SERVERS`.
///
/// # Panics
/// With the script's words, when the server cannot be installed.
#[must_use]
pub fn installed(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("install.sh");
    // Always asked: it knows whether what is there is of the version that is wanted, and ends at once if so.
    let output = Command::new(&script).arg(name).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} cannot be installed:\n{text}{errors}");
    PathBuf::from(text.trim_end().rsplit('\n').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "there is no server called nothing")]
    fn a_server_that_cannot_be_installed_fails_the_test() {
        let _folder = installed("nothing");
    }
}
