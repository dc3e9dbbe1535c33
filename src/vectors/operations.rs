//! States of operations, valid ones laid out by hand and invalid ones with a MAC that is right.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::derivations::GENERATIONS;
use super::{File, Outcome, Owner, World, bytes, hex, kind, other_macs, set, stream, string, unhex};
use crate::derive::MacUse;
use crate::error::ErrorKind;
use crate::format::operation::{OperationKind, OperationState, OperationStatus};
use crate::format::record::Timestamp;
use crate::id::Suite;

/// What a state says, in numbers and texts. It is noted under the owner.
#[derive(Clone)]
struct Said {
    owner: Owner,
    sequence: u64,
    kind: u8,
    status: u8,
    /// In status 5 only.
    failed: Option<(u8, String)>,
    cancelled: bool,
    run: u32,
    started: u64,
    updated: u64,
    done: u64,
    failed_pieces: u64,
    total: Option<u64>,
    bytes: u64,
    worked: u64,
    cursor: Vec<u8>,
}

impl Said {
    fn of(kind: u8, status: u8) -> Self {
        Self {
            owner: Owner::usual(),
            sequence: 3,
            kind,
            status,
            failed: (status == 5).then(|| (10, "somebody was first".to_owned())),
            cancelled: false,
            run: 2,
            started: 1_790_000_000,
            updated: 1_790_000_090,
            done: 20,
            failed_pieces: 1,
            total: Some(50),
            bytes: 1 << 20,
            worked: 61_500,
            cursor: b"a/0020".to_vec(),
        }
    }

    fn content(&self) -> Vec<u8> {
        let code = self.failed.as_ref().map(|(code, _)| vec![*code]).unwrap_or_default();
        let message = self.failed.as_ref().map(|(_, message)| string(message.as_bytes())).unwrap_or_default();
        let cursor = if self.cursor.is_empty() { Vec::new() } else { string(&self.cursor) };
        [
            &b"\x89SRW\r\n\x1a\n\x01"[..],
            &bytes::<16>("target"),
            &bytes::<16>("operation"),
            &self.sequence.to_be_bytes(),
            &self.owner.account,
            &self.owner.generation.to_be_bytes(),
            &[self.kind, self.status],
            &code,
            &message,
            &[u8::from(self.cancelled)],
            &self.run.to_be_bytes(),
            &self.started.to_be_bytes(),
            &self.updated.to_be_bytes(),
            &self.done.to_be_bytes(),
            &self.failed_pieces.to_be_bytes(),
            &[u8::from(self.total.is_some())],
            &self.total.unwrap_or(0).to_be_bytes(),
            &self.bytes.to_be_bytes(),
            &self.worked.to_be_bytes(),
            &[u8::from(!self.cursor.is_empty())],
            &cursor,
        ]
        .concat()
    }

    fn with_mac(&self, content: &[u8]) -> Vec<u8> {
        [content, &self.owner.keys().prks().mac(MacUse::Operation, MAC_NAME, &[content])].concat()
    }

    fn sealed(&self) -> Vec<u8> {
        self.with_mac(&self.content())
    }

    fn fields(&self) -> Value {
        json!({
            "target": hex(&bytes::<16>("target")), "operation": hex(&bytes::<16>("operation")),
            "sequence": self.sequence, "account": hex(&self.owner.account), "generation": self.owner.generation,
            "kind": self.kind, "status": self.status, "code": self.failed.as_ref().map(|(code, _)| code),
            "message": self.failed.as_ref().map(|(_, message)| message), "cancelled": self.cancelled,
            "run": self.run, "started": self.started, "updated": self.updated, "done": self.done,
            "failed": self.failed_pieces, "total": self.total, "bytes": self.bytes, "worked": self.worked,
            "cursor": hex(&self.cursor),
        })
    }

    fn valid(&self, file: &mut File, name: impl Into<String>) {
        file.push(name, &self.owner, json!({ "sealed": hex(&self.sealed()), "fields": self.fields() }));
    }

    fn invalid(&self, file: &mut File, name: impl Into<String>, sealed: &[u8], error: ErrorKind) {
        file.push(name, &self.owner, json!({ "sealed": hex(sealed), "error": format!("{error:?}") }));
    }
}

const MAC_NAME: &[u8] = b"operation";
const LAST_TIME: u64 = Timestamp::MAX;

pub(super) fn file() -> File {
    let mut file = File::new("operation");
    for operation in 1..=4 {
        let under_way = if operation <= 2 { 2 } else { 3 };
        for status in [1, under_way, 4, 5, 6] {
            Said::of(operation, status).valid(&mut file, format!("kind {operation}, status {status}"));
        }
    }
    for code in 1..=13 {
        let failed = Some((code, "é".to_owned()));
        Said { failed, ..Said::of(2, 5) }.valid(&mut file, format!("code {code}"));
    }
    let usual = Said::of(2, 2);
    let failed = Some((13, "m".repeat(512)));
    let longest = Said { failed, cursor: stream("cursor", 4096), ..Said::of(4, 5) };
    longest.valid(&mut file, "longest");
    Said { failed: Some((7, "m".to_owned())), ..Said::of(2, 5) }.valid(&mut file, "shortest message");
    for cursor in [vec![], vec![0]] {
        let name = format!("cursor of {} bytes", cursor.len());
        Said { cursor, ..usual.clone() }.valid(&mut file, name);
    }
    for sequence in [1, 256, u64::MAX] {
        Said { sequence, ..usual.clone() }.valid(&mut file, format!("sequence {sequence}"));
    }
    for total in [None, Some(0), Some(u64::MAX)] {
        Said { total, ..usual.clone() }.valid(&mut file, format!("total {total:?}"));
    }
    Said { cancelled: true, run: u32::MAX, ..usual.clone() }
        .valid(&mut file, "to be cancelled, in its last run");
    Said { run: 1, started: 0, updated: LAST_TIME, ..usual.clone() }.valid(&mut file, "all of time");
    let most = u64::MAX;
    Said { done: most, failed_pieces: most, bytes: most, worked: most, ..usual.clone() }
        .valid(&mut file, "as much as there is");
    for generation in GENERATIONS {
        let owner = Owner::of_generation(generation);
        Said { owner, ..usual.clone() }.valid(&mut file, format!("generation {generation}"));
    }
    let owner = Owner::usual_of(Suite::Double);
    Said { owner, ..usual }.valid(&mut file, "suite 2");
    malformed(&mut file);
    malformed_failures(&mut file);
    untrusted(&mut file);
    file
}

fn malformed(file: &mut File) {
    let said = Said::of(2, 2);
    let content = said.content();
    let mut refuse = |name: &str, content: &[u8]| {
        said.invalid(file, name, &said.with_mac(content), ErrorKind::Format);
    };
    for (name, at, to) in [
        ("magic", 0, &[0x88][..]),
        ("magic of a record", 3, b"R"),
        ("magic of a scope", 3, b"S"),
        ("version 0", 8, &[0]),
        ("version 2", 8, &[2]),
        ("sequence 0", 41, &[0; 8]),
        ("generation 0", 65, &[0; 4]),
        ("kind 0", 69, &[0]),
        ("kind 5", 69, &[5]),
        ("status 0", 70, &[0]),
        ("status 7", 70, &[7]),
        ("a re-seal that deletes", 70, &[3]),
        ("a deletion that updates", 69, &[3]),
        ("a purge that updates", 69, &[4]),
        ("failed, without a code", 70, &[5]),
        ("cancellation 2", 71, &[2]),
        ("run 0", 72, &[0; 4]),
        ("begun after the end of time", 76, &(LAST_TIME + 1).to_be_bytes()),
        ("changed after the end of time", 84, &(LAST_TIME + 1).to_be_bytes()),
        ("total is known 2", 108, &[2]),
        ("a total that is not known", 108, &[0]),
        ("cursor 2", 133, &[2]),
        ("a cursor that its flag denies", 133, &[0]),
        ("an empty cursor", 134, &[0, 0]),
        ("a cursor longer than there is", 134, &[0, 7]),
    ] {
        refuse(name, &set(&content, at, to));
    }
    let long = Said { cursor: stream("cursor", 4097), ..said.clone() };
    refuse("cursor too long", &long.content());
    refuse("a flag and no cursor", &content[..134]);
    refuse("a byte more", &[&content[..], &[0]].concat());
    refuse("a byte less", &content[..content.len() - 1]);
    for len in [0, 8, 9, 31, 32, 100, 133, 165] {
        said.invalid(file, format!("cut to {len} bytes"), &said.sealed()[..len], ErrorKind::Format);
    }
}

fn malformed_failures(file: &mut File) {
    let said = Said::of(2, 5);
    for code in [0, 14, 0xFF] {
        let failed = Some((code, "é".to_owned()));
        let sealed = Said { failed, ..said.clone() }.sealed();
        said.invalid(file, format!("code {code}, unknown"), &sealed, ErrorKind::Format);
    }
    for (name, message) in [
        ("message empty", String::new()),
        ("message too long", "m".repeat(513)),
        ("message of two lines", "one\ntwo".to_owned()),
        ("message with DEL", "one\u{7f}".to_owned()),
    ] {
        let sealed = Said { failed: Some((1, message)), ..said.clone() }.sealed();
        said.invalid(file, name, &sealed, ErrorKind::Format);
    }
    let changed = set(&said.content(), 74, &[0xFF]);
    said.invalid(file, "message not UTF-8", &said.with_mac(&changed), ErrorKind::Format);
}

fn untrusted(file: &mut File) {
    let said = Said::of(2, 2);
    let (content, sealed) = (said.content(), said.sealed());
    for (name, at) in [
        ("target", 9),
        ("operation", 25),
        ("sequence", 48),
        ("account", 49),
        ("generation", 68),
        ("run", 75),
        ("started", 83),
        ("updated", 91),
        ("done", 99),
        ("failed", 107),
        ("total", 116),
        ("bytes", 124),
        ("worked", 132),
        ("cursor", 139),
    ] {
        let mut changed = sealed.clone();
        changed[at] ^= 4;
        said.invalid(file, format!("{name} is changed"), &changed, ErrorKind::Untrusted);
    }
    for (name, at, to) in
        [("kind is changed", 69, 1), ("ended without a key", 70, 4), ("cancelled without a key", 71, 1)]
    {
        said.invalid(file, name, &set(&sealed, at, &[to]), ErrorKind::Untrusted);
    }
    let forger = Owner { secret: bytes("secret 2"), ..Owner::usual() };
    let by_another = Said { owner: forger, ..said.clone() }.with_mac(&content);
    let for_another_use = said.owner.keys().prks().mac(MacUse::Scope, b"scope state", &[&content]);
    for (name, sealed) in other_macs(&sealed, by_another, for_another_use) {
        said.invalid(file, name, &sealed, ErrorKind::Untrusted);
    }
}

/// By the account itself, so that what operations verify and write is what is frozen.
pub(super) fn check(world: &mut World, vector: &Value) -> Outcome {
    let sealed = unhex(vector, "sealed");
    let (state, content, mac) = OperationState::parse(&sealed).map_err(kind)?;
    assert_eq!(state.content(), content);
    let account = world.account(vector);
    let permit = account.permit().unwrap();
    let untrusted = || format!("{:?}", ErrorKind::Untrusted);
    if state.account != account.id() {
        return Err(untrusted());
    }
    permit.verify_operation_mac(state.generation, content, mac).map_err(|_| untrusted())?;
    assert_eq!(&permit.operation_mac(state.generation, content).unwrap(), mac);
    let OperationState { target, id, sequence, generation, run, progress, cursor, .. } = &state;
    let seconds = |time: Timestamp| SystemTime::from(time).duration_since(UNIX_EPOCH).unwrap().as_secs();
    let operation = match state.kind {
        OperationKind::Rewrap => 1,
        OperationKind::Reseal => 2,
        OperationKind::Delete => 3,
        OperationKind::Purge => 4,
    };
    let (status, code, message) = match &state.status {
        OperationStatus::InProgress => (1, None, None),
        OperationStatus::Updating => (2, None, None),
        OperationStatus::Deleting => (3, None, None),
        OperationStatus::Succeeded => (4, None, None),
        OperationStatus::Failed { code, message } => (5, Some(number_of(*code)), Some(message)),
        OperationStatus::Cancelled => (6, None, None),
    };
    let found = json!({
        "target": hex(target.as_bytes()), "operation": hex(id.as_bytes()), "sequence": sequence.number(),
        "account": hex(state.account.as_bytes()), "generation": generation.number(), "kind": operation,
        "status": status, "code": code, "message": message, "cancelled": state.cancel_requested, "run": run,
        "started": seconds(state.started), "updated": seconds(state.updated), "done": progress.done,
        "failed": progress.failed, "total": progress.total, "bytes": progress.bytes,
        "worked": u64::try_from(progress.worked.as_millis()).unwrap(), "cursor": hex(cursor),
    });
    assert_eq!(found, vector["fields"], "{}", vector["name"]);
    Ok(())
}

/// As the document numbers them, and not by the code's own table.
fn number_of(code: ErrorKind) -> u8 {
    match code {
        ErrorKind::Revoked => 1,
        ErrorKind::Unavailable => 2,
        ErrorKind::NotReady => 3,
        ErrorKind::Locked => 4,
        ErrorKind::Deleted => 5,
        ErrorKind::UnknownGeneration => 6,
        ErrorKind::Corrupt => 7,
        ErrorKind::Format => 8,
        ErrorKind::Untrusted => 9,
        ErrorKind::Conflict => 10,
        ErrorKind::Misuse => 11,
        ErrorKind::Limit => 12,
        ErrorKind::Io => 13,
    }
}
