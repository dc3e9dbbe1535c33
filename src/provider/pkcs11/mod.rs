//! HSMs through PKCS#11 (contract B6). Imports: `provider`, `error`.
