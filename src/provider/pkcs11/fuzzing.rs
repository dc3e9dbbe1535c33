//! What the fuzz target `pkcs11_answers` holds of a module's answers. Imports: `provider`, `error`, this provider's own files.

use cryptoki::context::Function;
use cryptoki::error::{Error, Rv};

use super::classify::{Fault, VendorCodes};
use super::keys::{Id, end_of_date};
use crate::error::Refusal;
use crate::provider::{ErrorClass, KekVersion};

/// A return value has one meaning, and only the operator makes a vendor's code a refusal.
pub(crate) fn code(number: u32) {
    let Rv::Error(code) = Rv::from(u64::from(number)) else { return };
    let judge = |codes: &VendorCodes| Fault::from(Error::Pkcs11(code, Function::Decrypt)).judge(codes);
    let plain = judge(&VendorCodes::default());
    assert!(plain.message().starts_with("C_Decrypt answered "));
    if number >= VENDOR {
        assert_eq!(plain.class(), ErrorClass::Transient);
    }
    let mut codes = VendorCodes::default();
    codes.add(number.into(), Refusal::PermissionRemoved);
    let named = judge(&codes).class();
    assert!(named == plain.class() || named == ErrorClass::Refused(Refusal::PermissionRemoved));
    assert!(number < VENDOR || named != ErrorClass::Transient);
}

/// Two ids of objects, half of the bytes each: every one is a version, and one of two is the greater.
pub(crate) fn id(data: &[u8]) {
    let half = data.len() / 2;
    let ids = [&data[..half], &data[half..]].map(|bytes| Id::new(bytes.to_vec()).ok());
    for id in ids.iter().flatten() {
        let version = id.to_version().expect("an id fits a version");
        assert_eq!(Id::of_version(&version).ok().as_ref(), Some(id), "write, then parse");
    }
    if let [Some(one), Some(two)] = &ids {
        assert_eq!(one.rank() == two.rank(), one == two, "of two versions one is current");
    }
}

/// A version that a record names.
pub(crate) fn version(text: &str) {
    if let Ok(version) = KekVersion::new(text)
        && let Ok(id) = Id::of_version(&version)
    {
        assert_eq!(id.to_version().ok(), Some(version), "parse, then write");
    }
}

/// A `CKA_END_DATE`.
pub(crate) fn date(data: &[u8]) {
    let Some((date, _)) = data.split_first_chunk::<8>() else { return };
    if let Some(end) = end_of_date(&date[..4], &date[4..6], &date[6..]) {
        assert!(date.iter().all(|byte| byte.is_ascii_digit()), "{date:?}");
        assert!(end > std::time::UNIX_EPOCH);
    }
}

/// `CKR_VENDOR_DEFINED`.
const VENDOR: u32 = 0x8000_0000;
