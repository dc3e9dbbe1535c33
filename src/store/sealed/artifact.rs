//! Small named things in a sealed store: how a name and a version become a path and back. Imports: `error`.

use std::fmt;

use bytes::Bytes;

use crate::error::{Error, ErrorKind};

/// One version of an artifact: 1 for the first, one more with each change, deletions included. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArtifactVersion(u64);

impl ArtifactVersion {
    pub(crate) const FIRST: Self = Self(1);

    /// The version numbered `number`; zero is none.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number, at least 1.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// # Errors
    /// [`ErrorKind::Limit`] after 2^64.
    pub(crate) fn next(self) -> Result<Self, Error> {
        let next = self.0.checked_add(1).map(Self);
        next.ok_or_else(|| Error::new(ErrorKind::Limit, "an artifact cannot be changed any more"))
    }

    /// The last part of its path: of one length, so that versions are listed in order.
    pub(crate) fn to_segment(self) -> String {
        format!("{:020}", self.0)
    }

    pub(crate) fn from_segment(segment: &str) -> Option<Self> {
        let digits = segment.len() == 20 && segment.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| segment.parse().ok()).flatten().and_then(Self::new)
    }
}

impl fmt::Display for ArtifactVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An artifact as it was read.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Artifact {
    /// Which version it is: compare it where you know what to expect.
    pub version: ArtifactVersion,
    /// What was put.
    pub bytes: Bytes,
}

impl fmt::Debug for Artifact {
    /// Shows nothing of the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Artifact(version {}, {} bytes)", self.version, self.bytes.len())
    }
}

/// An artifact as a listing shows it: what the storage claims, and nothing proven.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArtifactInfo {
    /// Its name.
    pub name: String,
    /// The version.
    pub version: ArtifactVersion,
    /// How many bytes were put.
    pub size: u64,
}

/// The longest name of an artifact, in bytes: as a part of a path it is three times as long at most, which every storage takes.
pub(crate) const MAX_NAME: usize = 80;

/// `a` to `z`, `0` to `9`, `-` and `_` stand for themselves, every other byte is written `=xx`. No two names differ in case alone then, none is `.`
/// or `..`, and none has a slash.
///
/// # Errors
/// [`ErrorKind::Misuse`] unless the name is 1 to 80 bytes long.
pub(crate) fn to_segment(name: &str) -> Result<String, Error> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Error::new(ErrorKind::Misuse, "an artifact's name is 1 to 80 bytes long"));
    }
    let mut out = String::with_capacity(3 * name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("={byte:02x}")),
        }
    }
    Ok(out)
}

/// The name whose segment this is; `None` for what [`to_segment`] never writes.
pub(crate) fn from_segment(segment: &str) -> Option<String> {
    if segment.len() > 3 * MAX_NAME {
        return None;
    }
    let mut name = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                name.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            _ => name.push(byte),
        }
    }
    let name = String::from_utf8(name).ok()?;
    (to_segment(&name).ok()? == segment).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn g4_any_name_becomes_one_safe_segment_and_back(name in "\\PC{1,26}|[\\x00-\\x7f]{1,80}") {
            prop_assume!(name.len() <= MAX_NAME);
            let segment = to_segment(&name).unwrap();
            prop_assert!(segment.len() <= 240);
            prop_assert!(segment.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'=')));
            prop_assert_eq!(from_segment(&segment), Some(name));
        }

        #[test]
        fn g4_f2_no_segment_of_a_storage_panics(segment in "\\PC{0,300}|[=0-9a-fA-F]{0,20}") {
            if let Some(name) = from_segment(&segment) {
                prop_assert_eq!(to_segment(&name).unwrap(), segment);
            }
        }
    }

    #[test]
    fn g4_names_and_versions_are_bounded_and_written_in_one_way() {
        assert!(to_segment("").is_err() && to_segment(&"x".repeat(81)).is_err());
        assert_eq!(to_segment(&"x".repeat(80)).unwrap().len(), 80);
        assert_eq!(to_segment("../A b").unwrap(), "=2e=2e=2f=41=20b");
        for wrong in ["", ".", "a/b", "A", "=4", "=4A", "=61", "=ff", "=+1", "a b"] {
            assert_eq!(from_segment(wrong), None, "{wrong}");
        }
        let version = ArtifactVersion::new(42).unwrap();
        assert_eq!(version.to_segment(), "00000000000000000042");
        assert_eq!(ArtifactVersion::from_segment(&version.to_segment()), Some(version));
        for wrong in ["42", "00000000000000000000", "+0000000000000000042", "99999999999999999999", ""] {
            assert_eq!(ArtifactVersion::from_segment(wrong), None, "{wrong}");
        }
        assert!(ArtifactVersion::new(u64::MAX).unwrap().next().is_err());
        assert!(ArtifactVersion::new(0).is_none());
    }
}
