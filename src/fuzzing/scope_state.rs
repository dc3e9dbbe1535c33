//! A data scope's state: there is one way to write each, and what was read is within the library's limits.

use crate::error::ErrorKind;
use crate::format::scope::ScopeState;

/// The bytes are a state with its MAC, of which nothing is believed.
pub fn scope_state(data: &[u8]) {
    let (state, content, mac) = match ScopeState::parse(data) {
        Ok(parsed) => parsed,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Format),
    };
    assert_eq!(state.content(), content, "parse, then write");
    assert_eq!([content, &mac[..]].concat(), data, "nothing is left out");
    assert!(state.customers().len() <= ScopeState::MAX_CUSTOMERS);
    assert!(state.confirmed_within() <= ScopeState::MOST_CONFIRMED_WITHIN);
    assert!(state.has(state.writes_to()), "new data goes under an account that is read");
    match state.moved(None, state.generation()) {
        Ok(next) => {
            assert!(next.sequence() > state.sequence() && next.customers() == state.customers());
            assert_eq!(next.writes_to(), state.service());
        }
        Err(error) => assert_eq!((error.kind(), state.sequence().number()), (ErrorKind::Limit, u64::MAX)),
    }
}
