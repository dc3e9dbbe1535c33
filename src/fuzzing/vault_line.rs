//! The buffers of a connection to Vault.

use crate::provider::vault_fuzzing;

/// Commands of two bytes.
pub fn vault_line(data: &[u8]) {
    vault_fuzzing::line(data);
}
