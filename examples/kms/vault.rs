//! Vault as a KMS: not written yet.

fn main() {}
