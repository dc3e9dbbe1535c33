//! Account records under double encryption: what is different in them.

use super::{OuterWraps, Said, Wrap, joined, refuse};
use crate::derive::MacUse;
use crate::error::ErrorKind;
use crate::id::Suite;
use crate::vectors::derivations::GENERATIONS;
use crate::vectors::{File, Owner, bytes, flipped, stream};

pub(in crate::vectors) fn file() -> File {
    let mut file = File::of(Suite::Double, "record");
    let usual = Said::double();
    usual.valid(&mut file, "usual");
    for generation in GENERATIONS {
        let owner = Owner { generation, ..usual.owner.clone() };
        Said { owner, ..usual.clone() }.valid(&mut file, format!("generation {generation}"));
    }
    for byte in [0, 0xFF] {
        let owner = Owner { outer: Some([byte; 32]), ..usual.owner.clone() };
        Said { owner, ..usual.clone() }.valid(&mut file, format!("outer secret {byte:02x}.."));
    }
    let wraps = usual.outer.clone().expect("has one");
    let longest = Wrap { wrapped: stream("outer wrapped", 4096), ..wraps.wrap.clone() };
    let outer = Some(OuterWraps { wrap: longest, ..wraps.clone() });
    Said { outer, ..usual.clone() }.valid(&mut file, "longest wrap");
    let outer = Some(OuterWraps { standby: Some(Wrap::usual("8")), ..wraps.clone() });
    Said { outer: outer.clone(), ..usual.clone() }.valid(&mut file, "standby");
    let full = Said { outer, standby: Some(Wrap::usual("2")), deleted: Some((5, 9)), ..usual.clone() };
    full.valid(&mut file, "everything");

    for (field, values) in [
        ("suite", &[0, 1, 3, 0xFF][..]),
        ("custody", &[0, 4, 0xFF]),
        ("outer custody", &[0, 4, 0xFF]),
        ("outer standby flag", &[2, 0xFF]),
    ] {
        for value in values {
            refuse(&mut file, &full, field, &[*value]);
        }
    }
    for field in
        ["outer provider's length", "outer KEK's length", "outer version's length", "outer wrap's length"]
    {
        refuse(&mut file, &full, field, &[0, 0]);
        refuse(&mut file, &full, field, &[0xFF, 0xFF]);
    }
    refuse(&mut file, &full, "outer provider", b"vectorz");
    refuse(&mut file, &full, "outer standby's version", b"7");
    let content = joined(&full.content());
    let mut end = 0;
    for (field, bytes) in full.content() {
        end += bytes.len();
        if end < content.len() && field.starts_with("outer") {
            let name = format!("ends after its {field}");
            full.invalid(&mut file, name, &full.with_mac(&content[..end]), ErrorKind::Format);
        }
    }
    let single = Said { outer: None, ..full.clone() }.content();
    full.invalid(&mut file, "no second custody", &full.with_mac(&joined(&single)), ErrorKind::Format);

    let sealed = full.sealed();
    for field in ["KCV", "outer KCV", "outer wrap", "outer version", "outer standby"] {
        let mut fields = full.content();
        let found = fields.iter_mut().find(|(name, _)| *name == field).expect("is a field");
        *found.1.last_mut().expect("not empty") ^= 4;
        let changed = [joined(&fields), sealed[sealed.len() - 32..].to_vec()].concat();
        full.invalid(&mut file, format!("{field} is changed"), &changed, ErrorKind::Untrusted);
    }
    for at in (sealed.len() - 32..sealed.len()).step_by(3) {
        let name = format!("byte {} of the MAC is changed", at + 32 - sealed.len());
        full.invalid(&mut file, name, &flipped(&sealed, at), ErrorKind::Untrusted);
    }
    // Whoever has one of the two secrets, and gives out another one beside it.
    let stranger: [u8; 32] = bytes("secret 2");
    for (name, owner) in [
        ("sealed under another first secret", Owner { secret: stranger, ..usual.owner.clone() }),
        ("sealed under another second secret", Owner { outer: Some(stranger), ..usual.owner.clone() }),
        (
            "sealed under the secrets exchanged",
            Owner { secret: bytes("outer secret"), outer: Some(bytes("secret")), ..usual.owner.clone() },
        ),
    ] {
        full.invalid(&mut file, name, &Said { owner, ..full.clone() }.sealed(), ErrorKind::Untrusted);
    }
    let mac = Owner::usual().keys().mac(MacUse::Record, b"account record", &[&content]);
    let forged = [&content[..], &mac].concat();
    full.invalid(&mut file, "MAC under the first key alone", &forged, ErrorKind::Untrusted);
    full.invalid(
        &mut file,
        "of the account before it was double",
        &Said::usual().sealed(),
        ErrorKind::Untrusted,
    );
    Said::usual().invalid(&mut file, "of the account under double encryption", &sealed, ErrorKind::Untrusted);
    file
}
