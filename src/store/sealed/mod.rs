//! What a sealed store does apart from talking to a store: arithmetic on ranges, opening what arrives in pieces, cutting
//! what leaves into parts, and remembering headers. Nothing here names a version of anybody's trait.

pub(crate) mod artifact;
pub(crate) mod headers;
pub(crate) mod opener;
pub(crate) mod owner;
pub(crate) mod parts;
pub(crate) mod span;
