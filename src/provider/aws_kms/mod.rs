//! AWS KMS (contract B4). Imports: `provider`, `error`.
