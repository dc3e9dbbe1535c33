//! What the tests share: a token, the customer at it, and the provider before it.

use std::path::PathBuf;
use std::process::Command;

use strongroom::provider::pkcs11::{Algorithm, Pin, Pkcs11, Pkcs11Builder};
use strongroom_kms_tests::softhsm::{Faults, SoftHsm, module};

/// The KEK's label in all tests.
pub(crate) const KEK: &str = "orders";

/// Makes ordinary tests, each of which runs in a child process with a fresh token.
macro_rules! with_a_token {
    ($($(#[$attribute:meta])* fn $name:ident($hsm:ident: &SoftHsm) $body:block)*) => {
        $(
            $(#[$attribute])*
            #[test]
            fn $name() {
                let module = module_path!().split_once("::").map_or(String::new(), |(_, path)| format!("{path}::"));
                strongroom_kms_tests::softhsm::with_token(
                    &format!("{module}{}", stringify!($name)),
                    |$hsm: &strongroom_kms_tests::softhsm::SoftHsm| $body,
                );
            }
        )*
    };
}
pub(crate) use with_a_token;

/// A provider at the first token.
pub(crate) fn builder() -> Pkcs11Builder {
    at(module())
}

/// The same through the module that answers as it is told.
pub(crate) fn faulty(faults: &Faults) -> Pkcs11Builder {
    at(faults.module().to_owned())
}

fn at(module: PathBuf) -> Pkcs11Builder {
    Pkcs11::builder(module)
        .token_label(SoftHsm::LABEL)
        .pin(|| Ok(Pin::new(SoftHsm::PIN.to_owned())))
        .backed_up_by_operator()
}

/// What the customer does, in a process of theirs.
pub(crate) fn customer(hsm: &SoftHsm, words: &[&str]) -> Result<(), String> {
    let mut command: Command = hsm.command(env!("CARGO_BIN_EXE_softhsm-admin").as_ref());
    let output = command.arg(module()).args(words).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// What a key for this algorithm may be used for, as [`customer`] calls it.
pub(crate) fn usage(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::AesKeyWrap | Algorithm::AesKeyWrapPad => "wrap",
        _ => "encrypt",
    }
}
