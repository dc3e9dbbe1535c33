//! Records with older generations, laid out by hand, and what comes out of them: the AEKs sealed under the newest one's.

use std::time::Duration;

use serde_json::{Value, json};

use super::records::{NEWEST_AT, with_older};
use super::{File, Outcome, Owner, World, bytes, flipped, hex, kind, number, stream, unhex, unhex_array};
use crate::account::settings::{OutageGrace, Settings};
use crate::account::unwrap::older_keys;
use crate::derive::{MacUse, Secrets};
use crate::error::ErrorKind;
use crate::format::record::AccountRecord;
use crate::id::{Generation, Suite};
use crate::lease::Policy;
use crate::secret::MemoryLock;

/// A record, its newest generation first.
#[derive(Clone)]
pub(super) struct Chain {
    newest: Owner,
    /// Each under its own seed of R, and with the secrets that are sealed in its place.
    older: Vec<(Owner, Owner)>,
    /// Whose word the link is.
    linked_by: Owner,
}

/// The secrets of a generation, drawn from its number. Under one KEK.
fn of_generation(suite: Suite, generation: u32) -> Owner {
    let outer = (suite == Suite::Double).then(|| bytes(&format!("outer secret of {generation}")));
    Owner { generation, secret: bytes(&format!("secret of {generation}")), outer, ..Owner::usual() }
}

/// The same under joint custody.
fn of_two_shares(suite: Suite, generation: u32) -> Owner {
    let second_share = Some(bytes(&format!("second share of {generation}")));
    Owner { second_share, ..of_generation(suite, generation) }
}

/// The five fields of a generation, six in suite 2.
fn named(owner: &Owner, created: u64, active_from: u64) -> Vec<u8> {
    let (kcv, outer) = owner.kcvs();
    [
        &owner.generation.to_be_bytes()[..],
        &[owner.suite().number()],
        &created.to_be_bytes(),
        &active_from.to_be_bytes(),
        &kcv,
        outer.as_ref().map_or(&[], <[u8; 32]>::as_slice),
    ]
    .concat()
}

const fn born(generation: u32) -> (u64, u64) {
    (1_790_000_000 + generation as u64, 1_790_000_131 + generation as u64)
}

impl Chain {
    /// Generations of these numbers, the newest first.
    fn of(suite: Suite, numbers: &[u32]) -> Self {
        Self::held_by(suite, numbers, false)
    }

    /// The same, where the AEK of each generation is one or, under joint custody, two shares.
    pub(super) fn held_by(suite: Suite, numbers: &[u32], joint: bool) -> Self {
        let owner = if joint { of_two_shares } else { of_generation };
        let all: Vec<Owner> = numbers.iter().map(|number| owner(suite, *number)).collect();
        let (newest, older) = all.split_first().expect("not empty");
        let linked_by = older.first().unwrap_or(newest).clone();
        let older = older.iter().map(|owner| (owner.clone(), owner.clone())).collect();
        Self { newest: newest.clone(), older, linked_by }
    }

    pub(super) fn newest(&self) -> Owner {
        self.newest.clone()
    }

    /// Its oldest generation of two shares where the others are of one, or of one where they are of two.
    pub(super) fn with_an_odd_one(mut self) -> Self {
        let oldest = self.older.last_mut().expect("has older ones");
        let (suite, number) = (oldest.0.suite(), oldest.0.generation);
        let odd = if oldest.0.second_share.is_some() { of_generation } else { of_two_shares }(suite, number);
        *oldest = (odd.clone(), odd);
        self
    }

    /// What stands after the newest generation and its custody.
    pub(super) fn tail(&self) -> Vec<u8> {
        let mut tail = u16::try_from(self.older.len()).unwrap().to_be_bytes().to_vec();
        for (owner, inside) in &self.older {
            let (created, active_from) = born(owner.generation);
            tail.extend(named(owner, created, active_from));
            let secrets = Secrets { inner: &inside.inner(), outer: inside.outer.as_ref() };
            let r = bytes(&format!("R of {}", owner.generation));
            let sealed = self.newest.keys().seal_older_with(owner.generation(), secrets, r).unwrap();
            tail.extend(u16::try_from(sealed.len()).unwrap().to_be_bytes());
            tail.extend(sealed);
        }
        if let Some((before, _)) = self.older.first() {
            let (created, active_from) = born(before.generation);
            let content = [
                &self.newest.account[..],
                &named(&self.newest, NEWEST_AT, NEWEST_AT + 131),
                &named(before, created, active_from),
            ]
            .concat();
            tail.extend(self.linked_by.keys().mac(MacUse::Link, b"generation link", &[&content]));
        }
        tail
    }

    /// Who owns each older generation.
    pub(super) fn fields(&self) -> Vec<Value> {
        self.older.iter().map(|(owner, _)| Value::Object(owner.fields())).collect()
    }

    fn valid(&self, file: &mut File, name: &str) {
        let sealed = with_older(&self.newest, &self.tail());
        file.push(name, &self.newest, json!({ "sealed": hex(&sealed), "older": self.fields() }));
    }

    fn invalid(&self, file: &mut File, name: impl Into<String>, sealed: &[u8], error: ErrorKind) {
        file.push(name, &self.newest, json!({ "sealed": hex(sealed), "error": format!("{error:?}") }));
    }
}

pub(super) fn file() -> File {
    let mut file = File::new("generations");
    for suite in [Suite::Aes256Gcm, Suite::Double] {
        let of = |numbers: &[u32]| Chain::of(suite, numbers);
        let tell = |name: &str| format!("suite {}: {name}", suite.number());
        of(&[1]).valid(&mut file, &tell("one generation"));
        of(&[2, 1]).valid(&mut file, &tell("two generations"));
        of(&[9, 7, 3, 2]).valid(&mut file, &tell("four, and some destroyed"));
        of(&[u32::MAX, u32::MAX - 1, 0x0102_0304]).valid(&mut file, &tell("large numbers"));
        let all: Vec<u32> = (1..=257).rev().collect();
        of(&all).valid(&mut file, &tell("as many as there may be"));
        malformed(&mut file, suite);
        untrusted(&mut file, suite);
    }
    file
}

fn malformed(file: &mut File, suite: Suite) {
    let name = |name: &str| format!("suite {}: {name}", suite.number());
    for (what, numbers) in [
        ("not in order", &[9, 2, 3][..]),
        ("one twice", &[9, 3, 3]),
        ("one as high as the newest", &[9, 9]),
        ("one higher than the newest", &[9, 10]),
    ] {
        let chain = Chain::of(suite, numbers);
        let sealed = with_older(&chain.newest, &chain.tail());
        chain.invalid(file, name(what), &sealed, ErrorKind::Format);
    }
    let chain = Chain::of(suite, &[9, 3, 2]);
    let tail = chain.tail();
    let names = if suite == Suite::Double { 85 } else { 53 };
    let mut refuse = |what: &str, tail: &[u8]| {
        chain.invalid(file, name(what), &with_older(&chain.newest, tail), ErrorKind::Format);
    };
    for (what, at, to) in [
        ("count of one, and two are there", 0, &[0, 1][..]),
        ("count of three, and two are there", 0, &[0, 3]),
        ("count of 257", 0, &[1, 1]),
        ("generation zero", 2, &[0; 4]),
        ("no suite", 6, &[0]),
        ("the other suite", 6, &[3 - suite.number()]),
        ("an unknown suite", 6, &[3]),
        ("active before it was created", 15, &[0; 8]),
        ("nothing sealed", 2 + names, &[0, 0]),
        ("257 bytes sealed", 2 + names, &[1, 1]),
    ] {
        refuse(what, &super::set(&tail, at, to));
    }
    refuse("no link", &tail[..tail.len() - 32]);
    refuse("a byte more", &[&tail[..], &[0]].concat());
    refuse("a link without generations", &[&[0, 0][..], &[0; 32]].concat());
    for len in [0, 1, 2, 3, 10, 2 + names, 4 + names, 30 + names, tail.len() - 33] {
        refuse(&format!("ends after {len} bytes"), &tail[..len]);
    }
}

/// Made by somebody who has the newest generation's secrets, and not those of the others.
fn untrusted(file: &mut File, suite: Suite) {
    let name = |name: &str| format!("suite {}: {name}", suite.number());
    let chain = Chain::of(suite, &[9, 3, 2]);
    let tail = chain.tail();
    let names = if suite == Suite::Double { 85 } else { 53 };
    let mut refuse = |what: String, tail: &[u8]| {
        let sealed = with_older(&chain.newest, tail);
        chain.invalid(file, name(&what), &sealed, ErrorKind::Untrusted);
    };
    for (what, at) in [
        ("R", 0),
        ("ciphertext", 24),
        ("last tag", 24 + 32 * usize::from(suite.number()) + 16 * usize::from(suite.number()) - 1),
    ] {
        refuse(format!("{what} of a sealed AEK is changed"), &flipped(&tail, 4 + names + at));
    }
    refuse("KCV is changed".to_owned(), &flipped(&tail, 2 + 21));
    if suite == Suite::Double {
        refuse("outer KCV is changed".to_owned(), &flipped(&tail, 2 + 53));
    }
    refuse("created is changed".to_owned(), &flipped(&tail, 2 + 12));
    for at in [0, 15, 31] {
        refuse(format!("byte {at} of the link is changed"), &flipped(&tail, tail.len() - 32 + at));
    }
    let other = of_generation(suite, 77);
    let mut swapped = chain.clone();
    swapped.older[0].1 = Owner { generation: 3, ..other };
    refuse("another AEK under the name".to_owned(), &swapped.tail());
    refuse("an AEK of two shares".to_owned(), &chain.clone().with_an_odd_one().tail());
    let by_another = Chain { linked_by: chain.older[1].0.clone(), ..chain.clone() };
    refuse("link by another generation".to_owned(), &by_another.tail());
    let by_the_newest = Chain { linked_by: chain.newest.clone(), ..chain.clone() };
    refuse("link by the newest itself".to_owned(), &by_the_newest.tail());
    let of_another = Chain {
        newest: Owner { secret: stream("secret of 8", 32).try_into().unwrap(), ..chain.newest.clone() },
        ..chain.clone()
    };
    refuse("sealed under another newest one".to_owned(), &of_another.tail());
}

pub(super) fn check(world: &mut World, vector: &Value) -> Outcome {
    let record = AccountRecord::parse(&unhex(vector, "sealed")).map_err(kind)?;
    let keys = Owner::read(vector).keys().with_engine(world.engine);
    let verified = record.verify(keys.prks()).map_err(kind)?;
    let settings = Settings {
        policy: Policy::new(Duration::from_secs(30), Duration::from_secs(2), Duration::ZERO),
        grace: OutageGrace::None,
        memory_lock: MemoryLock::BestEffort,
        engine: world.engine,
        version_check: Duration::from_secs(600),
    };
    let older = older_keys(&settings, &verified, &keys).map_err(kind)?;
    let Some(said) = vector.get("older") else { return Ok(()) };
    let said: Vec<Owner> = said.as_array().unwrap().iter().map(Owner::read).collect();
    assert_eq!(older.len(), said.len(), "{}", vector["name"]);
    for (keys, owner) in older.iter().zip(&said) {
        assert_eq!(keys.generation(), owner.generation());
        assert_eq!(keys.prks().kcv().as_bytes(), owner.keys().prks().kcv().as_bytes());
    }
    let numbers: Vec<Generation> = said.iter().map(Owner::generation).collect();
    assert_eq!(verified.record().older_generations(), numbers);
    assert_eq!(unhex_array::<16>(vector, "account"), Owner::usual().account);
    assert_ne!(number(vector, "generation"), 0);
    Ok(())
}
