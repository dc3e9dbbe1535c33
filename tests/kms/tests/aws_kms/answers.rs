//! What the provider asks, what it makes of answers in a row, and what it never shows.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_kms::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_kms::error::ErrorMetadata;
use aws_sdk_kms::operation::decrypt::DecryptError;
use serde_json::{Value, json};
use strongroom::Refusal;
use strongroom::provider::aws_kms::AwsKms;
use strongroom::provider::{
    AsyncKeyProvider, Authority, ErrorClass, Kek, KekVersion, KeyProvider, OnTokio, WrapAlgorithm, Wrapped,
};
use strongroom_kms_tests::canned::{Canned, Request, answer, fixture};
use strongroom_kms_tests::ministack;

use super::{
    ARN, KEY, MATERIAL, canned_wrap, context, input, marked_credentials, provider, provider_of, wrapped,
};

const OTHER_MATERIAL: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

fn reply(body: &Value) -> Vec<u8> {
    answer(200, &[("Content-Type", "application/x-amz-json-1.1")], body.to_string())
}

fn operation(request: &Request) -> &str {
    request.header("x-amz-target").and_then(|target| target.strip_prefix("TrentService.")).unwrap_or_default()
}

/// AWS KMS with one key whose key material is `described` when it is described and `used` when it decrypts.
fn rotating(described: &'static str, used: &'static str) -> Canned {
    Canned::serving(move |request| match operation(request) {
        "DescribeKey" => reply(&json!({"KeyMetadata": {
            "KeyId": KEY, "Arn": ARN, "KeyState": "Enabled", "Enabled": true, "KeyUsage": "ENCRYPT_DECRYPT",
            "KeySpec": "SYMMETRIC_DEFAULT", "Origin": "AWS_KMS", "CurrentKeyMaterialId": described,
        }})),
        "Encrypt" => reply(
            &json!({"KeyId": ARN, "CiphertextBlob": "AQIDBA==", "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}),
        ),
        "Decrypt" => reply(&json!({
            "KeyId": ARN, "Plaintext": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg=",
            "KeyMaterialId": used,
        })),
        other => panic!("asked for {other}"),
    })
}

/// A key as DescribeKey shows it, with these fields changed.
fn described(changes: &Value) -> Canned {
    let mut key = json!({
        "KeyId": KEY, "Arn": ARN, "KeyState": "Enabled", "Enabled": true, "KeyUsage": "ENCRYPT_DECRYPT",
        "KeySpec": "SYMMETRIC_DEFAULT", "Origin": "AWS_KMS", "KeyManager": "CUSTOMER",
    });
    for (name, value) in changes.as_object().expect("fields") {
        key[name] = value.clone();
    }
    Canned::answers([reply(&json!({ "KeyMetadata": key }))])
}

fn asked(canned: &Canned) -> Vec<String> {
    canned.requests().iter().map(|request| operation(request).to_owned()).collect()
}

#[test]
fn aws_unwrap_is_one_request_that_names_key_context_and_grant_tokens() {
    let canned = Canned::answers([fixture("aws_kms", "success")]);
    let client = aws_sdk_kms::Client::from_conf(ministack::config(&canned.url(), ministack::root()).build());
    let kms = AwsKms::new(&client).unwrap().grant_tokens(["a-grant-token".to_owned()]);
    OnTokio::with_own_runtime(kms).unwrap().unwrap(&canned_wrap(), &context()).unwrap();
    let requests = canned.requests();
    assert_eq!(asked(&canned), ["Decrypt"]);
    let body = requests[0].json();
    assert_eq!(body["KeyId"], KEY, "the key that wrapped, not what the alias means by now");
    assert_eq!(body["GrantTokens"], json!(["a-grant-token"]));
    let expected: serde_json::Map<String, Value> =
        context().to_pairs().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    assert_eq!(body["EncryptionContext"], Value::Object(expected));
}

#[test]
fn aws_each_kind_of_name_unwraps_with_the_exact_key_in_the_names_own_account() {
    let alias_arn = "arn:aws:kms:us-east-1:111122223333:alias/orders";
    for (name, key) in [(KEY, KEY), (ARN, ARN), ("alias/orders", KEY), (alias_arn, ARN)] {
        let canned = Canned::answers([fixture("aws_kms", "success")]);
        let wrap = wrapped(name, &format!("{KEY}/{MATERIAL}"));
        provider(&canned.url()).unwrap(&wrap, &context()).expect(name);
        assert_eq!(canned.requests()[0].json()["KeyId"], key);
    }
}

#[test]
fn a8_a_replaced_record_reaches_no_other_key_account_or_endpoint() {
    let canned = Canned::answers([fixture("aws_kms", "success")]);
    let kms = provider(&canned.url());
    let theirs = "ffffffff-12ab-34cd-56ef-1234567890ab";
    let their_arn = "arn:aws:kms:us-east-1:999988887777:key/ffffffff-12ab-34cd-56ef-1234567890ab";
    for wrap in
        [wrapped(KEY, theirs), wrapped(ARN, theirs), wrapped("alias/orders", their_arn), wrapped("a/b", KEY)]
    {
        let error = kms.unwrap(&wrap, &context()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Misconfigured, "{wrap:?}: {error}");
    }
    let elsewhere = [
        Authority::new("aws-kms", "eu-west-1"),
        Authority::new("vault", "us-east-1"),
        Authority::new("aws-kms", "us-east-1.evil"),
    ];
    for authority in elsewhere {
        let ours = canned_wrap();
        let moved = Wrapped::new(
            authority.uri_of("alias/orders").unwrap(),
            ours.version().clone(),
            ours.algorithm().clone(),
            ours.bytes().to_vec(),
        );
        let error = kms.unwrap(&moved.unwrap(), &context()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Misconfigured, "{error}");
    }
    let other_region = Kek::latest(ARN.replace("us-east-1", "eu-west-1"));
    assert_eq!(kms.describe(&other_region).unwrap_err().class(), ErrorClass::Misconfigured);
    assert_eq!(kms.wrap(&other_region, &context(), &input()).unwrap_err().class(), ErrorClass::Misconfigured);
    assert!(canned.requests().is_empty(), "nothing of this was sent");
}

#[test]
fn aws_another_algorithm_than_ours_is_integrity() {
    let canned = Canned::answers([fixture("aws_kms", "success")]);
    let ours = canned_wrap();
    let other = WrapAlgorithm::new("RSAES_OAEP_SHA_256").unwrap();
    let wrap =
        Wrapped::new(ours.kek().clone(), ours.version().clone(), other, ours.bytes().to_vec()).unwrap();
    let error = provider(&canned.url()).unwrap(&wrap, &context()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Integrity);
    assert!(canned.requests().is_empty());
}

#[test]
fn aws_a_wrap_is_named_by_the_key_material_that_made_it() {
    let canned = rotating(MATERIAL, MATERIAL);
    let kms = provider(&canned.url());
    let wrap = kms.wrap(&Kek::latest("alias/orders"), &context(), &input()).unwrap();
    assert_eq!(wrap.version().as_str(), format!("{KEY}/{MATERIAL}"));
    assert_eq!(wrap.kek().as_str(), "aws-kms://us-east-1/alias/orders");
    assert_eq!(asked(&canned), ["DescribeKey", "Encrypt", "Decrypt"]);
    let info = kms.describe(&Kek::latest("alias/orders")).unwrap();
    assert_eq!(info.version, *wrap.version());
}

#[test]
fn aws_a_rotation_between_describe_and_encrypt_gives_the_new_versions_name() {
    let canned = rotating(MATERIAL, OTHER_MATERIAL);
    let wrap = provider(&canned.url()).wrap(&Kek::latest("alias/orders"), &context(), &input()).unwrap();
    assert_eq!(wrap.version().as_str(), format!("{KEY}/{OTHER_MATERIAL}"));
}

#[test]
fn aws_older_key_material_cannot_be_wrapped_with() {
    let canned = rotating(OTHER_MATERIAL, OTHER_MATERIAL);
    let old = KekVersion::new(format!("{KEY}/{MATERIAL}")).unwrap();
    let error =
        provider(&canned.url()).wrap(&Kek::pinned("alias/orders", old), &context(), &input()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Misconfigured, "{error}");
}

#[test]
fn aws_a_pinned_version_wraps_with_its_own_key_whatever_the_alias_means() {
    let canned = rotating(MATERIAL, MATERIAL);
    let pinned = KekVersion::new(format!("{KEY}/{MATERIAL}")).unwrap();
    let wrap = provider(&canned.url())
        .wrap(&Kek::pinned("alias/orders", pinned.clone()), &context(), &input())
        .unwrap();
    assert_eq!(*wrap.version(), pinned);
    assert_eq!(asked(&canned), ["Encrypt", "Decrypt"]);
    assert!(canned.requests().iter().all(|request| request.json()["KeyId"] == KEY));
}

#[test]
fn aws_a_rotated_key_is_described_with_another_version() {
    let [before, after] = [MATERIAL, OTHER_MATERIAL].map(|material| {
        let canned = rotating(material, material);
        provider(&canned.url()).describe(&Kek::latest(ARN)).unwrap().version
    });
    assert_ne!(before, after);
}

#[test]
fn b8_aws_describe_says_what_the_service_says() {
    let describe = |changes: &Value| provider(&described(changes).url()).describe(&Kek::latest(ARN)).unwrap();
    let plain = describe(&json!({}));
    assert!(plain.enabled && plain.recoverable() && plain.expires.is_none());
    assert_eq!((plain.hsm_backed, plain.version.as_str()), (Some(true), KEY));
    for state in [
        "Disabled",
        "PendingDeletion",
        "PendingReplicaDeletion",
        "PendingImport",
        "Unavailable",
        "Creating",
        "SomethingNew",
    ] {
        assert!(!describe(&json!({"KeyState": state, "Enabled": false})).enabled, "{state}");
    }
    assert!(describe(&json!({"KeyState": "Updating", "Enabled": true})).enabled);
    let imported =
        json!({"Origin": "EXTERNAL", "ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": 4_000_000_000.0});
    let at = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    assert_eq!(describe(&imported).expires, Some(at));
    let lasting = json!({"Origin": "EXTERNAL", "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"});
    assert_eq!(describe(&lasting).expires, None);
    assert_eq!(describe(&json!({"Origin": "AWS_CLOUDHSM"})).hsm_backed, Some(true));
    let external = describe(&json!({"Origin": "EXTERNAL_KEY_STORE"}));
    assert_eq!((external.hsm_backed, external.recoverable()), (None, false));
}

#[test]
fn b8_aws_keys_that_cannot_wrap_are_misconfigured() {
    for changes in [
        json!({"KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256"}),
        json!({"KeyUsage": "GENERATE_VERIFY_MAC", "KeySpec": "HMAC_256"}),
        json!({"KeySpec": "RSA_2048"}),
    ] {
        let canned = described(&changes);
        let error = provider(&canned.url()).describe(&Kek::latest(ARN)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Misconfigured, "{error}");
    }
}

#[test]
fn b8_aws_a_description_of_another_key_is_integrity() {
    let other = ARN.replace("1234abcd", "ffffffff");
    for changes in [
        json!({"Arn": other, "KeyId": "ffffffff-12ab-34cd-56ef-1234567890ab"}),
        json!({"Arn": ARN.replace("111122223333", "999988887777")}),
        json!({"KeyId": "ffffffff-12ab-34cd-56ef-1234567890ab"}),
        json!({"Arn": "nothing"}),
        json!({"CurrentKeyMaterialId": "not an id / at all"}),
    ] {
        let canned = described(&changes);
        let error = provider(&canned.url()).describe(&Kek::latest(ARN)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Integrity, "{changes}: {error}");
    }
}

#[test]
fn aws_rotation_is_told_and_a_denial_of_it_leaves_describe_alone() {
    let denied = Canned::serving(|request| match operation(request) {
        "GetKeyRotationStatus" => fixture("aws_kms", "access_denied_without_policy"),
        _ => {
            reply(&json!({"KeyMetadata": {"KeyId": KEY, "Arn": ARN, "KeyState": "Enabled", "Enabled": true}}))
        }
    });
    let kms = provider(&denied.url());
    kms.describe(&Kek::latest("alias/orders")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(kms.provider().rotation(&Kek::latest("alias/orders"))).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Refused(Refusal::PermissionRemoved));

    let told = Canned::serving(|request| match operation(request) {
        "GetKeyRotationStatus" => {
            assert_eq!(request.json()["KeyId"], KEY, "an alias is not taken here");
            reply(
                &json!({"KeyRotationEnabled": true, "RotationPeriodInDays": 365, "NextRotationDate": 4_000_000_000.0}),
            )
        }
        _ => {
            reply(&json!({"KeyMetadata": {"KeyId": KEY, "Arn": ARN, "KeyState": "Enabled", "Enabled": true}}))
        }
    });
    let status =
        runtime.block_on(provider(&told.url()).provider().rotation(&Kek::latest("alias/orders"))).unwrap();
    assert!(status.automatic && status.next.is_some() && status.on_demand_since.is_none());
    assert_eq!(status.period_days, Some(365));
}

#[test]
fn aws_answers_without_end_are_bounded() {
    let long = |status: u16| {
        let body =
            format!("{{\"__type\":\"AccessDeniedException\",\"message\":\"{}\"}}", "x".repeat(10 << 20));
        let chunked = format!(
            "HTTP/1.1 {status} Status\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        [answer(status, &[], &body), chunked.into_bytes()]
    };
    for (status, class) in [(200, ErrorClass::Integrity), (400, ErrorClass::Transient)] {
        for bytes in long(status) {
            let canned = Canned::answers([bytes]);
            let error = provider(&canned.url()).unwrap(&canned_wrap(), &context()).unwrap_err();
            assert_eq!(error.class(), class, "{error}");
            assert!(error.message().contains("longer"), "{error}");
        }
    }
}

#[test]
fn aws_request_ids_are_kept_and_raw_answers_are_not() {
    let body = r#"{"__type":"DisabledException","message":"marked-message"}"#;
    let canned = Canned::answers([answer(400, &[("x-amzn-RequestId", "the-request-id")], body)]);
    let kms = Arc::new(provider(&canned.url()));
    let error = kms.describe(&Kek::latest(ARN)).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("marked-message"));
    let cache = strongroom::AekCache::builder().build().unwrap();
    let spec = strongroom::AccountSpec::new(strongroom::AccountId::random(), kms, Kek::latest(ARN));
    let error = cache.create(spec).unwrap_err();
    assert_eq!(error.request_id(), Some("the-request-id"));
}

/// Gives other credentials each time that it is asked; the service knows the second ones only.
#[derive(Debug, Default)]
struct Renewing(AtomicU32);

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        let credentials = Credentials::new(format!("AKIAEXAMPLE{number}"), "secret", None, None, "test");
        aws_credential_types::provider::future::ProvideCredentials::ready(Ok(credentials))
    }
}

fn knows_only(key: &'static str) -> Canned {
    Canned::serving(move |request| {
        let signed = request.header("authorization").unwrap_or_default();
        fixture("aws_kms", if signed.contains(key) { "success" } else { "unrecognized_client" })
    })
}

#[test]
fn aws_a_rejected_credential_is_renewed_past_the_cache_once_and_then_kept() {
    let canned = knows_only("AKIAEXAMPLE1/");
    let credentials = SharedCredentialsProvider::new(Renewing::default());
    let kms = provider_of(ministack::config(&canned.url(), credentials));
    for _ in 0..3 {
        kms.unwrap(&canned_wrap(), &context()).expect("the second credentials are good");
    }
    assert_eq!(canned.requests().len(), 4, "one was rejected");
}

#[test]
fn aws_credentials_that_stay_rejected_are_not_asked_for_all_the_time() {
    let canned = knows_only("nobody");
    let source = Arc::new(Renewing::default());
    let kms = provider_of(ministack::config(
        &canned.url(),
        SharedCredentialsProvider::from(source.clone() as Arc<dyn ProvideCredentials>),
    ));
    for _ in 0..20 {
        let error = kms.unwrap(&canned_wrap(), &context()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Refused(Refusal::CredentialRejected));
    }
    assert!(source.0.load(Ordering::SeqCst) <= 3, "twenty calls in less than 5 s");
}

/// Credentials that cannot be had, for one reason or another.
#[derive(Clone, Debug)]
enum Without {
    Answer,
    Words,
    Role(&'static str),
}

impl ProvideCredentials for Without {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        use aws_credential_types::provider::{error::CredentialsError, future};
        match self {
            Self::Answer => future::ProvideCredentials::new(std::future::pending()),
            Self::Words => {
                future::ProvideCredentials::ready(Err(CredentialsError::provider_error("no route")))
            }
            // As the SDK's provider for assumed roles hands on what STS says: its operations' errors are made alike.
            Self::Role(code) => {
                let said = ErrorMetadata::builder().code(*code).message("marked-message").build();
                let said = DecryptError::generic(said);
                future::ProvideCredentials::ready(Err(CredentialsError::provider_error(said)))
            }
        }
    }
}

#[test]
fn aws_credentials_that_cannot_be_had_are_silence_and_those_that_are_refused_a_refusal() {
    let canned = Canned::answers([fixture("aws_kms", "success")]);
    for (without, class) in [
        (Without::Answer, ErrorClass::Transient),
        (Without::Words, ErrorClass::Transient),
        (Without::Role("Throttling"), ErrorClass::Transient),
        (Without::Role("AccessDenied"), ErrorClass::Refused(Refusal::PermissionRemoved)),
        (Without::Role("ExpiredTokenException"), ErrorClass::Refused(Refusal::CredentialRejected)),
    ] {
        let kms =
            provider_of(ministack::config(&canned.url(), SharedCredentialsProvider::new(without.clone())));
        let began = Instant::now();
        let error = kms.unwrap(&canned_wrap(), &context()).unwrap_err();
        assert_eq!(error.class(), class, "{without:?}: {error}");
        assert!(began.elapsed() < AwsKms::DEFAULT_TIMEOUT + Duration::from_secs(1), "{without:?}");
        assert!(!error.to_string().contains("marked-message"));
    }
    assert!(canned.requests().is_empty());
}

#[test]
fn aws_a_client_without_a_region_is_misconfigured() {
    let config = ministack::config("http://127.0.0.1:1", ministack::root()).region(None).build();
    let error = AwsKms::new(&aws_sdk_kms::Client::from_conf(config)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Misconfigured);
}

#[test]
fn aws_secrets_are_shown_nowhere() {
    let mut shown = String::new();
    let names = [
        "access_denied_explicitly",
        "signature_does_not_match",
        "throttling",
        "invalid_ciphertext",
        "proxy_forbids",
        "success_of_another_length",
    ];
    for name in names {
        let canned = Canned::answers([fixture("aws_kms", name)]);
        let client =
            aws_sdk_kms::Client::from_conf(ministack::config(&canned.url(), marked_credentials()).build());
        let kms = AwsKms::new(&client)
            .unwrap()
            .grant_tokens(["marked-grant-token".to_owned()])
            .credential_name("tenant");
        assert_eq!(
            AsyncKeyProvider::authority(&kms),
            Authority::new("aws-kms", "us-east-1").with_credential_name("tenant")
        );
        let kms = OnTokio::with_own_runtime(kms).unwrap();
        let unwrapped = kms.unwrap(&canned_wrap(), &context());
        let wrapped = kms.wrap(&Kek::latest(ARN), &context(), &input());
        write!(shown, "{kms:?} {:?} {unwrapped:?} {wrapped:?}", kms.provider()).unwrap();
        for error in [unwrapped.unwrap_err(), wrapped.unwrap_err()] {
            write!(shown, "{error} {error:?}").unwrap();
        }
    }
    assert!(!shown.contains("marked") && !shown.contains("xxxxxxxx") && !shown.contains("eHh4"), "{shown}");
    assert!(shown.contains("us-east-1") && shown.contains("AccessDeniedException"));
}
