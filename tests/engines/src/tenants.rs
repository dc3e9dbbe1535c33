//! Tenants, each under a key of its own in a KMS in one file, whose keys are taken away and given back.

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::store::{ByPrefix, Route};
use strongroom::{Account, AccountId, AccountSpec, AekCache};

/// The tenants of one program, on real clocks, at the shortest interval and the shortest deadline.
#[derive(Debug)]
pub struct Tenants {
    /// The customers' side.
    pub kms: Arc<LocalKms>,
    /// Ours.
    pub cache: AekCache,
    accounts: Vec<(&'static str, Account)>,
    _folder: tempfile::TempDir,
}

impl Tenants {
    /// One account for each name, under a key of that name.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn new(names: &[&'static str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kms = Arc::new(LocalKms::create(folder.path().join("kms.json")).expect("a KMS"));
        let cache = AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE).build();
        let cache = cache.expect("a cache");
        let create = |name: &&'static str| {
            kms.create_key(name, KeyOptions::default()).expect("a key");
            let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest(*name));
            (*name, cache.create(spec).expect("an account"))
        };
        let accounts = names.iter().map(create).collect();
        Self { kms, cache, accounts, _folder: folder }
    }

    /// A tenant's account.
    ///
    /// # Panics
    /// When there is no tenant of that name.
    #[must_use]
    pub fn account(&self, name: &str) -> &Account {
        let found = self.accounts.iter().find(|(tenant, _)| *tenant == name);
        &found.expect("is a tenant").1
    }

    /// `<tenant>/...` is the tenant's, all else is denied.
    #[must_use]
    pub fn router(&self) -> ByPrefix {
        let with = |router: ByPrefix, (name, account): &(&str, Account)| {
            router.with(name, Route::sealed(account.clone()))
        };
        self.accounts.iter().fold(ByPrefix::new(), with)
    }

    /// By when a revoked account is served again, once its customer allows the key.
    #[must_use]
    pub const fn recovery_bound(&self) -> Duration {
        REFRESH.saturating_add(Duration::from_secs(1)).saturating_add(CALL_DEADLINE)
    }
}

const REFRESH: Duration = Duration::from_secs(6);
const CALL_DEADLINE: Duration = Duration::from_secs(1);
