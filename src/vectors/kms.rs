//! What a KMS is given, and the KMS in a file.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::derivations::GENERATIONS;
use super::{
    File, Outcome, Owner, World, bytes, flipped, hex, kind, merge, number, set, stream, text, unhex,
};
use crate::engine::{Aead, Bound, Engine};
use crate::id::Suite;
use crate::provider::{
    Authority, Kek, KekInfo, KekUri, KekVersion, KeyProvider, LocalKms, ProviderError, WrapAlgorithm,
    WrapContext, WrapInput, WrapRole, Wrapped,
};
use crate::secret::Dek;

/// A KMS that unwraps anything to one secret.
#[derive(Debug)]
pub(super) struct KnownSecret(pub(super) [u8; 32]);

impl KeyProvider for KnownSecret {
    fn wrap(&self, _: &Kek, _: &WrapContext, _: &WrapInput) -> Result<Wrapped, ProviderError> {
        Err(ProviderError::transient("never wraps"))
    }

    fn unwrap(&self, _: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        Ok(context.input(&self.0))
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        Ok(KekInfo::new(self.authority().uri_of(kek.name())?, KekVersion::new("1")?))
    }

    fn authority(&self) -> Authority {
        Authority::new("vectors", "v")
    }
}

fn context_of(owner: &Owner, role: WrapRole) -> WrapContext {
    WrapContext::new(owner.account(), owner.generation(), Suite::Aes256Gcm, role)
}

/// The suite is 1 and the share 0 where the vector tells no other.
fn context_in(vector: &Value) -> WrapContext {
    let owner = Owner::read(vector);
    let told = |field: &str, usual: u8| vector.get(field).map_or(usual, |_| octet(vector, field));
    let suite = Suite::from_number(told("suite", 1)).unwrap();
    let role = match number(vector, "role") {
        1 => WrapRole::Inner,
        2 => WrapRole::Outer,
        255 => WrapRole::Preflight,
        other => panic!("{other}: no role"),
    };
    WrapContext::new(owner.account(), owner.generation(), suite, role).with_share(told("share", 0))
}

fn octet(vector: &Value, field: &str) -> u8 {
    u8::try_from(number(vector, field)).unwrap()
}

pub(super) fn wraps() -> File {
    let mut file = File::new("wrap");
    let mut owners: Vec<Owner> = GENERATIONS.map(Owner::of_generation).into();
    for byte in [0, 0xFF] {
        owners.push(Owner { account: [byte; 16], secret: [byte; 32], generation: 1, ..Owner::usual() });
    }
    for (i, owner) in owners.iter().enumerate() {
        for role in [WrapRole::Inner, WrapRole::Preflight] {
            let context = context_of(owner, role);
            let pairs = context.to_pairs().map(|(name, value)| (name.to_owned(), Value::String(value)));
            let fields = json!({
                "op": "context", "role": role.number(), "context": hex(&context.to_bytes()),
                "names": Value::Object(Map::from_iter(pairs)),
            });
            file.push(format!("context {i} {role:?}"), owner, fields);
            let input = hex(context.input(&owner.secret).expose());
            let fields = json!({ "op": "input", "role": role.number(), "input": input });
            file.push(format!("input {i} {role:?}"), owner, fields);
        }
    }
    let owner = Owner::usual();
    let input = *context_of(&owner, WrapRole::Inner).input(&owner.secret).expose();
    let mut refused = |name: String, input: &[u8], error: &str| {
        let fields = json!({ "op": "input", "role": 1, "input": hex(input), "error": error });
        file.push(name, &owner, fields);
    };
    for at in 0..24 {
        refused(format!("byte {at} is changed"), &flipped(&input, at), "Other");
    }
    refused("of a preflight".to_owned(), &set(&input, 2, &[255]), "Other");
    for len in [0, 1, 24, 32, 55] {
        refused(format!("cut to {len} bytes"), &input[..len], "Integrity");
    }
    refused("a byte more".to_owned(), &[&input[..], &[0]].concat(), "Integrity");
    several_secrets(&mut file, &owner);
    file
}

/// What an account of more than one secret has wrapped: the second AEK of suite 2, and the shares of a joint custody.
fn several_secrets(file: &mut File, owner: &Owner) {
    let all = [
        (Suite::Double, WrapRole::Inner, 0),
        (Suite::Double, WrapRole::Outer, 0),
        (Suite::Aes256Gcm, WrapRole::Inner, 1),
        (Suite::Aes256Gcm, WrapRole::Inner, 2),
        (Suite::Double, WrapRole::Inner, 1),
        (Suite::Double, WrapRole::Inner, 2),
    ];
    let context = |(suite, role, share): (Suite, WrapRole, u8)| {
        WrapContext::new(owner.account(), owner.generation(), suite, role).with_share(share)
    };
    for secret in all {
        let (suite, role, share) = secret;
        let named = format!("suite {}, role {}, share {share}", suite.number(), role.number());
        let fields = json!({ "suite": suite.number(), "role": role.number(), "share": share });
        let pairs = context(secret).to_pairs().map(|(name, value)| (name.to_owned(), Value::String(value)));
        let told = json!({
            "op": "context", "context": hex(&context(secret).to_bytes()), "names": Value::Object(Map::from_iter(pairs)),
        });
        file.push(format!("context, {named}"), owner, merge(fields.clone(), told));
        let input = hex(context(secret).input(&owner.secret).expose());
        file.push(
            format!("input, {named}"),
            owner,
            merge(fields.clone(), json!({ "op": "input", "input": input })),
        );
        for (at, other) in all.into_iter().enumerate().filter(|(_, other)| *other != secret) {
            let input = hex(context(other).input(&owner.secret).expose());
            let told = json!({ "op": "input", "input": input, "error": "Other" });
            file.push(format!("input {at} of these for {named}"), owner, merge(fields.clone(), told));
        }
    }
}

/// `Other` is an answer that is of another account, generation, suite, role or share.
pub(super) fn check_wrap(_: &mut World, vector: &Value) -> Outcome {
    let owner = Owner::read(vector);
    let context = context_in(vector);
    if text(vector, "op") == "context" {
        assert_eq!(hex(&context.to_bytes()), text(vector, "context"));
        for (name, value) in context.to_pairs() {
            assert_eq!(json!(value), vector["names"][name]);
        }
        return Ok(());
    }
    let input = WrapInput::from_slice(&unhex(vector, "input")).map_err(class)?;
    let secret = input.secret_for(&context).ok_or("Other")?;
    assert_eq!(secret, &owner.secret);
    Ok(())
}

/// What a LocalKms unwraps, and from which file.
#[derive(Clone)]
struct Wrap {
    owner: Owner,
    file: String,
    kek: String,
    version: String,
    algorithm: String,
    wrapped: Vec<u8>,
}

const MATERIAL: &str = "material";
const ID: &str = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf";
const V1: &str = "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf";
const V2: &str = "e0e1e2e3e4e5e6e7e8e9eaebecedeeef";

impl Wrap {
    fn usual() -> Self {
        let owner = Owner::usual();
        Self {
            wrapped: wrapped(&owner, MATERIAL),
            owner,
            file: with_head(&body()),
            kek: format!("local://{ID}/orders"),
            version: V1.to_owned(),
            algorithm: "AES-256-GCM".to_owned(),
        }
    }

    fn with_body(&self, body: &str) -> Self {
        Self { file: with_head(body), ..self.clone() }
    }

    fn fields(&self) -> Value {
        json!({
            "file": self.file, "kek": self.kek, "version": self.version, "algorithm": self.algorithm,
            "wrapped": hex(&self.wrapped),
        })
    }

    fn valid(&self, file: &mut File, name: &str) {
        file.push(name, &self.owner, self.fields());
    }

    fn invalid(&self, file: &mut File, name: impl Into<String>, error: &str) {
        file.push(name, &self.owner, merge(self.fields(), json!({ "error": error })));
    }
}

fn wrapped(owner: &Owner, material: &str) -> Vec<u8> {
    let context = context_of(owner, WrapRole::Inner);
    let nonce: [u8; 12] = bytes("nonce");
    let mut input = *context.input(&owner.secret).expose();
    let key = Dek::new(zerocopy::transmute!(bytes::<32>(material)));
    let bound = Bound { nonce: &nonce, aad: &context.to_bytes() };
    let tag = Engine::Portable.seal_in_place(Aead::Aes256Gcm, &key, bound, &mut input).unwrap();
    [&nonce[..], &input, &tag.0].concat()
}

fn version(id: &str, enabled: bool, material: &str) -> String {
    let material = hex(&stream(material, 32));
    format!(r#"{{"id":"{id}","enabled":{enabled},"created_at":1790000000,"material":"{material}"}}"#)
}

fn key(name: &str, versions: &str) -> String {
    format!(
        r#"{{"name":"{name}","enabled":true,"purge_protection":true,"retention_seconds":7776000,"deleted_at":null,"versions":[{versions}]}}"#
    )
}

fn body() -> String {
    format!(r#"{{"id":"{ID}","keys":[{}]}}"#, key("orders", &version(V1, true, MATERIAL)))
}

fn with_head(body: &str) -> String {
    let digest = hex(&Sha256::digest(body));
    format!("{{\"format\":\"strongroom-local-kms\",\"version\":1,\"sha256\":\"{digest}\"}}\n{body}\n")
}

pub(super) fn local_kms() -> File {
    let mut file = File::new("local_kms");
    let usual = Wrap::usual();
    usual.valid(&mut file, "usual");
    for generation in GENERATIONS.into_iter().skip(1) {
        let owner = Owner::of_generation(generation);
        let wrapped = wrapped(&owner, MATERIAL);
        Wrap { owner, wrapped, ..usual.clone() }.valid(&mut file, &format!("generation {generation}"));
    }
    let two = format!("{},{}", version(V1, true, MATERIAL), version(V2, true, "material 2"));
    let two = usual.with_body(&format!(r#"{{"id":"{ID}","keys":[{}]}}"#, key("orders", &two)));
    two.valid(&mut file, "an older version");
    let second = Wrap { version: V2.to_owned(), wrapped: wrapped(&usual.owner, "material 2"), ..two };
    second.valid(&mut file, "the newer version");
    let off = format!("{},{}", version(V1, true, MATERIAL), version(V2, false, "material 2"));
    let off = usual.with_body(&format!(r#"{{"id":"{ID}","keys":[{}]}}"#, key("orders", &off)));
    off.valid(&mut file, "current version disabled, an older one asked for");
    let long = "n".repeat(128);
    let kek = format!("local://{ID}/{long}");
    Wrap { kek, ..usual.with_body(&body().replace("orders", &long)) }.valid(&mut file, "longest name");
    for (name, change) in [
        ("earliest time", ("1790000000", "0")),
        ("latest time", ("1790000000", "18446744073709551615")),
        ("shortest retention", ("7776000", "604800")),
        ("no purge protection", (r#""purge_protection":true"#, r#""purge_protection":false"#)),
    ] {
        usual.with_body(&body().replace(change.0, change.1)).valid(&mut file, name);
    }
    for (name, kek) in [("slash and quote", r#"a/\"b\\"#), ("other letters", "ключ🔑"), ("spaces", " a  b ")]
    {
        let kms = usual.with_body(&body().replace("orders", kek));
        let kek = format!("local://{ID}/{}", kek.replace('\\', "").replace(r#""b"#, r#""b\"#));
        Wrap { kek, ..kms }.valid(&mut file, &format!("name with {name}"));
    }
    refused_files(&mut file, &usual);
    refused_unwraps(&mut file, &usual);
    file
}

fn refused_files(file: &mut File, usual: &Wrap) {
    let body = body();
    let whole = |text: String| Wrap { file: text, ..usual.clone() };
    let good = &usual.file;
    for (from, to) in [
        ("\"version\":1,", "\"version\":2,"),
        ("\"version\":1,", "\"version\":0,"),
        ("\"version\":1,", "\"version\":\"1\","),
        ("\"version\":1,", "\"version\":1.0,"),
        ("\"version\":1,", ""),
        ("\"version\":1,", "\"version\":1,\"more\":1,"),
        ("\"version\":1,", "\"version\":1,\"version\":1,"),
        ("\"version\":1,", "\"version\": 1,"),
        ("strongroom-local-kms", "strongroom-other-kms"),
        ("{\"format\"", " {\"format\""),
        ("}\n{", "}\r\n{"),
        ("}\n{", "}{"),
        ("}\n{", "}\n\n{"),
    ] {
        let name = format!("first line, {from:?} is {to:?}");
        whole(good.replacen(from, to, 1)).invalid(file, name, "Format");
    }
    whole(String::new()).invalid(file, "empty", "Format");
    whole(format!("{good}\n")).invalid(file, "a line feed more", "Format");
    whole(good.trim_end().to_owned()).invalid(file, "a line feed less", "Format");
    whole(good.replacen('}', &format!("{}}}", " ".repeat(250)), 1)).invalid(
        file,
        "first line too long",
        "Format",
    );
    whole(good.replace("orders", "orderz")).invalid(file, "a name is changed", "Corrupt");
    whole(good.replacen("true", "false", 1)).invalid(file, "a flag is changed", "Corrupt");
    let head: Vec<&str> = good.lines().collect();
    let digest = &head[0][head[0].len() - 66..head[0].len() - 2];
    whole(good.replace(digest, &"0".repeat(64))).invalid(file, "another digest", "Corrupt");
    whole(good.replace(digest, &digest.to_uppercase())).invalid(file, "digest in upper case", "Format");
    for (from, to) in [
        (r#""enabled":true"#, r#""enabled":1"#),
        (r#""enabled":true,"#, ""),
        (r#""deleted_at":null,"#, ""),
        (r#""deleted_at":null"#, r#""deleted_at":"""#),
        ("7776000", "7776001"),
        ("7776000", "604799"),
        ("7776000", "-1"),
        ("7776000", "7776000.0"),
        ("7776000", "7.776e6"),
        ("1790000000", "18446744073709551616"),
        ("1790000000", "01790000000"),
        ("orders", ""),
        ("orders", "or\\u0000ders"),
        ("orders", "or\\u007fders"),
        ("orders", "or\u{7f}ders"),
        ("orders", "or\u{85}ders"),
        ("orders", "\\u006frders"),
        (V1, "d0"),
        (V1, "D0d1d2d3d4d5d6d7d8d9dadbdcdddedf"),
        (ID, "c0c1c2c3c4c5c6c7c8c9cacbcccdce"),
        (r#""keys":["#, r#""more":1,"keys":["#),
        (r#""keys":["#, r#""keys": ["#),
        (r#""keys":["#, r#""keys":[],"keys":["#),
        (r#","versions":"#, r#","more":[],"versions":"#),
        (r#","material":"#, r#","more":[],"material":"#),
        (r#"true,"purge_protection":true"#, r#"true,"enabled":true,"purge_protection":true"#),
        (r#""enabled":true,"purge_protection":true"#, r#""purge_protection":true,"enabled":true"#),
    ] {
        let name = format!("second line, {from:?} is {to:?}");
        usual.with_body(&body.replacen(from, to, 1)).invalid(file, name, "Format");
    }
    let keys = |keys: &str| usual.with_body(&format!(r#"{{"id":"{ID}","keys":[{keys}]}}"#));
    let one = version(V1, true, MATERIAL);
    keys(&key("orders", "")).invalid(file, "no version", "Format");
    keys(&key(&"n".repeat(129), &one)).invalid(file, "name too long", "Format");
    let twice = format!("{},{}", key("orders", &one), key("orders", &version(V2, true, "material 2")));
    keys(&twice).invalid(file, "one name twice", "Format");
    let twice = format!("{},{}", key("orders", &one), key("others", &one));
    keys(&twice).invalid(file, "one version in two keys", "Format");
    keys(&key("orders", &format!("{one},{one}"))).invalid(file, "one version twice", "Format");
    let array = format!(r#"["{ID}",[{}]]"#, key("orders", &one));
    usual.with_body(&array).invalid(file, "an array for an object", "Format");
    usual.with_body(&format!("{body} ")).invalid(file, "a space at the end", "Format");
}

/// Each with a version of its own.
fn two_keys() -> String {
    let orders = key("orders", &version(V1, true, MATERIAL));
    format!(r#"{{"id":"{ID}","keys":[{orders},{}]}}"#, key("others", &version(V2, true, "material 2")))
}

fn refused_unwraps(file: &mut File, usual: &Wrap) {
    for at in (0..84).step_by(3).chain([11, 12, 67, 68, 83]) {
        let name = format!("wrapped byte {at} is changed");
        if !file.vectors.iter().any(|other| other["name"] == name.as_str()) {
            Wrap { wrapped: flipped(&usual.wrapped, at), ..usual.clone() }.invalid(file, name, "Integrity");
        }
    }
    for len in [1, 12, 27, 28, 68, 83] {
        let cut = Wrap { wrapped: usual.wrapped[..len].to_vec(), ..usual.clone() };
        cut.invalid(file, format!("cut to {len} bytes"), "Integrity");
    }
    let longer = Wrap { wrapped: [&usual.wrapped[..], &[0]].concat(), ..usual.clone() };
    longer.invalid(file, "a byte more", "Integrity");
    let owner = Owner { account: bytes("account 2"), ..Owner::usual() };
    Wrap { owner, ..usual.clone() }.invalid(file, "for another account", "Integrity");
    Wrap { owner: Owner::of_generation(2), ..usual.clone() }.invalid(
        file,
        "for another generation",
        "Integrity",
    );
    let algorithm = "AES-256-GCM-SIV".to_owned();
    Wrap { algorithm, ..usual.clone() }.invalid(file, "another algorithm", "Integrity");
    let version = V2.to_owned();
    Wrap { version, ..usual.clone() }.invalid(file, "a version that is not there", "Refused(KeyGone)");
    let kek = format!("local://{ID}/others");
    Wrap { kek: kek.clone(), ..usual.clone() }.invalid(file, "a KEK that is not there", "Refused(KeyGone)");
    let of_another = Wrap { kek, ..usual.with_body(&two_keys()) };
    of_another.invalid(file, "a version of another KEK", "Refused(KeyGone)");
    for kek in [format!("local://{V1}/orders"), format!("other://{ID}/orders")] {
        let name = format!("a KEK elsewhere, {}", &kek[..9]);
        Wrap { kek, ..usual.clone() }.invalid(file, name, "Misconfigured");
    }
    for (name, from, to, error) in [
        ("KEK disabled", r#""enabled":true,"purge"#, r#""enabled":false,"purge"#, "Refused(KeyDisabled)"),
        (
            "version disabled",
            r#""enabled":true,"created"#,
            r#""enabled":false,"created"#,
            "Refused(KeyDisabled)",
        ),
        ("KEK deleted", r#""deleted_at":null"#, r#""deleted_at":1790000000"#, "Refused(KeyGone)"),
    ] {
        usual.with_body(&body().replace(from, to)).invalid(file, name, error);
    }
}

fn class(error: ProviderError) -> String {
    format!("{:?}", error.class())
}

/// A file that is refused gives a kind of error, an unwrap that fails its class.
pub(super) fn check_local_kms(_: &mut World, vector: &Value) -> Outcome {
    let owner = Owner::read(vector);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    std::fs::write(&path, text(vector, "file")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let kms = LocalKms::open(&path).map_err(kind)?;
    let wrapped = Wrapped::new(
        KekUri::new(text(vector, "kek")).unwrap(),
        KekVersion::new(text(vector, "version")).unwrap(),
        WrapAlgorithm::new(text(vector, "algorithm")).unwrap(),
        unhex(vector, "wrapped"),
    );
    let context = context_of(&owner, WrapRole::Inner);
    let input = kms.unwrap(&wrapped.unwrap(), &context).map_err(class)?;
    assert_eq!(input.secret_for(&context), Some(&owner.secret));
    Ok(())
}
