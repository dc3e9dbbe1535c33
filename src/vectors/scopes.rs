//! States of data scopes, valid ones laid out by hand and invalid ones with a MAC that is right.

use serde_json::{Value, json};

use super::derivations::GENERATIONS;
use super::{File, Outcome, Owner, World, bytes, flipped, hex, kind, other_macs, set, unhex};
use crate::derive::MacUse;
use crate::error::ErrorKind;
use crate::format::scope::ScopeState;
use crate::id::Suite;

/// What a state says. The owner is the service-managed account.
#[derive(Clone)]
struct Said {
    owner: Owner,
    sequence: u64,
    seconds: u8,
    linked: u8,
    customers: Vec<[u8; 16]>,
}

impl Said {
    fn of(linked: u8, customers: usize) -> Self {
        let customers = (0..customers).map(|number| bytes(&format!("customer {number}"))).collect();
        Self { owner: Owner::usual(), sequence: 2, seconds: 6, linked, customers }
    }

    fn content(&self) -> Vec<u8> {
        let Self { owner, sequence, seconds, linked, customers } = self;
        let count = u8::try_from(customers.len()).unwrap();
        [
            &b"\x89SRS\r\n\x1a\n\x01"[..],
            &bytes::<16>("scope"),
            &sequence.to_be_bytes(),
            &owner.account,
            &owner.generation.to_be_bytes(),
            &[*seconds, *linked, count],
            &customers.concat(),
        ]
        .concat()
    }

    fn with_mac(&self, content: &[u8]) -> Vec<u8> {
        [content, &self.owner.keys().prks().mac(MacUse::Scope, MAC_NAME, &[content])].concat()
    }

    fn valid(&self, file: &mut File, name: impl Into<String>) {
        let customers: Vec<String> = self.customers.iter().map(|customer| hex(customer)).collect();
        let linked = self.linked.checked_sub(1).map(|at| customers[usize::from(at)].clone());
        let fields = json!({
            "scope": hex(&bytes::<16>("scope")), "sequence": self.sequence, "service": hex(&self.owner.account),
            "generation": self.owner.generation, "confirmed_within": self.seconds, "linked": linked,
            "customers": customers,
        });
        let sealed = self.with_mac(&self.content());
        file.push(name, &self.owner, json!({ "sealed": hex(&sealed), "fields": fields }));
    }

    fn invalid(&self, file: &mut File, name: impl Into<String>, sealed: &[u8], error: ErrorKind) {
        file.push(name, &self.owner, json!({ "sealed": hex(sealed), "error": format!("{error:?}") }));
    }
}

const MAC_NAME: &[u8] = b"scope state";

pub(super) fn file() -> File {
    let mut file = File::new("scope");
    for (linked, customers) in [(0, 0), (0, 1), (1, 1), (2, 2), (1, 3), (0, 64), (64, 64)] {
        Said::of(linked, customers).valid(&mut file, format!("linked {linked} of {customers}"));
    }
    for sequence in [1, 256, u64::MAX] {
        Said { sequence, ..Said::of(1, 1) }.valid(&mut file, format!("sequence {sequence}"));
    }
    for seconds in [0, 1, 60] {
        Said { seconds, ..Said::of(1, 1) }.valid(&mut file, format!("within {seconds} s"));
    }
    for generation in GENERATIONS {
        let owner = Owner::of_generation(generation);
        Said { owner, ..Said::of(1, 1) }.valid(&mut file, format!("generation {generation}"));
    }
    let owner = Owner::usual_of(Suite::Double);
    Said { owner, ..Said::of(1, 1) }.valid(&mut file, "suite 2");
    malformed(&mut file);
    untrusted(&mut file);
    file
}

fn malformed(file: &mut File) {
    let said = Said::of(1, 2);
    let content = said.content();
    for (name, at, to) in [
        ("magic", 0, &[0x88][..]),
        ("magic of a record", 3, b"R"),
        ("version 0", 8, &[0]),
        ("version 2", 8, &[2]),
        ("sequence 0", 25, &[0; 8]),
        ("generation 0", 49, &[0; 4]),
        ("61 s", 53, &[61]),
        ("255 s", 53, &[0xFF]),
        ("linked to the third of two", 54, &[3]),
        ("linked to the last there may be", 54, &[64]),
        ("one customer, of two", 55, &[1]),
        ("three customers, of two", 55, &[3]),
        ("65 customers", 55, &[65]),
        ("a customer that is the service-managed account", 56, &said.owner.account),
        ("a customer twice", 56, &said.customers[1]),
    ] {
        said.invalid(file, name, &said.with_mac(&set(&content, at, to)), ErrorKind::Format);
    }
    let too_many = Said::of(0, 65);
    let mut sealed = too_many.with_mac(&too_many.content());
    too_many.invalid(file, "65 customers, all of them there", &sealed, ErrorKind::Format);
    sealed = said.with_mac(&[&content[..], &[0]].concat());
    said.invalid(file, "a byte more", &sealed, ErrorKind::Format);
    sealed = said.with_mac(&content[..content.len() - 1]);
    said.invalid(file, "a byte less", &sealed, ErrorKind::Format);
    for len in [0, 8, 9, 31, 32, 55, 56, 87] {
        let sealed = said.with_mac(&content);
        said.invalid(file, format!("cut to {len} bytes"), &sealed[..len], ErrorKind::Format);
    }
}

fn untrusted(file: &mut File) {
    let said = Said::of(1, 2);
    let content = said.content();
    let sealed = said.with_mac(&content);
    for (name, at) in [("scope", 9), ("sequence", 32), ("service", 33), ("generation", 52), ("seconds", 53)] {
        let mut changed = sealed.clone();
        changed[at] ^= 4;
        said.invalid(file, format!("{name} is changed"), &changed, ErrorKind::Untrusted);
    }
    said.invalid(file, "unlinked without a key", &set(&sealed, 54, &[0]), ErrorKind::Untrusted);
    said.invalid(file, "linked to another without a key", &set(&sealed, 54, &[2]), ErrorKind::Untrusted);
    said.invalid(file, "a customer is changed", &flipped(&sealed, 56), ErrorKind::Untrusted);
    let forger = Owner { secret: bytes("secret 2"), ..Owner::usual() };
    let by_another = Said { owner: forger, ..said.clone() }.with_mac(&content);
    let for_another_use = said.owner.keys().prks().mac(MacUse::Record, b"account record", &[&content]);
    for (name, sealed) in other_macs(&sealed, by_another, for_another_use) {
        said.invalid(file, name, &sealed, ErrorKind::Untrusted);
    }
}

pub(super) fn check(world: &mut World, vector: &Value) -> Outcome {
    let sealed = unhex(vector, "sealed");
    let (state, content, mac) = ScopeState::parse(&sealed).map_err(kind)?;
    assert_eq!(state.content(), content);
    // By the service-managed account itself, so that what a scope verifies and writes is what is frozen.
    let account = world.account(vector);
    let permit = account.permit().unwrap();
    let verified = permit.verify_scope_mac(state.generation(), content, mac);
    verified.map_err(|_| format!("{:?}", ErrorKind::Untrusted))?;
    assert_eq!(&permit.scope_mac(state.generation(), content).unwrap(), mac);
    let fields = &vector["fields"];
    let id = |account: crate::id::AccountId| hex(account.as_bytes());
    assert_eq!(json!(hex(state.scope().as_bytes())), fields["scope"]);
    assert_eq!(json!(state.sequence().number()), fields["sequence"]);
    assert_eq!(json!(id(state.service())), fields["service"]);
    assert_eq!(json!(state.generation().number()), fields["generation"]);
    assert_eq!(json!(state.confirmed_within().as_secs()), fields["confirmed_within"]);
    assert_eq!(json!(state.linked().map(id)), fields["linked"]);
    let customers: Vec<String> = state.customers().iter().map(|customer| id(*customer)).collect();
    assert_eq!(json!(customers), fields["customers"]);
    Ok(())
}
