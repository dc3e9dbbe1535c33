//! Account records to attack: of each custody, what a reader believes, and forgeries of their own.

use std::sync::Arc;

use super::{HeldBy, at, flip};
use crate::cache::AccountSpec;
use crate::derive::{Prks, Secrets};
use crate::differential_tests::Random;
use crate::error::Error;
use crate::format::policy::RecordPolicy;
use crate::format::record::{
    AccountRecord, Custody, GenerationEntry, Held, Limit, OlderGenerations, RecordDraft, RecordState,
    Sequence, Slot, Standing, Terms, Timestamp, VerifiedRecord,
};
use crate::id::{AccountId, Generation, Suite};
use crate::provider::{Kek, KeyProvider, WrapContext, WrapRole};
use crate::secret::MemoryLock;
use crate::testing::ScriptedProvider;

/// Four records of an account, each the successor of the one before it, and the key that authenticates them.
pub(super) fn all(
    kms: &ScriptedProvider,
    account: AccountId,
    suite: Suite,
    held: HeldBy,
) -> (Vec<VerifiedRecord>, Prks) {
    let mut secrets = [[0; 32]; 3];
    secrets.iter_mut().for_each(|secret| crate::random::fill(secret));
    let [secret, share, outer] = secrets;
    let double = suite == Suite::Double;
    let inner = if held == HeldBy::BothOfTwo { [secret, share].concat() } else { secret.to_vec() };
    let both = Secrets { inner: &inner, outer: double.then_some(&outer) };
    let prk = Prks::extract(account, Generation::FIRST, both, MemoryLock::BestEffort).unwrap();
    let wrap = |kek: &str, role, share, secret: &[u8; 32]| {
        let context = WrapContext::new(account, Generation::FIRST, suite, role).with_share(share);
        let wrapped = kms.wrap(&Kek::latest(kek), &context, &context.input(secret)).unwrap();
        Slot { wrapped, standby: None }
    };
    let inner = |kek, share, secret| wrap(kek, WrapRole::Inner, share, secret);
    let created = Timestamp::from_wall_nanos(1_790_000_000_000_000_000);
    let draft = RecordDraft {
        account,
        sequence: Sequence::FIRST,
        created,
        state: RecordState::Active,
        policy: RecordPolicy::default(),
        custody: match held {
            HeldBy::One => Custody::Single(inner("orders", 0, &secret)),
            HeldBy::EitherOfTwo => Custody::Failover {
                first: inner("orders", 0, &secret),
                second: inner("others", 0, &secret),
                terms: Terms {
                    limit: Limit::new(AccountSpec::FAILOVER_LIMIT).unwrap(),
                    confirmed: created,
                    standing: Standing::UNSEALED,
                },
            },
            HeldBy::BothOfTwo => {
                Custody::Joint { first: inner("orders", 1, &secret), second: inner("others", 2, &share) }
            }
        },
        newest: GenerationEntry::first(&prk, created),
        outer: double.then(|| Custody::Single(wrap("second", WrapRole::Outer, 0, &outer))),
        older: OlderGenerations::default(),
    };
    let mut records = vec![draft.seal(&prk).unwrap()];
    for _ in 0..3 {
        let next = records.last().unwrap().successor().unwrap();
        records.push(next.seal(&prk).unwrap());
    }
    (records, prk)
}

/// Believes a record by what the holders of these secrets give out.
pub(super) fn believe_by(
    providers: &[Arc<dyn KeyProvider>],
    record: &AccountRecord,
    held: &[Held<'_>],
) -> Result<VerifiedRecord, Error> {
    let (mut inner, mut outer) = (Vec::new(), None);
    for held in held {
        let input = providers[held.at].unwrap(&held.slot.wrapped, &held.context);
        let input = input.map_err(|_| Error::corrupt())?;
        let secret = *input.secret_for(&held.context).ok_or_else(Error::corrupt)?;
        match held.context.role() {
            WrapRole::Outer => outer = Some(secret),
            _ => inner.extend(secret),
        }
    }
    let secrets = Secrets { inner: &inner, outer: outer.as_ref() };
    let prks = Prks::extract(record.account(), record.generation(), secrets, MemoryLock::BestEffort)?;
    record.clone().verify(&prks)
}

/// Exchanges the two KEKs of a record, leaves one out, or names another custody. Flips a bit where there is one KEK.
pub(super) fn exchange_keks(bytes: &mut Vec<u8>, random: &mut Random) {
    let slots = slots(bytes);
    let (first, second) = (slots[0], slots.get(1).copied().unwrap_or(0));
    if bytes[first - 1] == 1 {
        return flip(bytes, random);
    }
    let len = second - first;
    match random.below(3) {
        0 => bytes[first..second + len].rotate_left(len),
        1 => {
            bytes[first - 1] = 1;
            bytes.drain(second..second + len);
        }
        _ => bytes[first - 1] = 5 - bytes[first - 1],
    }
}

/// What the record of a refusal is forged from: itself, the record that it follows, and the one that follows that without a refusal.
/// Anyone can make the record of a refusal, and nobody one that takes it back. Where there is none, a flip.
pub(super) fn forge_standing(records: &[VerifiedRecord], random: &mut Random) -> Vec<u8> {
    let one = at(random, 3);
    let [this, next] = [one, one + 1].map(|at| records[at].record());
    let barred = this.barred();
    let [this, next] = [this, next].map(AccountRecord::to_bytes);
    let mut forged = barred.as_ref().unwrap_or(records[one].record()).to_bytes();
    let (end, mac) = (next.len() - 32, forged.len() - 32);
    match random.below(4) {
        0 if barred.is_some() => [&next[..end], &forged[mac..]].concat(),
        1 if barred.is_some() => [&forged[..mac], &next[end..]].concat(),
        2 if barred.is_some() => {
            let flag = (33..mac).find(|at| this[*at] != forged[*at]).expect("the flag differs");
            [&forged[..flag], &[0], &this[flag + 1..flag + 33], &forged[flag + 1..]].concat()
        }
        _ => {
            flip(&mut forged, random);
            forged
        }
    }
}

/// Where the slots of a record begin: all name one provider, in as many bytes.
fn slots(bytes: &[u8]) -> Vec<usize> {
    let kek = AccountRecord::parse(bytes).expect("is genuine").kek().as_str().to_owned();
    let provider = kek.split("://").next().expect("has one").as_bytes();
    let begins = |at: &usize| {
        bytes[*at..].starts_with(&[0, u8::try_from(provider.len()).expect("short")])
            && bytes[at + 2..].starts_with(provider)
            && bytes.get(at + 2 + provider.len()) == Some(&0)
    };
    (61..bytes.len() - 32).filter(begins).collect()
}
