//! Where things are kept: one file per kind of store, none importing another.

pub(crate) mod file;
