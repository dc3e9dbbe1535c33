//! A Python with the package `cryptography`, for programs that share nothing with this crate. Whatever is missing
//! fails the tests that need it.
#![allow(unreachable_pub, reason = "who includes this is a library or a test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The interpreter that `STRONGROOM_PYTHON` names, or that of an environment under target/. Made if it is not there; what
/// somebody else made is used as it is.
pub static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let python = std::env::var_os("STRONGROOM_PYTHON").map_or_else(|| ours.clone(), PathBuf::from);
    let usable = || Command::new(&python).args(["-c", "import cryptography"]).output();
    if (python == ours || !python.exists()) && !usable().is_ok_and(|output| output.status.success()) {
        let environment = python.ancestors().nth(2).expect("ENVIRONMENT/bin/python");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "cryptography"]));
    }
    python
});

/// Runs a command that has to succeed; returns its output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}\n{errors}");
    text
}
