//! Frozen vectors, tests/vectors/: each is made here again, byte for byte, and opened or refused by the library.
//!
//! The files are what other readers are held to, ours in Python among them. With `STRONGROOM_WRITE_VECTORS=1` in
//! the environment they are written anew; a change of theirs is a change of a format (see docs/FORMAT.md, section 12).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::account::Account;
use crate::block::GenerationKeys;
use crate::cache::AekCache;
use crate::derive::Secrets;
use crate::engine::Engine;
use crate::evidence::report;
use crate::expect::Expect;
use crate::id::{AccountId, Generation, Suite};
use crate::secret::MemoryLock;
use crate::testing::ManualClock;

mod blocks;
mod derivations;
mod generations;
mod kms;
mod objects;
mod operations;
mod records;
mod scopes;
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
mod takeovers;
mod tombstones;

/// Whose key: what derives every other.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Owner {
    account: [u8; 16],
    generation: u32,
    /// The first share of it, under joint custody.
    secret: [u8; 32],
    second_share: Option<[u8; 32]>,
    /// The second secret, in suite 2.
    outer: Option<[u8; 32]>,
}

impl Owner {
    fn usual() -> Self {
        Self {
            account: bytes("account"),
            generation: 1,
            secret: bytes("secret"),
            second_share: None,
            outer: None,
        }
    }

    fn usual_of(suite: Suite) -> Self {
        let outer = (suite == Suite::Double).then(|| bytes("outer secret"));
        Self { outer, ..Self::usual() }
    }

    const fn suite(&self) -> Suite {
        if self.outer.is_some() { Suite::Double } else { Suite::Aes256Gcm }
    }

    fn of_generation(generation: u32) -> Self {
        Self { generation, ..Self::usual() }
    }

    fn account(&self) -> AccountId {
        AccountId::from_bytes(self.account)
    }

    fn generation(&self) -> Generation {
        Generation::new(self.generation).expect("vectors have no generation zero")
    }

    /// What its keys are derived from: 64 bytes under joint custody.
    fn inner(&self) -> Vec<u8> {
        let second = self.second_share.as_ref().map_or(&[][..], <[u8; 32]>::as_slice);
        [&self.secret[..], second].concat()
    }

    fn keys(&self) -> GenerationKeys {
        let lock = MemoryLock::BestEffort;
        let secrets = Secrets { inner: &self.inner(), outer: self.outer.as_ref() };
        GenerationKeys::new(self.account(), self.generation(), secrets, lock).unwrap()
    }

    /// The check value of each secret.
    fn kcvs(&self) -> ([u8; 32], Option<[u8; 32]>) {
        let keys = self.keys();
        let of = |prk: &crate::derive::Prk| *prk.kcv().as_bytes();
        (of(keys.prks().inner()), keys.prks().outer().map(of))
    }

    fn fields(&self) -> Map<String, Value> {
        let owner = json!({
            "account": hex(&self.account), "generation": self.generation, "secret": hex(&self.inner()),
        });
        let mut fields = owner.as_object().expect("is one").clone();
        if let Some(outer) = &self.outer {
            fields.insert("outer_secret".to_owned(), Value::String(hex(outer)));
        }
        fields
    }

    fn read(vector: &Value) -> Self {
        let generation = u32::try_from(number(vector, "generation")).unwrap();
        let outer = vector.get("outer_secret").map(|_| unhex_array(vector, "outer_secret"));
        let secret = unhex(vector, "secret");
        let (first, second) = secret.split_first_chunk().expect("a secret, or two shares");
        Self {
            account: unhex_array(vector, "account"),
            generation,
            secret: *first,
            second_share: (!second.is_empty()).then(|| second.try_into().expect("as long as the first")),
            outer,
        }
    }
}

/// One file in the making. Names are unique in it.
struct File {
    format: &'static str,
    vectors: Vec<Value>,
}

impl File {
    const fn new(format: &'static str) -> Self {
        Self { format, vectors: Vec::new() }
    }

    /// Of both suites: that of suite 2 has a file of its own.
    fn of(suite: Suite, format: &'static str) -> Self {
        let double = match format {
            "block" => "double_block",
            "frame" => "double_frame",
            "object" => "double_object",
            "record" => "double_record",
            other => panic!("{other}"),
        };
        Self::new(if suite == Suite::Double { double } else { format })
    }

    fn push(&mut self, name: impl Into<String>, owner: &Owner, more: Value) {
        let mut vector = owner.fields();
        vector.insert("name".to_owned(), Value::String(name.into()));
        let Value::Object(more) = more else { panic!("a vector's fields are an object") };
        vector.extend(more);
        assert!(self.vectors.iter().all(|other| other["name"] != vector["name"]), "{}", vector["name"]);
        self.vectors.push(Value::Object(vector));
    }

    /// One vector a line, members sorted.
    fn text(&self) -> String {
        let lines: Vec<String> = self.vectors.iter().map(Value::to_string).collect();
        format!("{{\"format\":\"{}\",\"vectors\":[\n{}\n]}}\n", self.format, lines.join(",\n"))
    }

    fn path(&self) -> PathBuf {
        let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors"));
        directory.join(self.format).with_extension("json")
    }
}

fn files() -> Vec<File> {
    let (single, double) = (Suite::Aes256Gcm, Suite::Double);
    vec![
        derivations::file(),
        kms::wraps(),
        kms::local_kms(),
        blocks::blocks(single),
        blocks::blocks(double),
        blocks::frames(single),
        blocks::frames(double),
        objects::file(single),
        objects::file(double),
        records::file(),
        records::double(),
        generations::file(),
        records::custody(),
        scopes::file(),
        operations::file(),
        tombstones::file(),
        tombstones::anchors(),
        #[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
        takeovers::file(),
    ]
}

#[test]
fn f1_frozen_vectors_are_reproduced_byte_for_byte() {
    for file in files() {
        let made = file.text();
        if std::env::var_os("STRONGROOM_WRITE_VECTORS").is_some() {
            std::fs::create_dir_all(file.path().parent().expect("lies in a directory")).unwrap();
            std::fs::write(file.path(), &made).unwrap();
        }
        let frozen = std::fs::read_to_string(file.path()).expect("is frozen");
        for (made, frozen) in made.lines().zip(frozen.lines()) {
            assert_eq!(made, frozen, "{}", file.format);
        }
        assert_eq!(made.len(), frozen.len(), "{}", file.format);
    }
}

#[test]
fn f1_frozen_vectors_open_or_are_refused_with_the_error_they_name() {
    let mut wrong = Vec::new();
    let (mut valid, mut invalid) = (0, 0);
    for engine in [Engine::Fastest, Engine::Portable] {
        let mut world = World { engine, accounts: HashMap::new() };
        for file in files() {
            let open = match file.format {
                "derivation" => derivations::check,
                "wrap" => kms::check_wrap,
                "local_kms" => kms::check_local_kms,
                "block" | "double_block" => blocks::check_block,
                "frame" | "double_frame" => blocks::check_frame,
                "object" | "double_object" => objects::check,
                "record" | "double_record" => records::check,
                "generations" => generations::check,
                "custody" => records::check_custody,
                "scope" => scopes::check,
                "operation" => operations::check,
                "tombstone" => tombstones::check,
                "anchor" => tombstones::check_anchor,
                #[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
                "takeover" => takeovers::check,
                other => panic!("{other}: has no check"),
            };
            let frozen: Value = serde_json::from_slice(&std::fs::read(file.path()).unwrap()).unwrap();
            for vector in frozen["vectors"].as_array().unwrap() {
                let expected = vector.get("error").map(|kind| kind.as_str().unwrap());
                let found = open(&mut world, vector).err();
                if found.as_deref() != expected {
                    wrong.push(format!("{}: {}: {found:?}, not {expected:?}", file.format, vector["name"]));
                }
                if expected.is_some() { invalid += 1 } else { valid += 1 }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Each was opened twice, once on each engine.
    assert!(valid >= 2 * 300 && invalid >= 2 * 300, "{valid} valid, {invalid} invalid");
    report("R3", "valid", valid / 2, ">=", 300);
    report("R3", "invalid", invalid / 2, ">=", 300);
}

/// `Err` names the kind of error. What is opened is compared in here, by assertions.
type Outcome = Result<(), String>;

fn kind(error: crate::error::Error) -> String {
    format!("{:?}", error.kind())
}

/// Accounts whose KMS gives out a known AEK, attached as users attach them.
struct World {
    engine: Engine,
    accounts: HashMap<Owner, (AekCache, Account)>,
}

impl World {
    fn account(&mut self, vector: &Value) -> Account {
        let owner = Owner::read(vector);
        let engine = self.engine;
        let (_, account) = self.accounts.entry(owner.clone()).or_insert_with(|| {
            let cache = AekCache::builder().engine(engine).manual(&ManualClock::new()).build().unwrap();
            let kms = Arc::new(kms::KnownSecret(owner.secret));
            let expect = Expect::account(owner.account()).kek(kms, "orders");
            let expect = match owner.outer {
                None => expect,
                Some(outer) => expect.outer_kek(Arc::new(kms::KnownSecret(outer)), "second"),
            };
            let account = cache.attach(records::plain_record(&owner), expect).unwrap();
            account.ready().wait().unwrap();
            (cache, account)
        });
        account.clone()
    }
}

/// Bytes that look random and are the same for ever: SHA-256 in counter mode.
fn stream(seed: &str, len: usize) -> Vec<u8> {
    let block =
        |counter: u32| Sha256::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize();
    (0..).flat_map(block).take(len).collect()
}

fn bytes<const N: usize>(seed: &str) -> [u8; N] {
    stream(seed, N).try_into().expect("is as long as asked for")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn unhex(vector: &Value, field: &str) -> Vec<u8> {
    unhex_text(vector[field].as_str().unwrap_or_else(|| panic!("{vector}: {field}")))
}

fn unhex_text(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn unhex_array<const N: usize>(vector: &Value, field: &str) -> [u8; N] {
    unhex(vector, field).try_into().unwrap()
}

fn number(vector: &Value, field: &str) -> u64 {
    vector[field].as_u64().unwrap_or_else(|| panic!("{vector}: {field}"))
}

fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap_or_else(|| panic!("{vector}: {field}"))
}

/// A long plaintext is told by its length and its SHA-256.
fn plain_fields(plain: &[u8]) -> Value {
    if plain.len() <= 256 {
        json!({ "plain": hex(plain) })
    } else {
        json!({ "plain_len": plain.len(), "plain_sha256": hex(&Sha256::digest(plain)) })
    }
}

fn assert_plain(vector: &Value, plain: &[u8]) {
    if vector.get("error").is_none() {
        for (field, value) in plain_fields(plain).as_object().expect("is one") {
            assert_eq!(&vector[field], value, "{}", vector["name"]);
        }
    }
}

fn merge(mut left: Value, right: Value) -> Value {
    let (Value::Object(to), Value::Object(from)) = (&mut left, right) else { panic!("two objects") };
    to.extend(from);
    left
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= 1 << (at % 8);
    changed
}

/// A sealed state whose last 32 bytes are another MAC than its own: a bit of it flipped, by another AEK, for another use.
fn other_macs(sealed: &[u8], by_another: Vec<u8>, for_another_use: [u8; 32]) -> Vec<(String, Vec<u8>)> {
    let content = sealed.len() - 32;
    let name = |at: usize| format!("byte {} of the MAC is changed", at - content);
    let mut other: Vec<_> =
        (content..sealed.len()).step_by(10).map(|at| (name(at), flipped(sealed, at))).collect();
    other.push(("MAC of another AEK".into(), by_another));
    other.push(("MAC for another use".into(), set(sealed, content, &for_another_use)));
    other
}

/// A string as formats have it: its length in two bytes before it.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn set(bytes: &[u8], at: usize, to: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at..at + to.len()].copy_from_slice(to);
    changed
}
