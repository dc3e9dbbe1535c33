//! The small values of a record: its sequence number, its times, its key's fingerprint.
//!
//! Imports: `derive`, `format::codec`, `error`.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::derive::Kcv;
use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};

/// Counts the changes of a record, from 1. A process adopts a reloaded record only when it has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(u64);

/// Whole seconds since the Unix epoch, up to the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(u64);

/// The key check value of a generation: names one AEK, or both under double encryption, without giving anything of it away. Not secret; note
/// it somewhere else to pin an account to its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint([u8; 32]);

impl Sequence {
    /// That of a new record.
    pub const FIRST: Self = Self(1);

    /// The sequence numbered `number`; zero is none.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number, at least 1.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn next(self) -> Result<Self, Error> {
        let next = self.0.checked_add(1);
        next.map(Self).ok_or_else(|| Error::new(ErrorKind::Limit, "a record cannot be changed any more"))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Timestamp {
    /// 9999-12-31T23:59:59Z.
    pub(crate) const MAX: u64 = 253_402_300_799;

    /// The second that `nanos` nanoseconds since the Unix epoch fall into, as [`Moment`](crate::clock::Moment)
    /// tells the wall clock.
    pub(crate) const fn from_wall_nanos(nanos: u64) -> Self {
        // OK because 2^64 nanoseconds end in the year 2554.
        Self(nanos / 1_000_000_000)
    }

    /// When it begins, as [`Moment`](crate::clock::Moment) tells the wall clock; what is after the year 2554 is then.
    pub(crate) const fn wall_nanos(self) -> u64 {
        self.0.saturating_mul(1_000_000_000)
    }

    /// `by` later, rounded down to a second and at most the year 9999.
    pub(crate) fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()).min(Self::MAX))
    }

    /// What [`Self::from_wall_nanos`] takes; `None` after the year 2554.
    pub(crate) const fn exact_wall_nanos(self) -> Option<u64> {
        self.0.checked_mul(1_000_000_000)
    }

    /// How long after `earlier` this is; `None` where it is before.
    pub(crate) fn seconds_since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_secs)
    }

    pub(crate) fn write(self, writer: &mut Writer) {
        writer.u64(self.0);
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        match reader.u64()? {
            seconds @ 0..=Self::MAX => Ok(Self(seconds)),
            _ => Err(Error::new(ErrorKind::Format, "a time after the year 9999")),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        // OK because every platform's time reaches the year 9999.
        UNIX_EPOCH + Duration::from_secs(timestamp.0)
    }
}

impl KeyFingerprint {
    pub(crate) const fn of(kcv: &Kcv) -> Self {
        Self(*kcv.as_bytes())
    }

    /// The fingerprint of both AEKs of a generation, the inner one's being this.
    pub(crate) fn and(&self, outer: &Self) -> Self {
        Self::of(&Kcv::from_bytes(self.0).and(&Kcv::from_bytes(outer.0)))
    }

    /// Whether this is the fingerprint of the AEK that `kcv` comes from. Constant time.
    pub(crate) fn is_of(&self, kcv: &Kcv) -> bool {
        kcv.ct_eq(&Kcv::from_bytes(self.0))
    }

    /// The fingerprint that is written `bytes`.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of this fingerprint.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFingerprint({self})")
    }
}

impl FromStr for KeyFingerprint {
    type Err = Error;

    /// Reads the 64 hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misuse, "a key fingerprint is written as 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}
