//! What `Debug` shows of whatever holds a key or plaintext, or stands near one: whose it is and how it stands. Not a byte of the
//! rest, and not nothing: an operator reads it in a log.

use std::sync::Arc;

use crate::account::batch::{OpenJob, SealJob};
use crate::cache::{AccountSpec, AekCache};
use crate::expect::Expect;
use crate::format::frame::sealed_len;
use crate::format::object::Context;
use crate::id::{Aad, AccountId, BlockId, ObjectId, Suite};
use crate::object::SealedObject;
use crate::provider::{Kek, KekUri, KekVersion, KeyProvider, LocalKms, WrapAlgorithm, Wrapped};
use crate::record_store::{Loaded, MemoryRecordStore, RecordStore, RecordTag};
use crate::testing::{ManualClock, ScriptedProvider};

const PLAIN: &[u8] = b"a secret of theirs";
/// As text, as `Debug` of a slice begins, as hexadecimal digits.
const NEVER: [&str; 3] = ["secret", "[97, 32,", "612073"];

fn shows(what: &dyn std::fmt::Debug, wanted: &[&str]) {
    let shown = format!("{what:?}");
    for part in wanted {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    for part in NEVER {
        assert!(!shown.contains(part), "{part} is in {shown}");
    }
}

#[test]
fn of_an_account_and_what_is_made_with_it() {
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    kms.add_key("orders");
    let cache = AekCache::builder().manual(&ManualClock::new()).build().unwrap();
    shows(&cache, &["AekCache { stats: CacheStats", ".."]);
    let id = AccountId::from_bytes([0xAC; 16]);
    let spec = AccountSpec::new(id, kms as Arc<dyn KeyProvider>, Kek::latest("orders"));
    shows(&spec, &["AccountSpec { id: AccountId(acac", "orders", "stored: false", "policy", ".."]);
    let account = cache.create(spec).unwrap();
    shows(&account, &["Account { id: AccountId(acac", "status: Fresh"]);
    shows(&account.inner(), &["AccountState(acac", "Fresh"]);
    shows(&account.ready(), &["Pending { .. }"]);

    let epoch = account.epoch().number();
    shows(&account.permit().unwrap(), &["Permit(acac", &format!("epoch {epoch})")]);
    shows(&account.fence().unwrap(), &["Fence { account: AccountId(acac", "epoch: Epoch("]);
    shows(&account.guard(PLAIN.to_vec()).unwrap(), &["Guarded { fence: Fence { account", ".. }"]);
    shows(&Expect::account(id), &["Expect { account: ", "acac"]);
}

#[test]
fn of_what_is_sealed_and_opened() {
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    kms.add_key("orders");
    let cache = AekCache::builder().manual(&ManualClock::new()).build().unwrap();
    let provider: Arc<dyn KeyProvider> = kms;
    let account =
        cache.create(AccountSpec::new(AccountId::random(), provider, Kek::latest("orders"))).unwrap();
    let id = BlockId::new(ObjectId::from_bytes([0x0B; 16]), 7);
    let aad = Aad::new(PLAIN);
    shows(&aad, &["Aad(..)"]);

    let mut data = PLAIN.to_vec();
    let len = format!("{} bytes", data.len());
    shows(&SealJob::new(id, aad, &mut data), &["SealJob(BlockId", "0b0b", &len]);
    let sealed = account.seal(id, aad, PLAIN).unwrap();
    assert_eq!(sealed.len(), sealed_len(PLAIN.len(), Suite::Aes256Gcm));
    shows(&OpenJob::into(id, aad, &sealed, &mut data), &["OpenJob(BlockId", "0b0b"]);

    let context = || Context::new(&[b"orders"]);
    let mut writer = SealedObject::writer(account.clone(), context(), Vec::new()).unwrap();
    std::io::Write::write_all(&mut writer, PLAIN).unwrap();
    shows(&writer, &["ObjectWriter { info: ObjectInfo", &format!("plain_len: {}", PLAIN.len()), "failed: "]);
    let (stored, _) = writer.finish().unwrap();
    let mut reader = SealedObject::reader(account, context(), stored).unwrap();
    std::io::Read::read_exact(&mut reader, &mut data[..5]).unwrap();
    shows(&reader, &["ObjectReader { info: ObjectInfo", &format!("len: {}", PLAIN.len()), "position: 5"]);
}

#[test]
fn of_what_a_provider_and_a_store_hold() {
    let folder = tempfile::tempdir().unwrap();
    let kms = LocalKms::create(folder.path().join("kms.json")).unwrap();
    shows(&kms, &["LocalKms { path: ", "kms.json", "id: "]);

    let uri = KekUri::new("local://abc/orders").unwrap();
    let (version, algorithm) = (KekVersion::new("3").unwrap(), WrapAlgorithm::new("AES-256-GCM").unwrap());
    let wrapped = Wrapped::new(uri, version, algorithm, PLAIN.to_vec()).unwrap();
    shows(
        &wrapped,
        &["Wrapped { kek: KekUri(\"local://abc/orders\")", "AES-256-GCM", &format!("len: {}", PLAIN.len())],
    );

    for (len, shown) in
        [(0, "RecordTag()"), (7, "RecordTag(07070707070707)"), (8, "RecordTag(0808080808080808)")]
    {
        shows(&RecordTag::new(&vec![u8::try_from(len).unwrap(); len]).unwrap(), &[shown]);
    }
    let tag = RecordTag::new(&[9; 9]).unwrap();
    shows(&tag, &["RecordTag(0909090909090909..)"]);
    shows(&Loaded::Absent, &["Absent"]);
    shows(&Loaded::Unchanged, &["Unchanged"]);
    shows(
        &Loaded::Found { bytes: PLAIN.to_vec(), tag },
        &[&format!("Found {{ len: {}, tag: RecordTag(09", PLAIN.len())],
    );

    let store = MemoryRecordStore::new();
    store.compare_and_swap(AccountId::random(), None, PLAIN).unwrap();
    shows(&store, &["MemoryRecordStore { records: 1 }"]);
}
