//! From a record to its keys: the KMS unwraps, and what comes out is compared with what the record names.
//!
//! Imports: `refresh` (what an answer amounts to), `settings`, `block`, `derive`, `format`, `provider`, `clock`, `error`.

use super::refresh::Refreshed;
use super::settings::Settings;
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::{Clock, Moment};
use crate::derive::Secrets;
use crate::error::{Error, ErrorKind};
use crate::format::record::{AccountRecord, OlderGeneration, VerifiedRecord};
use crate::provider::{Caller, ErrorClass, ProviderError, WrapInput, Wrapped};

/// An AEK that was unwrapped and matches its record.
pub(crate) struct Unwrapped {
    pub(crate) started: Moment,
    pub(crate) input: WrapInput,
    pub(crate) keys: GenerationKeys,
    /// Of the generations before the newest, the highest number first.
    pub(crate) older: Vec<GenerationKeys>,
    pub(crate) verified: VerifiedRecord,
}

impl Unwrapped {
    /// Believes another record of the account by whichever AEK of its generation this one opens.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] when it is not authentic, or of a generation that this record does not have.
    pub(crate) fn verify_other(&self, record: AccountRecord) -> Result<VerifiedRecord, Error> {
        let mut keys = std::iter::once(&self.keys).chain(&self.older);
        match keys.find(|keys| keys.generation() == record.generation()) {
            Some(keys) => record.verify(keys.prks()),
            None => Err(Error::new(ErrorKind::Untrusted, "the record is of another generation")),
        }
    }

    /// Everything that the record opens.
    pub(super) fn into_ring(self) -> KeyRing {
        let active_from = self.verified.record().newest().active_from.wall_nanos();
        KeyRing::with_older(self.keys, active_from, self.older)
    }
}

/// Unwraps `record`, which was admitted, and believes it by what comes out. Of whoever holds it already it knows nothing.
pub(crate) async fn authenticate(
    clock: &Clock,
    settings: &Settings,
    provider: Caller<'_>,
    record: &AccountRecord,
) -> Result<Unwrapped, Refreshed> {
    let (started, input, keys) = unwrap_keys(clock, settings, provider, record.wrapped(), record).await?;
    let verified = record.clone().verify(keys.prks()).map_err(Refreshed::Wrong)?;
    let older = older_keys(settings, &verified, &keys).map_err(Refreshed::Wrong)?;
    Ok(Unwrapped { started, input, keys, older, verified })
}

/// One call of the KMS, and the keys of what it unwrapped.
pub(super) async fn unwrap_keys(
    clock: &Clock,
    settings: &Settings,
    provider: Caller<'_>,
    wrap: &Wrapped,
    record: &AccountRecord,
) -> Result<(Moment, WrapInput, GenerationKeys), Refreshed> {
    let context = record.wrap_context();
    let started = clock.now();
    let input = provider.unwrap(wrap, &context).await.map_err(classify)?;
    let Some(secret) = input.secret_for(&context) else {
        let error = Error::new(ErrorKind::Untrusted, "the KMS unwrapped the AEK of something else");
        return Err(Refreshed::Wrong(error.with_account(record.account())));
    };
    // What fails here is this machine's memory, not the KMS: it earns no grace.
    let keys = GenerationKeys::new(
        record.account(),
        record.generation(),
        Secrets::single(secret),
        settings.memory_lock,
    )
    .map_err(Refreshed::Wrong)?
    .with_engine(settings.engine);
    Ok((started, input, keys))
}

/// The keys of the generations before the newest, which the record carries sealed under it.
///
/// Each has to be the AEK that the record names, and the first of them has to have vouched for the newest: so whoever made the newest
/// one, and the record with it, held the AEK of each of the others (contract A8).
///
/// # Errors
/// [`ErrorKind::Untrusted`] for a record that does not keep to that; [`ErrorKind::Limit`] and [`ErrorKind::Io`] for want of memory.
pub(super) fn older_keys(
    settings: &Settings,
    verified: &VerifiedRecord,
    newest: &GenerationKeys,
) -> Result<Vec<GenerationKeys>, Error> {
    let record = verified.record();
    let untrusted = |message| Error::new(ErrorKind::Untrusted, message).with_account(record.account());
    let wrong = |_| untrusted("the record's older AEKs are not the ones that it names");
    let mut older = Vec::with_capacity(record.older().list.len());
    for OlderGeneration { entry, sealed } in &record.older().list {
        let secrets = newest.open_older(entry.number, sealed).map_err(wrong)?;
        let secrets = secrets.secrets().map_err(wrong)?;
        let keys = GenerationKeys::new(record.account(), entry.number, secrets, settings.memory_lock)?
            .with_engine(settings.engine);
        if !entry.fingerprint.is_of(&keys.prks().kcv()) {
            return Err(wrong(Error::corrupt()));
        }
        older.push(keys);
    }
    if let Some(before) = older.first() {
        let vouched = record.older().verify_link(record.account(), record.newest(), before.prks());
        vouched
            .map_err(|_| untrusted("the generation before the record's newest one has not vouched for it"))?;
    }
    Ok(older)
}

fn classify(error: ProviderError) -> Refreshed {
    let class = error.class();
    let error = error.into_error();
    match class {
        ErrorClass::Refused(refusal) => Refreshed::Refused(refusal, error),
        ErrorClass::Transient => Refreshed::Silent(error),
        ErrorClass::Integrity | ErrorClass::Misconfigured => Refreshed::Wrong(error),
    }
}
