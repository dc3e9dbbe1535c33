//! An operation's state, and a tombstone: there is one way to write each, and what was read is within the library's limits.

use crate::error::ErrorKind;
use crate::format::operation::{OperationState, OperationStatus};
use crate::format::tombstone::{Tombstone, sequence_of};

/// The bytes are a state with its MAC, of which nothing is believed, or a tombstone.
pub fn operation_state(data: &[u8]) {
    match Tombstone::parse(data) {
        Ok(tombstone) => {
            assert_eq!(tombstone.to_bytes(), data, "parse, then write");
            assert_eq!(sequence_of(data).ok(), Some(tombstone.sequence));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Format),
    }
    let (state, content, mac) = match OperationState::parse(data) {
        Ok(parsed) => parsed,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Format),
    };
    assert_eq!(state.content(), content, "parse, then write");
    assert_eq!([content, &mac[..]].concat(), data, "nothing is left out");
    assert!(data.len() <= OperationState::MAX_LEN && state.cursor.len() <= OperationState::MAX_CURSOR);
    if let OperationStatus::Failed { message, .. } = &state.status {
        assert!(!message.chars().any(char::is_control), "it goes into logs");
    }
    assert_eq!(
        state.status.is_ended() || state.status == OperationStatus::InProgress,
        state.status != state.kind.under_way()
    );
    drop((state.progress.per_second(), state.progress.remaining()));
}
