//! What is in the place of a record whose account was purged: that it was, and how far its record had come (contract E7).
//!
//! It has no MAC, because there is no key any more to verify one with. It gives nobody anything: whoever can write it can
//! remove the record as well. Byte by byte: `docs/FORMAT.md`. Imports: `format::{codec, record}`, `id`, `error`.

use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::format::record::{AccountRecord, Sequence, Timestamp};
use crate::id::AccountId;

/// The account's wrapped AEKs were destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) account: AccountId,
    /// Higher than that of the record before, so that an anchor notices that one when it is put back.
    pub(crate) sequence: Sequence,
    pub(crate) purged_at: Timestamp,
    pub(crate) reason: Purged,
}

/// How an account came to be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purged {
    /// Deleted, and not recovered within its retention.
    AfterRetention,
    /// By an explicit word, whatever state it was in.
    Shredded,
}

impl Tombstone {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let Self { account, sequence, purged_at, reason } = self;
        let mut writer = Writer::default();
        writer.put(&MAGIC);
        writer.u8(VERSION);
        writer.put(account.as_bytes());
        writer.u64(sequence.number());
        purged_at.write(&mut writer);
        writer.u8(match reason {
            Purged::AfterRetention => AFTER_RETENTION,
            Purged::Shredded => SHREDDED,
        });
        writer.into_bytes()
    }

    /// Whether these bytes are, or mean to be, a tombstone and no record.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Whether these bytes, in the place of the record of `account`, say that it was purged. What only begins like a tombstone, and that of
    /// another account, say nothing of it.
    pub(crate) fn is_of(account: AccountId, bytes: &[u8]) -> bool {
        Self::parse(bytes).is_ok_and(|tombstone| tombstone.account == account)
    }

    /// # Errors
    /// [`ErrorKind::Format`] for anything but the one encoding of a tombstone.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(format("not a tombstone"));
        }
        if reader.u8()? != VERSION {
            return Err(format("a tombstone of an unknown version"));
        }
        let account = AccountId::from_bytes(reader.array()?);
        let sequence =
            Sequence::new(reader.u64()?).ok_or_else(|| format("a tombstone's sequence is zero"))?;
        let purged_at = Timestamp::parse(&mut reader)?;
        let reason = match reader.u8()? {
            AFTER_RETENTION => Purged::AfterRetention,
            SHREDDED => Purged::Shredded,
            _ => return Err(format("a tombstone with an unknown reason")),
        };
        reader.finish()?;
        Ok(Self { account, sequence, purged_at, reason })
    }
}

/// How far the record has come that these bytes are, or that is no more. A hint, like all that is not verified.
///
/// # Errors
/// [`ErrorKind::Format`] for what is neither a record nor a tombstone.
pub(crate) fn sequence_of(bytes: &[u8]) -> Result<Sequence, Error> {
    if Tombstone::is_one(bytes) {
        return Tombstone::parse(bytes).map(|tombstone| tombstone.sequence);
    }
    AccountRecord::parse(bytes).map(|record| record.sequence())
}

/// What is told of an account with a tombstone, whatever was asked of it.
pub(crate) const fn purged(account: AccountId) -> Error {
    Error::new(ErrorKind::Deleted, "the account was purged: its key is destroyed").with_account(account)
}

const fn format(message: &'static str) -> Error {
    Error::new(ErrorKind::Format, message)
}

const MAGIC: [u8; 8] = *b"\x89SRX\r\n\x1a\n";
const VERSION: u8 = 1;
const AFTER_RETENTION: u8 = 1;
const SHREDDED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e7_f1_a_tombstone_reads_back_what_it_writes_and_nothing_else() {
        let whole = Tombstone {
            account: AccountId::from_bytes([1; 16]),
            sequence: Sequence::FIRST,
            purged_at: Timestamp::from_wall_nanos(7_000_000_000),
            reason: Purged::AfterRetention,
        };
        for tombstone in [whole, Tombstone { reason: Purged::Shredded, ..whole }] {
            assert_eq!(Tombstone::parse(&tombstone.to_bytes()).unwrap(), tombstone);
            assert!(Tombstone::is_of(whole.account, &tombstone.to_bytes()));
            assert!(!Tombstone::is_of(AccountId::from_bytes([2; 16]), &tombstone.to_bytes()));
        }
        let good = whole.to_bytes();
        assert_eq!(good.len(), 42);
        for len in 0..good.len() {
            assert!(Tombstone::parse(&good[..len]).is_err(), "{len}");
        }
        for (at, value) in [(0, &[0x88][..]), (8, &[2]), (25, &[0; 8]), (33, &[0xFF]), (41, &[0]), (41, &[3])]
        {
            let mut bad = good.clone();
            bad[at..at + value.len()].copy_from_slice(value);
            assert_eq!(Tombstone::parse(&bad).unwrap_err().kind(), ErrorKind::Format, "{at}");
            assert!(!Tombstone::is_of(whole.account, &bad), "{at}");
        }
        assert!(Tombstone::parse(&[&good[..], &[0]].concat()).is_err());
        assert_eq!(sequence_of(&good).unwrap(), Sequence::FIRST);
        assert!(AccountRecord::parse(&good).is_err(), "never taken for a record");
        assert!(sequence_of(b"neither").is_err());
    }
}
