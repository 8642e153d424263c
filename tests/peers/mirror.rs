//! An app that shows what reached it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Answers each request, one a connection, with its header lines as a JSON list. Bodies are not read.
pub fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = BufReader::new(stream.unwrap());
            thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: BufReader<TcpStream>) {
    let lines: Vec<String> = stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let body = serde_json::to_string(&lines).unwrap();
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close", body.len());
    // A peer that only looked whether somebody listens is gone by now.
    let _ = write!(stream.get_mut(), "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
}
