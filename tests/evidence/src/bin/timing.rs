//! Whether the library's comparisons of tags, check values and MACs take the same time wherever the first wrong byte lies
//! (goal R16): forged inputs go through the public interface, and `leak` compares the times of two classes.
//!
//! `timing MEASUREMENTS ROUNDS POINTS|- [WORD]` measures the comparisons with WORD in their names. One whose |t| reaches the
//! bound is measured again, with other randomness, until it is below or all rounds are used, and the last |t| is reported. By
//! chance a round reaches the bound at most 4.1 times in a hundred thousand. POINTS becomes a file for tests/evidence/plot.py.
//!
//! Each comparison has a control: the same call, timed together with a comparison of the same bytes that ends at the first wrong
//! one. A control that stays below the bound, in all rounds, means that the measurement saw nothing.

use std::fmt::Write as _;
use std::hint::black_box;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use strongroom::provider::{
    Authority, Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped,
};
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{
    Aad, Account, AccountId, AccountRecord, AccountSpec, AekCache, BlockId, Context, Detached, Engine,
    ErrorKind, Expect, ObjectId, SealedObject,
};
use strongroom_evidence::leak::{BOUND, Class, Finding, compare, early_exit, ticks};
use strongroom_evidence::report::report;

/// How two classes of wrong bytes differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// One has its first byte wrong, the other its last one.
    FirstOrLast,
    /// One has its last byte wrong, the other is random.
    LastOrRandom,
}

/// A comparison of the library, and how to reach it.
struct Subject {
    name: &'static str,
    wrong: Wrong,
    /// A genuine input, and which of its bytes are compared.
    genuine: Vec<u8>,
    compared: Range<usize>,
    /// Has the library refuse what it is given; returns the ticks of that and of what is beside.
    refused: Box<dyn FnMut(Forged<'_>) -> u64>,
}

/// What the library shall refuse, and what a control compares beside, in the same time.
struct Forged<'a> {
    bytes: &'a [u8],
    beside: Option<(&'a [u8], &'a [u8])>,
}

impl Forged<'_> {
    #[inline]
    fn beside(&self) {
        if let Some((one, other)) = self.beside {
            black_box(early_exit(one, other));
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (measurements, rounds, points, word) = match arguments[..] {
        [measurements, rounds, points] => (measurements, rounds, points, ""),
        [measurements, rounds, points, word] => (measurements, rounds, points, word),
        _ => panic!("timing MEASUREMENTS ROUNDS POINTS|- [WORD]"),
    };
    let measurements: u64 = measurements.parse().expect("a number");
    let rounds: u32 = rounds.parse().expect("a number");
    let mut plot = String::from(HEAD);
    let (mut good, mut controls) = (true, Vec::new());
    for mut subject in subjects().into_iter().filter(|subject| subject.name.contains(word)) {
        let name = subject.name;
        let control = subject.best_of(rounds, measurements, true, |t| t > BOUND);
        let found = subject.best_of(rounds, measurements, false, |t| t < BOUND);
        report("R16", name, rounded(found.t), "<", BOUND);
        good &= found.t < BOUND && control.t > BOUND;
        draw(&mut plot, name, &found);
        controls.push(control);
    }
    let weakest = controls.iter().min_by(|a, b| a.t.total_cmp(&b.t)).expect("there are some");
    report("R16", "least of the controls, which end early", rounded(weakest.t), ">", BOUND);
    report("R16", "measurements of each", measurements, ">=", measurements);
    draw(&mut plot, "the weakest control, which ends early", weakest);
    if points != "-" {
        std::fs::write(points, plot).expect("writable");
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const HEAD: &str = "title: Time of comparisons by where the first wrong byte lies\n\
    x: measurements log\ny: largest |t| of Welch's test (0.1 where it is less) log\nhline: 4.5 the bound, 4.5\n";

fn draw(plot: &mut String, name: &str, found: &Finding) {
    writeln!(plot, "series: {name}").expect("a string");
    for (done, t) in &found.curve {
        writeln!(plot, "{done} {}", rounded(t.max(0.1))).expect("a string");
    }
}

fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

impl Subject {
    /// Measures until the finding is good, or all rounds are used.
    fn best_of(&mut self, rounds: u32, measurements: u64, control: bool, good: fn(f64) -> bool) -> Finding {
        let mut round = 1;
        loop {
            let found = self.measured(measurements, control);
            let what = if control { "control of " } else { "" };
            println!("{what}{}, round {round}: |t| = {:.2}", self.name, found.t);
            if good(found.t) || round >= rounds {
                return found;
            }
            round += 1;
        }
    }

    fn measured(&mut self, measurements: u64, control: bool) -> Finding {
        let Self { name: _, wrong, genuine, compared, refused } = self;
        let mut random = rand::make_rng::<SmallRng>();
        let mut forger = SmallRng::from_rng(&mut random);
        let right = &genuine[compared.clone()];
        let forge = |class, place: &mut [u8]| {
            let place = &mut place[compared.clone()];
            place.copy_from_slice(right);
            let last = place.len() - 1;
            let flip = forger.random_range(1..=u8::MAX);
            match (&wrong, class) {
                (Wrong::FirstOrLast, Class::Left) => place[0] ^= flip,
                (Wrong::LastOrRandom, Class::Right) => forger.fill(place),
                (Wrong::FirstOrLast, Class::Right) | (Wrong::LastOrRandom, Class::Left) => {
                    place[last] ^= flip
                }
            }
        };
        let ticks_of = |bytes: &[u8]| {
            refused(Forged { bytes, beside: control.then(|| (&bytes[compared.clone()], right)) })
        };
        compare(measurements, &mut random, forge, ticks_of, genuine)
    }
}

fn subjects() -> Vec<Subject> {
    let mut all = Vec::new();
    for (engine, names) in [
        (Engine::Fastest, ["tags, aws-lc, first or last byte", "tags, aws-lc, last byte or random"]),
        (Engine::Portable, ["tags, portable, first or last byte", "tags, portable, last byte or random"]),
    ] {
        let [first, last] = names;
        all.push(block(first, Wrong::FirstOrLast, engine, TAG, ErrorKind::Corrupt));
        all.push(block(last, Wrong::LastOrRandom, engine, TAG, ErrorKind::Corrupt));
    }
    all.push(block(
        "check values of blocks",
        Wrong::FirstOrLast,
        Engine::Fastest,
        KCV,
        ErrorKind::UnknownGeneration,
    ));
    all.push(object("MACs of objects"));
    all.push(record("check values of records", fingerprint_at));
    all.push(record("MACs of records", |record| {
        let len = record.to_bytes().len();
        len - 32..len
    }));
    all
}

/// Where [`Detached`] has the two: header8 | R24 | KCV[..16] | tag16.
const KCV: Range<usize> = 32..48;
const TAG: Range<usize> = 48..64;

/// A small block, opened: the less there is to decrypt, the less noise there is.
fn block(
    name: &'static str,
    wrong: Wrong,
    engine: Engine,
    compared: Range<usize>,
    why: ErrorKind,
) -> Subject {
    let account = account(engine);
    let id = BlockId::new(ObjectId::random(), 0);
    let mut sealed = *b"sixteen bytes...";
    let permit = account.permit().expect("a lease");
    let detached = permit.seal_detached(id, Aad::EMPTY, &mut sealed).expect("seals");
    permit.open_detached(id, Aad::EMPTY, &detached, &mut sealed.clone()).expect("a genuine one opens");
    let refused = move |forged: Forged<'_>| {
        let permit = account.permit().expect("a lease");
        let detached = Detached::from_bytes(forged.bytes).expect("a head");
        let mut data = sealed;
        let begun = ticks();
        let opened = permit.open_detached(id, Aad::EMPTY, &detached, &mut data);
        forged.beside();
        let took = ticks() - begun;
        assert_eq!(opened.expect_err("forged").kind(), why);
        took
    };
    Subject { name, wrong, genuine: detached.to_bytes().to_vec(), compared, refused: Box::new(refused) }
}

/// A sealed object, whose header has its MAC at its end.
fn object(name: &'static str) -> Subject {
    let account = account(Engine::Fastest);
    let context = Context::new(&[b"timing"]);
    let writer = SealedObject::writer(account.clone(), context, Vec::new()).expect("a lease");
    let (genuine, _) = writer.finish().expect("seals");
    SealedObject::reader(account.clone(), context, genuine.as_slice()).expect("a genuine one opens");
    let refused = move |forged: Forged<'_>| {
        let account = account.clone();
        let begun = ticks();
        let opened = SealedObject::reader(account, context, forged.bytes);
        forged.beside();
        let took = ticks() - begun;
        assert_eq!(opened.expect_err("forged").kind(), ErrorKind::Corrupt);
        took
    };
    Subject { name, wrong: Wrong::FirstOrLast, genuine, compared: 48..80, refused: Box::new(refused) }
}

/// A record, attached and refreshed on this thread. Timed is what follows the answer of the KMS.
fn record(name: &'static str, compared: fn(&AccountRecord) -> Range<usize>) -> Subject {
    let kms = Arc::new(Stamping { kms: ScriptedProvider::new(), answered: AtomicU64::new(0) });
    let clock = ManualClock::new();
    let cache = AekCache::builder().manual(&clock).build().expect("no threads");
    let id = AccountId::random();
    let pending = cache.begin_create(AccountSpec::new(id, kms.clone(), Kek::latest(ScriptedProvider::KEK)));
    cache.drive();
    let genuine = pending.wait().expect("the KMS answers").record();
    cache.drive();
    let expect = Expect::account(id).kek(kms.clone(), ScriptedProvider::KEK);
    let (bytes, compared) = (genuine.to_bytes(), compared(&genuine));
    let refused = move |forged: Forged<'_>| {
        let record = AccountRecord::parse(forged.bytes).expect("well-formed");
        let account = cache.attach(record, expect.clone()).expect("as expected");
        cache.drive();
        forged.beside();
        let took = ticks() - kms.answered.load(Ordering::Relaxed);
        assert!(account.permit().is_err(), "nothing forged is believed");
        drop(account);
        kms.kms.clear_log();
        clock.advance(Duration::from_secs(1));
        cache.drive();
        took
    };
    Subject { name, wrong: Wrong::FirstOrLast, genuine: bytes.to_vec(), compared, refused: Box::new(refused) }
}

fn fingerprint_at(record: &AccountRecord) -> Range<usize> {
    let (bytes, wanted) = (record.to_bytes(), record.fingerprint());
    let at =
        bytes.windows(32).position(|window| window == wanted.as_bytes()).expect("a record names its key");
    at..at + 32
}

fn account(engine: Engine) -> Account {
    let cache = AekCache::builder().engine(engine).build().expect("threads");
    let spec = AccountSpec::new(
        AccountId::random(),
        Arc::new(ScriptedProvider::new()),
        Kek::latest(ScriptedProvider::KEK),
    );
    cache.create(spec).expect("the KMS answers")
}

/// A KMS that notes when it answered.
#[derive(Debug)]
struct Stamping {
    kms: ScriptedProvider,
    answered: AtomicU64,
}

impl KeyProvider for Stamping {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.kms.wrap(kek, context, secret)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        let answer = self.kms.unwrap(wrapped, context);
        self.answered.store(ticks(), Ordering::Relaxed);
        answer
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.kms.describe(kek)
    }

    fn authority(&self) -> Authority {
        self.kms.authority()
    }
}
