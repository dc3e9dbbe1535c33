//! A sealed object beside a `Vec<u8>`: writes of any size, then reads and seeks anywhere.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::LazyLock;

use super::{Input, account};
use crate::format::object::{BlockSize, Context};
use crate::object::{ObjectOptions, ObjectReader, SealedObject};

/// The first byte is the block size, then come writes up to a zero length, then reads.
pub fn object_model(data: &[u8]) {
    let mut input = Input(data);
    let block_size = BlockSize::new(1 << (12 + input.u8() % 3)).expect("4 to 16 KiB");
    let options = ObjectOptions::with_block_size(block_size);
    let context = Context::new(&[b"fuzz", b"model"]);
    let mut model = Vec::new();
    let mut writer = SealedObject::writer_with(account(), context, Vec::new(), options).expect("has a lease");
    loop {
        // At most 16 KiB at once and 48 KiB in all: three of the largest blocks, twelve of the smallest.
        let len = usize::from(input.u16() / 4);
        if len == 0 || model.len() + len > 48 * 1024 {
            break;
        }
        let from = usize::from(input.u8());
        let piece = &COUNTING[from..from + len];
        writer.write_all(piece).expect("memory takes everything");
        model.extend_from_slice(piece);
        assert_eq!(writer.plain_len(), model.len() as u64);
    }
    let (sealed, len) = writer.finish().expect("has a lease");
    assert_eq!((len.plain, len.stored), (model.len() as u64, sealed.len() as u64));

    let mut reader = SealedObject::reader(account(), context, sealed).expect("is intact");
    assert_eq!(reader.len(), model.len() as u64);
    let mut position = 0;
    // A reader remembers its place and one block: more steps would take time and lead nowhere new.
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        step(&mut reader, &model, &mut position, &mut input);
    }
}

fn step(reader: &mut ObjectReader<Vec<u8>>, model: &[u8], position: &mut u64, input: &mut Input<'_>) {
    let (how, argument) = (input.u8(), input.u16());
    let mut buf = UNTOUCHED[..usize::from(argument) % UNTOUCHED.len()].to_vec();
    match how % 4 {
        0 => {
            // Around the end, too.
            let offset = u64::from(input.u16()) * 3;
            let got = reader.read_at(offset, &mut buf).expect("is intact");
            assert_eq!(buf[..got], *range(model, offset, buf.len()));
            assert!(buf[got..] == UNTOUCHED[got..buf.len()], "nothing past what was read is touched");
        }
        1 => {
            let got = reader.read(&mut buf).expect("is intact");
            let expected = range(model, *position, buf.len());
            assert_eq!(buf[..got], expected[..got]);
            assert!(got > 0 || expected.is_empty(), "zero bytes mean the end");
            *position += got as u64;
        }
        2 => {
            let back = i64::from(argument);
            let at = model.len() as i64 - back;
            match reader.seek(SeekFrom::End(-back)) {
                Ok(now) => (*position, _) = (now, assert_eq!(Ok(now), u64::try_from(at))),
                Err(_) => assert!(at < 0, "every place from the start on can be sought"),
            }
        }
        _ => {
            *position = u64::from(argument) * 2;
            assert_eq!(reader.seek(SeekFrom::Start(*position)).ok(), Some(*position));
        }
    }
}

/// What a read of `len` bytes at `offset` gives.
fn range(model: &[u8], offset: u64, len: usize) -> &[u8] {
    let rest = usize::try_from(offset).ok().and_then(|offset| model.get(offset..)).unwrap_or_default();
    &rest[..len.min(rest.len())]
}

/// Each byte is its place's lowest: what is written begins anywhere in it. Whole slices are compared and copied, because
/// instrumented loops over bytes took most of the time.
static COUNTING: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=u8::MAX).cycle().take(17 * 1024).collect());
static UNTOUCHED: [u8; 20_000] = [0xEE; 20_000];
const MAX_STEPS: usize = 24;
