//! Who takes part, and what each does for a call: the bare cipher, ours, and the peers that need but a few lines.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead;
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Detached, ObjectId, OpenJob, SealJob,
};
use tempfile::TempDir;

use crate::measure::PLAIN;

/// Seals the blocks that lie side by side in `memory`, `size` bytes each, and opens what it sealed last.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    /// What it does for one block.
    fn does(&self) -> String;

    fn seal(&mut self, memory: &mut [u8], size: usize);

    /// Leaves in `memory` what was sealed.
    fn open(&mut self, memory: &mut [u8], size: usize);
}

/// The cipher of `aws-lc-rs` and nothing else.
pub(crate) struct Raw {
    key: aead::LessSafeKey,
    nonce: u64,
    tags: Vec<aead::Tag>,
}

impl Raw {
    pub(crate) fn new() -> Self {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &[7; 32]).expect("32 bytes");
        Self { key: aead::LessSafeKey::new(key), nonce: 0, tags: Vec::new() }
    }

    /// One for all blocks of a round.
    fn nonce(&self) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonce.to_be_bytes());
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

impl Contender for Raw {
    fn name(&self) -> &'static str {
        "raw AES-256-GCM"
    }

    fn does(&self) -> String {
        "aws-lc-rs, in place, one fixed key, nonces that are counted by us, no additional data".into()
    }

    fn seal(&mut self, memory: &mut [u8], size: usize) {
        self.nonce += 1;
        self.tags.clear();
        for block in memory.chunks_exact_mut(size) {
            let tag = self.key.seal_in_place_separate_tag(self.nonce(), aead::Aad::empty(), block);
            self.tags.push(tag.expect("seals"));
        }
    }

    fn open(&mut self, memory: &mut [u8], size: usize) {
        for (block, tag) in memory.chunks_exact_mut(size).zip(&self.tags) {
            let tag = tag.as_ref();
            self.key.open_in_place_separate_tag(self.nonce(), aead::Aad::empty(), tag, block).expect("opens");
        }
    }
}

/// `seal_detached` and `open_detached`, block after block.
pub(crate) struct Ours(Managed);

impl Ours {
    pub(crate) fn new() -> Self {
        Self(Managed::new())
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours, one by one"
    }

    fn does(&self) -> String {
        "AES-256-GCM in place; per block a lease check, a fresh key by HKDF-SHA-256, random bytes, a bound place; \
         the KMS is asked in the background only"
            .into()
    }

    fn seal(&mut self, memory: &mut [u8], size: usize) {
        let Managed { account, object, detached, .. } = &mut self.0;
        let permit = account.permit().expect("a lease");
        detached.clear();
        detached.extend(
            blocks(*object, memory, size)
                .map(|(id, data)| permit.seal_detached(id, AAD, data).expect("seals")),
        );
    }

    fn open(&mut self, memory: &mut [u8], size: usize) {
        let Managed { account, object, detached, .. } = &mut self.0;
        let permit = account.permit().expect("a lease");
        for ((id, data), detached) in blocks(*object, memory, size).zip(&*detached) {
            permit.open_detached(id, AAD, detached, data).expect("opens");
        }
    }
}

/// `seal_batch` and `open_batch`; making the lists of jobs is part of what is measured.
pub(crate) struct OursInBatch(Managed);

impl OursInBatch {
    pub(crate) fn new() -> Self {
        Self(Managed::new())
    }
}

impl Contender for OursInBatch {
    fn name(&self) -> &'static str {
        "ours, in a batch"
    }

    fn does(&self) -> String {
        "the same for the blocks of a batch, whose lease is checked once before and once after".into()
    }

    fn seal(&mut self, memory: &mut [u8], size: usize) {
        let Managed { account, object, detached, .. } = &mut self.0;
        let permit = account.permit().expect("a lease");
        let mut jobs: Vec<SealJob<'_>> =
            blocks(*object, memory, size).map(|(id, data)| SealJob::new(id, AAD, data)).collect();
        permit.seal_batch(&mut jobs).expect("seals");
        detached.clear();
        detached.extend(jobs.iter().map(|job| *job.detached().expect("sealed")));
    }

    fn open(&mut self, memory: &mut [u8], size: usize) {
        let Managed { account, object, detached, .. } = &mut self.0;
        let permit = account.permit().expect("a lease");
        let mut jobs: Vec<OpenJob<'_>> = blocks(*object, memory, size)
            .zip(&*detached)
            .map(|((id, data), detached)| OpenJob::in_place(id, AAD, detached, data))
            .collect();
        permit.open_batch(&mut jobs).expect("opens");
    }
}

/// An account as a user has it: its KMS is a file, and its keeper refreshes the lease in the background.
struct Managed {
    account: Account,
    object: ObjectId,
    detached: Vec<Detached>,
    _cache: AekCache,
    _folder: TempDir,
}

impl Managed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        let kms = LocalKms::create(folder.path().join("kms.json")).expect("a new file");
        kms.create_key("bench", KeyOptions::default()).expect("a new key");
        let cache = AekCache::builder().refresh_every(Duration::from_secs(60)).build().expect("threads");
        let spec = AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("bench"));
        let account = cache.create(spec).expect("the KMS answers");
        Self { account, object: ObjectId::random(), detached: Vec::new(), _cache: cache, _folder: folder }
    }
}

fn blocks(object: ObjectId, memory: &mut [u8], size: usize) -> impl Iterator<Item = (BlockId, &mut [u8])> {
    (0..).map(move |index| BlockId::new(object, index)).zip(memory.chunks_exact_mut(size))
}

/// The caller's own is empty everywhere.
const AAD: Aad<'static> = Aad::EMPTY;

/// A peer that takes bytes and returns others.
pub(crate) trait Peer {
    const NAME: &'static str;
    /// The crate whose version is printed.
    const CRATE: &'static str;
    const DOES: &'static str;

    fn seal(&self, plain: &[u8]) -> Vec<u8>;

    fn open(&self, sealed: &[u8]) -> Vec<u8>;
}

/// Makes a contender of a peer. What a call allocates, with the system's allocator, is freed within the time that is
/// measured, as a caller would.
pub(crate) struct Allocating<P> {
    peer: P,
    sealed: Vec<Vec<u8>>,
}

impl<P: Peer> Allocating<P> {
    pub(crate) fn new(peer: P) -> Self {
        Self { peer, sealed: Vec::new() }
    }
}

impl<P: Peer> Contender for Allocating<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn does(&self) -> String {
        format!("{} {}, allocating: {}", P::CRATE, version(P::CRATE), P::DOES)
    }

    fn seal(&mut self, memory: &mut [u8], size: usize) {
        self.sealed.clear();
        self.sealed.extend(memory.chunks_exact(size).map(|block| self.peer.seal(block)));
    }

    fn open(&mut self, _: &mut [u8], size: usize) {
        for sealed in &self.sealed {
            let plain = black_box(self.peer.open(sealed));
            assert!(plain.len() == size && plain.last() == Some(&PLAIN), "{} opens what it sealed", P::NAME);
        }
    }
}

/// As the lock file has it.
fn version(name: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let of_name = lock.split_once(&format!("\nname = \"{name}\"\nversion = \"")).map(|(_, rest)| rest);
    of_name.and_then(|rest| rest.split('"').next()).expect("the lock file has all crates that are measured")
}

/// `orion::aead`.
pub(crate) struct Orion(orion::aead::SecretKey);

impl Orion {
    pub(crate) fn new() -> Self {
        Self(orion::aead::SecretKey::generate().expect("randomness"))
    }
}

impl Peer for Orion {
    const NAME: &'static str = "orion";
    const CRATE: &'static str = "orion";
    const DOES: &'static str = "XChaCha20-Poly1305 in portable Rust, one fixed key, a random nonce";

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        orion::aead::seal(&self.0, plain).expect("seals")
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        orion::aead::open(&self.0, sealed).expect("opens")
    }
}

/// `age::encrypt` to one X25519 recipient.
pub(crate) struct Age(age::x25519::Identity, age::x25519::Recipient);

impl Age {
    pub(crate) fn new() -> Self {
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public();
        Self(identity, recipient)
    }
}

impl Peer for Age {
    const NAME: &'static str = "age";
    const CRATE: &'static str = "age";
    const DOES: &'static str = "a file for each block: a fresh file key, wrapped to an X25519 recipient (public-key operations in both \
         directions), a header with an HMAC, then ChaCha20-Poly1305 in chunks of 64 KiB";

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        age::encrypt(&self.1, plain).expect("seals")
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        age::decrypt(&self.0, sealed).expect("opens")
    }
}
