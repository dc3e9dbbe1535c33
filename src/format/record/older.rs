//! The generations before the newest one: their names, and their AEKs sealed under the newest one's.
//!
//! So any number of generations costs one unwrap (contract E4). How an AEK is sealed here is told in `block::older`. Imports:
//! `record::generation`, `derive`, `format::codec`, `id`, `error`.

use super::generation::GenerationEntry;
use crate::derive::{MacUse, Prks};
use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::id::AccountId;

/// One generation before the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OlderGeneration {
    pub(crate) entry: GenerationEntry,
    /// Its AEK, sealed under the newest generation's.
    pub(crate) sealed: Vec<u8>,
}

/// All generations before the newest, the next to it first, and the word of that one for the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OlderGenerations {
    pub(crate) list: Vec<OlderGeneration>,
    /// Who held the AEK of the first in the list has made the newest one: none without it.
    pub(crate) link: Option<[u8; 32]>,
}

impl OlderGenerations {
    /// `list` before `newest`, with the link made by the keys of the first in it.
    pub(crate) fn linked(
        account: AccountId,
        newest: &GenerationEntry,
        list: Vec<OlderGeneration>,
        first: &Prks,
    ) -> Self {
        let link = list.first().map(|before| {
            first.mac(MacUse::Link, LINK_NAME, &[&link_content(account, newest, &before.entry)])
        });
        Self { list, link }
    }

    /// Whether the first in the list, whose keys are `first`, has vouched for `newest`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it has not.
    pub(crate) fn verify_link(
        &self,
        account: AccountId,
        newest: &GenerationEntry,
        first: &Prks,
    ) -> Result<(), Error> {
        match (self.list.first(), &self.link) {
            (Some(before), Some(link)) => {
                let content = link_content(account, newest, &before.entry);
                first.verify_mac(MacUse::Link, LINK_NAME, &[&content], link)
            }
            _ => Err(Error::corrupt()),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        // OK because more than MAX_OLDER do not read back, and what does not is never sealed.
        writer.u16(u16::try_from(self.list.len()).unwrap_or(u16::MAX));
        for OlderGeneration { entry, sealed } in &self.list {
            entry.write(writer);
            writer.prefixed(sealed);
        }
        if let Some(link) = &self.link {
            writer.put(link);
        }
    }

    pub(super) fn parse(newest: &GenerationEntry, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let malformed = |message| Err(Error::new(ErrorKind::Format, message));
        let count = usize::from(reader.u16()?);
        if count > MAX_OLDER {
            return malformed("a record has more than 256 older generations");
        }
        let mut list: Vec<OlderGeneration> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = GenerationEntry::parse(reader)?;
            let after = list.last().map_or(newest, |older| &older.entry);
            if entry.number >= after.number {
                return malformed("a record's generations are not in their order");
            }
            if entry.suite != newest.suite {
                return malformed("a record of an account that changed its suite");
            }
            let sealed = reader.prefixed(MAX_SEALED_LEN)?.to_vec();
            list.push(OlderGeneration { entry, sealed });
        }
        let link = if list.is_empty() { None } else { Some(reader.array()?) };
        Ok(Self { list, link })
    }
}

/// The account, the newest generation and the one before it, as the record names them.
fn link_content(account: AccountId, newest: &GenerationEntry, before: &GenerationEntry) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.put(account.as_bytes());
    newest.write(&mut writer);
    before.write(&mut writer);
    writer.into_bytes()
}

const LINK_NAME: &[u8] = b"generation link";
/// How many generations a record may have beside the newest.
pub(crate) const MAX_OLDER: usize = 256;
/// The longest sealed AEK of an older generation, in bytes.
pub(crate) const MAX_SEALED_LEN: usize = 256;
