//! Bytes to types and back, every length and count bounded before anything is allocated (contract F2).

pub(crate) mod codec;
pub(crate) mod frame;
pub(crate) mod object;
pub(crate) mod operation;
pub(crate) mod policy;
pub(crate) mod record;
pub(crate) mod scope;
#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
pub(crate) mod takeover;
pub(crate) mod tombstone;

#[cfg(test)]
mod tests;
