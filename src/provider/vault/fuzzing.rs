//! What the fuzz targets `vault_answers` and `vault_line` hold of answers, and of the buffers they come through. Imports: `provider`, `error`, this provider's own files.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Error;
use ureq::unversioned::transport::time::Instant;
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport, TransportAdapter};
use zeroize::Zeroizing;

use super::address::{Address, Plaintext};
use super::answer::{Auth, Data, Encrypted, Errors, Granted, TokenFacts, parse};
use super::classify::{Asked, Outcome, Sealed, classify};
use super::client::Reply;
use super::wire::{Line, Stream};
use super::{Found, unwrapped, version_of};
use crate::provider::{Authority, ErrorClass, WrapInput};

/// Only Vault's own words refuse; a success is read whole, or not at all.
pub(crate) fn answer(asked: u8, status: u16, body: &[u8]) {
    let all = [Asked::Decrypt, Asked::Encrypt, Asked::Describe, Asked::Token, Asked::Login];
    let asked = all[usize::from(asked) % all.len()];
    let reply = Reply { status: 100 + status % 500, body: Zeroizing::new(body.to_vec()) };
    let in_its_words = Errors::parse(body).is_some();
    for sealed in [Sealed::Transient, Sealed::Refused] {
        match classify(asked, &reply, sealed) {
            Outcome::Success => assert!((200..300).contains(&reply.status)),
            Outcome::Denied => assert!(reply.status == 403 && in_its_words && asked != Asked::Login),
            Outcome::Failed(error) => {
                let refuses = !matches!(error.class(), ErrorClass::Transient);
                let may = (400..500).contains(&reply.status) || sealed == Sealed::Refused;
                assert!(!refuses || in_its_words && may, "{error} of status {}", reply.status);
                assert!(error.message().ends_with(&format!(" (HTTP {})", reply.status)));
            }
        }
    }
    success(body);
}

fn success(body: &[u8]) {
    let authority = Authority::new("vault", "fuzz");
    for wanted in [None, Some(2)] {
        if let Ok(found) = Found::of(body, "orders", wanted, &authority) {
            assert!(found.number > 0 && wanted.is_none_or(|wanted| wanted == found.number));
            assert_eq!(found.info.version.as_str(), found.number.to_string());
            assert!(!found.info.purge_protection || found.info.soft_delete);
        }
    }
    if let Ok(answer) = parse::<Data<Encrypted<'_>>>(body) {
        let ciphertext = answer.data.ciphertext;
        if let Some(number) = version_of(ciphertext) {
            let encoded = ciphertext.strip_prefix(&format!("vault:v{number}:")).expect("one way to write it");
            let bytes = STANDARD.decode(encoded).expect("was decoded before");
            assert_eq!(STANDARD.encode(&bytes), encoded, "one name for these bytes");
        }
    }
    if let Ok(input) = unwrapped(body) {
        assert_eq!(input.expose().len(), WrapInput::LEN);
    }
    // Nothing is held of these but that they can be read.
    let _ = (parse::<Auth<Granted<'_>>>(body).is_ok(), parse::<Data<TokenFacts>>(body).is_ok());
}

/// Address, namespace and mount, between newlines: what was parsed is a place that is parsed to itself.
pub(crate) fn address(text: &str) {
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (address, namespace, mount) = (part(), part(), part());
    if let Ok(place) = Address::parse(address, namespace, mount, Plaintext::Anywhere) {
        let namespace = place.namespace.as_deref().unwrap_or_default();
        let again = Address::parse(&place.base, namespace, &place.mount, Plaintext::Anywhere);
        assert_eq!(again.ok().as_ref(), Some(&place), "a place has one name");
        assert!(!place.endpoint.contains('/'), "in one word without slashes");
    }
}

/// Commands of two bytes to a connection's buffers: nothing is lost or changed on its way, and what was used is wiped.
pub(crate) fn line(commands: &[u8]) {
    let incoming: Vec<u8> = (1..=u8::MAX).cycle().take(1024).collect();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let script =
        Script { buffers: LazyBuffers::new(24, 40), rest: incoming.clone(), at_once: 1, sent: sent.clone() };
    let socket = TransportAdapter::new(Box::new(script) as Box<dyn Transport>, Arc::new(Instant::now));
    let mut line = Line::new(Stream::Plain(socket), SIZE, SIZE);
    let (mut consumed, mut written) = (0, Vec::new());
    for command in commands.chunks(2) {
        let (how, amount) = (command[0], usize::from(command[command.len() - 1]));
        let (waiting, number) = (line.input().len(), command[0]);
        match how % 3 {
            0 => match line.await_input(NextTimeout::default()) {
                Ok(more) => assert_eq!(more, line.input().len() > waiting),
                Err(_) => assert_eq!(waiting, SIZE, "only a full buffer takes no more"),
            },
            1 => {
                line.input_consume(amount % (SIZE + 2));
                consumed += waiting.min(amount % (SIZE + 2));
                assert_eq!(line.can_use_input(), !line.input().is_empty() && amount % (SIZE + 2) > 0);
            }
            _ => {
                let amount = amount % (SIZE + 1);
                line.output()[..amount].fill(number);
                line.transmit_output(amount, NextTimeout::default()).expect("the script takes everything");
                written.extend(vec![number; amount]);
                assert!(line.output().iter().all(|byte| *byte == 0), "what was sent is wiped");
            }
        }
        let len = line.input().len();
        assert_eq!(*line.input(), incoming[consumed..consumed + len], "what came in, in order");
        assert!(line.input_append_buf().iter().all(|byte| *byte == 0), "what was consumed is wiped");
        assert_eq!(line.input_append_buf().len() + len, SIZE);
    }
    assert_eq!(*sent.lock().unwrap_or_else(PoisonError::into_inner), written);
}

/// A socket: what it was given to say, in pieces that grow and shrink.
#[derive(Debug)]
struct Script {
    buffers: LazyBuffers,
    rest: Vec<u8>,
    at_once: usize,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Transport for Script {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = &self.buffers.output()[..amount];
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(output);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let free = self.buffers.input_append_buf();
        let amount = self.at_once.min(free.len()).min(self.rest.len());
        free[..amount].copy_from_slice(&self.rest[..amount]);
        self.buffers.input_appended(amount);
        self.rest.drain(..amount);
        self.at_once = self.at_once % 23 + 5;
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        true
    }
}

const SIZE: usize = 32;
