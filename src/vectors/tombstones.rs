//! Tombstones and anchors: what is in the place of a record without a MAC. Laid out by hand.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{File, Outcome, Owner, World, bytes, flipped, hex, kind, number, set, unhex};
use crate::error::ErrorKind;
use crate::format::record::{Sequence, Timestamp};
use crate::format::tombstone::{Purged, Tombstone};
use crate::record_store::{Loaded, MemoryRecordStore, RecordStore};
use crate::store::anchored::{Anchor, StoredAnchor};

fn push(file: &mut File, name: &str, stored: &[u8], more: Value) {
    let Value::Object(mut fields) = more else { panic!("fields") };
    fields.insert("stored".to_owned(), json!(hex(stored)));
    file.push(name, &Owner::usual(), Value::Object(fields));
}

fn refuse(file: &mut File, name: &str, stored: &[u8], error: ErrorKind) {
    push(file, name, stored, json!({ "error": format!("{error:?}") }));
}

fn tombstone(account: &[u8; 16], sequence: u64, purged_at: u64, reason: u8) -> Vec<u8> {
    let (sequence, purged_at) = (sequence.to_be_bytes(), purged_at.to_be_bytes());
    [&b"\x89SRX\r\n\x1a\n\x01"[..], account, &sequence, &purged_at, &[reason]].concat()
}

pub(super) fn file() -> File {
    let mut file = File::new("tombstone");
    let account = Owner::usual().account;
    for (sequence, purged_at, reason) in
        [(4, 1_790_000_000, 1), (4, 1_790_000_000, 2), (1, 0, 1), (u64::MAX, Timestamp::MAX, 2)]
    {
        let name = format!("sequence {sequence}, at {purged_at}, reason {reason}");
        let more = json!({ "sequence": sequence, "purged_at": purged_at, "reason": reason });
        push(&mut file, &name, &tombstone(&account, sequence, purged_at, reason), more);
    }
    let usual = tombstone(&account, 4, 1_790_000_000, 1);
    for (name, at, to) in [
        ("magic", 0, &[0x88][..]),
        ("magic of a record", 3, b"R"),
        ("version 0", 8, &[0]),
        ("version 2", 8, &[2]),
        ("sequence 0", 25, &[0; 8]),
        ("after the end of time", 33, &(Timestamp::MAX + 1).to_be_bytes()),
        ("reason 0", 41, &[0]),
        ("reason 3", 41, &[3]),
    ] {
        refuse(&mut file, name, &set(&usual, at, to), ErrorKind::Format);
    }
    for len in [0, 7, 8, 9, 24, 41] {
        refuse(&mut file, &format!("cut to {len} bytes"), &usual[..len], ErrorKind::Format);
    }
    refuse(&mut file, "a byte more", &[&usual[..], &[0]].concat(), ErrorKind::Format);
    let other = tombstone(&bytes("account 2"), 4, 1_790_000_000, 1);
    refuse(&mut file, "of another account", &other, ErrorKind::Untrusted);
    file
}

pub(super) fn check(_: &mut World, vector: &Value) -> Outcome {
    let (account, stored) = (Owner::read(vector).account(), unhex(vector, "stored"));
    assert_eq!(Tombstone::is_of(account, &stored), vector.get("error").is_none(), "{}", vector["name"]);
    let found = Tombstone::parse(&stored).map_err(kind)?;
    if found.account != account {
        return Err(format!("{:?}", ErrorKind::Untrusted));
    }
    assert_eq!(found.to_bytes(), stored);
    let purged_at = SystemTime::from(found.purged_at).duration_since(UNIX_EPOCH).unwrap().as_secs();
    let reason = match found.reason {
        Purged::AfterRetention => 1,
        Purged::Shredded => 2,
    };
    let said = ["sequence", "purged_at", "reason"].map(|field| number(vector, field));
    assert_eq!([found.sequence.number(), purged_at, reason], said);
    Ok(())
}

fn anchor(sequence: u64) -> Vec<u8> {
    [&b"\x89SRN\r\n\x1a\n"[..], &sequence.to_be_bytes()].concat()
}

pub(super) fn anchors() -> File {
    let mut file = File::new("anchor");
    for sequence in [1, 256, u64::MAX] {
        push(&mut file, &format!("at {sequence}"), &anchor(sequence), json!({ "sequence": sequence }));
    }
    for at in [0, 3, 7] {
        refuse(&mut file, &format!("magic, byte {at}"), &flipped(&anchor(7), at), ErrorKind::Format);
    }
    refuse(&mut file, "at 0", &anchor(0), ErrorKind::Format);
    for len in [0, 7, 8, 15] {
        refuse(&mut file, &format!("cut to {len} bytes"), &anchor(7)[..len], ErrorKind::Format);
    }
    refuse(&mut file, "a byte more", &[&anchor(7)[..], &[0]].concat(), ErrorKind::Format);
    file
}

/// What is there is read, and what is raised is written.
pub(super) fn check_anchor(_: &mut World, vector: &Value) -> Outcome {
    let (account, stored) = (Owner::read(vector).account(), unhex(vector, "stored"));
    let places = [MemoryRecordStore::new(), MemoryRecordStore::new()].map(Arc::new);
    places[0].compare_and_swap(account, None, &stored).unwrap();
    let [found, raised] = places.clone().map(|place| StoredAnchor::new(place));
    let sequence = found.least(account).map_err(kind)?.expect("is anchored");
    assert_eq!(sequence.number(), number(vector, "sequence"));
    raised.raise(account, Sequence::new(number(vector, "sequence")).unwrap()).unwrap();
    let Loaded::Found { bytes, .. } = places[1].load(account, None).unwrap() else { panic!("was raised") };
    assert_eq!(bytes, stored);
    Ok(())
}
