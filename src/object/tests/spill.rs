//! Temporary files: what lies on the disk, what is read while it grows, what a revocation does, and a hostile disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::*;
use crate::error::Error;

const BLOCK: usize = 128 * 1024;

/// A temporary file, and a second hand on it.
fn spill(customer: &Customer) -> (Arc<SpillFile>, File) {
    let file = tempfile::tempfile().unwrap();
    let disk = file.try_clone().unwrap();
    (Arc::new(SpillFile::new(customer.account.clone(), file)), disk)
}

fn on_disk(disk: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(disk.metadata().unwrap().len()).unwrap()];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn read_all(spill: &SpillFile) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    for index in 0.. {
        match spill.read_block(index)? {
            Some(block) => plain.extend(block),
            None => break,
        }
    }
    Ok(plain)
}

fn kind<T>(outcome: io::Result<T>) -> Option<ErrorKind> {
    outcome.err().and_then(|error| Error::find(&error).map(Error::kind))
}

#[test]
fn g7_no_plaintext_of_a_temporary_file_lies_on_the_disk() {
    let customer = Customer::new();
    let (spill, disk) = spill(&customer);
    let mut writer = SpillFile::writer(&spill);
    let plain = b"the patient's name".repeat(20_000);
    writer.write_all(&plain).unwrap();
    writer.flush().unwrap();
    let finds = |bytes: &[u8]| bytes.windows(8).any(|window| window == b"patient'");
    assert!(finds(&plain) && !finds(&on_disk(&disk)));
    assert_eq!(read_all(&spill).unwrap(), plain);
    assert_eq!(spill.stored_len(), disk.metadata().unwrap().len());
    assert!(!format!("{spill:?} {writer:?}").contains("patient"));
}

#[test]
fn g7_what_was_flushed_is_read_while_more_is_written() {
    let customer = Customer::new();
    let (spill, _disk) = spill(&customer);
    let mut writer = SpillFile::writer(&spill);
    let mut model = Vec::new();
    for (at, len) in [0, 1, 100, BLOCK - 102, 1, BLOCK, BLOCK + 1, 3 * BLOCK, 7].into_iter().enumerate() {
        let piece = pattern(len);
        writer.write_all(&piece).unwrap();
        model.extend(piece);
        if at % 2 == 1 {
            writer.flush().unwrap();
            assert_eq!(read_all(&spill).unwrap(), model, "after piece {at}");
        }
        assert!(read_all(&spill).unwrap().len() + BLOCK > model.len(), "at most a block is held back");
    }
    writer.flush().unwrap();
    writer.flush().unwrap();
    assert_eq!(read_all(&spill).unwrap(), model);
}

#[test]
fn g7_d1_d2_a_revoked_accounts_temporary_file_is_neither_written_nor_read_and_recovers() {
    let customer = Customer::new();
    let (spill, disk) = spill(&customer);
    let mut writer = SpillFile::writer(&spill);
    writer.write_all(b"before").unwrap();
    writer.flush().unwrap();
    let stored = on_disk(&disk);
    customer.revoke();
    assert_eq!(spill.read_block(0).unwrap_err().kind(), ErrorKind::Revoked);
    writer.write_all(b"meanwhile").expect("held back, in memory");
    assert_eq!(kind(writer.flush()), Some(ErrorKind::Revoked));
    assert_eq!(on_disk(&disk), stored);
    customer.restore();
    assert_eq!(
        kind(writer.write_all(b"after")),
        Some(ErrorKind::Revoked),
        "what was lost is not passed over"
    );
    let mut writer = SpillFile::writer(&spill);
    writer.write_all(b" after").unwrap();
    writer.flush().unwrap();
    assert_eq!(read_all(&spill).unwrap(), b"before after");
}

#[test]
fn g7_f3_temporary_blocks_that_were_changed_swapped_cut_or_brought_in_are_refused() {
    let customer = Customer::new();
    let [(one, disk), (other, other_disk)] = [spill(&customer), spill(&customer)];
    for spill in [&one, &other] {
        let mut writer = SpillFile::writer(spill);
        for plain in [b"first", b"later"] {
            writer.write_all(plain).unwrap();
            writer.flush().unwrap();
        }
    }
    let sound = on_disk(&disk);
    let half = sound.len() / 2;
    let swapped = [&sound[half..], &sound[..half]].concat();
    for bytes in [swapped, on_disk(&other_disk), vec![0; sound.len()]] {
        disk.write_all_at(&bytes, 0).unwrap();
        for index in 0..2 {
            let refused = one.read_block(index).unwrap_err().kind();
            assert!(matches!(refused, ErrorKind::Corrupt | ErrorKind::Format), "{refused:?}");
        }
    }
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 1;
        disk.write_all_at(&changed, 0).unwrap();
        assert!(one.read_block(at / half).is_err(), "byte {at}");
    }
    disk.write_all_at(&sound, 0).unwrap();
    assert_eq!(read_all(&one).unwrap(), b"firstlater");
    disk.set_len(sound.len() as u64 - 1).unwrap();
    assert_eq!(one.read_block(1).unwrap_err().kind(), ErrorKind::Format);
    assert_eq!(one.read_block(0).unwrap().unwrap(), b"first");
}

#[test]
#[cfg(target_os = "linux")]
fn g7_a_full_disk_is_an_error_for_good_and_nothing_of_it_counts_as_written() {
    let customer = Customer::new();
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let spill = Arc::new(SpillFile::new(customer.account.clone(), full));
    let mut writer = SpillFile::writer(&spill);
    assert_eq!(kind(writer.write_all(&pattern(2 * BLOCK))), Some(ErrorKind::Io));
    assert_eq!(kind(writer.flush()), Some(ErrorKind::Io));
    assert_eq!((spill.stored_len(), spill.read_block(0).unwrap()), (0, None));
}
