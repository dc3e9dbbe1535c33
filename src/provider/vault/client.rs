//! One HTTP request to Vault, and its bounded answer. Imports: `provider`, `clock`.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderValue, Method, Request, Response, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use super::wire::{LineConnector, TlsFiles};
use crate::clock::{Clock, Moment};
use crate::provider::ProviderError;

/// Sends requests to one Vault, over a few connections that are kept open for a while.
pub(super) struct Client {
    agent: Agent,
    /// `https://host:port`, without a path.
    base: String,
    namespace: Option<HeaderValue>,
    clock: Clock,
}

/// What is asked. The body is JSON, and its owner wipes it.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Without the leading `/v1/`.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a HeaderValue>,
    pub(super) body: &'a [u8],
}

/// What Vault, or something before it, answered. The body is wiped when dropped, and empty where it was
/// longer than [`MAX_ANSWER`].
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Client {
    /// `tls` counts where `base` begins with `https`.
    pub(super) fn new(
        base: String,
        namespace: Option<HeaderValue>,
        tls: &TlsFiles,
        connect_within: Duration,
    ) -> Result<Self, ProviderError> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would carry the token, and an AEK, to a host that nobody named.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Not taken from the environment: who can set HTTPS_PROXY could cut us off unseen.
            .proxy(None)
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(connect_within))
            .input_buffer_size(BUFFER)
            .output_buffer_size(BUFFER)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS)
            .max_idle_age(IDLE_AGE)
            .build();
        let line =
            if base.starts_with("https:") { LineConnector::tls(tls)? } else { LineConnector::plaintext() };
        let connector = ().chain(TcpConnector::default()).chain(line);
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Ok(Self { agent, base, namespace, clock: Clock::System })
    }

    /// # Errors
    /// `Transient` when no whole answer came before `deadline`.
    pub(super) fn ask(&self, ask: &Ask<'_>, deadline: Moment) -> Result<Reply, ProviderError> {
        let within = self.clock.now().until(deadline);
        if within.is_zero() {
            return Err(ProviderError::transient("Vault did not answer in time"));
        }
        let uri: Uri = format!("{}/v1/{}", self.base, ask.path)
            .parse()
            .map_err(|_| ProviderError::misconfigured("the request has no valid URL"))?;
        let mut request = Request::builder()
            .method(ask.method.clone())
            .uri(uri)
            // Asked for by Vault Agent and Vault Proxy, as a guard against forged requests.
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = ask.token {
            request = request.header("X-Vault-Token", token);
        }
        let answer = if ask.method == Method::GET {
            let request = request.body(()).map_err(|_| malformed())?;
            let request = self.agent.configure_request(request).timeout_global(Some(within)).build();
            self.agent.run(request)
        } else {
            let request =
                request.header("Content-Type", "application/json").body(ask.body).map_err(|_| malformed())?;
            let request = self.agent.configure_request(request).timeout_global(Some(within)).build();
            self.agent.run(request)
        };
        answer.map_err(|error| silence(&error)).and_then(read)
    }
}

fn read(mut answer: Response<Body>) -> Result<Reply, ProviderError> {
    let status = answer.status().as_u16();
    // Of its full length at once: growing would leave copies behind.
    let mut body = Zeroizing::new(vec![0; MAX_ANSWER + 1]);
    let mut filled = 0;
    let mut reader = answer.body_mut().as_reader();
    while filled < body.len() {
        let read = reader.read(&mut body[filled..]).map_err(|error| silence(&error.into()))?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    // One byte too many is as wrong as a gigabyte: nothing of it is used.
    body.truncate(if filled > MAX_ANSWER { 0 } else { filled });
    Ok(Reply { status, body })
}

/// Whatever kept a whole HTTP answer from arriving says nothing about the key. In our words: the client's own may
/// quote what it received.
fn silence(error: &ureq::Error) -> ProviderError {
    use ureq::Error::{
        ConnectionFailed, HostNotFound, Io, LargeResponseHeader, Protocol, Timeout, Tls, TlsRequired,
    };
    let what = match error {
        Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => "no connection to Vault in time".into(),
        Timeout(_) => "Vault did not answer in time".into(),
        HostNotFound => "Vault's host name does not resolve".into(),
        Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => format!("TLS with Vault failed: {tls}"),
            None => format!("the connection to Vault failed: {}", error.kind()),
        },
        Tls(what) => format!("TLS with Vault failed: {what}"),
        Protocol(_) | LargeResponseHeader(..) => "what answered does not speak HTTP".into(),
        ConnectionFailed | TlsRequired => "no connection to Vault".to_owned(),
        _ => "the request to Vault failed".into(),
    };
    ProviderError::transient(&what)
}

fn malformed() -> ProviderError {
    ProviderError::misconfigured("the request to Vault is malformed")
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The longest answer that is read, in bytes. A key of ten thousand versions is described in less than three times
/// that; nobody has one.
const MAX_ANSWER: usize = 64 * 1024;

/// Bytes of each of a connection's two buffers; the headers of an answer have to fit.
const BUFFER: usize = 16 * 1024;

/// As many as an authority may have calls in flight, and some for logins.
const IDLE_CONNECTIONS: usize = 8;

/// Shorter than what load balancers and firewalls allow a connection to be idle, so that none dies unseen.
const IDLE_AGE: Duration = Duration::from_secs(15);
