//! What the fuzz targets call: one function for each, from bytes to a panic where something does not hold.
//!
//! Compiled under `cfg(fuzzing)` only, which cargo-fuzz sets, so that targets reach what is private to the crate
//! and nothing of it is part of the public surface. That no parser allocates more than its input
//! justifies is watched by the fuzzer itself (`-malloc_limit_mb`). Imports: everything.

#[cfg(feature = "aws-kms")]
mod aws_kms_answers;
#[cfg(feature = "azure-keyvault")]
mod azure_answers;
mod frame;
mod key_names;
mod lease;
mod local_kms_file;
mod object;
mod object_header;
mod object_model;
mod operation_state;
#[cfg(feature = "pkcs11")]
mod pkcs11_answers;
mod policy;
mod record;
mod record_resealed;
mod scope_state;
#[cfg(feature = "object-store")]
mod takeover_manifest;
#[cfg(feature = "vault")]
mod vault_answers;
#[cfg(feature = "vault")]
mod vault_line;
mod wrapped_plaintext;

use std::sync::{Arc, LazyLock};

use crate::account::Account;
use crate::cache::{AccountSpec, AekCache};
use crate::id::AccountId;
use crate::provider::{Kek, KeyProvider};
use crate::testing::{ManualClock, ScriptedProvider};

#[cfg(feature = "aws-kms")]
pub use aws_kms_answers::aws_kms_answers;
#[cfg(feature = "azure-keyvault")]
pub use azure_answers::azure_answers;
pub use frame::frame;
pub use key_names::key_names;
pub use lease::lease;
pub use local_kms_file::local_kms_file;
pub use object::object;
pub use object_header::object_header;
pub use object_model::object_model;
pub use operation_state::operation_state;
#[cfg(feature = "pkcs11")]
pub use pkcs11_answers::pkcs11_answers;
pub use policy::policy;
pub use record::record;
pub use record_resealed::record_resealed;
pub use scope_state::scope_state;
#[cfg(feature = "object-store")]
pub use takeover_manifest::takeover_manifest;
#[cfg(feature = "vault")]
pub use vault_answers::vault_answers;
#[cfg(feature = "vault")]
pub use vault_line::vault_line;
pub use wrapped_plaintext::wrapped_plaintext;

/// An account with a lease that never ends, because no time passes.
fn account() -> Account {
    static CACHE: LazyLock<(AekCache, Account)> = LazyLock::new(|| {
        let kms = ScriptedProvider::on_virtual_time();
        kms.add_key("orders");
        let kms: Arc<dyn KeyProvider> = Arc::new(kms);
        let cache =
            AekCache::builder().manual(&ManualClock::new()).build().expect("the defaults are allowed");
        let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest("orders"));
        let account = cache.create(spec).expect("the provider says yes");
        (cache, account)
    });
    CACHE.1.clone()
}

/// The fuzzer's bytes, taken from the front. Reads zeros past the end, so that a prefix of an input is an input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }
}
