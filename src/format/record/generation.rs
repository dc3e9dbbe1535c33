//! What a record says of one generation. Imports: `record::values`, `format::codec`, `id`, `error`.

use super::values::{KeyFingerprint, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::id::{Generation, Suite};

/// One AEK of an account, as the record names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GenerationEntry {
    pub(crate) number: Generation,
    pub(crate) suite: Suite,
    pub(crate) created: Timestamp,
    /// From when machines seal under it; until then they only open (contract E4).
    pub(crate) active_from: Timestamp,
    pub(crate) fingerprint: KeyFingerprint,
}

impl GenerationEntry {
    pub(super) fn write(&self, writer: &mut Writer) {
        let Self { number, suite, created, active_from, fingerprint } = self;
        writer.u32(number.number());
        writer.u8(suite.number());
        created.write(writer);
        active_from.write(writer);
        writer.put(fingerprint.as_bytes());
    }

    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let number = Generation::new(reader.u32()?)
            .ok_or_else(|| Error::new(ErrorKind::Format, "a record's generation is zero"))?;
        let suite = Suite::from_number(reader.u8()?)
            .ok_or_else(|| Error::new(ErrorKind::Format, "a record of an unknown suite"))?;
        let created = Timestamp::parse(reader)?;
        let active_from = Timestamp::parse(reader)?;
        if active_from < created {
            return Err(Error::new(ErrorKind::Format, "a generation is active before it was created"));
        }
        Ok(Self {
            number,
            suite,
            created,
            active_from,
            fingerprint: KeyFingerprint::from_bytes(reader.array()?),
        })
    }
}
