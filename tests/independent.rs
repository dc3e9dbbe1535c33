//! The formats, read and written by a program that shares nothing with this crate but docs/FORMAT.md:
//! tests/independent/, in Python.
#![cfg(all(feature = "testing", unix))]
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

#[path = "independent/python.rs"]
mod python;

use python::{PYTHON, run};
use serde_json::{Value, json};
use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, BlockSize, Context, ObjectId, ObjectOptions,
    SealedObject, Suite,
};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent").join(name)
}

/// Runs the reader over a directory of vectors; returns how many passed. All have to.
fn read_by_python(directory: &Path) -> usize {
    let text = run(Command::new(&*PYTHON).arg(script("reader.py")).arg(directory));
    let (passed, rest) = text.trim_end().rsplit('\n').next().unwrap().split_once(" passed, ").unwrap();
    assert_eq!(rest, "0 failed");
    passed.parse().unwrap()
}

/// An account under a KMS in a file, on the system's clock and with the cache's own threads.
struct World {
    directory: tempfile::TempDir,
    _cache: AekCache,
    account: Account,
    kek: String,
    custody: Custody,
    /// Under failover or joint custody.
    second_kek: Option<String>,
    /// Under double encryption.
    outer_kek: Option<String>,
}

/// As a record numbers them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Custody {
    Single = 1,
    Failover = 2,
    Joint = 3,
}

/// One of each suite, under each custody.
fn worlds() -> Vec<World> {
    let custodies = [Custody::Single, Custody::Failover, Custody::Joint];
    let suites = [Suite::Aes256Gcm, Suite::Double];
    suites.into_iter().flat_map(|suite| custodies.map(|custody| world(suite, custody))).collect()
}

fn world(suite: Suite, custody: Custody) -> World {
    let directory = tempfile::tempdir().unwrap();
    let kms = LocalKms::create(directory.path().join("kms.json")).unwrap();
    kms.create_key("orders", KeyOptions::default()).unwrap();
    kms.create_key("second", KeyOptions::default()).unwrap();
    kms.create_key("outer", KeyOptions::default()).unwrap();
    let kms: Arc<dyn KeyProvider> = Arc::new(kms);
    let kek = kms.authority().uri_of("orders").unwrap().to_string();
    let cache = AekCache::builder().build().unwrap();
    let mut spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest("orders"));
    let uri = |name: &str| kms.authority().uri_of(name).unwrap().to_string();
    let outer_kek = (suite == Suite::Double).then(|| uri("outer"));
    if outer_kek.is_some() {
        spec = spec.double_encryption(kms.clone(), Kek::latest("outer"));
    }
    let second_kek = (custody != Custody::Single).then(|| uri("second"));
    let second = Kek::latest("second");
    let spec = match custody {
        Custody::Single => spec,
        Custody::Failover => spec.failover(kms, second, AccountSpec::FAILOVER_LIMIT),
        Custody::Joint => spec.joint_with(kms, second),
    };
    let account = cache.create(spec).unwrap();
    World { directory, _cache: cache, account, kek, custody, second_kek, outer_kek }
}

impl World {
    /// What Python gets: the KMS's file, the record, and nothing that is secret beside.
    fn vector(&self, name: String, more: Value) -> Value {
        let file = std::fs::read_to_string(self.directory.path().join("kms.json")).unwrap();
        let custody = self.custody as u8;
        let name = format!("{name}, suite {}, custody {custody}", 1 + u8::from(self.outer_kek.is_some()));
        let mut vector = json!({
            "name": name, "file": file, "kek": self.kek, "outer_kek": self.outer_kek, "account": hex(self.account.id().as_bytes()),
            "custody": custody, "second_kek": self.second_kek,
            "record": hex(&self.account.record().to_bytes()),
        });
        vector.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        vector
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn plain(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

/// Contract F1, goal R3.
#[test]
fn f1_python_opens_and_refuses_the_frozen_vectors() {
    let passed = read_by_python(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors"));
    assert!(passed >= 600, "{passed}");
}

#[test]
fn f1_python_opens_what_the_library_seals_from_the_kms_file_on() {
    let mut vectors = Vec::new();
    let worlds = worlds();
    for (world, block) in worlds.iter().flat_map(|world| [4096, 65536].map(|block| (world, block))) {
        for len in [0, 1, block - 1, block, block + 1, 5 * block, 5 * block + 7] {
            let context = Context::new(&[b"bucket", b"path"]);
            let options = ObjectOptions::with_block_size(BlockSize::new(block).unwrap());
            let mut writer =
                SealedObject::writer_with(world.account.clone(), context, Vec::new(), options).unwrap();
            writer.write_all(&plain(len)).unwrap();
            let (sealed, _) = writer.finish().unwrap();
            let fields = json!({
                "op": "object", "parts": [hex(b"bucket"), hex(b"path")], "plain": hex(&plain(len)),
                "sealed": hex(&sealed),
            });
            vectors.push(world.vector(format!("object of {len} bytes in blocks of {block}"), fields));
            for at in [0, 50, 81, 127, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                let fields = json!({
                    "op": "object", "parts": [hex(b"bucket"), hex(b"path")], "sealed": hex(&changed),
                    "error": "any",
                });
                vectors.push(world.vector(format!("object of {len} in {block}, byte {at} changed"), fields));
            }
        }
    }
    for (world, len) in
        worlds.iter().flat_map(|world| [0, 1, 4095, 4096, 4097, 65536].map(|len| (world, len)))
    {
        let id = BlockId::new(ObjectId::random(), len as u64);
        let sealed = world.account.seal(id, Aad::new(b"tenant-42"), &plain(len)).unwrap();
        let fields = json!({
            "op": "block", "object": hex(id.object().as_bytes()), "index": id.index(), "aad": hex(b"tenant-42"),
            "plain": hex(&plain(len)), "sealed": hex(&sealed),
        });
        if world.custody == Custody::Failover {
            let mut fields = fields.clone();
            fields["first_is_silent"] = json!(true);
            vectors.push(world.vector(format!("block of {len} bytes, the first KEK silent"), fields));
        }
        vectors.push(world.vector(format!("block of {len} bytes"), fields));
    }
    let directory = tempfile::tempdir().unwrap();
    let file = json!({ "format": "chain", "vectors": vectors });
    std::fs::write(directory.path().join("chain.json"), file.to_string()).unwrap();
    // Beside these, the reader changes every bit of one of them.
    assert!(read_by_python(directory.path()) > vectors.len());
}

#[test]
fn f1_the_library_opens_what_python_seals() {
    for world in worlds() {
        let directory = tempfile::tempdir().unwrap();
        let [task, sealed] = ["task.json", "sealed.json"].map(|name| directory.path().join(name));
        let mut tasks = Vec::new();
        for len in [0, 1, 4095, 4096, 4097, 12288, 12289] {
            let fields = json!({
                "object": hex(ObjectId::random().as_bytes()), "index": len, "aad": hex(b"tenant-42"),
                "parts": [hex(b"bucket"), hex(b"path")], "log2": 12, "plain": hex(&plain(len)),
            });
            tasks.push(world.vector(format!("{len} bytes"), fields));
        }
        std::fs::write(&task, Value::from(tasks).to_string()).unwrap();
        run(Command::new(&*PYTHON).arg(script("writer.py")).arg(&task).arg(&sealed));
        let written: Value = serde_json::from_slice(&std::fs::read(&sealed).unwrap()).unwrap();
        let written = written.as_array().unwrap();
        assert_eq!(written.len(), 7);
        for one in written {
            let object = ObjectId::from_bytes(unhex(&one["object"]).try_into().unwrap());
            let id = BlockId::new(object, one["index"].as_u64().unwrap());
            let expected = unhex(&one["plain"]);
            let block = world.account.open(id, Aad::new(b"tenant-42"), &unhex(&one["block"])).unwrap();
            assert_eq!(block, expected);
            let context = Context::new(&[b"bucket", b"path"]);
            let mut reader =
                SealedObject::reader(world.account.clone(), context, unhex(&one["sealed"])).unwrap();
            let mut plain = Vec::new();
            reader.read_to_end(&mut plain).unwrap();
            assert_eq!(plain, expected);
            assert_eq!(reader.info().object, object);
        }
    }
}
