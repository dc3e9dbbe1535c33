//! What a record says of one generation. Imports: `record::values`, `derive`, `format::codec`, `id`, `error`.

use super::values::{KeyFingerprint, Timestamp};
use crate::derive::Prks;
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
    /// That of the second AEK: in suite 2, and only there.
    pub(crate) outer: Option<KeyFingerprint>,
}

impl GenerationEntry {
    /// The first one of an account, made at `created` and used from then on.
    pub(crate) fn first(prks: &Prks, created: Timestamp) -> Self {
        Self {
            number: Generation::FIRST,
            suite: prks.suite(),
            created,
            active_from: created,
            fingerprint: KeyFingerprint::of(&prks.inner().kcv()),
            outer: prks.outer().map(|prk| KeyFingerprint::of(&prk.kcv())),
        }
    }

    /// Names all keys of the generation.
    pub(crate) fn fingerprint_of_all(&self) -> KeyFingerprint {
        match &self.outer {
            None => self.fingerprint,
            Some(outer) => self.fingerprint.and(outer),
        }
    }

    /// Whether `prks` come from the AEKs of this generation.
    pub(crate) fn is_of(&self, prks: &Prks) -> bool {
        let outer = match (&self.outer, prks.outer()) {
            (None, None) => true,
            (Some(named), Some(prk)) => named.is_of(&prk.kcv()),
            _ => false,
        };
        outer && self.fingerprint.is_of(&prks.inner().kcv())
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let Self { number, suite, created, active_from, fingerprint, outer } = self;
        writer.u32(number.number());
        writer.u8(suite.number());
        created.write(writer);
        active_from.write(writer);
        writer.put(fingerprint.as_bytes());
        if let Some(outer) = outer {
            writer.put(outer.as_bytes());
        }
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
        let fingerprint = KeyFingerprint::from_bytes(reader.array()?);
        let outer = match suite {
            Suite::Aes256Gcm => None,
            Suite::Double => Some(KeyFingerprint::from_bytes(reader.array()?)),
        };
        Ok(Self { number, suite, created, active_from, fingerprint, outer })
    }
}
