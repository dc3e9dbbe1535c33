//! The suite that any provider runs, ours or a user's (contract B10).
//!
//! It holds a provider to what the trait's documentation promises, above all to the class of its errors: a refusal
//! called silence keeps data readable that the customer closed, and silence or damage called a refusal closes
//! data that they did not. Imports: `provider`, `clock`, `id`, `random`.

mod cases;

use std::any::Any;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::cases::{CASES, Needs};
use crate::provider::KeyProvider;

/// Runs every case that `subject` has the means for, in a fixed order, on the calling thread and a few of its own.
///
/// Takes about a hundred calls to the KMS. A provider that panics fails the case and not the suite; one that hangs,
/// hangs it.
///
/// ```
/// use strongroom::provider::{KeyOptions, LocalKms};
/// use strongroom::testing::conformance::{self, Subject};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("kms.json");
/// let kms = LocalKms::create(&path)?;
/// kms.create_key("test", KeyOptions::default())?;
/// let subject = Subject::new(&kms, "test")
///     .on_rotate(|| kms.rotate_key("test").map(drop))
///     .on_disable(|| kms.disable_key("test"))
///     .on_enable(|| kms.enable_key("test"))
///     .on_delete(|| kms.delete_key("test"))
///     .on_recover(|| kms.recover_key("test"));
/// let report = conformance::run(&subject);
/// assert!(report.is_complete(), "{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run(subject: &Subject<'_>) -> Report {
    let run_one = |case: &cases::Case| {
        let outcome = match subject.lacks(case.needs) {
            Some(what) => CaseOutcome::NotRun(what),
            None => match catch_unwind(AssertUnwindSafe(|| (case.run)(subject))) {
                Ok(Ok(())) => CaseOutcome::Passed,
                Ok(Err(why)) => CaseOutcome::Failed(why),
                Err(panic) => CaseOutcome::Failed(format!("panicked: {}", panic_text(&*panic))),
            },
        };
        CaseReport { name: case.name, outcome }
    };
    Report { cases: CASES.iter().map(run_one).collect() }
}

/// A provider under test, a KEK at it that the suite may use as it likes, and what its tester can do at the server.
///
/// Each hook acts on that KEK and returns when its effect is visible to the provider. Cases that need a
/// hook that is not given are reported as not run. The suite leaves the key as it found it, but for new versions.
pub struct Subject<'a> {
    provider: &'a dyn KeyProvider,
    kek: String,
    binds_context: bool,
    has_versions: bool,
    disable: Option<Hook<'a>>,
    enable: Option<Hook<'a>>,
    delete: Option<Hook<'a>>,
    recover: Option<Hook<'a>>,
    rotate: Option<Hook<'a>>,
}

/// Something that the tester does at the server.
struct Hook<'a>(Box<dyn Fn() -> Result<(), String> + 'a>);

/// How each case went. `Display` lists them all, one a line.
#[derive(Clone, Debug)]
#[must_use]
pub struct Report {
    cases: Vec<CaseReport>,
}

/// How one case went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case, as a sentence with underscores.
    pub name: &'static str,
    /// How it went.
    pub outcome: CaseOutcome,
}

/// Passed, failed, or not run at all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaseOutcome {
    /// The provider does what the trait asks.
    Passed,
    /// It does not; why.
    Failed(String),
    /// The subject lacks what the case needs; what.
    NotRun(&'static str),
}

impl<'a> Subject<'a> {
    /// The provider, and the name of an enabled KEK at it.
    #[must_use]
    pub fn new(provider: &'a dyn KeyProvider, kek: impl Into<String>) -> Self {
        Self {
            provider,
            kek: kek.into(),
            binds_context: true,
            has_versions: true,
            disable: None,
            enable: None,
            delete: None,
            recover: None,
            rotate: None,
        }
    }

    /// For a KMS that takes no additional data: then a wrap moved to another account is seen only by what it unwraps to,
    /// and the provider must hand that out unchanged.
    #[must_use]
    pub const fn without_additional_data(mut self) -> Self {
        self.binds_context = false;
        self
    }

    /// For a KMS whose versions cannot be addressed.
    #[must_use]
    pub const fn without_versions(mut self) -> Self {
        self.has_versions = false;
        self
    }

    /// Disables the KEK.
    #[must_use]
    pub fn on_disable<E: Display>(mut self, hook: impl Fn() -> Result<(), E> + 'a) -> Self {
        self.disable = Some(Hook::new(hook));
        self
    }

    /// Enables it again.
    #[must_use]
    pub fn on_enable<E: Display>(mut self, hook: impl Fn() -> Result<(), E> + 'a) -> Self {
        self.enable = Some(Hook::new(hook));
        self
    }

    /// Deletes the KEK, so that it can be recovered.
    #[must_use]
    pub fn on_delete<E: Display>(mut self, hook: impl Fn() -> Result<(), E> + 'a) -> Self {
        self.delete = Some(Hook::new(hook));
        self
    }

    /// Recovers it.
    #[must_use]
    pub fn on_recover<E: Display>(mut self, hook: impl Fn() -> Result<(), E> + 'a) -> Self {
        self.recover = Some(Hook::new(hook));
        self
    }

    /// Adds a version to the KEK, which becomes the current one.
    #[must_use]
    pub fn on_rotate<E: Display>(mut self, hook: impl Fn() -> Result<(), E> + 'a) -> Self {
        self.rotate = Some(Hook::new(hook));
        self
    }

    /// What is missing for a case, if anything.
    const fn lacks(&self, needs: Needs) -> Option<&'static str> {
        match needs {
            Needs::Nothing => None,
            Needs::AdditionalData if !self.binds_context => Some("the KMS takes no additional data"),
            Needs::NoAdditionalData if self.binds_context => Some("the KMS takes additional data"),
            Needs::AdditionalData | Needs::NoAdditionalData => None,
            Needs::Versions | Needs::Rotation if !self.has_versions => {
                Some("the KMS has no addressable versions")
            }
            Needs::Rotation if self.rotate.is_none() => Some("no hook to rotate the KEK"),
            Needs::Versions | Needs::Rotation => None,
            Needs::Disabling if self.disable.is_none() || self.enable.is_none() => {
                Some("no hooks to disable and enable the KEK")
            }
            Needs::Deletion if self.delete.is_none() || self.recover.is_none() => {
                Some("no hooks to delete and recover the KEK")
            }
            Needs::Disabling | Needs::Deletion => None,
        }
    }
}

impl<'a> Hook<'a> {
    fn new<E: Display>(hook: impl Fn() -> Result<(), E> + 'a) -> Self {
        Self(Box::new(move || hook().map_err(|error| format!("the hook failed: {error}"))))
    }

    fn act(&self) -> Result<(), String> {
        (self.0)()
    }
}

impl Report {
    /// Every case, in the order in which they ran.
    #[must_use]
    pub fn cases(&self) -> &[CaseReport] {
        &self.cases
    }

    /// Whether no case failed. Says nothing of those that were not run.
    #[must_use]
    pub fn has_no_failure(&self) -> bool {
        !self.cases.iter().any(|case| matches!(case.outcome, CaseOutcome::Failed(_)))
    }

    /// Whether every case passed, but for those that are about something the KMS does not have.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.has_no_failure() && !self.cases.iter().any(|case| case.outcome.is_for_want_of_a_hook())
    }
}

impl CaseOutcome {
    fn is_for_want_of_a_hook(&self) -> bool {
        matches!(self, Self::NotRun(why) if why.starts_with("no hook"))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for CaseReport { name, outcome } in &self.cases {
            writeln!(f, "{name}: {outcome}")?;
        }
        let count =
            |wanted: fn(&CaseOutcome) -> bool| self.cases.iter().filter(|case| wanted(&case.outcome)).count();
        write!(
            f,
            "{} passed, {} failed, {} not run",
            count(|outcome| *outcome == CaseOutcome::Passed),
            count(|outcome| matches!(outcome, CaseOutcome::Failed(_))),
            count(|outcome| matches!(outcome, CaseOutcome::NotRun(_))),
        )
    }
}

impl Display for CaseOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::NotRun(what) => write!(f, "not run: {what}"),
        }
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("provider", &self.provider)
            .field("kek", &self.kek)
            .finish_non_exhaustive()
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests;
