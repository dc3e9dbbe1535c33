//! What the embedder expects of a record, compared before anything of it is used (contract A8).
//!
//! Whoever can replace a record must not be able to send our credentials to an endpoint of theirs, nor to have new data
//! sealed under a key of theirs. So a record is compared with this before any call to a KMS. Imports:
//! `format::record`, `provider`, `id`, `error`.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::format::record::{AccountRecord, Custody, KeyFingerprint, Sequence};
use crate::id::{AccountId, Generation};
use crate::provider::{KekUri, KeyProvider};

/// The account, the KEKs that may wrap its AEK, and what else the embedder knows.
///
/// Names at least one KEK. A record that comes from an untrusted store can be an old one of the same account: note
/// the sequence of [`AccountRecord`] elsewhere and demand it with [`Self::least_sequence`], or rollback goes
/// unseen until a process that knows a newer one looks (contract F6).
///
/// ```
/// use std::sync::Arc;
/// use strongroom::{AccountId, Expect, Sequence, provider::KeyProvider};
///
/// fn expected(account: AccountId, kms: Arc<dyn KeyProvider>, last_seen: Sequence) -> Expect {
///     Expect::account(account).kek(kms, "orders").least_sequence(last_seen)
/// }
/// ```
#[derive(Clone)]
#[must_use = "an expectation does nothing until a record is attached with it"]
pub struct Expect {
    account: AccountId,
    keks: Vec<AllowedKek>,
    generation: Option<Generation>,
    fingerprint: Option<KeyFingerprint>,
    least_sequence: Option<Sequence>,
    trust_record_store_with_public_wrap: bool,
}

#[derive(Clone)]
struct AllowedKek {
    provider: Arc<dyn KeyProvider>,
    name: Box<str>,
    role: Role,
}

/// What a KEK may wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    First,
    Failover,
    Joint,
    Outer,
}

impl Expect {
    /// A record of exactly this account.
    pub const fn account(account: AccountId) -> Self {
        Self {
            account,
            keks: Vec::new(),
            generation: None,
            fingerprint: None,
            least_sequence: None,
            trust_record_store_with_public_wrap: false,
        }
    }

    /// The account that is expected.
    #[must_use]
    pub const fn expected_account(&self) -> AccountId {
        self.account
    }

    /// Allows the KEK called `name` at `provider`. Call it again to allow another one.
    pub fn kek(self, provider: Arc<dyn KeyProvider>, name: impl Into<String>) -> Self {
        self.allow(Role::First, provider, name.into())
    }

    /// The AEK is under failover custody, and its second KEK is the one called `name` at `provider`. Call it again to allow another one.
    ///
    /// Without it a record of failover custody is not admitted; with it no other one is. So whoever can replace the record cannot
    /// have a second KEK, of theirs, stand in for the customer's (contract A7).
    pub fn failover_kek(self, provider: Arc<dyn KeyProvider>, name: impl Into<String>) -> Self {
        self.allow(Role::Failover, provider, name.into())
    }

    /// The AEK is under joint custody, and its second share is wrapped by the KEK called `name` at `provider`. Call it again to allow
    /// another one.
    ///
    /// Without it a record of joint custody is not admitted; with it no other one is. So whoever can use the first KEK, and
    /// can replace the record, cannot have new data sealed under that one alone (contract A7).
    pub fn joint_kek(self, provider: Arc<dyn KeyProvider>, name: impl Into<String>) -> Self {
        self.allow(Role::Joint, provider, name.into())
    }

    /// The account is under double encryption, and its second AEK is wrapped by the KEK called `name` at `provider`. Call it again
    /// to allow another one.
    ///
    /// Without it a record of double encryption is not admitted; with it no other one is. So whoever can use the first KEK, and
    /// can replace the record, cannot have new data sealed under that one alone (contract A6).
    pub fn outer_kek(self, provider: Arc<dyn KeyProvider>, name: impl Into<String>) -> Self {
        self.allow(Role::Outer, provider, name.into())
    }

    /// The newest generation is exactly this one.
    pub const fn generation(mut self, generation: Generation) -> Self {
        self.generation = Some(generation);
        self
    }

    /// The AEK of the newest generation, or of one before it, is exactly the one of this fingerprint, under double encryption both: whoever made a
    /// newer one held that one. Note the newest again before the one that is noted is destroyed.
    pub const fn fingerprint(mut self, fingerprint: KeyFingerprint) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// The record is this one or a later one.
    pub const fn least_sequence(mut self, sequence: Sequence) -> Self {
        self.least_sequence = Some(sequence);
        self
    }

    /// The record is the one of `sequence` or a later one: what this process has seen is not to be taken back.
    pub(crate) fn raise_least_sequence(&mut self, sequence: Sequence) {
        self.least_sequence = self.least_sequence.max(Some(sequence));
    }

    /// The same without a least sequence, and that apart.
    pub(crate) fn split_least_sequence(mut self) -> (Self, Option<Sequence>) {
        let least = self.least_sequence.take();
        (self, least)
    }

    /// Accepts any AEK that a provider unwraps, also where its wraps prove nothing.
    ///
    /// Wraps made with a public key (RSA-OAEP) can be made by anyone. Whoever can replace the record can then have
    /// new data sealed under an AEK that they know. Say this only where the record store is as trustworthy as
    /// the process; [`Self::fingerprint`] is the better answer.
    pub const fn trust_record_store_with_public_wrap(mut self) -> Self {
        self.trust_record_store_with_public_wrap = true;
        self
    }

    /// Which providers to ask to unwrap what `record` carries, if the record is as expected: that of the AEK, then, under failover or
    /// joint custody, that of its second KEK, and then, under double encryption, that of the second AEK. Asks no KMS.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] when the record is of another account, KEK, generation or key, or too old; the message
    /// says what differs. [`ErrorKind::Misuse`] when this names no KEK, or when a provider's wraps prove
    /// nothing and neither a fingerprint nor [`Self::trust_record_store_with_public_wrap`] was given.
    pub fn admit(&self, record: &AccountRecord) -> Result<Vec<Arc<dyn KeyProvider>>, Error> {
        let providers = self.admit_next(record)?;
        match self.fingerprint.filter(|fingerprint| !record.names(*fingerprint)) {
            Some(fingerprint) => {
                Err(self.untrusted("the record is of another key", record.fingerprint(), fingerprint))
            }
            None => Ok(providers),
        }
    }

    /// The same of a record that will be believed only as what follows one that was: by whom that one's AEK was held. So the AEK that is
    /// expected by its fingerprint can be destroyed one day.
    ///
    /// # Errors
    /// As [`Self::admit`], but for the fingerprint.
    pub(crate) fn admit_next(&self, record: &AccountRecord) -> Result<Vec<Arc<dyn KeyProvider>>, Error> {
        let Self {
            account,
            keks: _,
            generation,
            fingerprint,
            least_sequence,
            trust_record_store_with_public_wrap,
        } = self;
        if record.account() != *account {
            return Err(self.untrusted("the record is of another account", record.account(), account));
        }
        if !self.allows_any(Role::First) {
            return Err(self.misuse("Expect names no KEK: call Expect::kek"));
        }
        let mut providers = vec![self.provider_for(record.kek(), Role::First)?];
        let expected = match (self.allows_any(Role::Failover), self.allows_any(Role::Joint)) {
            (false, false) => SINGLE,
            (true, false) => FAILOVER,
            (false, true) => JOINT,
            (true, true) => return Err(self.misuse("custody is failover or joint, and not both")),
        };
        let (found, seconds) = match record.custody() {
            Custody::Single(_) => (SINGLE, None),
            Custody::Failover { second, .. } => (FAILOVER, Some((second, Role::Failover))),
            Custody::Joint { second, .. } => (JOINT, Some((second, Role::Joint))),
        };
        if found != expected {
            return Err(self.untrusted("the record is of another custody", found, expected));
        }
        if let Some((second, role)) = seconds {
            providers.push(self.provider_for(second.wrapped.kek(), role)?);
        }
        match record.outer_kek() {
            Some(_) if !self.allows_any(Role::Outer) => {
                return Err(self.untrusted("the record is of double encryption", "two KEKs", "one"));
            }
            Some(outer) => providers.push(self.provider_for(outer, Role::Outer)?),
            None if !self.allows_any(Role::Outer) => {}
            None => {
                return Err(self.untrusted("the record is not of double encryption", "one KEK", "two"));
            }
        }
        if let Some(least) = least_sequence.filter(|least| record.sequence() < *least) {
            return Err(self.untrusted("the record is older than expected", record.sequence(), least));
        }
        if let Some(generation) = generation.filter(|generation| record.generation() != *generation) {
            return Err(self.untrusted(
                "the record is of another generation",
                record.generation(),
                generation,
            ));
        }
        let proven = providers.iter().all(|provider| provider.wrap_is_authentic()) || fingerprint.is_some();
        if !proven && !trust_record_store_with_public_wrap {
            return Err(self.misuse(
                "anyone can make a wrap for this provider: expect the key's fingerprint, or call \
                 trust_record_store_with_public_wrap",
            ));
        }
        Ok(providers)
    }

    fn allow(mut self, role: Role, provider: Arc<dyn KeyProvider>, name: String) -> Self {
        // With no room for more: each account of a fleet keeps these, and one is the usual number.
        self.keks.reserve_exact(1);
        self.keks.push(AllowedKek { provider, name: name.into(), role });
        self
    }

    fn allowed(&self, role: Role) -> impl Iterator<Item = &AllowedKek> {
        self.keks.iter().filter(move |kek| kek.role == role)
    }

    fn allows_any(&self, role: Role) -> bool {
        self.allowed(role).next().is_some()
    }

    fn provider_for(&self, kek: &KekUri, role: Role) -> Result<Arc<dyn KeyProvider>, Error> {
        let mut allowed = String::new();
        for AllowedKek { provider, name, role: _ } in self.allowed(role) {
            let uri = provider
                .authority()
                .uri_of(name)
                .map_err(|error| error.into_error().with_account(self.account))?;
            if uri == *kek {
                return Ok(Arc::clone(provider));
            }
            if !allowed.is_empty() {
                allowed.push_str(" or ");
            }
            allowed.push_str(uri.as_str());
        }
        Err(self.untrusted("the record names another KEK", kek, &allowed))
    }

    fn untrusted(
        &self,
        message: &'static str,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Error {
        Error::new(ErrorKind::Untrusted, message)
            .with_account(self.account)
            .with_detail(format!("found {found}, expected {expected}"))
    }

    const fn misuse(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Misuse, message).with_account(self.account)
    }
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            account,
            keks: _,
            generation,
            fingerprint,
            least_sequence,
            trust_record_store_with_public_wrap,
        } = self;
        let names = |role| -> Vec<&str> { self.allowed(role).map(|kek| &*kek.name).collect() };
        f.debug_struct("Expect")
            .field("account", account)
            .field("keks", &names(Role::First))
            .field("failover_keks", &names(Role::Failover))
            .field("joint_keks", &names(Role::Joint))
            .field("outer_keks", &names(Role::Outer))
            .field("generation", generation)
            .field("fingerprint", fingerprint)
            .field("least_sequence", least_sequence)
            .field("trust_record_store_with_public_wrap", trust_record_store_with_public_wrap)
            .finish()
    }
}

const SINGLE: &str = "one KEK";
const FAILOVER: &str = "failover";
const JOINT: &str = "joint";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::sealed_by;
    use crate::provider::{Authority, Kek, KekInfo, ProviderError, WrapContext, WrapInput, Wrapped};

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

    /// A KMS that must not be called.
    #[derive(Debug)]
    struct Untouchable {
        provider: &'static str,
        endpoint: &'static str,
        authentic: bool,
    }

    impl KeyProvider for Untouchable {
        fn wrap(&self, _: &Kek, _: &WrapContext, _: &WrapInput) -> Result<Wrapped, ProviderError> {
            unreachable!("no KMS call before the record is admitted")
        }

        fn unwrap(&self, _: &Wrapped, _: &WrapContext) -> Result<WrapInput, ProviderError> {
            unreachable!("no KMS call before the record is admitted")
        }

        fn describe(&self, _: &Kek) -> Result<KekInfo, ProviderError> {
            unreachable!("no KMS call before the record is admitted")
        }

        fn authority(&self) -> Authority {
            Authority::new(self.provider, self.endpoint)
        }

        fn wrap_is_authentic(&self) -> bool {
            self.authentic
        }
    }

    fn kms(provider: &'static str, endpoint: &'static str) -> Arc<dyn KeyProvider> {
        Arc::new(Untouchable { provider, endpoint, authentic: true })
    }

    fn record() -> AccountRecord {
        sealed_by(ACCOUNT, &KekUri::new("local://abc/orders").unwrap(), Sequence::new(5).unwrap())
    }

    fn expecting() -> Expect {
        Expect::account(ACCOUNT).kek(kms("local", "abc"), "orders")
    }

    fn refused(expect: &Expect, why: &str) {
        let error = expect.admit(&record()).expect_err(why);
        assert_eq!((error.kind(), error.account()), (ErrorKind::Untrusted, Some(expect.account)));
        let text = error.to_string();
        assert!(text.contains(why) && text.contains("found") && text.contains("expected"), "{text}");
    }

    #[test]
    fn a8_the_expected_record_is_admitted_and_names_its_provider() {
        let providers = expecting().admit(&record()).unwrap();
        assert_eq!(providers.len(), 1);
        assert_eq!(providers[0].authority(), Authority::new("local", "abc"));
        let either =
            Expect::account(ACCOUNT).kek(kms("vault", "abc"), "orders").kek(kms("local", "abc"), "orders");
        assert_eq!(either.admit(&record()).unwrap()[0].authority().provider(), "local");
        let pinned = expecting()
            .generation(record().generation())
            .fingerprint(record().fingerprint())
            .least_sequence(record().sequence());
        pinned.admit(&record()).unwrap();
    }

    #[test]
    fn a8_another_account_or_kek_is_refused_before_any_kms_call() {
        let other = AccountId::from_bytes([2; 16]);
        refused(&Expect::account(other).kek(kms("local", "abc"), "orders"), "another account");
        for (provider, endpoint, name) in [
            ("vault", "abc", "orders"),
            ("local", "abd", "orders"),
            ("local", "abc", "order"),
            ("local", "abc", "orders/x"),
        ] {
            refused(&Expect::account(ACCOUNT).kek(kms(provider, endpoint), name), "another KEK");
        }
    }

    #[test]
    fn a8_f6_pins_refuse_another_generation_key_and_an_older_record() {
        refused(&expecting().generation(Generation::new(2).unwrap()), "another generation");
        refused(&expecting().fingerprint(KeyFingerprint::from_bytes([0; 32])), "another key");
        refused(&expecting().least_sequence(Sequence::new(6).unwrap()), "older than expected");
        expecting().least_sequence(Sequence::FIRST).admit(&record()).unwrap();
    }

    #[test]
    fn a8_a_wrap_that_proves_nothing_needs_a_fingerprint_or_a_word() {
        let public: Arc<dyn KeyProvider> =
            Arc::new(Untouchable { provider: "local", endpoint: "abc", authentic: false });
        let expect = Expect::account(ACCOUNT).kek(public, "orders");
        // Neither of these is out of a forger's reach.
        let weak = expect.clone().generation(Generation::FIRST).least_sequence(Sequence::FIRST);
        for expect in [&expect, &weak] {
            assert_eq!(expect.admit(&record()).expect_err("unproven").kind(), ErrorKind::Misuse);
        }
        expect.clone().fingerprint(record().fingerprint()).admit(&record()).unwrap();
        expect.trust_record_store_with_public_wrap().admit(&record()).unwrap();
    }

    #[test]
    fn a8_an_expectation_without_a_kek_is_misuse() {
        let error = Expect::account(ACCOUNT).admit(&record()).expect_err("names none");
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let error =
            Expect::account(ACCOUNT).kek(kms("local", "abc"), "").admit(&record()).expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
}
