//! A log store for several tenants, each under a key of its own, which one of them takes away and gives back.
//!
//! ```text
//! cargo run --release --features object-store --example logstore
//! cargo run --manifest-path tests/stores/Cargo.toml --example logstore
//! ```
//! The first keeps its segments on the local disk; the second, the same text, on an S3 and on an Azure Blob Storage that it starts.
//! Takes about 15 s for each, because it waits for real refreshes at the shortest interval, 6 s. Everything happens in a temporary
//! folder; log files are only read. Ends with status 0 only if every step held.
#![expect(clippy::disallowed_methods, reason = "the ban is for the library; this program measures")]

mod lines;
mod log_store;
#[path = "../quickstart/show.rs"]
mod show;
mod story;

use std::process::ExitCode;
use std::sync::Arc;

use object_store::local::LocalFileSystem;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = async {
        let folder = tempfile::tempdir()?;
        story::tell(Arc::new(LocalFileSystem::new_with_prefix(folder.path())?)).await
    };
    match outcome.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("logstore: {error}");
            ExitCode::FAILURE
        }
    }
}
