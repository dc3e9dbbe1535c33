//! How a token wraps an AEK.
//!
//! | algorithm | what is stored | bytes |
//! |---|---|---|
//! | `CKM_AES_GCM` | `iv12`, AES-GCM(KEK, iv, aad = context, the 56 bytes), `tag16` | 84 |
//! | `CKM_AES_KEY_WRAP_PAD`, `CKM_AES_KEY_WRAP` | RFC 5649, RFC 3394 | 64 |
//! | `CKM_RSA_PKCS_OAEP` | RFC 8017, 7.1, no label | the modulus |
//!
//! Key wrap works on objects only: the 56 bytes become a generic secret of the session, are wrapped, and are destroyed;
//! unwrapped ones are read and destroyed. Imports: `provider`, `provider::pkcs11::classify`, `random`.

use cryptoki::error::Error as Answer;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use zeroize::{Zeroize, Zeroizing};

use super::super::{ProviderError, WrapAlgorithm, WrapContext, WrapInput};
use super::classify::Fault;
use crate::random;

/// How a token wraps. Each is a mechanism of PKCS#11, and stands in the record under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// `CKM_AES_GCM` by `C_Encrypt` and `C_Decrypt`: binds the context as additional data, and makes no object. The first
    /// choice. The key needs `CKA_ENCRYPT` and `CKA_DECRYPT`.
    AesGcm,
    /// `CKM_AES_KEY_WRAP_PAD` by `C_WrapKey` and `C_UnwrapKey`. The key needs `CKA_WRAP` and `CKA_UNWRAP`, and the token
    /// has to let this process create and read session objects.
    AesKeyWrapPad,
    /// `CKM_AES_KEY_WRAP`, as [`Self::AesKeyWrapPad`].
    AesKeyWrap,
    /// `CKM_RSA_PKCS_OAEP` with SHA-256 by `C_Encrypt` with the public key and `C_Decrypt` with the private one.
    RsaOaepSha256,
    /// The same with SHA-1, for tokens that have nothing newer. OAEP does not rest on the hash's resistance to collisions.
    RsaOaepSha1,
}

/// Who makes the IV of AES-GCM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Iv {
    /// This process; a token that replaces it is heeded.
    #[default]
    Ours,
    /// The token, which is given zeros to write over.
    Tokens,
}

/// What an algorithm asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Aes,
    Rsa,
}

impl Algorithm {
    /// In the order in which an automatic choice prefers them.
    pub(super) const AUTHENTIC: [Self; 3] = [Self::AesGcm, Self::AesKeyWrapPad, Self::AesKeyWrap];
    const ALL: [Self; 5] =
        [Self::AesGcm, Self::AesKeyWrapPad, Self::AesKeyWrap, Self::RsaOaepSha256, Self::RsaOaepSha1];

    /// As it stands in records.
    const fn name(self) -> &'static str {
        match self {
            Self::AesGcm => "CKM_AES_GCM",
            Self::AesKeyWrapPad => "CKM_AES_KEY_WRAP_PAD",
            Self::AesKeyWrap => "CKM_AES_KEY_WRAP",
            Self::RsaOaepSha256 => "CKM_RSA_PKCS_OAEP SHA-256",
            Self::RsaOaepSha1 => "CKM_RSA_PKCS_OAEP SHA-1",
        }
    }

    pub(super) fn in_record(self) -> Result<WrapAlgorithm, ProviderError> {
        WrapAlgorithm::new(self.name())
    }

    pub(super) fn of_record(algorithm: &WrapAlgorithm) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == algorithm.as_str())
    }

    pub(super) const fn family(self) -> Family {
        match self {
            Self::AesGcm | Self::AesKeyWrapPad | Self::AesKeyWrap => Family::Aes,
            Self::RsaOaepSha256 | Self::RsaOaepSha1 => Family::Rsa,
        }
    }

    pub(super) const fn mechanism(self) -> MechanismType {
        match self {
            Self::AesGcm => MechanismType::AES_GCM,
            Self::AesKeyWrapPad => MechanismType::AES_KEY_WRAP_PAD,
            Self::AesKeyWrap => MechanismType::AES_KEY_WRAP,
            Self::RsaOaepSha256 | Self::RsaOaepSha1 => MechanismType::RSA_PKCS_OAEP,
        }
    }

    /// Whether keys are wrapped as objects, which is another right than encrypting.
    pub(super) const fn wraps_objects(self) -> bool {
        matches!(self, Self::AesKeyWrapPad | Self::AesKeyWrap)
    }

    /// Wraps `secret` under `key`.
    pub(super) fn wrap(
        self,
        session: &Session,
        key: ObjectHandle,
        context: &WrapContext,
        secret: &WrapInput,
        iv: Iv,
    ) -> Result<Vec<u8>, Fault> {
        match self {
            Self::AesGcm => encrypt_gcm(session, key, context, secret, iv),
            Self::AesKeyWrapPad => wrap_object(session, key, &Mechanism::AesKeyWrapPad, secret),
            Self::AesKeyWrap => wrap_object(session, key, &Mechanism::AesKeyWrap, secret),
            Self::RsaOaepSha256 | Self::RsaOaepSha1 => {
                let wrapped = session.encrypt(&self.oaep(), key, secret.expose())?;
                Ok(wrapped)
            }
        }
    }

    /// Unwraps what [`Self::wrap`] gave.
    pub(super) fn unwrap(
        self,
        session: &Session,
        key: ObjectHandle,
        context: &WrapContext,
        wrapped: &[u8],
    ) -> Result<WrapInput, Fault> {
        match self {
            Self::AesGcm => decrypt_gcm(session, key, context, wrapped),
            Self::AesKeyWrapPad => unwrap_object(session, key, &Mechanism::AesKeyWrapPad, wrapped),
            Self::AesKeyWrap => unwrap_object(session, key, &Mechanism::AesKeyWrap, wrapped),
            Self::RsaOaepSha256 | Self::RsaOaepSha1 => {
                let secret = Zeroizing::new(session.decrypt(&self.oaep(), key, wrapped)?);
                Ok(WrapInput::from_slice(&secret)?)
            }
        }
    }

    fn oaep(self) -> Mechanism<'static> {
        let (hash, mask) = match self {
            Self::RsaOaepSha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
            _ => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        };
        Mechanism::RsaPkcsOaep(PkcsOaepParams::new(hash, mask, PkcsOaepSource::empty()))
    }
}

fn encrypt_gcm(
    session: &Session,
    key: ObjectHandle,
    context: &WrapContext,
    secret: &WrapInput,
    source: Iv,
) -> Result<Vec<u8>, Fault> {
    let mut iv = [0; IV];
    if source == Iv::Ours {
        random::fill(&mut iv);
    }
    let aad = context.to_bytes();
    let parameters = GcmParams::new(&mut iv, &aad, Ulong::new(128))?;
    let sealed = session.encrypt(&Mechanism::AesGcm(parameters), key, secret.expose())?;
    if iv == [0; IV] {
        // A second wrap under the same IV would give the key stream away, and let anyone forge.
        return Err(ProviderError::misconfigured(
            "the token made no IV of its own: let this process make it",
        )
        .into());
    }
    if sealed.len() != GCM_LEN - IV {
        return Err(
            ProviderError::integrity("the token encrypted to another length than AES-GCM does").into()
        );
    }
    Ok([&iv[..], &sealed].concat())
}

fn decrypt_gcm(
    session: &Session,
    key: ObjectHandle,
    context: &WrapContext,
    wrapped: &[u8],
) -> Result<WrapInput, Fault> {
    let wrapped: &[u8; GCM_LEN] = wrapped.try_into().map_err(|_| changed())?;
    let (iv, sealed) = wrapped.split_first_chunk::<IV>().expect("84 bytes begin with 12");
    let mut iv = *iv;
    let aad = context.to_bytes();
    let parameters = GcmParams::new(&mut iv, &aad, Ulong::new(128))?;
    let secret = Zeroizing::new(session.decrypt(&Mechanism::AesGcm(parameters), key, sealed)?);
    Ok(WrapInput::from_slice(&secret)?)
}

fn wrap_object(
    session: &Session,
    key: ObjectHandle,
    mechanism: &Mechanism<'_>,
    secret: &WrapInput,
) -> Result<Vec<u8>, Fault> {
    // Pushed, not concatenated: that would clone the secret.
    let mut template = Vec::with_capacity(TEMPORARY.len() + 1);
    template.extend(TEMPORARY);
    template.push(Attribute::Value(secret.expose().to_vec()));
    let created = session.create_object(&template);
    for attribute in &mut template {
        if let Attribute::Value(value) = attribute {
            value.zeroize();
        }
    }
    let object = Temporary { session, object: created? };
    let wrapped = session.wrap_key(mechanism, key, object.object)?;
    object.destroy()?;
    if wrapped.len() != KEY_WRAP_LEN {
        return Err(
            ProviderError::integrity("the token wrapped to another length than AES key wrap does").into()
        );
    }
    Ok(wrapped)
}

fn unwrap_object(
    session: &Session,
    key: ObjectHandle,
    mechanism: &Mechanism<'_>,
    wrapped: &[u8],
) -> Result<WrapInput, Fault> {
    if wrapped.len() != KEY_WRAP_LEN {
        return Err(changed().into());
    }
    let object = Temporary { session, object: session.unwrap_key(mechanism, key, wrapped, &TEMPORARY)? };
    let mut attributes = session.get_attributes(object.object, &[AttributeType::Value])?;
    let Some(Attribute::Value(value)) = attributes.first_mut() else {
        return Err(ProviderError::misconfigured(
            "the token does not let an unwrapped session object be read",
        )
        .into());
    };
    let secret = WrapInput::from_slice(value);
    value.zeroize();
    object.destroy()?;
    Ok(secret?)
}

fn changed() -> ProviderError {
    ProviderError::integrity("the wrapped AEK has not the length that its algorithm gives")
}

/// A session object that holds an AEK: destroyed as soon as it is done with, also when something fails in between.
struct Temporary<'s> {
    session: &'s Session,
    object: ObjectHandle,
}

impl Temporary<'_> {
    /// Destroys it now, and tells when that did not work: the session is closed then, and the object with it.
    fn destroy(self) -> Result<(), Answer> {
        let destroyed = self.session.destroy_object(self.object);
        std::mem::forget(self);
        destroyed
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        drop(self.session.destroy_object(self.object));
    }
}

/// A secret of this session only, which may be read.
const TEMPORARY: [Attribute; 6] = [
    Attribute::Class(ObjectClass::SECRET_KEY),
    Attribute::KeyType(KeyType::GENERIC_SECRET),
    Attribute::Token(false),
    Attribute::Private(true),
    Attribute::Sensitive(false),
    Attribute::Extractable(true),
];

const IV: usize = 12;
const TAG: usize = 16;
const GCM_LEN: usize = IV + WrapInput::LEN + TAG;
const KEY_WRAP_LEN: usize = WrapInput::LEN + 8;
const _: () = assert!(GCM_LEN == 84 && KEY_WRAP_LEN == 64);
