//! Sinks and sources that fail, lie or change, at each operation in turn (R14).

use std::cell::Cell;
use std::io;

use super::*;
use crate::evidence::report;

/// Takes everything, and panics once where it is told to.
struct PanickingSink<'a> {
    bytes: &'a mut Vec<u8>,
    good: usize,
}

impl Write for PanickingSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.good = self.good.wrapping_sub(1);
        assert!(self.good != usize::MAX, "the sink's own panic");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn r14_a_sink_that_panics_latches_the_writer() {
    let customer = Customer::new();
    let plain = pattern(3 * BLOCK + 5);
    for good in 0..2 {
        let mut arrived = Vec::new();
        let mut writer = customer.writer(PanickingSink { bytes: &mut arrived, good });
        let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            plain.chunks(2 * BLOCK).try_for_each(|piece| writer.write_all(piece))
        }));
        assert!(written.is_err(), "it panicked");
        assert!(writer.write(b"more").is_err() && writer.flush().is_err());
        assert_eq!(writer.finish().map(drop).unwrap_err().kind(), ErrorKind::Io, "what arrived is no object");
    }
}

/// What a sink may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SinkFault {
    FailsForEver,
    FailsOnce,
    /// It takes what it is given, and reports an error.
    TakesAndFails,
    /// It says that it took nothing.
    TakesNothing,
}

/// Takes a few bytes at a time; its operation `good`, counted from zero, goes wrong.
struct FailingSink<'a> {
    bytes: &'a mut Vec<u8>,
    fault: SinkFault,
    good: usize,
    done: usize,
}

impl FailingSink<'_> {
    /// Whether this operation goes wrong.
    fn strikes(&mut self) -> bool {
        self.done += 1;
        self.done == self.good + 1 || self.fault == SinkFault::FailsForEver && self.done > self.good
    }
}

impl Write for FailingSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let strikes = self.strikes();
        if strikes && self.fault == SinkFault::TakesNothing {
            return Ok(0);
        }
        let len = bytes.len().min(1000);
        if !strikes || self.fault == SinkFault::TakesAndFails {
            self.bytes.extend_from_slice(&bytes[..len]);
        }
        if strikes { Err(io::ErrorKind::StorageFull.into()) } else { Ok(len) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.strikes() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// Writes an object with the sink's operation `good` going wrong. False when there was no such operation.
fn write_over(customer: &Customer, plain: &[u8], fault: SinkFault, good: usize) -> bool {
    let mut arrived = Vec::new();
    let mut writer = customer.writer(FailingSink { bytes: &mut arrived, fault, good, done: 0 });
    let written = plain.chunks(3000).try_for_each(|piece| writer.write_all(piece));
    if written.is_err() {
        assert!(writer.write(b"more").is_err() && writer.flush().is_err());
        assert!(!writer.holds_plaintext());
    }
    match writer.finish() {
        Ok(_) => {
            assert!(written.is_ok(), "a failed writer never finishes");
            assert_eq!(customer.open(&arrived).unwrap(), plain, "{fault:?} at {good}");
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Io);
            // The flush alone may have failed: then every byte is there, and they are right.
            assert!(customer.open(&arrived).map_or(true, |whole| whole == plain), "{fault:?} at {good}");
            true
        }
    }
}

#[test]
fn r14_a_sink_that_fails_at_any_operation_latches_the_writer() {
    let customer = Customer::new();
    let plain = pattern(12 * BLOCK + 5);
    let mut failures = 0;
    for fault in
        [SinkFault::FailsForEver, SinkFault::FailsOnce, SinkFault::TakesAndFails, SinkFault::TakesNothing]
    {
        let before = failures;
        // The last operation is the flush, for which taking nothing is an error like any other.
        failures += (0..).take_while(|good| write_over(&customer, &plain, fault, *good)).count();
        assert!(failures - before > 50, "each of the sink's operations failed once: {failures}");
    }
    report("R14", "writes of objects failed", failures, ">=", 200);
}

/// What a source may do wrong, from its operation `after` on.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Fails,
    Garbage,
    ClaimsTooMuch,
    Ends,
    Interrupted,
    OneByteAtATime,
}

struct FaultySource<'a> {
    bytes: &'a [u8],
    fault: Fault,
    after: Cell<usize>,
}

impl ReadAt for FaultySource<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(after) = self.after.get().checked_sub(1) {
            self.after.set(after);
            return self.bytes.read_at(buf, offset);
        }
        match self.fault {
            Fault::Fails => Err(io::Error::other("the disk is gone")),
            Fault::Garbage => {
                buf.fill(0x5A);
                Ok(buf.len())
            }
            Fault::ClaimsTooMuch => Ok(buf.len() + 1),
            Fault::Ends => Ok(0),
            Fault::Interrupted => {
                self.after.set(1);
                Err(io::ErrorKind::Interrupted.into())
            }
            Fault::OneByteAtATime => self.bytes.read_at(&mut buf[..1], offset),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }
}

#[test]
fn r14_a_source_that_fails_at_any_operation_gives_an_error_or_the_truth() {
    let customer = Customer::new();
    let plain = pattern(12 * BLOCK + 500);
    let sealed = customer.seal(&plain);
    // Opening takes two reads, the loop below one for each block but the last, which is in hand.
    let reads = 14;
    let mut struck = 0;
    for (fault, expected) in [
        (Fault::Fails, Some(ErrorKind::Io)),
        (Fault::Garbage, Some(ErrorKind::Format)),
        (Fault::ClaimsTooMuch, Some(ErrorKind::Io)),
        (Fault::Ends, Some(ErrorKind::Format)),
        (Fault::Interrupted, None),
        (Fault::OneByteAtATime, None),
    ] {
        for after in 0..=reads {
            let source = FaultySource { bytes: &sealed, fault, after: Cell::new(after) };
            let mut buf = vec![0xEE; BLOCK];
            let result = customer.reader(source).and_then(|reader| {
                let mut got = Vec::new();
                for index in (0..=12).rev() {
                    buf.fill(0xEE);
                    let len = reader.read_at(index * BLOCK as u64, &mut buf)?;
                    got.splice(0..0, buf[..len].iter().copied());
                }
                Ok(got)
            });
            match (result, expected) {
                (Ok(got), None) => assert_eq!(got, plain),
                (Ok(got), Some(_)) => assert!(after == reads && got == plain, "{fault:?} after {after}"),
                (Err(error), expected) => {
                    assert_eq!(Some(error.kind()), expected, "{fault:?} after {after}: {error}");
                    assert!(
                        after < reads && (after < 2 || buf.iter().all(|byte| *byte == 0)),
                        "the buffer is wiped"
                    );
                }
            }
            struck += usize::from(after < reads);
        }
    }
    report("R14", "reads of objects failed or cut short", struck, ">=", 80);
}

/// A source whose memory is borrowed, and shorter than it says.
struct ShortLoan<'a>(&'a [u8]);

impl ReadAt for ShortLoan<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.0.borrow_at(offset, len).map(|bytes| &bytes[1..])
    }
}

#[test]
fn r14_a_loan_of_too_few_bytes_is_an_error() {
    let customer = Customer::new();
    let sealed = customer.seal(b"abc");
    assert_eq!(customer.reader(ShortLoan(&sealed)).unwrap_err().kind(), ErrorKind::Format);
}

#[test]
fn r14_a_source_that_shrinks_or_grows_under_a_reader_is_noticed_or_harmless() {
    let customer = Customer::new();
    let plain = pattern(3 * BLOCK);
    let sealed = customer.seal(&plain);
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &sealed, 0).unwrap();
    let reader = customer.reader(&file).unwrap();
    let mut buf = vec![0; plain.len()];

    file.set_len(sealed.len() as u64 + 5000).unwrap();
    assert_eq!(reader.read_at(0, &mut buf).unwrap(), plain.len());
    assert_eq!(buf, plain, "what was added is not part of the object that was opened");
    assert_eq!(customer.reader(&file).unwrap_err().kind(), ErrorKind::Format);

    for len in [sealed.len() - 1, sealed.len() - FRAME, HEADER_LEN, 0] {
        file.set_len(len as u64).unwrap();
        assert_eq!(reader.read_at(0, &mut buf).unwrap_err().kind(), ErrorKind::Format, "cut to {len}");
        assert!(buf.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn r14_a_source_without_a_size_or_with_a_wrong_one_is_an_error() {
    struct Sized<'a>(&'a [u8], io::Result<u64>);
    impl ReadAt for Sized<'_> {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.0.read_at(buf, offset)
        }
        fn size(&self) -> io::Result<u64> {
            self.1.as_ref().copied().map_err(|error| error.kind().into())
        }
    }
    let customer = Customer::new();
    let sealed = customer.seal(&pattern(BLOCK + 1));
    let kind = |size| customer.reader(Sized(&sealed, size)).unwrap_err().kind();
    assert_eq!(kind(Err(io::ErrorKind::PermissionDenied.into())), ErrorKind::Io);
    for wrong in [0, 79, 80, sealed.len() as u64 - 1, sealed.len() as u64 + 1, u64::MAX, 1 << 62] {
        assert_eq!(kind(Ok(wrong)), ErrorKind::Format, "{wrong}");
    }
    assert_eq!(kind(Ok((HEADER_LEN + FRAME) as u64)), ErrorKind::Corrupt, "the first block is not final");
}
