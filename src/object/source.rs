//! What a reader reads from: anything that gives bytes at an offset. Imports: `error`.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind};

/// Positioned reads, as a file offers them: no cursor, so that many threads read one source.
///
/// The source is not trusted: whatever it answers, a reader gives verified bytes or an error.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes from `offset` on and returns how many; zero only at the end or for
    /// an empty `buf`.
    ///
    /// # Errors
    /// Whatever the source meets. [`io::ErrorKind::Interrupted`] is tried again.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many bytes there are.
    ///
    /// # Errors
    /// Whatever the source meets.
    fn size(&self) -> io::Result<u64>;

    /// The `len` bytes from `offset` on, where they are in memory already: they are then opened from there,
    /// without a copy. `None`, the default, makes the reader call [`Self::read_at`].
    fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let _ = (offset, len);
        None
    }
}

impl ReadAt for File {
    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buf, offset)
    }

    /// On Windows this moves the file's cursor, which nothing here relies on.
    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(self, buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        // OK because no slice is longer than 2^64 - 1 bytes.
        Ok(self.len() as u64)
    }

    fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let offset = usize::try_from(offset).ok()?;
        self.get(offset..offset.checked_add(len)?)
    }
}

/// Forwards to what the pointer points to; every method, so that nothing falls back to its default.
macro_rules! forward {
    ($($(#[$attribute:meta])* impl[$($generics:tt)*] $pointer:ty;)*) => {$(
        impl<$($generics)*> ReadAt for $pointer {
            fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
                (**self).read_at(buf, offset)
            }

            fn size(&self) -> io::Result<u64> {
                (**self).size()
            }

            fn borrow_at(&self, offset: u64, len: usize) -> Option<&[u8]> {
                (**self).borrow_at(offset, len)
            }
        }
    )*};
}

forward! {
    impl[T: ReadAt + ?Sized] &T;
    impl[T: ReadAt + ?Sized] Box<T>;
    impl[T: ReadAt + ?Sized] Arc<T>;
    impl[] Vec<u8>;
    impl[] Bytes;
}

/// Fills `buf` from `offset` on, or fails.
///
/// # Errors
/// [`ErrorKind::Format`] when the source ends before that, [`ErrorKind::Io`] when it fails or claims to have read more
/// than was asked for.
pub(super) fn read_exact_at(source: &impl ReadAt, mut buf: &mut [u8], mut offset: u64) -> Result<(), Error> {
    while !buf.is_empty() {
        match source.read_at(buf, offset) {
            Ok(0) => return Err(ended_early()),
            Ok(len) if len > buf.len() => {
                return Err(Error::new(ErrorKind::Io, "the source claims more bytes than were asked for"));
            }
            Ok(len) => {
                buf = &mut buf[len..];
                offset = offset.saturating_add(len as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("reading a sealed object failed", error)),
        }
    }
    Ok(())
}

pub(super) const fn ended_early() -> Error {
    Error::new(ErrorKind::Format, "the sealed object is shorter than its source said")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_well(source: &dyn ReadAt) {
        let mut buf = [0; 4];
        assert_eq!(source.size().unwrap(), 6);
        assert_eq!((source.read_at(&mut buf, 1).unwrap(), &buf), (4, b"bcde"));
        assert_eq!((source.read_at(&mut buf, 5).unwrap(), buf[0]), (1, b'f'));
        // A file refuses offsets beyond 2^63; memory has nothing there.
        for offset in [6, 7, 1 << 40] {
            assert_eq!(source.read_at(&mut buf, offset).unwrap(), 0);
        }
        for (offset, len) in [(7, 0), (3, 4), (u64::MAX, 1), (1, usize::MAX)] {
            assert_eq!(source.borrow_at(offset, len), None);
        }
    }

    #[test]
    fn memory_and_files_read_alike() {
        let file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut &file, b"abcdef").unwrap();
        let sources: [Box<dyn ReadAt>; 6] = [
            Box::new(b"abcdef".as_slice()),
            Box::new(b"abcdef".to_vec()),
            Box::new(Bytes::from_static(b"abcdef")),
            Box::new(Arc::new(b"abcdef".to_vec())),
            Box::new(Arc::<[u8]>::from(b"abcdef".as_slice())),
            Box::new(file),
        ];
        sources.iter().for_each(|source| ends_well(source));
        assert!(sources[..5].iter().all(|source| source.borrow_at(2, 3) == Some(b"cde")));
    }
}
