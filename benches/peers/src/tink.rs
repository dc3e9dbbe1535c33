//! Tink for Rust: one keyset's AEAD, its streaming AEAD, and envelopes with a local keyset in the place of the KMS.

use std::cell::RefCell;
use std::io::{self, Cursor, Read, Write};
use std::rc::Rc;

use tink_core::keyset::Handle;

use crate::contenders::Peer;

pub(crate) struct Aead(Box<dyn tink_core::Aead>);

impl Aead {
    pub(crate) fn new() -> Self {
        Self(local_keyset())
    }
}

impl Peer for Aead {
    const NAME: &'static str = "Tink AEAD";
    const CRATE: &'static str = "tink-aead";
    const DOES: &'static str = "AES-256-GCM of the crate aes-gcm, one fixed key of a keyset, a random nonce";

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        self.0.encrypt(plain, &[]).expect("seals")
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        self.0.decrypt(sealed, &[]).expect("opens")
    }
}

pub(crate) struct Envelope(tink_aead::KmsEnvelopeAead);

impl Envelope {
    pub(crate) fn new() -> Self {
        Self(tink_aead::KmsEnvelopeAead::new(tink_aead::aes256_gcm_key_template(), local_keyset()))
    }
}

impl Peer for Envelope {
    const NAME: &'static str = "Tink envelope";
    const CRATE: &'static str = "tink-aead";
    const DOES: &'static str = "KmsEnvelopeAead: a fresh random key for each block, wrapped, then AES-256-GCM of the crate aes-gcm; \
         a local keyset stands here for the KMS, which is called for each seal and each open";

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        tink_core::Aead::encrypt(&self.0, plain, &[]).expect("seals")
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        tink_core::Aead::decrypt(&self.0, sealed, &[]).expect("opens")
    }
}

fn local_keyset() -> Box<dyn tink_core::Aead> {
    tink_aead::init();
    let keyset = Handle::new(&tink_aead::aes256_gcm_key_template()).expect("a new keyset");
    tink_aead::new(&keyset).expect("an AEAD")
}

pub(crate) struct Streaming(Box<dyn tink_core::StreamingAead>);

impl Streaming {
    pub(crate) fn new() -> Self {
        tink_streaming_aead::init();
        let keyset = Handle::new(&tink_streaming_aead::aes256_gcm_hkdf_4kb_key_template());
        Self(tink_streaming_aead::new(&keyset.expect("a new keyset")).expect("a streaming AEAD"))
    }
}

impl Peer for Streaming {
    const NAME: &'static str = "Tink streaming AEAD";
    const CRATE: &'static str = "tink-streaming-aead";
    const DOES: &'static str = "a stream for each block: a fresh key by HKDF-SHA-256, then AES-256-GCM of the crate aes-gcm in \
         segments of 4 KiB";

    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let sealed = Shared(Rc::new(RefCell::new(Vec::with_capacity(plain.len() + plain.len() / 128 + 64))));
        let mut writer = self.0.new_encrypting_writer(Box::new(sealed.clone()), &[]).expect("a writer");
        writer.write_all(plain).expect("memory takes everything");
        writer.close().expect("memory takes everything");
        sealed.0.take()
    }

    fn open(&self, sealed: &[u8]) -> Vec<u8> {
        // The reader has to own its source.
        let mut reader =
            self.0.new_decrypting_reader(Box::new(Cursor::new(sealed.to_vec())), &[]).expect("a reader");
        let mut plain = Vec::with_capacity(sealed.len());
        reader.read_to_end(&mut plain).expect("opens");
        plain
    }
}

/// The writer has to own its sink, and the caller wants the bytes.
#[derive(Clone)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
