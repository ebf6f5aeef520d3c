//! Runner B: the real binary over TCP.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::play::{Received, Runner};
use super::script::Script;
use crate::support::process::{Broker, Folder};

const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: [u8; 2] = [0xd0, 0];
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Socket {
    broker: Broker,
    clients: HashMap<String, Stream>,
}

struct Stream {
    socket: TcpStream,
    /// Read while a PINGRESP was awaited.
    read: Vec<u8>,
    closed: bool,
}

impl Stream {
    /// `false` when nothing came.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(len @ 1..) => self.read.extend_from_slice(&buffer[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Ok(_) | Err(_) => self.closed = true,
        }
        true
    }

    /// Sends a PINGREQ and reads up to its PINGRESP: the broker has then done what it was sent before.
    fn settle(&mut self) {
        if self.socket.write_all(&PINGREQ).is_err() {
            return;
        }
        while !self.closed {
            if let Some(at) = last_packet(&self.read).filter(|&at| self.read[at..] == PINGRESP) {
                self.read.truncate(at);
                return;
            }
            assert!(self.read(), "no PINGRESP");
        }
    }
}

/// Where the last whole packet begins, if the bytes end with it.
fn last_packet(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let mut len = 0;
        let mut header = 1;
        loop {
            let byte = *bytes.get(at + header)?;
            len |= usize::from(byte & 0x7f) << (7 * (header - 1));
            header += 1;
            if byte < 0x80 {
                break;
            }
        }
        let end = at + header + len;
        if end == bytes.len() {
            return Some(at);
        }
        at = end;
    }
}

impl Socket {
    pub fn start(script: &Script) -> Self {
        let folder = Folder::new("conversation");
        let path = folder.path().display().to_string();
        for (name, content) in &script.files {
            folder.write(name, content.replace("{folder}", &path));
        }
        Self { broker: Broker::start_in(folder, &script.conf), clients: HashMap::new() }
    }

    fn stream(&mut self, client: &str) -> &mut Stream {
        self.clients.get_mut(client).expect("a client that connected")
    }
}

impl Runner for Socket {
    fn open(&mut self, client: &str) {
        let socket = TcpStream::connect(("127.0.0.1", self.broker.port)).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_nodelay(true).expect("no delay");
        self.clients.insert(client.to_owned(), Stream { socket, read: Vec::new(), closed: false });
    }

    fn send(&mut self, client: &str, bytes: &[u8], settle: bool) {
        let stream = self.stream(client);
        // A broker that has closed is found out by what is expected next.
        if stream.socket.write_all(bytes).is_ok() && settle {
            stream.settle();
        }
    }

    fn close(&mut self, client: &str) {
        let stream = self.stream(client);
        let _ = stream.socket.shutdown(Shutdown::Write);
        while !stream.closed {
            assert!(stream.read(), "the broker does not close");
        }
    }

    fn receive(&mut self, client: &str) -> Received {
        let stream = self.stream(client);
        if stream.read.is_empty() && !stream.closed && !stream.read() {
            return Received::Nothing;
        }
        if stream.read.is_empty() { Received::Closed } else { Received::Bytes(std::mem::take(&mut stream.read)) }
    }

    fn receive_rest(&mut self, client: &str) -> Vec<u8> {
        let stream = self.stream(client);
        stream.settle();
        std::mem::take(&mut stream.read)
    }

    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn log(&self) -> String {
        self.broker.log()
    }
}
