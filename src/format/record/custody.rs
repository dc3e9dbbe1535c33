//! Who holds an AEK of an account: the KEKs, and the wraps that they made.
//!
//! ```text
//! single     one KEK wraps the AEK
//! failover   two KEKs wrap the same AEK; the second one stands in while the first one's KMS is silent
//! joint      two KEKs wrap a share each, and the AEK is both
//! ```
//! Imports: `record::values`, `format::codec`, the provider's vocabulary, `error`.

use std::time::Duration;

use super::values::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::provider::{KekUri, KekVersion, WrapAlgorithm, Wrapped};

/// What has to be unwrapped to have an AEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Custody {
    /// The AEK, wrapped by one KEK.
    Single(Slot),
    /// The AEK, wrapped by two KEKs, and when the second one may be used.
    Failover { first: Slot, second: Slot, terms: Terms },
    /// Two secrets that are the AEK together, each wrapped by a KEK of its own.
    Joint { first: Slot, second: Slot },
}

/// When the second KEK of a failover custody may stand in for the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// For how long since the first KEK's KMS has last answered, in whole seconds.
    pub(crate) limit: Limit,
    /// When that was, as far as anybody has recorded it.
    pub(crate) confirmed: Timestamp,
    pub(crate) standing: Standing,
}

/// How long a second KEK may stand in, at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(u32);

/// What is recorded of a refusal by the first KEK's KMS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// None. Carries the MAC of the record that follows this one when the first one refuses, so that whoever hears of it can record it
    /// and needs no key for that: a process that has just started has none, and one that was refused has none any more.
    Open { bar: [u8; 32] },
    /// It has refused, and has not unwrapped since. The second one is barred.
    Barred,
}

impl Standing {
    /// Not barred. The MAC is filled in when the record is sealed.
    pub(crate) const UNSEALED: Self = Self::Open { bar: [0; 32] };
}

impl Limit {
    /// A week.
    pub(crate) const MOST: Duration = Duration::from_secs(7 * 24 * 3600);

    /// `limit` in whole seconds, if it is at least one and at most [`Self::MOST`].
    pub(crate) fn new(limit: Duration) -> Option<Self> {
        let seconds = u32::try_from(limit.as_secs()).ok()?;
        (seconds > 0 && Duration::from_secs(seconds.into()) <= Self::MOST).then_some(Self(seconds))
    }

    pub(crate) const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl Terms {
    fn write(&self, writer: &mut Writer) {
        let Self { limit, confirmed, standing } = self;
        writer.u32(limit.0);
        confirmed.write(writer);
        writer.flag(matches!(standing, Standing::Barred));
        if let Standing::Open { bar } = standing {
            writer.put(bar);
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let limit = Limit::new(Duration::from_secs(reader.u32()?.into())).ok_or_else(|| {
            Error::new(
                ErrorKind::Format,
                "a record lets its second KEK stand in for longer than a week, or not at all",
            )
        })?;
        let confirmed = Timestamp::parse(reader)?;
        let standing =
            if reader.flag()? { Standing::Barred } else { Standing::Open { bar: reader.array()? } };
        Ok(Self { limit, confirmed, standing })
    }
}

/// One secret, wrapped by one KEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Its KEK version is the pinned one, where the policy pins.
    pub(crate) wrapped: Wrapped,
    /// The same secret under another version of the same KEK (contract E2).
    pub(crate) standby: Option<Wrapped>,
}

impl Custody {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::Single(slot) => {
                writer.u8(SINGLE);
                slot.write(writer);
            }
            Self::Failover { first, second, terms } => {
                writer.u8(FAILOVER);
                first.write(writer);
                second.write(writer);
                terms.write(writer);
            }
            Self::Joint { first, second } => {
                writer.u8(JOINT);
                first.write(writer);
                second.write(writer);
            }
        }
    }

    /// The custody of a second AEK, which one KEK holds.
    pub(super) fn parse_single(reader: &mut Reader<'_>) -> Result<Self, Error> {
        match Self::parse(reader)? {
            single @ Self::Single(_) => Ok(single),
            _ => Err(Error::new(ErrorKind::Format, "a second AEK that more than one KEK holds")),
        }
    }

    /// The AEK of each generation, in bytes: one secret, or both shares.
    pub(crate) const fn aek_len(&self) -> usize {
        match self {
            Self::Single(_) | Self::Failover { .. } => 32,
            Self::Joint { .. } => 2 * 32,
        }
    }

    pub(crate) const fn first(&self) -> &Slot {
        match self {
            Self::Single(slot) | Self::Failover { first: slot, .. } | Self::Joint { first: slot, .. } => slot,
        }
    }

    pub(crate) const fn second(&self) -> Option<&Slot> {
        match self {
            Self::Single(_) => None,
            Self::Failover { second, .. } | Self::Joint { second, .. } => Some(second),
        }
    }

    pub(crate) fn first_mut(&mut self) -> &mut Slot {
        match self {
            Self::Single(slot) | Self::Failover { first: slot, .. } | Self::Joint { first: slot, .. } => slot,
        }
    }

    pub(crate) fn second_mut(&mut self) -> Option<&mut Slot> {
        match self {
            Self::Single(_) => None,
            Self::Failover { second, .. } | Self::Joint { second, .. } => Some(second),
        }
    }

    pub(crate) const fn terms(&self) -> Option<&Terms> {
        match self {
            Self::Failover { terms, .. } => Some(terms),
            Self::Single(_) | Self::Joint { .. } => None,
        }
    }

    pub(crate) fn terms_mut(&mut self) -> Option<&mut Terms> {
        match self {
            Self::Failover { terms, .. } => Some(terms),
            Self::Single(_) | Self::Joint { .. } => None,
        }
    }

    fn two(reader: &mut Reader<'_>) -> Result<(Slot, Slot), Error> {
        let (first, second) = (Slot::parse(reader)?, Slot::parse(reader)?);
        if first.wrapped.kek() == second.wrapped.kek() {
            return Err(Error::new(ErrorKind::Format, "a record's two KEKs are one"));
        }
        Ok((first, second))
    }

    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        match reader.u8()? {
            SINGLE => Slot::parse(reader).map(Self::Single),
            FAILOVER => {
                let (first, second) = Self::two(reader)?;
                Ok(Self::Failover { first, second, terms: Terms::parse(reader)? })
            }
            JOINT => {
                let (first, second) = Self::two(reader)?;
                Ok(Self::Joint { first, second })
            }
            _ => Err(Error::new(ErrorKind::Format, "a record of an unknown kind of custody")),
        }
    }
}

impl Slot {
    fn write(&self, writer: &mut Writer) {
        let Self { wrapped, standby } = self;
        writer.prefixed(provider_of(wrapped.kek()).unwrap_or_default().as_bytes());
        writer.prefixed(wrapped.kek().as_str().as_bytes());
        write_wrap(wrapped, writer);
        writer.flag(standby.is_some());
        if let Some(standby) = standby {
            write_wrap(standby, writer);
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let provider = reader.prefixed_text(MAX_PROVIDER_LEN)?;
        let kek = KekUri::new(reader.prefixed_text(KekUri::MAX_LEN)?).map_err(malformed)?;
        if provider_of(&kek) != Some(provider) {
            return Err(Error::new(ErrorKind::Format, "a record's KEK is not its provider's"));
        }
        let wrapped = parse_wrap(&kek, reader)?;
        let standby = if reader.flag()? { Some(parse_wrap(&kek, reader)?) } else { None };
        if standby.as_ref().is_some_and(|standby| standby.version() == wrapped.version()) {
            return Err(Error::new(ErrorKind::Format, "a record's standby is of the same KEK version"));
        }
        Ok(Self { wrapped, standby })
    }
}

fn write_wrap(wrapped: &Wrapped, writer: &mut Writer) {
    writer.prefixed(wrapped.version().as_str().as_bytes());
    writer.prefixed(wrapped.algorithm().as_str().as_bytes());
    writer.prefixed(wrapped.bytes());
}

fn parse_wrap(kek: &KekUri, reader: &mut Reader<'_>) -> Result<Wrapped, Error> {
    let version = KekVersion::new(reader.prefixed_text(KekVersion::MAX_LEN)?).map_err(malformed)?;
    let algorithm = WrapAlgorithm::new(reader.prefixed_text(WrapAlgorithm::MAX_LEN)?).map_err(malformed)?;
    let bytes = reader.prefixed(Wrapped::MAX_LEN)?.to_vec();
    Wrapped::new(kek.clone(), version, algorithm, bytes).map_err(malformed)
}

/// `local` of `local://endpoint/name`.
fn provider_of(kek: &KekUri) -> Option<&str> {
    let (provider, _) = kek.as_str().split_once("://")?;
    (!provider.is_empty() && provider.len() <= MAX_PROVIDER_LEN).then_some(provider)
}

fn malformed<E>(_: E) -> Error {
    Error::new(ErrorKind::Format, "a record's text has control characters")
}

const SINGLE: u8 = 1;
const FAILOVER: u8 = 2;
const JOINT: u8 = 3;
/// The longest name of a kind of provider, in bytes.
pub(crate) const MAX_PROVIDER_LEN: usize = 64;

#[cfg(test)]
mod tests;
