//! The administrator of a token, as a process of its own: `softhsm-admin MODULE COMMAND LABEL ID [...]`.
//!
//! ```text
//! create LABEL ID encrypt|wrap|both          create-pair LABEL ID          create-until LABEL ID YYYY MM DD
//! allow|forbid LABEL ID encrypt|wrap|both    destroy LABEL ID FILE         restore LABEL ID encrypt|wrap|both FILE
//! ```
//! `ID` is one byte, as a decimal number. The tokens are those of `SOFTHSM2_CONF`.

use std::path::Path;
use std::process::ExitCode;

use strongroom_kms_tests::softhsm::{Administrator, Use};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{arguments:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let [module, command, label, id, rest @ ..] = arguments else { return Err("see the source".into()) };
    let id = [id.parse::<u8>()?];
    let administrator = Administrator::log_in(Path::new(module))?;
    match (*command, rest) {
        ("create", [usage]) => administrator.create(label, &id, of(usage)?)?,
        ("create-pair", []) => administrator.create_pair(label, &id)?,
        ("create-until", [year, month, day]) => administrator.create_until(label, &id, [year, month, day])?,
        ("allow", [usage]) => administrator.allow(label, &id, of(usage)?, true)?,
        ("forbid", [usage]) => administrator.allow(label, &id, of(usage)?, false)?,
        ("destroy", [file]) => administrator.destroy(label, &id, Path::new(file))?,
        ("restore", [usage, file]) => administrator.restore(label, &id, of(usage)?, Path::new(file))?,
        _ => return Err("see the source".into()),
    }
    Ok(())
}

fn of(usage: &str) -> Result<Use, String> {
    match usage {
        "encrypt" => Ok(Use::Encrypt),
        "wrap" => Ok(Use::Wrap),
        "both" => Ok(Use::Both),
        other => Err(format!("no such use: {other}")),
    }
}
