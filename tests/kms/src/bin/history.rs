//! A history of readers against a real OpenBao, and what its checker finds.
//!
//! ```text
//! history [WAVES]             makes so many waves of a minute each, one unless told, and prints the figures
//! history check FOLDER...     finds the same in logs that were kept
//! history reader FILE         is a reader: for the conductor
//! ```
//! It ends with status 1 when a figure misses its goal. The logs of the last wave in which a bound was broken are kept in
//! `target/evidence/broken-history`.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use strongroom_kms_tests::history::checker::{Bounds, Findings, SLACK, check};
use strongroom_kms_tests::history::conductor::{CUT_OFF, KEYS, LOSSES, TAKEN, wave};
use strongroom_kms_tests::history::{History, reader};
use strongroom_kms_tests::openbao::OpenBao;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let bounds = Bounds::default();
    let mut found = Findings::default();
    let held = match &arguments[..] {
        ["reader", file] => {
            reader::run(Path::new(file));
            true
        }
        ["check", folders @ ..] => {
            for folder in folders {
                found.add(examine(Path::new(folder), &bounds));
            }
            report(&found, folders.len(), &bounds)
        }
        [] | [_] => {
            let waves = arguments.first().map_or(1, |waves| waves.parse().expect("how many waves"));
            let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/evidence");
            fs::create_dir_all(&place).expect("a place for logs");
            let bao = OpenBao::start();
            for number in 0..waves {
                let folder = tempfile::tempdir_in(&place).expect("a folder");
                wave(&bao, number, folder.path());
                let now = examine(folder.path(), &bounds);
                if breaches(&now).count() > 0 {
                    let broken = place.join("broken-history");
                    drop(fs::remove_dir_all(&broken));
                    fs::rename(folder.keep(), &broken).expect("logs are kept");
                }
                found.add(now);
            }
            report(&found, waves, &bounds)
        }
        _ => panic!("see the head of the source"),
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One wave, from its logs.
fn examine(folder: &Path, bounds: &Bounds) -> Findings {
    let history = History::load(folder).expect("whole logs");
    let found = check(&history, bounds);
    println!(
        "{} readers, {} accounts each: {} releases, staleness up to {:.2} s, {} recoveries within {:.2} s",
        history.processes.len(),
        history.keys.len(),
        found.releases,
        seconds(most(&found.stale)),
        found.recovered.len(),
        seconds(most(&found.recovered)),
    );
    breaches(&found).take(20).for_each(|breach| println!("{breach}"));
    found
}

fn breaches(found: &Findings) -> impl Iterator<Item = &String> {
    found.revocation_breaches.iter().chain(&found.usable_breaches)
}

/// Prints the figures, and tells whether all reach their goals.
fn report(found: &Findings, waves: usize, bounds: &Bounds) -> bool {
    let time = |nanos: u64| format!("{:.3}", seconds(nanos));
    let share = |nanos: u64| format!("{:.4}", seconds(nanos) / seconds(bounds.usable));
    let mut recovered = found.recovered.clone();
    recovered.sort_unstable();
    let at = |percent: usize| {
        let at = (recovered.len() * percent).div_ceil(100).max(1) - 1;
        time(recovered.get(at).copied().unwrap_or(u64::MAX))
    };
    // Of a few hundred recoveries, the second longest decides the 99th percentile: then it is held to the bound of the
    // longest, and the goal is judged by runs of a thousand and more.
    let few = recovered.len() < 1000;
    let late = bounds.recovery + if few { bounds.call } else { 0 };
    // Two readers are never disturbed.
    let seen = waves * TAKEN * LOSSES * 2;
    let outages = waves * CUT_OFF * 2;
    [
        line("R8", "revocations seen by undisturbed readers", found.stale.len(), ">=", seen),
        line("R8", "staleness with OpenBao, s", time(most(&found.stale)), "<=", time(bounds.stale + SLACK)),
        line(
            "R8",
            "of readers stopped or cut off, s",
            time(most(&found.stale_disturbed)),
            "<=",
            time(bounds.usable),
        ),
        line("R8", "stops of readers", found.stops, ">=", waves * 5),
        line("R8", "steps of wall clocks", found.steps, ">=", waves * 5),
        line("R8", "logged releases", found.releases, ">=", waves * 1_000_000),
        line("R8", "of them past a bound", found.revocation_breaches.len(), "=", 0),
        line("R9", "outages through a proxy", found.outages, ">=", outages),
        line("R9", "accounts in them", found.used.len(), ">=", outages * (KEYS - TAKEN)),
        line("R9", "of them served in grace", found.graced, ">=", outages),
        line("R9", "longest use through a proxy, share of F + G", share(most(&found.used)), "<=", 1),
        line("R9", "releases past F + G", found.usable_breaches.len(), "=", 0),
        line("R10", "recoveries", recovered.len(), ">=", seen),
        line("R10", "median, s", at(50), "<=", time(bounds.recovery)),
        line("R10", "p99, s", at(99), "<=", time(late)),
        line("R10", "longest, s", at(100), "<=", time(bounds.recovery + bounds.call)),
    ]
    .into_iter()
    .all(|good| good)
}

fn line(id: &str, what: &str, figure: impl Display, relation: &str, goal: impl Display) -> bool {
    println!("evidence {id} | {what} | {figure} | {relation} | {goal}");
    let number = |text: String| text.parse::<f64>().unwrap_or(f64::NAN);
    let (figure, goal) = (number(figure.to_string()), number(goal.to_string()));
    match relation {
        ">=" => figure >= goal,
        "<=" => figure <= goal,
        _ => figure.total_cmp(&goal).is_eq(),
    }
}

fn most(times: &[u64]) -> u64 {
    times.iter().copied().max().unwrap_or_default()
}

fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}
