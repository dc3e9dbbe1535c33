//! The data plane under test: every form, every closing, two threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::account::batch::{OpenJob, SealJob};
use crate::account::state::Keys;
use crate::account::state::{Keyless, Status, UnavailableCause};
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::{Clock, ManualClock};
use crate::derive::Secrets;
use crate::engine::Engine;
use crate::error::Refusal;
use crate::evidence::report;
use crate::id::{AccountId, ObjectId};
use crate::secret::MemoryLock;

const ENGINES: [Engine; 2] = [Engine::Fastest, Engine::Portable];
const MINUTE: Duration = Duration::from_secs(60);

/// An account under a manual clock, and how to give it keys.
struct Fixture {
    state: AccountState,
    clock: ManualClock,
    engine: Engine,
    suite: Suite,
    generation: u32,
}

impl Fixture {
    fn new(account: u8, generation: u32, engine: Engine) -> Self {
        Self::of(account, generation, engine, Suite::Aes256Gcm)
    }

    fn of(account: u8, generation: u32, engine: Engine, suite: Suite) -> Self {
        let clock = ManualClock::new();
        let id = AccountId::from_bytes([account; 16]);
        let this = Self {
            state: AccountState::new(id, Clock::Manual(clock.clone()), Epoch::FIRST),
            clock,
            engine,
            suite,
            generation,
        };
        this.unwrapped();
        this
    }

    /// A verified unwrap: fresh for one minute, valid for two.
    fn unwrapped(&self) {
        let generation = Generation::new(self.generation).expect("not zero");
        let keys = GenerationKeys::new(
            self.state.id(),
            generation,
            Secrets { inner: &[0xAE; 32], outer: (self.suite == Suite::Double).then_some(&[0xBE; 32]) },
            MemoryLock::BestEffort,
        );
        let ring = KeyRing::new(keys.expect("maps").with_engine(self.engine));
        let now = self.clock.moment();
        let keys = Keys::unlimited(ring);
        self.state.publish_keys(self.state.epoch(), keys, now.plus(MINUTE), now.plus(2 * MINUTE));
    }

    fn close(&self, why: Keyless) {
        self.state.close(self.state.epoch().next(), why);
    }

    fn permit(&self) -> Permit<'_> {
        Permit::new(&self.state).expect("a lease is valid")
    }
}

/// Every engine with every suite.
fn fixtures() -> Vec<Fixture> {
    let suites = [Suite::Aes256Gcm, Suite::Double];
    suites.into_iter().flat_map(|suite| ENGINES.map(|engine| Fixture::of(1, 1, engine, suite))).collect()
}

fn id(index: u64) -> BlockId {
    BlockId::new(ObjectId::from_bytes([0x0B; 16]), index)
}

const AAD: Aad<'static> = Aad::new(b"tenant-42");

/// The error of opening `frame`, after making sure that no output holds a byte.
fn refused(permit: &Permit<'_>, id: BlockId, aad: Aad<'_>, frame: &[u8]) -> ErrorKind {
    let plain_len = frame::peek(frame).map_or(0, |info| info.plain_len());
    let mut out = vec![0; plain_len];
    let error = permit.open_into(id, aad, frame, &mut out).expect_err("has to be refused");
    assert!(out.iter().all(|byte| *byte == 0), "wiped");
    error.kind()
}

proptest! {
    #[test]
    fn f1_every_form_of_sealing_opens_in_every_form(
        plain in prop::collection::vec(any::<u8>(), 0..3000), aad in prop::collection::vec(any::<u8>(), 0..120),
        cut: prop::sample::Index, before in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let aad = Aad::new(&aad);
        for fixture in fixtures() {
            let permit = fixture.permit();
            let (a, b) = plain.split_at(cut.index(plain.len() + 1));
            let mut appended = BytesMut::from(&before[..]);
            permit.seal_append(id(3), aad, &[IoSlice::new(a), IoSlice::new(b)], &mut appended).unwrap();
            prop_assert_eq!(&appended[..before.len()], &before[..]);

            let mut data = plain.clone();
            let detached = permit.seal_detached(id(3), aad, &mut data).unwrap();
            let (head, tag) = (&detached.to_bytes()[..48], &detached.to_bytes()[48..]);
            let joined = [head, &data, tag].concat();

            for frame in [permit.seal(id(3), aad, &plain).unwrap(), appended[before.len()..].to_vec(), joined] {
                prop_assert_eq!(frame.len(), frame::sealed_len(plain.len(), fixture.suite));
                prop_assert_eq!(&permit.open(id(3), aad, &frame).unwrap(), &plain);
                let mut out = vec![1; plain.len()];
                permit.open_into(id(3), aad, &frame, &mut out).unwrap();
                prop_assert_eq!(&out, &plain);
                let shared = Bytes::from(frame.clone());
                let other_holder = shared.clone();
                prop_assert_eq!(&permit.open_bytes(id(3), aad, shared).unwrap()[..], &plain[..]);
                prop_assert_eq!(&other_holder[..], &frame[..]);
                prop_assert_eq!(&permit.open_bytes(id(3), aad, Bytes::from(frame)).unwrap()[..], &plain[..]);
            }
            let detached = Detached::from_bytes(&detached.to_bytes()).unwrap();
            permit.open_detached(id(3), aad, &detached, &mut data).unwrap();
            prop_assert_eq!(&data, &plain);
        }
    }
}

#[test]
fn open_bytes_decrypts_in_place_when_nobody_else_holds_the_bytes() {
    let fixture = Fixture::new(1, 1, Engine::Fastest);
    let sealed = Bytes::from(fixture.permit().seal(id(0), AAD, &[7; 5000]).expect("seals"));
    let at = sealed.as_ptr() as usize;
    let plain = fixture.permit().open_bytes(id(0), AAD, sealed).expect("opens");
    assert_eq!((plain.as_ptr() as usize, plain.len()), (at + 48, 5000));
}

#[test]
fn r4_every_bit_of_a_sealed_block_counts() {
    for fixture in fixtures() {
        let permit = fixture.permit();
        let mut frame = permit.seal(id(0), AAD, &[0x5A; 4096]).expect("seals");
        // The portable cipher is slow in debug builds: there, a bit of every byte, in turn.
        let step = if cfg!(debug_assertions) && fixture.engine == Engine::Portable { 9 } else { 1 };
        let bits = 8 * frame.len();
        let mut rejected = 0;
        for bit in (0..bits).step_by(step) {
            frame[bit / 8] ^= 1 << (bit % 8);
            let kind = refused(&permit, id(0), AAD, &frame);
            let expected = match bit / 8 {
                0..4 => ErrorKind::Format,
                4..8 | 32..48 => ErrorKind::UnknownGeneration,
                _ => ErrorKind::Corrupt,
            };
            // The flipped kind can name another known kind; the generation cannot become zero by one flip of 1
            // except by its own lowest bit.
            assert!(kind == expected || (bit / 8 < 8 && kind == ErrorKind::Format), "bit {bit}: {kind}");
            frame[bit / 8] ^= 1 << (bit % 8);
            rejected += 1;
        }
        report("R4", &format!("flips of a 4 KiB block rejected, {:?}", fixture.engine), rejected, "=", bits);
        permit.open(id(0), AAD, &frame).expect("undamaged again");
    }
}

#[test]
fn f3_truncated_and_extended_blocks_are_refused() {
    for fixture in fixtures() {
        let permit = fixture.permit();
        let frame = permit.seal(id(0), AAD, &[0x5A; 1000]).expect("seals");
        for len in 0..frame.len() {
            let kind = refused(&permit, id(0), AAD, &frame[..len]);
            let least = frame::sealed_len(0, fixture.suite);
            assert_eq!(kind, if len < least { ErrorKind::Format } else { ErrorKind::Corrupt }, "{len} bytes");
            assert_ne!(refused(&permit, id(0), AAD, &frame[frame.len() - len..]), ErrorKind::NotReady);
        }
        for extra in 1..40 {
            let longer = [&frame[..], &vec![0; extra]].concat();
            assert_eq!(refused(&permit, id(0), AAD, &longer), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn f3_a_block_opens_in_its_own_place_only() {
    for engine in ENGINES {
        let fixture = Fixture::new(1, 1, engine);
        let permit = fixture.permit();
        let frame = permit.seal(id(7), AAD, b"plaintext").expect("seals");
        let another_object = BlockId::new(ObjectId::from_bytes([0x0C; 16]), 7);
        for elsewhere in [id(8), id(6), id(7 << 56), another_object] {
            assert_eq!(refused(&permit, elsewhere, AAD, &frame), ErrorKind::Corrupt);
        }
        for aad in [Aad::EMPTY, Aad::new(b"tenant-43"), Aad::new(b"tenant-42\0"), Aad::new(b"tenant-4")] {
            assert_eq!(refused(&permit, id(7), aad, &frame), ErrorKind::Corrupt);
        }
        // The same AEK under another account, or as another generation, gives other keys.
        for (account, generation) in [(2, 1), (1, 2)] {
            let other = Fixture::new(account, generation, engine);
            assert_eq!(refused(&other.permit(), id(7), AAD, &frame), ErrorKind::UnknownGeneration);
            let mut relabelled = frame.clone();
            relabelled[7] = u8::try_from(generation).expect("small");
            assert_eq!(refused(&other.permit(), id(7), AAD, &relabelled), ErrorKind::UnknownGeneration);
        }
        // Halves of two blocks of the same place do not make a third.
        let again = permit.seal(id(7), AAD, b"plaintext").expect("seals");
        assert_ne!(frame, again, "a block overwritten is sealed anew");
        for cut in 8..frame.len() {
            let spliced = [&frame[..cut], &again[cut..]].concat();
            if spliced != frame && spliced != again {
                assert_eq!(refused(&permit, id(7), AAD, &spliced), ErrorKind::Corrupt);
            }
        }
    }
}

#[test]
fn f3_blocks_and_object_frames_never_pass_for_one_another() {
    for fixture in fixtures() {
        let permit = fixture.permit();
        let plain = [3; 100];
        let block = permit.seal(id(0), Aad::EMPTY, &plain).expect("seals");
        let mut frame = Vec::new();
        permit.seal_object_frame(Generation::FIRST, id(0), true, &plain, &mut frame).expect("seals");
        assert_eq!(frame.len(), 100 + frame::overhead(Kind::ObjectFrame, fixture.suite));

        let mut out = [0; 100];
        let opens = |generation, last, frame: &[u8], out: &mut [u8]| {
            permit.open_object_frame(generation, id(0), last, frame, out).map_err(|error| error.kind())
        };
        let second = Generation::new(2).expect("not zero");
        assert_eq!(opens(Generation::FIRST, true, &frame, &mut out), Ok(()));
        assert_eq!(out, plain);
        assert_eq!(opens(Generation::FIRST, false, &frame, &mut out), Err(ErrorKind::Corrupt));
        assert_eq!(opens(second, true, &frame, &mut out), Err(ErrorKind::Corrupt));
        assert_eq!(opens(Generation::FIRST, true, &frame, &mut out[1..]), Err(ErrorKind::Misuse));
        assert_eq!(opens(Generation::FIRST, false, &block, &mut out), Err(ErrorKind::Format));
        assert_eq!(refused(&permit, id(0), Aad::EMPTY, &frame), ErrorKind::Format);

        // Also not with the header changed to fit: the kind is part of the key.
        let mut flag_gone = frame.clone();
        flag_gone[3] = 0;
        assert_eq!(opens(Generation::FIRST, false, &flag_gone, &mut out), Err(ErrorKind::Corrupt));
        let mut as_frame = [&block[..32], &block[48..]].concat();
        as_frame[2] = 2;
        assert_eq!(opens(Generation::FIRST, false, &as_frame, &mut out), Err(ErrorKind::Corrupt));
        let mut as_block = [&flag_gone[..32], &block[32..48], &flag_gone[32..]].concat();
        as_block[2] = 1;
        assert_eq!(refused(&permit, id(0), Aad::EMPTY, &as_block), ErrorKind::Corrupt);
    }
}

#[test]
fn d1_d2_d8_a_keyless_account_refuses_with_its_own_reason_and_touches_nothing() {
    let reasons = [
        (Keyless::NotReady, ErrorKind::NotReady),
        (Keyless::Unavailable(UnavailableCause::Silent), ErrorKind::Unavailable),
        (Keyless::Unavailable(UnavailableCause::Integrity), ErrorKind::Unavailable),
        (Keyless::Revoked(Refusal::KeyDisabled), ErrorKind::Revoked),
        (Keyless::Locked, ErrorKind::Locked),
        (Keyless::Deleted, ErrorKind::Deleted),
    ];
    for (why, kind) in reasons {
        let fixture = Fixture::new(1, 1, Engine::Fastest);
        let permit = fixture.permit();
        let frame = permit.seal(id(0), AAD, b"plaintext").expect("seals");
        let mut data = *b"plaintext";
        let detached = permit.seal_detached(id(0), AAD, &mut data).expect("seals");
        let sealed = data;
        fixture.close(why);

        let mut out = [1; 9];
        let mut buffer = BytesMut::from(&b"before"[..]);
        let mut object = b"before".to_vec();
        let errors = [
            permit.seal(id(0), AAD, b"plaintext").expect_err("closed"),
            permit.seal_append(id(0), AAD, &[IoSlice::new(b"x")], &mut buffer).expect_err("closed"),
            permit.seal_detached(id(0), AAD, &mut data).expect_err("closed"),
            permit.seal_batch(&mut [SealJob::new(id(0), AAD, &mut data)]).expect_err("closed"),
            permit.seal_object_frame(Generation::FIRST, id(0), false, b"x", &mut object).expect_err("closed"),
            permit.open(id(0), AAD, &frame).expect_err("closed"),
            permit.open_into(id(0), AAD, &frame, &mut out).expect_err("closed"),
            permit.open_bytes(id(0), AAD, frame.clone().into()).expect_err("closed"),
            permit.open_detached(id(0), AAD, &detached, &mut data).expect_err("closed"),
            permit.open_batch(&mut [OpenJob::into(id(0), AAD, &frame, &mut out)]).expect_err("closed"),
            permit.open_object_frame(Generation::FIRST, id(0), false, &frame, &mut out).expect_err("closed"),
            permit.object_mac(Generation::FIRST, &[]).expect_err("closed"),
            permit.sealing().expect_err("closed"),
            Permit::new(&fixture.state).expect_err("closed"),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.account()), (kind, Some(fixture.state.id())));
            assert_eq!(error.refusal().is_some(), kind == ErrorKind::Revoked);
        }
        assert_eq!(
            (&out, &data, &buffer[..], &object[..]),
            (&[1; 9], &sealed, &b"before"[..], &b"before"[..])
        );
    }
}

#[test]
fn d4_past_the_deadline_nothing_is_sealed_or_released() {
    for fixture in fixtures() {
        let permit = fixture.permit();
        let frame = permit.seal(id(0), AAD, &[5; 100]).expect("seals");
        fixture.clock.advance(2 * MINUTE - Duration::from_nanos(1));
        permit.open(id(0), AAD, &frame).expect("still valid");
        fixture.clock.advance(Duration::from_nanos(1));
        assert_eq!(refused(&permit, id(0), AAD, &frame), ErrorKind::NotReady);
        let mut data = [6; 100];
        assert_eq!(
            permit.seal_detached(id(0), AAD, &mut data).expect_err("too late").kind(),
            ErrorKind::NotReady
        );
        assert_eq!(data, [6; 100], "nothing was begun");
        assert_eq!(Permit::new(&fixture.state).expect_err("too late").kind(), ErrorKind::NotReady);
        // A renewal within the epoch passes unnoticed.
        fixture.unwrapped();
        permit.open(id(0), AAD, &frame).expect("renewed");
        // Grace that is taken back ends at once.
        let now = fixture.clock.moment();
        fixture.state.extend(now, now);
        assert_eq!(refused(&permit, id(0), AAD, &frame), ErrorKind::NotReady);
    }
}

#[test]
fn d4_a_key_lost_between_decryption_and_release_wipes() {
    for fixture in fixtures() {
        let frame = fixture.permit().seal(id(0), AAD, &[5; 100]).expect("seals");
        let lose_it: [(&dyn Fn(), ErrorKind); 3] = [
            (&|| fixture.close(Keyless::Revoked(Refusal::KeyGone)), ErrorKind::Revoked),
            (&|| fixture.clock.advance(3 * MINUTE), ErrorKind::NotReady),
            // Closed and opened again in the meantime is another epoch all the same.
            (
                &|| {
                    fixture.close(Keyless::Locked);
                    fixture.unwrapped();
                },
                ErrorKind::NotReady,
            ),
        ];
        for (lose, kind) in lose_it {
            fixture.unwrapped();
            let guard = fixture.permit().enter().expect("has keys");
            let mut out = vec![1; 100];
            let error = open_apart(&guard, &Place::block(id(0), AAD), &frame, &mut out, || {
                lose();
                guard.release()
            });
            assert_eq!((error.expect_err("lost").kind(), out), (kind, vec![0; 100]));
        }
    }
}

#[test]
fn d6_a_permit_ends_with_its_epoch() {
    let fixture = Fixture::new(1, 1, Engine::Fastest);
    let old = fixture.permit();
    let frame = old.seal(id(0), AAD, b"plaintext").expect("seals");
    fixture.close(Keyless::Locked);
    fixture.unwrapped();
    assert_eq!(refused(&old, id(0), AAD, &frame), ErrorKind::NotReady);
    let new = fixture.permit();
    assert!(new.epoch() > old.epoch());
    new.open(id(0), AAD, &frame).expect("opens in the new epoch");
}

#[test]
fn d9_status_and_deadline_can_be_asked_at_any_time() {
    let fixture = Fixture::new(1, 1, Engine::Fastest);
    let state = &fixture.state;
    let valid_until = state.valid_until().expect("has a lease");
    assert_eq!(state.status(), Status::Fresh { valid_until });
    fixture.clock.advance(MINUTE);
    assert_eq!(state.status(), Status::Grace { valid_until });
    fixture.clock.advance(MINUTE);
    assert_eq!((state.status(), state.valid_until()), (Status::NotReady, None));
    fixture.close(Keyless::Revoked(Refusal::KeyDisabled));
    assert_eq!((state.status(), state.valid_until()), (Status::Revoked(Refusal::KeyDisabled), None));
}

#[test]
fn a_batch_opens_as_a_whole_or_not_at_all() {
    for fixture in fixtures() {
        let permit = fixture.permit();
        let mut pages = [[1; 500], [2; 500], [3; 500]];
        let mut jobs: Vec<SealJob<'_>> =
            pages.iter_mut().zip(0..).map(|(page, i)| SealJob::new(id(i), AAD, page)).collect();
        permit.seal_batch(&mut jobs).expect("seals");
        let detached: Vec<Detached> = jobs.iter().map(|job| *job.detached().expect("sealed")).collect();
        let frame = permit.seal(id(9), AAD, &[9; 500]).expect("seals");

        for damaged in [None, Some(0), Some(1), Some(2), Some(3)] {
            let mut frame = frame.clone();
            let mut pages = pages;
            match damaged {
                Some(3) => frame[100] ^= 1,
                Some(i) => pages[i][100] ^= 1,
                None => {}
            }
            let mut out = [7; 500];
            let mut jobs: Vec<OpenJob<'_>> = pages
                .iter_mut()
                .zip(&detached)
                .zip(0..)
                .map(|((page, detached), i)| OpenJob::in_place(id(i), AAD, detached, page))
                .collect();
            jobs.push(OpenJob::into(id(9), AAD, &frame, &mut out));
            match (permit.open_batch(&mut jobs), damaged) {
                (Ok(()), None) => assert_eq!((pages, out), ([[1; 500], [2; 500], [3; 500]], [9; 500])),
                (Err(error), Some(_)) => {
                    assert_eq!((error.kind(), error.batch_index()), (ErrorKind::Corrupt, damaged));
                    assert_eq!((pages, out), ([[0; 500]; 3], [0; 500]), "every output is wiped");
                }
                (result, _) => panic!("{result:?} with {damaged:?} damaged"),
            }
        }
        // A lease that has run out fails the whole batch too, after decryption.
        fixture.clock.advance(2 * MINUTE);
        let mut out = [7; 500];
        let error =
            permit.open_batch(&mut [OpenJob::into(id(9), AAD, &frame, &mut out)]).expect_err("too late");
        assert_eq!((error.kind(), error.batch_index(), out), (ErrorKind::NotReady, None, [0; 500]));
    }
}

/// Readers race with a closing account: no open whose final check starts after `close` has returned releases.
#[test]
fn d5_nothing_is_released_by_a_check_that_starts_after_close_returned() {
    let rounds = if cfg!(debug_assertions) { 300 } else { 20_000 };
    let fixture = Fixture::new(1, 1, Engine::Fastest);
    let frame = fixture.permit().seal(id(0), AAD, &[5; 256]).expect("seals");
    let (closed, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (released, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let Ok(permit) = Permit::unchecked(&fixture.state) else { continue };
                    let Ok(guard) = permit.enter() else { continue };
                    let mut out = [1; 256];
                    let mut started_after_close = false;
                    let opened = open_apart(&guard, &Place::block(id(0), AAD), &frame, &mut out, || {
                        started_after_close = closed.load(Ordering::SeqCst);
                        guard.release()
                    });
                    if opened.is_ok() {
                        assert!(!started_after_close, "released after close");
                        assert_eq!(out, [5; 256]);
                        released.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert_eq!(out, [0; 256], "wiped");
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                    // Sealing beside it: what fails leaves the data untouched or wiped, never half encrypted.
                    let mut data = [6; 64];
                    if permit.seal_detached(id(1), AAD, &mut data).is_err() {
                        assert!(data == [6; 64] || data == [0; 64]);
                    }
                }
            })
        });
        for _ in 0..rounds {
            fixture.close(Keyless::Locked);
            closed.store(true, Ordering::SeqCst);
            std::thread::yield_now();
            closed.store(false, Ordering::SeqCst);
            fixture.unwrapped();
            let before = released.load(Ordering::Relaxed);
            // A reader that failed its assertions releases no more; the scope reports it.
            while released.load(Ordering::Relaxed) == before && readers.iter().all(|r| !r.is_finished()) {
                std::hint::spin_loop();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(released.load(Ordering::Relaxed) >= rounds);
}
