//! DataFusion over sealed stores: three tenants' tables in one lake, one of them revoked in the middle of its query.
//!
//! ```text
//! cargo run --manifest-path tests/engines/Cargo.toml --example datafusion
//! ```
//! Starts an S3 (moto) and an Azure Blob Storage (Azurite) and tells the story over each, in real time: half a minute for both. Ends
//! with status 0 only if every step held.

#[path = "../../../examples/quickstart/show.rs"]
mod show;

use std::error::Error;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use object_store_0_13::ObjectStore;
use show::{Show, secs};
use strongroom_engines_tests::story;
use strongroom_stores_tests::v0_13::{azurite_store, s3_store};
use strongroom_stores_tests::{AZURITE_URL, azurite, s3};

#[tokio::main]
async fn main() -> ExitCode {
    // `object_store` takes the address of an Azurite from the environment, which only another process can be given.
    let child = std::env::args().nth(1).as_deref() == Some(OVER_AZURITE);
    match if child { tell(azurite_store()).await } else { both().await } {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("datafusion: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn both() -> Result<bool, Box<dyn Error>> {
    let begun = Instant::now();
    let (server, _) = s3();
    println!("over an S3, started in {}", secs(begun.elapsed()));
    let over_s3 = tell(s3_store(&server.url())).await?;
    let begun = Instant::now();
    let server = azurite();
    println!("over an Azure Blob Storage, started in {}", secs(begun.elapsed()));
    let child =
        Command::new(std::env::current_exe()?).arg(OVER_AZURITE).env(AZURITE_URL, server.url()).status()?;
    Ok(over_s3 && child.success())
}

async fn tell(inner: Arc<dyn ObjectStore>) -> Result<bool, Box<dyn Error>> {
    let mut show = Show::begin();
    story::tell(inner, &mut |held, text| show.step(held, text)).await?;
    Ok(show.end())
}

const OVER_AZURITE: &str = "--over-azurite";
