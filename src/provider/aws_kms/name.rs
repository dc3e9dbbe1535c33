//! How AWS names keys, and how a record names the exact one that wrapped. Imports: `provider`.
//!
//! ```text
//! name     1234abcd-12ab-..   mrk-1234..   alias/orders   arn:aws:kms:REGION:ACCOUNT:key/..   arn:..:alias/orders
//! version  KEY-ID             or KEY-ID/KEY-MATERIAL-ID where the service names the material
//! ```
//! A version holds no account: where a name leads to another account, the *name* says which, and a name is what
//! the embedder allowed. Whoever replaces a record could otherwise lead an alias to a key of their own.

use crate::provider::{KekVersion, ProviderError};

/// A KEK's name, as the embedder gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    text: String,
    /// `arn:PARTITION:kms:REGION:ACCOUNT:`, where the name is an ARN.
    prefix: Option<String>,
    key_id: Option<String>,
}

/// The key that wrapped, and which of its key materials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) key_id: String,
    pub(super) material: Option<String>,
}

/// What an answer calls a key: its ARN in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyArn {
    prefix: String,
    region: String,
    pub(super) key_id: String,
}

impl Name {
    /// Parses a name for a client of `region`.
    pub(super) fn parse(text: &str, region: &str) -> Result<Self, ProviderError> {
        let owned = || text.to_owned();
        if text.len() > MAX_NAME || text.contains(char::is_whitespace) {
            return Err(ProviderError::misconfigured("the KEK's name is too long or has blanks in it"));
        }
        if let Some(parts) = arn(text) {
            if parts.region != region {
                return Err(ProviderError::misconfigured(
                    "the KEK's ARN belongs to another region than the client",
                ));
            }
            let key_id = parts.resource.strip_prefix("key/").map(str::to_owned);
            let known = key_id.as_deref().map_or_else(|| parts.resource.starts_with(ALIAS), is_key_id);
            if !known {
                return Err(ProviderError::misconfigured(
                    "the KEK's ARN is that of neither a key nor an alias",
                ));
            }
            return Ok(Self { text: owned(), prefix: Some(parts.prefix.to_owned()), key_id });
        }
        if text.len() > ALIAS.len() && text.starts_with(ALIAS) {
            return Ok(Self { text: owned(), prefix: None, key_id: None });
        }
        if is_key_id(text) {
            return Ok(Self { text: owned(), prefix: None, key_id: Some(owned()) });
        }
        Err(ProviderError::misconfigured("the KEK's name is no key id, key ARN, alias or alias ARN"))
    }

    /// What to ask the service with.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// How the key of `version` is addressed: by its id, in the account that the name itself means.
    pub(super) fn address_of(&self, version: &Version) -> Result<String, ProviderError> {
        if self.key_id.as_ref().is_some_and(|id| *id != version.key_id) {
            return Err(ProviderError::misconfigured(
                "the version is one of another key than the KEK's name says",
            ));
        }
        let prefix = self.prefix.as_deref();
        Ok(prefix.map_or_else(|| version.key_id.clone(), |prefix| format!("{prefix}key/{}", version.key_id)))
    }

    /// Whether the key that answered can be the one that this name means.
    pub(super) fn check(&self, answered: &KeyArn, region: &str) -> Result<(), ProviderError> {
        let same_place = match &self.prefix {
            Some(prefix) => *prefix == answered.prefix,
            None => answered.region == region,
        };
        if same_place && self.key_id.as_ref().is_none_or(|id| *id == answered.key_id) {
            return Ok(());
        }
        Err(ProviderError::integrity("another key answered than the one that was asked for"))
    }
}

impl KeyArn {
    /// Parses what an answer says.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, ProviderError> {
        let wrong = || ProviderError::integrity("the answer does not name the key by its ARN");
        let parts = text.and_then(arn).ok_or_else(wrong)?;
        let key_id = parts.resource.strip_prefix("key/").filter(|id| is_key_id(id)).ok_or_else(wrong)?;
        Ok(Self {
            prefix: parts.prefix.to_owned(),
            region: parts.region.to_owned(),
            key_id: key_id.to_owned(),
        })
    }
}

impl Version {
    /// The version that an answer names.
    pub(super) fn new(key_id: &str, material: Option<&str>) -> Result<Self, ProviderError> {
        if !is_key_id(key_id) || !material.is_none_or(is_key_id) {
            return Err(ProviderError::integrity(
                "the answer names a key or key material in an unknown form",
            ));
        }
        Ok(Self { key_id: key_id.to_owned(), material: material.map(str::to_owned) })
    }

    /// The version that a record or the embedder names.
    pub(super) fn parse(version: &KekVersion) -> Result<Self, ProviderError> {
        let (key_id, material) = match version.as_str().split_once('/') {
            Some((key_id, material)) => (key_id, Some(material)),
            None => (version.as_str(), None),
        };
        Self::new(key_id, material)
            .map_err(|_| ProviderError::misconfigured("the KEK's version is not one of AWS KMS"))
    }

    /// As it stands in records.
    pub(super) fn to_kek_version(&self) -> Result<KekVersion, ProviderError> {
        KekVersion::new(match &self.material {
            Some(material) => format!("{}/{material}", self.key_id),
            None => self.key_id.clone(),
        })
    }
}

/// The parts of an ARN of AWS KMS.
struct ArnParts<'t> {
    /// Up to the resource, with its last colon.
    prefix: &'t str,
    region: &'t str,
    resource: &'t str,
}

fn arn(text: &str) -> Option<ArnParts<'_>> {
    let mut parts = text.splitn(6, ':');
    let (scheme, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = scheme == "arn" && !partition.is_empty() && service == "kms" && !region.is_empty();
    let account_id = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = &text[..text.len() - resource.len()];
    (whole && account_id && resource.len() > ALIAS.len()).then_some(ArnParts { prefix, region, resource })
}

/// Key ids and ids of key material: letters, digits, dashes.
fn is_key_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.len() <= MAX_ID && text.bytes().all(plain)
}

const ALIAS: &str = "alias/";
/// The service's own bound is 2,048 bytes; that of a [`KekUri`](crate::provider::KekUri) is lower.
const MAX_NAME: usize = 1024;
/// Two of them and a slash fit a [`KekVersion`].
const MAX_ID: usize = 127;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;

    const REGION: &str = "eu-west-1";
    const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
    const ARN: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const ALIAS_ARN: &str = "arn:aws:kms:eu-west-1:111122223333:alias/orders";

    fn version(text: &str) -> Version {
        Version::parse(&KekVersion::new(text).unwrap()).unwrap()
    }

    #[test]
    fn each_kind_of_name_addresses_the_exact_key() {
        for (name, address) in [(KEY, KEY), (ARN, ARN), ("alias/orders", KEY), (ALIAS_ARN, ARN)] {
            let name = Name::parse(name, REGION).unwrap();
            assert_eq!(name.address_of(&version(KEY)).unwrap(), address);
            assert_eq!(name.address_of(&version(&format!("{KEY}/0af3"))).unwrap(), address);
        }
    }

    #[test]
    fn a_multi_region_key_is_addressed_in_the_clients_region_only() {
        let key = "mrk-1234abcd12ab34cd56ef1234567890ab";
        let arn = format!("arn:aws:kms:{REGION}:111122223333:key/{key}");
        for named in [key, arn.as_str()] {
            let name = Name::parse(named, REGION).unwrap();
            assert_eq!(name.address_of(&version(key)).unwrap(), named);
            name.check(&KeyArn::parse(Some(&arn)).unwrap(), REGION).unwrap();
            let replica = KeyArn::parse(Some(&arn.replace(REGION, "us-east-1"))).unwrap();
            assert_eq!(name.check(&replica, REGION).unwrap_err().class(), ErrorClass::Integrity);
        }
        let elsewhere = Name::parse(&arn, "us-east-1").unwrap_err();
        assert_eq!(elsewhere.class(), ErrorClass::Misconfigured);
    }

    #[test]
    fn a_name_that_is_none_or_of_another_region_is_misconfigured() {
        let elsewhere = ARN.replace("eu-west-1", "us-east-1");
        let long = "a".repeat(128);
        let names = [
            "",
            "alias/",
            "a b",
            "key/1",
            "arn:aws:kms:eu-west-1:1:key/1",
            "arn:aws:s3:eu-west-1:111122223333:key/1a2b",
            "arn:aws:kms:eu-west-1:111122223333:grant/1a2b",
            &elsewhere,
            &long,
        ];
        for name in names {
            let error = Name::parse(name, REGION).expect_err(name);
            assert_eq!(error.class(), ErrorClass::Misconfigured, "{name}");
        }
    }

    #[test]
    fn a8_a_version_cannot_lead_to_another_key_or_account() {
        let other = version("ffffffff-12ab-34cd-56ef-1234567890ab");
        for name in [KEY, ARN] {
            let error = Name::parse(name, REGION).unwrap().address_of(&other).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Misconfigured);
        }
        // A record cannot say an account: an ARN is no version.
        let error = Version::parse(&KekVersion::new(ARN).unwrap()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Misconfigured);
        let theirs = Name::parse(ALIAS_ARN, REGION).unwrap().address_of(&other).unwrap();
        assert!(theirs.starts_with("arn:aws:kms:eu-west-1:111122223333:key/"), "in the alias's own account");
    }

    #[test]
    fn another_key_that_answers_is_seen() {
        let answered = |text: &str| KeyArn::parse(Some(text)).unwrap();
        let other_account = ARN.replace("111122223333", "999988887777");
        let other_key = ARN.replace("1234abcd", "ffffffff");
        let other_region = ARN.replace("eu-west-1", "us-east-1");
        for name in [KEY, ARN, "alias/orders", ALIAS_ARN] {
            Name::parse(name, REGION).unwrap().check(&answered(ARN), REGION).unwrap();
        }
        for (name, key) in [
            (KEY, &other_key),
            (ARN, &other_key),
            (ARN, &other_account),
            (ALIAS_ARN, &other_account),
            ("alias/orders", &other_region),
            (KEY, &other_region),
        ] {
            let error = Name::parse(name, REGION).unwrap().check(&answered(key), REGION).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Integrity, "{name} {key}");
        }
        for text in [None, Some(""), Some(KEY), Some(ALIAS_ARN)] {
            assert!(KeyArn::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn versions_parse_and_write_alike() {
        for text in [
            KEY.to_owned(),
            "mrk-1234abcd12ab34cd56ef1234567890ab".to_owned(),
            format!("{KEY}/{}", "0f".repeat(32)),
        ] {
            assert_eq!(version(&text).to_kek_version().unwrap().as_str(), text);
        }
        for text in ["/", "a/", "/a", "a/b/c", "a b", "alias/orders/x"] {
            assert!(Version::parse(&KekVersion::new(text).unwrap()).is_err(), "{text}");
        }
    }
}
