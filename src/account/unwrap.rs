//! From a record to its keys: the KMS unwraps, and what comes out is compared with what the record names.
//!
//! Imports: `refresh` (what an answer amounts to), `settings`, `block`, `derive`, `format`, `provider`, `clock`, `error`.

use super::refresh::Refreshed;
use super::settings::Settings;
use crate::block::GenerationKeys;
use crate::clock::{Clock, Moment};
use crate::derive::Secrets;
use crate::error::{Error, ErrorKind};
use crate::format::record::{AccountRecord, VerifiedRecord};
use crate::provider::{Caller, ErrorClass, ProviderError, WrapInput, Wrapped};

/// An AEK that was unwrapped and matches its record.
pub(crate) struct Unwrapped {
    pub(crate) started: Moment,
    pub(crate) input: WrapInput,
    pub(crate) keys: GenerationKeys,
    pub(crate) verified: VerifiedRecord,
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
    Ok(Unwrapped { started, input, keys, verified })
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

fn classify(error: ProviderError) -> Refreshed {
    let class = error.class();
    let error = error.into_error();
    match class {
        ErrorClass::Refused(refusal) => Refreshed::Refused(refusal, error),
        ErrorClass::Transient => Refreshed::Silent(error),
        ErrorClass::Integrity | ErrorClass::Misconfigured => Refreshed::Wrong(error),
    }
}
