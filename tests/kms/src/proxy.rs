//! A TCP proxy that breaks connections in the ways that networks do, switched while it runs.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the proxy does to all its connections, those that exist included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Pass,
    /// Connections are refused; those that exist are closed.
    Refuse,
    /// Connections are accepted and nothing flows, in neither direction. It flows on in a later mode.
    Hang,
    /// Every answer comes this much later.
    Delay(Duration),
    /// Every sixteenth byte of an answer is another, beginning with the first.
    Garble,
    /// As `Garble`, after an answer's head: for HTTP in the clear.
    GarbleBody,
    /// The connection closes after so many bytes of an answer.
    Cut(usize),
    /// These bytes in place of any answer, and then the connection's end; the server is not asked.
    Answer(Vec<u8>),
}

/// The proxy, on a port of its own. Ends when dropped, its connections as well.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    mode: Mutex<Mode>,
    /// Wakes the connections that are frozen: a fleet's may be thousands.
    switched: Condvar,
    /// Absent while connections are refused.
    listener: Mutex<Option<TcpListener>>,
    connections: AtomicU64,
    ended: AtomicBool,
}

impl Proxy {
    /// In front of a server, in mode `Pass`.
    ///
    /// # Panics
    /// Without a free port.
    #[must_use]
    pub fn before(server: SocketAddr) -> Self {
        let listener = listen(([127, 0, 0, 1], 0).into()).expect("loopback has a free port");
        let address = listener.local_addr().expect("is bound");
        let shared = Arc::new(Shared {
            server,
            mode: Mutex::new(Mode::Pass),
            switched: Condvar::new(),
            listener: Mutex::new(Some(listener)),
            connections: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let acceptor = Arc::clone(&shared);
        thread::spawn(move || acceptor.accept());
        Self { address, shared }
    }

    /// Where it listens: what the client is given instead of the server's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Switches to another mode, before it returns.
    ///
    /// # Panics
    /// When the port was taken by somebody else while connections were refused.
    pub fn set(&self, mode: Mode) {
        let mut listener = lock(&self.shared.listener);
        match (&mode, listener.is_some()) {
            (Mode::Refuse, _) => *listener = None,
            (_, false) => *listener = Some(listen_again(self.address)),
            _ => {}
        }
        *lock(&self.shared.mode) = mode;
        self.shared.switched.notify_all();
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.switched.notify_all();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("mode", &*lock(&self.shared.mode))
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn accept(self: Arc<Self>) {
        while !self.ended() {
            let accepted = lock(&self.listener).as_ref().map(TcpListener::accept);
            match accepted {
                Some(Ok((client, _))) => {
                    self.connections.fetch_add(1, Ordering::SeqCst);
                    let connection = Arc::clone(&self);
                    thread::spawn(move || drop(connection.converse(&client)));
                }
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// One connection, until either side or the proxy ends it.
    fn converse(self: &Arc<Self>, client: &TcpStream) -> io::Result<()> {
        let closed = Arc::new(AtomicBool::new(false));
        let close = Closing { stream: client, closed: &closed };
        prepare(client)?;
        self.wait_while_frozen(&closed);
        let server = TcpStream::connect_timeout(&self.server, Duration::from_secs(5))?;
        prepare(&server)?;
        let asked = Arc::new(AtomicBool::new(false));
        let back = {
            let (shared, asked, closed) = (Arc::clone(self), Arc::clone(&asked), Arc::clone(&closed));
            let (server, client) = (server.try_clone()?, client.try_clone()?);
            thread::spawn(move || {
                let close = Closing { stream: &client, closed: &closed };
                drop(shared.answers(&server, close.stream, &asked, &closed));
            })
        };
        drop(self.requests(client, &server, &asked, &closed));
        drop(close);
        drop(server.shutdown(Shutdown::Both));
        drop(back.join());
        Ok(())
    }

    /// From the client to the server.
    fn requests(
        &self,
        client: &TcpStream,
        server: &TcpStream,
        asked: &AtomicBool,
        closed: &AtomicBool,
    ) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        while let Some(length) = self.read(client, &mut chunk, closed)? {
            if length == 0 {
                return Ok(());
            }
            asked.store(true, Ordering::SeqCst);
            match self.wait_while_frozen(closed) {
                Mode::Answer(bytes) => {
                    // Closing with something unread would take the answer from the client.
                    let mut client = client;
                    while client.read(&mut chunk).is_ok_and(|length| length > 0) {}
                    client.write_all(&bytes)?;
                    return client.shutdown(Shutdown::Write);
                }
                Mode::Refuse => return Ok(()),
                _ => {
                    let mut server = server;
                    server.write_all(&chunk[..length])?;
                }
            }
        }
        Ok(())
    }

    /// From the server to the client.
    fn answers(
        &self,
        server: &TcpStream,
        client: &TcpStream,
        asked: &AtomicBool,
        closed: &AtomicBool,
    ) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        let mut seen = Answered::default();
        while let Some(length) = self.read(server, &mut chunk, closed)? {
            if length == 0 {
                return Ok(());
            }
            let chunk = &mut chunk[..length];
            let first = asked.swap(false, Ordering::SeqCst);
            if first {
                seen = Answered::default();
            }
            let before = seen.bytes;
            let body = seen.body_in(chunk);
            let mut client = client;
            match self.wait_while_frozen(closed) {
                Mode::Refuse | Mode::Answer(_) => return Ok(()),
                Mode::Cut(limit) if seen.bytes > limit => {
                    return client.write_all(&chunk[..limit.saturating_sub(before)]);
                }
                Mode::Delay(delay) if first => self.sleep(delay, closed),
                Mode::Garble => garble(chunk),
                Mode::GarbleBody => garble(&mut chunk[body..]),
                _ => {}
            }
            client.write_all(chunk)?;
        }
        Ok(())
    }

    /// The next bytes; none of them at the stream's end. `None` when the connection is to end.
    fn read(&self, from: &TcpStream, chunk: &mut [u8], closed: &AtomicBool) -> io::Result<Option<usize>> {
        let mut from = from;
        loop {
            if self.ended() || closed.load(Ordering::SeqCst) || *lock(&self.mode) == Mode::Refuse {
                return Ok(None);
            }
            match from.read(chunk) {
                Err(error) if is_timeout(&error) => {}
                read => return read.map(Some),
            }
        }
    }

    /// Holds what was read while nothing is to flow; the mode after that.
    fn wait_while_frozen(&self, closed: &AtomicBool) -> Mode {
        let frozen = |mode: &Mode| *mode == Mode::Hang && !self.ended() && !closed.load(Ordering::SeqCst);
        let mut mode = lock(&self.mode);
        while frozen(&mode) {
            let woken = self.switched.wait_timeout(mode, FROZEN_PATROL);
            mode = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        mode.clone()
    }

    fn sleep(&self, delay: Duration, closed: &AtomicBool) {
        let begun = Instant::now();
        while !self.ended() && !closed.load(Ordering::SeqCst) {
            let left = delay.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(PATROL));
        }
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

/// Ends a connection in both directions, and tells the thread of the other one.
struct Closing<'a> {
    stream: &'a TcpStream,
    closed: &'a AtomicBool,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

/// What went by of one answer.
#[derive(Default)]
struct Answered {
    bytes: usize,
    /// The last bytes of the head: an empty line may be split between two chunks.
    tail: Vec<u8>,
    in_body: bool,
}

impl Answered {
    /// Where in the next chunk the body begins: at its end, if it does not.
    fn body_in(&mut self, chunk: &[u8]) -> usize {
        self.bytes += chunk.len();
        if self.in_body {
            return 0;
        }
        let before = self.tail.len();
        self.tail.extend_from_slice(chunk);
        let end = self.tail.windows(HEAD_END.len()).position(|window| window == HEAD_END);
        if let Some(end) = end {
            self.in_body = true;
            return end + HEAD_END.len() - before;
        }
        self.tail.drain(..self.tail.len().saturating_sub(HEAD_END.len() - 1));
        chunk.len()
    }
}

fn garble(bytes: &mut [u8]) {
    bytes.iter_mut().step_by(16).for_each(|byte| *byte ^= 0xa5);
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATROL))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))
}

/// Accepting does not block, so that the mode is looked at.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Somebody's outgoing connection may have been given the port for a while.
fn listen_again(address: SocketAddr) -> TcpListener {
    let begun = Instant::now();
    loop {
        match listen(address) {
            Ok(listener) => return listener,
            Err(error) if begun.elapsed() > Duration::from_secs(10) => panic!("{address}: {error}"),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const CHUNK: usize = 16 * 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";
/// How often a thread that waits for bytes looks whether it is still wanted.
const PATROL: Duration = Duration::from_millis(20);
/// The same of one that is frozen, and that is woken when the mode changes.
const FROZEN_PATROL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned::{Canned, answer};
    use crate::http::{self, Answer};

    struct Subject {
        server: Canned,
        proxy: Proxy,
    }

    impl Subject {
        fn new() -> Self {
            let server = Canned::answers([answer(200, &[], BODY)]);
            let proxy = Proxy::before(server.address());
            Self { server, proxy }
        }

        fn ask(&self) -> io::Result<Answer> {
            http::get(self.proxy.address(), "/")
        }

        /// A connection that is kept open, with one answer read from it.
        fn connected(&self) -> TcpStream {
            let mut stream = TcpStream::connect(self.proxy.address()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            ask_over(&mut stream);
            read_some(&mut stream).unwrap();
            stream
        }
    }

    fn ask_over(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    }

    /// Until the whole answer was read.
    fn read_some(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
        let (mut all, mut chunk) = (Vec::new(), [0; 1024]);
        while !all.ends_with(BODY) {
            let length = stream.read(&mut chunk)?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            all.extend_from_slice(&chunk[..length]);
        }
        Ok(all)
    }

    #[test]
    fn passes_and_counts() {
        let subject = Subject::new();
        for _ in 0..3 {
            assert_eq!(subject.ask().unwrap().body, BODY);
        }
        assert_eq!((subject.proxy.connections(), subject.server.requests().len()), (3, 3));
    }

    #[test]
    fn refuses_new_connections_and_closes_old_ones_until_it_passes_again() {
        let subject = Subject::new();
        let mut open = subject.connected();
        subject.proxy.set(Mode::Refuse);
        assert_eq!(subject.ask().unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(!is_timeout(&read_some(&mut open).unwrap_err()), "was closed");
        subject.proxy.set(Mode::Pass);
        assert_eq!(subject.ask().unwrap().body, BODY);
    }

    #[test]
    fn hangs_on_new_and_old_connections_and_flows_on() {
        let subject = Subject::new();
        let mut open = subject.connected();
        subject.proxy.set(Mode::Hang);
        ask_over(&mut open);
        let mut new = TcpStream::connect(subject.proxy.address()).unwrap();
        new.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        ask_over(&mut new);
        for stream in [&mut open, &mut new] {
            assert!(is_timeout(&read_some(stream).unwrap_err()), "is open and silent");
        }
        assert_eq!(subject.server.requests().len(), 1);
        subject.proxy.set(Mode::Pass);
        for stream in [&mut open, &mut new] {
            read_some(stream).unwrap();
        }
    }

    #[test]
    fn delays_answers() {
        let subject = Subject::new();
        subject.proxy.set(Mode::Delay(Duration::from_millis(200)));
        let begun = Instant::now();
        assert_eq!(subject.ask().unwrap().body, BODY);
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }

    #[test]
    fn garbles_answers_whole_or_their_body() {
        let subject = Subject::new();
        subject.proxy.set(Mode::Garble);
        assert_eq!(subject.ask().unwrap_err().kind(), ErrorKind::InvalidData);
        subject.proxy.set(Mode::GarbleBody);
        let garbled = subject.ask().unwrap();
        assert_eq!(garbled.body.len(), BODY.len());
        assert!(garbled.body[0] != BODY[0] && garbled.body[1] == BODY[1] && garbled.body[16] != BODY[16]);
    }

    #[test]
    fn the_body_of_an_answer_in_pieces_is_found() {
        let mut whole = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n".to_vec();
        let head = whole.len();
        whole.extend_from_slice(BODY);
        for size in 1..whole.len() {
            let (mut seen, mut at) = (Answered::default(), 0);
            for piece in whole.chunks(size) {
                let body = at + seen.body_in(piece);
                assert_eq!(body, head.clamp(at, at + piece.len()), "pieces of {size}");
                at += piece.len();
            }
        }
    }

    #[test]
    fn cuts_answers() {
        let subject = Subject::new();
        for limit in [0, 1, 30, 40] {
            subject.proxy.set(Mode::Cut(limit));
            assert_eq!(subject.ask().unwrap_err().kind(), ErrorKind::UnexpectedEof, "{limit}");
        }
        subject.proxy.set(Mode::Cut(1000));
        assert_eq!(subject.ask().unwrap().body, BODY);
    }

    #[test]
    fn answers_itself_on_new_and_old_connections() {
        let subject = Subject::new();
        let mut open = subject.connected();
        subject.proxy.set(Mode::Answer(answer(418, &[], BODY)));
        assert_eq!(subject.ask().unwrap().status, 418);
        ask_over(&mut open);
        assert!(read_some(&mut open).unwrap().starts_with(b"HTTP/1.1 418"));
        assert_eq!(subject.server.requests().len(), 1);
    }

    #[test]
    fn a_server_that_is_gone_closes_the_connection() {
        let mut subject = Subject::new();
        let gone = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        subject.proxy = Proxy::before(gone);
        subject.ask().unwrap_err();
    }

    const BODY: &[u8] = b"a body of more than sixteen bytes";
}
