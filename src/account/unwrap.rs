//! From a record to its keys: the KMS unwraps, and what comes out is compared with what the record names.
//!
//! Where a record needs more than one unwrap, all have to succeed: one refusal refuses, else one wrong answer is wrong, else one
//! silence is silence. Imports: `refresh` (what an answer amounts to), `settings`, `block`, `derive`, `format`, `provider`, `clock`,
//! `error`.

use std::pin::Pin;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::refresh::Refreshed;
use super::settings::Settings;
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::{Clock, Moment};
use crate::derive::Secrets;
use crate::error::{Error, ErrorKind};
use crate::format::record::{AccountRecord, Held, OlderGeneration, VerifiedRecord};
use crate::provider::{
    Caller, ErrorClass, KeyProvider, ProviderError, WrapContext, WrapInput, WrapRole, Wrapped, together,
};

/// AEKs that were unwrapped and match their record.
pub(crate) struct Unwrapped {
    /// Before the first of the calls was made.
    pub(crate) started: Moment,
    /// What was unwrapped, in the order in which it was asked for.
    pub(crate) inputs: Vec<WrapInput>,
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

/// What a record's secrets came out as, before the record is believed.
pub(super) struct Raw {
    pub(super) started: Moment,
    pub(super) inputs: Vec<WrapInput>,
    pub(super) keys: GenerationKeys,
}

/// Whom to ask for what.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The provider of each of the record's slots, as [`Expect::admit`](crate::Expect::admit) tells.
    pub(crate) providers: &'a [Arc<dyn KeyProvider>],
    /// The secrets: [`AccountRecord::held`], or [`AccountRecord::held_by_second`].
    pub(crate) held: &'a [Held<'a>],
    /// One wrap of each secret, in the same order.
    pub(crate) wraps: &'a [&'a Wrapped],
    /// Which one goes first, where they cannot be asked at the same time.
    pub(crate) first: usize,
}

/// Unwraps `record`, which was admitted, and believes it by what comes out. Of whoever holds it already it knows nothing.
pub(crate) async fn authenticate(
    clock: &Clock,
    settings: &Settings,
    providers: &[Arc<dyn KeyProvider>],
    record: &AccountRecord,
) -> Result<Unwrapped, Refreshed> {
    let held = record.held();
    let asked = Asked { providers, held: &held, wraps: &record.wraps(), first: 0 };
    let Raw { started, inputs, keys } = unwrap_keys(clock, settings, asked, record).await?;
    let verified = record.clone().verify(keys.prks()).map_err(Refreshed::Wrong)?;
    let older = older_keys(settings, &verified, &keys).map_err(Refreshed::Wrong)?;
    Ok(Unwrapped { started, inputs, keys, older, verified })
}

/// One call of the KMS for each secret, and the keys of what came out.
pub(super) async fn unwrap_keys(
    clock: &Clock,
    settings: &Settings,
    asked: Asked<'_>,
    record: &AccountRecord,
) -> Result<Raw, Refreshed> {
    let held = asked.held;
    let started = clock.now();
    let calls = held.iter().zip(asked.wraps).map(|(held, wrap)| {
        let provider = asked.providers.get(held.at);
        let call = async move {
            match provider {
                Some(provider) => unwrap_one(clock, provider.as_ref(), wrap, &held.context).await,
                None => Err(nobody_holds_it()),
            }
        };
        Box::pin(call) as Pin<Box<dyn Future<Output = _> + Send + '_>>
    });
    let refuses = |answer: &Result<WrapInput, ProviderError>| matches!(answer, Err(error) if matches!(error.class(), ErrorClass::Refused(_)));
    let inputs = all_of(together(calls.collect(), asked.first, refuses).await)?;
    let keys = keys_of(settings, record, held, &inputs)?;
    Ok(Raw { started, inputs, keys })
}

/// One of the record's secrets alone, for what its KMS says.
pub(super) async fn unwrap_share(
    clock: &Clock,
    providers: &[Arc<dyn KeyProvider>],
    held: Option<&Held<'_>>,
    wrap: Option<&Wrapped>,
) -> Result<(), Refreshed> {
    let Some((held, wrap)) = held.zip(wrap) else { return Err(classify(nobody_holds_it())) };
    let provider = providers.get(held.at).ok_or_else(|| classify(nobody_holds_it()))?;
    unwrap_one(clock, provider.as_ref(), wrap, &held.context).await.map(drop).map_err(classify)
}

fn nobody_holds_it() -> ProviderError {
    ProviderError::integrity("nobody is expected to hold one of the account's secrets")
}

async fn unwrap_one(
    clock: &Clock,
    provider: &dyn KeyProvider,
    wrap: &Wrapped,
    context: &WrapContext,
) -> Result<WrapInput, ProviderError> {
    let input = Caller::awaiting(provider, clock).unwrap(wrap, context).await?;
    match input.secret_for(context) {
        Some(_) => Ok(input),
        None => Err(ProviderError::integrity("the KMS unwrapped the AEK of something else")),
    }
}

/// The gravest of what is not an answer to go on with, or all of them.
fn all_of(answers: Vec<Option<Result<WrapInput, ProviderError>>>) -> Result<Vec<WrapInput>, Refreshed> {
    let mut inputs = Vec::new();
    let mut gravest: Option<Refreshed> = None;
    let gravity = |failed: &Refreshed| match failed {
        Refreshed::Refused(..) => 2,
        Refreshed::Silent(_) => 0,
        _ => 1,
    };
    // What was not asked, because another answer decided, says nothing.
    for answer in answers.into_iter().flatten() {
        match answer.map_err(classify) {
            Ok(input) => inputs.push(input),
            Err(failed) if gravest.as_ref().is_none_or(|known| gravity(&failed) > gravity(known)) => {
                gravest = Some(failed);
            }
            Err(_) => {}
        }
    }
    match gravest {
        Some(failed) => Err(failed),
        None => Ok(inputs),
    }
}

fn keys_of(
    settings: &Settings,
    record: &AccountRecord,
    held: &[Held<'_>],
    inputs: &[WrapInput],
) -> Result<GenerationKeys, Refreshed> {
    if inputs.len() != held.len() {
        return Err(wrong(record));
    }
    let gathered = Gathered::from(held.iter().map(|held| held.context).zip(inputs));
    let gathered = gathered.ok_or_else(|| wrong(record))?;
    // What fails here is this machine's memory, not the KMS: it earns no grace. A second AEK that is missing shows when the record
    // is verified.
    GenerationKeys::new(record.account(), record.generation(), gathered.secrets(), settings.memory_lock)
        .map(|keys| keys.with_engine(settings.engine))
        .map_err(Refreshed::Wrong)
}

/// What was unwrapped of one generation, as its keys are derived from it.
pub(crate) struct Gathered<'a> {
    /// The AEK, or both of its shares: in one place on the heap, of which no move leaves a copy.
    inner: Zeroizing<Vec<u8>>,
    outer: Option<&'a [u8; 32]>,
}

impl<'a> Gathered<'a> {
    /// In the order of [`AccountRecord::held`]. `None` where one is not what its context says, or there is no AEK.
    pub(crate) fn from(inputs: impl Iterator<Item = (WrapContext, &'a WrapInput)>) -> Option<Self> {
        let mut gathered = Self { inner: Zeroizing::new(Vec::with_capacity(2 * 32)), outer: None };
        for (context, input) in inputs {
            let secret = input.secret_for(&context)?;
            match context.role() {
                WrapRole::Outer => gathered.outer = Some(secret),
                _ => gathered.inner.extend_from_slice(secret),
            }
        }
        (!gathered.inner.is_empty()).then_some(gathered)
    }

    pub(crate) fn secrets(&self) -> Secrets<'_> {
        Secrets { inner: &self.inner, outer: self.outer }
    }
}

/// The keys of the generations before the newest, which the record carries sealed under it.
///
/// Each has to be the AEK that the record names, of as many shares as its custody has, and the first of them has to have vouched for the
/// newest: so whoever made the newest one, and the record with it, held the AEK of each of the others (contract A8).
///
/// # Errors
/// [`ErrorKind::Untrusted`] for a record that does not keep to that; [`ErrorKind::Limit`] and [`ErrorKind::Io`] for want of memory.
pub(crate) fn older_keys(
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
        if secrets.inner.len() != record.custody().aek_len() {
            return Err(wrong(Error::corrupt()));
        }
        let keys = GenerationKeys::new(record.account(), entry.number, secrets, settings.memory_lock)?
            .with_engine(settings.engine);
        if !entry.is_of(keys.prks()) {
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

fn wrong(record: &AccountRecord) -> Refreshed {
    let error = Error::new(ErrorKind::Untrusted, "not all of the account's AEKs were unwrapped");
    Refreshed::Wrong(error.with_account(record.account()))
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
