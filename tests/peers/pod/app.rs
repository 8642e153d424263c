//! An app in a pod, or a platform outside.

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use super::http::head;
use super::network::{Cluster, PodNetwork};
use super::waiting::Shared;

/// It has a port before it listens on it, as in a pod.
pub struct App {
    socket: Option<Socket>,
    pub address: SocketAddr,
    pub state: Arc<Shared<AppState>>,
    network: Option<Arc<PodNetwork>>,
}

#[derive(Default)]
pub struct AppState {
    /// When they came, and with which head.
    pub seen: Vec<(Instant, Vec<String>)>,
    open: usize,
    told_to_end: bool,
    ended: bool,
}

impl App {
    /// In a pod: on loopback, so that nobody comes past the sidecar. Where pods share a network, on some other port.
    pub fn of(network: &Arc<PodNetwork>, port: u16) -> Self {
        let port = if network.is_own() { port } else { 0 };
        let socket = network.within(|| bound(Ipv4Addr::LOCALHOST, port));
        Self { network: Some(Arc::clone(network)), ..Self::with(socket) }
    }

    /// Outside.
    pub fn platform(cluster: &Cluster) -> Self {
        let mut platform = Self::with(bound(cluster.node(), 0));
        platform.start();
        platform
    }

    fn with(socket: Socket) -> Self {
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket: Some(socket), address, state: Arc::default(), network: None }
    }

    pub fn start(&mut self) {
        let socket = self.socket.take().unwrap();
        socket.listen(1024).unwrap();
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            for stream in TcpListener::from(socket).incoming() {
                if state.change(|state| {
                    state.open += usize::from(!state.told_to_end);
                    state.told_to_end
                }) {
                    break;
                }
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    answer(BufReader::new(stream.unwrap()), &state);
                    state.change(|state| state.open -= 1);
                });
            }
            state.until("the app's last answer", |state| state.open == 0);
            state.change(|state| state.ended = true);
        });
    }

    /// As SIGTERM to an app that finishes what it has.
    pub fn end(&self) {
        self.state.change(|state| state.told_to_end = true);
        // So that it looks.
        let look = || drop(TcpStream::connect(self.address));
        self.network.as_ref().map_or_else(look, |network| network.within(look));
        self.state.until("the app's end", |state| state.ended);
    }

    /// Waits until a request for this path has come.
    pub fn has_seen(&self, path: &str) {
        self.state.until(path, |state| state.seen.iter().any(|(_, head)| head[0].contains(path)));
    }

    /// The tokens that came, one after another, each once.
    pub fn tokens(&self) -> Vec<String> {
        let token = |head: &Vec<String>| {
            head.iter().find_map(|line| line.to_ascii_lowercase().starts_with("authorization: bearer ").then(|| line[22..].to_owned()))
        };
        let mut tokens: Vec<String> = self.state.lock().seen.iter().map(|(_, head)| token(head).unwrap()).collect();
        tokens.dedup();
        tokens
    }
}

fn bound(address: Ipv4Addr, port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, port)).into()).unwrap();
    socket
}

/// `/slow` is answered once the app is told to end, `/stuck` never.
fn answer(mut stream: BufReader<TcpStream>, state: &Shared<AppState>) {
    let head = head(&mut stream);
    let asks = |path: &str| head.first().is_some_and(|line| line.contains(path));
    let (slow, stuck) = (asks("/slow"), asks("/stuck"));
    state.change(|state| state.seen.push((Instant::now(), head)));
    if slow {
        state.until("the app is told to end", |state| state.told_to_end);
    }
    if stuck {
        let _ = stream.read(&mut [0]);
        return;
    }
    let _ = write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
}
