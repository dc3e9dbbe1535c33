//! Whether a KEK is fit to hold an account, found out in one call (contract B9).
//!
//! get, wrap, unwrap, compare, recoverability. What is wrapped is random and thrown away. All steps are tried even
//! when an early one is refused, so that whoever sets the permissions learns of every missing one
//! at once. Imports: `provider`, `clock`, `error`, `id`, `random`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    Authority, Caller, ErrorClass, Kek, KekInfo, KekUri, KekVersion, KeyProvider, ProviderError, WrapContext,
    WrapRole, Wrapped, block_on,
};
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Refusal};
use crate::id::{AccountId, Generation, Suite};
use crate::random;

/// Asks `provider` for everything that an account on `kek` will need. Up to three calls to the KMS, on the caller's
/// thread.
///
/// ```
/// use strongroom::provider::{Kek, KeyOptions, LocalKms, Verdict, preflight};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("kms.json");
/// let kms = LocalKms::create(&path)?;
/// kms.create_key("orders", KeyOptions::default())?;
/// let report = preflight(&kms, &Kek::latest("orders"));
/// assert_eq!(report.verdict(), Verdict::Ready, "{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn preflight(provider: &dyn KeyProvider, kek: &Kek) -> PreflightReport {
    block_on(preflight_at(Caller::blocking(provider), kek, Clock::System.now()))
}

/// What [`preflight`] found. `Display` shows it to a person, on several lines: each step, the verdict, what to do.
#[derive(Clone, Debug)]
pub struct PreflightReport {
    kek: Kek,
    authority: Authority,
    get: Result<KekInfo, ProviderError>,
    wrap: PreflightOutcome,
    unwrap: PreflightOutcome,
    compare: PreflightOutcome,
    now: SystemTime,
}

/// A step of a preflight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PreflightStep {
    /// Describing the key.
    Get,
    /// Wrapping a random value.
    Wrap,
    /// Unwrapping it.
    Unwrap,
    /// Comparing what came back with what was wrapped.
    Compare,
}

/// How one step went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PreflightOutcome {
    /// As it should.
    Passed,
    /// It failed.
    Failed(ProviderError),
    /// It needs an earlier step that failed.
    NotTried,
}

/// The one thing to know first about a KEK: the gravest finding of a [`PreflightReport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Everything works, and a deleted key can be brought back.
    Ready,
    /// Everything works, but a deletion of the key would be final: soft delete or purge protection is off.
    NotRecoverable,
    /// The key, or the version asked for, is disabled; some services wrap with it all the same.
    Disabled,
    /// The key has expired.
    Expired,
    /// The KMS refused this step.
    Refused(PreflightStep, Refusal),
    /// The KMS did not answer in this step.
    Silent(PreflightStep),
    /// The KMS gave an answer in this step that cannot be right.
    Wrong(PreflightStep),
    /// Our own set-up is wrong; this step showed it.
    Misconfigured(PreflightStep),
}

/// Whether a KEK has to be recoverable before an account is created on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Recoverability {
    /// Soft delete and purge protection must both be on. The default.
    #[default]
    Required,
    /// A deletion of the key may be final: the embedder accepts to lose all data under it.
    AcceptLoss,
}

/// [`preflight`] at a given time, which decides about expiry.
pub(crate) async fn preflight_at(provider: Caller<'_>, kek: &Kek, now: Moment) -> PreflightReport {
    let mut report = PreflightReport {
        kek: kek.clone(),
        authority: provider.provider().authority(),
        get: Err(ProviderError::transient("not asked")),
        wrap: PreflightOutcome::NotTried,
        unwrap: PreflightOutcome::NotTried,
        compare: PreflightOutcome::NotTried,
        now: UNIX_EPOCH + Duration::from_nanos(now.wall_nanos()),
    };
    report.get = provider.describe(kek).await.and_then(|info| report.check_info(info));
    if matches!(&report.get, Err(error) if error.class() == ErrorClass::Transient) {
        // A silent KMS would only be waited for twice more.
        return report;
    }
    let context =
        WrapContext::new(AccountId::random(), Generation::FIRST, Suite::Aes256Gcm, WrapRole::Preflight);
    let mut secret = Zeroizing::new([0; 32]);
    random::fill(&mut *secret);
    let input = context.input(&secret);

    let wrapped = provider.wrap(kek, &context, &input).await;
    let wrapped = wrapped.and_then(|wrapped| report.check_wrapped(wrapped));
    report.wrap = PreflightOutcome::of(&wrapped);
    let Ok(wrapped) = wrapped else { return report };
    let unwrapped = provider.unwrap(&wrapped, &context).await;
    report.unwrap = PreflightOutcome::of(&unwrapped);
    let Ok(unwrapped) = unwrapped else { return report };
    report.compare = if bool::from(unwrapped.expose().ct_eq(input.expose())) {
        PreflightOutcome::Passed
    } else {
        PreflightOutcome::Failed(ProviderError::integrity("what was unwrapped is not what was wrapped"))
    };
    report
}

impl PreflightReport {
    /// The gravest finding.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if let Some((step, error)) = self.gravest() {
            return match error.class() {
                ErrorClass::Refused(refusal) => Verdict::Refused(step, refusal),
                ErrorClass::Transient => Verdict::Silent(step),
                ErrorClass::Integrity => Verdict::Wrong(step),
                ErrorClass::Misconfigured => Verdict::Misconfigured(step),
            };
        }
        match &self.get {
            Ok(info) if !info.enabled => Verdict::Disabled,
            Ok(info) if info.expires.is_some_and(|at| at <= self.now) => Verdict::Expired,
            Ok(info) if !info.recoverable() => Verdict::NotRecoverable,
            _ => Verdict::Ready,
        }
    }

    /// What the KMS says of the key, if it said anything.
    #[must_use]
    pub fn info(&self) -> Option<&KekInfo> {
        self.get.as_ref().ok()
    }

    /// How `step` went.
    #[must_use]
    pub fn outcome(&self, step: PreflightStep) -> PreflightOutcome {
        match step {
            PreflightStep::Get => PreflightOutcome::of(&self.get),
            PreflightStep::Wrap => self.wrap.clone(),
            PreflightStep::Unwrap => self.unwrap.clone(),
            PreflightStep::Compare => self.compare.clone(),
        }
    }

    /// The key's description, if it is fit to hold an account and recoverable. What `create` asks for by default.
    ///
    /// # Errors
    /// As [`Self::require`].
    pub fn into_result(self) -> Result<KekInfo, Error> {
        self.require(Recoverability::Required)
    }

    /// The key's description, if it is fit to hold an account.
    ///
    /// # Errors
    /// Each says what to do. [`ErrorKind::Misuse`] for a KEK that is not recoverable, and for a wrong set-up;
    /// [`ErrorKind::Revoked`] for a refused step (a missing permission among them), a disabled and an expired key;
    /// [`ErrorKind::Unavailable`] for a silent KMS; [`ErrorKind::Untrusted`] for a wrong answer.
    pub fn require(self, recoverability: Recoverability) -> Result<KekInfo, Error> {
        let verdict = self.verdict();
        let error = match verdict {
            Verdict::Ready => return self.get.map_err(ProviderError::into_error),
            Verdict::NotRecoverable if recoverability == Recoverability::AcceptLoss => {
                return self.get.map_err(ProviderError::into_error);
            }
            Verdict::NotRecoverable => {
                Error::new(ErrorKind::Misuse, "the KEK could not be brought back after a deletion")
            }
            Verdict::Disabled | Verdict::Expired => {
                Error::new(ErrorKind::Revoked, "the KEK may not be used").with_refusal(Refusal::KeyDisabled)
            }
            Verdict::Refused(..) | Verdict::Silent(_) | Verdict::Wrong(_) | Verdict::Misconfigured(_) => {
                self.gravest().map_or_else(Error::corrupt, |(_, error)| error.clone().into_error())
            }
        };
        let said = self.gravest().map(|(_, error)| format!(" [{}]", error.message())).unwrap_or_default();
        Err(error.with_detail(format!("preflight of `{}`: {verdict}{said}", self.kek.name().escape_debug())))
    }

    /// The failed step to tell of first. A refusal is somebody's will and outranks the rest: fixing it may be all there is
    /// to do. Within one class the earliest step counts.
    fn gravest(&self) -> Option<(PreflightStep, &ProviderError)> {
        let rank = |error: &ProviderError| match error.class() {
            ErrorClass::Refused(_) => 0,
            ErrorClass::Misconfigured => 1,
            ErrorClass::Integrity => 2,
            ErrorClass::Transient => 3,
        };
        let get = self.get.as_ref().err().map(|error| (PreflightStep::Get, error));
        let later = [
            (PreflightStep::Wrap, &self.wrap),
            (PreflightStep::Unwrap, &self.unwrap),
            (PreflightStep::Compare, &self.compare),
        ];
        let failed = later.into_iter().filter_map(|(step, outcome)| match outcome {
            PreflightOutcome::Failed(error) => Some((step, error)),
            PreflightOutcome::Passed | PreflightOutcome::NotTried => None,
        });
        get.into_iter().chain(failed).min_by_key(|(_, error)| rank(error))
    }

    fn check_info(&self, info: KekInfo) -> Result<KekInfo, ProviderError> {
        self.check_named(&info.uri, &info.version)?;
        Ok(info)
    }

    fn check_wrapped(&self, wrapped: Wrapped) -> Result<Wrapped, ProviderError> {
        self.check_named(wrapped.kek(), wrapped.version())?;
        Ok(wrapped)
    }

    /// An answer has to be about the KEK that was asked for: a record will name it for years.
    fn check_named(&self, uri: &KekUri, version: &KekVersion) -> Result<(), ProviderError> {
        if *uri != self.authority.uri_of(self.kek.name())? {
            return Err(ProviderError::integrity("the answer names another KEK than the one asked for"));
        }
        match self.kek.version() {
            Some(pinned) if version != pinned => {
                Err(ProviderError::integrity("the answer names another version than the pinned one"))
            }
            _ => Ok(()),
        }
    }
}

impl PreflightOutcome {
    fn of<T>(result: &Result<T, ProviderError>) -> Self {
        match result {
            Ok(_) => Self::Passed,
            Err(error) => Self::Failed(error.clone()),
        }
    }
}

impl fmt::Display for PreflightReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (provider, endpoint) = (self.authority.provider(), self.authority.endpoint());
        writeln!(f, "preflight of `{}` at {provider}://{endpoint}", self.kek.name().escape_debug())?;
        match &self.get {
            Ok(info) => writeln!(f, "  get      passed: {}", InWords(info))?,
            Err(error) => writeln!(f, "  get      {error}")?,
        }
        writeln!(f, "  wrap     {}", self.wrap)?;
        writeln!(f, "  unwrap   {}", self.unwrap)?;
        writeln!(f, "  compare  {}", self.compare)?;
        write!(f, "verdict: {}", self.verdict())
    }
}

impl fmt::Display for PreflightOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(error) => error.fmt(f),
            Self::NotTried => f.write_str("not tried"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::NotRecoverable => f.write_str(
                "not recoverable: turn on soft delete and purge protection for the key; to accept that all data can be \
                 lost with it, create the account with `allow_unrecoverable_kek`",
            ),
            Self::Disabled => f.write_str("disabled: enable the key and its version"),
            Self::Expired => f.write_str("expired: set a later expiry, or add a version that is valid"),
            Self::Refused(step, refusal) => write!(f, "{step} refused ({refusal}): {}", advice(*refusal)),
            Self::Silent(step) => {
                write!(f, "no answer to {step}: check the network and the KMS's endpoint, then try again")
            }
            Self::Wrong(step) => {
                write!(f, "a wrong answer to {step}: do not use this provider before its operator has explained it")
            }
            Self::Misconfigured(step) => {
                write!(f, "{step} cannot be asked: correct the provider's configuration or the KEK's name")
            }
        }
    }
}

impl fmt::Display for PreflightStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::Compare => "compare",
        })
    }
}

/// A key's description on one line.
struct InWords<'a>(&'a KekInfo);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0;
        let on = |on: bool| if on { "on" } else { "off" };
        write!(f, "version {}, {}", info.version, if info.enabled { "enabled" } else { "disabled" })?;
        if let Some(at) = info.expires {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            write!(f, ", expires at Unix time {seconds}")?;
        }
        write!(f, ", soft delete {}, purge protection {}", on(info.soft_delete), on(info.purge_protection))?;
        match info.hsm_backed {
            Some(true) => f.write_str(", in an HSM"),
            Some(false) => f.write_str(", not in an HSM"),
            None => Ok(()),
        }
    }
}

const fn advice(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::KeyDisabled => "enable the key and its version, and check its expiry",
        Refusal::KeyGone => "check the key's name and version; if it was deleted, recover it",
        Refusal::PermissionRemoved => "give our identity the get, wrap and unwrap permissions on this key",
        Refusal::CredentialRejected => "renew the credential that the provider signs in with",
        Refusal::Unrecognised => "ask the KMS's operator and show them the message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, Call, ScriptedProvider};

    const KEK: &str = ScriptedProvider::KEK;

    fn run(kms: &ScriptedProvider) -> PreflightReport {
        preflight(kms, &Kek::latest(KEK))
    }

    #[test]
    fn b9_a_good_kek_is_ready() {
        let kms = ScriptedProvider::new();
        let report = run(&kms);
        assert_eq!(report.verdict(), Verdict::Ready);
        assert_eq!(kms.log().len(), 3, "three calls");
        let info = report.into_result().unwrap();
        assert_eq!((info.version.as_str(), info.recoverable()), ("1", true));
    }

    #[test]
    fn b9_not_recoverable_is_refused_unless_loss_is_accepted() {
        let kms = ScriptedProvider::new();
        kms.set_recoverable(KEK, false);
        let report = run(&kms);
        assert_eq!(report.verdict(), Verdict::NotRecoverable);
        report.clone().require(Recoverability::AcceptLoss).unwrap();
        let error = report.into_result().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("purge protection"), "{error}");
    }

    #[test]
    fn b9_each_missing_permission_is_told() {
        let steps = [
            (Call::Describe, PreflightStep::Get),
            (Call::Wrap, PreflightStep::Wrap),
            (Call::Unwrap, PreflightStep::Unwrap),
        ];
        for (call, step) in steps {
            let kms = ScriptedProvider::new();
            kms.always(call, Answer::Refused(Refusal::PermissionRemoved));
            let report = run(&kms);
            assert_eq!(report.verdict(), Verdict::Refused(step, Refusal::PermissionRemoved));
            let error = report.require(Recoverability::AcceptLoss).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Revoked);
            assert_eq!(error.refusal(), Some(Refusal::PermissionRemoved));
            assert!(error.to_string().contains("get, wrap and unwrap permissions"), "{error}");
        }
    }

    #[test]
    fn b9_all_steps_are_tried_after_a_refused_get() {
        let kms = ScriptedProvider::new();
        kms.always(Call::Describe, Answer::Refused(Refusal::PermissionRemoved));
        kms.always(Call::Unwrap, Answer::Refused(Refusal::PermissionRemoved));
        let shown = run(&kms).to_string();
        assert_eq!(shown.matches("refused (permission removed): scripted").count(), 2, "{shown}");
        assert_eq!(shown.lines().count(), 6, "{shown}");
    }

    #[test]
    fn b9_a_silent_kms_is_asked_once() {
        let kms = ScriptedProvider::new();
        kms.every_call(&Answer::Transient);
        let report = run(&kms);
        assert_eq!(report.verdict(), Verdict::Silent(PreflightStep::Get));
        assert_eq!(kms.log().len(), 1);
        assert_eq!(report.into_result().unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn b9_a_wrong_aek_is_seen() {
        for answer in [Answer::OtherAek, Answer::Garbage] {
            let kms = ScriptedProvider::new();
            kms.always(Call::Unwrap, answer);
            let report = run(&kms);
            assert_eq!(report.verdict(), Verdict::Wrong(PreflightStep::Compare));
            assert_eq!(report.into_result().unwrap_err().kind(), ErrorKind::Untrusted);
        }
    }

    #[test]
    fn b9_a_description_of_another_key_is_seen() {
        let kms = ScriptedProvider::new();
        kms.always(Call::Describe, Answer::Garbage);
        assert_eq!(run(&kms).verdict(), Verdict::Wrong(PreflightStep::Get));
    }

    #[test]
    fn b9_disabled_expired_and_unknown_keys() {
        let kms = ScriptedProvider::new();
        kms.set_enabled(KEK, false);
        let verdict = Verdict::Refused(PreflightStep::Wrap, Refusal::KeyDisabled);
        assert_eq!(run(&kms).verdict(), verdict);
        kms.set_enabled(KEK, true);
        kms.set_expires(KEK, Some(UNIX_EPOCH + Duration::from_secs(1)));
        assert_eq!(run(&kms).verdict(), Verdict::Expired);
        assert_eq!(run(&kms).into_result().unwrap_err().refusal(), Some(Refusal::KeyDisabled));
        let report = preflight(&kms, &Kek::latest("none"));
        assert_eq!(report.verdict(), Verdict::Refused(PreflightStep::Get, Refusal::KeyGone));
    }

    #[test]
    fn b9_a_pin_is_honoured() {
        let kms = ScriptedProvider::new();
        let old = super::super::KekVersion::new("1").unwrap();
        kms.add_version(KEK);
        let info = preflight(&kms, &Kek::pinned(KEK, old.clone())).into_result().unwrap();
        assert_eq!(info.version, old);
    }
}
