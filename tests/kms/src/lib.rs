//! What the tests of the providers stand on: real servers on loopback, a proxy that breaks connections, canned
//! answers, and the story that every provider has to live through.

pub mod canned;
pub mod history;
pub mod http;
pub mod install;
#[cfg(feature = "azure-keyvault")]
pub mod key_vault;
#[cfg(feature = "aws-kms")]
pub mod ministack;
#[cfg(feature = "aws-kms")]
pub mod moto;
#[cfg(feature = "vault")]
pub mod openbao;
pub mod process;
pub mod proxy;
pub mod runtimes;
#[cfg(feature = "pkcs11")]
pub mod softhsm;
pub mod story;
pub mod wait;
