//! Generated blocks through three implementations: both engines, and OpenSSL in a Python that derives the keys by
//! itself, tests/evidence/third.py (goal R2).
//!
//! Without the feature `aws-lc` the two engines are one; the check runs with it.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::thread;

use crate::block::{GenerationKeys, Place};
use crate::derive::{Kind, Nonce24, Secrets};
use crate::engine::Engine;
use crate::evidence::{count, report};
use crate::format::frame::{self, Tags};
use crate::id::{Aad, AccountId, BlockId, Generation, ObjectId};
use crate::python::PYTHON;
use crate::secret::MemoryLock;

/// What is generated is the same in every run; each lane has a stream of its own.
const SEED: u64 = 0x5eed_0002;
/// Python is the slowest of the three: as many of it as a small machine has cores.
const LANES: [u64; 2] = [0, 1];
/// New keys take a slot of locked memory, which costs more than a block.
const CASES_OF_AN_ACCOUNT: u64 = 50;

#[test]
fn r2_three_implementations_agree() {
    let goal = count(2000, 200_000, 10_000_000);
    // Found, or made, before there are two lanes.
    assert!(PYTHON.exists(), "{}", PYTHON.display());
    let found = thread::scope(|scope| {
        let lanes = LANES.map(|lane| scope.spawn(move || run_lane(lane, goal / LANES.len() as u64)));
        lanes.map(|lane| lane.join().expect("a lane ends well"))
    });
    let cases: u64 = found.iter().map(|lane| lane.cases).sum();
    let differences: u64 = found.iter().map(|lane| lane.differences).sum();
    report("R2", "cases", cases, ">=", goal);
    report("R2", "differences", differences, "=", 0);
    assert_eq!((cases, differences), (goal, 0));
}

/// What was compared, and how often one of the three was not with the others.
struct Found {
    cases: u64,
    differences: u64,
}

fn run_lane(lane: u64, cases: u64) -> Found {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/third.py");
    let mut third = Command::new(&*PYTHON)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut to_third = BufWriter::with_capacity(1 << 16, third.stdin.take().expect("piped"));
    let differences = feed(Random(SEED + (lane << 32)), cases, &mut to_third);
    drop(to_third);
    let output = third.wait_with_output().expect("Python ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let (seen, theirs) = text
        .trim_end()
        .rsplit('\n')
        .next()
        .and_then(|line| line.strip_suffix(" differences")?.split_once(" cases, "))
        .unwrap_or_else(|| panic!("no counts: {text}"));
    let theirs: u64 = theirs.parse().expect("a number");
    assert_eq!(seen.parse(), Ok(cases), "every case arrived");
    if theirs != 0 {
        println!("{text}");
    }
    Found { cases, differences: differences + theirs }
}

/// Makes cases, compares the engines and hands what one of them sealed on. Returns the differences of the engines.
fn feed(mut random: Random, cases: u64, to_third: &mut BufWriter<ChildStdin>) -> u64 {
    let mut differences = 0;
    let mut owner = Owner::generate(&mut random);
    for case in 0..cases {
        if case % CASES_OF_AN_ACCOUNT == 0 {
            owner = Owner::generate(&mut random);
        }
        let case = Case::generate(&mut random);
        let [portable, fastest] = [&owner.portable, &owner.fastest].map(|keys| case.seal(keys));
        let agree = portable == fastest
            && case.opens(&owner.portable, &fastest)
            && case.opens(&owner.fastest, &portable);
        differences += u64::from(!agree);
        case.send(&owner, &portable, to_third);
    }
    to_third.flush().expect("Python reads on");
    differences
}

/// One account's keys in both engines.
struct Owner {
    account: [u8; 16],
    secret: [u8; 32],
    /// The second secret, of suite 2: one account of two has it.
    outer: Option<[u8; 32]>,
    generation: Generation,
    portable: GenerationKeys,
    fastest: GenerationKeys,
}

impl Owner {
    fn generate(random: &mut Random) -> Self {
        let (account, secret) = (random.bytes(), random.bytes());
        let outer = (random.below(2) == 0).then(|| random.bytes());
        // Mostly small, as they are in service, but every byte of the number has its turn.
        let number = u32::try_from((random.next() >> 32) >> random.below(32)).expect("32 bits");
        let generation = Generation::new(number.max(1)).expect("not zero");
        let id = AccountId::from_bytes(account);
        let keys = |engine| {
            GenerationKeys::new(
                id,
                generation,
                Secrets { inner: &secret, outer: outer.as_ref() },
                MemoryLock::BestEffort,
            )
            .expect("a few slots of memory")
            .with_engine(engine)
        };
        let (portable, fastest) = (keys(Engine::Portable), keys(Engine::Fastest));
        Self { account, secret, outer, generation, portable, fastest }
    }
}

/// One block or frame, with all that it is bound to.
struct Case {
    kind: Kind,
    last: bool,
    object: [u8; 16],
    index: u64,
    r: [u8; 24],
    aad: Vec<u8>,
    plain: Vec<u8>,
}

impl Case {
    fn generate(random: &mut Random) -> Self {
        // One of four is a frame of an object; those have no AAD of the caller's.
        let kind = if random.below(4) == 0 { Kind::ObjectFrame } else { Kind::Block };
        let (aad, last) = match kind {
            Kind::Block => (random.len(200, 4096), false),
            Kind::ObjectFrame => (0, random.below(2) == 0),
        };
        let plain = random.len(300, 20_000);
        Self {
            kind,
            last,
            object: random.bytes(),
            index: random.next() >> random.below(64),
            r: random.bytes(),
            aad: random.vec(aad),
            plain: random.vec(plain),
        }
    }

    fn place(&self) -> Place<'_> {
        let id = BlockId::new(ObjectId::from_bytes(self.object), self.index);
        Place { kind: self.kind, last: self.last, id, aad: Aad::new(&self.aad) }
    }

    fn seal(&self, keys: &GenerationKeys) -> Vec<u8> {
        let at = frame::head_len(self.kind);
        let mut sealed = vec![0; at];
        sealed.extend(&self.plain);
        let r = Nonce24::from_bytes(self.r);
        let (head, tags) =
            keys.seal_with_for_tests(&self.place(), r, &mut sealed[at..]).expect("within limits");
        head.write(&mut sealed[..at]);
        let end = sealed.len();
        sealed.resize(end + Tags::len(keys.suite()), 0);
        tags.write(&mut sealed[end..]);
        sealed
    }

    fn opens(&self, keys: &GenerationKeys, sealed: &[u8]) -> bool {
        let (head, sealed, tag) = frame::split(self.kind, sealed).expect("well-formed");
        let mut plain = vec![0; sealed.len()];
        keys.open_to(&self.place(), &head, &tag, sealed, &mut plain, || Ok(())).is_ok() && plain == self.plain
    }

    /// As the head of third.py has it.
    fn send(&self, owner: &Owner, sealed: &[u8], to: &mut impl Write) {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short").to_be_bytes();
        let parts: [&[u8]; 15] = [
            &owner.account,
            &owner.secret,
            &[owner.fastest.suite().number()],
            &owner.outer.unwrap_or_default(),
            &owner.generation.number().to_be_bytes(),
            &[self.kind.number()],
            &[u8::from(self.last)],
            &self.object,
            &self.index.to_be_bytes(),
            &self.r,
            &len(&self.aad),
            &len(&self.plain),
            &self.aad,
            &self.plain,
            sealed,
        ];
        let whole = parts.concat();
        to.write_all(&len(&whole)).and_then(|()| to.write_all(&whole)).expect("Python reads on");
    }
}

/// SplitMix64: fast, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Up to `usual`; once in 500 times up to `most`.
    fn len(&mut self, usual: u64, most: u64) -> usize {
        let most = if self.below(500) == 0 { most } else { usual };
        usize::try_from(self.below(most + 1)).expect("short")
    }

    /// Anything but 0: what changes a byte when it is put upon it.
    pub(crate) fn byte(&mut self) -> u8 {
        u8::try_from(1 + self.below(255)).expect("8 bits")
    }

    pub(crate) fn vec(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes);
        bytes
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes()[..chunk.len()]);
        }
    }
}
