//! The state of an operation: long work, how far it has come, and how it ended (contract E8).
//!
//! ```text
//! state = content | MAC32
//! MAC   = HMAC(Expand(PRK, "SRW1"), "operation" || 0 || content)
//! ```
//! PRK is of the account that the work is noted under. It is parsed first, and nothing in it is believed before the MAC: whoever
//! could set a cursor forward would have data left out. Byte by byte: `docs/FORMAT.md`. Imports: `format::{codec, record}`, `id`, `error`.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::format::record::{Sequence, Timestamp};
use crate::id::{AccountId, Generation, OperationId, OperationTarget};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperationKind {
    /// Wraps AEKs under the newest version of their KEK. Touches no data.
    Rewrap,
    /// Seals data anew, under another generation.
    Reseal,
    /// Deletes accounts, recoverably.
    Delete,
    /// Destroys wrapped AEKs, for good.
    Purge,
}

/// Where an operation stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperationStatus {
    /// Begun; nothing was changed yet.
    InProgress,
    /// Under way, with something changed: [`OperationKind::Rewrap`] and [`OperationKind::Reseal`].
    Updating,
    /// Under way, with something deleted: [`OperationKind::Delete`] and [`OperationKind::Purge`].
    Deleting,
    /// Ended, with all done.
    Succeeded,
    /// Ended before all was done. What was done stays.
    Failed {
        /// What the caller does about it.
        code: ErrorKind,
        /// What went wrong, for a person: at most 512 bytes, without a secret.
        message: String,
    },
    /// Ended because that was asked for. What was done stays.
    Cancelled,
}

/// How far an operation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationProgress {
    /// Pieces that were done: accounts, objects.
    pub done: u64,
    /// Pieces that could not be done, and were left as they are.
    pub failed: u64,
    /// How many there are in all, where that is known.
    pub total: Option<u64>,
    /// Bytes that were worked on.
    pub bytes: u64,
    /// How long has been worked on it, without the time in which nobody ran it. Up to the last checkpoint.
    pub worked: Duration,
}

/// Everything that is noted of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationState {
    pub(crate) target: OperationTarget,
    pub(crate) id: OperationId,
    /// Counts the changes of what is noted of this target.
    pub(crate) sequence: Sequence,
    /// Whose key the MAC is under.
    pub(crate) account: AccountId,
    pub(crate) generation: Generation,
    pub(crate) kind: OperationKind,
    pub(crate) status: OperationStatus,
    pub(crate) cancel_requested: bool,
    /// Counts those who have run it: one that is taken over has another number, and writes no more.
    pub(crate) run: u32,
    pub(crate) started: Timestamp,
    /// Of the last change; of the end, once it has ended.
    pub(crate) updated: Timestamp,
    pub(crate) progress: OperationProgress,
    /// Where to go on; empty at the beginning.
    pub(crate) cursor: Vec<u8>,
}

impl OperationKind {
    /// The status of one that is under way.
    pub(crate) const fn under_way(self) -> OperationStatus {
        match self {
            Self::Rewrap | Self::Reseal => OperationStatus::Updating,
            Self::Delete | Self::Purge => OperationStatus::Deleting,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Rewrap => 1,
            Self::Reseal => 2,
            Self::Delete => 3,
            Self::Purge => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Rewrap, Self::Reseal, Self::Delete, Self::Purge]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

impl OperationStatus {
    /// Whether it has ended, however.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        match self {
            Self::InProgress | Self::Updating | Self::Deleting => false,
            Self::Succeeded | Self::Failed { .. } | Self::Cancelled => true,
        }
    }

    /// That of an end by `error`, whose text is cut and cleaned so that it can be noted.
    pub(crate) fn failed(error: &Error) -> Self {
        let mut message = String::new();
        for char in error.to_string().chars() {
            let char = if char.is_control() { ' ' } else { char };
            if message.len() + char.len_utf8() > MAX_MESSAGE {
                break;
            }
            message.push(char);
        }
        Self::Failed { code: error.kind(), message }
    }

    fn write(&self, writer: &mut Writer) {
        writer.u8(match self {
            Self::InProgress => IN_PROGRESS,
            Self::Updating => UPDATING,
            Self::Deleting => DELETING,
            Self::Succeeded => SUCCEEDED,
            Self::Failed { .. } => FAILED,
            Self::Cancelled => CANCELLED,
        });
        if let Self::Failed { code, message } = self {
            writer.u8(number_of(*code));
            writer.prefixed(message.as_bytes());
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match reader.u8()? {
            IN_PROGRESS => Self::InProgress,
            UPDATING => Self::Updating,
            DELETING => Self::Deleting,
            SUCCEEDED => Self::Succeeded,
            FAILED => {
                let number = reader.u8()?;
                let code = CODES.iter().copied().find(|code| number_of(*code) == number);
                let code = code.ok_or_else(|| format("an operation failed with an unknown code"))?;
                let message = reader.prefixed_text(MAX_MESSAGE)?;
                if message.chars().any(char::is_control) {
                    return Err(format("an operation's message has control characters"));
                }
                Self::Failed { code, message: message.to_owned() }
            }
            CANCELLED => Self::Cancelled,
            _ => return Err(format("an operation of an unknown status")),
        })
    }
}

impl fmt::Display for OperationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InProgress => f.write_str("in progress"),
            Self::Updating => f.write_str("updating"),
            Self::Deleting => f.write_str("deleting"),
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed { code, message } => write!(f, "failed ({code}): {message}"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl OperationProgress {
    /// Pieces a second, while it was worked on; `None` before a second has passed.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an estimate for a person")]
    pub fn per_second(&self) -> Option<f64> {
        let pieces = self.done.saturating_add(self.failed);
        (self.worked >= Duration::from_secs(1)).then(|| pieces as f64 / self.worked.as_secs_f64())
    }

    /// How long it will take at that rate; `None` while the total or the rate is not known.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let pieces = self.done.saturating_add(self.failed);
        let left = self.total?.saturating_sub(pieces);
        if pieces == 0 || self.worked < Duration::from_secs(1) {
            return None;
        }
        let millis = u128::from(left) * self.worked.as_millis() / u128::from(pieces);
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
    }

    fn write(&self, writer: &mut Writer) {
        let Self { done, failed, total, bytes, worked } = *self;
        writer.u64(done);
        writer.u64(failed);
        writer.flag(total.is_some());
        writer.u64(total.unwrap_or(0));
        writer.u64(bytes);
        writer.u64(u64::try_from(worked.as_millis()).unwrap_or(u64::MAX));
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let (done, failed) = (reader.u64()?, reader.u64()?);
        let (known, total) = (reader.flag()?, reader.u64()?);
        if !known && total != 0 {
            return Err(format("an operation gives a total that its flag denies"));
        }
        let (bytes, worked) = (reader.u64()?, Duration::from_millis(reader.u64()?));
        Ok(Self { done, failed, total: known.then_some(total), bytes, worked })
    }
}

impl OperationState {
    /// The longest cursor, in bytes.
    pub(crate) const MAX_CURSOR: usize = 4096;

    /// The longest state, in bytes.
    pub(crate) const MAX_LEN: usize = FIXED_LEN + 1 + 2 + MAX_MESSAGE + 2 + Self::MAX_CURSOR + MAC_LEN;

    /// What the MAC is over.
    pub(crate) fn content(&self) -> Vec<u8> {
        let Self {
            target,
            id,
            sequence,
            account,
            generation,
            kind,
            status,
            cancel_requested,
            run,
            started,
            updated,
            progress,
            cursor,
        } = self;
        let mut writer = Writer::default();
        writer.put(&MAGIC);
        writer.u8(VERSION);
        writer.put(target.as_bytes());
        writer.put(id.as_bytes());
        writer.u64(sequence.number());
        writer.put(account.as_bytes());
        writer.u32(generation.number());
        writer.u8(kind.number());
        status.write(&mut writer);
        writer.flag(*cancel_requested);
        writer.u32(*run);
        started.write(&mut writer);
        updated.write(&mut writer);
        progress.write(&mut writer);
        writer.flag(!cursor.is_empty());
        if !cursor.is_empty() {
            writer.prefixed(cursor);
        }
        writer.into_bytes()
    }

    /// Whether these bytes are, or mean to be, something else that this library keeps in a record store.
    pub(crate) fn is_something_else(bytes: &[u8]) -> bool {
        bytes.starts_with(b"\x89SR") && !bytes.starts_with(&MAGIC)
    }

    /// Takes a stored state apart: what it claims, what its MAC is over, and the MAC. Nothing is believed.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for anything but the one encoding of a state.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, &[u8], &[u8; MAC_LEN]), Error> {
        if bytes.len() > Self::MAX_LEN {
            return Err(format("an operation's state is too long"));
        }
        let (content, mac) =
            bytes.split_last_chunk::<MAC_LEN>().ok_or_else(|| format("an operation's state is truncated"))?;
        let mut reader = Reader::new(content);
        let state = Self::read(&mut reader)?;
        reader.finish()?;
        Ok((state, content, mac))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        if reader.array()? != MAGIC {
            return Err(format("not an operation's state"));
        }
        if reader.u8()? != VERSION {
            return Err(format("an operation's state of an unknown version"));
        }
        let target = OperationTarget::from_bytes(reader.array()?);
        let id = OperationId::from_bytes(reader.array()?);
        let sequence = Sequence::new(reader.u64()?).ok_or_else(|| format("a sequence of zero"))?;
        let account = AccountId::from_bytes(reader.array()?);
        let generation = Generation::new(reader.u32()?).ok_or_else(|| format("a generation of zero"))?;
        let kind = OperationKind::from_number(reader.u8()?)
            .ok_or_else(|| format("an operation of an unknown kind"))?;
        let status = OperationStatus::parse(reader)?;
        let under_way = matches!(status, OperationStatus::Updating | OperationStatus::Deleting);
        if under_way && status != kind.under_way() {
            return Err(format("an operation's status is not of its kind"));
        }
        let cancel_requested = reader.flag()?;
        let run = reader.u32()?;
        if run == 0 {
            return Err(format("an operation that nobody has run"));
        }
        let (started, updated) = (Timestamp::parse(reader)?, Timestamp::parse(reader)?);
        let progress = OperationProgress::parse(reader)?;
        let cursor = if reader.flag()? { reader.prefixed(Self::MAX_CURSOR)?.to_vec() } else { Vec::new() };
        Ok(Self {
            target,
            id,
            sequence,
            account,
            generation,
            kind,
            status,
            cancel_requested,
            run,
            started,
            updated,
            progress,
            cursor,
        })
    }
}

/// A code's number in the format.
const fn number_of(code: ErrorKind) -> u8 {
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

const fn format(message: &'static str) -> Error {
    Error::new(ErrorKind::Format, message)
}

/// All codes that have a number.
const CODES: [ErrorKind; 13] = [
    ErrorKind::Revoked,
    ErrorKind::Unavailable,
    ErrorKind::NotReady,
    ErrorKind::Locked,
    ErrorKind::Deleted,
    ErrorKind::UnknownGeneration,
    ErrorKind::Corrupt,
    ErrorKind::Format,
    ErrorKind::Untrusted,
    ErrorKind::Conflict,
    ErrorKind::Misuse,
    ErrorKind::Limit,
    ErrorKind::Io,
];

const MAGIC: [u8; 8] = *b"\x89SRW\r\n\x1a\n";
const VERSION: u8 = 1;
const MAC_LEN: usize = 32;
const IN_PROGRESS: u8 = 1;
const UPDATING: u8 = 2;
const DELETING: u8 = 3;
const SUCCEEDED: u8 = 4;
const FAILED: u8 = 5;
const CANCELLED: u8 = 6;
/// The longest message of a failure, in bytes.
pub(super) const MAX_MESSAGE: usize = 512;

/// Magic, version, target, id, sequence, account, generation, kind, status, cancellation, run, two times, progress, the
/// cursor's flag.
const FIXED_LEN: usize = 8 + 1 + 16 + 16 + 8 + 16 + 4 + 1 + 1 + 1 + 4 + 8 + 8 + PROGRESS_LEN + 1;
/// Done, failed, a flag, total, bytes, milliseconds.
const PROGRESS_LEN: usize = 8 + 8 + 1 + 8 + 8 + 8;
const _: () = assert!(FIXED_LEN == 134);

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> OperationState {
        OperationState {
            target: OperationTarget::from_bytes([1; 16]),
            id: OperationId::from_bytes([2; 16]),
            sequence: Sequence::FIRST,
            account: AccountId::from_bytes([3; 16]),
            generation: Generation::FIRST,
            kind: OperationKind::Reseal,
            status: OperationStatus::InProgress,
            cancel_requested: false,
            run: 1,
            started: Timestamp::from_wall_nanos(1_000_000_000),
            updated: Timestamp::from_wall_nanos(2_000_000_000),
            progress: OperationProgress::default(),
            cursor: Vec::new(),
        }
    }

    fn stored(state: &OperationState) -> Vec<u8> {
        [state.content(), vec![0; MAC_LEN]].concat()
    }

    #[test]
    fn e8_a_state_reads_back_what_it_writes() {
        let failed = OperationStatus::failed(&Error::new(ErrorKind::Revoked, "the KMS refused"));
        let worked = Duration::from_millis(1_500);
        let progress = OperationProgress { done: 1, failed: 2, total: Some(0), bytes: 4, worked };
        let states = [
            state(),
            OperationState { status: OperationStatus::Updating, cursor: vec![9; 4096], ..state() },
            OperationState { status: failed, progress, cancel_requested: true, run: 7, ..state() },
            OperationState { status: OperationStatus::Cancelled, ..state() },
            OperationState {
                kind: OperationKind::Purge,
                status: OperationStatus::Deleting,
                cursor: vec![0],
                ..state()
            },
        ];
        for state in states {
            let bytes = stored(&state);
            let (read, content, _) = OperationState::parse(&bytes).unwrap();
            assert_eq!((&read, content), (&state, state.content().as_slice()));
        }
        assert_eq!(stored(&state()).len(), FIXED_LEN + MAC_LEN);
    }

    #[test]
    fn e8_f2_messages_and_cursors_are_bounded() {
        let detail = "é\n".repeat(1000);
        let long = OperationStatus::failed(&Error::new(ErrorKind::Io, "x").with_detail(detail));
        let OperationStatus::Failed { code, message } = &long else { panic!("failed") };
        assert_eq!(*code, ErrorKind::Io);
        assert!(message.len() <= MAX_MESSAGE && message.len() > MAX_MESSAGE - 4);
        assert!(!message.chars().any(char::is_control));
        let filled = OperationStatus::failed(&Error::new(ErrorKind::Io, "x").with_detail("x".repeat(1000)));
        let OperationStatus::Failed { message, .. } = filled else { panic!("failed") };
        assert_eq!(message.len(), MAX_MESSAGE);
        let longest = OperationState { status: long, cursor: vec![1; OperationState::MAX_CURSOR], ..state() };
        assert!(OperationState::parse(&stored(&longest)).is_ok());
        assert!(stored(&longest).len() <= OperationState::MAX_LEN);
        let longer = OperationState { cursor: vec![1; OperationState::MAX_CURSOR + 1], ..state() };
        assert_eq!(OperationState::parse(&stored(&longer)).unwrap_err().kind(), ErrorKind::Format);
    }

    #[test]
    fn e8_f1_what_is_no_operations_state_is_refused() {
        let good = stored(&OperationState { cursor: vec![5; 3], ..state() });
        for len in 0..good.len() {
            assert!(OperationState::parse(&good[..len]).is_err(), "{len}");
        }
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            OperationState::parse(&bytes).map(drop)
        };
        assert!(with(0, &[0x89]).is_ok());
        for (at, value) in [
            (0, &[0x88][..]),
            (8, &[2]),
            (41, &[0; 8]), // sequence
            (65, &[0; 4]), // generation
            (69, &[0]),    // kind
            (69, &[5]),
            (70, &[0]), // status
            (70, &[3]), // a re-seal does not delete
            (70, &[7]),
            (71, &[2]),       // cancellation
            (72, &[0; 4]),    // run
            (76, &[0xFF; 8]), // started
            (108, &[2]),      // a total is known
            (109, &[1]),      // a total that is not known
            (133, &[0]),      // no cursor, and yet there is
            (134, &[0, 0]),
            (134, &[0x10, 0x01]),
        ] {
            assert_eq!(with(at, value).map_err(|error| error.kind()), Err(ErrorKind::Format), "{at}");
        }
        assert!(OperationState::parse(&[&good[..], &[0]].concat()).is_err());
        assert!(OperationState::parse(&vec![0; OperationState::MAX_LEN + 1]).is_err());
    }

    #[test]
    fn e8_every_code_has_a_number_of_its_own() {
        for (at, code) in CODES.into_iter().enumerate() {
            assert_eq!(usize::from(number_of(code)), at + 1);
        }
    }

    #[test]
    fn e8_rate_and_estimate_follow_from_what_was_done() {
        let worked = Duration::from_secs(10);
        let progress = OperationProgress { done: 15, failed: 5, total: Some(50), bytes: 0, worked };
        assert_eq!(progress.per_second(), Some(2.0));
        assert_eq!(progress.remaining(), Some(Duration::from_secs(15)));
        let new = OperationProgress { total: Some(50), ..OperationProgress::default() };
        assert_eq!((new.per_second(), new.remaining()), (None, None));
        assert_eq!(OperationProgress { total: None, ..progress }.remaining(), None);
        let most = OperationProgress { done: u64::MAX, failed: 1, total: Some(u64::MAX), bytes: 0, worked };
        assert_eq!(most.remaining(), Some(Duration::ZERO));
    }
}
