//! An HTTP/1.1 server that says what it is told to say, and remembers what it was asked.

use std::fmt;
use std::fs;
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::http::{body_length, find, read_body, read_headers, read_line};

/// The server, on a port of its own. Ends when dropped.
pub struct Canned {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For example `POST`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// Without its transfer coding.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name, in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

type Answering = Box<dyn FnMut(&Request) -> Vec<u8> + Send>;

struct Shared {
    answer: Mutex<Answering>,
    requests: Mutex<Vec<Request>>,
    ended: AtomicBool,
}

impl Canned {
    /// Answers every request with the raw bytes that `answer` gives for it. No bytes: the connection is closed instead.
    #[must_use]
    pub fn serving(answer: impl FnMut(&Request) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("is bound");
        let shared = Arc::new(Shared {
            answer: Mutex::new(Box::new(answer)),
            requests: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&server)) else { continue };
                // A client that leaves in the middle is its own affair.
                thread::spawn(move || drop(shared.converse(stream)));
            }
        });
        Self { address, shared }
    }

    /// Answers the requests in their order with these; the last one also all that follow.
    ///
    /// # Panics
    /// Without any answer.
    #[must_use]
    pub fn answers(answers: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut left = answers.into_iter().collect::<Vec<_>>();
        left.reverse();
        assert!(!left.is_empty(), "an answer at least");
        Self::serving(move |_| if left.len() > 1 { left.pop().unwrap_or_default() } else { left[0].clone() })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn converse(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while !self.ended.load(Ordering::SeqCst) {
            let line = read_line(&mut reader)?;
            let mut words = line.split(' ').map(str::to_owned);
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let headers = read_headers(&mut reader)?;
            if find(&headers, "expect").is_some() {
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let length = body_length(&headers)?;
            let body = length.map_or(Ok(Vec::new()), |length| read_body(&mut reader, length))?;
            let request = Request { method, path, headers, body };
            self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
            let answer = (*self.answer.lock().unwrap_or_else(PoisonError::into_inner))(&request);
            writer.write_all(&answer)?;
            if !keeps_open(&answer) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether the client can tell where the answer ends without the end of the connection.
fn keeps_open(answer: &[u8]) -> bool {
    let mut reader = answer;
    let headers = read_line(&mut reader).and_then(|_| read_headers(&mut reader)).unwrap_or_default();
    let complete = match body_length(&headers) {
        Ok(Some(length)) => read_body(&mut reader, length).is_ok() && reader.is_empty(),
        _ => false,
    };
    complete && find(&headers, "connection") != Some("close")
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
    }
}

impl fmt::Debug for Canned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canned").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A well-formed answer with a `Content-Length`.
#[must_use]
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The answer in `tests/kms/fixtures/FOLDER/NAME.http`: a status line, headers, an empty line, the body.
///
/// Lines of the head may end with a mere line feed there, lines that begin with `#` before the status line tell where the
/// answer is from, one line feed at the body's end is the file's, and the length is counted here.
///
/// # Panics
/// When there is no such file, or it is no answer.
#[must_use]
pub fn fixture(folder: &str, name: &str) -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder).join(format!("{name}.http"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&bytes).unwrap_or_else(|| panic!("{} is no HTTP answer", path.display()))
}

fn parse(file: &[u8]) -> Option<Vec<u8>> {
    let mut reader = file;
    let mut status = read_line(&mut reader).ok()?;
    while status.starts_with('#') {
        status = read_line(&mut reader).ok()?;
    }
    let mut head = format!("{status}\r\n");
    loop {
        let line = read_line(&mut reader).ok()?;
        if line.is_empty() {
            break;
        }
        let name = line.split_once(':')?.0.to_lowercase();
        if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) {
            head += &format!("{line}\r\n");
        }
    }
    let body = reader.strip_suffix(b"\n").unwrap_or(reader);
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    status.starts_with("HTTP/1.1 ").then_some(bytes)
}

const IDLE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    #[test]
    fn answers_come_in_order_and_requests_are_remembered() {
        let canned = Canned::answers([answer(503, &[("X-Id", "7")], "one"), answer(200, &[], "two")]);
        let ask =
            |body: &str| http::call(canned.address(), "POST", "/a?b", &[("X-Test", "v")], body.as_bytes());
        let first = ask("x").unwrap();
        assert_eq!((first.status, first.header("x-id"), first.text()), (503, Some("7"), "one".to_owned()));
        assert_eq!(ask("{\"k\":1}").unwrap().text(), "two");
        assert_eq!(ask("z").unwrap().text(), "two");
        let requests = canned.requests();
        assert_eq!(requests.len(), 3);
        assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", "/a?b"));
        assert_eq!((requests[0].header("x-test"), requests[0].body.as_slice()), (Some("v"), &b"x"[..]));
        assert_eq!(requests[1].json()["k"], 1);
    }

    #[test]
    fn a_connection_is_kept_where_the_answer_says_its_length_and_closed_where_not() {
        use std::io::Read;
        let canned = Canned::answers([
            answer(200, &[], "1"),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\n\r\nthree".to_vec(),
        ]);
        let mut stream = TcpStream::connect(canned.address()).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n".repeat(3).as_slice()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("three") && text.matches("HTTP/1.1 200").count() == 3, "{text}");
    }

    #[test]
    fn a_fixture_becomes_the_bytes_of_an_answer() {
        let file = b"# from the service\nHTTP/1.1 403 Forbidden\nContent-Length: 99\nX: y\n\n{\"a\":1}\n";
        let expected = b"HTTP/1.1 403 Forbidden\r\nX: y\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
        assert_eq!(parse(file).unwrap(), expected);
        assert_eq!(
            parse(b"HTTP/1.1 503 Busy\n\n").unwrap(),
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        );
        for bad in [&b""[..], b"# only this\n", b"503 Busy\n\n", b"HTTP/1.1 503 Busy\nno header\n\n"] {
            assert_eq!(parse(bad), None);
        }
    }
}
