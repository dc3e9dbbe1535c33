//! What somebody who owns the store can put together, knowing docs/FORMAT.md, tried on blocks, sealed objects and account
//! records (goal R5).
//!
//! Accepted is: bytes that are not what was sealed as exactly that, and open as it. An older version of the
//! same block or object, whole, is none of these: without an anchor, or a version in the AAD or the context, nobody can tell it
//! from the newest. Of a record it is one, as a reader names the least sequence.
//!
//! What is attacked and how is drawn from a seed; the keys are new in each run.

use std::io::{Read, Write};
use std::sync::Arc;

use crate::account::Account;
use crate::cache::{AccountSpec, AekCache};
use crate::derive::Prks;
use crate::differential_tests::Random;
use crate::error::{Error, ErrorKind};
use crate::evidence::{count, report};
use crate::expect::Expect;
use crate::format::object::{BlockSize, Context, HEADER_LEN};
use crate::format::record::{AccountRecord, VerifiedRecord};
use crate::id::{Aad, AccountId, BlockId, ObjectId, Suite};
use crate::object::{ObjectOptions, SealedObject};
use crate::provider::{Kek, KeyProvider};
use crate::testing::{ManualClock, ScriptedProvider};

mod records;

const SEED: u64 = 0x5eed_0005;
const BLOCK: usize = 4096;

/// Makes one forgery and tries it: whether it was accepted.
type Attack = fn(&World, &mut Random) -> bool;

#[test]
fn r5_what_is_put_together_from_genuine_pieces_is_refused() {
    let goal = count(5000, 100_000, 1_000_000);
    let mut random = Random(SEED);
    let each = goal.div_ceil((KINDS.len() * ATTACKS.len()) as u64);
    let (mut tried, mut accepted) = (0, 0);
    for (suite, held) in KINDS {
        let world = World::new(suite, held);
        world.genuine_is_accepted();
        for (name, attack) in ATTACKS {
            let before = accepted;
            for _ in 0..each {
                tried += 1;
                accepted += u64::from(attack(&world, &mut random));
            }
            if accepted != before {
                println!("{suite:?}, {held:?}, {name}: {} of {each} accepted", accepted - before);
            }
            world.kms.clear_log();
        }
        // A world in which nothing opens any more refuses everything.
        world.genuine_is_accepted();
    }
    report("R5", "tried", tried, ">=", goal);
    report("R5", "attack kinds", ATTACKS.len(), ">=", 30);
    report("R5", "accepted", accepted, "=", 0);
    assert_eq!(accepted, 0, "accepted of {tried}");
}

/// How an account's AEK is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeldBy {
    One,
    EitherOfTwo,
    BothOfTwo,
}

const KINDS: [(Suite, HeldBy); 6] = [
    (Suite::Aes256Gcm, HeldBy::One),
    (Suite::Aes256Gcm, HeldBy::EitherOfTwo),
    (Suite::Aes256Gcm, HeldBy::BothOfTwo),
    (Suite::Double, HeldBy::One),
    (Suite::Double, HeldBy::EitherOfTwo),
    (Suite::Double, HeldBy::BothOfTwo),
];

const ATTACKS: [(&str, Attack); 39] = [
    ("block: at another index", |w, r| w.ours.opens(&Block { index: r.below(1 << 40) + 8, ..w.block(r) })),
    ("block: in another object", |w, r| {
        let block = w.block(r);
        w.ours.opens(&Block { object: 1 - block.object, ..block })
    }),
    ("block: in another account", |w, r| w.theirs.opens(&w.block(r))),
    ("block: AAD changed, cut or longer", |w, r| {
        let mut block = w.block(r);
        match r.below(3) {
            0 => flip(&mut block.aad, r),
            1 => block.aad.truncate(at(r, block.aad.len())),
            _ => block.aad.extend(some(r, 40)),
        }
        w.ours.opens(&block)
    }),
    ("block: bytes moved between AAD and ciphertext", |w, r| {
        let mut block = w.block(r);
        let moved = block.aad.pop().expect("not empty");
        block.sealed.insert(48, moved);
        w.ours.opens(&block)
    }),
    ("block: cut", |w, r| w.ours.opens(&w.block(r).edited(|sealed| sealed.truncate(at(r, sealed.len()))))),
    ("block: longer", |w, r| w.ours.opens(&w.block(r).edited(|sealed| sealed.extend(some(r, 100))))),
    ("block: spliced of two", |w, r| {
        let (one, two) = (w.block(r), w.other_block(r));
        // Behind R, behind the commitment, before the last tag, before what is the first of two tags in suite 2.
        let before = |tags: usize| (one.sealed.len() - tags, two.len() - tags);
        let (cut, from) = [(32, 32), (48, 48), before(16), before(32)][at(r, 4)];
        w.ours.opens(&one.edited(|sealed| drop(sealed.splice(cut.., two[from..].iter().copied()))))
    }),
    ("block: R of another", |w, r| {
        let other = w.other_block(r);
        w.ours.opens(&w.block(r).edited(|sealed| sealed[8..32].copy_from_slice(&other[8..32])))
    }),
    ("block: the commitment of another account", |w, r| {
        let theirs = w.theirs.blocks[0].sealed[32..48].to_vec();
        w.theirs.opens(&w.block(r).edited(|sealed| sealed[32..48].copy_from_slice(&theirs)))
    }),
    ("block: version, suite, kind or flags", |w, r| {
        w.ours.opens(&w.block(r).edited(|sealed| sealed[at(r, 4)] ^= r.byte()))
    }),
    ("block: of the other suite", |w, r| {
        // As many bytes more or less as the other suite has, taken off, put on, or moved, under a header that says so.
        let other = 3 - w.block(r).sealed[1];
        w.ours.opens(&w.block(r).edited(|sealed| {
            let (tags, end) = (sealed.len() - 32, sealed.len() - 16);
            match r.below(3) {
                0 => drop(sealed.drain(end..)),
                1 => drop(sealed.drain(tags..end)),
                _ => sealed.extend(r.vec(16)),
            }
            sealed[1] = other;
        }))
    }),
    ("object: a frame of the other suite", |w, r| {
        w.edited(r, |frames, r| {
            let one = at(r, frames.len());
            let frame = &mut frames[one];
            frame[1] = 3 - frame[1];
            match r.below(3) {
                0 => frame.truncate(frame.len() - 16),
                1 => frame.extend(r.vec(16)),
                _ => {}
            }
        })
    }),
    ("record: of the other suite", |w, r| {
        w.record(r, |bytes, _, r| {
            // The generation's suite, with the second KCV and the second custody left out, or with room for them.
            let at = bytes.windows(4).position(|number| number == [0, 0, 0, 1]).map_or(0, |found| found + 4);
            let suite = bytes.iter().enumerate().skip(at).find(|(_, byte)| [1, 2].contains(*byte));
            let at = suite.map_or(0, |(at, _)| at);
            bytes[at] = 3 - bytes[at].min(2);
            if r.below(2) == 0 {
                bytes.truncate(bytes.len() - 34);
                bytes.extend(r.vec(34));
            }
        })
    }),
    ("block: generation", |w, r| w.ours.opens(&w.block(r).edited(|sealed| sealed[4 + at(r, 4)] ^= r.byte()))),
    ("block: made of an object's frame", |w, r| {
        let object = w.object(r);
        let frame = frames(&object)[0].clone();
        let commitment = &w.ours.blocks[0].sealed[32..48];
        let mut sealed = [&frame[..32], commitment, &frame[32..]].concat();
        sealed[2] = 1;
        sealed[3] = 0;
        let id = BlockId::new(ObjectId::from_bytes(object[32..48].try_into().expect("16")), 0);
        w.ours.account.open(id, Aad::EMPTY, &sealed).is_ok()
    }),
    ("object: frames in another order", |w, r| {
        w.edited(r, |frames, r| {
            let one = at(r, frames.len());
            let two = (one + 1 + at(r, frames.len() - 1)) % frames.len();
            frames.swap(one, two);
        })
    }),
    ("object: a frame twice", |w, r| {
        w.edited(r, |frames, r| frames.insert(at(r, frames.len()), frames[at(r, frames.len())].clone()))
    }),
    ("object: a frame in place of another", |w, r| {
        w.edited(r, |frames, r| {
            let one = at(r, frames.len());
            frames[one] = frames[(one + 1 + at(r, frames.len() - 1)) % frames.len()].clone();
        })
    }),
    ("object: a frame left out", |w, r| w.edited(r, |frames, r| drop(frames.remove(at(r, frames.len()))))),
    ("object: cut between frames", |w, r| w.edited(r, |frames, r| frames.truncate(at(r, frames.len())))),
    ("object: cut anywhere", |w, r| w.patched(r, |sealed, r| sealed.truncate(at(r, sealed.len())))),
    ("object: longer", |w, r| w.patched(r, |sealed, r| sealed.extend(some(r, 2 * BLOCK)))),
    ("object: a frame of a twin of the same account and context", |w, r| {
        let twin = frames(&w.ours.objects[1]);
        w.edited(r, |frames, r| {
            let one = at(r, frames.len());
            frames[one] = twin[one].clone();
        })
    }),
    ("object: a frame of another account's", |w, r| {
        let theirs = frames(&w.theirs.objects[0]);
        w.edited(r, |frames, r| {
            let one = at(r, frames.len());
            frames[one] = theirs[one].clone();
        })
    }),
    ("object: the header, or a part of it, of a twin", |w, r| {
        let twin = &w.ours.objects[1];
        w.patched(r, |sealed, r| {
            let part = [0..HEADER_LEN, 32..48, 48..80][at(r, 3)].clone();
            sealed[part.clone()].copy_from_slice(&twin[part]);
        })
    }),
    ("object: block size", |w, r| w.patched(r, |sealed, r| sealed[10] = sealed[10] + 1 + r.byte() % 12)),
    ("object: version, suite or reserved byte", |w, r| {
        w.patched(r, |sealed, r| sealed[[8, 9, 11][at(r, 3)]] ^= r.byte())
    }),
    ("object: generation, account or object", |w, r| {
        w.patched(r, |sealed, r| sealed[12 + at(r, 36)] ^= r.byte())
    }),
    ("object: final flag moved", |w, r| {
        w.edited(r, |frames, r| {
            let (one, last) = (at(r, frames.len() - 1), frames.len() - 1);
            frames[one][3] = 1;
            match r.below(3) {
                0 => frames[last][3] = 0,
                1 => frames.truncate(one + 1),
                _ => {}
            }
        })
    }),
    ("object: another context or account", |w, r| {
        let sealed = w.object(r);
        let context = Context::new(&[b"store", &some(r, 8)]);
        let account = if r.below(2) == 0 { &w.ours.account } else { &w.theirs.account };
        read(account, context, &sealed).is_ok()
    }),
    ("object: another account's, renamed", |w, r| {
        let mut sealed = w.theirs.objects[at(r, 2)].clone();
        sealed[16..32].copy_from_slice(w.ours.account.id().as_bytes());
        read(&w.ours.account, context(), &sealed).is_ok()
    }),
    ("record: a byte of any field", |w, r| w.record(r, |bytes, _, r| flip(bytes, r))),
    ("record: cut or longer", |w, r| {
        w.record(r, |bytes, _, r| match r.below(2) {
            0 => bytes.truncate(at(r, bytes.len())),
            _ => bytes.extend(some(r, 64)),
        })
    }),
    ("record: a piece of another record of the same layout", |w, r| {
        w.record(r, |bytes, other, r| {
            let from = at(r, bytes.len());
            let to = from + 1 + at(r, bytes.len() - from);
            bytes[from..to].copy_from_slice(&other[from..to]);
        })
    }),
    ("record: another account's, renamed, or its MAC", |w, r| {
        w.record(r, |bytes, other, r| match r.below(2) {
            0 => drop(std::mem::replace(bytes, [&other[..9], &bytes[9..25], &other[25..]].concat())),
            _ => {
                let mac = bytes.len() - 32;
                bytes[mac..].copy_from_slice(&other[mac..]);
            }
        })
    }),
    ("record: its KEKs exchanged, one left out, or another custody", |w, r| {
        w.record(r, |bytes, _, r| records::exchange_keks(bytes, r))
    }),
    ("record: a refusal taken out, or of another record", |w, r| {
        let forged = records::forge_standing(&w.ours.records, r);
        w.believe(&forged, &w.expect(w.ours.account.id())).is_ok()
    }),
    ("record: an older one", |w, r| {
        let (old, new) = (at(r, 3), 3);
        let [old, new] = [old, new].map(|at| &w.ours.records[at]);
        let least = w.expect(w.ours.account.id()).least_sequence(new.record().sequence());
        let held = new.verify_successor(old.record().clone(), &w.ours.prk).is_ok();
        held || w.believe(&old.record().to_bytes(), &least).is_ok()
    }),
];

/// Two accounts under one KEK, with alike things in them: what can be confused is.
struct World {
    suite: Suite,
    held: HeldBy,
    kms: Arc<ScriptedProvider>,
    _cache: AekCache,
    ours: Customer,
    theirs: Customer,
}

struct Customer {
    account: Account,
    blocks: Vec<Block>,
    /// Twins: same context, same plaintext.
    objects: [Vec<u8>; 2],
    /// Each is the successor of the one before it.
    records: Vec<VerifiedRecord>,
    prk: Prks,
}

#[derive(Clone)]
struct Block {
    object: u8,
    index: u64,
    aad: Vec<u8>,
    sealed: Vec<u8>,
}

impl World {
    fn new(suite: Suite, held: HeldBy) -> Self {
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        ["orders", "others", "second"].iter().for_each(|key| kms.add_key(key));
        let cache = AekCache::builder().manual(&ManualClock::new()).build().unwrap();
        let [ours, theirs] = [(); 2].map(|()| Customer::new(&kms, &cache, suite, held));
        Self { suite, held, kms, _cache: cache, ours, theirs }
    }

    fn genuine_is_accepted(&self) {
        for customer in [&self.ours, &self.theirs] {
            assert!(customer.blocks.iter().all(|block| customer.opens(block)));
            for sealed in &customer.objects {
                assert_eq!(read(&customer.account, context(), sealed).unwrap(), 3 * BLOCK + 9);
            }
            for record in &customer.records {
                let expect = self.expect(customer.account.id());
                assert!(self.believe(&record.record().to_bytes(), &expect).is_ok());
            }
        }
    }

    fn block(&self, random: &mut Random) -> Block {
        self.ours.blocks[at(random, self.ours.blocks.len())].clone()
    }

    /// The bytes of a block that is never `block`'s: those are of our account, or have another AAD.
    fn other_block(&self, random: &mut Random) -> Vec<u8> {
        let theirs = &self.theirs.blocks;
        if random.below(2) == 0 {
            return theirs[at(random, theirs.len())].sealed.clone();
        }
        self.ours.spare(random)
    }

    fn object(&self, _: &mut Random) -> Vec<u8> {
        self.ours.objects[0].clone()
    }

    /// An object of ours with its frames edited.
    fn edited(&self, random: &mut Random, edit: impl FnOnce(&mut Vec<Vec<u8>>, &mut Random)) -> bool {
        self.patched(random, |sealed, random| {
            let mut frames = frames(sealed);
            edit(&mut frames, random);
            sealed.truncate(HEADER_LEN);
            sealed.extend(frames.concat());
        })
    }

    fn patched(&self, random: &mut Random, patch: impl FnOnce(&mut Vec<u8>, &mut Random)) -> bool {
        let mut sealed = self.object(random);
        patch(&mut sealed, random);
        assert!(!self.ours.objects.contains(&sealed), "no forgery");
        read(&self.ours.account, context(), &sealed).is_ok()
    }

    /// A record of ours, edited with another at hand: one of the other account, or of another sequence.
    fn record(&self, random: &mut Random, edit: impl FnOnce(&mut Vec<u8>, &[u8], &mut Random)) -> bool {
        let one = at(random, 4);
        let records = if random.below(2) == 0 { &self.theirs.records } else { &self.ours.records };
        let [mut bytes, other] =
            [&self.ours.records[one], &records[(one + 1) % 4]].map(|record| record.record().to_bytes());
        edit(&mut bytes, &other, random);
        // A piece may hold nothing that differs, or everything that does: then it is a genuine record.
        let genuine = self.ours.records.iter().any(|record| record.record().to_bytes() == bytes);
        !genuine && self.believe(&bytes, &self.expect(self.ours.account.id())).is_ok()
    }

    fn expect(&self, account: AccountId) -> Expect {
        let kms = || -> Arc<dyn KeyProvider> { self.kms.clone() };
        let expect = Expect::account(account).kek(kms(), "orders");
        let expect = match self.held {
            HeldBy::One => expect,
            HeldBy::EitherOfTwo => expect.failover_kek(kms(), "others"),
            HeldBy::BothOfTwo => expect.joint_kek(kms(), "others"),
        };
        if self.suite == Suite::Double { expect.outer_kek(kms(), "second") } else { expect }
    }

    /// All that stands between a stored record and its use, in the order of attaching.
    fn believe(&self, bytes: &[u8], expect: &Expect) -> Result<VerifiedRecord, Error> {
        let record = AccountRecord::parse(bytes)?;
        let providers = expect.admit(&record)?;
        let by_first = records::believe_by(&providers, &record, &record.held());
        let second = record.held_by_second().filter(|_| record.barred().is_some());
        // By whomever: one is enough for a forgery.
        second
            .map_or(Err(Error::corrupt()), |held| records::believe_by(&providers, &record, &held))
            .or(by_first)
    }
}

impl Customer {
    fn new(kms: &Arc<ScriptedProvider>, cache: &AekCache, suite: Suite, held: HeldBy) -> Self {
        let provider: Arc<dyn KeyProvider> = kms.clone();
        let mut spec = AccountSpec::new(AccountId::random(), provider.clone(), Kek::latest("orders"));
        if suite == Suite::Double {
            spec = spec.double_encryption(provider.clone(), Kek::latest("second"));
        }
        let others = Kek::latest("others");
        let spec = match held {
            HeldBy::One => spec,
            HeldBy::EitherOfTwo => spec.failover(provider, others, AccountSpec::FAILOVER_LIMIT),
            HeldBy::BothOfTwo => spec.joint_with(provider, others),
        };
        let account = cache.create(spec).unwrap();
        let blocks = (0..32).map(|number| Block::seal(&account, number)).collect();
        let objects = [(); 2].map(|()| write(&account));
        let (records, prk) = records::all(kms, account.id(), suite, held);
        Self { account, blocks, objects, records, prk }
    }

    fn opens(&self, block: &Block) -> bool {
        self.account.open(block.id(), Aad::new(&block.aad), &block.sealed).is_ok()
    }

    /// A block with the same fields, sealed at a place that no other one is at.
    fn spare(&self, random: &mut Random) -> Vec<u8> {
        let id = BlockId::new(ObjectId::from_bytes([9; 16]), random.next());
        self.account.seal(id, Aad::EMPTY, &[0; 100]).unwrap()
    }
}

impl Block {
    fn seal(account: &Account, number: u8) -> Self {
        let aad = format!("version {number}").into_bytes();
        let mut block =
            Self { object: number % 2, index: u64::from(number / 2 % 8), aad, sealed: Vec::new() };
        let plain = vec![number; 100 + usize::from(number)];
        block.sealed = account.seal(block.id(), Aad::new(&block.aad), &plain).unwrap();
        block
    }

    fn id(&self) -> BlockId {
        BlockId::new(ObjectId::from_bytes([self.object; 16]), self.index)
    }

    fn edited(mut self, edit: impl FnOnce(&mut Vec<u8>)) -> Self {
        edit(&mut self.sealed);
        self
    }
}

fn write(account: &Account) -> Vec<u8> {
    let options = ObjectOptions::with_block_size(BlockSize::MIN);
    let mut writer = SealedObject::writer_with(account.clone(), context(), Vec::new(), options).unwrap();
    writer.write_all(&[7; 3 * BLOCK + 9]).unwrap();
    writer.finish().unwrap().0
}

/// Opens and reads all of it; how long it was.
fn read(account: &Account, context: Context, sealed: &[u8]) -> Result<usize, Error> {
    let mut plain = Vec::new();
    SealedObject::reader(account.clone(), context, sealed)?
        .read_to_end(&mut plain)
        .map_err(|_| Error::new(ErrorKind::Corrupt, "a frame is refused"))
}

fn context() -> Context {
    Context::new(&[b"store", b"path"])
}

fn frames(sealed: &[u8]) -> Vec<Vec<u8>> {
    let layout = SealedObject::peek(sealed).unwrap().layout();
    sealed[HEADER_LEN..].chunks(layout.frame_len(BLOCK)).map(<[u8]>::to_vec).collect()
}

fn at(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len as u64)).expect("short")
}

/// At least one byte, at most `most`.
fn some(random: &mut Random, most: usize) -> Vec<u8> {
    let len = 1 + at(random, most);
    random.vec(len)
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = at(random, bytes.len());
    bytes[at] ^= random.byte();
}
