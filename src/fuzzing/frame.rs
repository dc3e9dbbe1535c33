//! Block frames: what parses is written back, and no change of a sealed block or of its place opens.

use std::sync::LazyLock;

use super::Input;
use crate::block::{GenerationKeys, Place};
use crate::clock::Moment;
use crate::derive::{Kind, Secrets};
use crate::error::{Error, ErrorKind};
use crate::format::frame::{Detached, FrameInfo, Header, Tags, head_len, overhead, peek, split};
use crate::id::{Aad, AccountId, BlockId, Generation, ObjectId, Suite};
use crate::secret::MemoryLock;

/// The first byte chooses: the rest is a frame, or a list of changes to a sealed one.
pub fn frame(data: &[u8]) {
    match data.split_first() {
        Some((0, changes)) => changed(Suite::Aes256Gcm, Kind::Block, changes),
        Some((1, changes)) => changed(Suite::Aes256Gcm, Kind::ObjectFrame, changes),
        Some((254, changes)) => changed(Suite::Double, Kind::Block, changes),
        Some((255, changes)) => changed(Suite::Double, Kind::ObjectFrame, changes),
        Some((_, frame)) => parsed(frame),
        None => parsed(&[]),
    }
}

fn parsed(data: &[u8]) {
    match peek(data) {
        Ok(info) => accepted(info, data),
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Limit)),
    }
    for suite in SUITES {
        if let Some(bytes) = data.get(..Detached::len_of(suite))
            && let Ok(detached) = Detached::from_bytes(bytes)
        {
            assert_eq!(&*detached.to_bytes(), bytes, "parse, then write");
        }
        for kind in [Kind::Block, Kind::ObjectFrame] {
            let opened = open(suite, data, &place(kind), &mut Vec::new());
            assert!(opened.is_err(), "nobody else has the key");
        }
    }
}

fn accepted(info: FrameInfo, data: &[u8]) {
    assert_eq!(info.plain_len() + overhead(info.kind(), info.suite()), data.len());
    let (head, sealed, tags) = split(info.kind(), data).expect("what can be peeked at can be split");
    let mut again = vec![0; head_len(info.kind())];
    head.write(&mut again);
    again.extend_from_slice(sealed);
    append(&tags, info.suite(), &mut again);
    assert_eq!(again, data, "parse, then write");
    let header = Header::parse(data.first_chunk().expect("a frame has a header")).expect("was parsed before");
    assert_eq!(header.to_bytes(), data[..Header::LEN]);
}

fn changed(suite: Suite, kind: Kind, changes: &[u8]) {
    let mut frame = sealed(suite, kind);
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
    let opened = open(suite, &frame, &place, &mut out);
    let same = frame == original && !moved;
    assert_eq!(opened.is_ok(), same, "a changed block does not open: {place:?}");
    if same {
        assert_eq!(out, PLAIN);
    } else {
        assert!(out.iter().all(|byte| *byte == 0), "a failed open leaves nothing");
    }
}

fn open(suite: Suite, frame: &[u8], place: &Place<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let (head, sealed, tags) = split(place.kind, frame)?;
    let keys = keys(suite);
    *out = vec![0; sealed.len()];
    let to = keys.open_to(place, &head, &tags, sealed, out, || Ok(()));
    let mut data = sealed.to_vec();
    let in_place = keys.open_in_place(place, &head, &tags, &mut data, || Ok(()));
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

/// One of each, sealed once: a fuzzer knows it.
fn sealed(suite: Suite, kind: Kind) -> Vec<u8> {
    SEALED[usize::from(suite == Suite::Double)][usize::from(kind == Kind::ObjectFrame)].clone()
}

fn seal(suite: Suite, kind: Kind) -> Vec<u8> {
    let mut data = PLAIN.to_vec();
    let now = Moment::from_nanos(1, 1);
    let head = keys(suite).fresh_head(&place(kind), now);
    let tags = keys(suite).seal_in_place(&place(kind), &head, &mut data).expect("is short");
    let mut frame = vec![0; head_len(kind)];
    head.write(&mut frame);
    frame.extend_from_slice(&data);
    append(&tags, suite, &mut frame);
    frame
}

fn append(tags: &Tags, suite: Suite, frame: &mut Vec<u8>) {
    let end = frame.len();
    frame.resize(end + Tags::len(suite), 0);
    tags.write(&mut frame[end..]);
}

fn keys(suite: Suite) -> &'static GenerationKeys {
    &KEYS[usize::from(suite == Suite::Double)]
}

static KEYS: LazyLock<[GenerationKeys; 2]> = LazyLock::new(|| {
    [None, Some(&[8; 32])].map(|outer| {
        let account = AccountId::from_bytes([1; 16]);
        let secrets = Secrets { inner: &[9; 32], outer };
        GenerationKeys::new(account, Generation::FIRST, secrets, MemoryLock::BestEffort)
            .expect("two slots of memory")
    })
});
static SEALED: LazyLock<[[Vec<u8>; 2]; 2]> =
    LazyLock::new(|| SUITES.map(|suite| [Kind::Block, Kind::ObjectFrame].map(|kind| seal(suite, kind))));
const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::Double];
const PLAIN: &[u8] = b"sealed for the fuzzer to break";
