//! What needs a record of one's own making: as many generations as there may be, and records that nobody of the account made.

use super::*;
use crate::cache::AekCache;
use crate::clock::Moment;
use crate::derive::Secrets;
use crate::expect::Expect;
use crate::format::policy::RecordPolicy;
use crate::format::record::{Custody, Sequence, VerifiedRecord};
use crate::id::{Aad, AccountId, BlockId, ObjectId};
use crate::record_store::{Loaded, MemoryRecordStore, RecordStore};
use crate::secret::MemoryLock;
use crate::testing::{Call, ManualClock, ScriptedProvider};

const ACCOUNT: AccountId = AccountId::from_bytes([9; 16]);
const CREATED: u64 = 3_600;

/// The AEK of a generation, its keys, and how a record names it.
struct Made {
    secret: [u8; 32],
    keys: GenerationKeys,
    entry: GenerationEntry,
}

fn made(account: AccountId, number: u32) -> Made {
    let (mut secret, number) = ([0; 32], Generation::new(number).unwrap());
    random::fill(&mut secret);
    let keys =
        GenerationKeys::new(account, number, Secrets::single(&secret), MemoryLock::BestEffort).unwrap();
    let created = Timestamp::from_wall_nanos(CREATED);
    let entry = GenerationEntry { number, ..GenerationEntry::first(keys.prks(), created) };
    Made { secret, keys, entry }
}

fn made_all(numbers: impl IntoIterator<Item = u32>) -> Vec<Made> {
    numbers.into_iter().map(|number| made(ACCOUNT, number)).collect()
}

/// A record whose newest generation is the first of `all`, and the rest behind it as they are given.
fn record(kms: &ScriptedProvider, all: &[Made], sequence: u64) -> RecordDraft {
    let (newest, older) = all.split_first().unwrap();
    let context = WrapContext::for_tests(ACCOUNT, newest.entry.number);
    let wrapped =
        kms.wrap(&Kek::latest(ScriptedProvider::KEK), &context, &context.input(&newest.secret)).unwrap();
    let list = older.iter().map(|made| OlderGeneration {
        entry: made.entry,
        sealed: newest.keys.seal_older(made.entry.number, Secrets::single(&made.secret)).unwrap(),
    });
    let before = older.first().unwrap_or(newest).keys.prks();
    RecordDraft {
        account: ACCOUNT,
        sequence: Sequence::new(sequence).unwrap(),
        created: Timestamp::from_wall_nanos(CREATED),
        state: RecordState::Active,
        policy: RecordPolicy::default(),
        custody: Custody::Single(Slot { wrapped, standby: None }),
        newest: newest.entry,
        outer: None,
        older: OlderGenerations::linked(ACCOUNT, &newest.entry, list.collect(), before),
    }
}

fn sealed(draft: RecordDraft, newest: &Made) -> VerifiedRecord {
    draft.seal(newest.keys.prks()).unwrap()
}

struct World {
    kms: ScriptedProvider,
    cache: AekCache,
    store: Arc<MemoryRecordStore>,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        let cache = AekCache::builder().refresh_every(Duration::from_secs(6)).manual(&clock).build().unwrap();
        Self { kms, cache, store: Arc::default() }
    }

    fn put(&self, record: &AccountRecord) {
        let tag = match self.store.load(ACCOUNT, None).unwrap() {
            Loaded::Found { tag, .. } => Some(tag),
            _ => None,
        };
        self.store.compare_and_swap(ACCOUNT, tag.as_ref(), &record.to_bytes()).unwrap();
    }

    fn attach(&self) -> Account {
        let expect = Expect::account(ACCOUNT).kek(Arc::new(self.kms.clone()), ScriptedProvider::KEK);
        let account = self.cache.attach_stored(Arc::clone(&self.store) as _, expect).unwrap();
        self.cache.drive();
        account
    }
}

/// A block under each generation, as another machine has sealed it once.
fn block(made: &Made) -> (BlockId, Vec<u8>) {
    use crate::block::Place;
    use crate::format::frame;
    let id = BlockId::new(ObjectId::random(), 3);
    let place = Place::block(id, Aad::EMPTY);
    let mut data = *b"sealed once";
    let head = made.keys.fresh_head(&place, Moment::from_nanos(0, 0));
    let tags = made.keys.seal_in_place(&place, &head, &mut data).unwrap();
    let mut out = vec![0; frame::head_len(crate::derive::Kind::Block)];
    head.write(&mut out);
    out.extend_from_slice(&data);
    out.extend_from_slice(&tags.last.0);
    (id, out)
}

#[test]
fn e4_p12_256_older_generations_cost_one_unwrap_and_are_the_most() {
    let world = World::new();
    let all = made_all((1..=257).rev());
    world.put(sealed(record(&world.kms, &all, 1), &all[0]).record());
    world.kms.clear_log();
    let account = world.attach();
    assert_eq!((world.kms.calls(Call::Unwrap), world.kms.log().len()), (1, 1));
    for made in &all {
        let (id, frame) = block(made);
        assert_eq!(account.open(id, Aad::EMPTY, &frame).unwrap(), b"sealed once", "{:?}", made.entry.number);
    }
    assert_eq!(account.rotate_aek().unwrap_err().kind(), ErrorKind::Limit);
    // They are old enough to go.
    account.destroy_generation(Generation::FIRST, NothingRefersToIt::as_the_engine_states()).unwrap();
    assert_eq!(account.rotate_aek().unwrap().generation.number(), 258);
}

#[test]
fn e4_a8_older_aeks_that_are_not_the_ones_named_are_not_adopted() {
    type Edit = fn(&mut RecordDraft, &[Made]);
    let edits: [(&str, Edit); 7] = [
        ("sealed for another generation", |draft, _| {
            let sealed = draft.older.list[1].sealed.clone();
            draft.older.list[0].sealed = sealed;
        }),
        ("another AEK under the name", |draft, all| {
            let secret = Secrets::single(&all[0].secret);
            draft.older.list[0].sealed =
                all[0].keys.seal_older(draft.older.list[0].entry.number, secret).unwrap();
        }),
        ("of another account", |draft, all| {
            let other = made(AccountId::from_bytes([8; 16]), all[0].entry.number.number());
            let number = draft.older.list[0].entry.number;
            draft.older.list[0].sealed =
                other.keys.seal_older(number, Secrets::single(&all[1].secret)).unwrap();
        }),
        ("a flipped bit", |draft, _| draft.older.list[1].sealed[30] ^= 1),
        ("cut short", |draft, _| draft.older.list[1].sealed.truncate(71)),
        ("no word of the one before", |draft, _| draft.older.link = Some([0; 32])),
        ("the word of another one", |draft, all| {
            let list = draft.older.list.clone();
            draft.older = OlderGenerations::linked(ACCOUNT, &draft.newest, list, all[2].keys.prks());
        }),
    ];
    for (what, edit) in edits {
        let world = World::new();
        let all = made_all([3, 2, 1]);
        let mut draft = record(&world.kms, &all, 1);
        edit(&mut draft, &all);
        // Whoever can have the KMS wrap can make a record that is authentic under an AEK of theirs.
        world.put(sealed(draft, &all[0]).record());
        let account = world.attach();
        assert_eq!(account.permit().unwrap_err().kind(), ErrorKind::Unavailable, "{what}");
        assert_eq!(account.last_failure().unwrap().kind(), ErrorKind::Untrusted, "{what}");
    }
    let world = World::new();
    let all = made_all([3, 2, 1]);
    world.put(sealed(record(&world.kms, &all, 1), &all[0]).record());
    assert!(world.attach().permit().is_ok(), "unedited it is adopted");
}

#[test]
fn e4_a8_a_process_follows_to_no_generation_that_was_made_without_its_key() {
    let all = made_all([3, 2, 1]);
    let [newest, middle, first] = &all[..] else { unreachable!() };
    let stranger = made(ACCOUNT, 2);
    let impostor = Made { secret: stranger.secret, keys: made(ACCOUNT, 2).keys, entry: middle.entry };
    type Next<'a> = (&'static str, Vec<&'a Made>, bool);
    let cases: [Next<'_>; 7] = [
        ("the next", vec![middle, first], true),
        ("two rotations later", vec![newest, middle, first], true),
        ("the one between destroyed", vec![newest, first], true),
        ("a stranger's, without the one in use", vec![&stranger], false),
        ("the one in use destroyed", vec![newest, middle], false),
        ("the same number with another key", vec![newest, &stranger], false),
        ("its name over another AEK", vec![newest, &impostor, first], false),
    ];
    for (what, chain, follows) in cases {
        let world = World::new();
        let before = [made_again(first)];
        world.put(sealed(record(&world.kms, &before, 1), first).record());
        let account = world.attach();
        let (id, frame) = block(first);
        assert!(account.open(id, Aad::EMPTY, &frame).is_ok());
        let chain: Vec<Made> = chain.into_iter().map(made_again).collect();
        let next = record(&world.kms, &chain, 2);
        world.put(sealed(next, &chain[0]).record());
        world.cache.run_for(Duration::from_secs(12));
        assert_eq!(account.record().generation() == chain[0].entry.number, follows, "{what}");
        if !follows {
            assert_eq!(account.last_failure().unwrap().kind(), ErrorKind::Untrusted, "{what}");
            assert!(account.open(id, Aad::EMPTY, &frame).is_ok(), "{what}: its own key until the lease ends");
        }
    }
}

fn made_again(made: &Made) -> Made {
    let number = made.keys.generation();
    let keys =
        GenerationKeys::new(ACCOUNT, number, Secrets::single(&made.secret), MemoryLock::BestEffort).unwrap();
    Made { secret: made.secret, keys, entry: made.entry }
}

#[test]
fn f1_f2_generations_out_of_order_or_too_many_are_malformed() {
    let kms = ScriptedProvider::on_virtual_time();
    for numbers in [vec![3, 1, 2], vec![2, 2], vec![2, 3], (1..=258).rev().collect()] {
        let all = made_all(numbers.iter().copied());
        let error = record(&kms, &all, 1).seal(all[0].keys.prks()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{numbers:?}: it does not read back");
    }
    let all = made_all([3, 2, 1]);
    let bytes = sealed(record(&kms, &all, 1), &all[0]).record().to_bytes();
    for len in 0..bytes.len() {
        assert_eq!(AccountRecord::parse(&bytes[..len]).unwrap_err().kind(), ErrorKind::Format);
    }
    assert_eq!(AccountRecord::parse(&bytes).unwrap().to_bytes(), bytes);
}

#[test]
fn f5_r4_every_flipped_bit_of_a_record_with_older_generations_is_refused() {
    let kms = ScriptedProvider::on_virtual_time();
    let all = made_all([3, 2, 1]);
    let bytes = sealed(record(&kms, &all, 1), &all[0]).record().to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let believed = AccountRecord::parse(&flipped).and_then(|record| record.verify(all[0].keys.prks()));
        assert!(believed.is_err(), "bit {bit}");
    }
}
