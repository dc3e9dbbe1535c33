//! What the service says of a key, as a `KekInfo` (contract B8). Imports: `provider`, `clock`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use azure_core::http::Response;
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_keys::models::{DeletionRecoveryLevel, Key, KeyAttributes, KeyType};

use super::wire::Place;
use super::{Kind, classify};
use crate::clock::Clock;
use crate::provider::{KekInfo, KekUri, ProviderError};

pub(super) fn info(
    answer: Response<Key>,
    kind: Kind,
    place: &Place,
    name: &str,
    uri: KekUri,
) -> Result<KekInfo, ProviderError> {
    let id = classify::request_id(answer.headers()).map(str::to_owned);
    let now = Clock::System.now().wall_nanos();
    let info = answer
        .into_model()
        .map_err(|_| ProviderError::integrity("Key Vault's answer is not the description of a key"))
        .and_then(|key| of_key(&key, kind, place, name, uri, now));
    info.map_err(|error| match id {
        Some(id) => error.with_request_id(&id),
        None => error,
    })
}

pub(super) fn of_key(
    key: &Key,
    kind: Kind,
    place: &Place,
    name: &str,
    uri: KekUri,
    now: u64,
) -> Result<KekInfo, ProviderError> {
    let (Some(jwk), Some(attributes)) = (&key.key, &key.attributes) else {
        return Err(ProviderError::integrity("Key Vault describes a key without key or attributes"));
    };
    let Some(kid) = &jwk.kid else {
        return Err(ProviderError::integrity("Key Vault describes a key without identifier"));
    };
    let version = place.version_of(kid, name)?;
    let in_hsm = match (&jwk.kty, kind) {
        (Some(KeyType::RsaHsm), Kind::Vault | Kind::ManagedHsmRsa) => true,
        (Some(KeyType::Rsa), Kind::Vault) => false,
        (Some(KeyType::OctHsm), Kind::ManagedHsm) => true,
        _ => {
            return Err(ProviderError::misconfigured(&format!(
                "the key is of a type that does not wrap with {}",
                kind.algorithm()
            )));
        }
    };
    let mut info = KekInfo::new(uri, version);
    info.enabled = is_enabled(attributes, now);
    info.expires = attributes.expires.and_then(system_time);
    (info.soft_delete, info.purge_protection) = recovery(attributes.recovery_level.as_ref());
    info.hsm_backed = Some(in_hsm);
    Ok(info)
}

/// A key that is not valid yet does not wrap.
fn is_enabled(attributes: &KeyAttributes, now: u64) -> bool {
    let begun = attributes
        .not_before
        .is_none_or(|begins| u64::try_from(begins.unix_timestamp_nanos()).unwrap_or(0) <= now);
    // Said in every answer; what is not said is not taken for granted.
    begun && attributes.enabled == Some(true)
}

/// Whether a deletion can be undone, and whether nobody can make it final meanwhile.
/// <https://learn.microsoft.com/rest/api/keyvault/keys/get-key/get-key#deletionrecoverylevel>
fn recovery(level: Option<&DeletionRecoveryLevel>) -> (bool, bool) {
    use DeletionRecoveryLevel as Level;
    match level {
        Some(
            Level::Recoverable
            | Level::RecoverableProtectedSubscription
            | Level::CustomizedRecoverable
            | Level::CustomizedRecoverableProtectedSubscription,
        ) => (true, true),
        Some(Level::RecoverablePurgeable | Level::CustomizedRecoverablePurgeable) => (true, false),
        // A level that is not known is not taken for protection.
        Some(Level::Purgeable | Level::UnknownValue(_)) | None => (false, false),
    }
}

fn system_time(at: OffsetDateTime) -> Option<SystemTime> {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap_or(0);
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn described(kind: Kind, kty: &str, attributes: &str) -> Result<KekInfo, ProviderError> {
        let kid = "https://contoso.vault.azure.net/keys/orders/1a";
        let json = format!(r#"{{"key":{{"kid":"{kid}","kty":"{kty}"}},"attributes":{attributes}}}"#);
        let key: Key = serde_json::from_str(&json).unwrap();
        let place = Place::of(&azure_core::http::Url::parse("https://contoso.vault.azure.net").unwrap());
        of_key(&key, kind, &place, "orders", KekUri::new("azure-keyvault://h/orders").unwrap(), NOW)
    }

    #[test]
    fn every_recovery_level_says_what_a_deletion_means() {
        for (level, soft_delete, purge_protection) in [
            ("Purgeable", false, false),
            ("Recoverable+Purgeable", true, false),
            ("Recoverable", true, true),
            ("Recoverable+ProtectedSubscription", true, true),
            ("CustomizedRecoverable+Purgeable", true, false),
            ("CustomizedRecoverable", true, true),
            ("CustomizedRecoverable+ProtectedSubscription", true, true),
            ("Recoverable+Forever", false, false),
            ("", false, false),
        ] {
            let attributes = format!(r#"{{"enabled":true,"recoveryLevel":"{level}"}}"#);
            let info = described(Kind::Vault, "RSA", &attributes).unwrap();
            assert_eq!((info.soft_delete, info.purge_protection), (soft_delete, purge_protection), "{level}");
        }
        let info = described(Kind::Vault, "RSA", r#"{"enabled":true}"#).unwrap();
        assert!(!info.soft_delete && !info.purge_protection);
    }

    #[test]
    fn a_key_is_enabled_only_when_the_service_says_so_and_its_time_has_come() {
        for (attributes, enabled) in [
            (r#"{"enabled":true}"#, true),
            (r#"{"enabled":false}"#, false),
            ("{}", false),
            (r#"{"enabled":true,"nbf":1700000000}"#, true),
            (r#"{"enabled":true,"nbf":1700000001}"#, false),
            // Past its expiry: enabled all the same, because it still unwraps.
            (r#"{"enabled":true,"exp":1600000000}"#, true),
        ] {
            assert_eq!(described(Kind::Vault, "RSA", attributes).unwrap().enabled, enabled, "{attributes}");
        }
        let info = described(Kind::Vault, "RSA", r#"{"enabled":true,"exp":1600000000}"#).unwrap();
        assert_eq!(info.expires, Some(UNIX_EPOCH + Duration::from_secs(1_600_000_000)));
    }

    #[test]
    fn only_keys_that_wrap_with_the_algorithm_are_described() {
        let kinds = [Kind::Vault, Kind::ManagedHsm, Kind::ManagedHsmRsa];
        for (kty, backed) in [
            ("RSA", [Some(false), None, None]),
            ("RSA-HSM", [Some(true), None, Some(true)]),
            ("oct-HSM", [None, Some(true), None]),
            ("oct", [None; 3]),
            ("EC", [None; 3]),
            ("EC-HSM", [None; 3]),
        ] {
            for (kind, backed) in kinds.into_iter().zip(backed) {
                match described(kind, kty, r#"{"enabled":true}"#) {
                    Ok(info) => assert_eq!(info.hsm_backed, backed, "{kty} {kind:?}"),
                    Err(error) => {
                        assert_eq!(
                            (error.class(), backed),
                            (ErrorClass::Misconfigured, None),
                            "{kty} {kind:?}"
                        );
                    }
                }
            }
        }
    }
}
