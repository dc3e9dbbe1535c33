//! DataFusion over a sealed store, step by step: write, what lies in the storage, range reads, one of three tenants revoked in the
//! middle of its query, and its recovery (contract G1, D1, D2, D7).

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::prelude::SessionContext;
use futures_util::{StreamExt, TryStreamExt};
use object_store_0_13::memory::InMemory;
use object_store_0_13::{ObjectStore, ObjectStoreExt};
use strongroom::store::object_store_0_13::SealedStore;
use strongroom::{Error, ErrorKind};

use crate::counting::Counting;
use crate::data::{GROUP, MARKER, ROWS, note, session, write_table};
use crate::tenants::Tenants;

/// Told of each step: whether it went as it has to, and what it was.
pub type Tell<'a> = &'a mut dyn FnMut(bool, &str);

struct Story<'a> {
    tell: Tell<'a>,
    tenants: Tenants,
    inner: Arc<dyn ObjectStore>,
    counting: Arc<Counting>,
    context: SessionContext,
}

/// Tells the whole story over `inner`, which is empty.
///
/// # Errors
/// What failed that was not meant to; then the story ends there.
pub async fn tell(inner: Arc<dyn ObjectStore>, tell: Tell<'_>) -> Result<()> {
    let tenants = Tenants::new(&TENANTS);
    let counting = Arc::new(Counting::new(Arc::clone(&inner)));
    let sealed = SealedStore::builder(counting.clone(), "lake", tenants.router()).build();
    let context = session(Arc::new(sealed.map_err(external)?), no_disk(), 256 << 20)?;
    let mut story = Story { tell, tenants, inner, counting, context };
    for tenant in TENANTS {
        write_table(&story.context, tenant).await?;
    }
    story.look_at_the_storage().await?;
    story.read_a_range().await?;
    story.revoke_in_mid_query().await?;
    story.ask_while_revoked().await?;
    story.recover().await
}

impl Story<'_> {
    /// No part of what was written lies in the storage.
    async fn look_at_the_storage(&mut self) -> Result<()> {
        let plain: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        write_table(&session(Arc::clone(&plain), no_disk(), 256 << 20)?, "ada").await?;
        // The positive control: written without us, the same table shows it.
        let (unsealed, known) = search(plain.as_ref()).await?;
        let (stored, seen) = search(self.inner.as_ref()).await?;
        let text = format!("three tables written, {stored} bytes: {seen} notes to be read in the storage");
        (self.tell)(seen == 0 && known as i64 >= ROWS && stored > unsealed, &text);
        Ok(())
    }

    async fn read_a_range(&mut self) -> Result<()> {
        let (stored, _) = search(self.inner.as_ref()).await?;
        self.counting.take();
        let query = "SELECT note FROM ada WHERE id BETWEEN 10000 AND 10099 ORDER BY id";
        let found = texts(&self.context, query).await?;
        let (requests, bytes) = self.counting.take();
        let right = (10_000..10_100).map(|id| note("ada", id)).eq(found);
        let text = format!("100 of {ROWS} rows: {requests} reads, {bytes} of {} bytes", stored / 3);
        (self.tell)(right && bytes < stored / 3 / 4, &text);
        Ok(())
    }

    /// Eve's query is under way, one row group at a time, when her key is taken away.
    async fn revoke_in_mid_query(&mut self) -> Result<()> {
        let mut rows = self.context.sql("SELECT id, note FROM eve").await?.execute_stream().await?;
        let mut read = 0;
        if let Some(batch) = rows.next().await {
            read += batch?.num_rows();
        }
        self.tenants.kms.disable_key(REVOKED).map_err(external)?;
        let (begun, bound) = (Instant::now(), self.tenants.cache.staleness_bound());
        let (mut queries, mut wrong) = (0, 0);
        let ended = loop {
            match rows.next().await {
                Some(Ok(batch)) => read += batch.num_rows(),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
            let other = ["ada", "bob"][queries % 2];
            queries += 1;
            wrong += usize::from(!sum_is_right(&self.context, other).await);
            tokio::time::sleep(Duration::from_millis(25)).await;
        };
        let took = begun.elapsed();
        let kind = ended.as_ref().and_then(kind);
        let text = format!(
            "eve's key disabled in mid-query: it ends after {:.2} s (bound {:.2} s) and {read} rows: {}",
            took.as_secs_f64(),
            bound.as_secs_f64(),
            outcome(ended.as_ref()),
        );
        // Reads are closed as not ready while the refusal is compared with the newest record: a moment.
        let closed = matches!(kind, Some(ErrorKind::Revoked | ErrorKind::NotReady));
        (self.tell)(closed && took <= bound + MEASURING && (read as i64) < ROWS, &text);
        let text = format!("ada's and bob's queries meanwhile: {queries}, of which {wrong} failed");
        (self.tell)(queries > 0 && wrong == 0, &text);
        Ok(())
    }

    /// Nothing of hers is read or written, not even what DataFusion could know from a footer.
    async fn ask_while_revoked(&mut self) -> Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for query in [
            "SELECT note FROM eve WHERE id = 5",
            "SELECT count(*), min(id), max(note) FROM eve",
            "SELECT ada.id FROM ada JOIN eve ON ada.id = eve.id",
            "COPY (SELECT note FROM ada) TO 'sealed://bucket/eve/stolen.parquet' STORED AS PARQUET",
        ] {
            let ended = texts(&self.context, query).await.err();
            let revoked = ended.as_ref().and_then(kind) == Some(ErrorKind::Revoked);
            (self.tell)(revoked, &format!("{query}: {}", outcome(ended.as_ref())));
        }
        Ok(())
    }

    /// Nobody restarts anything: the same session, the same query, the same answer.
    async fn recover(&mut self) -> Result<()> {
        self.tenants.kms.enable_key(REVOKED).map_err(external)?;
        let (begun, bound) = (Instant::now(), self.tenants.recovery_bound());
        while !sum_is_right(&self.context, REVOKED).await && begun.elapsed() < 2 * bound {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let took = begun.elapsed();
        let found = texts(&self.context, "SELECT note FROM eve ORDER BY id").await?;
        let right = (0..ROWS).map(|id| note(REVOKED, id)).eq(found);
        let text = format!(
            "eve's key enabled: the query is answered after {:.2} s (bound {:.2} s), {ROWS} rows, the right ones",
            took.as_secs_f64(),
            bound.as_secs_f64(),
        );
        (self.tell)(right && took <= bound + MEASURING, &text);
        Ok(())
    }
}

/// How many bytes lie in a store, and how often the marker is among them.
async fn search(store: &dyn ObjectStore) -> Result<(u64, usize)> {
    let (mut bytes, mut seen) = (0, 0);
    for object in store.list(None).try_collect::<Vec<_>>().await? {
        let object = store.get(&object.location).await?.bytes().await?;
        bytes += object.len() as u64;
        seen += object.windows(MARKER.len()).filter(|window| *window == MARKER.as_bytes()).count();
    }
    Ok((bytes, seen))
}

/// The texts of the first column of a query's answer.
///
/// # Errors
/// DataFusion's.
pub async fn texts(context: &SessionContext, query: &str) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for batch in context.sql(query).await?.collect().await? {
        let column = batch.column(0);
        for row in 0..column.len() {
            texts.push(datafusion::arrow::util::display::array_value_to_string(column, row)?);
        }
    }
    Ok(texts)
}

async fn sum_is_right(context: &SessionContext, tenant: &str) -> bool {
    let query = format!("SELECT sum(shuffled) FROM {tenant} WHERE id < {}", 4 * GROUP);
    let expected: i64 = (0..4 * GROUP as i64).map(crate::data::shuffled).sum();
    texts(context, &query).await.is_ok_and(|texts| texts == [expected.to_string()])
}

/// What the library said, however deep DataFusion has wrapped it.
#[must_use]
pub fn kind(error: &DataFusionError) -> Option<ErrorKind> {
    Error::find(error).map(Error::kind)
}

fn outcome(ended: Option<&DataFusionError>) -> String {
    match ended {
        None => "succeeded".to_owned(),
        Some(error) => match Error::find(error) {
            Some(error) => format!("refused: {:?}", error.kind()),
            None => format!("failed: {error}"),
        },
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Nothing is spilled, and nothing could be in the plain.
fn no_disk() -> DiskManagerBuilder {
    DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled)
}

const TENANTS: [&str; 3] = ["ada", "bob", REVOKED];
const REVOKED: &str = "eve";
/// What a measurement may add to a bound: a query of another's, and a busy machine.
const MEASURING: Duration = Duration::from_millis(1000);
