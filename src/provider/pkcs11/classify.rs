//! What a return value of PKCS#11 means for a lease. Pure.
//!
//! A module runs in our own process and speaks for a token that may be far away. A standard code says which of the two
//! it speaks of; a code that only its vendor knows does not, and counts as silence unless the operator has said what
//! it means. Imports: `provider`, `error`.

use std::fmt::Write;

use cryptoki::error::{Error as Answer, RvError};

use super::super::{ErrorClass, ProviderError};
use crate::error::Refusal;

/// Why a call did not succeed, before it is known what that means.
#[derive(Debug)]
pub(super) enum Fault {
    /// The module answered with a code, or the client could not make sense of its answer.
    Answer(Answer),
    /// The token answers, and there is no such object; what was looked for.
    Absent(&'static str),
    /// Judged where it arose.
    Judged(ProviderError),
}

/// What to set up anew before a call is made a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Another session, whose login is checked: handles and logins of the old one may be stale.
    Session,
    /// Everything from `C_Initialize` on: the token went away and may be back.
    Token,
}

/// Codes of a vendor that the operator knows for refusals.
#[derive(Clone, Debug, Default)]
pub(super) struct VendorCodes(Vec<(u64, Refusal)>);

impl From<Answer> for Fault {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl From<ProviderError> for Fault {
    fn from(error: ProviderError) -> Self {
        Self::Judged(error)
    }
}

impl Fault {
    /// Whether a second look may end otherwise, and what it needs.
    pub(super) const fn again(&self) -> Option<Again> {
        match self {
            Self::Absent(_) => Some(Again::Session),
            Self::Judged(_) => None,
            Self::Answer(Answer::Pkcs11(code, _)) => match code {
                RvError::CryptokiNotInitialized
                | RvError::DeviceRemoved
                | RvError::SessionClosed
                | RvError::SessionHandleInvalid
                | RvError::SlotIdInvalid
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized => Some(Again::Token),
                RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid
                | RvError::OperationActive
                | RvError::OperationNotInitialized
                | RvError::UnwrappingKeyHandleInvalid
                | RvError::UserNotLoggedIn
                | RvError::WrappingKeyHandleInvalid => Some(Again::Session),
                _ => None,
            },
            Self::Answer(_) => None,
        }
    }

    /// Whether it says that the key is not there.
    pub(super) fn says_gone(&self) -> bool {
        match self {
            Self::Absent(_) => true,
            Self::Answer(Answer::Pkcs11(code, _)) => class_of(code) == ErrorClass::Refused(Refusal::KeyGone),
            _ => false,
        }
    }

    /// Codes that say "it did not work" and nothing else. SoftHSM says one of them of a wrap that was tampered with.
    pub(super) const fn says_nothing(&self) -> bool {
        matches!(
            self,
            Self::Answer(Answer::Pkcs11(
                RvError::GeneralError | RvError::FunctionFailed | RvError::DeviceError,
                _
            ))
        )
    }

    /// What it means, once no further look is taken.
    pub(super) fn judge(self, vendor: &VendorCodes) -> ProviderError {
        match self {
            Self::Judged(error) => error,
            Self::Absent(what) => ProviderError::refused(Refusal::KeyGone, what),
            Self::Answer(Answer::Pkcs11(code, function)) => {
                let class = vendor.class_of(&code);
                ProviderError::new(class, &format!("C_{function:?} answered {}", name_of(&code)))
            }
            Self::Answer(Answer::NullFunctionPointer) => {
                ProviderError::misconfigured("the PKCS#11 module lacks a function that is needed")
            }
            // The others are about values that the client could not convert: an answer that cannot be right.
            Self::Answer(_) => {
                ProviderError::integrity("the PKCS#11 module gave a value that makes no sense")
            }
        }
    }
}

impl VendorCodes {
    pub(super) fn add(&mut self, code: u64, refusal: Refusal) {
        self.0.push((code, refusal));
    }

    pub(super) fn class_of(&self, code: &RvError) -> ErrorClass {
        match code {
            RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) => {
                self.class_of_number(*number)
            }
            known => class_of(known),
        }
    }

    /// A number without a name here is no proof that the token, and not the module on this side of a broken
    /// connection, said it: many vendors report the network with codes of their own.
    #[allow(clippy::useless_conversion, reason = "CK_RV has 32 bits on some platforms")]
    fn class_of_number(&self, number: impl Into<u64>) -> ErrorClass {
        let number = number.into();
        if number == AEAD_DECRYPT_FAILED {
            return ErrorClass::Integrity;
        }
        let refusal = self.0.iter().find(|(code, _)| *code == number).map(|(_, refusal)| *refusal);
        refusal.map_or(ErrorClass::Transient, ErrorClass::Refused)
    }
}

const fn class_of(code: &RvError) -> ErrorClass {
    match code {
        RvError::KeyFunctionNotPermitted => ErrorClass::Refused(Refusal::KeyDisabled),
        RvError::KeyHandleInvalid
        | RvError::ObjectHandleInvalid
        | RvError::UnwrappingKeyHandleInvalid
        | RvError::WrappingKeyHandleInvalid => ErrorClass::Refused(Refusal::KeyGone),
        RvError::ActionProhibited => ErrorClass::Refused(Refusal::PermissionRemoved),
        RvError::PinExpired
        | RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinLocked
        | RvError::UserNotLoggedIn
        | RvError::UserPinNotInitialized => ErrorClass::Refused(Refusal::CredentialRejected),
        RvError::FunctionRejected | RvError::InformationSensitive => {
            ErrorClass::Refused(Refusal::Unrecognised)
        }

        RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::WrappedKeyInvalid
        | RvError::WrappedKeyLenRange => ErrorClass::Integrity,

        // What is asked for does not fit the token, the key or the module; asking again changes nothing.
        RvError::ArgumentsBad
        | RvError::AttributeReadOnly
        | RvError::AttributeSensitive
        | RvError::AttributeTypeInvalid
        | RvError::AttributeValueInvalid
        | RvError::CantLock
        | RvError::CurveNotSupported
        | RvError::DataInvalid
        | RvError::DataLenRange
        | RvError::DomainParamsInvalid
        | RvError::FunctionNotSupported
        | RvError::KeyNotWrappable
        | RvError::KeySizeRange
        | RvError::KeyTypeInconsistent
        | RvError::KeyUnextractable
        | RvError::LibraryLoadFailed
        | RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::NeedToCreateThreads
        | RvError::PublicKeyInvalid
        | RvError::SessionParallelNotSupported
        | RvError::SessionReadOnly
        | RvError::TemplateIncomplete
        | RvError::TemplateInconsistent
        | RvError::TokenWriteProtected
        | RvError::UnwrappingKeySizeRange
        | RvError::UnwrappingKeyTypeInconsistent
        | RvError::UserTypeInvalid
        | RvError::WrappingKeySizeRange
        | RvError::WrappingKeyTypeInconsistent => ErrorClass::Misconfigured,

        // Trouble of the device, of the host, of sessions, of other users of the token.
        _ => ErrorClass::Transient,
    }
}

/// `CKR_KEY_FUNCTION_NOT_PERMITTED` of `KeyFunctionNotPermitted`; a number in hexadecimal.
fn name_of(code: &RvError) -> String {
    if let RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) = code {
        return format!("{number:#010x}");
    }
    let mut out = "CKR".to_owned();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        // Writing to a string cannot fail.
        let _ = write!(out, "{}", letter.to_ascii_uppercase());
    }
    out
}

/// `CKR_AEAD_DECRYPT_FAILED` of PKCS#11 3.0, which the client does not name.
const AEAD_DECRYPT_FAILED: u64 = 0x42;

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn codes_are_named_as_the_standard_names_them() {
        assert_eq!(name_of(&RvError::KeyFunctionNotPermitted), "CKR_KEY_FUNCTION_NOT_PERMITTED");
        assert_eq!(name_of(&RvError::VendorDefined(0x8000_00A1)), "0x800000a1");
        let fault = Fault::Answer(Answer::Pkcs11(RvError::DeviceError, Function::Decrypt));
        let error = fault.judge(&VendorCodes::default());
        assert_eq!(error.message(), "C_Decrypt answered CKR_DEVICE_ERROR");
    }

    #[test]
    fn a_vendors_code_is_silence_until_the_operator_names_it() {
        let mut codes = VendorCodes::default();
        let code = RvError::VendorDefined(0x8000_0001);
        assert_eq!(codes.class_of(&code), ErrorClass::Transient);
        codes.add(0x8000_0001, Refusal::PermissionRemoved);
        assert_eq!(codes.class_of(&code), ErrorClass::Refused(Refusal::PermissionRemoved));
        assert_eq!(codes.class_of(&RvError::UnknownErrorCode(0x42)), ErrorClass::Integrity);
    }
}
