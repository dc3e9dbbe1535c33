//! What is printed: what each does for a call, GB/s and shares of the bare cipher.

use std::fmt::Write;

use crate::contenders::Contender;
use crate::gocryptfs::{self, Speed};
use crate::measure::Figures;

pub(crate) fn what_a_call_does(contenders: &[Box<dyn Contender>]) -> String {
    let lines = contenders.iter().map(|contender| format!("{:<20} {}", contender.name(), contender.does()));
    format!("What each does for one block\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// Four tables: sealing and opening, GB/s and shares of the first contender.
pub(crate) fn tables(names: &[&str], figures: &[Figures]) -> String {
    let mut out = String::new();
    for (what, speeds) in [("encrypt", seal as Of), ("decrypt", open)] {
        rows(&mut out, &format!("{what}, GB/s"), names, figures, |at, figures| speeds(figures)[at]);
        rows(&mut out, &format!("{what}, share of raw"), names, figures, |at, figures| {
            speeds(figures)[at] / speeds(figures)[RAW]
        });
    }
    out
}

type Of = fn(&Figures) -> &[f64];

fn seal(figures: &Figures) -> &[f64] {
    &figures.seal
}

fn open(figures: &Figures) -> &[f64] {
    &figures.open
}

fn rows(
    out: &mut String,
    title: &str,
    names: &[&str],
    figures: &[Figures],
    cell: impl Fn(usize, &Figures) -> f64,
) {
    let heads: String = figures.iter().map(|figures| format!("{:>9}", size(figures.size))).collect();
    let mut lines = format!("{title:<24}{heads}\n");
    for (at, name) in names.iter().enumerate() {
        let cells: String = figures.iter().map(|figures| format!("{:>9.4}", cell(at, figures))).collect();
        lines += &format!("{name:<24}{cells}\n");
    }
    writeln!(out, "{lines}").expect("a string takes everything");
}

/// Whether the machine was quiet.
pub(crate) fn quiet(waited: Option<f64>) -> String {
    match waited {
        Some(percent) => {
            format!("waited for a processor: {percent:.1} % of the time; slow peers are disturbed most")
        }
        None => "waited for a processor: not known on this system".into(),
    }
}

pub(crate) fn gocryptfs(speeds: Option<&[Speed]>, figures: &[Figures]) -> String {
    let Some(speeds) = speeds else { return "gocryptfs: not installed".into() };
    let raw =
        figures.iter().find(|figures| figures.size == gocryptfs::BLOCK).map(|figures| figures.seal[RAW]);
    let raw = raw.expect("the size of its blocks is one of ours");
    let head = "gocryptfs -speed, that program's own figures: encrypt, 4 KiB, one fixed key and nonce";
    let mut out = format!("{head}, its buffer used again\n");
    for Speed { cipher, gb_per_s, selected } in speeds {
        let used = if *selected { "  selected in auto mode" } else { "" };
        out += &format!("{cipher:<28} {gb_per_s:>7.4} GB/s {:>7.4} of raw{used}\n", gb_per_s / raw);
    }
    out.trim_end().to_owned()
}

pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        0..0x400 => format!("{bytes} B"),
        0x400..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// The first contender.
const RAW: usize = 0;
