//! Who holds the newest AEK of an account: the KEK, and the wraps that it made.
//!
//! Imports: `format::codec`, the provider's vocabulary, `error`.

use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::provider::{KekUri, KekVersion, WrapAlgorithm, Wrapped};

/// What has to be unwrapped to have an AEK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Custody {
    /// The AEK, wrapped by one KEK.
    Single(Slot),
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
        }
    }

    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        match reader.u8()? {
            SINGLE => Slot::parse(reader).map(Self::Single),
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
/// The longest name of a kind of provider, in bytes.
pub(crate) const MAX_PROVIDER_LEN: usize = 64;
