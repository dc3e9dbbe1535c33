//! Bytes to types and back. Nothing here acts on what it reads.

pub(crate) mod codec;
pub(crate) mod policy;
pub(crate) mod record;
