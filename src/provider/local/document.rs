//! The content of a LocalKms file: a checked document, and its bytes.
//!
//! ```text
//! {"format":"strongroom-local-kms","version":1,"sha256":"<64 hex digits>"}\n
//! {"id":"<32 hex digits>","keys":[...]}\n
//! ```
//!
//! The checksum covers the second line without its line feed. It is there so that damage is seen as damage: a
//! flipped bit in a version's id must not look like a key that the customer purged. It keeps no attacker out, for
//! whoever can write the file holds the keys. Imports: `provider`, `error`,
//! `random`.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, ErrorKind};
use crate::provider::KekVersion;
use crate::random;

/// What a LocalKms file holds, checked: names and ids are unique, every key has a version, every number is in its
/// bounds.
///
/// Intentionally not `Clone`: it holds every KEK.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(with = "hex")]
    id: [u8; 16],
    pub(super) keys: Vec<Key>,
}

/// A KEK with all its versions, oldest first.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) enabled: bool,
    pub(super) purge_protection: bool,
    pub(super) retention_seconds: u64,
    /// Seconds since the Unix epoch; null for a key that is not deleted, and never left out.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) deleted_at: Option<u64>,
    pub(super) versions: Vec<Version>,
}

/// One version of a KEK.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Version {
    /// Random, so that a version of a key that was purged and made anew is never taken for an old one.
    #[serde(with = "hex")]
    id: [u8; 16],
    pub(super) enabled: bool,
    /// Seconds since the Unix epoch.
    pub(super) created_at: u64,
    material: Material,
}

/// 256 random bits: the KEK itself. Wiped when dropped, and on the heap: a document's vectors move their elements as
/// they grow, and what moves leaves a copy behind that nobody wipes.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Material(Box<[u8; 32]>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head<'a> {
    format: &'a str,
    version: u32,
    #[serde(with = "hex")]
    sha256: [u8; 32],
}

impl Document {
    /// A document without keys, under a new random id.
    pub(super) fn new() -> Self {
        let mut id = [0; 16];
        random::fill(&mut id);
        Self { id, keys: Vec::new() }
    }

    /// Reads and checks the bytes of a file. They may come from anywhere: nothing here panics on them.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_FILE {
            return Err(too_large());
        }
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let (Some(head), Some(body), Some([]), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(malformed("not a LocalKms file: it is not two lines"));
        };
        if head.len() > MAX_HEAD {
            return Err(malformed("not a LocalKms file: its first line is too long"));
        }
        let head: Head<'_> = serde_json::from_slice(head)
            .map_err(|_| malformed("not a LocalKms file: its first line is not a LocalKms header"))?;
        if head.format != FORMAT {
            return Err(malformed("not a LocalKms file"));
        }
        if head.version != VERSION {
            return Err(malformed(
                "the LocalKms file's version is not known to this release; use a newer one",
            ));
        }
        if head.sha256 != <[u8; 32]>::from(Sha256::digest(body)) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the LocalKms file is damaged: its checksum is wrong; restore it from a backup",
            ));
        }
        let document: Self = serde_json::from_slice(body)
            .map_err(|_| malformed("not a LocalKms file: its second line is not a list of keys"))?;
        // JSON says one thing in many ways: spaces, escapes, arrays for objects. Here every document has one encoding.
        if *document.to_bytes()? != bytes {
            return Err(malformed("not a LocalKms file: it is not written as a LocalKms writes"));
        }
        Ok(document)
    }

    /// The bytes of the file, wiped when dropped.
    pub(super) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.check()?;
        // Grown once, because growth leaves copies of keys behind. The limits in `check` keep this within memory.
        let versions: usize = self.keys.iter().map(|key| key.versions.len()).sum();
        let names: usize = self.keys.iter().map(|key| key.name.len() * MAX_ESCAPE).sum();
        let room = MAX_HEAD + names + self.keys.len() * KEY_ROOM + versions * VERSION_ROOM;
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *body, self).expect("writing these types to memory cannot fail");
        let head = Head { format: FORMAT, version: VERSION, sha256: Sha256::digest(&body[..]).into() };
        let head = serde_json::to_vec(&head).expect("writing these types to memory cannot fail");
        debug_assert!(body.len() <= room && head.len() <= MAX_HEAD, "the estimate holds");

        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + body.len() + 2));
        for line in [&head[..], &body[..]] {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        if bytes.len() > MAX_FILE { Err(too_large()) } else { Ok(bytes) }
    }

    /// Makes sure that all of it can be closed without passing the limit of a file, though what is closed takes more
    /// bytes: a full file must not keep a key from being taken away.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`].
    pub(super) fn check_room(&self) -> Result<(), Error> {
        let versions: usize = self.keys.iter().map(|key| key.versions.len()).sum();
        let growth = self.keys.len() * KEY_GROWTH + versions * VERSION_GROWTH;
        if self.to_bytes()?.len() + growth > MAX_FILE { Err(too_large()) } else { Ok(()) }
    }

    /// Which file this is, wherever it lies: the endpoint in its keys' URIs.
    pub(super) fn id(&self) -> String {
        hex::Hex(&self.id).to_string()
    }

    pub(super) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    pub(super) fn key_mut(&mut self, name: &str) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.name == name)
    }

    fn check(&self) -> Result<(), Error> {
        if self.keys.len() > MAX_KEYS {
            return Err(too_large());
        }
        let mut names = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for key in &self.keys {
            if !names.insert(&key.name) {
                return Err(malformed("not a LocalKms file: two keys have one name"));
            }
            if !is_name(&key.name) {
                return Err(malformed("not a LocalKms file: a key's name is not valid"));
            }
            if !(MIN_RETENTION..=MAX_RETENTION).contains(&key.retention_seconds) {
                return Err(malformed("not a LocalKms file: a key's retention is out of its bounds"));
            }
            if key.versions.is_empty() {
                return Err(malformed("not a LocalKms file: a key has no version"));
            }
            if key.versions.len() > MAX_VERSIONS {
                return Err(too_large());
            }
            if !key.versions.iter().all(|version| ids.insert(version.id)) {
                return Err(malformed("not a LocalKms file: two versions have one id"));
            }
        }
        Ok(())
    }
}

impl Key {
    /// The version that a wrap without a pin uses.
    pub(super) fn current(&self) -> &Version {
        self.versions.last().expect("a checked key has a version, and none is ever removed")
    }

    pub(super) fn version(&self, name: &KekVersion) -> Option<&Version> {
        self.versions.iter().find(|version| version.is(name))
    }

    pub(super) fn version_mut(&mut self, name: &KekVersion) -> Option<&mut Version> {
        self.versions.iter_mut().find(|version| version.is(name))
    }
}

impl Version {
    /// A new random KEK.
    pub(super) fn generate(created_at: u64) -> Self {
        let mut version =
            Self { id: [0; 16], enabled: true, created_at, material: Material(Box::new([0; 32])) };
        random::fill(&mut version.id);
        random::fill(&mut *version.material.0);
        version
    }

    pub(super) fn name(&self) -> KekVersion {
        KekVersion::new(hex::Hex(&self.id).to_string()).expect("32 digits are short and printable")
    }

    /// The KEK. It never leaves this provider.
    pub(super) fn material(&self) -> &[u8; 32] {
        &self.material.0
    }

    fn is(&self, name: &KekVersion) -> bool {
        hex::decode(name.as_str()) == Some(self.id)
    }
}

impl Serialize for Material {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        hex::serialize(&self.0, out)
    }
}

impl<'de> Deserialize<'de> for Material {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        hex::deserialize(from).map(|bytes| Self(Box::new(bytes)))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("id", &self.id()).field("keys", &self.keys.len()).finish()
    }
}

/// Whether `name` may name a key here: 1 to [`MAX_NAME`] bytes, no control characters.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

const fn malformed(message: &'static str) -> Error {
    Error::new(ErrorKind::Format, message)
}

const fn too_large() -> Error {
    Error::new(
        ErrorKind::Limit,
        "a LocalKms file holds at most 1 MiB, 1000 keys and 1000 versions of each; purge keys, or use a second file",
    )
}

/// Byte strings as lower-case hexadecimal digits, written and read without a copy on the heap.
mod hex {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) struct Hex<'a>(pub(super) &'a [u8]);

    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }

    pub(super) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
        let digits = text.as_bytes();
        if digits.len() != 2 * N {
            return None;
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(bytes)
    }

    const fn digit(digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(&Hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        struct Digits<const N: usize>;

        impl<const N: usize> Visitor<'_> for Digits<N> {
            type Value = [u8; N];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} lower-case hexadecimal digits", 2 * N)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<[u8; N], E> {
                decode(text).ok_or_else(|| E::custom("not that many hexadecimal digits"))
            }
        }

        from.deserialize_str(Digits)
    }
}

const FORMAT: &str = "strongroom-local-kms";
const VERSION: u32 = 1;

/// The longest file that is read or written, in bytes.
pub(super) const MAX_FILE: usize = 1 << 20;
/// The longest first line, in bytes.
const MAX_HEAD: usize = 256;
/// The most keys in a file, deleted ones included.
pub(super) const MAX_KEYS: usize = 1000;
/// The most versions of a key.
pub(super) const MAX_VERSIONS: usize = 1000;
/// The longest name of a key, in bytes.
const MAX_NAME: usize = 128;
const DAY: u64 = 24 * 3600;
/// The shortest and the longest retention of a deleted key, in seconds: 7 and 90 days, as at Azure Key Vault.
pub(super) const MIN_RETENTION: u64 = 7 * DAY;
pub(super) const MAX_RETENTION: u64 = 90 * DAY;

/// What JSON may make of one byte of a name.
const MAX_ESCAPE: usize = 6;
/// More than a key takes beside its name and versions, and more than a version takes.
const KEY_ROOM: usize = 256;
const VERSION_ROOM: usize = 256;
/// `false` for `true`, which is all that a version can grow by.
const VERSION_GROWTH: usize = 1;
/// The same, and the 20 digits of 2^64 - 1 for `null`.
const KEY_GROWTH: usize = VERSION_GROWTH + 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Document {
        let mut document = Document::new();
        for name in ["orders", "team/\"bills\"", "ключ"] {
            let versions = vec![Version::generate(1), Version::generate(u64::MAX)];
            document.keys.push(Key { deleted_at: Some(7), versions, ..key(name, 0) });
        }
        document
    }

    fn key(name: &str, versions: usize) -> Key {
        Key {
            name: name.to_owned(),
            enabled: true,
            purge_protection: true,
            retention_seconds: MIN_RETENTION,
            deleted_at: None,
            versions: (0..versions).map(|_| Version::generate(1)).collect(),
        }
    }

    fn with_head(head: &str, body: &str) -> Vec<u8> {
        let sum = Sha256::digest(body.as_bytes());
        let head = head.replace("SUM", &hex::Hex(&sum).to_string());
        format!("{head}\n{body}\n").into_bytes()
    }

    const HEAD: &str = r#"{"format":"strongroom-local-kms","version":1,"sha256":"SUM"}"#;
    const EMPTY: &str = r#"{"id":"000102030405060708090a0b0c0d0e0f","keys":[]}"#;

    #[test]
    fn b2_parse_then_write_gives_the_same_bytes() {
        for document in [Document::new(), sample()] {
            let bytes = document.to_bytes().expect("within limits");
            let again = Document::parse(&bytes).expect("parses").to_bytes().expect("within limits");
            assert_eq!(*bytes, *again);
        }
        let fixed = with_head(HEAD, EMPTY);
        assert_eq!(*Document::parse(&fixed).expect("parses").to_bytes().expect("writes"), fixed);
    }

    #[test]
    fn b2_every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = sample().to_bytes().expect("within limits");
        for end in 0..bytes.len() {
            Document::parse(&bytes[..end]).expect_err("truncated");
        }
        let mut bytes = bytes;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                assert!(Document::parse(&bytes).is_err(), "byte {at} bit {bit}");
                bytes[at] ^= 1 << bit;
            }
        }
        bytes.push(b'\n');
        Document::parse(&bytes).expect_err("trailing bytes");
    }

    #[test]
    fn b2_a_right_checksum_does_not_excuse_wrong_content() {
        let key = |keys: &str| {
            let id = "000102030405060708090a0b0c0d0e0f";
            let material = "11".repeat(32);
            let version = format!(r#"{{"id":"{id}","enabled":true,"created_at":1,"material":"{material}"}}"#);
            let key = r#"{"name":"a","enabled":true,"purge_protection":true,"retention_seconds":604800,"deleted_at":null,"versions":[V]}"#;
            let body = format!(r#"{{"id":"{id}","keys":[{}]}}"#, keys.replace("KEY", key));
            body.replace('V', &version)
        };
        Document::parse(&with_head(HEAD, &key("KEY"))).expect("the pattern itself is valid");
        let wrong = [
            (HEAD.replace(":1,", ":2,"), EMPTY.to_owned()),
            (HEAD.replace("local", "other"), EMPTY.to_owned()),
            (HEAD.replace("{\"f", "{\"x\":1,\"f"), EMPTY.to_owned()),
            (format!("{HEAD}{}", " ".repeat(MAX_HEAD)), EMPTY.to_owned()),
            (HEAD.to_owned(), EMPTY.replace("\"keys\"", "\"more\":1,\"keys\"")),
            (HEAD.to_owned(), EMPTY.replace("0f\"", "0F\"")),
            (HEAD.to_owned(), format!("{EMPTY} 1")),
            (HEAD.to_owned(), "[".repeat(100_000)),
            (HEAD.to_owned(), key("KEY,KEY")),
            (HEAD.to_owned(), key("KEY").replace("\"a\"", "\"\"")),
            (HEAD.to_owned(), key("KEY").replace(r#""deleted_at":null,"#, "")),
            (
                HEAD.to_owned(),
                key("KEY").split("[{\"id\"").next().map(|start| format!("{start}[]}}]}}")).unwrap(),
            ),
            (HEAD.to_owned(), key("KEY").replace("\"a\"", &format!("\"{}\"", "a".repeat(MAX_NAME + 1)))),
            (HEAD.to_owned(), key("KEY").replace("\"a\"", "\"a\\u0000\"")),
            (HEAD.to_owned(), key("KEY").replace("604800", "604799")),
            (HEAD.to_owned(), key("KEY").replace("604800", "18446744073709551616")),
            (HEAD.to_owned(), key("KEY").replace("604800", "-1")),
            (HEAD.to_owned(), key("KEY").replace("1111", "11")),
            (HEAD.to_owned(), EMPTY.replace("\"keys\":", "\"keys\": ")),
            (HEAD.to_owned(), r#"["000102030405060708090a0b0c0d0e0f",[]]"#.to_owned()),
            (HEAD.to_owned(), key("KEY").replace("\"a\"", "\"\\u0061\"")),
        ];
        for (head, body) in wrong {
            assert!(Document::parse(&with_head(&head, &body)).is_err(), "{head}\n{body:.200}");
        }
    }

    #[test]
    fn b2_limits_are_checked_before_writing() {
        let mut document = sample();
        document.keys[0].versions = (0..=MAX_VERSIONS).map(|_| Version::generate(1)).collect();
        assert!(document.to_bytes().is_err_and(|error| error.kind() == ErrorKind::Limit));
        document.keys[0].versions.pop();
        document.to_bytes().expect("exactly the limit");
        document.keys = (0..=MAX_KEYS).map(|name| key(&name.to_string(), 1)).collect();
        assert!(document.to_bytes().is_err_and(|error| error.kind() == ErrorKind::Limit));
        document.keys.pop();
        document.to_bytes().expect("exactly the limit");
        assert!(
            Document::parse(&vec![b' '; MAX_FILE + 1]).is_err_and(|error| error.kind() == ErrorKind::Limit)
        );
    }

    #[test]
    fn b2_d1_a_full_file_can_still_be_closed() {
        let of = |versions: usize| {
            let mut document = Document::new();
            document.keys = (0..8_u8).map(|name| key(&name.to_string(), versions)).collect();
            document
        };
        let close = |mut document: Document| {
            for key in &mut document.keys {
                (key.enabled, key.deleted_at) = (false, Some(u64::MAX));
                key.versions.iter_mut().for_each(|version| version.enabled = false);
            }
            document.to_bytes().map(drop)
        };
        let counts: Vec<usize> = (1..=MAX_VERSIONS).collect();
        let fits = counts.partition_point(|versions| of(*versions).to_bytes().is_ok());
        let may_grow_to = counts.partition_point(|versions| of(*versions).check_room().is_ok());
        assert!(
            close(of(fits)).is_err_and(|error| error.kind() == ErrorKind::Limit),
            "the reserve is needed"
        );
        close(of(may_grow_to)).expect("the reserve is enough");
    }

    #[test]
    fn f2_format_md_has_every_limit_of_the_file_with_its_value() {
        let format = include_str!("../../../docs/FORMAT.md");
        for (name, value) in [
            ("MAX_FILE", MAX_FILE),
            ("MAX_HEAD", MAX_HEAD),
            ("MAX_KEYS", MAX_KEYS),
            ("MAX_VERSIONS", MAX_VERSIONS),
            ("MAX_NAME", MAX_NAME),
            ("MIN_RETENTION", usize::try_from(MIN_RETENTION).unwrap()),
            ("MAX_RETENTION", usize::try_from(MAX_RETENTION).unwrap()),
        ] {
            let row = format!("| `{name}` | {value} |");
            assert!(format.contains(&row), "{row}");
        }
    }

    #[test]
    fn d3_a_key_stays_in_its_place_when_its_version_moves() {
        let version = Version::generate(1);
        let place = version.material().as_ptr();
        let mut moved = Vec::with_capacity(1);
        moved.push(version);
        moved.reserve(1000);
        assert_eq!(moved[0].material().as_ptr(), place, "a move leaves no copy behind");
    }

    #[test]
    fn debug_shows_no_key() {
        let document = sample();
        let shown = format!("{document:?}");
        let secret = hex::Hex(document.keys[0].current().material()).to_string();
        assert!(!shown.contains(&secret[..8]), "{shown}");
    }
}
