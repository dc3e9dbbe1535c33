//! Ours beside what others ship, on the same blocks and in one run: `cargo bench --manifest-path benches/peers/Cargo.toml`.
//!
//! It prints GB/s and the share of the bare cipher for each size, sealing and opening, says what each does for a call, and
//! draws the plot. The method is that of `benches/ratio.rs`: all take turns within a round, on one thread, and
//! medians are compared. All are built with the same profile, which matters: without optimisation across crates the pure
//! Rust ciphers of some are several times slower. Run it on a quiet machine; it prints how long it waited for a processor.
//! `tests/evidence/peers.sh` runs it and keeps table and plot.
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml -- --plot FILE.svg     where to (target/evidence/peers.svg)
//! STRONGROOM_EVIDENCE=quick cargo bench ...                                   a sixteenth of the rounds
//! ```
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]

mod contenders;
mod esdk;
mod gocryptfs;
mod measure;
mod plot;
mod table;
mod tink;

use std::path::PathBuf;

use contenders::{Age, Allocating, Contender, Orion, Ours, OursInBatch, Raw};
use measure::{SIZES, measure, waited};

fn main() {
    let mut contenders = contenders();
    println!("{}\n", table::what_a_call_does(&contenders));
    let figures: Vec<_> = SIZES.into_iter().map(|size| measure(&mut contenders, size)).collect();
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name()).collect();
    print!("{}", table::tables(&names, &figures));
    println!("{}\n", table::quiet(waited()));

    let gocryptfs = gocryptfs::speed();
    println!("{}", table::gocryptfs(gocryptfs.as_deref(), &figures));
    let file = plot_file();
    plot::draw(&names, &figures, gocryptfs.as_deref(), &file);
    println!("\nplot: {}", file.file_name().unwrap_or_default().display());
}

/// The first is what the others are compared with.
fn contenders() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(Raw::new()),
        Box::new(Ours::new()),
        Box::new(OursInBatch::new()),
        Box::new(Allocating::new(tink::Aead::new())),
        Box::new(Allocating::new(tink::Streaming::new())),
        Box::new(Allocating::new(tink::Envelope::new())),
        Box::new(Allocating::new(Orion::new())),
        Box::new(Allocating::new(Age::new())),
        Box::new(Allocating::new(esdk::Esdk::new())),
    ]
}

fn plot_file() -> PathBuf {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--plot").skip(1);
    match arguments.next() {
        Some(file) => PathBuf::from(file),
        None => repository().join("target/evidence/peers.svg"),
    }
}

/// The folder of the library that is measured.
fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
