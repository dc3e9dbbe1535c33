//! LocalKms from outside: bad input, permissions, other processes, death at any moment, hostile bytes.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use strongroom::provider::{
    ErrorClass, Kek, KekUri, KekVersion, KeyOptions, KeyProvider, LocalKms, Recoverability, Verdict,
    WrapAlgorithm, WrapContext, WrapInput, Wrapped, preflight,
};
use strongroom::testing::ManualClock;
use strongroom::{AccountId, Error, ErrorKind, Generation, Refusal};
use tempfile::TempDir;

const KEK: &str = "orders";
const DAY: Duration = Duration::from_secs(24 * 3600);
const DISABLED: ErrorClass = ErrorClass::Refused(Refusal::KeyDisabled);
const GONE: ErrorClass = ErrorClass::Refused(Refusal::KeyGone);

struct Place {
    path: PathBuf,
    _folder: TempDir,
}

/// A LocalKms with one key, alone in its folder.
fn fresh() -> (LocalKms, Place) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { path: folder.path().join("kms.json"), _folder: folder };
    let kms = LocalKms::create(&place.path).unwrap();
    kms.create_key(KEK, KeyOptions::default()).unwrap();
    (kms, place)
}

fn context() -> WrapContext {
    WrapContext::for_tests(AccountId::from_bytes([1; 16]), Generation::FIRST)
}

fn input() -> WrapInput {
    WrapInput::from_slice(&[7; WrapInput::LEN]).unwrap()
}

fn wrap(kms: &LocalKms) -> Wrapped {
    kms.wrap(&Kek::latest(KEK), &context(), &input()).unwrap()
}

fn unwrap(kms: &LocalKms, wrapped: &Wrapped) -> Result<(), ErrorClass> {
    match kms.unwrap(wrapped, &context()) {
        Ok(unwrapped) => {
            assert_eq!(unwrapped.expose(), input().expose());
            Ok(())
        }
        Err(error) => Err(error.class()),
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn b2_every_file_is_owner_only_and_one_open_to_others_is_refused() {
    let (kms, place) = fresh();
    let wrapped = wrap(&kms);
    for entry in fs::read_dir(place.path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
    for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666, 0o777] {
        set_mode(&place.path, mode);
        let error = LocalKms::open(&place.path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse, "{mode:o}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert_eq!(unwrap(&kms, &wrapped), Err(ErrorClass::Misconfigured), "{mode:o}");
        assert_eq!(kms.rotate_key(KEK).unwrap_err().kind(), ErrorKind::Misuse, "{mode:o}");
    }
    for mode in [0o600, 0o400] {
        set_mode(&place.path, mode);
        assert_eq!(unwrap(&LocalKms::open(&place.path).unwrap(), &wrapped), Ok(()), "{mode:o}");
    }
}

#[test]
fn b2_bad_input_is_an_error_that_says_what_to_do_and_changes_nothing() {
    let (kms, place) = fresh();
    let nowhere = place.path.with_file_name("none.json");
    let before = fs::read(&place.path).unwrap();
    let options = KeyOptions::default();
    let unknown = KekVersion::new("00000000000000000000000000000000").unwrap();
    let is = |outcome: Result<(), Error>, kind: ErrorKind, words: &str| {
        let error = outcome.expect_err(words);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };

    is(LocalKms::open(&nowhere).map(drop), ErrorKind::Io, "create one");
    is(LocalKms::open(place.path.parent().unwrap()).map(drop), ErrorKind::Misuse, "regular file");
    is(LocalKms::create(&place.path).map(drop), ErrorKind::Misuse, "open it");
    is(LocalKms::create(nowhere.join("kms.json")).map(drop), ErrorKind::Io, "directory");
    is(LocalKms::create("/").map(drop), ErrorKind::Misuse, "");
    is(LocalKms::create("").map(drop), ErrorKind::Io, "");

    is(kms.create_key("", options).map(drop), ErrorKind::Misuse, "1 to 128 bytes");
    is(kms.create_key(&"x".repeat(129), options).map(drop), ErrorKind::Misuse, "1 to 128 bytes");
    is(kms.create_key("a\nb", options).map(drop), ErrorKind::Misuse, "control");
    is(kms.create_key(KEK, options).map(drop), ErrorKind::Misuse, "rotate it");
    is(kms.create_key("new", options.retention(6 * DAY)).map(drop), ErrorKind::Misuse, "7 to 90 days");
    is(kms.create_key("new", options.retention(91 * DAY)).map(drop), ErrorKind::Misuse, "7 to 90 days");

    is(kms.rotate_key("none").map(drop), ErrorKind::Misuse, "no such key");
    is(kms.disable_key("none"), ErrorKind::Misuse, "no such key");
    is(kms.enable_key("none"), ErrorKind::Misuse, "no such key");
    is(kms.delete_key("none"), ErrorKind::Misuse, "no such key");
    is(kms.recover_key("none"), ErrorKind::Misuse, "no such key");
    is(kms.purge_key("none"), ErrorKind::Misuse, "no such key");
    is(kms.disable_version(KEK, &unknown), ErrorKind::Misuse, "no such version");
    is(kms.recover_key(KEK), ErrorKind::Misuse, "not deleted");
    is(kms.purge_key(KEK), ErrorKind::Misuse, "delete it first");
    assert_eq!(fs::read(&place.path).unwrap(), before, "nothing was written");

    kms.delete_key(KEK).unwrap();
    let deleted = fs::read(&place.path).unwrap();
    is(kms.create_key(KEK, options).map(drop), ErrorKind::Misuse, "recover it");
    is(kms.rotate_key(KEK).map(drop), ErrorKind::Misuse, "recover it first");
    is(kms.disable_key(KEK), ErrorKind::Misuse, "recover it first");
    is(kms.delete_key(KEK), ErrorKind::Misuse, "recover it first");
    is(kms.purge_key(KEK), ErrorKind::Misuse, "purge protection");
    assert_eq!(fs::read(&place.path).unwrap(), deleted, "nothing was written");
}

#[test]
fn b2_b8_a_key_through_its_whole_life() {
    let clock = ManualClock::new();
    let (kms, _place) = fresh();
    let kms = kms.with_clock(&clock);
    let old = wrap(&kms);
    let first = kms.describe(&Kek::latest(KEK)).unwrap();
    assert!(first.enabled && first.recoverable() && first.expires.is_none());
    assert_eq!((first.hsm_backed, &first.version, &first.uri), (Some(false), old.version(), old.kek()));

    let second = kms.rotate_key(KEK).unwrap();
    let new = wrap(&kms);
    assert_eq!((new.version(), unwrap(&kms, &old), unwrap(&kms, &new)), (&second, Ok(()), Ok(())));

    kms.disable_version(KEK, old.version()).unwrap();
    assert_eq!((unwrap(&kms, &old), unwrap(&kms, &new)), (Err(DISABLED), Ok(())));
    let pinned = Kek::pinned(KEK, old.version().clone());
    assert!(!kms.describe(&pinned).unwrap().enabled);
    assert_eq!(kms.wrap(&pinned, &context(), &input()).unwrap_err().class(), DISABLED);
    kms.enable_version(KEK, old.version()).unwrap();
    assert_eq!(unwrap(&kms, &old), Ok(()));

    kms.disable_version(KEK, &second).unwrap();
    assert_eq!(kms.wrap(&Kek::latest(KEK), &context(), &input()).unwrap_err().class(), DISABLED);
    kms.enable_version(KEK, &second).unwrap();

    kms.disable_key(KEK).unwrap();
    assert!(!kms.describe(&Kek::latest(KEK)).unwrap().enabled);
    assert_eq!((unwrap(&kms, &old), unwrap(&kms, &new)), (Err(DISABLED), Err(DISABLED)));

    kms.delete_key(KEK).unwrap();
    assert_eq!(unwrap(&kms, &new), Err(GONE));
    assert_eq!(kms.describe(&Kek::latest(KEK)).unwrap_err().class(), GONE);
    kms.recover_key(KEK).unwrap();
    assert_eq!(unwrap(&kms, &new), Err(DISABLED), "recovered as it was");
    kms.enable_key(KEK).unwrap();
    assert_eq!(unwrap(&kms, &new), Ok(()));
}

#[test]
fn b2_purge_protection_holds_until_the_retention_is_over() {
    let clock = ManualClock::new();
    let (kms, _place) = fresh();
    let kms = kms.with_clock(&clock);
    let wrapped = wrap(&kms);
    kms.delete_key(KEK).unwrap();
    clock.advance(90 * DAY - Duration::from_secs(1));
    let error = kms.purge_key(KEK).unwrap_err();
    assert!(error.to_string().contains("1 seconds more"), "{error}");
    clock.jump_wall_back(10 * DAY);
    assert_eq!(kms.purge_key(KEK).unwrap_err().kind(), ErrorKind::Misuse);
    clock.advance(10 * DAY + Duration::from_secs(1));
    kms.purge_key(KEK).unwrap();
    assert!(kms.keys().unwrap().is_empty());
    assert_eq!(unwrap(&kms, &wrapped), Err(GONE));

    kms.create_key(KEK, KeyOptions::default().allow_immediate_purge()).unwrap();
    assert_eq!(unwrap(&kms, &wrapped), Err(GONE), "a key of the same name is another key");
    kms.delete_key(KEK).unwrap();
    kms.purge_key(KEK).unwrap();
}

#[test]
fn b2_keys_tell_all_but_the_secret() {
    let (kms, place) = fresh();
    kms.rotate_key(KEK).unwrap();
    kms.delete_key(KEK).unwrap();
    let keys = kms.keys().unwrap();
    let key = &keys[0];
    assert_eq!(
        (key.name.as_str(), key.enabled, key.purge_protection, key.versions.len()),
        (KEK, true, true, 2)
    );
    assert_eq!(key.purgeable.unwrap().duration_since(key.deleted.unwrap()).unwrap(), 90 * DAY);
    let content = fs::read_to_string(&place.path).unwrap();
    let (_, material) = content.split_once("\"material\":\"").unwrap();
    assert!(content.contains(&material[..64]));
    let shown = format!("{kms:?} {keys:?}");
    assert!(!shown.contains(&material[..8]), "{shown}");
}

#[test]
fn b2_a_file_may_move_but_not_be_another() {
    let (kms, place) = fresh();
    let wrapped = wrap(&kms);
    let (_, other) = fresh();
    let own = fs::read(&place.path).unwrap();

    fs::copy(&other.path, &place.path).unwrap();
    assert_eq!(unwrap(&kms, &wrapped), Err(ErrorClass::Misconfigured));
    assert_eq!(kms.rotate_key(KEK).unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(kms.keys().unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(fs::read(&place.path).unwrap(), fs::read(&other.path).unwrap(), "nothing was written");

    fs::remove_file(&place.path).unwrap();
    assert_eq!(unwrap(&kms, &wrapped), Err(ErrorClass::Transient), "no file is silence");

    fs::write(&other.path, own).unwrap();
    let moved = LocalKms::open(&other.path).unwrap();
    assert_eq!((moved.authority(), unwrap(&moved, &wrapped)), (kms.authority(), Ok(())));
}

#[test]
fn b9_preflight_judges_local_keys() {
    let (kms, _place) = fresh();
    let verdict = |name: &str| preflight(&kms, &Kek::latest(name)).verdict();
    assert_eq!(verdict(KEK), Verdict::Ready);
    kms.create_key("scratch", KeyOptions::default().allow_immediate_purge()).unwrap();
    assert_eq!(verdict("scratch"), Verdict::NotRecoverable);
    let report = preflight(&kms, &Kek::latest("scratch"));
    assert_eq!(report.clone().into_result().unwrap_err().kind(), ErrorKind::Misuse);
    report.require(Recoverability::AcceptLoss).unwrap();
    kms.disable_key(KEK).unwrap();
    let error = preflight(&kms, &Kek::latest(KEK)).into_result().unwrap_err();
    assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(Refusal::KeyDisabled)));
}

/// `tests/vectors/local_kms` was made by another program, from the format's document.
#[test]
fn b2_f1_frozen_file_and_wrap_are_read_and_written_again_alike() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kms.json");
    let frozen = include_bytes!("vectors/local_kms/kms.json");
    fs::write(&path, frozen).unwrap();
    set_mode(&path, 0o600);
    let kms = LocalKms::open(&path).unwrap();

    let hex = include_str!("vectors/local_kms/wrapped.hex").trim();
    let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(byte).collect();
    let wrapped = Wrapped::new(
        KekUri::new("local://0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/orders").unwrap(),
        KekVersion::new("f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0").unwrap(),
        WrapAlgorithm::new("AES-256-GCM").unwrap(),
        bytes,
    );
    assert_eq!(unwrap(&kms, &wrapped.unwrap()), Ok(()));

    kms.disable_key(KEK).unwrap();
    kms.enable_key(KEK).unwrap();
    assert_eq!(fs::read(&path).unwrap(), frozen);
}

// Hostile bytes.

#[test]
fn b2_f1_every_truncation_and_every_changed_byte_is_refused() {
    let (kms, place) = fresh();
    let wrapped = wrap(&kms);
    let good = fs::read(&place.path).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        // In place, not by rename: the permissions stay.
        fs::write(&place.path, bytes).unwrap();
        let error = LocalKms::open(&place.path).expect_err(what);
        assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Corrupt), "{what}: {error}");
        assert_eq!(unwrap(&kms, &wrapped), Err(ErrorClass::Integrity), "{what}");
        kms.rotate_key(KEK).expect_err(what);
        assert_eq!(fs::read(&place.path).unwrap(), bytes, "{what}: left for whoever repairs it");
    };
    for end in 0..good.len() {
        refused(&good[..end], &format!("{end} of {} bytes", good.len()));
    }
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] = !changed[at];
        refused(&changed, &format!("byte {at} changed"));
    }
    refused(&[&good[..], b"\n"].concat(), "a byte more");
    refused(&[&good[..], &good[..]].concat(), "twice the file");
    fs::write(&place.path, &good).unwrap();
    assert_eq!(unwrap(&kms, &wrapped), Ok(()));
}

#[test]
fn b2_f2_a_huge_file_is_refused_before_it_is_read() {
    let (kms, place) = fresh();
    let wrapped = wrap(&kms);
    fs::File::options().write(true).open(&place.path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(LocalKms::open(&place.path).unwrap_err().kind(), ErrorKind::Limit);
    assert_eq!(unwrap(&kms, &wrapped), Err(ErrorClass::Integrity));
}

// Other processes. Each is this test program again, running `child` alone.

const TASK: &str = "STRONGROOM_TEST_LOCAL_KMS_TASK";
const FILE: &str = "STRONGROOM_TEST_LOCAL_KMS_FILE";

fn spawn(task: &str, place: &Place) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(TASK, task)
        .env(FILE, &place.path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Does nothing unless started by [`spawn`].
#[test]
fn child() {
    let Some(task) = std::env::var_os(TASK) else { return };
    let kms = LocalKms::open(std::env::var_os(FILE).unwrap()).unwrap();
    match task.to_str().unwrap() {
        "disable" => kms.disable_key(KEK).unwrap(),
        "rotate without end" => loop {
            println!("\nmade {}", kms.rotate_key(KEK).unwrap());
        },
        task => {
            let name = task.strip_prefix("create and rotate ").unwrap();
            kms.create_key(name, KeyOptions::default()).unwrap();
            for _ in 0..ROTATIONS {
                kms.rotate_key(KEK).unwrap();
                kms.rotate_key(name).unwrap();
            }
        }
    }
}

const ROTATIONS: usize = 20;

#[test]
fn b2_a_change_by_another_process_is_seen_by_the_next_call() {
    let (kms, place) = fresh();
    let wrapped = wrap(&kms);
    assert_eq!(unwrap(&kms, &wrapped), Ok(()));
    assert!(spawn("disable", &place).wait().unwrap().success());
    assert_eq!(unwrap(&kms, &wrapped), Err(DISABLED));
    kms.enable_key(KEK).unwrap();
    assert_eq!(unwrap(&kms, &wrapped), Ok(()));
}

#[test]
fn b2_two_processes_and_a_thread_lose_no_change() {
    let (kms, place) = fresh();
    let mut children = [spawn("create and rotate a", &place), spawn("create and rotate b", &place)];
    for _ in 0..ROTATIONS {
        kms.rotate_key(KEK).unwrap();
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let counts: Vec<_> = kms.keys().unwrap().into_iter().map(|key| (key.name, key.versions.len())).collect();
    assert_eq!(counts[0], (KEK.to_owned(), 1 + 3 * ROTATIONS));
    let others: BTreeSet<_> = counts[1..].iter().cloned().collect();
    assert_eq!(others, BTreeSet::from([("a".to_owned(), 1 + ROTATIONS), ("b".to_owned(), 1 + ROTATIONS)]));
}

#[test]
fn b2_r14_a_process_killed_at_any_moment_loses_nothing_that_it_was_told() {
    let (kms, place) = fresh();
    let wrapped = wrap(&kms);
    for lines in 1..=20 {
        let mut child = spawn("rotate without end", &place);
        let output = BufReader::new(child.stdout.take().unwrap());
        let made = |line: &String| line.strip_prefix("made ").map(str::to_owned);
        let told: Vec<_> =
            output.lines().map_while(Result::ok).filter_map(|l| made(&l)).take(lines).collect();
        assert_eq!(told.len(), lines);
        child.kill().unwrap();
        child.wait().unwrap();
        let keys = LocalKms::open(&place.path).expect("a whole file").keys().unwrap();
        let there: BTreeSet<_> = keys[0].versions.iter().map(|version| version.version.to_string()).collect();
        assert!(told.iter().all(|version| there.contains(version)), "{told:?}");
        assert_eq!(unwrap(&kms, &wrapped), Ok(()));
        kms.rotate_key(KEK).expect("whatever the dead process left does not bar the next");
    }
}
