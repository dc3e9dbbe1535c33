//! The example of a log store (examples/logstore), over real servers that this starts: an S3 of moto's, an Azure Blob Storage of
//! Azurite's.
//!
//! ```text
//! cargo run --manifest-path tests/stores/Cargo.toml --example logstore
//! ```
//! Ends with status 0 only if every step held over both.

#[path = "../../../examples/logstore/lines.rs"]
mod lines;
#[path = "../../../examples/logstore/log_store.rs"]
mod log_store;
#[path = "../../../examples/quickstart/show.rs"]
mod show;
#[path = "../../../examples/logstore/story.rs"]
mod story;

use std::error::Error;
use std::process::{Command, ExitCode};

use strongroom_stores_tests::{AZURITE_URL, azurite, azurite_store, s3};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // `object_store` takes the address of an Azurite from the environment, which only another process can be given.
    let child = std::env::args().nth(1).as_deref() == Some(OVER_AZURITE);
    match if child { story::tell(azurite_store()).await } else { both().await } {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("logstore: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn both() -> Result<bool, Box<dyn Error>> {
    println!("over an S3");
    let (_server, store) = s3();
    let over_s3 = story::tell(store).await?;
    println!("over an Azure Blob Storage");
    let server = azurite();
    let child =
        Command::new(std::env::current_exe()?).arg(OVER_AZURITE).env(AZURITE_URL, server.url()).status()?;
    Ok(over_s3 && child.success())
}

const OVER_AZURITE: &str = "--over-azurite";
