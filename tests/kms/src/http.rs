//! HTTP/1.1 of one request and one answer: for the administrator's calls of a test, and for reading what a real server
//! answers to the byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// For example 200.
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// Without its transfer coding.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// `GET` without more.
///
/// # Errors
/// Of the connection, or of the answer's form.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    call(address, "GET", path, &[], b"")
}

/// One request over a connection of its own.
///
/// # Errors
/// Of the connection, or of the answer's form.
pub fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    stream.write_all(&request)?;

    let mut reader = BufReader::new(stream);
    let line = read_line(&mut reader)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| invalid(&format!("not an answer: {line:?}")))?;
    let headers = read_headers(&mut reader)?;
    let mut body = Vec::new();
    match body_length(&headers)? {
        Some(length) => body = read_body(&mut reader, length)?,
        None => drop(reader.read_to_end(&mut body)?),
    }
    Ok(Answer { status, headers, body })
}

/// How the body of a message ends, where its headers say it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Bytes(usize),
    Chunked,
}

pub(crate) fn body_length(headers: &[(String, String)]) -> io::Result<Option<Length>> {
    if find(headers, "transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        return Ok(Some(Length::Chunked));
    }
    let length = find(headers, "content-length").map(str::parse).transpose();
    Ok(length.map_err(|_| invalid("a content length"))?.map(Length::Bytes))
}

pub(crate) fn read_headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&format!("a header: {line:?}")))?;
        headers.push((name.trim().to_lowercase(), value.trim().to_owned()));
    }
}

pub(crate) fn read_body(reader: &mut impl BufRead, length: Length) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match length {
        Length::Bytes(bytes) => {
            body.resize(bytes, 0);
            reader.read_exact(&mut body)?;
        }
        Length::Chunked => loop {
            let line = read_line(reader)?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
            let size = size.map_err(|_| invalid("a chunk's size"))?;
            let begin = body.len();
            body.resize(begin + size, 0);
            reader.read_exact(&mut body[begin..])?;
            read_line(reader)?;
            if size == 0 {
                break;
            }
        },
    }
    Ok(body)
}

/// Without its end; an end of the stream before that is an error.
pub(crate) fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| invalid("not text"))
}

pub(crate) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Long: these calls change the truth that a test holds us to, and a server whose disk is busy may take its time.
const TIMEOUT: Duration = Duration::from_secs(60);
