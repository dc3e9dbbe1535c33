//! KEKs on a token: an object for each version, found by label and id.
//!
//! A KEK's name is its objects' `CKA_LABEL`; a version is one object's `CKA_ID`, in lower-case hexadecimal. PKCS#11 keeps no
//! order of creation, so ids are numbers: big-endian, and the greatest is the current version. Imports: `provider`,
//! `provider::pkcs11::{algorithm, classify}`.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::super::{KekVersion, ProviderError};
use super::algorithm::Family;
use super::classify::Fault;

/// Which object of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The AES key, which does both.
    Secret,
    /// What unwraps with RSA.
    Private,
    /// What wraps with RSA.
    Public,
}

/// A version's `CKA_ID`: 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id(Vec<u8>);

/// What a key may be used for, as far as the token tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    encrypt: Option<bool>,
    decrypt: Option<bool>,
    wrap: Option<bool>,
    unwrap: Option<bool>,
}

impl Part {
    pub(super) const fn that_unwraps(family: Family) -> Self {
        match family {
            Family::Aes => Self::Secret,
            Family::Rsa => Self::Private,
        }
    }

    pub(super) const fn that_wraps(family: Family) -> Self {
        match family {
            Family::Aes => Self::Secret,
            Family::Rsa => Self::Public,
        }
    }

    fn template(self, name: &str) -> Vec<Attribute> {
        let (class, kind) = match self {
            Self::Secret => (ObjectClass::SECRET_KEY, KeyType::AES),
            Self::Private => (ObjectClass::PRIVATE_KEY, KeyType::RSA),
            Self::Public => (ObjectClass::PUBLIC_KEY, KeyType::RSA),
        };
        vec![
            Attribute::Class(class),
            Attribute::KeyType(kind),
            Attribute::Token(true),
            Attribute::Label(name.as_bytes().to_vec()),
        ]
    }
}

impl Id {
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, ProviderError> {
        if bytes.is_empty() || bytes.len() > MAX_ID {
            return Err(ProviderError::misconfigured(
                "an object with the KEK's label has no CKA_ID, or one over 128 bytes: give each version its own",
            ));
        }
        Ok(Self(bytes))
    }

    /// The id that `version` stands for. Strict, so that no two versions stand for one id.
    pub(super) fn of_version(version: &KekVersion) -> Result<Self, ProviderError> {
        let text = version.as_str().as_bytes();
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_chunks::<2>();
        let bytes: Option<Vec<u8>> =
            pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect();
        match bytes {
            Some(bytes) if rest.is_empty() && !bytes.is_empty() && bytes.len() <= MAX_ID => Ok(Self(bytes)),
            _ => Err(ProviderError::misconfigured(
                "a PKCS#11 version is its CKA_ID in lower-case hexadecimal: this is none",
            )),
        }
    }

    pub(super) fn to_version(&self) -> Result<KekVersion, ProviderError> {
        let mut text = String::with_capacity(2 * self.0.len());
        for byte in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        KekVersion::new(text)
    }

    /// The number that it is, without leading zeros; and then how many those were, so that no two ids are equal.
    pub(super) fn rank(&self) -> (usize, &[u8], usize) {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        let digits = &self.0[zeros..];
        (digits.len(), digits, zeros)
    }
}

/// The object of `name` with exactly this id.
pub(super) fn find(session: &Session, name: &str, id: &Id, part: Part) -> Result<ObjectHandle, Fault> {
    let mut template = part.template(name);
    template.push(Attribute::Id(id.0.clone()));
    match *objects(session, &template)? {
        [] => Err(Fault::Absent("the token has no key of that label and id")),
        [object] => Ok(object),
        _ => Err(ambiguous().into()),
    }
}

/// The object of `name` with the greatest id.
pub(super) fn find_current(session: &Session, name: &str, part: Part) -> Result<(Id, ObjectHandle), Fault> {
    let mut current: Option<(Id, ObjectHandle)> = None;
    for object in objects(session, &part.template(name))? {
        let attributes = session.get_attributes(object, &[AttributeType::Id])?;
        let Some(Attribute::Id(id)) = attributes.into_iter().next() else {
            return Err(Id::new(Vec::new()).err().unwrap_or_else(ambiguous).into());
        };
        let id = Id::new(id)?;
        match &current {
            Some((greatest, _)) if *greatest == id => return Err(ambiguous().into()),
            Some((greatest, _)) if greatest.rank() > id.rank() => {}
            _ => current = Some((id, object)),
        }
    }
    current.ok_or(Fault::Absent("the token has no key of that label"))
}

fn objects(session: &Session, template: &[Attribute]) -> Result<Vec<ObjectHandle>, Fault> {
    let found: Result<Vec<_>, _> = session.iter_objects(template)?.take(MAX_VERSIONS + 1).collect();
    let found = found?;
    if found.len() > MAX_VERSIONS {
        return Err(ProviderError::misconfigured("the token has more than 1024 versions of the KEK").into());
    }
    Ok(found)
}

fn ambiguous() -> ProviderError {
    ProviderError::misconfigured("the token has two keys of one label and id: which is meant cannot be told")
}

impl Rights {
    pub(super) fn of(session: &Session, object: ObjectHandle) -> Result<Self, Fault> {
        let asked =
            [AttributeType::Encrypt, AttributeType::Decrypt, AttributeType::Wrap, AttributeType::Unwrap];
        let mut rights = Self::default();
        for attribute in session.get_attributes(object, &asked)? {
            match attribute {
                Attribute::Encrypt(may) => rights.encrypt = Some(may),
                Attribute::Decrypt(may) => rights.decrypt = Some(may),
                Attribute::Wrap(may) => rights.wrap = Some(may),
                Attribute::Unwrap(may) => rights.unwrap = Some(may),
                _ => {}
            }
        }
        Ok(rights)
    }

    /// Whether the key may unwrap. What the token does not tell is taken for granted: the unwrap itself is the judge.
    pub(super) fn may_unwrap(self, as_objects: bool) -> bool {
        let right = if as_objects { self.unwrap } else { self.decrypt };
        right.unwrap_or(true)
    }

    /// Whether the key may wrap and unwrap.
    pub(super) fn may_both(self, as_objects: bool) -> bool {
        let right = if as_objects { self.wrap } else { self.encrypt };
        right.unwrap_or(true) && self.may_unwrap(as_objects)
    }
}

/// When the key expires: at the end of its `CKA_END_DATE`, in UTC. Advice: most tokens do not enforce it.
pub(super) fn expires(session: &Session, object: ObjectHandle) -> Option<SystemTime> {
    // A date that cannot be read is no date: it makes no token unusable.
    let attributes = session.get_attributes(object, &[AttributeType::EndDate]).ok()?;
    let Some(Attribute::EndDate(date)) = attributes.into_iter().next() else { return None };
    if date.is_empty() {
        return None;
    }
    end_of_date(&date.year, &date.month, &date.day)
}

/// Of a date in decimal digits, as tokens write it.
pub(super) fn end_of_date(year: &[u8], month: &[u8], day: &[u8]) -> Option<SystemTime> {
    // `parse` takes a sign, too.
    let number = |digits: &[u8]| {
        let all = digits.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(digits).ok().filter(|_| all)?.parse::<u32>().ok()
    };
    end_of_day(number(year)?, number(month)?, number(day)?)
}

/// Midnight after a day of the Gregorian calendar. `None` for what is no day, and before 1970.
fn end_of_day(year: u32, month: u32, day: u32) -> Option<SystemTime> {
    let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in = |month| match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=days_in(month)).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u64 = (1..month).map(|month| u64::from(days_in(month))).sum();
    Some(UNIX_EPOCH + Duration::from_secs((years + months + u64::from(day)) * 86_400))
}

const MAX_ID: usize = KekVersion::MAX_LEN / 2;
/// Of one KEK. Each costs a call to the token whenever the current one is looked for.
const MAX_VERSIONS: usize = 1024;
const _: () = assert!(MAX_ID == 128);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;

    #[test]
    fn a_version_is_its_id_and_nothing_else() {
        for bytes in [vec![0], vec![1, 0xAB], vec![0xFF; MAX_ID]] {
            let id = Id::new(bytes).expect("fits");
            assert_eq!(Id::of_version(&id.to_version().expect("fits")).expect("is one"), id);
        }
        for text in ["0", "0g", "AB", "no-such-version", "0 ", &"00".repeat(MAX_ID + 1)] {
            let Ok(version) = KekVersion::new(text) else { continue };
            let error = Id::of_version(&version).expect_err("not one");
            assert_eq!(error.class(), ErrorClass::Misconfigured, "{text}");
        }
        assert!(Id::new(Vec::new()).is_err() && Id::new(vec![1; MAX_ID + 1]).is_err());
    }

    #[test]
    fn the_greatest_number_is_current_whatever_its_length() {
        let ascending: [&[u8]; 6] = [&[0], &[1], &[0, 1], &[2], &[0, 255], &[1, 0]];
        for pair in ascending.windows(2) {
            let [lesser, greater] = pair else { continue };
            let rank = |bytes: &[u8]| Id::new(bytes.to_vec()).expect("fits");
            assert!(rank(lesser).rank() < rank(greater).rank(), "{pair:?}");
        }
    }

    #[test]
    fn a_key_expires_when_its_last_day_is_over() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(end_of_day(1970, 1, 1), at(86_400));
        assert_eq!(end_of_day(2000, 2, 29), at(951_868_800));
        assert_eq!(end_of_day(2026, 11, 23), at(1_795_478_400));
        for (year, month, day) in [(2026, 2, 29), (2026, 0, 1), (2026, 13, 1), (2026, 4, 31), (1969, 1, 1)] {
            assert_eq!(end_of_day(year, month, day), None);
        }
        assert_eq!(end_of_date(b"2026", b"11", b"23"), at(1_795_478_400));
        for (year, month, day) in [(b"2026", b"+1", b"23"), (b"+026", b"11", b"23"), (b"2026", b"11", b"  ")]
        {
            assert_eq!(end_of_date(year, month, day), None);
        }
    }
}
