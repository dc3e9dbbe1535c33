//! DataFusion's spill files under an account's key (contract G7): a `TempFileFactory` of sealed temporary files.
//!
//! All that an embedder needs; copy it. With it in a `RuntimeEnv`, its disk manager makes no file of its own.

use std::fs::File;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures_util::Stream;
use futures_util::stream;
use strongroom::Account;

/// Makes the spill files of the queries of one account.
pub struct SealedSpills {
    account: Account,
    make: Box<dyn Fn() -> io::Result<File> + Send + Sync>,
}

impl SealedSpills {
    /// Spills under `account`, into files that `make` makes: `tempfile::tempfile`, for one.
    #[must_use]
    pub fn new(account: Account, make: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Self {
        Self { account, make: Box::new(make) }
    }
}

impl TempFileFactory for SealedSpills {
    fn create_temp_file(&self, _: &str) -> Result<Arc<dyn SpillFile>> {
        let file = strongroom::SpillFile::new(self.account.clone(), (self.make)()?);
        Ok(Arc::new(SealedSpill(Arc::new(file))))
    }
}

struct SealedSpill(Arc<strongroom::SpillFile>);

impl SpillFile for SealedSpill {
    fn size(&self) -> Option<u64> {
        Some(self.0.stored_len())
    }

    /// Ends where the file ends at that moment: DataFusion reads no further than it knows to have been flushed.
    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let file = Arc::clone(&self.0);
        Ok(Box::pin(stream::try_unfold((file, 0), |(file, index)| async move {
            let reading = Arc::clone(&file);
            // The disk may make it wait, so it is read where waiting is allowed.
            let block = tokio::task::spawn_blocking(move || reading.read_block(index)).await;
            let block = block.map_err(|error| DataFusionError::External(Box::new(error)))?;
            let block = block.map_err(|error| DataFusionError::External(Box::new(error)))?;
            Ok(block.map(|block| (Bytes::from(block), (file, index + 1))))
        })))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(Writer(strongroom::SpillFile::writer(&self.0))))
    }
}

struct Writer(strongroom::SpillWriter);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}
