//! What every record store has to hold, for tests of stores of your own: each function fails by a panic.
//!
//! Imports: `record_store`, `format::{record, tombstone}`, `id`, `error`.

use std::collections::BTreeSet;
use std::thread;

use crate::error::{Error, ErrorKind};
use crate::format::record::{Sequence, Timestamp};
use crate::format::tombstone::{Purged, Tombstone};
use crate::id::AccountId;
use crate::record_store::archive::{RecordArchive, RecordCursor};
use crate::record_store::{Loaded, RecordStore, RecordTag};

/// Creates, loads and replaces, each only on what was seen (contract G2).
///
/// ```
/// use strongroom::MemoryRecordStore;
/// use strongroom::testing::record_stores;
///
/// record_stores::replaces_only_what_was_seen(&MemoryRecordStore::new());
/// ```
///
/// # Panics
/// When the store does otherwise.
pub fn replaces_only_what_was_seen(store: &dyn RecordStore) {
    let account = AccountId::random();
    assert_eq!(store.load(account, None).expect("is asked"), Loaded::Absent);
    // A tag that this very store gave, of another record.
    let other = AccountId::random();
    let stale = store.compare_and_swap(other, None, b"of another account").expect("is created");
    assert_conflict(store.compare_and_swap(account, Some(&stale), b"one"));
    assert_eq!(store.load(account, Some(&stale)).expect("is asked"), Loaded::Absent);

    let one = store.compare_and_swap(account, None, b"one").expect("is created");
    assert_eq!(store.load(account, Some(&one)).expect("is asked"), Loaded::Unchanged);
    let found = Loaded::Found { bytes: b"one".to_vec(), tag: one.clone() };
    assert_eq!(store.load(account, None).expect("is asked"), found);
    assert_eq!(store.load(account, Some(&stale)).expect("is asked"), found);
    assert_conflict(store.compare_and_swap(account, None, b"two"));
    assert_conflict(store.compare_and_swap(account, Some(&stale), b"two"));
    assert_eq!(store.load(account, None).expect("is asked"), found, "a conflict writes nothing");

    let two = store.compare_and_swap(account, Some(&one), b"two").expect("is replaced");
    assert_ne!(one, two);
    assert_conflict(store.compare_and_swap(account, Some(&one), b"three"));
    // A rival who wrote the same bytes has won all the same.
    assert_conflict(store.compare_and_swap(account, Some(&one), b"two"));
    let found = Loaded::Found { bytes: b"two".to_vec(), tag: two };
    assert_eq!(store.load(account, Some(&one)).expect("is asked"), found);
    assert_eq!(store.load(AccountId::random(), None).expect("is asked"), Loaded::Absent);
}

/// Eight threads add one, again and again, and retry after a conflict (contract G2).
///
/// # Panics
/// When an update is lost.
pub fn loses_no_update_of_8_threads(store: &dyn RecordStore) {
    let account = AccountId::random();
    store.compare_and_swap(account, None, &0_u64.to_be_bytes()).expect("is created");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..ADDED_BY_EACH).for_each(|_| add_one(store, account)));
        }
    });
    assert_eq!(count(&store.load(account, None).expect("is asked")), 8 * ADDED_BY_EACH);
}

/// Adds one to the number that is in the place of `account`'s record, and retries after each conflict.
///
/// # Panics
/// When there is no number, or the store fails.
pub fn add_one(store: &dyn RecordStore, account: AccountId) {
    loop {
        let loaded = store.load(account, None).expect("is asked");
        let Loaded::Found { tag, .. } = &loaded else { panic!("it was created") };
        match store.compare_and_swap(account, Some(tag), &(count(&loaded) + 1).to_be_bytes()) {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}

/// The number that [`add_one`] adds to.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn count(loaded: &Loaded) -> u64 {
    let Loaded::Found { bytes, .. } = loaded else { panic!("it was created") };
    u64::from_be_bytes(bytes.as_slice().try_into().expect("whole"))
}

/// Lists every account once, in order, from anywhere, and a cursor gives each change (contract G2). `store` is empty.
///
/// # Panics
/// When the store does otherwise.
pub fn lists_its_accounts(store: &dyn RecordArchive) {
    let mut cursor = RecordCursor::new();
    assert_eq!(cursor.changes(store).expect("is listed"), []);
    let accounts: BTreeSet<AccountId> = (0..5).map(|_| AccountId::random()).collect();
    let accounts: Vec<AccountId> = accounts.into_iter().collect();
    for account in accounts.iter().rev() {
        store.compare_and_swap(*account, None, b"one").expect("is created");
    }
    let list = |after| {
        let listed = store.list(after).expect("is listed").into_iter();
        listed.map(|listed| listed.account).collect::<Vec<_>>()
    };
    assert_eq!(list(None), accounts);
    assert_eq!(list(Some(accounts[2])), accounts[3..]);
    assert_eq!(list(Some(accounts[4])), []);

    assert_eq!(cursor.changes(store).expect("is listed"), accounts);
    for _ in 0..2 {
        assert_eq!(cursor.changes(store).expect("is listed"), [], "nothing has changed");
    }
    for account in [accounts[1], accounts[4]] {
        let Loaded::Found { tag, .. } = store.load(account, None).expect("is asked") else {
            panic!("it was created")
        };
        store.compare_and_swap(account, Some(&tag), b"two").expect("is replaced");
    }
    let new = AccountId::random();
    store.compare_and_swap(new, None, b"one").expect("is created");
    let mut changed = vec![accounts[1], accounts[4], new];
    changed.sort_unstable();
    assert_eq!(cursor.changes(store).expect("is listed"), changed);
    assert_eq!(cursor.changes(store).expect("is listed"), []);
    cursor.forget(accounts[0]);
    assert_eq!(cursor.changes(store).expect("is listed"), [accounts[0]]);
}

/// Keeps each record that was written, the last `most` of them (contract E10). What it writes are no records.
///
/// # Panics
/// When the store does otherwise.
pub fn keeps_what_was_replaced(store: &dyn RecordArchive, most: usize) {
    let account = AccountId::random();
    assert_eq!(store.history(account).expect("is listed"), []);
    let mut tag = None;
    for number in 0..most {
        tag = Some(
            store
                .compare_and_swap(account, tag.as_ref(), &[0xA0, number.to_le_bytes()[0]])
                .expect("is written"),
        );
    }
    let kept = store.history(account).expect("is listed");
    let mut bytes: Vec<_> =
        kept.iter().map(|kept| store.load_kept(account, *kept).expect("is kept")).collect();
    bytes.sort_unstable();
    let written: Vec<_> = (0..most).map(|number| vec![0xA0, number.to_le_bytes()[0]]).collect();
    assert_eq!(bytes, written);
    // Which of them go is left to chance where nothing tells their order. That three stay through 200 more is one case in a million.
    let mut dropped = None;
    for number in 0..200 {
        tag = Some(store.compare_and_swap(account, tag.as_ref(), &[0xB0, number]).expect("is written"));
        let after = store.history(account).expect("is listed");
        assert_eq!(after.len(), most, "no more than that are kept");
        dropped = kept.iter().find(|kept| !after.contains(kept));
        if number >= 2 && dropped.is_some() {
            break;
        }
    }
    let dropped = dropped.expect("one had to go");
    let error = store.load_kept(account, *dropped).expect_err("is gone");
    assert_eq!(error.kind(), ErrorKind::Misuse, "{error}");
    assert_eq!(store.history(AccountId::random()).expect("is listed"), []);
    let listed = store.list(None).expect("is listed");
    assert!(listed.iter().any(|listed| listed.account == account), "history hides no account");
}

/// Destroys all that it keeps of an account beside its newest record or its tombstone (contracts E4, E7).
///
/// # Panics
/// When the store does otherwise.
pub fn destroys_what_it_keeps(store: &dyn RecordArchive) {
    let (account, other) = (AccountId::random(), AccountId::random());
    let one = store.compare_and_swap(account, None, b"one").expect("is created");
    store.compare_and_swap(other, None, b"of another").expect("is created");
    let two = store.compare_and_swap(account, Some(&one), b"two").expect("is replaced");
    let kept = store.history(account).expect("is listed");
    assert_eq!(kept.len(), 2);
    store.destroy_kept(account).expect("a live one's too");
    store.destroy_kept(AccountId::random()).expect("of an account that is not there nothing");
    assert_eq!(store.history(account).expect("is listed"), []);
    assert_eq!(store.load(account, Some(&two)).expect("is asked"), Loaded::Unchanged, "the newest one stays");

    let purged_at = Timestamp::from_wall_nanos(0);
    let (sequence, reason) = (Sequence::FIRST, Purged::Shredded);
    let tombstone = Tombstone { account, sequence, purged_at, reason }.to_bytes();
    let tag = store.compare_and_swap(account, Some(&two), &tombstone).expect("is replaced");
    for _ in 0..2 {
        store.destroy_kept(account).expect("is purged");
        assert_eq!(store.history(account).expect("is listed"), []);
    }
    for kept in kept {
        assert_eq!(store.load_kept(account, kept).expect_err("is gone").kind(), ErrorKind::Misuse);
    }
    assert_eq!(store.load(account, Some(&tag)).expect("is asked"), Loaded::Unchanged, "the tombstone stays");
    assert_conflict(store.compare_and_swap(account, Some(&two), b"three"));
    assert_conflict(store.compare_and_swap(account, None, b"three"));
    assert_eq!(store.history(account).expect("is listed"), [], "who lost against a purge leaves nothing");
    assert_eq!(store.history(other).expect("is listed").len(), 1, "of others nothing is destroyed");
}

fn assert_conflict(outcome: Result<RecordTag, Error>) {
    assert_eq!(outcome.expect_err("conflict").kind(), ErrorKind::Conflict);
}

const ADDED_BY_EACH: u64 = 20;
