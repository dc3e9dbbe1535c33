//! Account records, valid ones laid out by hand and invalid ones with a MAC that is right.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::derivations::GENERATIONS;
use super::{File, Outcome, Owner, World, bytes, flipped, hex, kind, merge, stream, unhex};
use crate::derive::MacUse;
use crate::error::ErrorKind;
use crate::format::policy::{RecordPolicy, VersionPolicy};
use crate::format::record::{AccountRecord, RecordState, VerifiedRecord};
use crate::id::Suite;
use crate::provider::Wrapped;

mod custody;
mod double;

use custody::Second;
pub(super) use custody::{check as check_custody, file as custody};
pub(super) use double::file as double;

/// The fields in their order: name and bytes. `None` in a pair of a text's parts does not occur: a length and its
/// bytes are two fields, so that either can be wrong.
type Fields = Vec<(&'static str, Vec<u8>)>;

/// What a record says, in numbers and texts.
#[derive(Clone)]
struct Said {
    owner: Owner,
    sequence: u64,
    created: u64,
    deleted: Option<(u64, u64)>,
    max_grace: Option<u32>,
    whole_outage: bool,
    version_policy: u8,
    limits: (u64, u64, u32),
    provider: String,
    kek: String,
    wrap: Wrap,
    standby: Option<Wrap>,
    /// Under failover or joint custody.
    second: Option<Second>,
    born: u64,
    active: u64,
    /// Where the owner has a second secret.
    outer: Option<OuterWraps>,
}

/// The custody of the second AEK.
#[derive(Clone)]
struct OuterWraps {
    wrap: Wrap,
    standby: Option<Wrap>,
}

#[derive(Clone)]
struct Wrap {
    version: String,
    algorithm: String,
    wrapped: Vec<u8>,
}

impl Wrap {
    fn usual(version: &str) -> Self {
        let wrapped = stream("wrapped", 40);
        Self { version: version.to_owned(), algorithm: "AES-256-GCM".to_owned(), wrapped }
    }

    fn fields(&self) -> Value {
        json!({ "version": self.version, "algorithm": self.algorithm, "wrapped": hex(&self.wrapped) })
    }
}

impl Said {
    fn usual() -> Self {
        Self {
            owner: Owner::usual(),
            sequence: 3,
            created: 1_790_000_000,
            deleted: None,
            max_grace: None,
            whole_outage: false,
            version_policy: 1,
            limits: (1 << 48, 1 << 60, 365),
            provider: "vectors".to_owned(),
            kek: "vectors://v/orders".to_owned(),
            wrap: Wrap::usual("1"),
            standby: None,
            second: None,
            born: 1_790_000_000,
            active: 1_790_000_000,
            outer: None,
        }
    }

    /// The usual one under double encryption.
    fn double() -> Self {
        let wrap = Wrap { wrapped: stream("outer wrapped", 40), ..Wrap::usual("7") };
        let outer = Some(OuterWraps { wrap, standby: None });
        Self { owner: Owner::usual_of(Suite::Double), outer, ..Self::usual() }
    }

    fn content(&self) -> Fields {
        let mut fields: Fields = vec![
            ("magic", b"\x89SRR\r\n\x1a\n".to_vec()),
            ("version", vec![1]),
            ("account", self.owner.account.to_vec()),
            ("sequence", self.sequence.to_be_bytes().to_vec()),
            ("created", self.created.to_be_bytes().to_vec()),
            ("state", vec![1 + u8::from(self.deleted.is_some())]),
        ];
        if let Some((at, until)) = self.deleted {
            fields.push(("deleted at", at.to_be_bytes().to_vec()));
            fields.push(("recoverable until", until.to_be_bytes().to_vec()));
        }
        let (seals, bytes, age) = self.limits;
        let flags = u8::from(self.max_grace.is_some()) + 2 * u8::from(self.whole_outage);
        fields.extend([
            ("policy flags", vec![flags]),
            ("version policy", vec![self.version_policy]),
            ("maximum of grace", self.max_grace.unwrap_or(0).to_be_bytes().to_vec()),
            ("limit of seals", seals.to_be_bytes().to_vec()),
            ("limit of bytes", bytes.to_be_bytes().to_vec()),
            ("limit of age", age.to_be_bytes().to_vec()),
            ("custody", vec![self.second.as_ref().map_or(1, Second::custody)]),
        ]);
        string(&mut fields, ["provider's length", "provider"], self.provider.as_bytes());
        string(&mut fields, ["KEK's length", "KEK"], self.kek.as_bytes());
        string(&mut fields, ["wrap version's length", "wrap version"], self.wrap.version.as_bytes());
        string(&mut fields, ["wrap algorithm's length", "wrap algorithm"], self.wrap.algorithm.as_bytes());
        string(&mut fields, ["wrap's length", "wrap"], &self.wrap.wrapped);
        fields.push(("standby flag", vec![u8::from(self.standby.is_some())]));
        if let Some(standby) = &self.standby {
            string(&mut fields, ["standby version's length", "standby version"], standby.version.as_bytes());
            string(
                &mut fields,
                ["standby algorithm's length", "standby algorithm"],
                standby.algorithm.as_bytes(),
            );
            string(&mut fields, ["standby's length", "standby"], &standby.wrapped);
        }
        if let Some(second) = &self.second {
            second.write(&mut fields);
        }
        fields.extend([
            ("generation", self.owner.generation.to_be_bytes().to_vec()),
            ("suite", vec![self.owner.suite().number()]),
            ("generation created", self.born.to_be_bytes().to_vec()),
            ("active from", self.active.to_be_bytes().to_vec()),
            ("KCV", self.owner.kcvs().0.to_vec()),
        ]);
        if let Some(OuterWraps { wrap, standby }) = &self.outer {
            fields.push(("outer KCV", self.owner.kcvs().1.expect("has a second secret").to_vec()));
            fields.push(("outer custody", vec![1]));
            string(&mut fields, ["outer provider's length", "outer provider"], b"vectors");
            string(&mut fields, ["outer KEK's length", "outer KEK"], OUTER_KEK.as_bytes());
            string(&mut fields, ["outer version's length", "outer version"], wrap.version.as_bytes());
            string(&mut fields, ["outer algorithm's length", "outer algorithm"], wrap.algorithm.as_bytes());
            string(&mut fields, ["outer wrap's length", "outer wrap"], &wrap.wrapped);
            fields.push(("outer standby flag", vec![u8::from(standby.is_some())]));
            if let Some(standby) = standby {
                let lengths = ["outer standby's version's length", "outer standby's version"];
                string(&mut fields, lengths, standby.version.as_bytes());
                let lengths = ["outer standby's algorithm's length", "outer standby's algorithm"];
                string(&mut fields, lengths, standby.algorithm.as_bytes());
                string(&mut fields, ["outer standby's length", "outer standby"], &standby.wrapped);
            }
        }
        fields.push(("older generations", vec![0, 0]));
        fields
    }

    fn with_mac(&self, content: &[u8]) -> Vec<u8> {
        let mac = self.owner.keys().mac(MacUse::Record, b"account record", &[content]);
        [content, &mac].concat()
    }

    fn sealed(&self) -> Vec<u8> {
        self.sealed_as(self.content())
    }

    fn sealed_as(&self, fields: Fields) -> Vec<u8> {
        self.with_mac(&joined(&custody::with_bar(self, fields)))
    }

    /// With these older generations in the place of none.
    fn content_with(&self, older: &[u8]) -> Fields {
        let mut fields = self.content();
        fields.last_mut().expect("not empty").1 = older.to_vec();
        fields
    }

    fn fields(&self) -> Value {
        let (seals, bytes, age) = self.limits;
        let fields = json!({
            "account": hex(&self.owner.account), "sequence": self.sequence, "created": self.created,
            "state": 1 + u8::from(self.deleted.is_some()), "max_grace": self.max_grace,
            "whole_outage": self.whole_outage, "version_policy": self.version_policy,
            "limit_seals": seals, "limit_bytes": bytes, "limit_age_days": age,
            "provider": self.provider, "kek": self.kek, "wrap": self.wrap.fields(),
            "standby": self.standby.as_ref().map(Wrap::fields), "generation": self.owner.generation,
            "generation_created": self.born, "active_from": self.active,
            "kcv": hex(&self.owner.kcvs().0),
        });
        let fields = match &self.outer {
            None => fields,
            Some(OuterWraps { wrap, standby }) => {
                let outer = json!({
                    "outer_kek": OUTER_KEK, "outer_wrap": wrap.fields(),
                    "outer_standby": standby.as_ref().map(Wrap::fields),
                    "outer_kcv": hex(&self.owner.kcvs().1.expect("has a second secret")),
                });
                merge(fields, outer)
            }
        };
        let fields = match &self.second {
            None => fields,
            Some(second) => merge(fields, second.fields()),
        };
        match self.deleted {
            None => fields,
            Some((at, until)) => merge(fields, json!({ "deleted": at, "recoverable_until": until })),
        }
    }

    fn valid(&self, file: &mut File, name: impl Into<String>) {
        let fields = json!({ "sealed": hex(&self.sealed()), "fields": self.fields() });
        file.push(name, &self.owner, fields);
    }

    fn invalid(&self, file: &mut File, name: impl Into<String>, sealed: &[u8], error: ErrorKind) {
        let fields = json!({ "sealed": hex(sealed), "error": format!("{error:?}") });
        file.push(name, &self.owner, fields);
    }
}

fn string(fields: &mut Fields, [length, name]: [&'static str; 2], bytes: &[u8]) {
    fields.push((length, u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec()));
    fields.push((name, bytes.to_vec()));
}

fn joined(fields: &Fields) -> Vec<u8> {
    fields.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// For accounts that are attached: the KMS there gives out the owner's secret for any wrap.
pub(super) fn plain_record(owner: &Owner) -> AccountRecord {
    let usual = if owner.outer.is_some() { Said::double() } else { Said::usual() };
    let said = Said { owner: owner.clone(), created: 0, born: 0, active: 0, ..usual };
    AccountRecord::parse(&said.sealed()).unwrap()
}

/// A record of `owner`'s whose content ends in `older`, in the place of no older generations. Its newest generation is born at
/// [`NEWEST_AT`].
pub(super) fn with_older(owner: &Owner, older: &[u8]) -> Vec<u8> {
    let usual = if owner.outer.is_some() { Said::double() } else { Said::usual() };
    let said = Said { owner: owner.clone(), born: NEWEST_AT, active: NEWEST_AT + 131, ..usual };
    said.sealed_as(said.content_with(older))
}

pub(super) const NEWEST_AT: u64 = 1_790_009_000;

pub(super) fn file() -> File {
    let mut file = File::new("record");
    valid(&mut file);
    valid_texts(&mut file);
    malformed(&mut file);
    malformed_texts(&mut file);
    untrusted(&mut file);
    file
}

const OUTER_KEK: &str = "vectors://v/second";

fn valid(file: &mut File) {
    let usual = Said::usual();
    usual.valid(file, "usual");
    for (max_grace, whole_outage) in
        [(None, true), (Some(0), false), (Some(600), true), (Some(u32::MAX), false)]
    {
        for version_policy in [1, 2] {
            let name = format!("grace {max_grace:?}, whole outage {whole_outage}, versions {version_policy}");
            Said { max_grace, whole_outage, version_policy, ..usual.clone() }.valid(file, name);
        }
    }
    for limits in [(1, 1, 1), (1 << 48, 1, 3650), (1, 1 << 60, 1), ((1 << 48) - 1, (1 << 60) - 1, 3649)] {
        Said { limits, ..usual.clone() }.valid(file, format!("limits {limits:?}"));
    }
    for sequence in [1, 2, 256, u64::MAX] {
        Said { sequence, ..usual.clone() }.valid(file, format!("sequence {sequence}"));
    }
    for generation in GENERATIONS {
        let owner = Owner::of_generation(generation);
        Said { owner, ..usual.clone() }.valid(file, format!("generation {generation}"));
    }
    for (at, until) in [(0, 0), (5, 9), (1_790_000_000, LAST_TIME), (LAST_TIME, LAST_TIME)] {
        let deleted = Some((at, until));
        Said { deleted, ..usual.clone() }.valid(file, format!("deleted {at} to {until}"));
    }
    for (created, born, active) in
        [(0, 0, 0), (0, 0, LAST_TIME), (LAST_TIME, LAST_TIME, LAST_TIME), (9, 5, 6)]
    {
        let name = format!("created {created}, generation {born} to {active}");
        Said { created, born, active, ..usual.clone() }.valid(file, name);
    }
    for byte in [0, 0xFF] {
        let owner = Owner { account: [byte; 16], ..Owner::usual() };
        Said { owner, ..usual.clone() }.valid(file, format!("account {byte:02x}.."));
    }
}

const LAST_TIME: u64 = 253_402_300_799;

fn valid_texts(file: &mut File) {
    let usual = Said::usual();
    let at = |provider: &str, rest: &str| Said {
        provider: provider.to_owned(),
        kek: format!("{provider}://{rest}"),
        ..usual.clone()
    };
    at("p", "").valid(file, "shortest KEK");
    at(&"p".repeat(64), "v/orders").valid(file, "longest provider");
    at("vectors", &"k".repeat(1024 - 10)).valid(file, "longest KEK");
    at("vectors", "v/a://b").valid(file, "KEK with a second ://");
    at("ключ", "мир/🔑").valid(file, "KEK in other letters");
    let wrap = |wrap: Wrap| Said { wrap, ..usual.clone() };
    let one = Wrap::usual("1");
    wrap(Wrap::usual(&"v".repeat(256))).valid(file, "longest version");
    wrap(Wrap { algorithm: "A".to_owned(), ..one.clone() }).valid(file, "shortest algorithm");
    wrap(Wrap { algorithm: "A".repeat(64), ..one.clone() }).valid(file, "longest algorithm");
    wrap(Wrap { wrapped: vec![0], ..one.clone() }).valid(file, "shortest wrap");
    wrap(Wrap { wrapped: stream("wrapped", 4096), ..one }).valid(file, "longest wrap");
    let standby = Some(Wrap { algorithm: "RSA-OAEP-256".to_owned(), ..Wrap::usual("2") });
    Said { standby: standby.clone(), ..usual.clone() }.valid(file, "standby");
    Said { standby, deleted: Some((5, 9)), max_grace: Some(1), whole_outage: true, ..usual }
        .valid(file, "everything");
}

/// Everything that a record can have.
fn full() -> Said {
    let standby = Some(Wrap::usual("2"));
    Said { standby, deleted: Some((5, 9)), max_grace: Some(600), ..Said::usual() }
}

fn refuse(file: &mut File, said: &Said, field: &str, to: &[u8]) {
    let mut fields = said.content();
    let found = fields.iter_mut().find(|(name, _)| *name == field).expect("is a field");
    found.1 = to.to_vec();
    let shown = if to.len() > 32 { format!("{} bytes", to.len()) } else { hex(to) };
    let name = format!("{field} {shown}");
    said.invalid(file, name, &said.with_mac(&joined(&fields)), ErrorKind::Format);
}

fn malformed(file: &mut File) {
    let full = full();
    let late = LAST_TIME + 1;
    for at in 0..8 {
        refuse(file, &full, "magic", &flipped(b"\x89SRR\r\n\x1a\n", at));
    }
    for (field, values) in [
        ("version", &[0, 2, 0xFF][..]),
        ("state", &[0, 3, 0x82]),
        ("policy flags", &[4, 0x80, 0xFF]),
        ("version policy", &[0, 3, 0xFF]),
        ("custody", &[0, 2, 3, 0xFF]),
        ("standby flag", &[2, 0xFF]),
        ("suite", &[0, 2, 3, 0xFF]),
    ] {
        for value in values {
            refuse(file, &full, field, &[*value]);
        }
    }
    for field in ["created", "deleted at", "recoverable until", "generation created", "active from"] {
        refuse(file, &full, field, &late.to_be_bytes());
        refuse(file, &full, field, &u64::MAX.to_be_bytes());
    }
    refuse(file, &full, "sequence", &[0; 8]);
    refuse(file, &full, "deleted at", &10_u64.to_be_bytes());
    refuse(file, &full, "recoverable until", &4_u64.to_be_bytes());
    refuse(file, &full, "active from", &1_789_999_999_u64.to_be_bytes());
    refuse(file, &full, "generation created", &1_790_000_001_u64.to_be_bytes());
    refuse(file, &full, "generation", &[0; 4]);
    refuse(file, &Said::usual(), "maximum of grace", &[0, 0, 0, 1]);
    for (field, most) in [("limit of seals", 1_u64 << 48), ("limit of bytes", 1 << 60)] {
        for value in [0, most + 1, u64::MAX] {
            refuse(file, &full, field, &value.to_be_bytes());
        }
    }
    for value in [0_u32, 3651, u32::MAX] {
        refuse(file, &full, "limit of age", &value.to_be_bytes());
    }
    for count in [1_u16, 256, u16::MAX] {
        refuse(file, &full, "older generations", &count.to_be_bytes());
    }
    let content = joined(&full.content());
    full.invalid(file, "a byte more", &full.with_mac(&[&content[..], &[0]].concat()), ErrorKind::Format);
    full.invalid(file, "a byte less", &full.with_mac(&content[..content.len() - 1]), ErrorKind::Format);
    for len in [0, 1, 31, 32, 33, 40, 41, 100] {
        full.invalid(file, format!("cut to {len} bytes"), &full.sealed()[..len], ErrorKind::Format);
    }
    let (mut end, mut seen) = (0, Vec::new());
    for (field, bytes) in full.content() {
        end += bytes.len();
        if end < content.len() && !seen.contains(&field) {
            seen.push(field);
            let name = format!("ends after its {field}");
            full.invalid(file, name, &full.with_mac(&content[..end]), ErrorKind::Format);
        }
    }
}

fn malformed_texts(file: &mut File) {
    let full = full();
    for (field, most) in [
        ("provider", 64),
        ("KEK", 1024),
        ("wrap version", 256),
        ("wrap algorithm", 64),
        ("wrap", 4096),
        ("standby version", 256),
        ("standby algorithm", 64),
        ("standby", 4096),
    ] {
        let mut long = full.content();
        let at = long.iter().position(|(name, _)| *name == field).expect("is a field");
        let value = match field {
            "KEK" => format!("vectors://{}", "k".repeat(1015)).into_bytes(),
            _ => vec![b'x'; most + 1],
        };
        long[at - 1].1 = u16::try_from(value.len()).unwrap().to_be_bytes().to_vec();
        long[at].1 = value;
        if field == "provider" {
            long[at + 2].1 = format!("{}://v", "x".repeat(65)).into_bytes();
            long[at + 1].1 = vec![0, 69];
        }
        let name = format!("{field} too long");
        full.invalid(file, name, &full.with_mac(&joined(&long)), ErrorKind::Format);

        let mut empty = full.content();
        empty[at - 1].1 = vec![0, 0];
        empty[at].1 = Vec::new();
        full.invalid(file, format!("{field} empty"), &full.with_mac(&joined(&empty)), ErrorKind::Format);

        let length = full.content()[at - 1].0;
        refuse(file, &full, length, &[0xFF, 0xFF]);
        if !field.ends_with("wrap") && field != "standby" {
            for (what, byte) in [("not UTF-8", 0xFF), ("with a control character", 0x1F), ("with DEL", 0x7F)]
            {
                let mut changed = full.content();
                *changed[at].1.last_mut().expect("is not empty") = byte;
                if field == "provider" {
                    let last = changed[at].1.len() - 1;
                    changed[at + 2].1[last] = byte;
                }
                let name = format!("{field} {what}");
                full.invalid(file, name, &full.with_mac(&joined(&changed)), ErrorKind::Format);
            }
        }
    }
    let kek = |kek: &str| Said { kek: kek.to_owned(), ..full.clone() };
    for (name, other) in [
        ("KEK of another provider", "vectorz://v/orders"),
        ("KEK without a provider", "vectors:/v/orders"),
        ("KEK of a longer provider", "vectors2://v/orders"),
    ] {
        full.invalid(file, name, &kek(other).sealed(), ErrorKind::Format);
    }
    let same = Said { standby: Some(Wrap::usual("1")), ..full.clone() };
    same.invalid(file, "standby of the same version", &same.sealed(), ErrorKind::Format);
}

/// Well-formed, but changed after it was sealed, or sealed by somebody else.
fn untrusted(file: &mut File) {
    let full = full();
    let sealed = full.sealed();
    let mut at = 0;
    for (field, bytes) in full.content() {
        let fits = matches!(
            field,
            "account"
                | "sequence"
                | "created"
                | "maximum of grace"
                | "wrap version"
                | "wrap algorithm"
                | "wrap"
                | "standby"
                | "generation"
                | "KCV"
                | "KEK"
        );
        if fits {
            let last = at + bytes.len() - 1;
            let mut changed = sealed.clone();
            changed[last] ^= 4;
            full.invalid(file, format!("{field} is changed"), &changed, ErrorKind::Untrusted);
        }
        at += bytes.len();
    }
    for at in (sealed.len() - 32..sealed.len()).step_by(3) {
        let name = format!("byte {} of the MAC is changed", at + 32 - sealed.len());
        full.invalid(file, name, &flipped(&sealed, at), ErrorKind::Untrusted);
    }
    let forger = Owner { secret: bytes("secret 2"), ..Owner::usual() };
    full.invalid(
        file,
        "sealed under another AEK",
        &Said { owner: forger.clone(), ..full.clone() }.sealed(),
        ErrorKind::Untrusted,
    );
    let mut forged = full.sealed();
    let len = forged.len() - 32;
    let mac = forger.keys().mac(MacUse::Record, b"account record", &[&forged[..len]]);
    forged[len..].copy_from_slice(&mac);
    full.invalid(file, "MAC of another AEK", &forged, ErrorKind::Untrusted);
    let mac = full.owner.keys().mac(MacUse::ObjectHeader, b"object header", &[&forged[..len]]);
    forged[len..].copy_from_slice(&mac);
    full.invalid(file, "MAC for another use", &forged, ErrorKind::Untrusted);
}

pub(super) fn check(_: &mut World, vector: &Value) -> Outcome {
    let sealed = unhex(vector, "sealed");
    let record = AccountRecord::parse(&sealed).map_err(kind)?;
    assert_eq!(record.to_bytes(), sealed);
    let keys = Owner::read(vector).keys();
    let verified = record.verify(keys.prks()).map_err(kind)?;
    let (record, fields) = (verified.record(), &vector["fields"]);
    assert_eq!(json!(hex(record.account().as_bytes())), fields["account"]);
    assert_eq!(json!(record.sequence().number()), fields["sequence"]);
    assert_eq!(json!(record.kek().as_str()), fields["kek"]);
    assert_eq!(json!(record.generation().number()), fields["generation"]);
    assert_eq!(json!(record.outer_kek().map(crate::provider::KekUri::as_str)), fields["outer_kek"]);
    if let Some(held) = record.held().last().filter(|_| record.outer_kek().is_some()) {
        assert_eq!(json!(hex(held.slot.wrapped.bytes())), fields["outer_wrap"]["wrapped"]);
        let standby = held.slot.standby.as_ref().map(|standby| hex(standby.bytes()));
        assert_eq!(json!(standby), fields["outer_standby"].get("wrapped").cloned().unwrap_or_default());
    }
    check_times(&verified, fields);
    check_policy(verified.policy(), fields);
    let wrap = |wrapped: &Wrapped| {
        let (version, algorithm) = (wrapped.version().as_str(), wrapped.algorithm().as_str());
        json!({ "version": version, "algorithm": algorithm, "wrapped": hex(wrapped.bytes()) })
    };
    assert_eq!(wrap(record.wrapped()), fields["wrap"]);
    assert_eq!(json!(record.held()[0].slot.standby.as_ref().map(wrap)), fields["standby"]);
    assert_eq!(json!(hex(record.newest().fingerprint.as_bytes())), fields["kcv"]);
    let outer = record.newest().outer.map(|outer| hex(outer.as_bytes()));
    assert_eq!(json!(outer), fields["outer_kcv"]);
    Ok(())
}

fn check_times(verified: &VerifiedRecord, fields: &Value) {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("is later").as_secs();
    let record = verified.record();
    let times = [record.created(), record.generation_created(), record.generation_active_from()];
    let named = ["created", "generation_created", "active_from"];
    assert_eq!(json!(times.map(seconds)), json!(named.map(|name| &fields[name])));
    let (state, deleted) = match verified.state() {
        RecordState::Active => (1, [None, None]),
        RecordState::Deleted { at, recoverable_until } => {
            (2, [at, recoverable_until].map(|time| Some(seconds(time.into()))))
        }
    };
    assert_eq!(json!(state), fields["state"]);
    assert_eq!(json!(deleted), json!([&fields["deleted"], &fields["recoverable_until"]]));
}

fn check_policy(policy: &RecordPolicy, fields: &Value) {
    let version_policy = match policy.version_policy() {
        VersionPolicy::Latest => 1,
        VersionPolicy::Pinned => 2,
    };
    let limits = policy.limits();
    let found = json!({
        "max_grace": policy.max_grace().map(|grace| grace.as_secs()),
        "whole_outage": policy.consents_to_whole_outage(), "version_policy": version_policy,
        "limit_seals": limits.seals(), "limit_bytes": limits.bytes(), "limit_age_days": limits.age_days(),
    });
    for (name, value) in found.as_object().expect("is one") {
        assert_eq!(value, &fields[name], "{name}");
    }
}
