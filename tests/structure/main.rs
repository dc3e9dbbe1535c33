//! The shape of the source, as a test: which file may import which, and the rules of style that no lint knows.
//!
//! Every rule is a function from sources to violations. Each has a test over the real tree, which
//! must find nothing, and over planted sources, which must find exactly what was planted: a
//! check that cannot fail is a defect.

mod contract;
mod floors;
mod lexer;
mod paths;

use std::fs;
use std::path::Path;

use lexer::{Kind, Token, Without};

/// A file of `src/`, by its path below it, for example `provider/local.rs`.
pub(crate) struct Source {
    path: String,
    text: String,
    /// Compiled for tests only, as a `#[cfg(test)] mod x;` elsewhere says.
    test_only: bool,
    /// The same, or compiled with the feature `testing` only.
    testing_only: bool,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), test_only: false, testing_only: false }
    }

    /// `provider/local.rs` and `provider/local/mod.rs` both are `["provider", "local"]`.
    fn module(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if path == "lib" { Vec::new() } else { path.split('/').collect() }
    }

    fn production(&self, without: Without) -> Vec<Token> {
        if self.test_only { Vec::new() } else { lexer::production(&lexer::tokens(&self.text), without) }
    }
}

/// Reads every `.rs` file below `folder` of this checkout.
fn read(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the checkout can be listed").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("lies below the folder it was listed in");
                let text = fs::read_to_string(&path).expect("source is UTF-8");
                files.push(Source::new(&name.to_string_lossy().replace('\\', "/"), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    mark_reserved(&mut files);
    files
}

fn mark_reserved(files: &mut [Source]) {
    let reserved = |files: &[Source], without| {
        let mut out: Vec<String> = Vec::new();
        for file in files {
            let folder = file.module().join("/");
            for name in lexer::reserved_modules(&lexer::tokens(&file.text), without) {
                out.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
            }
        }
        out
    };
    let (tests, testing) = (reserved(files, Without::Tests), reserved(files, Without::TestsAndTesting));
    for file in files {
        let module = file.module().join("/");
        let inside = |name: &String| {
            module.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let (test_only, testing_only) = (tests.iter().any(inside), testing.iter().any(inside));
        (file.test_only, file.testing_only) = (test_only, testing_only);
    }
}

fn src() -> Vec<Source> {
    let files = read("src");
    assert!(files.iter().any(|file| file.path == "lib.rs"), "found the crate");
    files
}

/// Everything that is Rust in this checkout.
fn whole_tree() -> Vec<Source> {
    ["src", "tests", "benches", "examples", "fuzz"]
        .into_iter()
        .flat_map(|folder| {
            let mut files = read(folder);
            for file in &mut files {
                file.path = format!("{folder}/{}", file.path);
            }
            files
        })
        .collect()
}

fn none(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

/// The planted source breaks the rule once; the other one, which resembles it, does not.
fn planted(rule: impl Fn(&[Source]) -> Vec<String>, path: &str, bad: &str, good: &str) {
    let found = rule(&[Source::new(path, bad)]);
    assert_eq!(found.len(), 1, "planted in {path}: {bad}\nfound: {found:?}");
    let found = rule(&[Source::new(path, good)]);
    assert!(found.is_empty(), "allowed in {path}: {good}\nfound: {found:?}");
}

// Doors: what only one file may name.

/// (the words, the one file that may name them, why).
const DOORS: [(&[&str], &str, &str); 3] = [
    (&["aes_gcm", "aws_lc_rs", "chacha20poly1305"], "engine.rs", "AEADs are chosen in one file"),
    (&["rand", "getrandom", "SysRng", "OsRng"], "random.rs", "randomness enters by one door"),
    (&["Instant", "clock_gettime"], "clock.rs", "time enters by one door"),
];

/// Whether what stands before a word is a path of these names, `a::b::`.
trait EndsWithWords {
    fn ends_with_words(&self, words: &[&str]) -> bool;
}

impl EndsWithWords for [Token] {
    fn ends_with_words(&self, words: &[&str]) -> bool {
        let Some((last, before)) = words.split_last() else { return true };
        let [rest @ .., name, separator] = self else { return false };
        separator.kind == Kind::PathSeparator && name.is_word(last) && rest.ends_with_words(before)
    }
}

fn doors(files: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files {
        let tokens = file.production(Without::Tests);
        for (at, token) in tokens.iter().enumerate() {
            // `rustls::crypto::aws_lc_rs` is a TLS library's engine, and no crate.
            let of_tls = tokens[..at].ends_with_words(&["rustls", "crypto"]);
            for (words, door, why) in DOORS {
                let named = token.word().is_some_and(|word| words.contains(&word));
                if named && file.path != door && !of_tls {
                    out.push(format!("{}:{}: {:?}: {why}", file.path, token.line, token.kind));
                }
            }
        }
    }
    out
}

#[test]
fn each_door_is_named_by_one_file_only() {
    none(&doors(&src()));
    planted(doors, "block.rs", "use aes_gcm::Aes256Gcm;", "// aes_gcm\nlet a = \"aws_lc_rs\";");
    planted(
        doors,
        "block.rs",
        "fn f() { aws_lc_rs::aead::x() }",
        "#[cfg(test)] mod t { use aws_lc_rs::aead; }",
    );
    planted(doors, "provider/x.rs", "use x::crypto::aws_lc_rs::y;", "rustls::crypto::aws_lc_rs::y();");
    planted(doors, "id.rs", "use rand::Rng;", "use crate::random;");
    planted(doors, "lease.rs", "let t = std::time::Instant::now();", "let t: std::time::SystemTime = x;");
    assert_eq!(doors(&[Source::new("engine.rs", "use aes_gcm::A; use rand::R;")]).len(), 1);
}

/// What only tests use is a dev-dependency: users build and audit the others.
fn dependencies_of_tests_only(manifest: &str, files: &[Source]) -> Vec<String> {
    let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]"));
    let names = section.into_iter().flat_map(str::lines).filter_map(|line| line.split_once(" = "));
    let used = |name: &str| {
        let named = |file: &Source| file.production(Without::Tests).iter().any(|token| token.is_word(name));
        files.iter().any(named)
    };
    let idle = names.map(|(name, _)| name.replace('-', "_")).filter(|name| !used(name));
    idle.map(|name| format!("Cargo.toml: no file but tests uses {name}")).collect()
}

#[test]
fn what_only_tests_use_is_a_dev_dependency() {
    none(&dependencies_of_tests_only(include_str!("../../Cargo.toml"), &src()));
    let manifest = "[package]\n\n[dependencies]\nsha2 = \"1\"\n\n[dev-dependencies]\nhmac = \"1\"\n";
    let rule = |files: &[Source]| dependencies_of_tests_only(manifest, files);
    planted(rule, "derive.rs", "#[cfg(test)] mod t { use sha2::Sha256; }", "use sha2::Sha256;");
}

/// `SystemTime` is a type of the public surface; asking it for the time is what has one door.
fn wall_clock_reads(files: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files.iter().filter(|file| file.path != "clock.rs") {
        for window in file.production(Without::Tests).windows(3) {
            let now = window[0].is_word("SystemTime")
                && window[1].kind == Kind::PathSeparator
                && window[2].is_word("now");
            let elapsed = window[0].is_punct('.') && window[1].is_word("elapsed") && window[2].is_punct('(');
            if now || elapsed {
                out.push(format!("{}:{}: reads a clock outside clock.rs", file.path, window[0].line));
            }
        }
    }
    out
}

#[test]
fn only_clock_reads_the_wall_clock() {
    none(&wall_clock_reads(&src()));
    planted(wall_clock_reads, "cache.rs", "let t = SystemTime::now();", "let t = SystemTime::UNIX_EPOCH;");
    planted(
        wall_clock_reads,
        "cache.rs",
        "let t = then.elapsed().ok();",
        "let elapsed = now.age_since(then);",
    );
}

/// Every HKDF label stands in derive.rs, so that no two uses can share one.
fn labels(files: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files.iter().filter(|file| file.path != "derive.rs") {
        for token in file.production(Without::Tests) {
            let label = token.text().is_some_and(|text| {
                text.len() == 4 && text.starts_with("SR") && text.ends_with('1')
                    || text.starts_with("strongroom/v1") && text != "strongroom/v1 wrap"
            });
            if label {
                out.push(format!("{}:{}: a derivation label outside derive.rs", file.path, token.line));
            }
        }
    }
    out
}

#[test]
fn only_derive_names_labels() {
    none(&labels(&src()));
    planted(labels, "block.rs", "const L: &[u8; 4] = b\"SRD1\";", "// b\"SRD1\"\nlet m = \"SRDX\";");
    planted(labels, "format/record.rs", "let salt = b\"strongroom/v1\";", "let l = b\"strongroom/v1 wrap\";");
}

/// The lease machine is explored exhaustively, so it must be a function of its arguments alone.
fn lease_is_pure(files: &[Source]) -> Vec<String> {
    const MAY_IMPORT: [&str; 4] = ["clock/Moment", "error", "id", "lease"];
    const FORBIDDEN: [&str; 10] =
        ["Clock", "thread", "fs", "net", "io", "sync", "Mutex", "Condvar", "HashMap", "HashSet"];
    let mut out = Vec::new();
    for file in files.iter().filter(|file| file.module().first() == Some(&"lease")) {
        for token in file.production(Without::Tests) {
            if token.word().is_some_and(|word| FORBIDDEN.contains(&word)) {
                out.push(format!("{}:{}: {:?} in the lease machine", file.path, token.line, token.kind));
            }
        }
        for paths::Named { line, path } in paths::named(file) {
            let path = path.join("/");
            if !MAY_IMPORT.iter().any(|may| path == *may || path.starts_with(&format!("{may}/"))) {
                out.push(format!("{}:{line}: {path} in the lease machine", file.path));
            }
        }
    }
    out
}

#[test]
fn lease_has_no_clock_thread_io_key_or_hash_order() {
    none(&lease_is_pure(&src()));
    planted(lease_is_pure, "lease.rs", "use std::thread;", "use crate::clock::Moment;");
    planted(lease_is_pure, "lease.rs", "fn f(clock: &Clock) {}", "#[derive(Debug)] struct S { now: Moment }");
    planted(
        lease_is_pure,
        "lease/flaps.rs",
        "use crate::derive::Prk;",
        "use super::Policy; use crate::id::Epoch;",
    );
    planted(lease_is_pure, "lease.rs", "use crate::clock::now;", "#[cfg(test)] mod t { use std::fs; }");
}

// Style.

fn headers(files: &[Source]) -> Vec<String> {
    let missing = files.iter().filter(|file| !file.text.starts_with("//! "));
    missing
        .map(|file| format!("{}: the first line does not say what the file is (`//! ...`)", file.path))
        .collect()
}

#[test]
fn every_file_says_what_it_is() {
    none(&headers(&whole_tree()));
    planted(headers, "src/a.rs", "use std::fmt;\n//! Late.", "//! What it is.\nuse std::fmt;");
    planted(headers, "src/a.rs", "//!\n//! Nothing said.", "//! What it is.");
}

const MAX_FILE_LINES: usize = 600;

fn long_files(files: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if lines > MAX_FILE_LINES {
            out.push(format!("{}: {lines} lines are two ideas (limit {MAX_FILE_LINES})", file.path));
        }
    }
    out
}

#[test]
fn no_file_holds_two_ideas() {
    none(&long_files(&whole_tree()));
    planted(long_files, "src/a.rs", &"//\n".repeat(MAX_FILE_LINES + 1), &"//\n".repeat(MAX_FILE_LINES));
}

const MAX_FUNCTION_LINES: usize = 70;

fn long_functions(files: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files {
        let tokens = file.production(Without::Tests);
        for (at, pair) in tokens.windows(2).enumerate() {
            let (true, Some(name)) = (pair[0].is_word("fn"), pair[1].word()) else { continue };
            let Some(body) = body_of(&tokens, at) else { continue };
            let last = &tokens[lexer::matching(&tokens, body) - 1];
            let lines = last.line + 1 - pair[0].line;
            if lines > MAX_FUNCTION_LINES {
                out.push(format!("{}:{}: fn {name} has {lines} lines", file.path, pair[0].line));
            }
        }
    }
    out
}

/// Where the body of the function at `at` opens; a trait's method may have none.
fn body_of(tokens: &[Token], at: usize) -> Option<usize> {
    let mut at = at;
    loop {
        match tokens.get(at)?.kind {
            Kind::Punct('{') => return Some(at),
            Kind::Punct(';') => return None,
            Kind::Punct('(' | '[') => at = lexer::matching(tokens, at),
            _ => at += 1,
        }
    }
}

#[test]
fn functions_fit_a_screen() {
    none(&long_functions(&src()));
    let of_lines = |lines: usize| format!("fn f(a: [u8; 4]) -> u8 {{\n{}}}", "g();\n".repeat(lines - 2));
    planted(long_functions, "a.rs", &of_lines(MAX_FUNCTION_LINES + 1), &of_lines(MAX_FUNCTION_LINES));
    planted(
        long_functions,
        "a.rs",
        &format!("impl A {{ fn g(); {} }}", of_lines(MAX_FUNCTION_LINES + 1)),
        &format!("#[cfg(test)] mod t {{ {} }}", of_lines(MAX_FUNCTION_LINES + 1)),
    );
}

/// A panic has to state the invariant that rules it out; one that a macro raises says nothing about why.
fn panics(files: &[Source]) -> Vec<String> {
    const MACROS: [&str; 4] = ["panic", "todo", "unimplemented", "dbg"];
    let mut out = Vec::new();
    for file in files {
        let tokens = file.production(Without::Tests);
        for (at, window) in tokens.windows(4).enumerate() {
            let [dot, name, open, argument] = window else { continue };
            let method = dot.is_punct('.') && open.is_punct('(');
            // `unwrap` with arguments is a provider's.
            let unwraps = method && name.is_word("unwrap") && argument.is_punct(')');
            let says_nothing = method && name.is_word("expect") && argument.text().is_some_and(str::is_empty);
            if unwraps || says_nothing {
                out.push(format!("{}:{}: {:?} states no invariant", file.path, name.line, name.kind));
            }
            // What exists to fail may say so: scripted providers, and the fuzz targets' assertions.
            let is_script = file.module().iter().any(|name| ["testing", "fuzzing"].contains(name));
            let called = tokens[at + 1].is_punct('!') && tokens[at + 2].is_punct('(') && !is_script;
            if called && dot.word().is_some_and(|word| MACROS.contains(&word)) {
                out.push(format!("{}:{}: {:?}!", file.path, dot.line, dot.kind));
            }
        }
    }
    out
}

#[test]
fn nothing_panics_without_saying_why() {
    none(&panics(&src()));
    planted(panics, "a.rs", "let a = b.unwrap();", "let a = kms.unwrap(wrapped, context)?;");
    planted(panics, "a.rs", "let a = b.expect(\"\");", "let a = b.expect(\"has four bytes\");");
    planted(panics, "a.rs", "fn f() { todo!() }", "#[cfg(test)]\nmod t { fn f() { a.unwrap(); } }");
    planted(
        panics,
        "a.rs",
        "match a { _ => panic!(\"no\") }",
        "// panic!(\"no\")\n/// `a.unwrap()`\nf(a, b);",
    );
}

fn loose_ends(files: &[Source]) -> Vec<String> {
    // Spelt apart, so that this file does not hold them itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let mut out = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| marks.contains(&word)) {
                out.push(format!("{}:{}: a loose end: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    out
}

#[test]
fn no_loose_ends_are_left_in_comments() {
    none(&loose_ends(&whole_tree()));
    planted(loose_ends, "src/a.rs", concat!("// TO", "DO: later"), "// to do: later");
    planted(loose_ends, "src/a.rs", concat!("f(); // FIX", "ME"), "f(); // fixed");
}

/// A test that is not run proves nothing.
fn ignored_tests(files: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for file in files {
        for window in lexer::tokens(&file.text).windows(3) {
            if window[0].is_punct('#') && window[1].is_punct('[') && window[2].is_word("ignore") {
                out.push(format!("{}:{}: an ignored test", file.path, window[0].line));
            }
        }
    }
    out
}

#[test]
fn no_test_is_ignored() {
    none(&ignored_tests(&whole_tree()));
    planted(ignored_tests, "tests/a.rs", "#[test]\n#[ignore]\nfn f() {}", "#[test]\nfn ignore() {}");
}

#[test]
fn files_for_tests_only_are_told_apart() {
    let mut files = vec![
        Source::new("lib.rs", "#[cfg(test)] mod vectors; mod store;"),
        Source::new("vectors.rs", "a.unwrap();"),
        Source::new("vectors/more.rs", "a.unwrap();"),
        Source::new("store/mod.rs", "#[cfg(test)] mod model;"),
        Source::new("store/model.rs", "a.unwrap();"),
        Source::new("store/file.rs", "a.unwrap();"),
    ];
    mark_reserved(&mut files);
    assert_eq!(panics(&files).len(), 1, "{:?}", panics(&files));
}
