//! The customer: another process, which has the KMS's file and nothing else.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use strongroom::provider::LocalKms;

/// Starts this program as the customer.
pub(crate) const FLAG: &str = "--as-the-customer";

/// The one KEK of this story.
pub(crate) const KEK: &str = "orders";

/// Has the customer do `what`. It is done when this returns.
pub(crate) fn does(what: &str, file: &Path) -> Result<(), Box<dyn Error>> {
    let status = Command::new(std::env::current_exe()?).arg(FLAG).arg(file).arg(what).status()?;
    if status.success() { Ok(()) } else { Err(format!("the customer could not {what} the KEK").into()) }
}

/// What the customer's process does.
pub(crate) fn act(file: &str, what: &str) -> Result<(), Box<dyn Error>> {
    let kms = LocalKms::open(file)?;
    match what {
        "disable" => kms.disable_key(KEK)?,
        "enable" => kms.enable_key(KEK)?,
        "rotate" => drop(kms.rotate_key(KEK)?),
        _ => return Err("unknown act".into()),
    }
    Ok(())
}
