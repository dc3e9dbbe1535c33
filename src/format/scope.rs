//! The state of a data scope: which account its new data goes under, and which accounts its data may be under.
//!
//! ```text
//! state = content | MAC32
//! MAC   = HMAC(Expand(PRK, "SRS1"), "scope state" || 0 || content)
//! ```
//! PRK is of the service-managed account that the scope begins and ends with. It is parsed first, and nothing in it is
//! believed before the MAC. Byte by byte: `docs/FORMAT.md`. Imports: `format::{codec, record}`, `id`, `error`.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};
use crate::format::record::Sequence;
use crate::id::{AccountId, Generation, ScopeId};

/// What a [`Scope`](crate::store::Scope) is at one time: linked to a customer's account or not, and whose keys its data may be under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeState {
    scope: ScopeId,
    sequence: Sequence,
    service: AccountId,
    /// Of the service-managed account: the one whose key has authenticated this.
    generation: Generation,
    confirmed_within: Duration,
    /// The customers' accounts, each once, in the order in which they were first linked.
    customers: Vec<AccountId>,
    linked: Option<AccountId>,
}

impl ScopeState {
    /// How many customers' accounts a scope knows, the former ones included.
    pub const MAX_CUSTOMERS: usize = 64;

    /// The longest time for which a machine may go by a state that it has read, 60 s.
    pub const MOST_CONFIRMED_WITHIN: Duration = Duration::from_secs(60);

    /// The longest state, in bytes.
    pub(crate) const MAX_LEN: usize = CONTENT_LEN + 16 * Self::MAX_CUSTOMERS + MAC_LEN;

    /// That of a new scope.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] unless `confirmed_within` is whole seconds, 60 at most.
    pub(crate) fn first(
        scope: ScopeId,
        service: AccountId,
        generation: Generation,
        confirmed_within: Duration,
    ) -> Result<Self, Error> {
        if confirmed_within > Self::MOST_CONFIRMED_WITHIN || confirmed_within.subsec_nanos() != 0 {
            return Err(Error::new(
                ErrorKind::Misuse,
                "a scope is confirmed within whole seconds, at most 60",
            ));
        }
        let (sequence, customers, linked) = (Sequence::FIRST, Vec::new(), None);
        Ok(Self { scope, sequence, service, generation, confirmed_within, customers, linked })
    }

    /// The scope.
    #[must_use]
    pub const fn scope(&self) -> ScopeId {
        self.scope
    }

    /// Counts the changes, from 1. Note it elsewhere to notice an older state that was put back: [`ScopeBuilder::at_least`](crate::store::ScopeBuilder::at_least).
    #[must_use]
    pub const fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The service-managed account.
    #[must_use]
    pub const fn service(&self) -> AccountId {
        self.service
    }

    /// The customer's account that new data goes under; `None` while that is the service-managed one.
    #[must_use]
    pub const fn linked(&self) -> Option<AccountId> {
        self.linked
    }

    /// The account that new data goes under.
    #[must_use]
    pub fn writes_to(&self) -> AccountId {
        self.linked.unwrap_or(self.service)
    }

    /// The customers' accounts that data may be under: the linked one and former ones.
    #[must_use]
    pub fn customers(&self) -> &[AccountId] {
        &self.customers
    }

    /// How old a machine's knowledge of the state may be when it acknowledges a write.
    #[must_use]
    pub const fn confirmed_within(&self) -> Duration {
        self.confirmed_within
    }

    /// Whether data of the scope may be under `account`.
    #[must_use]
    pub fn has(&self, account: AccountId) -> bool {
        account == self.service || self.customers.contains(&account)
    }

    pub(crate) const fn generation(&self) -> Generation {
        self.generation
    }

    /// The next state, with new data under `linked`, authenticated by `generation`.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when it would be one customer too many.
    pub(crate) fn moved(&self, linked: Option<AccountId>, generation: Generation) -> Result<Self, Error> {
        let mut next = Self { sequence: self.sequence.next()?, generation, linked, ..self.clone() };
        let Some(account) = linked.filter(|account| !self.customers.contains(account)) else {
            return Ok(next);
        };
        if self.customers.len() == Self::MAX_CUSTOMERS {
            let message =
                "a scope knows at most 64 customers' accounts: seal old data anew, then forget a former one";
            return Err(Error::new(ErrorKind::Limit, message).with_account(account));
        }
        next.customers.push(account);
        Ok(next)
    }

    /// The next state, in which data under `former` is none of the scope's any more.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] after 2^64 changes.
    pub(crate) fn without(&self, former: AccountId, generation: Generation) -> Result<Self, Error> {
        let customers = self.customers.iter().copied().filter(|account| *account != former).collect();
        Ok(Self { sequence: self.sequence.next()?, generation, customers, ..self.clone() })
    }

    /// What the MAC is over.
    pub(crate) fn content(&self) -> Vec<u8> {
        let Self { scope, sequence, service, generation, confirmed_within, customers, linked } = self;
        let at = |account: &AccountId| customers.iter().position(|customer| customer == account);
        let linked = linked.as_ref().and_then(at).map_or(0, |at| at + 1);
        let mut writer = Writer::default();
        writer.put(&MAGIC);
        writer.u8(VERSION);
        writer.put(scope.as_bytes());
        writer.u64(sequence.number());
        writer.put(service.as_bytes());
        writer.u32(generation.number());
        writer.u8(u8::try_from(confirmed_within.as_secs()).expect("at most 60 s"));
        writer.u8(u8::try_from(linked).expect("at most 64 customers"));
        writer.u8(u8::try_from(customers.len()).expect("at most 64 customers"));
        customers.iter().for_each(|customer| writer.put(customer.as_bytes()));
        writer.into_bytes()
    }

    /// Takes a stored state apart: what it claims, what its MAC is over, and the MAC. Nothing is believed.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] for anything but the one encoding of a state.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, &[u8], &[u8; MAC_LEN]), Error> {
        if bytes.len() > Self::MAX_LEN {
            return Err(Error::new(ErrorKind::Format, "a scope's state is too long"));
        }
        let (content, mac) = bytes
            .split_last_chunk::<MAC_LEN>()
            .ok_or_else(|| Error::new(ErrorKind::Format, "a scope's state is truncated"))?;
        let mut reader = Reader::new(content);
        let state = Self::read(&mut reader)?;
        reader.finish()?;
        Ok((state, content, mac))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let format = |message| Error::new(ErrorKind::Format, message);
        if reader.array()? != MAGIC {
            return Err(format("not a scope's state"));
        }
        if reader.u8()? != VERSION {
            return Err(format("a scope's state of an unknown version"));
        }
        let scope = ScopeId::from_bytes(reader.array()?);
        let sequence = Sequence::new(reader.u64()?).ok_or_else(|| format("a sequence of zero"))?;
        let service = AccountId::from_bytes(reader.array()?);
        let generation = Generation::new(reader.u32()?).ok_or_else(|| format("a generation of zero"))?;
        let confirmed_within = Duration::from_secs(reader.u8()?.into());
        let (linked, count) = (usize::from(reader.u8()?), usize::from(reader.u8()?));
        if confirmed_within > Self::MOST_CONFIRMED_WITHIN || count > Self::MAX_CUSTOMERS || linked > count {
            return Err(format("a value of a scope's state is above its limit"));
        }
        let mut customers = Vec::with_capacity(count);
        for _ in 0..count {
            let customer = AccountId::from_bytes(reader.array()?);
            if customer == service || customers.contains(&customer) {
                return Err(format("a scope's state names an account twice"));
            }
            customers.push(customer);
        }
        let linked = linked.checked_sub(1).and_then(|at| customers.get(at)).copied();
        Ok(Self { scope, sequence, service, generation, confirmed_within, customers, linked })
    }
}

const MAGIC: [u8; 8] = [0x89, b'S', b'R', b'S', 0x0D, 0x0A, 0x1A, 0x0A];
const VERSION: u8 = 1;
const MAC_LEN: usize = 32;

/// Magic, version, scope, sequence, service, generation, seconds, linked, count.
const CONTENT_LEN: usize = 8 + 1 + 16 + 8 + 16 + 4 + 1 + 1 + 1;
const _: () = assert!(CONTENT_LEN == 56);

#[cfg(test)]
mod tests {
    use super::*;

    fn account(number: u8) -> AccountId {
        AccountId::from_bytes([number; 16])
    }

    fn first() -> ScopeState {
        let scope = ScopeId::from_bytes([7; 16]);
        ScopeState::first(scope, account(200), Generation::FIRST, Duration::from_secs(6)).unwrap()
    }

    fn stored(state: &ScopeState) -> Vec<u8> {
        [state.content(), vec![0; MAC_LEN]].concat()
    }

    #[test]
    fn e9_a_scopes_state_reads_back_what_it_writes() {
        let generation = Generation::new(3).unwrap();
        let linked = first().moved(Some(account(1)), generation).unwrap();
        let away = linked.moved(None, generation).unwrap();
        let again =
            away.moved(Some(account(2)), generation).unwrap().moved(Some(account(1)), generation).unwrap();
        assert_eq!(again.customers(), [account(1), account(2)]);
        assert_eq!((again.writes_to(), again.sequence().number()), (account(1), 5));
        let without = again.without(account(2), generation).unwrap();
        assert!(again.has(account(2)) && !without.has(account(2)) && without.has(account(200)));
        for state in [first(), linked, away, again, without] {
            let bytes = stored(&state);
            let (read, content, _) = ScopeState::parse(&bytes).unwrap();
            assert_eq!((&read, content), (&state, state.content().as_slice()));
        }
    }

    #[test]
    fn e9_f2_a_scope_knows_64_customers_and_no_more() {
        let generation = Generation::FIRST;
        let full = (0..64).fold(first(), |state, n| state.moved(Some(account(n)), generation).unwrap());
        assert_eq!(stored(&full).len(), ScopeState::MAX_LEN);
        assert!(ScopeState::parse(&stored(&full)).is_ok());
        assert_eq!(full.moved(Some(account(65)), generation).unwrap_err().kind(), ErrorKind::Limit);
        assert!(full.moved(Some(account(3)), generation).is_ok(), "a former one is known");
        let less = full.without(account(0), generation).unwrap();
        assert!(less.moved(Some(account(65)), generation).is_ok());
    }

    #[test]
    fn f1_f2_what_is_no_scopes_state_is_refused() {
        let state = first().moved(Some(account(1)), Generation::FIRST).unwrap();
        let good = stored(&state);
        for len in 0..good.len() {
            assert!(ScopeState::parse(&good[..len]).is_err(), "{len}");
        }
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            ScopeState::parse(&bytes).map(drop)
        };
        assert!(with(0, &[0x89]).is_ok());
        for (at, value) in [
            (0, &[0x88][..]),
            (8, &[2]),
            (25, &[0; 8]), // sequence
            (49, &[0; 4]), // generation
            (53, &[61]),   // seconds
            (54, &[2]),    // linked, of one
            (55, &[2]),    // count: one is missing
            (55, &[65]),
            (56, &[200; 16]), // the service's own
        ] {
            assert_eq!(with(at, value).unwrap_err().kind(), ErrorKind::Format, "{at}");
        }
        let twice = [&good[..55], &[2], &[1; 16], &[1; 16], &[0; MAC_LEN]].concat();
        assert!(ScopeState::parse(&twice).is_err());
        assert!(ScopeState::parse(&[&good[..], &[0]].concat()).is_err());
        assert!(ScopeState::parse(&vec![0; ScopeState::MAX_LEN + 1]).is_err());
        let odd =
            ScopeState::first(state.scope(), account(9), Generation::FIRST, Duration::from_millis(1500));
        assert_eq!(odd.unwrap_err().kind(), ErrorKind::Misuse);
    }
}
