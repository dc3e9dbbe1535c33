//! Sealed objects, read as users read them.

use std::io::Read;

use serde_json::{Value, json};

use super::blocks::Recipe;
use super::derivations::{GENERATIONS, contexts, object_mac, parts};
use super::{
    File, Outcome, Owner, World, assert_plain, bytes, flipped, hex, kind, merge, plain_fields, set, stream,
    unhex,
};
use crate::derive::Kind;
use crate::error::{Error, ErrorKind};
use crate::format::frame;
use crate::format::object::{BlockSize, Context, ObjectInfo, header_bytes};
use crate::id::{ObjectId, Suite};
use crate::object::SealedObject;

/// Everything that makes one object.
#[derive(Clone)]
struct Whole {
    owner: Owner,
    object: [u8; 16],
    log2: u32,
    parts: Vec<Vec<u8>>,
    plain: Vec<u8>,
}

impl Whole {
    fn usual(suite: Suite, len: usize) -> Self {
        let parts = vec![b"bucket".to_vec(), b"path".to_vec()];
        Self {
            owner: Owner::usual_of(suite),
            object: bytes("object"),
            log2: 12,
            parts,
            plain: stream("plain", len),
        }
    }

    fn header(&self) -> Vec<u8> {
        let info = ObjectInfo {
            account: self.owner.account(),
            generation: self.owner.generation(),
            suite: self.owner.suite(),
            object: ObjectId::from_bytes(self.object),
            block_size: BlockSize::new(1 << self.log2).unwrap(),
        };
        self.with_mac(&header_bytes(&info))
    }

    /// A header may say anything, with a MAC that is right.
    fn with_mac(&self, header: &[u8]) -> Vec<u8> {
        [header, &object_mac(&self.owner, header, &self.parts)].concat()
    }

    fn frame(&self, index: u64, last: bool, plain: &[u8]) -> Vec<u8> {
        let recipe = Recipe {
            owner: self.owner.clone(),
            kind: Kind::ObjectFrame,
            last,
            object: self.object,
            index,
            aad: Vec::new(),
            r: bytes(&format!("r {index}")),
            plain: plain.to_vec(),
        };
        recipe.sealed()
    }

    fn frames(&self) -> Vec<Vec<u8>> {
        let mut blocks: Vec<&[u8]> = self.plain.chunks(1 << self.log2).collect();
        if blocks.is_empty() {
            blocks.push(&[]);
        }
        let count = blocks.len();
        let frame = |(index, block)| self.frame(index as u64, index + 1 == count, block);
        blocks.into_iter().enumerate().map(frame).collect()
    }

    fn sealed(&self) -> Vec<u8> {
        [self.header(), self.frames().concat()].concat()
    }

    fn fields(&self, sealed: &[u8]) -> Value {
        let parts: Vec<String> = self.parts.iter().map(|part| hex(part)).collect();
        json!({ "parts": parts, "sealed": hex(sealed) })
    }

    fn valid(&self, file: &mut File, name: impl Into<String>) {
        file.push(name, &self.owner, merge(self.fields(&self.sealed()), plain_fields(&self.plain)));
    }

    fn invalid(&self, file: &mut File, name: impl Into<String>, sealed: &[u8], error: ErrorKind) {
        let error = json!({ "error": format!("{error:?}") });
        file.push(name, &self.owner, merge(self.fields(sealed), error));
    }
}

pub(super) fn file(suite: Suite) -> File {
    let mut file = File::of(suite, "object");
    for len in [0, 1, 15, 16, 17, 48, 49, 100, 1000, 4047, 4048, 4095, 4096, 4097, 8191, 8192, 8193, 12289] {
        Whole::usual(suite, len).valid(&mut file, format!("{len} bytes"));
    }
    for log2 in 13..=24 {
        Whole { log2, ..Whole::usual(suite, 20) }.valid(&mut file, format!("blocks of 2^{log2}"));
    }
    Whole { log2: 13, ..Whole::usual(suite, 8193) }.valid(&mut file, "blocks of 2^13, two of them");
    for (i, parts) in contexts().into_iter().enumerate() {
        Whole { parts, ..Whole::usual(suite, 20) }.valid(&mut file, format!("context {i}"));
    }
    for generation in GENERATIONS {
        let owner = Owner { generation, ..Owner::usual_of(suite) };
        Whole { owner, ..Whole::usual(suite, 20) }.valid(&mut file, format!("generation {generation}"));
    }
    for byte in [0, 0xFF] {
        Whole { object: [byte; 16], ..Whole::usual(suite, 20) }
            .valid(&mut file, format!("object {byte:02x}.."));
    }
    header(&mut file, suite);
    contexts_and_owners(&mut file, suite);
    lengths(&mut file, suite);
    order(&mut file, suite);
    file
}

fn header(file: &mut File, suite: Suite) {
    let usual = Whole::usual(suite, 20);
    let sealed = usual.sealed();
    let remade = |header: &[u8]| [usual.with_mac(header), sealed[80..].to_vec()].concat();
    for at in 0..8 {
        let changed = flipped(&sealed[..48], at);
        usual.invalid(file, format!("magic, byte {at}"), &remade(&changed), ErrorKind::Format);
    }
    for (at, field, values) in [
        (8, "version", &[0, 2, 0x81, 0xFF][..]),
        (9, "suite", &[0, 3, 0x81, 0xFF]),
        (10, "block size 2^", &[0, 11, 25, 0xFF]),
        (11, "reserved byte", &[1, 0x80, 0xFF]),
    ] {
        for value in values {
            let changed = set(&sealed[..48], at, &[*value]);
            usual.invalid(file, format!("{field} {value}"), &remade(&changed), ErrorKind::Format);
        }
    }
    // The MAC is right, the frame is of the object's own suite.
    let other = set(&sealed[..48], 9, &[3 - suite.number()]);
    usual.invalid(file, "the other suite, MAC made anew", &remade(&other), ErrorKind::Corrupt);
    usual.invalid(file, "the other suite", &set(&sealed, 9, &[3 - suite.number()]), ErrorKind::Corrupt);
    usual.invalid(file, "generation 0", &remade(&set(&sealed[..48], 12, &[0; 4])), ErrorKind::Format);
    let other = set(&sealed[..48], 12, &[0, 0, 0, 2]);
    usual.invalid(file, "generation 2, which is not known", &remade(&other), ErrorKind::UnknownGeneration);
    // The MAC is right, the frame is sealed for another object.
    let other = set(&sealed[..48], 32, &bytes::<16>("object 2"));
    usual.invalid(file, "another object, MAC made anew", &remade(&other), ErrorKind::Corrupt);
    let other = set(&sealed[..48], 16, &bytes::<16>("account 2"));
    usual.invalid(file, "another account, MAC made anew", &remade(&other), ErrorKind::Corrupt);
    for at in (16..48).step_by(3).chain(48..80) {
        usual.invalid(file, format!("byte {at} is changed"), &flipped(&sealed, at), ErrorKind::Corrupt);
    }
    for log2 in [13, 24] {
        let changed = set(&sealed, 10, &[log2]);
        usual.invalid(file, format!("block size 2^{log2} written over"), &changed, ErrorKind::Corrupt);
    }
}

fn contexts_and_owners(file: &mut File, suite: Suite) {
    let usual = Whole::usual(suite, 20);
    let sealed = usual.sealed();
    let part = |text: &str| text.as_bytes().to_vec();
    let others = [
        vec![],
        vec![part("bucket")],
        vec![part("path"), part("bucket")],
        vec![part("bucketpath")],
        vec![part("bucketp"), part("ath")],
        vec![part("bucket"), part("path"), part("")],
        vec![part("bucket"), part("other")],
    ];
    for (i, parts) in others.into_iter().enumerate() {
        let elsewhere = Whole { parts, ..usual.clone() };
        elsewhere.invalid(file, format!("other context {i}"), &sealed, ErrorKind::Corrupt);
    }
    let owner = Owner { account: bytes("account 2"), ..usual.owner.clone() };
    Whole { owner, ..usual.clone() }.invalid(file, "of another account", &sealed, ErrorKind::Corrupt);
    let owner = Owner { secret: bytes("secret 2"), ..usual.owner.clone() };
    Whole { owner, ..usual.clone() }.invalid(file, "of another secret", &sealed, ErrorKind::Corrupt);
    if suite == Suite::Double {
        let owner = Owner { outer: Some(bytes("outer secret 2")), ..usual.owner.clone() };
        let elsewhere = Whole { owner, ..usual.clone() };
        elsewhere.invalid(file, "of another outer secret", &sealed, ErrorKind::Corrupt);
        let single = Whole { owner: Owner::usual(), ..usual.clone() };
        let header = [&sealed[..48], &object_mac(&single.owner, &sealed[..48], &usual.parts)].concat();
        let forged = [&header, &sealed[80..]].concat();
        usual.invalid(file, "MAC under the first key alone", &forged, ErrorKind::Corrupt);
        usual.invalid(file, "of the account before it was double", &single.sealed(), ErrorKind::Corrupt);
    } else {
        let double = Whole { owner: Owner::usual_of(Suite::Double), ..usual.clone() };
        usual.invalid(file, "of the account under double encryption", &double.sealed(), ErrorKind::Corrupt);
    }
    let owner = Owner { generation: 2, ..usual.owner.clone() };
    let newer = Whole { owner, ..usual };
    newer.invalid(file, "of an older generation", &sealed, ErrorKind::UnknownGeneration);
}

fn lengths(file: &mut File, suite: Suite) {
    let overhead = frame::overhead(Kind::ObjectFrame, suite);
    let small = Whole::usual(suite, 20);
    let sealed = small.sealed();
    let least = 80 + overhead;
    for len in [0, 1, 8, 47, 48, 79, 80, 81, least - 1] {
        small.invalid(file, format!("cut to {len} bytes"), &sealed[..len], ErrorKind::Format);
    }
    for len in [least, least + 1, sealed.len() - 1] {
        small.invalid(file, format!("cut to {len} bytes"), &sealed[..len], ErrorKind::Corrupt);
    }
    for more in [1, 48, 49] {
        let longer = [&sealed[..], &vec![0; more]].concat();
        small.invalid(file, format!("{more} bytes more"), &longer, ErrorKind::Corrupt);
    }
    let full = Whole::usual(suite, 4096);
    let sealed = full.sealed();
    for more in [1, overhead - 1, overhead] {
        let longer = [&sealed[..], &vec![0; more]].concat();
        full.invalid(file, format!("full block, {more} bytes more"), &longer, ErrorKind::Format);
    }
    let longer = [&sealed[..], &vec![0; overhead + 1]].concat();
    // A possible length, but no frame begins with zeros.
    full.invalid(file, format!("full block, {} bytes more", overhead + 1), &longer, ErrorKind::Format);
    full.invalid(file, "full block, a byte less", &sealed[..sealed.len() - 1], ErrorKind::Corrupt);
    let two = Whole::usual(suite, 4097);
    let sealed = two.sealed();
    two.invalid(file, "cut at the edge of a frame", &sealed[..80 + 4096 + overhead], ErrorKind::Corrupt);
    two.invalid(file, "cut within the head of a frame", &sealed[..sealed.len() - 2], ErrorKind::Format);
    two.invalid(
        file,
        "without its first frame",
        &[&sealed[..80], &sealed[80 + 4096 + overhead..]].concat(),
        ErrorKind::Corrupt,
    );
    let empty = Whole::usual(suite, 0);
    let twice = [empty.header(), empty.frame(0, false, &[]), empty.frame(1, true, &[])].concat();
    empty.invalid(file, "two empty frames", &twice, ErrorKind::Corrupt);
    let after = [full.header(), full.frame(0, false, &full.plain), full.frame(1, true, &[])].concat();
    full.invalid(file, "an empty frame after a full one", &after, ErrorKind::Format);
}

fn order(file: &mut File, suite: Suite) {
    let whole = Whole::usual(suite, 8193);
    let [first, second, last] = <[Vec<u8>; 3]>::try_from(whole.frames()).expect("three frames");
    let of = |frames: &[&[u8]]| [whole.header(), frames.concat()].concat();
    let mut refused = |name: &str, frames: &[&[u8]], error| whole.invalid(file, name, &of(frames), error);
    refused("first two frames swapped", &[&second, &first, &last], ErrorKind::Corrupt);
    refused("first frame twice", &[&first, &first, &last], ErrorKind::Corrupt);
    refused("second frame left out", &[&first, &last], ErrorKind::Corrupt);
    // The short one in front moves the others: where a frame has to begin there is ciphertext.
    refused("last frame first", &[&last, &second, &first], ErrorKind::Format);
    refused("mark of the last frame taken off", &[&first, &second, &set(&last, 3, &[0])], ErrorKind::Corrupt);
    refused("first frame marked last", &[&set(&first, 3, &[1]), &second, &last], ErrorKind::Corrupt);
    let unmarked = whole.frame(2, false, &whole.plain[8192..]);
    refused("last frame sealed as one of the middle", &[&first, &second, &unmarked], ErrorKind::Corrupt);
    let marked = whole.frame(0, true, &whole.plain[..4096]);
    refused("first frame sealed as the last", &[&marked, &second, &last], ErrorKind::Corrupt);
    let other = Whole { object: bytes("object 2"), ..whole.clone() }.frames();
    refused("second frame of another object", &[&first, &other[1], &last], ErrorKind::Corrupt);
    let small = Whole::usual(suite, 20);
    let frame = small.frames().concat();
    for (at, field, value, error) in [
        (0, "version", 2, ErrorKind::Format),
        (1, "suite", 0, ErrorKind::Format),
        (1, "suite", 3, ErrorKind::Format),
        (1, "suite", 3 - suite.number(), ErrorKind::Corrupt),
        (2, "kind", 1, ErrorKind::Format),
        (2, "kind", 3, ErrorKind::Format),
        (3, "flags", 0, ErrorKind::Corrupt),
        (3, "flags", 2, ErrorKind::Format),
        (3, "flags", 3, ErrorKind::Format),
        (7, "generation", 0, ErrorKind::Format),
        (7, "generation", 2, ErrorKind::Corrupt),
    ] {
        let sealed = [small.header(), set(&frame, at, &[value])].concat();
        small.invalid(file, format!("frame's {field} {value}"), &sealed, error);
    }
    for at in [8, 31, 32, 51, 52, frame.len() - 1] {
        let sealed = [small.header(), flipped(&frame, at)].concat();
        small.invalid(file, format!("frame's byte {at} is changed"), &sealed, ErrorKind::Corrupt);
    }
}

/// Read to the end, and the same from the back, byte after byte where that is not too long.
pub(super) fn check(world: &mut World, vector: &Value) -> Outcome {
    let parts = parts(vector);
    let context = Context::new(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let sealed = unhex(vector, "sealed");
    let mut reader = SealedObject::reader(world.account(vector), context, sealed).map_err(kind)?;
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).map_err(|error| kind(Error::find(&error).expect("is ours").clone()))?;
    assert_eq!(reader.len(), plain.len() as u64);
    for at in (0..plain.len()).rev().step_by(plain.len() / 64 + 1) {
        let mut byte = [0];
        assert_eq!(reader.read_at(at as u64, &mut byte).unwrap(), 1);
        assert_eq!(byte[0], plain[at]);
    }
    assert_plain(vector, &plain);
    Ok(())
}
