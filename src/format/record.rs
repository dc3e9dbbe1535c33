//! The account record: what persists an account, and what makes it believable.
//!
//! ```text
//! record = content | MAC32
//! MAC    = HMAC(Expand(PRK, "SRR1"), "account record" || 0 || content)
//! ```
//! PRK is the one of the newest generation, whose AEK the record carries wrapped. So a record is first
//! parsed ([`AccountRecord`]: within bounds, canonical, its fields hints), then compared with what the embedder
//! expects, then its AEK is unwrapped, and only then is it verified ([`VerifiedRecord`]).
//! What acts on a record takes the second type. Byte by byte: `docs/FORMAT.md`. Imports: `derive`,
//! `format::{codec, policy}`, `record::{custody, generation, older, rest, values, verified}`, the provider's vocabulary, `id`, `error`.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::derive::{MacUse, Prks};
use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::format::policy::RecordPolicy;
use crate::id::{AccountId, Generation, Suite};
use crate::provider::{KekUri, KekVersion, WrapContext, WrapRole, Wrapped};

mod custody;
mod generation;
mod older;
mod rest;
mod values;
mod verified;

pub(crate) use custody::{Custody, Limit, Slot, Standing, Terms};
pub(crate) use generation::GenerationEntry;
pub(crate) use older::{MAX_OLDER, OlderGeneration, OlderGenerations};
pub(crate) use rest::RecordAtRest;
pub(crate) use values::Timestamp;
pub use values::{KeyFingerprint, Sequence};
pub(crate) use verified::VerifiedRecord;
#[cfg(test)]
pub(super) use {custody::MAX_PROVIDER_LEN, older::MAX_SEALED_LEN};

/// An account as it persists: its wrapped AEK, the KEK that wrapped it, the customer's policy. Holds no secret in
/// the clear.
///
/// Parsed, and no more: anyone who can write to where it came from could have made it. What its methods
/// tell are hints, for people and for comparison with [`Expect`](crate::Expect). The library acts on none of it
/// before the AEK that it carries has authenticated every byte (contract A8).
#[derive(Clone, PartialEq, Eq)]
pub struct AccountRecord {
    draft: RecordDraft,
    bytes: Box<[u8]>,
}

/// Everything that a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordDraft {
    pub(crate) account: AccountId,
    pub(crate) sequence: Sequence,
    pub(crate) created: Timestamp,
    pub(crate) state: RecordState,
    pub(crate) policy: RecordPolicy,
    /// Who holds the newest generation's AEK.
    pub(crate) custody: Custody,
    pub(crate) newest: GenerationEntry,
    pub(crate) older: OlderGenerations,
    /// Who holds its second AEK: in suite 2, and only there.
    pub(crate) outer: Option<Custody>,
}

/// One secret that has to be unwrapped, and what wraps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    /// Which of [`AccountRecord::slots`].
    pub(crate) at: usize,
    /// What its wraps are bound to.
    pub(crate) context: WrapContext,
    pub(crate) slot: &'a Slot,
}

/// Whether the account may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordState {
    Active,
    /// Soft-deleted (contract E7).
    Deleted {
        at: Timestamp,
        recoverable_until: Timestamp,
    },
}

impl AccountRecord {
    /// The longest record that is accepted, in bytes: 1 MiB.
    pub const MAX_LEN: usize = 1 << 20;

    /// Reads a record. No key is needed, and nothing is believed.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for anything but the one encoding of a record that this version knows: truncated,
    /// too long, trailing bytes, an unknown version, suite, kind or flag, a value out of its range.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > Self::MAX_LEN {
            return Err(Error::new(ErrorKind::Format, "a record is longer than 1 MiB"));
        }
        let (content, _mac) = bytes
            .split_last_chunk::<MAC_LEN>()
            .ok_or_else(|| Error::new(ErrorKind::Format, "a record is truncated"))?;
        let mut reader = Reader::new(content);
        let draft = RecordDraft::parse(&mut reader)?;
        reader.finish()?;
        Ok(Self { draft, bytes: bytes.into() })
    }

    /// The bytes to persist: those that were parsed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    /// The account.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.draft.account
    }

    /// How often the record was changed.
    #[must_use]
    pub const fn sequence(&self) -> Sequence {
        self.draft.sequence
    }

    /// The KEK that wraps the AEK.
    #[must_use]
    pub const fn kek(&self) -> &KekUri {
        self.wrapped().kek()
    }

    /// The exact version of the KEK that wraps the AEK.
    #[must_use]
    pub const fn kek_version(&self) -> &KekVersion {
        self.wrapped().version()
    }

    /// The other version that wraps the AEK too, if any.
    #[must_use]
    pub fn standby_version(&self) -> Option<&KekVersion> {
        self.standby().map(Wrapped::version)
    }

    /// The KEK that wraps the second AEK, under double encryption.
    #[must_use]
    pub fn outer_kek(&self) -> Option<&KekUri> {
        self.outer_slot().map(|slot| slot.wrapped.kek())
    }

    /// The exact version of it.
    #[must_use]
    pub fn outer_kek_version(&self) -> Option<&KekVersion> {
        self.outer_slot().map(|slot| slot.wrapped.version())
    }

    /// The other version of it that wraps the second AEK too, if any.
    #[must_use]
    pub fn outer_standby_version(&self) -> Option<&KekVersion> {
        self.outer_slot().and_then(|slot| slot.standby.as_ref()).map(Wrapped::version)
    }

    /// The newest generation.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.draft.newest.number
    }

    /// The newest generation's algorithms.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.draft.newest.suite
    }

    /// Names the newest generation's AEK; under double encryption both of them.
    #[must_use]
    pub fn fingerprint(&self) -> KeyFingerprint {
        self.draft.newest.fingerprint_of_all()
    }

    /// From when new data is sealed under the newest generation.
    #[must_use]
    pub fn generation_active_from(&self) -> SystemTime {
        self.draft.newest.active_from.into()
    }

    /// The generations before the newest whose data can be opened, the highest number first.
    #[must_use]
    pub fn older_generations(&self) -> Vec<Generation> {
        self.draft.older.list.iter().map(|older| older.entry.number).collect()
    }

    pub(crate) const fn newest(&self) -> &GenerationEntry {
        &self.draft.newest
    }

    pub(crate) const fn older(&self) -> &OlderGenerations {
        &self.draft.older
    }

    /// Whether the newest generation's AEK, or that of one before it, is the one of `fingerprint`. A hint, like all that a record tells.
    pub(crate) fn names(&self, fingerprint: KeyFingerprint) -> bool {
        let older = self.draft.older.list.iter().map(|older| &older.entry);
        std::iter::once(&self.draft.newest)
            .chain(older)
            .any(|entry| entry.fingerprint_of_all() == fingerprint)
    }

    /// When the account was created.
    #[must_use]
    pub fn created(&self) -> SystemTime {
        self.draft.created.into()
    }

    /// When the newest generation's AEK was made.
    #[must_use]
    pub fn generation_created(&self) -> SystemTime {
        self.draft.newest.created.into()
    }

    /// The second KEK of a failover or joint custody.
    #[must_use]
    pub fn second_kek(&self) -> Option<&KekUri> {
        self.draft.custody.second().map(|slot| slot.wrapped.kek())
    }

    /// The exact version of it.
    #[must_use]
    pub fn second_kek_version(&self) -> Option<&KekVersion> {
        self.draft.custody.second().map(|slot| slot.wrapped.version())
    }

    /// The other version of it that wraps too, if any.
    #[must_use]
    pub fn second_standby_version(&self) -> Option<&KekVersion> {
        self.draft.custody.second().and_then(|slot| slot.standby.as_ref()).map(Wrapped::version)
    }

    pub(crate) const fn custody(&self) -> &Custody {
        &self.draft.custody
    }

    const fn slot(&self) -> &Slot {
        self.draft.custody.first()
    }

    /// The customer's terms.
    #[must_use]
    pub const fn policy(&self) -> &RecordPolicy {
        &self.draft.policy
    }

    /// Until when the account can be recovered, where it is deleted; `None` where it is not.
    #[must_use]
    pub fn recoverable_until(&self) -> Option<SystemTime> {
        match self.draft.state {
            RecordState::Active => None,
            RecordState::Deleted { recoverable_until, .. } => Some(recoverable_until.into()),
        }
    }

    fn outer_slot(&self) -> Option<&Slot> {
        self.draft.outer.as_ref().map(Custody::first)
    }

    /// All slots: the first, the second where there are two, and then that of the second AEK.
    pub(crate) fn slots(&self) -> Vec<&Slot> {
        let custody = &self.draft.custody;
        std::iter::once(custody.first()).chain(custody.second()).chain(self.outer_slot()).collect()
    }

    /// Everything that has to be unwrapped to verify the record and to open under its newest generation: the AEK first, or both of
    /// its shares, then the second one.
    pub(crate) fn held(&self) -> Vec<Held<'_>> {
        let (context, slot) = (self.wrap_context(), self.slot());
        let mut held = match &self.draft.custody {
            Custody::Single(_) | Custody::Failover { .. } => vec![Held { at: 0, context, slot }],
            Custody::Joint { first, second } => vec![
                Held { at: 0, context: context.with_share(1), slot: first },
                Held { at: 1, context: context.with_share(2), slot: second },
            ],
        };
        held.extend(self.outer_held());
        held
    }

    /// The same, where the second KEK of a failover custody stands in for the first one. `None` where there is none.
    pub(crate) fn held_by_second(&self) -> Option<Vec<Held<'_>>> {
        let Custody::Failover { second, .. } = &self.draft.custody else { return None };
        let second = Held { at: 1, context: self.wrap_context(), slot: second };
        Some(std::iter::once(second).chain(self.outer_held()).collect())
    }

    /// Every slot of [`Self::slots`], and what its wraps are bound to: under failover custody two slots hold one secret.
    pub(crate) fn held_by_all(&self) -> Vec<Held<'_>> {
        let second = self.held_by_second().into_iter().flatten().filter(|held| held.at == 1);
        let mut all: Vec<_> = self.held().into_iter().chain(second).collect();
        all.sort_unstable_by_key(|held| held.at);
        all
    }

    fn outer_held(&self) -> Option<Held<'_>> {
        let at = 1 + usize::from(self.draft.custody.second().is_some());
        self.outer_slot().map(|slot| Held { at, context: self.context(WrapRole::Outer), slot })
    }

    /// The record that follows this one where the first KEK of a failover custody has refused. Needs no key, and is as authentic as this
    /// one. `None` for another custody, and where that is recorded already.
    pub(crate) fn barred(&self) -> Option<Self> {
        let Standing::Open { bar } = self.draft.custody.terms()?.standing else { return None };
        let draft = self.draft.barred().ok()??;
        let mut writer = draft.write();
        writer.put(&bar);
        Some(Self { draft, bytes: writer.into_bytes().into_boxed_slice() })
    }

    /// The sequence of what follows `sequence` and changes this account. The one right after it is under failover custody that of the refusal,
    /// which anyone can write: it must not pass for the change.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when there is none.
    pub(crate) fn sequence_after(&self, sequence: Sequence) -> Result<Sequence, Error> {
        let next = sequence.next()?;
        if self.draft.custody.terms().is_some() { next.next() } else { Ok(next) }
    }

    /// The wraps to ask for, in the order of [`Self::held`].
    pub(crate) fn wraps(&self) -> Vec<&Wrapped> {
        self.held().into_iter().map(|held| &held.slot.wrapped).collect()
    }

    /// The same, but of those that have a standby wrap that one.
    pub(crate) fn standbys(&self) -> Vec<&Wrapped> {
        let held = self.held().into_iter();
        held.map(|held| held.slot.standby.as_ref().unwrap_or(&held.slot.wrapped)).collect()
    }

    const fn context(&self, role: WrapRole) -> WrapContext {
        WrapContext::new(self.account(), self.generation(), self.suite(), role)
    }

    /// What to unwrap, to be able to verify the record.
    pub(crate) const fn wrapped(&self) -> &Wrapped {
        &self.slot().wrapped
    }

    /// The same AEK under another KEK version.
    const fn standby(&self) -> Option<&Wrapped> {
        self.slot().standby.as_ref()
    }

    /// What the AEK's wraps are bound to.
    pub(crate) const fn wrap_context(&self) -> WrapContext {
        self.context(WrapRole::Inner)
    }

    /// Believes the record, if `prks` come from the AEK that it names and has authenticated it.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] otherwise.
    pub(crate) fn verify(self, prks: &Prks) -> Result<VerifiedRecord, Error> {
        VerifiedRecord::of(Arc::new(self), prks)
    }

    fn check(&self, prks: &Prks) -> Result<(), Error> {
        if !self.draft.newest.is_of(prks) {
            return Err(self.untrusted("the AEK that was unwrapped is not the one that the record names"));
        }
        let (content, mac) = self.bytes.split_last_chunk().expect("what was parsed or sealed ends in a MAC");
        prks.verify_mac(MacUse::Record, MAC_NAME, &[content], mac)
            .map_err(|_| self.untrusted("the record is not authentic: it was changed or forged"))
    }

    const fn untrusted(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Untrusted, message).with_account(self.draft.account)
    }
}

impl fmt::Debug for AccountRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecordDraft { account, sequence, created: _, state, policy, custody, newest, outer, older } =
            &self.draft;
        f.debug_struct("AccountRecord")
            .field("account", account)
            .field("sequence", &sequence.number())
            .field("state", state)
            .field("policy", policy)
            .field("custody", custody)
            .field("newest", newest)
            .field("outer", outer)
            .field("older", &older.list.len())
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl RecordDraft {
    /// Whether a generation of `before` is here what it was there, or gone, and what is new is newer than all of those. The one
    /// in use is not gone: by its AEK, which whoever made the new one held, the new one is believed.
    fn keeps_generations_of(&self, before: &Self) -> bool {
        let known = |entry: &GenerationEntry| {
            *entry == before.newest || before.older.list.iter().any(|older| older.entry == *entry)
        };
        let later = |entry: &GenerationEntry| entry.number > before.newest.number;
        let mut entries =
            std::iter::once(&self.newest).chain(self.older.list.iter().map(|older| &older.entry));
        entries.clone().all(|entry| known(entry) || later(entry))
            && entries.any(|entry| *entry == before.newest)
    }

    /// Changes the slot that is number `at` of [`AccountRecord::slots`].
    pub(crate) fn replace_slot(&mut self, at: usize, slot: Slot) {
        match (at, self.custody.second_mut()) {
            (0, _) => *self.custody.first_mut() = slot,
            (1, Some(second)) => *second = slot,
            _ => self.outer = Some(Custody::Single(slot)),
        }
    }

    /// What follows this where the first KEK of a failover custody has refused.
    fn barred(&self) -> Result<Option<Self>, Error> {
        let mut next = Self { sequence: self.sequence.next()?, ..self.clone() };
        let Some(terms) = next.custody.terms_mut() else { return Ok(None) };
        terms.standing = Standing::Barred;
        Ok(Some(next))
    }

    /// Lets anyone record a refusal of the first KEK.
    fn with_bar(mut self, prks: &Prks) -> Result<Self, Error> {
        if self.custody.terms().is_some_and(|terms| matches!(terms.standing, Standing::Open { .. }))
            && let Some(barred) = self.barred()?
            && let Some(terms) = self.custody.terms_mut()
        {
            let bar = prks.mac(MacUse::Record, MAC_NAME, &[barred.write().as_bytes()]);
            terms.standing = Standing::Open { bar };
        }
        Ok(self)
    }

    /// Authenticates this under `prks`, which are those of the newest generation.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when `prks` are of another generation, or when the draft says what no record may: a standby of
    /// another KEK or of the same version, a KEK's URI without a provider, an end before its beginning.
    pub(crate) fn seal(self, prks: &Prks) -> Result<VerifiedRecord, Error> {
        if !self.newest.is_of(prks) {
            return Err(Error::new(ErrorKind::Misuse, "a record is sealed under another generation's key"));
        }
        let draft = self.with_bar(prks)?;
        let mut writer = draft.write();
        // What cannot be read back as it was meant is never written.
        if !Self::parse(&mut Reader::new(writer.as_bytes())).is_ok_and(|again| again == draft) {
            return Err(Error::new(ErrorKind::Misuse, "a record that contradicts itself is not sealed"));
        }
        let mac = prks.mac(MacUse::Record, MAC_NAME, &[writer.as_bytes()]);
        writer.put(&mac);
        let bytes = writer.into_bytes().into_boxed_slice();
        Ok(VerifiedRecord(Arc::new(AccountRecord { draft, bytes })))
    }

    fn write(&self) -> Writer {
        let Self { account, sequence, created, state, policy, custody, newest, outer, older } = self;
        let mut writer = Writer::default();
        writer.put(&MAGIC);
        writer.u8(VERSION);
        writer.put(account.as_bytes());
        writer.u64(sequence.number());
        created.write(&mut writer);
        match *state {
            RecordState::Active => writer.u8(ACTIVE),
            RecordState::Deleted { at, recoverable_until } => {
                writer.u8(DELETED);
                at.write(&mut writer);
                recoverable_until.write(&mut writer);
            }
        }
        policy.write(&mut writer);
        custody.write(&mut writer);
        newest.write(&mut writer);
        if let Some(outer) = outer {
            outer.write(&mut writer);
        }
        older.write(&mut writer);
        writer
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        if reader.array()? != MAGIC {
            return Err(Error::new(ErrorKind::Format, "not an account record"));
        }
        if reader.u8()? != VERSION {
            return Err(Error::new(ErrorKind::Format, "an account record of an unknown version"));
        }
        let account = AccountId::from_bytes(reader.array()?);
        let sequence = Sequence::new(reader.u64()?)
            .ok_or_else(|| Error::new(ErrorKind::Format, "a record's sequence number is zero"))?;
        let created = Timestamp::parse(reader)?;
        let state = RecordState::parse(reader)?;
        let policy = RecordPolicy::parse(reader)?;
        let custody = Custody::parse(reader)?;
        let newest = GenerationEntry::parse(reader)?;
        let outer = match newest.suite {
            Suite::Aes256Gcm => None,
            Suite::Double => Some(Custody::parse_single(reader)?),
        };
        let older = OlderGenerations::parse(&newest, reader)?;
        Ok(Self { account, sequence, created, state, policy, custody, newest, outer, older })
    }
}

impl RecordState {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        match reader.u8()? {
            ACTIVE => Ok(Self::Active),
            DELETED => {
                let (at, recoverable_until) = (Timestamp::parse(reader)?, Timestamp::parse(reader)?);
                if recoverable_until < at {
                    return Err(Error::new(ErrorKind::Format, "a deletion that ends before it began"));
                }
                Ok(Self::Deleted { at, recoverable_until })
            }
            _ => Err(Error::new(ErrorKind::Format, "a record in an unknown state")),
        }
    }
}

const MAGIC: [u8; 8] = *b"\x89SRR\r\n\x1a\n";
const VERSION: u8 = 1;
pub(crate) const MAC_NAME: &[u8] = b"account record";
const MAC_LEN: usize = 32;
const ACTIVE: u8 = 1;
const DELETED: u8 = 2;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::sealed_by;
