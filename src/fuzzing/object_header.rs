//! The header of a sealed object, and the arithmetic between its two lengths.

use crate::error::ErrorKind;
use crate::format::object::{BlockSize, HEADER_LEN, Layout, ObjectGeometry, UnverifiedHeader, header_bytes};
use crate::id::Suite;

/// The first 80 bytes are a header, the next 8 a stored length, 8 more an offset.
pub fn object_header(data: &[u8]) {
    let mut bytes = [0; HEADER_LEN];
    let (header, rest) = data.split_at(data.len().min(HEADER_LEN));
    bytes[..header.len()].copy_from_slice(header);
    let layout = match UnverifiedHeader::parse(bytes) {
        Ok(header) => {
            assert_eq!(header.authenticated(), &bytes[..48]);
            assert_eq!(header_bytes(&header.info()), bytes[..48], "parse, then write");
            assert_eq!(header.mac(), bytes[48..]);
            header.info().layout()
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Format);
            Layout { block_size: BlockSize::MIN, suite: Suite::Aes256Gcm }
        }
    };
    let mut numbers = [0; 16];
    let len = rest.len().min(numbers.len());
    numbers[..len].copy_from_slice(&rest[..len]);
    let [stored, offset] =
        [0, 8].map(|at| u64::from_be_bytes(numbers[at..at + 8].try_into().expect("8 bytes")));
    lengths(stored, offset, layout);
}

fn lengths(stored: u64, offset: u64, layout: Layout) {
    let Ok(geometry) = ObjectGeometry::of_stored(stored, layout) else { return };
    assert_eq!(geometry.stored_len(), stored, "one stored length for each plain one");
    let plain = geometry.plain_len();
    assert_eq!(ObjectGeometry::of_plain(plain, layout).ok(), Some(geometry));
    let last = geometry.last_index();
    let end = geometry.frame_at(last) + geometry.frame_len(last) as u64;
    assert_eq!(end, stored, "the last frame ends where the object does");
    assert!(geometry.block_len(last) > 0 || plain == 0, "an empty frame is an empty object");
    if offset < plain {
        let (index, within) = geometry.locate(offset);
        assert!(index <= last && within < geometry.block_len(index), "every byte is in a block");
        assert_eq!(index * layout.block_len() as u64 + within as u64, offset);
    }
}
