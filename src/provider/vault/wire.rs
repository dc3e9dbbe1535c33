//! Connections to Vault: TLS, and buffers that are wiped. Imports: `provider`.
//!
//! An HTTP client keeps its buffers for as long as a connection idles, and with them the AEK of the last unwrap and
//! the token. These are wiped as soon as they are sent or read. What rustls decrypted lies in its own buffer until the
//! connection's next record or end.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, Transport, TransportAdapter,
};
use zeroize::{Zeroize, Zeroizing};

use crate::provider::ProviderError;

/// Turns a TCP connection into a [`Line`]. Without a configuration it knows no TLS.
pub(super) struct LineConnector(Option<Arc<ClientConfig>>);

/// Whom we trust, and who we are, in TLS.
#[derive(Clone, Default)]
pub(super) struct TlsFiles {
    /// The only roots to trust, as PEM; the system's where there are none.
    pub(super) roots: Option<Vec<u8>>,
    /// Our certificate chain and its key, as PEM.
    pub(super) client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// A connection whose buffers are wiped.
pub(super) struct Line {
    stream: Stream,
    /// What came in and was not consumed: `input[consumed..filled]`.
    input: Zeroizing<Vec<u8>>,
    consumed: usize,
    filled: usize,
    output: Zeroizing<Vec<u8>>,
    progress: bool,
}

pub(super) enum Stream {
    Plain(TransportAdapter),
    Tls(Box<StreamOwned<ClientConnection, TransportAdapter>>),
}

impl LineConnector {
    pub(super) const fn plaintext() -> Self {
        Self(None)
    }

    /// # Errors
    /// `Misconfigured` when a file is not what it should be, or the system has no roots.
    pub(super) fn tls(files: &TlsFiles) -> Result<Self, ProviderError> {
        let wrong = |what: &str| ProviderError::misconfigured(what);
        let roots = match &files.roots {
            Some(pem) => roots_of(pem)?,
            None => system_roots()?,
        };
        // Named, because a process may have several and then none is the default.
        let engine = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(engine)
            .with_safe_default_protocol_versions()
            .map_err(|_| wrong("the TLS engine knows no version of TLS"))?
            .with_root_certificates(roots);
        let config = match &files.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates_of(chain)?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| wrong("the client certificate's key is not a PEM private key"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|_| wrong("the client certificate and its key do not fit"))?
            }
        };
        Ok(Self(Some(Arc::new(config))))
    }
}

fn roots_of(pem: &[u8]) -> Result<RootCertStore, ProviderError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(pem)? {
        roots
            .add(certificate)
            .map_err(|_| ProviderError::misconfigured("a CA certificate cannot be a root of trust"))?;
    }
    Ok(roots)
}

fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ProviderError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| ProviderError::misconfigured("a certificate file is not PEM"))?;
    if certificates.is_empty() {
        return Err(ProviderError::misconfigured("a certificate file holds no certificate"));
    }
    Ok(certificates)
}

fn system_roots() -> Result<RootCertStore, ProviderError> {
    let mut roots = RootCertStore::empty();
    // A system's store may hold a few that are too old to parse; those are of no use to anybody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(ProviderError::misconfigured(
            "the system has no root certificates: install them, or give the CA that signed Vault's certificate",
        ));
    }
    Ok(roots)
}

impl<In: Transport> Connector<In> for LineConnector {
    type Out = Line;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Line>, Error> {
        let Some(transport) = chained else { return Ok(None) };
        let mut socket =
            TransportAdapter::new(Box::new(transport) as Box<dyn Transport>, details.current_time.clone());
        socket.set_timeout(details.timeout);
        let stream = if details.needs_tls() {
            let host = details.uri.host().unwrap_or_default();
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare)
                .map_err(|_| Error::Tls("the host's name cannot be checked against a certificate"))?
                .to_owned();
            let config = self.0.clone().ok_or(Error::TlsRequired)?;
            let mut connection =
                ClientConnection::new(config, name).map_err(|_| Error::Tls("the TLS client cannot begin"))?;
            connection.complete_io(&mut socket)?;
            Stream::Tls(Box::new(StreamOwned::new(connection, socket)))
        } else {
            Stream::Plain(socket)
        };
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Line::new(stream, input, output)))
    }
}

impl Line {
    pub(super) fn new(stream: Stream, input: usize, output: usize) -> Self {
        Self {
            stream,
            input: Zeroizing::new(vec![0; input]),
            consumed: 0,
            filled: 0,
            output: Zeroizing::new(vec![0; output]),
            progress: false,
        }
    }
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.socket().set_timeout(timeout);
        let sent = match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(&self.output[..amount]),
            Stream::Tls(stream) => stream.write_all(&self.output[..amount]).and_then(|()| stream.flush()),
        };
        self.output[..amount].zeroize();
        self.stream.wipe_socket_buffers();
        Ok(sent?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.socket().set_timeout(timeout);
        if self.filled == self.input.len() {
            // Only a header that fills the whole buffer gets here: what is consumed is reused at once.
            return Err(Error::LargeResponseHeader(self.filled, self.input.len()));
        }
        let free = &mut self.input[self.filled..];
        let read = match &mut self.stream {
            Stream::Plain(stream) => stream.read(free),
            Stream::Tls(stream) => stream.read(free),
        };
        self.stream.wipe_socket_buffers();
        let amount = read?;
        self.filled += amount;
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.socket().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

impl Buffers for Line {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.consumed..self.filled]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        &mut self.input[self.filled..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.filled = (self.filled + amount).min(self.input.len());
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        let end = (self.consumed + amount).min(self.filled);
        self.input[self.consumed..end].zeroize();
        self.consumed = end;
        if self.consumed > 0 {
            // The rest moves to the front, and the place it left is wiped: at most one short answer is in flight.
            let rest = self.filled - self.consumed;
            self.input.copy_within(self.consumed..self.filled, 0);
            self.input[rest..self.filled].zeroize();
            (self.consumed, self.filled) = (0, rest);
        }
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut self.input[self.filled..], &mut self.output)
    }

    fn can_use_input(&self) -> bool {
        self.consumed < self.filled && self.progress
    }
}

impl Stream {
    fn socket(&mut self) -> &mut TransportAdapter {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut(),
        }
    }

    /// In plaintext HTTP the socket's own buffers hold what ours did; in TLS, ciphertext.
    fn wipe_socket_buffers(&mut self) {
        if let Self::Plain(socket) = self {
            let buffers = socket.get_mut().buffers();
            buffers.output().zeroize();
            // Its free part only: what was read but not handed on yet is still needed.
            buffers.input_append_buf().zeroize();
        }
    }
}

impl fmt::Debug for LineConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineConnector(..)")
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("tls", &self.is_tls()).finish_non_exhaustive()
    }
}
