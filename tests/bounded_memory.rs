//! What a sealed store takes from the heap while an object passes through it: no more for a large one than for a small one (contract G1).
//!
//! The heap of this process is given a limit, and an allocation that would pass it ends the process: so every moment counts, not those
//! alone at which somebody looks. Objects lie on a disk, so that none of their bytes are held on behalf of the store underneath.
#![allow(clippy::unwrap_used, reason = "tests: helpers unwrap too")]

use std::alloc::System;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cap::Cap;
use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use strongroom::provider::Kek;
use strongroom::store::{OneAccount, SealedStore};
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{Account, AccountId, AccountSpec, AekCache, BlockSize};
use tempfile::TempDir;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const MIB: usize = 1024 * 1024;
/// The sizes of objects that are to cost the same.
const LENS: [usize; 2] = [24 * MIB, 72 * MIB];
const PART: usize = 8 * MIB;
/// Futures, names of files, threads that read and write them.
const SMALL: usize = 192 * 1024;

/// A sealed store on a disk, and the test that has the heap to itself.
struct World {
    store: SealedStore,
    block: usize,
    _cache: AekCache,
    _folder: TempDir,
}

fn account() -> (Account, AekCache) {
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    kms.add_key("orders");
    let cache = AekCache::builder().manual(&ManualClock::new()).build().unwrap();
    let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest("orders"));
    (cache.create(spec).unwrap(), cache)
}

impl World {
    fn new(block_size: BlockSize) -> Self {
        let (account, cache) = account();
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let store = SealedStore::builder(disk, "disk", OneAccount::new(account)).block_size(block_size);
        let store = store.part_size(PART).build().unwrap();
        Self { store, block: block_size.bytes(), _cache: cache, _folder: folder }
    }

    const fn frame(&self) -> usize {
        self.block + 48
    }

    /// How long a part is that is begun by a piece of `piece` bytes.
    const fn part(&self, piece: usize) -> usize {
        let sealed = 80 + piece + piece.div_ceil(self.block) * 48;
        if sealed > PART { sealed } else { PART }
    }

    /// One part on its way and one that is being filled, each a frame longer than it will be sent, and the block that is held back.
    const fn upload(&self, piece: usize) -> usize {
        2 * (self.part(piece) + self.frame()) + self.block
    }

    /// A chunk of plaintext, a frame that has arrived, and the same in one piece.
    const fn stream(&self) -> usize {
        (if self.block > MIB { self.block } else { MIB }) + 2 * self.frame()
    }

    /// `len` bytes in pieces of `piece`, which are not ours to pay for.
    async fn upload_of(&self, at: &Path, len: usize, piece: &Bytes) {
        let mut upload = self.store.put_multipart(at).await.unwrap();
        let mut left = len;
        while left > 0 {
            let next = piece.slice(..left.min(piece.len()));
            left -= next.len();
            upload.put_part(next.into()).await.unwrap();
        }
        upload.complete().await.unwrap();
    }
}

/// Runs `work`, during which no more than `bytes` may be taken beside what is taken already.
async fn within<T>(bytes: usize, work: impl Future<Output = T>) -> T {
    HEAP.set_limit(HEAP.allocated() + bytes + SMALL).unwrap();
    // The limit is one: what would hold an object as a whole is refused.
    assert!(Vec::<u8>::new().try_reserve_exact(LENS[0]).is_err());
    let done = work.await;
    HEAP.set_limit(usize::MAX).unwrap();
    done
}

/// One test at a time: the heap is the process's.
fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    static TURNS: Mutex<()> = Mutex::new(());
    let _turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test());
}

#[test]
fn g1_an_upload_takes_a_part_and_a_block_beside_the_part_on_its_way() {
    alone(|| async {
        let world = World::new(BlockSize::DEFAULT);
        // Smaller than a part; one part; what `object_store::buffered::BufWriter` sends unless told otherwise.
        for piece in [MIB, 8 * MIB, 10 * MIB] {
            let bytes = Bytes::from(vec![7; piece]);
            for len in LENS {
                let at = Path::from("object");
                within(world.upload(piece), world.upload_of(&at, len, &bytes)).await;
                assert_eq!(world.store.head(&at).await.unwrap().size, len as u64);
            }
        }
    });
}

/// Though its owner keeps it.
#[test]
fn g1_an_upload_that_was_aborted_holds_nothing() {
    alone(|| async {
        let world = World::new(BlockSize::DEFAULT);
        let before = HEAP.allocated();
        let mut upload = world.store.put_multipart(&"object".into()).await.unwrap();
        upload.put_part(vec![7; MIB].into()).await.unwrap();
        assert!(HEAP.allocated() - before > MIB);
        upload.abort().await.unwrap();
        let held = HEAP.allocated() - before;
        // Less than the block that was held back.
        assert!(held < world.block, "{held} bytes");
        drop(upload);
    });
}

#[test]
fn g1_a_stream_takes_a_chunk_and_two_frames_and_a_range_no_more_than_its_blocks() {
    for block_size in [BlockSize::DEFAULT, BlockSize::new(4 * MIB).unwrap()] {
        alone(|| async {
            let world = World::new(block_size);
            let piece = Bytes::from((0..=250).cycle().take(8 * MIB).collect::<Vec<u8>>());
            for len in LENS {
                let at = Path::from("object");
                world.upload_of(&at, len, &piece).await;
                let read = async {
                    let mut stream = world.store.get(&at).await.unwrap().into_stream();
                    let mut read = 0;
                    while let Some(chunk) = stream.try_next().await.unwrap() {
                        assert_eq!(chunk[0], piece[read % piece.len()]);
                        read += chunk.len();
                    }
                    read
                };
                assert_eq!(within(world.stream(), read).await, len);
                let range = len as u64 / 2 + 5..len as u64 / 2 + 4101;
                let read = within(2 * world.block + 2 * world.frame(), world.store.get_range(&at, range));
                assert_eq!(read.await.unwrap().len(), 4096);
            }
        });
    }
}

#[test]
fn g1_a_copy_takes_two_parts_and_what_a_stream_does() {
    alone(|| async {
        let world = World::new(BlockSize::DEFAULT);
        let piece = Bytes::from(vec![7; 8 * MIB]);
        for len in LENS {
            world.upload_of(&"object".into(), len, &piece).await;
            let bytes = world.upload(MIB) + world.stream();
            within(bytes, world.store.copy(&"object".into(), &"copy".into())).await.unwrap();
            assert_eq!(world.store.head(&"copy".into()).await.unwrap().size, len as u64);
            world.store.delete(&"copy".into()).await.unwrap();
        }
    });
}

/// How many bytes `work` leaves on the heap for each of [`MANY`], beside a path.
async fn kept_for_each<T>(work: impl Future<Output = T>) -> (usize, T) {
    let before = HEAP.allocated();
    let done = work.await;
    ((HEAP.allocated() - before) / MANY - name(0).as_ref().len(), done)
}

fn name(number: usize) -> Path {
    format!("data/{number:06}").into()
}

const MANY: usize = 1500;

#[test]
fn g1_a_remembered_header_takes_300_bytes_and_its_path() {
    alone(|| async {
        let (account, _cache) = account();
        let memory = Arc::new(InMemory::new());
        let store = SealedStore::builder(memory, "memory", OneAccount::new(account)).build().unwrap();
        for number in 0..MANY {
            store.put(&name(number), "plain".into()).await.unwrap();
        }
        let read = async {
            for number in 0..MANY {
                store.get_range(&name(number), 1..2).await.unwrap();
            }
        };
        let (each, ()) = kept_for_each(read).await;
        assert!((100..=300).contains(&each), "{each} bytes");
    });
}

#[test]
fn e9_an_open_takeover_takes_200_bytes_and_the_path_for_each_object_left() {
    alone(|| async {
        let (account, _cache) = account();
        let memory = Arc::new(InMemory::new());
        for number in 0..MANY {
            memory.put(&name(number), "plain".into()).await.unwrap();
        }
        let store = || {
            let builder = SealedStore::builder(memory.clone(), "memory", OneAccount::new(account.clone()));
            builder.build().unwrap()
        };
        store().begin_takeover(&"data".into()).await.unwrap();
        let opening = store();
        let (each, takeover) = kept_for_each(opening.open_takeover(&"data".into(), None)).await;
        assert_eq!(takeover.unwrap().progress().objects_left, MANY as u64);
        assert!((50..=200).contains(&each), "{each} bytes");
    });
}
