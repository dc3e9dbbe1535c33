//! PRK, key check value, DEK and the two MACs. All valid: a derivation refuses nothing.

use serde_json::{Value, json};

use super::{File, Outcome, Owner, World, bytes, hex, number, stream, text, unhex, unhex_array, unhex_text};
use crate::derive::{DekUse, Kind, MacUse, Nonce24};
use crate::format::object::Context;
use crate::id::{BlockId, ObjectId, Suite};
use crate::secret::Dek;

pub(super) fn file() -> File {
    let mut file = File::new("derivation");
    for owner in owners() {
        let keys = owner.keys();
        let name =
            format!("prk {} {} {}", &hex(&owner.account)[..4], owner.generation, &hex(&owner.secret)[..4]);
        let prk = hex(&prk_by_the_book(&owner));
        file.push(name, &owner, json!({ "op": "prk", "prk": prk, "kcv": hex(keys.kcv().as_bytes()) }));
    }
    let owner = Owner::usual();
    for kind in [Kind::Block, Kind::ObjectFrame] {
        for (name, object, index, r) in places() {
            let id = BlockId::new(ObjectId::from_bytes(object), index);
            let mut dek = Dek::empty();
            owner.keys().prks().inner().dek(
                DekUse::Inner,
                Suite::Aes256Gcm,
                kind,
                id,
                &Nonce24::from_bytes(r),
                &mut dek,
            );
            let fields = json!({
                "op": "dek", "suite": 1, "kind": kind.number(), "object": hex(&object), "index": index,
                "r": hex(&r), "dek": hex(dek.expose()),
            });
            file.push(format!("dek of kind {}, {name}", kind.number()), &owner, fields);
        }
    }
    for len in [0, 1, 31, 32, 47, 48, 49, 63, 64, 65, 1000] {
        let content = stream("content", len);
        let mac = owner.keys().mac(MacUse::Record, b"account record", &[&content]);
        let fields = json!({ "op": "account record", "content": hex(&content), "mac": hex(&mac) });
        file.push(format!("MAC of {len} bytes of record"), &owner, fields);
    }
    for parts in contexts() {
        let header = stream("header", 48);
        let mac = object_mac(&owner, &header, &parts);
        let parts: Vec<String> = parts.iter().map(|part| hex(part)).collect();
        let name =
            format!("MAC of a header in context {:?}", parts.iter().map(String::len).collect::<Vec<_>>());
        let fields =
            json!({ "op": "object header", "header": hex(&header), "parts": parts, "mac": hex(&mac) });
        file.push(name, &owner, fields);
    }
    file
}

pub(super) fn check(_: &mut World, vector: &Value) -> Outcome {
    let owner = Owner::read(vector);
    let keys = owner.keys();
    match text(vector, "op") {
        "prk" => {
            assert_eq!(hex(&prk_by_the_book(&owner)), text(vector, "prk"));
            assert_eq!(hex(keys.kcv().as_bytes()), text(vector, "kcv"));
        }
        "dek" => {
            let kind = Kind::from_number(u8::try_from(number(vector, "kind")).unwrap()).unwrap();
            let id =
                BlockId::new(ObjectId::from_bytes(unhex_array(vector, "object")), number(vector, "index"));
            let r = Nonce24::from_bytes(unhex_array(vector, "r"));
            let mut dek = Dek::empty();
            keys.prks().inner().dek(DekUse::Inner, Suite::Aes256Gcm, kind, id, &r, &mut dek);
            assert_eq!(hex(dek.expose()), text(vector, "dek"));
        }
        "account record" => {
            let (content, mac) = (unhex(vector, "content"), unhex_array(vector, "mac"));
            keys.verify_mac(MacUse::Record, b"account record", &[&content], &mac).unwrap();
        }
        "object header" => {
            let mac = object_mac(&owner, &unhex(vector, "header"), &parts(vector));
            assert_eq!(hex(&mac), text(vector, "mac"));
        }
        other => panic!("{other}: unknown"),
    }
    Ok(())
}

/// The PRK itself never leaves its slot, so the `hkdf` crate tells it. That ours is the same shows in the KCV.
fn prk_by_the_book(owner: &Owner) -> Vec<u8> {
    use sha2::Digest;
    let salt = sha2::Sha256::new()
        .chain_update(b"strongroom/v1")
        .chain_update(owner.account)
        .chain_update(owner.generation.to_be_bytes())
        .chain_update([1])
        .finalize();
    let (prk, hkdf) = hkdf::Hkdf::<sha2::Sha256>::extract(Some(&salt), &owner.secret);
    let mut kcv = [0; 32];
    hkdf.expand(b"SRK1", &mut kcv).expect("32 bytes are not too many");
    assert_eq!(&kcv, owner.keys().kcv().as_bytes());
    prk.to_vec()
}

pub(super) fn object_mac(owner: &Owner, header: &[u8], parts: &[Vec<u8>]) -> [u8; 32] {
    let context = Context::new(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    owner.keys().mac(MacUse::ObjectHeader, b"object header", &[header, context.as_bytes()])
}

pub(super) fn parts(vector: &Value) -> Vec<Vec<u8>> {
    let parts = vector["parts"].as_array().unwrap().iter();
    parts.map(|part| unhex_text(part.as_str().unwrap())).collect()
}

pub(super) fn contexts() -> Vec<Vec<Vec<u8>>> {
    let part = |text: &str| text.as_bytes().to_vec();
    vec![
        vec![],
        vec![part("")],
        vec![part(""), part("")],
        vec![part("a")],
        vec![part("ab"), part("c")],
        vec![part("a"), part("bc")],
        vec![part("a"), part("b"), part("c"), part("d")],
        vec![stream("part", 47)],
        vec![stream("part", 48)],
        vec![stream("part", 300), part("x")],
    ]
}

fn owners() -> Vec<Owner> {
    let usual = Owner::usual();
    let mut owners: Vec<Owner> = GENERATIONS.map(Owner::of_generation).into();
    for byte in [0, 1, 0x7F, 0x80, 0xFF] {
        owners.push(Owner { account: [byte; 16], ..usual.clone() });
        owners.push(Owner { secret: [byte; 32], ..usual.clone() });
        owners.push(Owner { account: [byte; 16], secret: [byte; 32], generation: 1, ..Owner::usual() });
    }
    owners
}

type Where = (String, [u8; 16], u64, [u8; 24]);

fn places() -> Vec<Where> {
    let (object, r) = (bytes("object"), bytes("r"));
    let mut places: Vec<Where> = INDICES.map(|index| (format!("index {index}"), object, index, r)).into();
    for byte in [0, 1, 0xFF] {
        places.push((format!("object {byte:02x}.."), [byte; 16], 7, r));
        places.push((format!("R {byte:02x}.."), object, 7, [byte; 24]));
    }
    places
}

pub(super) const GENERATIONS: [u32; 8] = [1, 2, 255, 256, 0xFFFF, 0x0102_0304, 0x8000_0000, u32::MAX];
pub(super) const INDICES: [u64; 9] =
    [0, 1, 255, 256, 0xFFFF_FFFF, 0x1_0000_0000, 0x0102_0304_0506_0708, 1 << 63, u64::MAX];
