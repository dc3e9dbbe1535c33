//! What the fuzz target `aws_kms_answers` holds of an answer. Imports: `provider`, `error`, this provider's own files.

use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::types::KeyMetadata;
use aws_smithy_types::body::SdkBody;
use serde::de::IgnoredAny;

use super::classify;
use super::describe::Described;
use super::name::{KeyArn, Name, Version};
use crate::provider::{ErrorClass, KekUri, KekVersion};

/// Code and message, as the SDK read them, and the body: only the service's own words refuse.
pub(crate) fn failure(status: u16, text: &str) {
    let [code, message, body] = lines(text);
    let status = 100 + status % 500;
    let raw = HttpResponse::new(status.try_into().expect("100 to 599"), SdkBody::from(body));
    let said = ErrorMetadata::builder().code(code).message(message).build();
    let error = SdkError::service_error(DecryptError::generic(said), raw);
    let judged = classify::failure("kms:Decrypt", &error);
    // What alone can be the service's words: a list is read as a struct, too.
    let begins = body.trim_start().starts_with(['{', '[']);
    let spoken = begins && serde_json::from_str::<IgnoredAny>(body).is_ok();
    let silent = if (200..300).contains(&status) { ErrorClass::Integrity } else { ErrorClass::Transient };
    assert!(spoken || judged.class() == silent, "{judged}");
    let plain = |c: char| c.is_ascii_alphanumeric() || " :;,.'".contains(c);
    assert!(judged.message().chars().all(plain), "{judged}");
}

/// A name that the embedder gave, and what an answer calls the key and its material: no other key is believed.
pub(crate) fn names(text: &str) {
    let [name, arn, version] = lines(text);
    if let Ok(version) = KekVersion::new(version)
        && let Ok(parsed) = Version::parse(&version)
    {
        assert_eq!(parsed.to_kek_version().ok(), Some(version), "parse, then write");
    }
    let Ok(name) = Name::parse(name, REGION) else { return };
    assert_eq!(Name::parse(name.as_str(), REGION).ok().as_ref(), Some(&name));
    let id = arn.rsplit_once('/').map_or("", |(_, id)| id);
    let metadata = KeyMetadata::builder().arn(arn).key_id(id).current_key_material_id(version).build();
    let Ok(described) = Described::new(metadata.ok(), &name, REGION) else { return };
    let answered = KeyArn::parse(Some(arn)).expect("was parsed before");
    name.check(&answered, REGION).expect("was checked before");
    let address = name.address_of(&described.version).expect("of the key that the name means");
    assert!(arn.ends_with(&address), "the key that answered is the one that is addressed from now on");
    let uri = KekUri::new("aws-kms://fuzz/orders").expect("short");
    let info = described.info(uri, &described.version).expect("an answer's version fits a record");
    assert_eq!(Version::parse(&info.version).ok(), Some(described.version));
}

fn lines(text: &str) -> [&str; 3] {
    let mut parts = text.splitn(3, '\n');
    [(); 3].map(|()| parts.next().unwrap_or_default())
}

const REGION: &str = "eu-west-1";
