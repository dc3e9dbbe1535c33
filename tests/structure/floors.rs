//! The floors: a file imports from floors below its own, and from a neighbour only where the table says so.

use crate::paths::{self, Named};
use crate::{Source, mark_reserved, none, planted, src};

/// One row for each module or folder; the longest name that fits a path is its own.
struct Unit {
    name: &'static str,
    floor: u8,
    /// Units of the same floor that it may import.
    neighbours: &'static [&'static str],
}

const fn unit(name: &'static str, floor: u8, neighbours: &'static [&'static str]) -> Unit {
    Unit { name, floor, neighbours }
}

const UNITS: &[Unit] = &[
    // 0: the vocabulary.
    unit("random", 0, &[]),
    unit("error", 0, &["id"]),
    unit("id", 0, &["random", "error"]),
    unit("telemetry", 0, &[]),
    // 1: wiped memory, AEADs, time, files, runtimes; and what passes through the provider trait.
    unit("secret", 1, &[]),
    unit("engine", 1, &["secret"]),
    unit("clock", 1, &[]),
    unit("atomic_file", 1, &[]),
    unit("runtime", 1, &[]),
    unit(
        "provider",
        1,
        &["provider/error", "provider/kek", "provider/wrap", "provider/call", "provider/gate"],
    ),
    unit("provider/gate", 1, &["provider", "provider/error"]),
    unit(
        "provider/call",
        1,
        &[
            "clock",
            "provider",
            "provider/error",
            "provider/gate",
            "provider/kek",
            "provider/observed",
            "provider/wrap",
        ],
    ),
    unit("provider/error", 1, &[]),
    unit("provider/kek", 1, &["provider/error", "provider"]),
    unit("provider/observed", 1, &["clock", "provider", "provider/error", "provider/kek"]),
    unit("provider/wrap", 1, &["provider/error", "provider/kek", "provider"]),
    // 2: labels and info encodings; bytes and types.
    unit("derive", 2, &[]),
    unit("format", 2, &[]),
    unit("format/codec", 2, &[]),
    unit("format/policy", 2, &["format/codec"]),
    unit("format/frame", 2, &["derive"]),
    unit("format/record", 2, &["format/codec", "format/policy", "derive"]),
    unit("format/scope", 2, &["format/codec", "format/record"]),
    unit("format/operation", 2, &["format/codec", "format/record"]),
    unit("format/tombstone", 2, &["format/codec", "format/record"]),
    unit("format/object", 2, &["format/frame", "derive"]),
    unit("format/takeover", 2, &["format/codec", "format/object"]),
    // 3: siblings: one block; the pure machine; each provider; where records lie.
    unit("block", 3, &[]),
    unit("lease", 3, &[]),
    unit("provider/asynchronous", 3, &[]),
    unit("provider/aws_kms", 3, &[]),
    unit("provider/azure_keyvault", 3, &[]),
    unit("provider/local", 3, &[]),
    unit("provider/pkcs11", 3, &[]),
    unit("provider/vault", 3, &[]),
    unit("provider/preflight", 3, &[]),
    unit("record_store", 3, &[]),
    unit("expect", 3, &[]),
    // 4: who owns leases, threads and records.
    unit("account", 4, &["keeper"]),
    unit("keeper", 4, &["account"]),
    unit("rotate", 4, &["account", "keeper"]),
    unit("change", 4, &["account", "keeper", "rotate"]),
    unit("generations", 4, &["account", "change", "keeper", "rotate"]),
    unit("delete", 4, &["account", "change", "keeper", "rotate"]),
    unit("operation", 4, &["account"]),
    unit("reseal", 4, &["account", "operation"]),
    unit("cache", 4, &["account", "delete", "keeper", "operation", "rotate"]),
    // 5 and 6: sealed objects; integrations.
    unit("object", 5, &[]),
    unit("store", 6, &[]),
    unit("store/anchored", 6, &[]),
    unit("store/file", 6, &[]),
    unit("store/object_records", 6, &[]),
    unit("store/scope", 6, &[]),
    unit("store/route", 6, &["store/scope"]),
    unit("store/sealed", 6, &["store/route", "store/scope"]),
    unit("store/takeover", 6, &["store/sealed"]),
    unit("store/tenants", 6, &["store/route"]),
    // For each version of the trait a row of its own; what they share stands beside them.
    unit("store/object_store", 6, &["store", "store/route", "store/sealed", "store/takeover"]),
    unit("store/object_store_0_13", 6, &["store/object_store"]),
    unit("store/v0_14", 6, &["store/object_store"]),
    // On top: what users link into their own tests.
    unit("testing", 7, &[]),
];

/// Files that see everything: the crate's root and what is built for the fuzzer only.
const ROOF: [&str; 2] = ["", "fuzzing"];

fn unit_of<S: AsRef<str>>(path: &[S]) -> Option<&'static Unit> {
    let fits = |unit: &&Unit| {
        let name: Vec<&str> = unit.name.split('/').collect();
        name.len() <= path.len() && name.iter().zip(path).all(|(a, b)| *a == b.as_ref())
    };
    UNITS.iter().filter(fits).max_by_key(|unit| unit.name.len())
}

/// A folder whose files have rows of their own gives none of them its floor.
fn holds(unit: &Unit, module: &[&str]) -> bool {
    let divided = UNITS.iter().any(|other| other.name.starts_with(&format!("{}/", unit.name)));
    !divided || unit.name == module.join("/")
}

fn floors(files: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files.iter().filter(|file| !file.test_only) {
        let module = file.module();
        if ROOF.contains(&module.first().copied().unwrap_or_default()) {
            continue;
        }
        let Some(own) = unit_of(&module).filter(|unit| holds(unit, &module)) else {
            out.push(format!("{}: has no floor: add it to the table", file.path));
            continue;
        };
        for Named { line, path } in paths::named(file) {
            let at = format!("{}:{line}: crate::{}", file.path, path.join("::"));
            match unit_of(&path) {
                None => out.push(format!("{at}: name the module where it lives")),
                Some(other) if other.name == own.name || other.floor < own.floor => {}
                // What is compiled with the feature `testing` only may use what that feature is about.
                Some(other) if other.name == "testing" && file.testing_only => {}
                Some(other) if other.floor == own.floor && own.neighbours.contains(&other.name) => {}
                Some(other) => out.push(format!(
                    "{at}: {} (floor {}) may not import {} (floor {})",
                    own.name, own.floor, other.name, other.floor
                )),
            }
        }
    }
    out
}

#[test]
fn imports_point_down() {
    none(&floors(&src()));
}

#[test]
fn an_import_that_points_up_is_found() {
    let plant = |path, bad, good| planted(floors, path, bad, good);
    plant("id.rs", "use crate::engine::Engine;", "use crate::random; use crate::error::Error;");
    plant("engine.rs", "use crate::derive::Prk;", "use crate::secret::Dek; use crate::error::Error;");
    plant("derive.rs", "fn f() { crate::block::seal() }", "use crate::secret::Slot;");
    plant("format/record.rs", "use crate::{id::A, lease::B};", "use crate::provider::Wrapped;");
    plant("account/state.rs", "use crate::object::Writer;", "use super::permit::Permit;");
    plant("keeper/executor.rs", "use crate::cache::AekCache;", "use crate::lease::Event;");
    plant("object/writer.rs", "use crate::store::file::F;", "use crate::account::Account;");
    plant(
        "clock.rs",
        "use crate::testing::X;",
        "#[cfg(any(test, feature = \"testing\"))] use crate::testing::X;",
    );
}

#[test]
fn only_what_the_feature_reserves_may_import_testing() {
    for (declared, violations) in
        [("#[cfg(any(test, feature = \"testing\"))] mod inline;", 0), ("mod inline;", 1)]
    {
        let mut files = vec![
            Source::new("keeper/mod.rs", declared),
            Source::new("keeper/inline.rs", "use crate::testing::virtual_time;"),
        ];
        mark_reserved(&mut files);
        assert_eq!(floors(&files).len(), violations, "{declared}");
    }
}

#[test]
fn siblings_do_not_import_each_other() {
    let plant = |path, bad, good| planted(floors, path, bad, good);
    plant("block.rs", "use crate::lease::Lease;", "use crate::engine; use crate::derive::Prk;");
    plant("lease.rs", "use crate::block::KeyRing;", "use crate::clock::Moment;");
    plant("provider/local.rs", "use super::preflight::run;", "use crate::engine; use self::file::F;");
    plant("provider/local/file.rs", "use crate::provider::preflight::run;", "use super::Version;");
    plant("provider/preflight.rs", "use super::local::LocalKms;", "use super::Wrapped;");
    plant("provider/mod.rs", "pub mod local; use local::L;", "mod local; pub use local::L;");
    plant(
        "expect.rs",
        "use crate::record_store::R;",
        "use crate::provider::Kek; use crate::format::record::R;",
    );
}

#[test]
fn a_file_without_a_floor_and_a_name_through_the_root_are_found() {
    for path in ["helpers.rs", "provider/unlisted.rs"] {
        assert_eq!(floors(&[Source::new(path, "")]).len(), 1, "{path}");
    }
    planted(floors, "block.rs", "use crate::Error;", "use crate::error::Error;");
}
