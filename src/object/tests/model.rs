//! A `Vec<u8>` beside the real thing, and what each read costs.

use std::io::{Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// Lengths at which an off-by-one would show.
const EDGES: [usize; 9] =
    [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 5 * BLOCK + 17];

#[test]
fn f3_every_edge_length_in_every_write_size_reads_back() {
    let customer = Customer::new();
    for len in EDGES {
        let plain = pattern(len);
        for step in [1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 10 * BLOCK] {
            let mut writer = customer.writer(Vec::new());
            plain.chunks(step).for_each(|piece| writer.write_all(piece).unwrap());
            assert_eq!(writer.plain_len(), len as u64);
            let (sealed, written) = writer.finish().unwrap();
            assert_eq!(written.stored, sealed.len() as u64);
            assert_eq!(customer.open(&sealed).unwrap(), plain, "{len} bytes in steps of {step}");
        }
    }
}

#[test]
fn f3_an_empty_object_is_exactly_one_empty_final_frame() {
    let customer = Customer::new();
    let sealed = customer.seal(&[]);
    assert_eq!(sealed.len(), HEADER_LEN + customer.frame() - BLOCK);
    let reader = customer.reader(sealed).unwrap();
    assert!(reader.is_empty());
    assert_eq!(reader.read_at(0, &mut [0; 8]).unwrap(), 0);
}

#[test]
fn f4_small_sequential_reads_and_seeks_agree_with_the_plaintext() {
    let customer = Customer::new();
    let plain = pattern(3 * BLOCK + 100);
    let sealed = customer.seal(&plain);
    for step in [1, 7, 512, BLOCK, BLOCK + 1, 2 * BLOCK + 5] {
        let mut reader = customer.reader(sealed.as_slice()).unwrap();
        let mut got = Vec::new();
        let mut piece = vec![0; step];
        loop {
            let len = reader.read(&mut piece).unwrap();
            if len == 0 {
                break;
            }
            got.extend_from_slice(&piece[..len]);
        }
        assert_eq!(got, plain, "steps of {step}");
    }
    let mut reader = customer.reader(sealed.as_slice()).unwrap();
    let mut byte = [0];
    assert_eq!(reader.seek(SeekFrom::End(-1)).unwrap(), plain.len() as u64 - 1);
    reader.read_exact(&mut byte).unwrap();
    assert_eq!(byte[0], plain[plain.len() - 1]);
    assert_eq!(reader.read(&mut byte).unwrap(), 0);
    assert_eq!(reader.seek(SeekFrom::Current(-5)).unwrap(), plain.len() as u64 - 5);
    assert_eq!(reader.seek(SeekFrom::Start(u64::MAX)).unwrap(), u64::MAX);
    assert_eq!(reader.read(&mut byte).unwrap(), 0);
    let error = reader.seek(SeekFrom::Current(1)).unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::Misuse);
    let error = reader.seek(SeekFrom::End(-(plain.len() as i64) - 1)).unwrap_err();
    assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::Misuse);
}

#[test]
fn f4_a_file_is_written_and_read_at_random() {
    let customer = Customer::new();
    let plain = pattern(300_000);
    let mut writer =
        SealedObject::writer(customer.account.clone(), context(), tempfile::tempfile().unwrap()).unwrap();
    writer.write_all(&plain).unwrap();
    let (file, _) = writer.finish().unwrap();
    let reader = customer.reader(file).unwrap();
    assert_eq!(reader.info().block_size, BlockSize::DEFAULT);
    let mut range = vec![0; 150_000];
    assert_eq!(reader.read_at(60_000, &mut range).unwrap(), range.len());
    assert_eq!(range, plain[60_000..210_000]);
    assert_eq!(reader.read_at(299_990, &mut range).unwrap(), 10);
    assert_eq!(range[..10], plain[299_990..]);
}

#[test]
fn f4_threads_share_a_reader() {
    let customer = Customer::new();
    let plain = pattern(20 * BLOCK + 9);
    let source = Counting { bytes: customer.seal(&plain), ..Counting::default() };
    let reader = customer.reader(source).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (reader, plain) = (&reader, &plain);
            scope.spawn(move || {
                let mut buf = vec![0; 3 * BLOCK];
                for round in 0..200 {
                    let offset = (round * 7919 + seed * 104_729) % plain.len();
                    let len = reader.read_at(offset as u64, &mut buf).unwrap();
                    assert_eq!(buf[..len], plain[offset..offset + len]);
                }
            });
        }
    });
}

/// Counts what a reader asks of its source.
#[derive(Default)]
pub(super) struct Counting {
    pub(super) bytes: Vec<u8>,
    pub(super) reads: AtomicU64,
    pub(super) bytes_read: AtomicU64,
}

impl Counting {
    /// Reads and bytes since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        (self.reads.swap(0, Ordering::SeqCst), self.bytes_read.swap(0, Ordering::SeqCst))
    }
}

impl ReadAt for Counting {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.bytes_read.fetch_add(buf.len() as u64, Ordering::SeqCst);
        self.bytes.read_at(buf, offset)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.bytes.size()
    }
}

#[test]
fn f4_a_range_costs_the_blocks_it_covers_and_one_read() {
    let customer = Customer::new();
    let plain = pattern(400 * BLOCK);
    let source = Counting { bytes: customer.seal(&plain), ..Counting::default() };
    let reader = customer.reader(&source).unwrap();
    assert_eq!(
        source.take(),
        (2, (HEADER_LEN + FRAME) as u64),
        "opening costs the header and the last block"
    );
    let check = |offset: usize, len: usize, reads: u64, blocks: usize| {
        let mut buf = vec![0; len];
        assert_eq!(reader.read_at(offset as u64, &mut buf).unwrap(), len);
        assert_eq!(buf, plain[offset..offset + len]);
        assert_eq!(source.take(), (reads, (blocks * FRAME) as u64), "{len} bytes at {offset}");
    };
    check(7 * BLOCK, 1, 1, 1);
    check(7 * BLOCK + 100, 1000, 0, 0); // the block in hand
    check(7 * BLOCK + 100, BLOCK, 1, 1); // half of it is in hand
    check(20 * BLOCK, BLOCK, 1, 1);
    check(20 * BLOCK - 1, BLOCK + 2, 1, 3);
    check(30 * BLOCK + 1, 100 * BLOCK, 1, 101);
    let at_once = 1024 * 1024 / FRAME;
    check(0, (at_once + 1) * BLOCK, 2, at_once + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn f4_random_writes_and_ranges_agree_with_a_vec(
        log2 in 12_u32..=15,
        writes in prop::collection::vec(0_usize..40_000, 0..6),
        ranges in prop::collection::vec((0_u64..130_000, 0_usize..70_000), 1..12),
        in_memory: bool,
        double: bool,
    ) {
        let customer = Customer::of(if double { Suite::Double } else { Suite::Aes256Gcm });
        let plain = pattern(writes.iter().sum());
        let options = ObjectOptions::with_block_size(BlockSize::new(1 << log2).unwrap());
        let mut writer = SealedObject::writer_with(customer.account.clone(), context(), Vec::new(), options).unwrap();
        let mut rest = plain.as_slice();
        for len in writes {
            let (piece, after) = rest.split_at(len);
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
            rest = after;
        }
        let (sealed, _) = writer.finish().unwrap();
        let counting = Counting { bytes: sealed.clone(), ..Counting::default() };
        let source: Box<dyn ReadAt> = if in_memory { Box::new(sealed) } else { Box::new(counting) };
        let reader = customer.reader(source).unwrap();
        prop_assert_eq!(reader.len(), plain.len() as u64);
        for (offset, len) in ranges {
            let mut buf = vec![0xEE; len];
            let got = reader.read_at(offset, &mut buf).unwrap();
            let expected = plain.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            prop_assert_eq!(&buf[..got], &expected[..expected.len().min(len)]);
            prop_assert!(buf[got..].iter().all(|byte| *byte == 0xEE), "nothing past what was read is touched");
        }
    }
}
