//! Manifests of takeovers and their marks: the plaintexts of the sealed objects that carry them, laid out by hand, and the contexts of these.

use serde_json::{Value, json};

use super::{File, Outcome, Owner, World, bytes, hex, kind, number, set, string, text, unhex, unhex_array};
use crate::format::takeover::{Root, RootState, SegmentBody, root_context, segment_context};
use crate::id::ObjectId;
use crate::store::TakeoverMark;

const STORE: &str = "orders-bucket";

pub(super) fn file() -> File {
    let mut file = File::new("takeover");
    roots(&mut file);
    segments(&mut file);
    marks(&mut file);
    file
}

fn takeover() -> [u8; 16] {
    bytes("takeover")
}

fn push(file: &mut File, of: &str, name: &str, content: &[u8], more: Value) {
    let Value::Object(mut fields) = more else { panic!("fields") };
    fields.insert("of".to_owned(), json!(of));
    fields.insert("content".to_owned(), json!(hex(content)));
    file.push(format!("{of}: {name}"), &Owner::usual(), Value::Object(fields));
}

fn refuse(file: &mut File, of: &str, name: &str, content: &[u8]) {
    push(file, of, name, content, json!({ "error": "Format" }));
}

fn cut(file: &mut File, of: &str, content: &[u8], lens: &[usize]) {
    for len in lens {
        refuse(file, of, &format!("cut to {len} bytes"), &content[..*len]);
    }
    refuse(file, of, "a byte more", &[content, &[0]].concat());
}

fn root(changes: u64, state: u8, segments: u32, objects: u64, size: u64) -> Vec<u8> {
    let (changes, segments) = (changes.to_be_bytes(), segments.to_be_bytes());
    [&[1][..], &takeover(), &changes, &[state], &segments, &objects.to_be_bytes(), &size.to_be_bytes()]
        .concat()
}

fn roots(file: &mut File) {
    for (changes, state, segments, objects, size) in [
        (1, 1, 0, 0, 0),
        (2, 2, 3, 2500, 1 << 40),
        (3, 3, 3, 2500, 1 << 40),
        (u64::MAX, 2, 4096, 1_000_000, u64::MAX),
    ] {
        let content = root(changes, state, segments, objects, size);
        for prefix in ["", "tenants/ada"] {
            let context = root_context(STORE, prefix);
            let more = json!({
                "takeover": hex(&takeover()), "changes": changes, "state": state, "segments": segments,
                "objects": objects, "bytes": size, "store": STORE, "prefix": prefix,
                "context": hex(context.as_bytes()),
            });
            push(file, "root", &format!("changes {changes}, under {prefix:?}"), &content, more);
        }
    }
    let usual = root(2, 2, 3, 2500, 1 << 40);
    for (name, at, to) in [
        ("version 0", 0, &[0][..]),
        ("version 2", 0, &[2]),
        ("no changes", 17, &[0; 8]),
        ("state 0", 25, &[0]),
        ("state 4", 25, &[4]),
        ("a segment too many", 26, &4097_u32.to_be_bytes()),
        ("an object too many", 30, &1_000_001_u64.to_be_bytes()),
    ] {
        refuse(file, "root", name, &set(&usual, at, to));
    }
    cut(file, "root", &usual, &[0, 1, 16, 17, 26, 45]);
}

/// An entry, and the fields that say what it says.
struct Entry {
    path: Vec<u8>,
    tag: Vec<u8>,
    version: Option<Vec<u8>>,
}

impl Entry {
    fn new(path: &str) -> Self {
        Self { path: path.as_bytes().to_vec(), tag: b"0x8DBEEF".to_vec(), version: None }
    }

    fn content(&self) -> Vec<u8> {
        let (size, modified) = (7_u64.to_be_bytes(), 1_790_000_000_u64.to_be_bytes());
        let flag = [u8::from(self.version.is_some())];
        let version = self.version.as_deref().map(string).unwrap_or_default();
        [&string(&self.path)[..], &size, &modified, &string(&self.tag), &flag, &version].concat()
    }

    fn fields(&self) -> Value {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        json!({
            "path": text(&self.path), "size": 7, "modified": 1_790_000_000, "e_tag": text(&self.tag),
            "version": self.version.as_deref().map(text),
        })
    }
}

fn segment(changes: u64, entries: &[Entry]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).unwrap().to_be_bytes();
    let entries: Vec<u8> = entries.iter().flat_map(Entry::content).collect();
    [&[1][..], &changes.to_be_bytes(), &count, &entries].concat()
}

fn segments(file: &mut File) {
    let versioned = |path: &str| Entry { version: Some(b"2026-11-27".to_vec()), ..Entry::new(path) };
    let long = |len: usize| "p".repeat(len);
    for (name, changes, number, entries) in [
        ("empty", 1, 0_u32, vec![]),
        ("one", 1, 0, vec![Entry::new("a")]),
        ("of a bucket with versions", 9, 1, vec![versioned("a/1"), Entry::new("a/1v"), versioned("b")]),
        ("other letters", 2, 4095, vec![Entry::new("ä/文"), Entry::new("😀")]),
        ("control characters", 2, 1, vec![Entry { tag: b"\n\x7f".to_vec(), ..versioned("\u{1}/\u{85}") }]),
        ("longest path", u64::MAX, 7, vec![Entry::new(&long(4096))]),
        ("longest tag", 3, 8, vec![Entry { tag: vec![b't'; 1024], ..Entry::new("a") }]),
        ("longest version", 3, 9, vec![Entry { version: Some(vec![b'v'; 1024]), ..Entry::new("a") }]),
    ] {
        let content = segment(changes, &entries);
        let context = segment_context(STORE, "tenants/ada", ObjectId::from_bytes(takeover()), number);
        let more = json!({
            "changes": changes, "entries": entries.iter().map(Entry::fields).collect::<Vec<_>>(),
            "number": number, "takeover": hex(&takeover()), "store": STORE, "prefix": "tenants/ada",
            "context": hex(context.as_bytes()),
        });
        push(file, "segment", name, &content, more);
    }
    malformed_segments(file, &versioned("b"));
}

fn malformed_segments(file: &mut File, versioned: &Entry) {
    let one = |entry: Entry| segment(1, &[entry]);
    let usual = segment(1, &[Entry::new("a")]);
    for (name, at, to) in [
        ("version 0", 0, &[0][..]),
        ("version 2", 0, &[2]),
        ("no changes", 1, &[0; 8]),
        ("none of one", 9, &[0, 0]),
        ("two of one", 9, &[0, 2]),
        ("1001 entries", 9, &1001_u16.to_be_bytes()),
        ("flag 2", usual.len() - 1, &[2]),
        ("flag without a version", usual.len() - 1, &[1]),
        ("longer path than there is", 11, &[0xFF, 0xFF]),
        ("path not UTF-8", 13, &[0xFF]),
        ("tag not UTF-8", 32, &[0xFF]),
    ] {
        refuse(file, "segment", name, &set(&usual, at, to));
    }
    for (name, content) in [
        ("not in order", segment(1, &[Entry::new("b"), Entry::new("a")])),
        ("a path twice", segment(1, &[Entry::new("a"), Entry::new("a")])),
        ("path empty", one(Entry::new(""))),
        ("path too long", one(Entry::new(&"p".repeat(4097)))),
        ("tag empty", one(Entry { tag: Vec::new(), ..Entry::new("a") })),
        ("tag too long", one(Entry { tag: vec![b't'; 1025], ..Entry::new("a") })),
        ("version empty", one(Entry { version: Some(Vec::new()), ..Entry::new("a") })),
        ("version too long", one(Entry { version: Some(vec![b'v'; 1025]), ..Entry::new("a") })),
    ] {
        refuse(file, "segment", name, &content);
    }
    let content = [&segment(1, &[])[..9], &[0, 1], &versioned.content()].concat();
    cut(file, "segment", &content, &[0, 1, 9, 10, 12, 14, 21, 30, 40, content.len() - 1]);
}

fn mark(root: u64, segments: &[u64]) -> Vec<u8> {
    let count = u32::try_from(segments.len()).unwrap().to_be_bytes();
    let segments: Vec<u8> = segments.iter().flat_map(|changes| changes.to_be_bytes()).collect();
    [&[1][..], &takeover(), &root.to_be_bytes(), &count, &segments].concat()
}

fn marks(file: &mut File) {
    for (name, root, segments) in [
        ("finished", 3, vec![]),
        ("one segment", 2, vec![1]),
        ("three segments", u64::MAX, vec![1, u64::MAX, 7]),
    ] {
        let more = json!({ "takeover": hex(&takeover()), "root": root, "segments": segments });
        push(file, "mark", name, &mark(root, &segments), more);
    }
    let usual = mark(2, &[1, 9]);
    for (name, at, to) in [
        ("version 0", 0, &[0][..]),
        ("version 2", 0, &[2]),
        ("one of two", 25, &[0, 0, 0, 1]),
        ("three of two", 25, &[0, 0, 0, 3]),
        ("4097 segments", 25, &4097_u32.to_be_bytes()),
    ] {
        refuse(file, "mark", name, &set(&usual, at, to));
    }
    cut(file, "mark", &usual, &[0, 1, 17, 25, 29, 44]);
}

pub(super) fn check(_: &mut World, vector: &Value) -> Outcome {
    let content = unhex(vector, "content");
    match text(vector, "of") {
        "root" => check_root(vector, &content),
        "segment" => check_segment(vector, &content),
        "mark" => check_mark(vector, &content),
        other => panic!("{other}"),
    }
}

fn check_root(vector: &Value, content: &[u8]) -> Outcome {
    let root = Root::parse(content).map_err(kind)?;
    assert_eq!(root.to_bytes(), content);
    assert_eq!(root.takeover.as_bytes(), &unhex_array::<16>(vector, "takeover"));
    let state = match root.state {
        RootState::Beginning => 1,
        RootState::UnderWay => 2,
        RootState::Finished => 3,
    };
    let found = [root.version, state, root.segments.into(), root.objects, root.bytes];
    let fields = ["changes", "state", "segments", "objects", "bytes"];
    assert_eq!(found, fields.map(|field| number(vector, field)));
    let context = root_context(text(vector, "store"), text(vector, "prefix"));
    assert_eq!(context.as_bytes(), &unhex_array::<32>(vector, "context"));
    Ok(())
}

fn check_segment(vector: &Value, content: &[u8]) -> Outcome {
    let body = SegmentBody::parse(content).map_err(kind)?;
    assert_eq!(body.to_bytes(), content);
    assert_eq!(body.version, number(vector, "changes"));
    let fields = |entry: &crate::format::takeover::Entry| {
        json!({
            "path": *entry.path, "size": entry.size, "modified": entry.modified, "e_tag": *entry.e_tag,
            "version": entry.version.as_deref(),
        })
    };
    let entries: Vec<Value> = body.entries.iter().map(fields).collect();
    assert_eq!(json!(entries), vector["entries"]);
    let takeover = ObjectId::from_bytes(unhex_array(vector, "takeover"));
    let number = u32::try_from(number(vector, "number")).unwrap();
    let context = segment_context(text(vector, "store"), text(vector, "prefix"), takeover, number);
    assert_eq!(context.as_bytes(), &unhex_array::<32>(vector, "context"));
    Ok(())
}

fn check_mark(vector: &Value, content: &[u8]) -> Outcome {
    let mark = TakeoverMark::parse(content).map_err(kind)?;
    assert_eq!(mark.to_bytes(), content);
    assert_eq!(mark.takeover.as_bytes(), &unhex_array::<16>(vector, "takeover"));
    assert_eq!(
        (json!(mark.root), json!(mark.segments)),
        (vector["root"].clone(), vector["segments"].clone())
    );
    Ok(())
}
