//! The names of things: accounts, objects, blocks, generations.
//!
//! Every type here is a newtype with private fields, so that two integers or two
//! 16-byte names can never be passed in each other's place. Imports: `random`, `error`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::random;

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Draws 128 random bits from the operating system.
            #[must_use]
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                random::fill(&mut bytes);
                Self(bytes)
            }

            /// The id with exactly these 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of this id, as they stand in every format.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads the 32 hexadecimal digits that `Display` writes.
            fn from_str(text: &str) -> Result<Self, Error> {
                parse_hex16(text).map(Self).ok_or_else(|| {
                    Error::new(ErrorKind::Misuse, concat!($what, " is written as 32 hexadecimal digits"))
                })
            }
        }
    };
}

id16! {
    /// The unit of protection: everything under one AEK and its generations.
    AccountId, "an account id"
}

id16! {
    /// One stored thing made of blocks: a file, a table segment, a page file.
    ///
    /// A new version of an object gets a new id, so that blocks of the old version do not verify in it.
    ObjectId, "an object id"
}

id16! {
    /// A body of data whose writes can move between a service-managed account and a customer's: see [`store::Scope`](crate::store::Scope).
    ScopeId, "a scope id"
}

id16! {
    /// One [`Operation`](crate::Operation).
    OperationId, "an operation's id"
}

id16! {
    /// What an [`Operation`](crate::Operation) works on: an account, or something that the embedder has a name for. Two operations on
    /// one target are in conflict.
    OperationTarget, "an operation's target"
}

impl From<AccountId> for OperationTarget {
    fn from(account: AccountId) -> Self {
        Self(*account.as_bytes())
    }
}

/// Where a block belongs: the object, and its index within it. Bound into the block's key and
/// into what is authenticated, so a block opens in its own place only (contract F3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId {
    object: ObjectId,
    index: u64,
}

impl BlockId {
    /// Block `index` of `object`.
    #[must_use]
    pub const fn new(object: ObjectId, index: u64) -> Self {
        Self { object, index }
    }

    /// The object that the block belongs to.
    #[must_use]
    pub const fn object(&self) -> ObjectId {
        self.object
    }

    /// The block's position within its object, counted from zero.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }
}

/// Bytes of the caller's that are authenticated with a block but not stored: a tenant, a table,
/// a version. Opening needs the same bytes again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Aad<'a>(&'a [u8]);

impl<'a> Aad<'a> {
    /// Authenticates nothing beyond the block's own identity.
    pub const EMPTY: Aad<'static> = Aad(&[]);

    /// Authenticates `bytes` with the block.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The caller's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Aad<'_> {
    /// Shows nothing: it may say whose data this is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aad(..)")
    }
}

/// One AEK of an account. The first is 1; AEK rotation adds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(u32);

impl Generation {
    /// The generation that an account is created with.
    pub const FIRST: Self = Self(1);

    /// The generation numbered `number`; zero is not a generation.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number, at least 1.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the times that an account's key was taken out of service in this cache. Renewals of a
/// lease keep the epoch; every move to a keyless state starts a new one (contract D6, D11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    pub(crate) const FIRST: Self = Self(1);

    pub(crate) const fn next(self) -> Self {
        // OK because 2^64 closings do not fit into the life of a process.
        Self(self.0 + 1)
    }

    /// The epoch as a number, for logs and metrics.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The algorithms of a generation. Pinned by the record: a frame cannot choose its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// Suite 1: AES-256-GCM under a key derived for each block (NIST SP 800-38D, RFC 5869).
    Aes256Gcm,
    /// Suite 2, double encryption: suite 1, and over it ChaCha20-Poly1305 (RFC 8439) under a second, independent key.
    Double,
}

impl Suite {
    /// The suite's number in every format.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::Double => 2,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::Double),
            _ => None,
        }
    }
}

fn parse_hex16(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_write() {
        let id = AccountId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<AccountId>().expect("parses"), id);
        for bad in ["", "00", "zz112233445566778899aabbccddeeff", "+0112233445566778899aabbccddeeff"] {
            assert_eq!(bad.parse::<AccountId>().expect_err(bad).kind(), ErrorKind::Misuse);
        }
    }

    #[test]
    fn debug_shows_no_aad() {
        assert_eq!(format!("{:?}", Aad::new(b"tenant-42")), "Aad(..)");
    }

    #[test]
    fn generation_zero_does_not_exist() {
        assert_eq!(Generation::new(0), None);
    }
}
