//! The key is taken away in the middle: reads and writes fail closed, and no plaintext stays to be read.

use std::cell::Cell;

use super::model::Counting;
use super::*;

#[test]
fn d1_a_revoked_account_opens_no_object_and_costs_no_source_read() {
    struct NeverAsked;
    impl ReadAt for NeverAsked {
        fn read_at(&self, _: &mut [u8], _: u64) -> std::io::Result<usize> {
            panic!("asked by a revoked account")
        }
        fn size(&self) -> std::io::Result<u64> {
            panic!("asked by a revoked account")
        }
    }
    let customer = Customer::new();
    customer.revoke();
    assert_eq!(customer.reader(NeverAsked).unwrap_err().kind(), ErrorKind::Revoked);
    let refused = SealedObject::writer(customer.account.clone(), context(), Vec::new());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Revoked);
}

#[test]
fn d1_cached_plaintext_is_not_given_out_after_revocation() {
    let customer = Customer::new();
    let plain = pattern(BLOCK);
    let mut reader = customer.reader(customer.seal(&plain)).unwrap();
    let mut buf = [0; 100];
    reader.read_exact(&mut buf).unwrap();
    assert!(reader.caches_plaintext());
    customer.revoke();
    buf.fill(0xEE);
    assert_eq!(reader.read_at(0, &mut buf).unwrap_err().kind(), ErrorKind::Revoked);
    assert_eq!(buf, [0; 100], "the caller's buffer is wiped");
    assert!(!reader.caches_plaintext(), "the first refused call wipes what was cached");
    customer.restore();
    reader.read_exact(&mut buf).unwrap();
    assert_eq!(buf, plain[100..200], "the same reader goes on where it stood (contract D7)");
}

#[test]
fn d1_plaintext_cached_in_one_epoch_is_opened_again_in_the_next() {
    let customer = Customer::new();
    let plain = pattern(BLOCK);
    let source = Counting { bytes: customer.seal(&plain), ..Counting::default() };
    let reader = customer.reader(&source).unwrap();
    let mut buf = [0; 10];
    source.take();
    assert_eq!(reader.read_at(5, &mut buf).unwrap(), 10);
    assert_eq!(source.take(), (0, 0), "from the cache");
    customer.revoke();
    customer.restore();
    assert_eq!(reader.read_at(5, &mut buf).unwrap(), 10);
    assert_eq!(source.take(), (1, FRAME as u64), "under the new lease");
    assert_eq!(buf, plain[5..15]);
}

#[test]
fn d1_reading_from_a_closed_account_costs_no_source_read() {
    let customer = Customer::new();
    let source = Counting { bytes: customer.seal(&pattern(3 * BLOCK)), ..Counting::default() };
    let reader = customer.reader(&source).unwrap();
    customer.revoke();
    source.take();
    assert_eq!(reader.read_at(0, &mut [0; BLOCK]).unwrap_err().kind(), ErrorKind::Revoked);
    assert_eq!(source.take(), (0, 0));
}

#[test]
fn d6_purge_wipes_what_is_cached() {
    let customer = Customer::new();
    let reader = customer.reader(customer.seal(b"plaintext")).unwrap();
    assert!(reader.caches_plaintext());
    reader.purge();
    assert!(!reader.caches_plaintext());
    assert_eq!(reader.read_at(0, &mut [0; 9]).unwrap(), 9);
}

/// Takes the key away during the `nth` read, after the bytes have arrived.
struct RevokesAt<'a> {
    customer: &'a Customer,
    bytes: &'a [u8],
    countdown: Cell<usize>,
}

impl ReadAt for RevokesAt<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        if self.countdown.replace(self.countdown.get().wrapping_sub(1)) == 0 {
            self.customer.revoke();
        }
        self.bytes.read_at(buf, offset)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.bytes.size()
    }
}

#[test]
fn d4_revoked_in_the_middle_of_a_read_wipes_what_was_opened_before() {
    let customer = Customer::new();
    // More than one read of the source brings, so that blocks are open when the key goes.
    let plain = pattern(600 * BLOCK);
    let sealed = customer.seal(&plain);
    let mut buf = vec![0; plain.len()];
    for nth in 0..5 {
        let source = RevokesAt { customer: &customer, bytes: &sealed, countdown: Cell::new(nth) };
        match customer.reader(source) {
            Err(error) => assert!(nth < 2 && error.kind() == ErrorKind::Revoked),
            Ok(reader) => {
                buf.fill(0xEE);
                assert_eq!(reader.read_at(0, &mut buf).unwrap_err().kind(), ErrorKind::Revoked);
                assert!(buf.iter().all(|byte| *byte == 0), "read {nth}");
                assert!(!reader.caches_plaintext());
            }
        }
        customer.restore();
    }
}

#[test]
fn d2_revoked_in_the_middle_of_a_write_fails_every_later_call() {
    let customer = Customer::new();
    for written in [0, 1, BLOCK, BLOCK + 1] {
        let mut sink = Vec::new();
        let mut writer = customer.writer(&mut sink);
        writer.write_all(&pattern(written)).unwrap();
        customer.revoke();
        for _ in 0..2 {
            let error = writer.write_all(b"more").unwrap_err();
            assert_eq!(Error::find(&error).unwrap().kind(), ErrorKind::Revoked);
            assert!(!writer.holds_plaintext(), "what was held back is wiped");
        }
        customer.restore();
        assert!(
            writer.write_all(b"more").is_err() && writer.flush().is_err(),
            "a later lease does not mend it"
        );
        assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::Revoked);
        assert!(customer.reader(sink).is_err(), "what arrived is not an object");
    }
}

#[test]
fn d11_a_lease_lost_and_regained_between_two_writes_is_noticed() {
    let customer = Customer::new();
    let mut writer = customer.writer(Vec::new());
    writer.write_all(b"under the first lease").unwrap();
    customer.revoke();
    customer.restore();
    assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::NotReady);
}

#[test]
fn d11_a_lease_lost_while_the_sink_takes_the_last_bytes_is_not_acknowledged() {
    struct RevokesOnFlush<'a>(&'a Customer);
    impl Write for RevokesOnFlush<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.0.revoke();
            Ok(())
        }
    }
    let customer = Customer::new();
    let mut writer = customer.writer(RevokesOnFlush(&customer));
    writer.write_all(b"x").unwrap();
    assert_eq!(writer.finish().map(|_| ()).unwrap_err().kind(), ErrorKind::Revoked);
}

#[test]
fn f3_a_dropped_writer_leaves_nothing_that_opens() {
    let customer = Customer::new();
    for written in [0, 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 1] {
        let mut sink = Vec::new();
        let mut writer = customer.writer(&mut sink);
        writer.write_all(&pattern(written)).unwrap();
        writer.flush().unwrap();
        drop(writer);
        let held_back = written - (written.saturating_sub(1) / BLOCK) * BLOCK;
        assert!(held_back <= BLOCK);
        assert_eq!(sink.len(), HEADER_LEN + (written - held_back) / BLOCK * FRAME);
        assert!(customer.reader(sink).is_err(), "{written} bytes written");
    }
}

#[test]
fn debug_shows_no_byte_of_plaintext() {
    let customer = Customer::new();
    let mut writer = customer.writer(Vec::new());
    writer.write_all(&[65; 100]).unwrap();
    let shown = format!("{writer:?}");
    let (sealed, _) = writer.finish().unwrap();
    let shown = format!("{shown} {:?} {:?}", customer.reader(sealed).unwrap(), context());
    assert!(!shown.contains("65, 65") && !shown.contains("AAA"), "{shown}");
}
