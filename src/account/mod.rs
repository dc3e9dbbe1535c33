//! Accounts.

pub(crate) mod batch;
pub(crate) mod permit;
pub(crate) mod state;
