//! An engine that does everything right, and engines that do one thing wrong each, as engines do.

use std::collections::BTreeMap;

use super::*;
use crate::account::guard::Guarded;
use crate::id::{Aad, BlockId, ObjectId};

/// What an engine does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    KeepsPlaintext,
    SwallowsWriteErrors,
    NeverRecovers,
    ForgetsTheFence,
    ChecksThePermitOnly,
    StoresPlaintextWhenClosed,
    StoresPlaintextAlways,
    LosesWhatItAcknowledged,
    MixesUpRows,
    HidesTheReason,
    CallsSilenceARefusal,
    FailsInGrace,
    DoesNotSayWhenItIsStored,
    DoesNotShowWhatIsAtRest,
}

struct Engine {
    account: Account,
    flaw: Flaw,
    rows: BTreeMap<String, (BlockId, Vec<u8>)>,
    log: Vec<u8>,
    plain: BTreeMap<String, Vec<u8>>,
    guarded: BTreeMap<String, Guarded<Vec<u8>>>,
    broken: bool,
}

impl Engine {
    fn new(account: &Account, flaw: Flaw) -> Self {
        let account = account.clone();
        let (rows, plain, guarded) = Default::default();
        Self { account, flaw, rows, log: Vec::new(), plain, guarded, broken: false }
    }

    fn try_write(&mut self, key: &str, value: &[u8], stored: &mut dyn FnMut()) -> Result<(), Error> {
        let fence = self.account.fence()?;
        let id = BlockId::new(ObjectId::random(), 0);
        let sealed = self.account.seal(id, Aad::new(key.as_bytes()), value)?;
        if self.flaw == Flaw::LosesWhatItAcknowledged && self.rows.len() == 9 {
            return Ok(());
        }
        self.rows.insert(key.to_owned(), (id, sealed));
        if self.flaw != Flaw::DoesNotSayWhenItIsStored {
            stored();
        }
        match self.flaw {
            Flaw::ForgetsTheFence => {}
            Flaw::ChecksThePermitOnly => {
                self.account.permit()?;
            }
            _ => fence.check()?,
        }
        if let Ok(value) = self.account.guard(value.to_vec()) {
            self.guarded.insert(key.to_owned(), value);
        }
        Ok(())
    }

    fn try_read(&self, key: &str) -> Result<Vec<u8>, Error> {
        // A plaintext cache, as it should be.
        if let Some(value) = self.guarded.get(key)
            && let Ok(value) = value.get()
        {
            return Ok(value.clone());
        }
        let missing = Error::new(ErrorKind::Misuse, "no such row");
        let (id, sealed) = self.rows.get(key).ok_or(missing)?;
        self.account.open(*id, Aad::new(key.as_bytes()), sealed)
    }
}

impl DrillEngine for Engine {
    fn write(
        &mut self,
        key: &str,
        value: &[u8],
        stored: &mut dyn FnMut(),
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        if self.broken {
            return Err("the engine went into its read-only mode".into());
        }
        if self.flaw == Flaw::KeepsPlaintext {
            self.plain.insert(key.to_owned(), value.to_vec());
        }
        let written = self.try_write(key, value, stored);
        if written.is_err() || self.flaw == Flaw::StoresPlaintextAlways {
            match self.flaw {
                Flaw::SwallowsWriteErrors => return Ok(()),
                // Spooled until the key is back, so that nothing is lost.
                Flaw::StoresPlaintextWhenClosed | Flaw::StoresPlaintextAlways => {
                    self.log.extend_from_slice(value);
                }
                Flaw::NeverRecovers => self.broken = true,
                Flaw::HidesTheReason => return Err("could not write".into()),
                _ => {}
            }
        }
        Ok(written?)
    }

    fn read(&mut self, key: &str) -> Result<Vec<u8>, Box<dyn StdError + Send + Sync>> {
        if let Some(plain) = self.plain.get(key) {
            return Ok(plain.clone());
        }
        let read = self.try_read(key);
        match (self.flaw, &read) {
            (Flaw::MixesUpRows, Ok(_)) if key == "drill-3" => Ok(self.try_read("drill-4")?),
            (Flaw::FailsInGrace, Ok(_))
                if matches!(self.account.status(), crate::account::state::Status::Grace { .. }) =>
            {
                Err("the health check says that the KMS is down".into())
            }
            (Flaw::CallsSilenceARefusal, Err(error)) if error.kind() == ErrorKind::Unavailable => {
                Err(Error::new(ErrorKind::Revoked, "access denied").into())
            }
            _ => Ok(read?),
        }
    }

    fn at_rest(&mut self) -> Option<Vec<u8>> {
        let rows = self.rows.values().flat_map(|(_, sealed)| sealed.clone());
        (self.flaw != Flaw::DoesNotShowWhatIsAtRest).then(|| rows.chain(self.log.clone()).collect())
    }
}

fn drill(flaw: Flaw) -> Result<DrillReport, DrillFailure> {
    RevocationDrill::on_virtual_time().run(|account| Ok(Engine::new(account, flaw)))
}

#[test]
fn h5_an_engine_that_does_it_right_passes_within_every_bound() {
    let report = drill(Flaw::None).unwrap();
    assert!(report.is_complete(), "{report}");
    let timed: Vec<_> = report.steps().iter().filter_map(|step| step.took.zip(step.bound)).collect();
    assert_eq!(timed.len(), 4, "{report}");
    // J + c and F + G: 33 + 1, 33 + 6 + 1 + 120.
    assert_eq!([timed[0].1, timed[2].1].map(|bound| bound.as_secs()), [34, 160]);
    assert!(timed.iter().all(|(took, _)| *took > Duration::ZERO), "{report}");
}

#[test]
fn h5_an_engine_that_does_one_thing_wrong_is_found_out_for_it() {
    let mut missed = Vec::new();
    for (flaw, step, word) in [
        (Flaw::KeepsPlaintext, "refusal", "a read was served"),
        (Flaw::SwallowsWriteErrors, "refusal", "a write was acknowledged though the account is closed"),
        (Flaw::NeverRecovers, "recovery", "a write fails while a lease is valid"),
        (Flaw::ForgetsTheFence, "overtaken write", "take a `Fence`"),
        (Flaw::ChecksThePermitOnly, "overtaken write, reopened", "take a `Fence`"),
        (Flaw::StoresPlaintextWhenClosed, "refusal", "plaintext lies"),
        (Flaw::StoresPlaintextAlways, "in use", "plaintext lies"),
        (Flaw::LosesWhatItAcknowledged, "recovery", "was acknowledged, and is not read"),
        (Flaw::MixesUpRows, "in use", "something else is read"),
        (Flaw::HidesTheReason, "refusal", "nobody can tell why"),
        (Flaw::CallsSilenceARefusal, "outage", "fails with `revoked` where the reason is `unavailable`"),
        (Flaw::FailsInGrace, "outage", "failed while a lease was valid"),
    ] {
        match drill(flaw) {
            Err(failure) if failure.step() == step && failure.to_string().contains(word) => {}
            other => missed.push(format!("{step}, {word}: {other:?}")),
        }
    }
    assert!(missed.is_empty(), "{} missed:\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn h5_what_was_not_shown_is_not_called_passed() {
    for flaw in [Flaw::DoesNotSayWhenItIsStored, Flaw::DoesNotShowWhatIsAtRest] {
        let report = drill(flaw).unwrap();
        assert!(!report.is_complete() && report.to_string().contains("NOT RUN"), "{report}");
    }
}

#[test]
fn h5_an_engine_that_does_not_start_or_a_drill_out_of_range_is_an_error() {
    let failure = RevocationDrill::on_virtual_time().run(|_| Err::<Engine, _>("no disk".into())).unwrap_err();
    assert_eq!((failure.step(), failure.message()), ("start", "no disk"));
    let failure = RevocationDrill::on_virtual_time()
        .refresh_every(Duration::from_secs(61))
        .run(|account| Ok(Engine::new(account, Flaw::None)))
        .unwrap_err();
    assert_eq!(failure.step(), "set-up");
}
