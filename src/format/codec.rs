//! Reading and writing bytes within bounds: big-endian numbers, and byte strings behind their length.
//!
//! A reader checks each length against a named limit before it takes, and therefore before anybody
//! allocates. Imports: `error`.

use crate::error::{Error, ErrorKind};

/// The part of an input that is not read yet.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// # Errors
    /// [`ErrorKind::Format`], as everything here, when fewer than `N` bytes are left.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// A byte that is 0 or 1, and nothing else.
    pub(crate) fn flag(&mut self) -> Result<bool, Error> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::new(ErrorKind::Format, "a flag is neither 0 nor 1")),
        }
    }

    /// A byte string of 1 to `max_len` bytes behind its length in two bytes.
    pub(crate) fn prefixed(&mut self, max_len: usize) -> Result<&'a [u8], Error> {
        let len = usize::from(self.u16()?);
        if len == 0 || len > max_len {
            return Err(Error::new(ErrorKind::Format, "a length is zero or above its limit"));
        }
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The same, as UTF-8.
    pub(crate) fn prefixed_text(&mut self, max_len: usize) -> Result<&'a str, Error> {
        str::from_utf8(self.prefixed(max_len)?)
            .map_err(|_| Error::new(ErrorKind::Format, "a text is not UTF-8"))
    }

    /// Everything has been read.
    pub(crate) fn finish(self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::new(ErrorKind::Format, "trailing bytes")) }
    }
}

/// Bytes in the making.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// # Panics
    /// When `bytes` is longer than two bytes can say: the types that come here are shorter.
    pub(crate) fn prefixed(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("the limit of each type is below 64 KiB"));
        self.put(bytes);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn truncated() -> Error {
    Error::new(ErrorKind::Format, "truncated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_a_length_is_checked_before_anything_is_taken() {
        let mut bytes = vec![0, 3];
        bytes.extend(b"abcd");
        assert_eq!(Reader::new(&bytes).prefixed(3).unwrap(), b"abc");
        assert!(Reader::new(&bytes).prefixed(2).is_err(), "above its limit");
        assert!(Reader::new(&bytes[..4]).prefixed(3).is_err(), "truncated");
        assert!(Reader::new(&[0, 0]).prefixed(3).is_err(), "empty");
        assert!(Reader::new(&[0]).prefixed(3).is_err(), "half a length");
        assert!(Reader::new(&[0, 1, 0xFF]).prefixed_text(3).is_err(), "not UTF-8");
    }

    #[test]
    fn f1_flags_and_ends_are_exact() {
        assert!(Reader::new(&[2]).flag().is_err());
        assert!(!Reader::new(&[0]).flag().unwrap());
        let mut reader = Reader::new(&[1, 9]);
        assert!(reader.flag().unwrap());
        assert!(reader.finish().is_err());
        assert!(Reader::new(&[]).finish().is_ok());
    }

    #[test]
    fn f1_what_is_written_reads_back() {
        let mut writer = Writer::default();
        writer.u8(1);
        writer.u16(2);
        writer.u32(3);
        writer.u64(4);
        writer.flag(true);
        writer.prefixed(b"five");
        let bytes = writer.into_bytes();
        assert_eq!(bytes, [&b"\x01\0\x02\0\0\0\x03\0\0\0\0\0\0\0\x04\x01\0\x04"[..], b"five"].concat());
        let mut reader = Reader::new(&bytes);
        assert_eq!(
            (reader.u8().unwrap(), reader.u16().unwrap(), reader.u32().unwrap(), reader.u64().unwrap()),
            (1, 2, 3, 4)
        );
        assert!(reader.flag().unwrap());
        assert_eq!(reader.prefixed_text(4).unwrap(), "five");
        reader.finish().unwrap();
    }
}
