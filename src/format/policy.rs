//! What the customer lets the cache do with their key, as it stands in the record.
//!
//! Part of what the record's MAC covers. It can shorten what a cache would allow, never lengthen it. Imports:
//! `format::codec`, `error`.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::format::codec::{Reader, Writer};

/// The customer's terms for one account (contracts C5, E2, E6). By default the cache's settings hold, except that
/// grace for a whole outage needs the customer's consent.
///
/// ```
/// use std::time::Duration;
/// use strongroom::RecordPolicy;
///
/// let strict = RecordPolicy::default().with_max_grace(Duration::from_secs(60));
/// assert_eq!(strict.max_grace(), Some(Duration::from_secs(60)));
/// assert!(!strict.consents_to_whole_outage());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordPolicy {
    version_policy: VersionPolicy,
    max_grace: Option<GraceSeconds>,
    whole_outage: bool,
    limits: GenerationLimits,
}

/// Which versions of the KEK the account may move to (contract E2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VersionPolicy {
    /// New versions are found and adopted.
    #[default]
    Latest,
    /// The version that wrapped the AEK is the only one, until somebody says another.
    Pinned,
}

/// How much one generation may be used (contract E6). The defaults are the most that is allowed. Each process holds itself to them, by what it
/// has sealed itself: [`GenerationUse`](crate::GenerationUse) says since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationLimits {
    seals: u64,
    bytes: u64,
    age_days: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GraceSeconds(u32);

impl RecordPolicy {
    /// Allows at most this grace during an outage, whatever the cache is set to. Counted in whole seconds, rounded
    /// down; zero allows none.
    #[must_use]
    pub fn with_max_grace(mut self, grace: Duration) -> Self {
        // Cutting a longer grace short is safe, and 136 years are no outage.
        self.max_grace = Some(GraceSeconds(u32::try_from(grace.as_secs()).unwrap_or(u32::MAX)));
        self
    }

    /// Consents to grace for as long as an outage lasts, where the cache is set to that too.
    #[must_use]
    pub const fn with_whole_outage_consent(mut self) -> Self {
        self.whole_outage = true;
        self
    }

    /// Which versions of the KEK the account may move to.
    #[must_use]
    pub const fn with_version_policy(mut self, policy: VersionPolicy) -> Self {
        self.version_policy = policy;
        self
    }

    /// How much one generation may be used.
    #[must_use]
    pub const fn with_limits(mut self, limits: GenerationLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The most grace that the customer allows; `None` leaves it to the cache.
    #[must_use]
    pub fn max_grace(&self) -> Option<Duration> {
        self.max_grace.map(|GraceSeconds(seconds)| Duration::from_secs(seconds.into()))
    }

    /// Whether the customer consents to grace for as long as an outage lasts.
    #[must_use]
    pub const fn consents_to_whole_outage(&self) -> bool {
        self.whole_outage
    }

    /// Which versions of the KEK the account may move to.
    #[must_use]
    pub const fn version_policy(&self) -> VersionPolicy {
        self.version_policy
    }

    /// How much one generation may be used.
    #[must_use]
    pub const fn limits(&self) -> GenerationLimits {
        self.limits
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let Self { version_policy, max_grace, whole_outage, limits } = *self;
        let GenerationLimits { seals, bytes, age_days } = limits;
        let mut flags = 0;
        if max_grace.is_some() {
            flags |= FLAG_MAX_GRACE;
        }
        if whole_outage {
            flags |= FLAG_WHOLE_OUTAGE;
        }
        writer.u8(flags);
        writer.u8(match version_policy {
            VersionPolicy::Latest => LATEST,
            VersionPolicy::Pinned => PINNED,
        });
        writer.u32(max_grace.map_or(0, |GraceSeconds(seconds)| seconds));
        writer.u64(seals);
        writer.u64(bytes);
        writer.u32(age_days);
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let flags = reader.u8()?;
        if flags & !(FLAG_MAX_GRACE | FLAG_WHOLE_OUTAGE) != 0 {
            return Err(Error::new(ErrorKind::Format, "a record's policy has an unknown flag"));
        }
        let version_policy = match reader.u8()? {
            LATEST => VersionPolicy::Latest,
            PINNED => VersionPolicy::Pinned,
            _ => return Err(Error::new(ErrorKind::Format, "a record has an unknown version policy")),
        };
        let seconds = reader.u32()?;
        let max_grace = (flags & FLAG_MAX_GRACE != 0).then_some(GraceSeconds(seconds));
        if max_grace.is_none() && seconds != 0 {
            return Err(Error::new(ErrorKind::Format, "a record gives a grace that its flags deny"));
        }
        let (seals, bytes, age_days) = (reader.u64()?, reader.u64()?, reader.u32()?);
        let limits = GenerationLimits::checked(seals, bytes, age_days).ok_or_else(|| {
            Error::new(ErrorKind::Format, "a record's limit is zero or above the library's")
        })?;
        Ok(Self { version_policy, max_grace, whole_outage: flags & FLAG_WHOLE_OUTAGE != 0, limits })
    }
}

impl GenerationLimits {
    /// 2^48 blocks: far below where 96-bit nonces under fresh keys could matter.
    pub const MAX_SEALS: u64 = 1 << 48;
    /// 1 EiB of plaintext.
    pub const MAX_BYTES: u64 = 1 << 60;
    /// A year is the age that warns by default.
    pub const DEFAULT_AGE_DAYS: u32 = 365;
    /// The latest age that can be asked for: ten years.
    pub const MAX_AGE_DAYS: u32 = 3_650;

    /// At most `seals` blocks and `bytes` bytes of plaintext, and a warning at `age_days` days.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when one of them is zero or above its maximum here.
    pub fn new(seals: u64, bytes: u64, age_days: u32) -> Result<Self, Error> {
        Self::checked(seals, bytes, age_days)
            .ok_or_else(|| Error::new(ErrorKind::Misuse, "a generation's limit is zero or above its maximum"))
    }

    fn checked(seals: u64, bytes: u64, age_days: u32) -> Option<Self> {
        let allowed = (1..=Self::MAX_SEALS).contains(&seals)
            && (1..=Self::MAX_BYTES).contains(&bytes)
            && (1..=Self::MAX_AGE_DAYS).contains(&age_days);
        allowed.then_some(Self { seals, bytes, age_days })
    }

    /// Blocks that one generation may seal.
    #[must_use]
    pub const fn seals(&self) -> u64 {
        self.seals
    }

    /// Bytes of plaintext that one generation may seal.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The age of a generation that warns, in days.
    #[must_use]
    pub const fn age_days(&self) -> u32 {
        self.age_days
    }
}

impl Default for GenerationLimits {
    fn default() -> Self {
        Self { seals: Self::MAX_SEALS, bytes: Self::MAX_BYTES, age_days: Self::DEFAULT_AGE_DAYS }
    }
}

const FLAG_MAX_GRACE: u8 = 1;
const FLAG_WHOLE_OUTAGE: u8 = 1 << 1;
const LATEST: u8 = 1;
const PINNED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(policy: &RecordPolicy) -> Vec<u8> {
        let mut writer = Writer::default();
        policy.write(&mut writer);
        writer.into_bytes()
    }

    #[test]
    fn c5_a_policy_reads_back_what_it_writes() {
        let limits = GenerationLimits::new(1, 2, 3).unwrap();
        let policies = [
            RecordPolicy::default(),
            RecordPolicy::default().with_max_grace(Duration::ZERO),
            RecordPolicy::default().with_max_grace(Duration::MAX).with_whole_outage_consent(),
            RecordPolicy::default().with_version_policy(VersionPolicy::Pinned).with_limits(limits),
        ];
        for policy in policies {
            let bytes = encode(&policy);
            assert_eq!(bytes.len(), 1 + 1 + 4 + 8 + 8 + 4);
            assert_eq!(RecordPolicy::parse(&mut Reader::new(&bytes)).unwrap(), policy);
        }
    }

    #[test]
    fn c5_grace_is_rounded_down_and_zero_is_not_absent() {
        let policy = RecordPolicy::default().with_max_grace(Duration::from_millis(1_999));
        assert_eq!(policy.max_grace(), Some(Duration::from_secs(1)));
        let policy = RecordPolicy::default().with_max_grace(Duration::from_millis(999));
        assert_eq!(policy.max_grace(), Some(Duration::ZERO));
        assert_eq!(RecordPolicy::default().max_grace(), None);
    }

    #[test]
    fn f1_unknown_flags_policies_and_limits_are_refused() {
        let good = encode(&RecordPolicy::default());
        for (at, value) in [(0, 4), (0, 0x80), (1, 0), (1, 3), (5, 1), (6, 1), (14, 0xFF), (22, 0xFF)] {
            let mut bad = good.clone();
            bad[at] = value;
            let error = RecordPolicy::parse(&mut Reader::new(&bad)).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Format, "byte {at} = {value}");
        }
        for (seals, bytes, days) in [(0, 1, 1), (1, 0, 1), (1, 1, 0), ((1 << 48) + 1, 1, 1), (1, 1, 3_651)] {
            let error = GenerationLimits::new(seals, bytes, days).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Misuse);
        }
    }
}
