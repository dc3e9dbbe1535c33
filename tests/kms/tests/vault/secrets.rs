//! Secrets stay where they belong: in no text, and not in memory once they were used.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use serde_json::json;
use strongroom::provider::vault::{Login, SecretText, VaultTransit};
use strongroom::provider::{Kek, KeyProvider, WrapInput};
use strongroom_kms_tests::canned::{Canned, answer};
use strongroom_kms_tests::openbao::OpenBao;

use crate::answers::wrapped;
use crate::{context, wrap};

#[test]
fn no_secret_appears_in_any_text() {
    const MARK: &str = "MARK-of-a-secret";
    let login = r#"{"auth":{"client_token":"MARK-of-a-secret-token","lease_duration":60,"renewable":true}}"#;
    let echo = |status, body: &str| answer(status, &[], body);
    // A server, or something before it, that repeats what it was told, in every kind of answer.
    let answers = [
        echo(400, r#"{"errors":["MARK-of-a-secret"]}"#),
        echo(403, r#"{"errors":["MARK-of-a-secret"]}"#),
        echo(403, "<html>MARK-of-a-secret</html>"),
        echo(404, r#"{"errors":["MARK-of-a-secret"]}"#),
        echo(418, r#"{"errors":["MARK-of-a-secret"]}"#),
        echo(429, "MARK-of-a-secret"),
        echo(500, "MARK-of-a-secret"),
        echo(503, r#"{"errors":["Vault is sealed: MARK-of-a-secret"]}"#),
        echo(200, "MARK-of-a-secret"),
        echo(200, r#"{"data":{"plaintext":"MARK-of-a-secret"}}"#),
        echo(200, r#"{"data":{"ciphertext":"MARK-of-a-secret"}}"#),
        echo(307, "MARK-of-a-secret"),
        b"MARK-of-a-secret\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nMARK-of-a-secret\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: MARK-of-a-secret\r\n\r\n".to_vec(),
    ];
    let mut shown = String::new();
    for told in answers {
        for login_answer in [told.clone(), echo(200, login)] {
            let told = told.clone();
            let canned = Canned::serving(move |request| {
                if request.path.contains("/auth/") { login_answer.clone() } else { told.clone() }
            });
            let secret = || SecretText::new(format!("{MARK}-{}", "x"));
            for login in [
                Login::token(secret()),
                Login::app_role(format!("{MARK}-role-id"), secret()),
                Login::jwt_from("role", move || Ok(secret())),
            ] {
                let builder = VaultTransit::builder(canned.url(), login.clone());
                write!(shown, "{login:?} {builder:?} {:?}", SecretText::new(MARK)).unwrap();
                let kms = builder.build().unwrap();
                let errors = [
                    kms.describe(&Kek::latest("orders")).unwrap_err(),
                    wrap(&kms, "orders").unwrap_err(),
                    kms.unwrap(&wrapped(&kms), &context()).unwrap_err(),
                ];
                for error in errors {
                    writeln!(shown, "{error} {error:?} {}", error.message()).unwrap();
                }
                write!(shown, "{kms:?} {:?}", kms.authority()).unwrap();
            }
        }
    }
    assert!(shown.contains("refused") && shown.contains("transient") && shown.contains("integrity"));
    let at = shown.find("MARK");
    assert_eq!(at.map(|at| &shown[at.saturating_sub(80)..at + 20]), None);
}

/// Shows that the wiping of connections works: without it the client keeps the last answer for as long as the
/// connection. Over HTTP in the clear, because rustls keeps what it decrypted.
#[test]
fn d3_an_aek_is_nowhere_in_memory_once_its_owner_dropped_it() {
    let bao = OpenBao::start();
    bao.create_key("orders");
    bao.allow("user", "orders");
    let token = bao.token_for("user", &json!({}));
    let kms = crate::connect(&bao.url(), &token);
    let mut needle = random();
    let held = WrapInput::from_slice(&needle).unwrap();
    let wrapped = kms.wrap(&Kek::latest("orders"), &context(), &held).unwrap();
    let unwrapped = kms.unwrap(&wrapped, &context()).unwrap();
    assert_eq!(unwrapped.expose(), held.expose());
    let mut needles = Needles::of(&needle);
    needle.fill(0);
    // The positive control: both are still held.
    assert!(needles.found() >= 2, "the search finds what is there");
    drop((held, unwrapped));
    // The connection idles meanwhile, as in a service, and keeps nothing.
    assert_eq!(needles.found(), 0, "an AEK, plain or encoded, is left in memory");
}

fn random() -> [u8; WrapInput::LEN] {
    let mut bytes = [0; WrapInput::LEN];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

/// What is searched for, with every byte changed: the search must not find itself.
struct Needles {
    masked: Vec<Vec<u8>>,
}

const MASK: u8 = 0xC3;
/// Enough of a needle to be no chance.
const PART: usize = 16;

impl Needles {
    fn of(secret: &[u8; WrapInput::LEN]) -> Self {
        let mut base64 = Vec::with_capacity(80);
        encode(secret, &mut base64);
        let masked =
            [&secret[8..8 + PART], &secret[32..32 + PART], &base64[12..12 + PART], &base64[48..48 + PART]]
                .map(|part| part.iter().map(|byte| byte ^ MASK).collect())
                .to_vec();
        base64.fill(0);
        std::hint::black_box(&base64);
        Self { masked }
    }

    /// How often any of them lies in this process's writable memory.
    fn found(&mut self) -> usize {
        let mut memory = File::open("/proc/self/mem").unwrap();
        let mut found = 0;
        let mut buffer = vec![0; CHUNK + PART];
        let own = buffer.as_ptr() as u64;
        let maps: Vec<String> =
            BufReader::new(File::open("/proc/self/maps").unwrap()).lines().map(Result::unwrap).collect();
        for line in maps {
            let mut words = line.split_whitespace();
            let (range, rights) = (words.next().unwrap(), words.next().unwrap());
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let (mut at, end) =
                (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            while at < end {
                let length = usize::try_from(end - at).unwrap().min(CHUNK + PART);
                memory.seek(SeekFrom::Start(at)).unwrap();
                if memory.read_exact(&mut buffer[..length]).is_ok() {
                    // What was read is masked at once, and wiped afterwards: the buffer lies in memory as well, and is
                    // the one place that does not count.
                    for byte in &mut buffer[..length] {
                        *byte ^= MASK;
                    }
                    for (offset, window) in buffer[..length].windows(PART).enumerate() {
                        let address = at + offset as u64;
                        // The next chunk begins with the last bytes of this one.
                        let counts = offset < CHUNK && !(own..own + buffer.len() as u64).contains(&address);
                        if counts && self.masked.iter().any(|needle| window == needle.as_slice()) {
                            found += 1;
                        }
                    }
                    buffer.fill(0);
                }
                at += CHUNK as u64;
            }
        }
        found
    }
}

const CHUNK: usize = 1 << 20;

/// Base64 without a crate, into place.
fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]);
        }
    }
}
