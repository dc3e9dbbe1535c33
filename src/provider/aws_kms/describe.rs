//! What AWS KMS says of a key, in this library's words. Imports: `provider`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_kms::operation::get_key_rotation_status::GetKeyRotationStatusOutput;
use aws_sdk_kms::primitives::DateTime;
use aws_sdk_kms::types::{ExpirationModelType, KeyMetadata, KeySpec, KeyState, KeyUsageType, OriginType};

use super::name::{KeyArn, Name, Version};
use crate::provider::{KekInfo, KekUri, ProviderError};

/// A key as DescribeKey shows it.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) version: Version,
    metadata: KeyMetadata,
}

/// How the key material of a KEK is rotated: [`AwsKms::rotation`](super::AwsKms::rotation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotationStatus {
    /// Whether AWS makes new key material by itself.
    pub automatic: bool,
    /// How often it does, in days.
    pub period_days: Option<u32>,
    /// When it does so next.
    pub next: Option<SystemTime>,
    /// When a rotation on demand began that is still under way.
    pub on_demand_since: Option<SystemTime>,
}

impl Described {
    /// Checks that it is a key to wrap with, and the one that was asked for.
    pub(super) fn new(
        metadata: Option<KeyMetadata>,
        name: &Name,
        region: &str,
    ) -> Result<Self, ProviderError> {
        let metadata = metadata
            .ok_or_else(|| ProviderError::integrity("kms:DescribeKey: the answer describes nothing"))?;
        let arn = KeyArn::parse(metadata.arn())?;
        name.check(&arn, region)?;
        if metadata.key_id() != arn.key_id {
            return Err(ProviderError::integrity("kms:DescribeKey: the key's id and its ARN differ"));
        }
        let encrypts = metadata.key_usage().is_none_or(|usage| *usage == KeyUsageType::EncryptDecrypt);
        let symmetric = metadata.key_spec().is_none_or(|spec| *spec == KeySpec::SymmetricDefault);
        if !encrypts || !symmetric {
            return Err(ProviderError::misconfigured(
                "the KEK is not a symmetric encryption key (ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT)",
            ));
        }
        let version = Version::new(&arn.key_id, metadata.current_key_material_id())?;
        Ok(Self { version, metadata })
    }

    /// `version` is the one that was asked for: it stands or falls with its key.
    pub(super) fn info(&self, uri: KekUri, version: &Version) -> Result<KekInfo, ProviderError> {
        let key = &self.metadata;
        let mut info = KekInfo::new(uri, version.to_kek_version()?);
        info.enabled = match key.key_state() {
            Some(KeyState::Enabled | KeyState::Updating) => true,
            Some(_) => false,
            None => key.enabled(),
        };
        let expires = *key.expiration_model().unwrap_or(&ExpirationModelType::KeyMaterialExpires)
            == ExpirationModelType::KeyMaterialExpires;
        info.expires = key.valid_to().filter(|_| expires).and_then(time);
        // Every deletion of a KMS key waits for 7 to 30 days, and nobody can cut that short. Of an external key
        // manager's own deletions AWS knows nothing.
        info.soft_delete = true;
        info.purge_protection = key.origin() != Some(&OriginType::ExternalKeyStore);
        info.hsm_backed = match key.origin() {
            Some(OriginType::AwsKms | OriginType::AwsCloudhsm | OriginType::External) => Some(true),
            _ => None,
        };
        Ok(info)
    }
}

impl RotationStatus {
    pub(super) fn new(answer: &GetKeyRotationStatusOutput) -> Self {
        Self {
            automatic: answer.key_rotation_enabled(),
            period_days: answer.rotation_period_in_days().and_then(|days| u32::try_from(days).ok()),
            next: answer.next_rotation_date().and_then(time),
            on_demand_since: answer.on_demand_rotation_start_date().and_then(time),
        }
    }
}

/// A time before 1970 is none that a service would mean.
fn time(at: &DateTime) -> Option<SystemTime> {
    let seconds = u64::try_from(at.secs()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
