//! Blocks that stand alone, also detached, and frames of objects.

use serde_json::{Value, json};

use super::derivations::{GENERATIONS, INDICES};
use super::{
    File, Outcome, Owner, World, assert_plain, bytes, flipped, hex, kind, merge, number, plain_fields, set,
    stream, unhex, unhex_array,
};
use crate::block::Place;
use crate::derive::{Kind, Nonce24};
use crate::error::ErrorKind;
use crate::format::frame::{self, Detached, Tags, peek};
use crate::id::{Aad, BlockId, ObjectId, Suite};

/// Everything that makes one block or frame.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) owner: Owner,
    pub(super) kind: Kind,
    pub(super) last: bool,
    pub(super) object: [u8; 16],
    pub(super) index: u64,
    pub(super) aad: Vec<u8>,
    pub(super) r: [u8; 24],
    pub(super) plain: Vec<u8>,
}

impl Recipe {
    fn usual(suite: Suite, kind: Kind) -> Self {
        Self {
            owner: Owner::usual_of(suite),
            kind,
            last: false,
            object: bytes("object"),
            index: 7,
            aad: if kind == Kind::Block { b"tenant-42".to_vec() } else { Vec::new() },
            r: bytes("r"),
            plain: stream("plain", 17),
        }
    }

    pub(super) fn sealed(&self) -> Vec<u8> {
        let Self { owner, kind, last, object, index, aad, r, plain } = self;
        let id = BlockId::new(ObjectId::from_bytes(*object), *index);
        let place = Place { kind: *kind, last: *last, id, aad: Aad::new(aad) };
        let mut data = plain.clone();
        let r = Nonce24::from_bytes(*r);
        let (head, tags) = owner.keys().seal_with_for_tests(&place, r, &mut data).unwrap();
        let mut out = vec![0; frame::head_len(*kind)];
        head.write(&mut out);
        out.extend(data);
        let end = out.len();
        out.resize(end + Tags::len(owner.suite()), 0);
        tags.write(&mut out[end..]);
        out
    }

    /// Where it is; what is in it and its bytes come beside this.
    fn place(&self) -> Value {
        let place = json!({ "object": hex(&self.object), "index": self.index });
        match self.kind {
            Kind::ObjectFrame => merge(place, json!({ "last": self.last })),
            Kind::Block if self.aad.len() > 200 => {
                merge(place, json!({ "aad_len": self.aad.len(), "aad_byte": self.aad[0] }))
            }
            Kind::Block => merge(place, json!({ "aad": hex(&self.aad) })),
        }
    }

    fn valid(&self, file: &mut File, name: impl Into<String>) {
        let fields = merge(self.place(), json!({ "sealed": hex(&self.sealed()) }));
        file.push(name, &self.owner, merge(fields, plain_fields(&self.plain)));
    }

    /// `sealed` is not what this recipe makes, or this is not the recipe that made it.
    fn invalid(&self, file: &mut File, name: impl Into<String>, sealed: &[u8], error: ErrorKind) {
        let fields = merge(self.place(), json!({ "sealed": hex(sealed), "error": format!("{error:?}") }));
        file.push(name, &self.owner, fields);
    }
}

pub(super) fn blocks(suite: Suite) -> File {
    let mut file = File::of(suite, "block");
    valid(&mut file, suite, Kind::Block);
    let usual = Recipe::usual(suite, Kind::Block);
    for len in [0, 1, 31, 32, 33, 47, 48, 79, 80, 81, 127, 128, 129, 200, 4095, 4096] {
        Recipe { aad: vec![0xA5; len], ..usual.clone() }.valid(&mut file, format!("AAD of {len} bytes"));
    }
    for len in [0, 1, 15, 16, 17, 100] {
        let recipe = Recipe { plain: stream("plain", len), ..usual.clone() };
        let sealed = recipe.sealed();
        let head = [&sealed[..48], &sealed[48 + len..]].concat();
        let apart = json!({ "head": hex(&head), "ciphertext": hex(&sealed[48..48 + len]) });
        let fields = merge(merge(recipe.place(), apart.clone()), plain_fields(&recipe.plain));
        file.push(format!("detached, {len} bytes"), &recipe.owner, fields);
        let other = json!({ "aad": hex(b"tenant-43"), "error": "Corrupt" });
        let fields = merge(merge(recipe.place(), apart), other);
        file.push(format!("detached, {len} bytes, another AAD"), &recipe.owner, fields);
    }
    invalid(&mut file, suite, Kind::Block);

    let sealed = usual.sealed();
    for at in 32..48 {
        let name = format!("byte {at}, of the commitment, is changed");
        usual.invalid(&mut file, name, &flipped(&sealed, at), ErrorKind::UnknownGeneration);
    }
    let mut elsewhere = |name: &str, recipe: Recipe, error| recipe.invalid(&mut file, name, &sealed, error);
    elsewhere("other AAD", Recipe { aad: b"tenant-43".to_vec(), ..usual.clone() }, ErrorKind::Corrupt);
    elsewhere("no AAD", Recipe { aad: Vec::new(), ..usual.clone() }, ErrorKind::Corrupt);
    elsewhere("AAD cut short", Recipe { aad: b"tenant-4".to_vec(), ..usual.clone() }, ErrorKind::Corrupt);
    elsewhere("AAD too long", Recipe { aad: vec![0xA5; 4097], ..usual.clone() }, ErrorKind::Limit);
    file
}

pub(super) fn frames(suite: Suite) -> File {
    let mut file = File::of(suite, "frame");
    valid(&mut file, suite, Kind::ObjectFrame);
    let usual = Recipe::usual(suite, Kind::ObjectFrame);
    for len in [0, 1, 16, 4096] {
        let recipe = Recipe { plain: stream("plain", len), last: true, ..usual.clone() };
        recipe.valid(&mut file, format!("last, {len} bytes"));
    }
    invalid(&mut file, suite, Kind::ObjectFrame);
    let last = Recipe { last: true, ..usual.clone() };
    usual.invalid(&mut file, "the last one in the middle", &last.sealed(), ErrorKind::Corrupt);
    last.invalid(&mut file, "one of the middle at the end", &usual.sealed(), ErrorKind::Corrupt);
    let marked = set(&usual.sealed(), 3, &[1]);
    last.invalid(&mut file, "marked last afterwards", &marked, ErrorKind::Corrupt);
    let unmarked = set(&last.sealed(), 3, &[0]);
    usual.invalid(&mut file, "mark taken off afterwards", &unmarked, ErrorKind::Corrupt);
    file
}

fn valid(file: &mut File, suite: Suite, kind: Kind) {
    let usual = Recipe::usual(suite, kind);
    for len in [0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000] {
        Recipe { plain: stream("plain", len), ..usual.clone() }.valid(file, format!("{len} bytes"));
    }
    for index in INDICES {
        Recipe { index, ..usual.clone() }.valid(file, format!("index {index}"));
    }
    for generation in GENERATIONS {
        let owner = Owner { generation, ..usual.owner.clone() };
        Recipe { owner, ..usual.clone() }.valid(file, format!("generation {generation}"));
    }
    for byte in [0, 0xFF] {
        Recipe { object: [byte; 16], ..usual.clone() }.valid(file, format!("object {byte:02x}.."));
        Recipe { r: [byte; 24], ..usual.clone() }.valid(file, format!("R {byte:02x}.."));
        Recipe { plain: vec![byte; 32], ..usual.clone() }.valid(file, format!("plaintext {byte:02x}.."));
        let owner = Owner { account: [byte; 16], ..usual.owner.clone() };
        Recipe { owner, ..usual.clone() }.valid(file, format!("account {byte:02x}.."));
        let owner = Owner { secret: [byte; 32], ..usual.owner.clone() };
        Recipe { owner, ..usual.clone() }.valid(file, format!("secret {byte:02x}.."));
    }
}

fn invalid(file: &mut File, suite: Suite, of: Kind) {
    let usual = Recipe::usual(suite, of);
    let sealed = usual.sealed();
    let overhead = frame::overhead(of, suite);
    let other_suite = 3 - suite.number();
    let (other_kind, own_kind) = match of {
        Kind::Block => (2, 1),
        Kind::ObjectFrame => (1, 2),
    };
    for (at, field, values) in [
        (0, "version", &[0, 2, 0x81, 0xFF][..]),
        (1, "suite", &[0, 3, 0x81, 0xFF]),
        (2, "kind", &[0, other_kind, 3, 4, 0x80 | own_kind, 0xFF]),
        (3, "flags", &[2, 3, 4, 0x80, 0xFF]),
    ] {
        for value in values {
            let changed = set(&sealed, at, &[*value]);
            usual.invalid(file, format!("{field} {value}"), &changed, ErrorKind::Format);
        }
    }
    let other = set(&sealed, 1, &[other_suite]);
    usual.invalid(file, "the other suite", &other, ErrorKind::Corrupt);
    let tags = sealed.len() - Tags::len(suite);
    let (name, other) = match suite {
        Suite::Aes256Gcm => ("the other suite, with two tags", [&other[..], &[0; 16]].concat()),
        Suite::Double => ("the other suite, with one tag", [&other[..tags], &other[tags + 16..]].concat()),
    };
    usual.invalid(file, name, &other, ErrorKind::Corrupt);
    usual.invalid(file, "generation 0", &set(&sealed, 4, &[0; 4]), ErrorKind::Format);
    for generation in [2_u32, 0x0100_0001, u32::MAX] {
        let changed = set(&sealed, 4, &generation.to_be_bytes());
        // The generation of an object is proven by its header: a frame of another one is damaged.
        let error = match of {
            Kind::Block => ErrorKind::UnknownGeneration,
            Kind::ObjectFrame => ErrorKind::Corrupt,
        };
        usual.invalid(file, format!("generation {generation}, which is not known"), &changed, error);
    }
    for at in (8..32).chain(frame::head_len(of)..sealed.len()) {
        let name = format!("byte {at} is changed");
        usual.invalid(file, name, &flipped(&sealed, at), ErrorKind::Corrupt);
    }
    for len in [0, 1, 7, 8, 9, 31, 32, 47, overhead - 1] {
        let (name, cut) = (format!("cut to {len} bytes"), &sealed[..len]);
        if !file.vectors.iter().any(|other| other["name"] == name.as_str()) {
            usual.invalid(file, name, cut, ErrorKind::Format);
        }
    }
    for len in [overhead, overhead + 1, sealed.len() - 16, sealed.len() - 1] {
        let (name, cut) = (format!("cut to {len} bytes"), &sealed[..len]);
        if !file.vectors.iter().any(|other| other["name"] == name.as_str()) {
            usual.invalid(file, name, cut, ErrorKind::Corrupt);
        }
    }
    for more in [1, 16, 64] {
        let longer = [&sealed[..], &vec![0; more]].concat();
        usual.invalid(file, format!("{more} bytes more"), &longer, ErrorKind::Corrupt);
    }
    let twice = [&sealed[..], &sealed].concat();
    usual.invalid(file, "twice", &twice, ErrorKind::Corrupt);

    let foreign = match of {
        Kind::Block => ErrorKind::UnknownGeneration,
        Kind::ObjectFrame => ErrorKind::Corrupt,
    };
    let mut elsewhere = |name: &str, recipe: Recipe, error| recipe.invalid(file, name, &sealed, error);
    elsewhere("another object", Recipe { object: bytes("object 2"), ..usual.clone() }, ErrorKind::Corrupt);
    elsewhere("the next index", Recipe { index: 8, ..usual.clone() }, ErrorKind::Corrupt);
    elsewhere("index in another byte", Recipe { index: 7 << 56, ..usual.clone() }, ErrorKind::Corrupt);
    let owner = Owner { account: bytes("account 2"), ..usual.owner.clone() };
    elsewhere("another account, the same secret", Recipe { owner, ..usual.clone() }, foreign);
    let owner = Owner { secret: bytes("secret 2"), ..usual.owner.clone() };
    elsewhere("another secret", Recipe { owner, ..usual.clone() }, foreign);
    if suite == Suite::Double {
        let owner = Owner { outer: Some(bytes("outer secret 2")), ..usual.owner.clone() };
        elsewhere("another outer secret", Recipe { owner, ..usual.clone() }, foreign);
        let owner =
            Owner { secret: bytes("outer secret"), outer: Some(bytes("secret")), ..usual.owner.clone() };
        elsewhere("the secrets exchanged", Recipe { owner, ..usual.clone() }, foreign);
        // Two versions of one block.
        let twin = Recipe { r: bytes("r 2"), ..usual.clone() }.sealed();
        let end = sealed.len();
        for (name, piece) in [
            ("the ciphertext of its twin", frame::head_len(of)..end - 32),
            ("the masked tag of its twin", end - 32..end - 16),
            ("the outer tag of its twin", end - 16..end),
            ("both tags of its twin", end - 32..end),
        ] {
            let mixed = set(&sealed, piece.start, &twin[piece]);
            usual.invalid(file, name, &mixed, ErrorKind::Corrupt);
        }
        let swapped = [&sealed[..end - 32], &sealed[end - 16..], &sealed[end - 32..end - 16]].concat();
        usual.invalid(file, "its tags exchanged", &swapped, ErrorKind::Corrupt);
    }
}

/// Every public way to open a block has the same outcome.
pub(super) fn check_block(world: &mut World, vector: &Value) -> Outcome {
    let account = world.account(vector);
    let id = BlockId::new(ObjectId::from_bytes(unhex_array(vector, "object")), number(vector, "index"));
    let aad = match vector.get("aad") {
        Some(_) => unhex(vector, "aad"),
        None => {
            let byte = u8::try_from(number(vector, "aad_byte")).unwrap();
            vec![byte; usize::try_from(number(vector, "aad_len")).unwrap()]
        }
    };
    let aad = Aad::new(&aad);
    let detached = |head: &[u8], ciphertext: &[u8]| {
        let mut data = ciphertext.to_vec();
        let opened = Detached::from_bytes(head)
            .and_then(|head| account.permit().unwrap().open_detached(id, aad, &head, &mut data));
        opened.map(|()| data).map_err(kind)
    };
    if vector.get("head").is_some() {
        assert_plain(vector, &detached(&unhex(vector, "head"), &unhex(vector, "ciphertext"))?);
        return Ok(());
    }
    let sealed = unhex(vector, "sealed");
    let permit = account.permit().unwrap();
    let opened = permit.open(id, aad, &sealed).map_err(kind);
    let info = peek(&sealed);
    let mut out = vec![0; info.as_ref().map_or(0, |info| info.plain_len())];
    let into = permit.open_into(id, aad, &sealed, &mut out).map(|()| out).map_err(kind);
    let of_bytes =
        permit.open_bytes(id, aad, sealed.clone().into()).map(|plain| plain.to_vec()).map_err(kind);
    assert_eq!((&opened, &opened), (&into, &of_bytes), "{}", vector["name"]);
    if let Some(info) = info.ok().filter(|info| info.kind() == Kind::Block) {
        let (head, rest) = sealed.split_at(48);
        let (ciphertext, tags) = rest.split_at(info.plain_len());
        let apart = detached(&[head, tags].concat(), ciphertext);
        assert_eq!(opened, apart, "{}", vector["name"]);
    }
    assert_plain(vector, &opened?);
    Ok(())
}

pub(super) fn check_frame(world: &mut World, vector: &Value) -> Outcome {
    let account = world.account(vector);
    let permit = account.permit().unwrap();
    let id = BlockId::new(ObjectId::from_bytes(unhex_array(vector, "object")), number(vector, "index"));
    let (last, sealed) = (vector["last"].as_bool().unwrap(), unhex(vector, "sealed"));
    let generation = Owner::read(vector).generation();
    let mut out = vec![0; peek(&sealed).map_or(0, |info| info.plain_len())];
    permit.open_object_frame(generation, id, last, &sealed, &mut out).map_err(kind)?;
    assert_plain(vector, &out);
    Ok(())
}
