//! Sealed objects: no change of one is read as something else, and nothing that was not sealed is read at all.

use std::io::{Read, Write};
use std::sync::LazyLock;

use super::{Input, account};
use crate::error::{Error, ErrorKind};
use crate::format::object::{BlockSize, Context, HEADER_LEN, Layout};
use crate::id::Suite;
use crate::object::{ObjectOptions, SealedObject};

/// The first byte chooses: the rest is an object, or a list of changes to one of three blocks.
pub fn object(data: &[u8]) {
    match data.split_first() {
        Some((0, changes)) => changed(changes),
        Some((_, object)) => foreign(object),
        None => foreign(&[]),
    }
}

fn foreign(data: &[u8]) {
    if let Ok(info) = SealedObject::peek(data) {
        assert!(data.len() >= HEADER_LEN && info.block_size.bytes() >= BlockSize::MIN.bytes());
    }
    let error = read(data).expect_err("nobody else has the key");
    let kinds = [ErrorKind::Format, ErrorKind::Corrupt, ErrorKind::UnknownGeneration];
    assert!(kinds.contains(&error.kind()), "{error}");
}

fn changed(changes: &[u8]) {
    let mut object = SEALED.clone();
    let mut input = Input(changes);
    while !input.is_empty() {
        change(&mut object, &mut input);
    }
    match read(&object) {
        Ok(plain) => assert!(object == *SEALED && plain == plaintext(), "a changed object was read"),
        Err(_) => assert_ne!(object, *SEALED, "an object that was not changed is read"),
    }
}

/// What whoever holds the storage can do: change, cut, add, and move whole frames about.
fn change(object: &mut Vec<u8>, input: &mut Input<'_>) {
    let (how, at, value) = (input.u8(), usize::from(input.u16()), input.u8());
    let at = at % (object.len() + 1);
    let frame = LAYOUT.frame_len(LAYOUT.block_len());
    let frame_at = |index: u8| HEADER_LEN + usize::from(index) % 4 * frame;
    match how % 8 {
        0 => object.insert(at, value),
        1 => object.truncate(at),
        2 => object.truncate(frame_at(value)),
        3 => {
            let whole = object.get(frame_at(value)..frame_at(value) + frame).map(<[u8]>::to_vec);
            object.extend_from_slice(&whole.unwrap_or_default());
        }
        4 => {
            let (one, two) = (frame_at(value), frame_at(value / 4));
            if one.max(two) + frame <= object.len() && one != two {
                for i in 0..frame {
                    object.swap(one + i, two + i);
                }
            }
        }
        5 if object.len() >= frame_at(value) + frame => {
            object.drain(frame_at(value)..frame_at(value) + frame);
        }
        _ if at < object.len() => object[at] ^= value,
        _ => {}
    }
    // Copies of copies would grow without end.
    object.truncate(8 * frame);
}

fn read(object: &[u8]) -> Result<Vec<u8>, Error> {
    let mut reader = SealedObject::reader(account(), context(), object)?;
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).map_err(|error| Error::find(&error).expect("an error of ours").clone())?;
    Ok(plain)
}

fn context() -> Context {
    Context::new(&[b"fuzz", b"object"])
}

/// Two whole blocks and one byte.
fn plaintext() -> Vec<u8> {
    (0..=2 * BlockSize::MIN.bytes()).map(|i| i.to_le_bytes()[0]).collect()
}

static SEALED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let options = ObjectOptions::with_block_size(BlockSize::MIN);
    let mut writer =
        SealedObject::writer_with(account(), context(), Vec::new(), options).expect("has a lease");
    writer.write_all(&plaintext()).expect("memory takes everything");
    writer.finish().expect("has a lease").0
});

const LAYOUT: Layout = Layout { block_size: BlockSize::MIN, suite: Suite::Aes256Gcm };
