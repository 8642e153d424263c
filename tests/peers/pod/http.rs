//! As much of HTTP/1.1 as callers, apps and the kubelet need.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::waiting::PATIENCE;

/// A connection that is kept.
pub struct Connection(BufReader<TcpStream>);

pub struct Answer {
    pub status: u16,
    pub closes: bool,
    pub body: String,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub fn exchange(&mut self, line: &str, headers: &str) -> io::Result<Answer> {
        let text = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
        self.0.get_mut().write_all(text.as_bytes())?;
        let head = head(&mut self.0);
        let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer: {head:?}")))?;
        let header =
            |name: &str| head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|value| value.trim().to_owned()));
        let length = header("content-length:").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, closes: header("connection:").is_some_and(|value| value == "close"), body })
    }
}

pub fn head(stream: &mut impl BufRead) -> Vec<String> {
    stream.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect()
}

/// The status, on a connection of its own; 0 without an answer.
pub fn ask(address: SocketAddr, line: &str, headers: &str) -> u16 {
    Connection::open(address).and_then(|mut connection| connection.exchange(line, headers)).map_or(0, |answer| answer.status)
}
