//! What the lock file brings in: only licences that deny.toml allows, from the registry only, and nothing
//! that needs a newer Rust than `rust-version` says. The same for the workspaces of the providers' tests and of the evidence.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// A package as `cargo metadata` tells of it.
struct Package {
    name: String,
    licence: String,
    source: Option<String>,
    rust_version: Option<String>,
}

fn cargo(arguments: &[&str], manifest: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--manifest-path", manifest])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// `name version` of every crate that is compiled. The lock file has more: what features would bring that nobody turns on.
fn compiled(manifest: &str) -> BTreeSet<String> {
    let tree =
        cargo(&["tree", "--all-features", "--prefix=none", "--format={p}", "--target", PLATFORM], manifest);
    let name_and_version = |line: &str| {
        let mut words = line.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?.strip_prefix('v')?))
    };
    tree.lines().filter_map(name_and_version).collect()
}

/// Of the library's lock file and of those of the other workspaces.
fn packages() -> Vec<Package> {
    MANIFESTS.iter().flat_map(|manifest| packages_of(manifest)).collect()
}

fn packages_of(manifest: &str) -> Vec<Package> {
    // Other platforms' crates need not be downloaded here.
    let metadata =
        cargo(&["metadata", "--all-features", "--format-version=1", "--filter-platform", PLATFORM], manifest);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo writes JSON");
    let compiled = compiled(manifest);
    let is_compiled = |package: &&Value| {
        let [name, version] =
            ["name", "version"].map(|key| package[key].as_str().expect("a package has both"));
        compiled.contains(&format!("{name} {version}"))
    };
    let list = metadata["packages"].as_array().expect("a list of packages");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let packages: Vec<Package> = list
        .iter()
        .filter(is_compiled)
        .map(|package| Package {
            name: text(&package["name"]).expect("a package has a name"),
            licence: text(&package["license"]).unwrap_or_default(),
            source: text(&package["source"]),
            rust_version: text(&package["rust_version"]),
        })
        .collect();
    assert_eq!(packages.len(), compiled.len(), "found the dependencies");
    assert!(packages.len() > 50, "found the dependencies");
    packages
}

const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const OURS: [&str; 5] = [
    "strongroom",
    "strongroom-kms-tests",
    "strongroom-stores-tests",
    "strongroom-engines-tests",
    "strongroom-evidence",
];

/// The fuzzer's and the peers' (benches/peers) are none of them: they are no part of any build but their own. The engines' have a
/// test of their own, below.
const MANIFESTS: [&str; 4] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kms/Cargo.toml"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stores/Cargo.toml"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/evidence/Cargo.toml"),
];

/// The `allow` list of deny.toml's section `[licenses]`.
fn allowed() -> Vec<String> {
    let text = include_str!("../deny.toml");
    let line =
        text.lines().find_map(|line| line.strip_prefix("allow = [")).expect("deny.toml allows licences");
    let list = line.trim_end_matches(']').split(',');
    list.map(|item| item.trim().trim_matches('"').to_owned()).collect()
}

/// Whether an SPDX expression can be met with `allowed` alone. `AND` binds tighter than `OR`; the old `/` is `OR`.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&words, &mut at, allowed);
    met && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at, allowed);
    }
    met
}

fn all(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let met = any(words, at, allowed);
        *at += 1;
        return met;
    }
    // An exception widens a licence, but it is another text: it would have to be listed as a whole.
    if words.get(*at) == Some(&"WITH") {
        *at += 2;
        return false;
    }
    allowed.iter().any(|licence| licence == word)
}

fn forbidden_licences(packages: &[Package], allowed: &[String]) -> Vec<String> {
    let bad = packages.iter().filter(|package| !is_met(&package.licence, allowed));
    bad.map(|package| format!("{}: {:?}", package.name, package.licence)).collect()
}

#[test]
fn every_licence_is_allowed() {
    let found = forbidden_licences(&packages(), &allowed());
    assert!(found.is_empty(), "{found:#?}");
}

/// Nobody builds whole engines but who runs their tests: as permissive, under a few more names, and of a newer Rust.
#[test]
fn the_engines_of_the_tests_are_as_permissive_and_from_the_registry_too() {
    let more = ["Zlib", "CC0-1.0", "BSD-2-Clause"].map(str::to_owned);
    let packages = packages_of(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/Cargo.toml"));
    let found = forbidden_licences(&packages, &[allowed(), more.to_vec()].concat());
    assert!(found.is_empty(), "{found:#?}");
    let strangers = packages.iter().filter(|package| !OURS.contains(&package.name.as_str()));
    let elsewhere =
        |package: &&Package| !package.source.as_ref().is_some_and(|source| source.starts_with("registry+"));
    assert_eq!(strangers.filter(elsewhere).count(), 0);
}

#[test]
fn a_licence_that_is_not_allowed_is_found() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "Unlicense/MIT", "ISC AND (Zlib OR MIT)", "X WITH Y OR MIT"] {
        assert!(is_met(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND Zlib", "MIT WITH Y", "MIT MIT"] {
        assert!(!is_met(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_dependency_comes_from_the_registry() {
    for package in packages() {
        match package.source {
            None => assert!(OURS.contains(&package.name.as_str()), "{}: a path dependency", package.name),
            Some(source) => assert!(source.starts_with("registry+"), "{}: {source}", package.name),
        }
    }
}

/// The names in deny.toml's section `[bans]`.
fn banned() -> Vec<String> {
    let text = include_str!("../deny.toml");
    let line = text.lines().find_map(|line| line.strip_prefix("deny = [")).expect("deny.toml bans crates");
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn no_banned_crate_is_brought_in_by_any_feature() {
    let banned = banned();
    assert!(banned.contains(&"ring".to_owned()) && banned.contains(&"openssl-sys".to_owned()), "{banned:?}");
    for manifest in MANIFESTS {
        let mut found: Vec<_> = packages_of(manifest).into_iter().map(|package| package.name).collect();
        found.retain(|name| banned.contains(name));
        // The clients of `object_store` 0.13 bring it, for the tests of sealed stores over real servers; the trait alone does not.
        let tolerated: &[&str] = if manifest.ends_with("/tests/stores/Cargo.toml") { &["ring"] } else { &[] };
        assert_eq!(found, tolerated, "{manifest}");
    }
}

#[test]
fn the_default_build_has_nothing_of_any_key_service() {
    let names = |features: &[&str]| -> BTreeSet<String> {
        let tree = ["tree", "--edges=normal,build", "--prefix=none", "--format={p}", "--target", PLATFORM];
        let tree = cargo(&[&tree[..], features].concat(), MANIFESTS[0]);
        tree.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
    };
    let clients =
        ["object_store", "futures-util", "tokio", "ureq", "rustls", "aws-sdk-kms", "azure_core", "cryptoki"]
            .map(str::to_owned);
    let default = names(&[]);
    assert!(default.contains("aws-lc-rs"), "{default:?}");
    assert!(clients.iter().all(|client| !default.contains(client)), "{default:?}");
    let all = names(&["--all-features"]);
    assert!(clients.iter().all(|client| all.contains(client)), "{all:?}");
}

#[test]
fn no_dependency_needs_a_newer_rust_than_ours() {
    let packages = packages();
    let ours = packages.iter().find(|package| package.name == "strongroom").expect("is in its own graph");
    let ours = version(ours.rust_version.as_deref().expect("Cargo.toml says rust-version"));
    for package in &packages {
        if let Some(theirs) = &package.rust_version {
            assert!(version(theirs) <= ours, "{} needs Rust {theirs}", package.name);
        }
    }
    assert!(version("1.88") < version("1.88.1") && version("1.100") > version("1.88"));
}

fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().expect("a number")).collect();
    parts.resize(3, 0);
    parts
}
