//! From a customer's KMS to sealed blocks and back, in real time: what the customer does, what the data then does.
//!
//! ```text
//! cargo run --release --example quickstart [FILE]
//! ```
//! Takes 30 to 45 s, because it waits for real refreshes at the shortest interval, 6 s. Everything happens in a
//! temporary folder; FILE is only read. Ends with status 0 only if every step held.
#![expect(clippy::disallowed_methods, reason = "the ban is for the library; this program measures and waits")]

mod customer;
mod memory;
mod provider;
mod show;
mod story;

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // The customer, and whoever works out what to search memory for, are processes of their own.
    let outcome: Result<bool, Box<dyn Error>> = match args[..] {
        [customer::FLAG, file, what] => customer::act(file, what).map(|()| true),
        [memory::FLAG] => memory::answer_with_needles().map(|()| true),
        [] => story::tell(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")),
        [file] => story::tell(file),
        _ => Err("usage: quickstart [FILE]".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}
