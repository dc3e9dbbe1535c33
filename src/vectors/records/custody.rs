//! Account records that two KEKs hold: what is different in them, and the record that a refusal makes of one.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Fields, LAST_TIME, NEWEST_AT, OuterWraps, Said, Wrap, joined, refuse, string};
use crate::derive::MacUse;
use crate::error::ErrorKind;
use crate::format::record::{AccountRecord, Standing};
use crate::id::Suite;
use crate::vectors::{
    File, Outcome, Owner, World, bytes, flipped, generations, hex, kind, merge, stream, unhex,
};

/// What a record says of its second KEK.
#[derive(Clone)]
pub(super) struct Second {
    provider: String,
    kek: String,
    wrap: Wrap,
    standby: Option<Wrap>,
    /// Of a failover; a joint custody has none.
    terms: Option<Terms>,
}

#[derive(Clone, Copy)]
struct Terms {
    limit: u32,
    confirmed: u64,
    barred: bool,
}

impl Second {
    fn usual(terms: Option<Terms>) -> Self {
        let wrap = Wrap { wrapped: stream("second wrapped", 40), ..Wrap::usual("4") };
        let (provider, kek) = ("others".to_owned(), "others://o/orders".to_owned());
        Self { provider, kek, wrap, standby: None, terms }
    }

    pub(super) const fn custody(&self) -> u8 {
        if self.terms.is_some() { 2 } else { 3 }
    }

    /// The second slot, and the terms. The bar is filled in by [`with_bar`].
    pub(super) fn write(&self, fields: &mut Fields) {
        let Self { provider, kek, wrap, standby, terms } = self;
        string(fields, ["second provider's length", "second provider"], provider.as_bytes());
        string(fields, ["second KEK's length", "second KEK"], kek.as_bytes());
        string(fields, ["second version's length", "second version"], wrap.version.as_bytes());
        string(fields, ["second algorithm's length", "second algorithm"], wrap.algorithm.as_bytes());
        string(fields, ["second wrap's length", "second wrap"], &wrap.wrapped);
        fields.push(("second standby flag", vec![u8::from(standby.is_some())]));
        if let Some(standby) = standby {
            let lengths = ["second standby's version's length", "second standby's version"];
            string(fields, lengths, standby.version.as_bytes());
            let lengths = ["second standby's algorithm's length", "second standby's algorithm"];
            string(fields, lengths, standby.algorithm.as_bytes());
            string(fields, ["second standby's length", "second standby"], &standby.wrapped);
        }
        if let Some(Terms { limit, confirmed, barred }) = terms {
            fields.push(("limit of the second", limit.to_be_bytes().to_vec()));
            fields.push(("confirmed", confirmed.to_be_bytes().to_vec()));
            fields.push(("barred", vec![u8::from(*barred)]));
            if !barred {
                fields.push(("bar", vec![0; 32]));
            }
        }
    }

    pub(super) fn fields(&self) -> Value {
        let fields = json!({
            "custody": self.custody(), "second_provider": self.provider, "second_kek": self.kek,
            "second_wrap": self.wrap.fields(), "second_standby": self.standby.as_ref().map(Wrap::fields),
        });
        match self.terms {
            None => fields,
            Some(Terms { limit, confirmed, barred }) => {
                merge(fields, json!({ "limit": limit, "confirmed": confirmed, "barred": barred }))
            }
        }
    }
}

/// The record that follows the one with these fields when the first KMS refuses, where they have room for its MAC.
fn barred(said: &Said, fields: &Fields) -> Option<Vec<u8>> {
    let at = fields.iter().position(|(name, _)| *name == "bar")?;
    let mut next = fields.clone();
    next.remove(at);
    next[at - 1].1 = vec![1];
    let sequence = next.iter_mut().find(|(name, _)| *name == "sequence").expect("is a field");
    sequence.1 = (said.sequence + 1).to_be_bytes().to_vec();
    Some(said.with_mac(&joined(&next)))
}

/// The fields with the MAC of the record that a refusal makes of them.
pub(super) fn with_bar(said: &Said, mut fields: Fields) -> Fields {
    if let Some(next) = barred(said, &fields) {
        let bar = fields.iter_mut().find(|(name, _)| *name == "bar").expect("has room for it");
        bar.1 = next[next.len() - 32..].to_vec();
    }
    fields
}

/// The three of which all others are made.
fn open(suite: Suite) -> Said {
    said(suite, Some(Terms { limit: 86_400, confirmed: 1_790_000_500, barred: false }))
}

fn shut(suite: Suite) -> Said {
    said(suite, Some(Terms { limit: 86_400, confirmed: 1_790_000_500, barred: true }))
}

fn joint(suite: Suite) -> Said {
    said(suite, None)
}

fn said(suite: Suite, terms: Option<Terms>) -> Said {
    let usual = if suite == Suite::Double { Said::double() } else { Said::usual() };
    let second_share = terms.is_none().then(|| bytes("second share"));
    let owner = Owner { second_share, ..usual.owner.clone() };
    Said { owner, second: Some(Second::usual(terms)), ..usual }
}

/// With the second KEK changed.
fn with(said: &Said, change: impl FnOnce(&mut Second)) -> Said {
    let mut said = said.clone();
    change(said.second.as_mut().expect("has one"));
    said
}

fn with_terms(said: &Said, change: impl FnOnce(&mut Terms)) -> Said {
    with(said, |second| change(second.terms.as_mut().expect("has some")))
}

/// Everything that such a record can have.
fn full(said: &Said) -> Said {
    let wraps = said.outer.clone();
    let outer = wraps.map(|wraps| OuterWraps { standby: Some(Wrap::usual("8")), ..wraps });
    let said = Said { outer, standby: Some(Wrap::usual("2")), deleted: Some((5, 9)), ..said.clone() };
    with(&said, |second| second.standby = Some(Wrap::usual("5")))
}

pub(in crate::vectors) fn file() -> File {
    let mut file = File::new("custody");
    for suite in [Suite::Aes256Gcm, Suite::Double] {
        for (what, said) in
            [("failover", open(suite)), ("failover, barred", shut(suite)), ("joint", joint(suite))]
        {
            let mut maker = Maker { file: &mut file, prefix: format!("suite {}, {what}", suite.number()) };
            maker.valid(&said);
            maker.malformed(&said);
            maker.untrusted(&said);
        }
    }
    file
}

/// Makes the vectors of one custody in one suite.
struct Maker<'a> {
    file: &'a mut File,
    prefix: String,
}

impl Maker<'_> {
    fn accept(&mut self, what: &str, said: &Said) {
        self.accept_with(what, said, said.content(), &[]);
    }

    fn accept_with(&mut self, what: &str, said: &Said, fields: Fields, older: &[Value]) {
        let mut vector = json!({ "fields": said.fields() });
        if let Some(next) = barred(said, &fields) {
            vector = merge(vector, json!({ "barred": hex(&next) }));
        }
        if !older.is_empty() {
            vector = merge(vector, json!({ "older": older }));
        }
        let vector = merge(vector, json!({ "sealed": hex(&said.sealed_as(fields)) }));
        self.file.push(format!("{}: {what}", self.prefix), &said.owner, vector);
    }

    fn refuse(&mut self, what: &str, said: &Said, sealed: &[u8], error: ErrorKind) {
        said.invalid(self.file, format!("{}: {what}", self.prefix), sealed, error);
    }

    /// With one field of it set to something that has no meaning.
    fn refuse_field(&mut self, said: &Said, field: &str, to: &[u8]) {
        let mut of = File::new("custody");
        refuse(&mut of, said, field, to);
        for mut vector in of.vectors {
            let name = vector["name"].as_str().expect("has one").to_owned();
            let fields = vector.as_object_mut().expect("is one");
            fields.remove("name");
            self.file.push(format!("{}: {name}", self.prefix), &said.owner, vector);
        }
    }

    fn valid(&mut self, said: &Said) {
        self.accept("usual", said);
        self.accept("everything", &full(said));
        for sequence in [1, u64::MAX - 1] {
            self.accept(&format!("sequence {sequence}"), &Said { sequence, ..said.clone() });
        }
        let longest = |second: &mut Second| {
            second.provider = "p".repeat(64);
            second.kek = format!("{}://{}", second.provider, "k".repeat(1024 - 67));
            second.wrap = Wrap { wrapped: stream("second wrapped", 4096), ..Wrap::usual(&"v".repeat(256)) };
        };
        self.accept("longest second KEK", &with(said, longest));
        let same_name = |second: &mut Second| second.kek = "others://v/orders".to_owned();
        self.accept("second KEK of the same name", &with(said, same_name));
        if said.second.as_ref().is_some_and(|second| second.terms.is_some()) {
            for limit in [1, 604_800] {
                self.accept(&format!("limit {limit}"), &with_terms(said, |terms| terms.limit = limit));
            }
            for confirmed in [0, LAST_TIME] {
                let what = format!("confirmed {confirmed}");
                self.accept(&what, &with_terms(said, |terms| terms.confirmed = confirmed));
            }
        } else {
            for byte in [0, 0xFF] {
                let owner = Owner { second_share: Some([byte; 32]), ..said.owner.clone() };
                self.accept(&format!("second share {byte:02x}.."), &Said { owner, ..said.clone() });
            }
        }
        for numbers in [&[2, 1][..], &[9, 7, 3]] {
            self.older(said, numbers);
        }
    }

    /// With older generations: those of the same custody.
    fn older(&mut self, said: &Said, numbers: &[u32]) {
        let (chain, said) = with_chain(said, numbers);
        let fields = said.content_with(&chain.tail());
        self.accept_with(&format!("{} generations", numbers.len()), &said, fields, &chain.fields());
    }

    fn malformed(&mut self, said: &Said) {
        let full = full(said);
        if full.outer.is_some() {
            // What stands before is laid out as in suite 1.
            for value in [2, 3] {
                self.refuse_field(&full, "outer custody", &[value]);
            }
            return;
        }
        let content = full.content();
        for value in [0, 1, 4, 0xFF, 5 - full.content()[custody_at(&content)].1[0]] {
            self.refuse_field(&full, "custody", &[value]);
        }
        for value in [2, 0xFF] {
            self.refuse_field(&full, "second standby flag", &[value]);
        }
        let mut end = 0;
        for (field, bytes) in &content {
            end += bytes.len();
            let of_the_second = field.starts_with("second") || TERMS.contains(field);
            if of_the_second {
                let cut = full.with_mac(&joined(&content)[..end]);
                self.refuse(&format!("ends after its {field}"), &full, &cut, ErrorKind::Format);
            }
            if of_the_second && field.ends_with("length") {
                self.refuse_field(&full, field, &[0, 0]);
                self.refuse_field(&full, field, &[0xFF, 0xFF]);
            }
        }
        for other in ["vectors://o/orders", "others:/o/orders", "others2://o/orders"] {
            let said = with(&full, |second| other.clone_into(&mut second.kek));
            self.refuse(&format!("second KEK {other}"), &said, &said.sealed(), ErrorKind::Format);
        }
        let same = with(&full, |second| second.standby = Some(Wrap::usual("4")));
        self.refuse("second standby of the same version", &same, &same.sealed(), ErrorKind::Format);
        let one = with(&full, |second| {
            (second.provider, second.kek) = (said.provider.clone(), said.kek.clone());
        });
        self.refuse("two KEKs that are one", &one, &one.sealed(), ErrorKind::Format);
        if full.second.as_ref().is_some_and(|second| second.terms.is_some()) {
            for limit in [0, 604_801, u32::MAX] {
                self.refuse_field(&full, "limit of the second", &limit.to_be_bytes());
            }
            for time in [LAST_TIME + 1, u64::MAX] {
                self.refuse_field(&full, "confirmed", &time.to_be_bytes());
            }
            // The other value of the flag, with the bar that does not belong to it, or without the one that does.
            for value in [2, 0xFF, u8::from(content.iter().any(|(field, _)| *field == "bar"))] {
                self.refuse_field(&full, "barred", &[value]);
            }
        }
    }

    /// Well-formed, but changed after it was sealed, or sealed by somebody who has not all of the AEK.
    fn untrusted(&mut self, said: &Said) {
        let full = full(said);
        let sealed = full.sealed();
        let mac = &sealed[sealed.len() - 32..];
        let mut at = 0;
        for (field, bytes) in full.content() {
            let fits = matches!(
                field,
                "second KEK"
                    | "second version"
                    | "second wrap"
                    | "second standby"
                    | "confirmed"
                    | "bar"
                    | "limit of the second"
            );
            at += bytes.len();
            if fits {
                let mut changed = sealed.clone();
                changed[at - 1] ^= 4;
                self.refuse(&format!("{field} is changed"), &full, &changed, ErrorKind::Untrusted);
            }
        }
        self.refuse("of another MAC", &full, &flipped(&sealed, sealed.len() - 1), ErrorKind::Untrusted);
        let exchanged = exchanged(&full);
        let forged = [&joined(&with_bar(&full, exchanged.content()))[..], mac].concat();
        self.refuse("its KEKs exchanged", &full, &forged, ErrorKind::Untrusted);
        let (chain, several) = with_chain(&full, &[9, 7, 3]);
        let odd = several.sealed_as(several.content_with(&chain.with_an_odd_one().tail()));
        self.refuse("an older AEK of another custody", &several, &odd, ErrorKind::Untrusted);
        let alone = Said { second: None, ..full.clone() };
        let forged = [&joined(&alone.content())[..], mac].concat();
        self.refuse("without its second KEK", &full, &forged, ErrorKind::Untrusted);
        if full.owner.second_share.is_some() {
            self.without_a_share(&full);
        } else {
            self.forged_standing(&full);
        }
    }

    /// Whoever holds one share, and makes up the other.
    fn without_a_share(&mut self, full: &Said) {
        let (first, second) = (full.owner.secret, full.owner.second_share);
        let stranger: [u8; 32] = bytes("secret 2");
        let owner = |secret, second_share| Owner { secret, second_share, ..full.owner.clone() };
        for (what, owner) in [
            ("sealed under another first share", owner(stranger, second)),
            ("sealed under another second share", owner(first, Some(stranger))),
            ("sealed under the first share alone", owner(first, None)),
            ("sealed under the second share alone", owner(second.expect("has one"), None)),
            ("sealed under the shares exchanged", owner(second.expect("has one"), Some(first))),
        ] {
            let forged = Said { owner: owner.clone(), ..full.clone() };
            self.refuse(what, full, &forged.sealed(), ErrorKind::Untrusted);
            // And so is one that names the right keys, with a MAC of that owner's.
            let content = joined(&full.content());
            let mac = owner.keys().mac(MacUse::Record, b"account record", &[&content]);
            let forged = [&content[..], &mac].concat();
            self.refuse(&format!("MAC of one {what}"), full, &forged, ErrorKind::Untrusted);
        }
    }

    /// The bar is the MAC of one record, and of no other.
    fn forged_standing(&mut self, full: &Said) {
        let open = with_terms(full, |terms| terms.barred = false);
        let barred = barred(&open, &open.content()).expect("is open");
        let bar = &barred[barred.len() - 32..];
        let mut forge = |what: &str, said: &Said, mac: &[u8]| {
            let forged = [&joined(&with_bar(said, said.content()))[..], mac].concat();
            self.refuse(what, said, &forged, ErrorKind::Untrusted);
        };
        let shut = with_terms(full, |terms| terms.barred = true);
        forge("barred under the same sequence", &shut, bar);
        let next = |said: &Said, by: u64| Said { sequence: said.sequence + by, ..said.clone() };
        forge("barred under the sequence after the next", &next(&shut, 2), bar);
        forge("the bar's MAC for a record that is not barred", &next(&open, 1), bar);
        let longer = with_terms(&next(&shut, 1), |terms| terms.limit += 1);
        forge("barred with a longer limit", &longer, bar);
        let later = with_terms(&next(&shut, 1), |terms| terms.confirmed += 1);
        forge("barred with a later answer of the first", &later, bar);
        let sealed = next(&shut, 1).sealed();
        forge("a recorded refusal taken out", &next(&open, 1), &sealed[sealed.len() - 32..]);
    }
}

/// A record with older generations, of its own custody all of them.
fn with_chain(said: &Said, numbers: &[u32]) -> (generations::Chain, Said) {
    let chain = generations::Chain::held_by(said.owner.suite(), numbers, said.owner.second_share.is_some());
    let owner = chain.newest();
    (chain, Said { owner, born: NEWEST_AT, active: NEWEST_AT + 131, ..said.clone() })
}

fn custody_at(fields: &Fields) -> usize {
    fields.iter().position(|(name, _)| *name == "custody").expect("is a field")
}

fn exchanged(said: &Said) -> Said {
    let second = said.second.clone().expect("has one");
    let swapped = Second {
        provider: said.provider.clone(),
        kek: said.kek.clone(),
        wrap: said.wrap.clone(),
        standby: said.standby.clone(),
        terms: second.terms,
    };
    Said {
        provider: second.provider,
        kek: second.kek,
        wrap: second.wrap,
        standby: second.standby,
        second: Some(swapped),
        ..said.clone()
    }
}

const TERMS: [&str; 4] = ["limit of the second", "confirmed", "barred", "bar"];

pub(in crate::vectors) fn check(world: &mut World, vector: &Value) -> Outcome {
    generations::check(world, vector)?;
    super::check(world, vector)?;
    let record = AccountRecord::parse(&unhex(vector, "sealed")).map_err(kind)?;
    let fields = &vector["fields"];
    let second = record.custody().second().expect("two KEKs hold it");
    assert_eq!(fields["second_kek"], json!(second.wrapped.kek().as_str()));
    assert_eq!(fields["second_wrap"]["version"], json!(second.wrapped.version().as_str()));
    assert_eq!(fields["second_wrap"]["wrapped"], json!(hex(second.wrapped.bytes())));
    let standby = second.standby.as_ref().map(|standby| hex(standby.bytes()));
    assert_eq!(json!(standby), fields["second_standby"].get("wrapped").cloned().unwrap_or_default());
    assert_eq!(fields["custody"], json!(if record.custody().terms().is_some() { 2 } else { 3 }));
    if let Some(terms) = record.custody().terms() {
        assert_eq!(fields["limit"], json!(terms.limit.duration().as_secs()));
        let confirmed = SystemTime::from(terms.confirmed).duration_since(UNIX_EPOCH).expect("is later");
        assert_eq!(fields["confirmed"], json!(confirmed.as_secs()));
        assert_eq!(fields["barred"], json!(terms.standing == Standing::Barred));
    }
    let next = record.barred();
    assert_eq!(vector.get("barred").cloned(), next.as_ref().map(|next| json!(hex(&next.to_bytes()))));
    let keys = Owner::read(vector).keys();
    if let Some(next) = next {
        let next = AccountRecord::parse(&next.to_bytes()).map_err(kind)?;
        let before = record.verify(keys.prks()).map_err(kind)?;
        let next = before.verify_successor(next, keys.prks()).map_err(kind)?;
        assert!(next.record().barred().is_none(), "nobody refuses twice");
    }
    Ok(())
}
