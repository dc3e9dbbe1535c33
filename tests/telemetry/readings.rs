//! What gauges and counters read as time passes, and at each authority.

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Authority, Kek};
use strongroom::telemetry as names;
use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{AccountId, AccountSpec, Refusal};

use crate::story::{ELSEWHERE, KEK, live};

#[test]
fn h1_the_lease_age_grows_until_a_verification_and_falls_at_one() {
    live(false, |story| {
        let _account = story.create();
        let verified = || {
            let labels = [("operation", "unwrap"), ("outcome", "answered"), ("authority", "test")];
            story.ear.count(names::KMS_CALLS, &labels)
        };
        story.run(6);
        // When the gauge was set, to what, and how many verifications there had been: before that at least, and by then at most.
        let (mut set, mut begun) = (Vec::<(f64, f64, u64, u64)>::new(), verified());
        for tenths in 1..1500_u32 {
            if tenths == 700 {
                story.kms.scripted.next(Call::Unwrap, [Answer::Transient]);
            }
            story.cache.run_for(Duration::from_millis(100));
            let (age, ended) = (story.gauge(names::LEASE_AGE_SECONDS), verified());
            if set.last().is_none_or(|(_, last, ..)| *last != age) {
                set.push((f64::from(tenths) / 10.0, age, begun, ended));
            }
            begun = ended;
        }
        let (mut grew, mut fell) = (0, 0);
        // What the gauge said first was set before.
        for pair in set.windows(2).skip(1) {
            let [(then, old, least, most), (now, new, by_now_least, by_now_most)] = pair else {
                unreachable!()
            };
            if least == by_now_most {
                grew += 1;
                assert!((new - old - (now - then)).abs() < 0.2, "{pair:?}");
            } else if most < by_now_least {
                fell += 1;
                assert!(*new < *old && *new <= now - then + 0.1, "{pair:?}");
            }
        }
        assert!(grew >= 15 && fell >= 2, "{set:?}");
        // One that failed is among them, and is no reason to fall.
        let failed = [("operation", "unwrap"), ("outcome", "transient"), ("authority", "test")];
        assert_eq!(story.ear.count(names::KMS_CALLS, &failed), 1);
    });
}

#[test]
fn h1_states_and_errors_are_told_by_class_and_authority() {
    for (answer, outcome, state) in [
        (Answer::Transient, "transient", "grace"),
        (Answer::Refused(Refusal::KeyDisabled), "refused", "revoked"),
        (Answer::Integrity, "integrity", "integrity"),
        (Answer::Misconfigured, "misconfigured", "integrity"),
    ] {
        live(false, |story| {
            let authority = Authority::new("scripted", ELSEWHERE);
            let elsewhere = ScriptedProvider::on_virtual_time().with_authority(authority);
            let kms = Arc::new(elsewhere.clone());
            let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest(KEK));
            let _accounts = (story.create(), story.cache.create(spec).unwrap());
            story.run(5);
            elsewhere.every_call(&answer);
            story.run(65);
            let calls = |authority, outcome| {
                story.ear.count(names::KMS_CALLS, &[("authority", authority), ("outcome", outcome)])
            };
            let accounts = |authority, state| {
                story.ear.gauge(names::ACCOUNTS, &[("authority", authority), ("state", state)])
            };
            assert_eq!((accounts("test", "fresh"), accounts(ELSEWHERE, "fresh")), (1.0, 0.0), "{answer:?}");
            assert_eq!((accounts("test", state), accounts(ELSEWHERE, state)), (0.0, 1.0), "{answer:?}");
            assert!(calls("test", "answered") >= 2 && calls(ELSEWHERE, outcome) >= 1, "{answer:?}");
            for class in ["transient", "refused", "integrity", "misconfigured"] {
                assert_eq!(calls("test", class), 0, "{answer:?}");
                assert_eq!(calls(ELSEWHERE, class) > 0, class == outcome, "{answer:?} {class}");
            }
        });
    }
}
