//! Azure Key Vault and Managed HSM (contract B3). Imports: `provider`, `error`.
