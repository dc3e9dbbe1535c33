//! Block frames: what parses is written back, and no change of a sealed block or of its place opens.

use std::sync::LazyLock;

use super::Input;
use crate::block::{GenerationKeys, Place};
use crate::clock::Moment;
use crate::derive::{Kind, Secrets};
use crate::error::{Error, ErrorKind};
use crate::format::frame::{Detached, FrameInfo, Header, head_len, overhead, peek, split};
use crate::id::{Aad, AccountId, BlockId, Generation, ObjectId, Suite};
use crate::secret::MemoryLock;

/// The first byte chooses: the rest is a frame, or a list of changes to a sealed one.
pub fn frame(data: &[u8]) {
    match data.split_first() {
        Some((0, changes)) => changed(Kind::Block, changes),
        Some((1, changes)) => changed(Kind::ObjectFrame, changes),
        Some((_, frame)) => parsed(frame),
        None => parsed(&[]),
    }
}

fn parsed(data: &[u8]) {
    match peek(data) {
        Ok(info) => accepted(info, data),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Limit)),
    }
    if let Some(bytes) = data.first_chunk::<{ Detached::LEN }>()
        && let Ok(detached) = Detached::from_bytes(bytes)
    {
        assert_eq!(detached.to_bytes(), *bytes, "parse, then write");
    }
    for kind in [Kind::Block, Kind::ObjectFrame] {
        let opened = open(data, &place(kind), &mut Vec::new());
        assert!(opened.is_err(), "nobody else has the key");
    }
}

fn accepted(info: FrameInfo, data: &[u8]) {
    assert_eq!(info.plain_len() + overhead(info.kind()), data.len());
    let (head, sealed, tag) = split(info.kind(), data).expect("what can be peeked at can be split");
    let mut again = vec![0; head_len(info.kind())];
    head.write(&mut again);
    again.extend_from_slice(sealed);
    again.extend_from_slice(&tag.0);
    assert_eq!(again, data, "parse, then write");
    let header = Header::parse(data.first_chunk().expect("a frame has a header")).expect("was parsed before");
    assert_eq!(header.to_bytes(), data[..Header::LEN]);
}

fn changed(kind: Kind, changes: &[u8]) {
    let mut frame = SEALED[usize::from(kind == Kind::ObjectFrame)].clone();
    let original = frame.clone();
    let mut place = place(kind);
    let mut moved = false;
    let mut input = Input(changes);
    while !input.is_empty() {
        let (how, at, value) = (input.u8(), usize::from(input.u8()), input.u8());
        let at = at % (frame.len() + 1);
        match how % 8 {
            0 => frame.insert(at, value),
            1 => frame.truncate(at),
            2 if value > 0 => {
                let id = BlockId::new(place.id.object(), place.id.index() + u64::from(value));
                (place.id, moved) = (id, true);
            }
            3 if value != 3 => {
                place.id = BlockId::new(ObjectId::from_bytes([value; 16]), place.id.index());
                moved = true;
            }
            4 if kind == Kind::Block && value > 0 => (place.aad, moved) = (Aad::new(b"another"), true),
            5 if kind == Kind::ObjectFrame => (place.last, moved) = (false, true),
            6 => (place.kind, moved) = (other(kind), true),
            _ if at < frame.len() => frame[at] ^= value,
            _ => {}
        }
    }
    let mut out = Vec::new();
    let opened = open(&frame, &place, &mut out);
    let same = frame == original && !moved;
    assert_eq!(opened.is_ok(), same, "a changed block does not open: {place:?}");
    if same {
        assert_eq!(out, PLAIN);
    } else {
        assert!(out.iter().all(|byte| *byte == 0), "a failed open leaves nothing");
    }
}

fn open(frame: &[u8], place: &Place<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let (head, sealed, tag) = split(place.kind, frame)?;
    *out = vec![0; sealed.len()];
    let to = KEYS.open_to(place, &head, &tag, sealed, out, || Ok(()));
    let mut data = sealed.to_vec();
    let in_place = KEYS.open_in_place(place, &head, &tag, &mut data, || Ok(()));
    assert_eq!(to.is_ok(), in_place.is_ok(), "both forms agree");
    assert!(in_place.is_err() || data == *out);
    to
}

fn place(kind: Kind) -> Place<'static> {
    let id = BlockId::new(ObjectId::from_bytes([3; 16]), 7);
    match kind {
        Kind::Block => Place::block(id, Aad::new(b"tenant")),
        Kind::ObjectFrame => Place::object_frame(id, true),
    }
}

const fn other(kind: Kind) -> Kind {
    match kind {
        Kind::Block => Kind::ObjectFrame,
        Kind::ObjectFrame => Kind::Block,
    }
}

fn sealed(kind: Kind) -> Vec<u8> {
    let mut data = PLAIN.to_vec();
    let now = Moment::from_nanos(1, 1);
    let head = KEYS.fresh_head(&place(kind), now);
    let tag = KEYS.seal_in_place(&place(kind), &head, &mut data).expect("is short");
    let mut frame = vec![0; head_len(kind)];
    head.write(&mut frame);
    frame.extend_from_slice(&data);
    frame.extend_from_slice(&tag.0);
    frame
}

static KEYS: LazyLock<GenerationKeys> = LazyLock::new(|| {
    let account = AccountId::from_bytes([1; 16]);
    GenerationKeys::new(account, Generation::FIRST, Secrets::single(&[9; 32]), MemoryLock::BestEffort)
        .expect("one slot of memory")
});
static SEALED: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [sealed(Kind::Block), sealed(Kind::ObjectFrame)]);
const PLAIN: &[u8] = b"sealed for the fuzzer to break";
