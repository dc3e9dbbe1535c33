//! The cases of the suite. Each says in its name what a provider does.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use super::{Hook, Subject};
use crate::clock::Clock;
use crate::id::{AccountId, Generation};
use crate::provider::{
    Authority, ErrorClass, Kek, KekUri, KekVersion, ProviderError, WrapContext, WrapInput, Wrapped,
};
use crate::random;

/// One promise of the trait.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) needs: Needs,
    pub(super) run: fn(&Subject<'_>) -> Result<(), String>,
}

/// What the subject must have for a case to make sense.
#[derive(Clone, Copy)]
pub(super) enum Needs {
    Nothing,
    AdditionalData,
    NoAdditionalData,
    Versions,
    Rotation,
    Disabling,
    Deletion,
}

macro_rules! cases {
    ($($name:ident: $needs:ident,)*) => {
        &[$(Case { name: stringify!($name), needs: Needs::$needs, run: $name },)*]
    };
}

pub(super) const CASES: &[Case] = cases! {
    unwraps_what_it_wrapped: Nothing,
    names_the_kek_and_version_that_wrapped: Nothing,
    hides_what_it_wraps: Nothing,
    describes_the_kek: Nothing,
    keeps_its_authority: Nothing,
    refuses_another_context_as_integrity: AdditionalData,
    hands_out_another_context_unchanged: NoAdditionalData,
    says_integrity_of_tampered_bytes: Nothing,
    follows_no_foreign_uri: Nothing,
    knows_no_unknown_key: Nothing,
    knows_no_unknown_version: Versions,
    unwraps_with_the_exact_version_after_a_rotation: Rotation,
    does_not_take_one_version_for_another: Rotation,
    wraps_with_the_pinned_version: Rotation,
    refuses_a_disabled_key: Disabling,
    serves_a_key_that_was_enabled_again: Disabling,
    refuses_a_deleted_key: Deletion,
    serves_a_key_that_was_recovered: Deletion,
    answers_many_threads_at_once: Nothing,
};

fn unwraps_what_it_wrapped(subject: &Subject<'_>) -> Result<(), String> {
    for generation in [1, 2, u32::MAX] {
        let sample = Sample::new(AccountId::random(), generation);
        let wrapped = subject.wrap(&sample)?;
        subject.unwraps(&wrapped, &sample)?;
        subject.unwraps(&wrapped, &sample)?;
    }
    Ok(())
}

fn names_the_kek_and_version_that_wrapped(subject: &Subject<'_>) -> Result<(), String> {
    let wrapped = subject.wrap(&Sample::random())?;
    let uri = succeeds(subject.provider.authority().uri_of(&subject.kek), "uri_of")?;
    check(*wrapped.kek() == uri, || format!("the wrap names {} and not {uri}", wrapped.kek()))?;
    let info = succeeds(subject.provider.describe(&subject.latest()), "describe")?;
    check(*wrapped.version() == info.version, || {
        format!("the wrap names version {}, the description {}", wrapped.version(), info.version)
    })
}

fn hides_what_it_wraps(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    let shows = wrapped.bytes().windows(8).any(|window| sample.secret.windows(8).any(|part| part == window));
    check(!shows, || "the wrapped bytes contain the AEK in the clear".to_owned())
}

fn describes_the_kek(subject: &Subject<'_>) -> Result<(), String> {
    let info = succeeds(subject.provider.describe(&subject.latest()), "describe")?;
    let uri = succeeds(subject.provider.authority().uri_of(&subject.kek), "uri_of")?;
    check(info.uri == uri, || format!("describes {} and not {uri}", info.uri))?;
    check(info.enabled, || "describes an enabled key as disabled".to_owned())?;
    let now = UNIX_EPOCH + Duration::from_nanos(Clock::System.now().wall_nanos());
    check(info.expires.is_none_or(|at| at > now), || "describes a usable key as expired".to_owned())?;
    check(info.soft_delete || !info.purge_protection, || "purge protection without soft delete".to_owned())
}

fn keeps_its_authority(subject: &Subject<'_>) -> Result<(), String> {
    let before = subject.provider.authority();
    subject.wrap(&Sample::random())?;
    let after = subject.provider.authority();
    check(before == after, || format!("was {before:?}, is {after:?}"))?;
    let uri = succeeds(before.uri_of(&subject.kek), "uri_of")?;
    let name = succeeds(before.name_of(&uri), "name_of")?;
    check(name == subject.kek, || format!("its own URI {uri} names the key {name}"))
}

fn refuses_another_context_as_integrity(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    for (what, other) in sample.elsewhere() {
        fails(subject.provider.unwrap(&wrapped, &other), what, |class| class == ErrorClass::Integrity)?;
    }
    Ok(())
}

fn hands_out_another_context_unchanged(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    for (what, other) in sample.elsewhere() {
        match subject.provider.unwrap(&wrapped, &other) {
            Ok(input) => check(input.expose() == sample.input().expose(), || {
                format!("{what}: changed what it unwrapped to suit the context")
            })?,
            refused => fails(refused, what, |class| class == ErrorClass::Integrity)?,
        }
    }
    Ok(())
}

fn says_integrity_of_tampered_bytes(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    let bytes = wrapped.bytes();
    let mut tampered = Vec::new();
    for part in 0..FLIPS {
        let mut flipped = bytes.to_vec();
        let at = part * (bytes.len() - 1) / (FLIPS - 1);
        flipped[at] ^= 1;
        tampered.push((format!("byte {at} of {} flipped", bytes.len()), flipped));
    }
    tampered.push(("last byte missing".to_owned(), bytes[..bytes.len() - 1].to_vec()));
    tampered.push(("a byte more".to_owned(), [bytes, &[0]].concat()));
    let mut noise = vec![0; bytes.len()];
    random::fill(&mut noise);
    tampered.push(("random bytes".to_owned(), noise));
    for (what, bytes) in tampered {
        // An empty wrap cannot even be said; then there is nothing to ask.
        let Ok(tampered) = relabelled(&wrapped, wrapped.kek(), wrapped.version(), bytes) else { continue };
        let answer = subject.provider.unwrap(&tampered, &sample.context);
        fails(answer, &what, |class| class == ErrorClass::Integrity)?;
    }
    Ok(())
}

fn follows_no_foreign_uri(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    let ours = subject.provider.authority();
    let foreign = [
        Authority::new(ours.provider(), "strongroom-conformance.invalid"),
        Authority::new("strongroom-conformance", "strongroom-conformance.invalid"),
    ];
    for authority in foreign {
        let uri = succeeds(authority.uri_of(&subject.kek), "uri_of")?;
        let bytes = wrapped.bytes().to_vec();
        let moved = succeeds(relabelled(&wrapped, &uri, wrapped.version(), bytes), "Wrapped::new")?;
        let answer = subject.provider.unwrap(&moved, &sample.context);
        fails(answer, uri.as_str(), |class| class == ErrorClass::Misconfigured)?;
    }
    Ok(())
}

fn knows_no_unknown_key(subject: &Subject<'_>) -> Result<(), String> {
    let unknown = format!("no-such-key-{}", AccountId::random());
    let kek = Kek::latest(unknown.clone());
    let known_to_be_wrong = |class| matches!(class, ErrorClass::Refused(_) | ErrorClass::Misconfigured);
    fails(subject.provider.describe(&kek), "describe", known_to_be_wrong)?;
    let sample = Sample::random();
    let answer = subject.provider.wrap(&kek, &sample.context, &sample.input());
    fails(answer, "wrap", known_to_be_wrong)?;

    let wrapped = subject.wrap(&sample)?;
    let uri = succeeds(subject.provider.authority().uri_of(&unknown), "uri_of")?;
    let bytes = wrapped.bytes().to_vec();
    let moved = succeeds(relabelled(&wrapped, &uri, wrapped.version(), bytes), "Wrapped::new")?;
    fails(subject.provider.unwrap(&moved, &sample.context), "unwrap", known_to_be_wrong)
}

fn knows_no_unknown_version(subject: &Subject<'_>) -> Result<(), String> {
    let unknown = succeeds(KekVersion::new("no-such-version"), "KekVersion::new")?;
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    let bytes = wrapped.bytes().to_vec();
    let moved = succeeds(relabelled(&wrapped, wrapped.kek(), &unknown, bytes), "Wrapped::new")?;
    fails(subject.provider.unwrap(&moved, &sample.context), "unwrap", |class| {
        class != ErrorClass::Transient
    })?;
    let pinned = Kek::pinned(subject.kek.clone(), unknown);
    let answer = subject.provider.wrap(&pinned, &sample.context, &sample.input());
    fails(answer, "wrap", |class| class != ErrorClass::Transient)
}

fn unwraps_with_the_exact_version_after_a_rotation(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let old = subject.wrap(&sample)?;
    act(subject.rotate.as_ref())?;
    let new = subject.wrap(&sample)?;
    check(old.version() != new.version(), || format!("after a rotation still wraps with {}", old.version()))?;
    let info = succeeds(subject.provider.describe(&subject.latest()), "describe")?;
    check(info.version == *new.version(), || {
        format!("wraps with {} and describes {} as current", new.version(), info.version)
    })?;
    subject.unwraps(&old, &sample).map_err(|why| format!("an older wrap: {why}"))?;
    subject.unwraps(&new, &sample).map_err(|why| format!("a newer wrap: {why}"))
}

fn does_not_take_one_version_for_another(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let old = subject.wrap(&sample)?;
    act(subject.rotate.as_ref())?;
    let new = subject.wrap(&sample)?;
    for (wrapped, version) in [(&old, new.version()), (&new, old.version())] {
        let bytes = wrapped.bytes().to_vec();
        let moved = succeeds(relabelled(wrapped, wrapped.kek(), version, bytes), "Wrapped::new")?;
        let what = format!("a wrap of {} that names {version}", wrapped.version());
        fails(subject.provider.unwrap(&moved, &sample.context), &what, |class| {
            class == ErrorClass::Integrity
        })?;
    }
    Ok(())
}

fn wraps_with_the_pinned_version(subject: &Subject<'_>) -> Result<(), String> {
    let sample = Sample::random();
    let old = subject.wrap(&sample)?;
    act(subject.rotate.as_ref())?;
    let pinned = Kek::pinned(subject.kek.clone(), old.version().clone());
    let wrapped = succeeds(subject.provider.wrap(&pinned, &sample.context, &sample.input()), "wrap")?;
    check(wrapped.version() == old.version(), || {
        format!("pinned to {}, wrapped with {}", old.version(), wrapped.version())
    })?;
    let info = succeeds(subject.provider.describe(&pinned), "describe")?;
    check(info.version == *old.version(), || {
        format!("pinned to {}, described {}", old.version(), info.version)
    })?;
    subject.unwraps(&wrapped, &sample)
}

fn refuses_a_disabled_key(subject: &Subject<'_>) -> Result<(), String> {
    refuses_while(subject, subject.disable.as_ref(), subject.enable.as_ref())
}

fn serves_a_key_that_was_enabled_again(subject: &Subject<'_>) -> Result<(), String> {
    serves_after(subject, subject.disable.as_ref(), subject.enable.as_ref())
}

fn refuses_a_deleted_key(subject: &Subject<'_>) -> Result<(), String> {
    refuses_while(subject, subject.delete.as_ref(), subject.recover.as_ref())
}

fn serves_a_key_that_was_recovered(subject: &Subject<'_>) -> Result<(), String> {
    serves_after(subject, subject.delete.as_ref(), subject.recover.as_ref())
}

fn refuses_while(
    subject: &Subject<'_>,
    close: Option<&Hook<'_>>,
    reopen: Option<&Hook<'_>>,
) -> Result<(), String> {
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    between(close, reopen, || {
        // Judged by `unwrap`: some services still wrap with a disabled key.
        fails(subject.provider.unwrap(&wrapped, &sample.context), "unwrap", is_refusal)?;
        match subject.provider.describe(&subject.latest()) {
            Ok(info) => check(!info.enabled, || "describes a closed key as enabled".to_owned()),
            refused => fails(refused, "describe", is_refusal),
        }
    })
}

fn serves_after(
    subject: &Subject<'_>,
    close: Option<&Hook<'_>>,
    reopen: Option<&Hook<'_>>,
) -> Result<(), String> {
    let sample = Sample::random();
    let wrapped = subject.wrap(&sample)?;
    between(close, reopen, || {
        // Asked for, so that a provider that keeps a refusal in mind shows it afterwards.
        drop(subject.provider.unwrap(&wrapped, &sample.context));
        Ok(())
    })?;
    subject.unwraps(&wrapped, &sample)?;
    subject.unwraps(&subject.wrap(&sample)?, &sample)?;
    describes_the_kek(subject)
}

/// Judges between two hooks. The second acts whatever happens, so that the other cases find the key as it was.
fn between(
    first: Option<&Hook<'_>>,
    second: Option<&Hook<'_>>,
    judge: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    act(first)?;
    let judged = catch_unwind(AssertUnwindSafe(judge));
    act(second)?;
    judged.unwrap_or_else(|panic| resume_unwind(panic))
}

fn answers_many_threads_at_once(subject: &Subject<'_>) -> Result<(), String> {
    // The subject holds hooks, which need not be `Sync`; the threads get the provider alone.
    let (provider, kek, authority) = (subject.provider, subject.latest(), subject.provider.authority());
    let one = || {
        for _ in 0..CALLS_PER_THREAD {
            let sample = Sample::random();
            let wrapped = succeeds(provider.wrap(&kek, &sample.context, &sample.input()), "wrap")?;
            let input = succeeds(provider.unwrap(&wrapped, &sample.context), "unwrap")?;
            check(input.expose() == sample.input().expose(), || "another thread's AEK came back".to_owned())?;
            check(provider.authority() == authority, || "another authority".to_owned())?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a call panicked".to_owned())?)
    })
}

/// A secret that is nobody's AEK, and where it belongs.
struct Sample {
    context: WrapContext,
    secret: [u8; 32],
}

impl Sample {
    fn new(account: AccountId, generation: u32) -> Self {
        let generation = Generation::new(generation).unwrap_or(Generation::FIRST);
        let mut secret = [0; 32];
        random::fill(&mut secret);
        Self { context: WrapContext::for_tests(account, generation), secret }
    }

    fn random() -> Self {
        Self::new(AccountId::random(), 7)
    }

    fn input(&self) -> WrapInput {
        self.context.input(&self.secret)
    }

    /// Contexts that this sample does not belong to.
    fn elsewhere(&self) -> [(&'static str, WrapContext); 2] {
        let next = Generation::new(self.context.generation().number() + 1).unwrap_or(Generation::FIRST);
        [
            (
                "unwrap for another account",
                WrapContext::for_tests(AccountId::random(), self.context.generation()),
            ),
            ("unwrap for another generation", WrapContext::for_tests(self.context.account(), next)),
        ]
    }
}

impl Subject<'_> {
    fn latest(&self) -> Kek {
        Kek::latest(self.kek.clone())
    }

    fn wrap(&self, sample: &Sample) -> Result<Wrapped, String> {
        succeeds(self.provider.wrap(&self.latest(), &sample.context, &sample.input()), "wrap")
    }

    fn unwraps(&self, wrapped: &Wrapped, sample: &Sample) -> Result<(), String> {
        let input = succeeds(self.provider.unwrap(wrapped, &sample.context), "unwrap")?;
        check(input.expose() == sample.input().expose(), || {
            "what came back is not what was wrapped".to_owned()
        })
    }
}

fn act(hook: Option<&Hook<'_>>) -> Result<(), String> {
    hook.map_or_else(|| Err("the suite ran a case without its hook".to_owned()), Hook::act)
}

fn relabelled(
    wrapped: &Wrapped,
    kek: &KekUri,
    version: &KekVersion,
    bytes: Vec<u8>,
) -> Result<Wrapped, ProviderError> {
    Wrapped::new(kek.clone(), version.clone(), wrapped.algorithm().clone(), bytes)
}

const fn is_refusal(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::Refused(_))
}

fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn succeeds<T>(answer: Result<T, ProviderError>, what: &str) -> Result<T, String> {
    answer.map_err(|error| format!("{what} failed: {error}"))
}

fn fails<T>(
    answer: Result<T, ProviderError>,
    what: &str,
    right: impl FnOnce(ErrorClass) -> bool,
) -> Result<(), String> {
    match answer {
        Ok(_) => Err(format!("{what}: succeeded")),
        Err(error) if right(error.class()) => Ok(()),
        Err(error) => Err(format!("{what}: failed in the wrong class: {error}")),
    }
}

const FLIPS: usize = 16;
const THREADS: usize = 8;
const CALLS_PER_THREAD: usize = 4;
