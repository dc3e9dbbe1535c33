//! HashiCorp Vault and OpenBao, through their Transit engine (contract B5). Imports: `provider`, `error`.
