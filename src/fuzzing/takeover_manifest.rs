//! The manifest of a takeover, and the mark that an embedder keeps of it: there is one way to write each.

use crate::error::ErrorKind;
use crate::format::takeover::{
    MAX_OBJECTS, MAX_SEGMENT_ENTRIES, MAX_SEGMENT_LEN, MAX_SEGMENTS, Root, SegmentBody,
};
use crate::store::TakeoverMark;

/// The first byte chooses: a root, a segment or a mark.
pub fn takeover_manifest(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let parsed = match choice % 3 {
        0 => Root::parse(bytes).map(|root| {
            assert!(root.segments <= MAX_SEGMENTS && root.objects <= MAX_OBJECTS);
            root.to_bytes()
        }),
        1 => SegmentBody::parse(bytes).map(|segment| {
            assert!(bytes.len() <= MAX_SEGMENT_LEN && segment.entries.len() <= MAX_SEGMENT_ENTRIES);
            assert!(segment.entries.is_sorted_by(|one, next| one.path < next.path), "each path once");
            segment.to_bytes()
        }),
        _ => TakeoverMark::parse(bytes).map(|mark| mark.to_bytes()),
    };
    match parsed {
        Ok(written) => assert_eq!(written, bytes, "parse, then write"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Format),
    }
}
