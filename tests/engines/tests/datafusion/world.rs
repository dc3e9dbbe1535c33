//! One tenant on virtual time, over memory.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;
use object_store_0_13::memory::InMemory;
use strongroom::provider::Kek;
use strongroom::store::OneAccount;
use strongroom::store::object_store_0_13::SealedStore;
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{Account, AccountId, AccountSpec, AekCache};
use strongroom_engines_tests::data::{session, session_with, write_table};

pub(crate) struct World {
    pub(crate) account: Account,
    kms: Arc<ScriptedProvider>,
    cache: AekCache,
    store: Arc<SealedStore>,
}

impl World {
    pub(crate) fn new() -> Self {
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        kms.add_key("eve");
        let cache = AekCache::builder().refresh_every(REFRESH).manual(&ManualClock::new()).build();
        let cache = cache.expect("a cache");
        let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest("eve"));
        let account = cache.create(spec).expect("an account");
        let inner = Arc::new(InMemory::new());
        let store = SealedStore::builder(inner, "lake", OneAccount::new(account.clone())).build();
        Self { account, kms, cache, store: Arc::new(store.expect("is complete")) }
    }

    /// A session with eve's table in it, that spills through `disk` beyond `memory` bytes.
    pub(crate) async fn session(&self, disk: DiskManagerBuilder, memory: usize) -> SessionContext {
        let writes = self.with_caches().await;
        drop(writes);
        let context = session(self.store.clone(), disk, memory).expect("a session");
        register(&context).await;
        context
    }

    /// A session as DataFusion makes it: it caches what it read. The table is written through it.
    pub(crate) async fn with_caches(&self) -> SessionContext {
        let runtime = RuntimeEnvBuilder::new().build_arc().expect("a runtime");
        let context = session_with(self.store.clone(), runtime).expect("a session");
        write_table(&context, "eve").await.expect("is written");
        context
    }

    pub(crate) fn revoke(&self) {
        self.kms.set_enabled("eve", false);
        self.cache.run_for(2 * REFRESH);
    }

    pub(crate) fn restore(&self) {
        self.kms.set_enabled("eve", true);
        self.cache.run_for(Duration::from_secs(61));
    }
}

async fn register(context: &SessionContext) {
    let folder = "sealed://bucket/eve/notes/";
    context.register_parquet("eve", folder, Default::default()).await.expect("is registered");
}

const REFRESH: Duration = Duration::from_secs(6);
