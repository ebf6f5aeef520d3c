//! Runner B: the real binary over TCP.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::play::{Received, Runner};
use super::script::Script;
use crate::support::process::{Broker, Engine, Folder, darner};

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

    /// Sends a PINGREQ and reads until its PINGRESP: the broker has then done what it was sent before.
    fn settle(&mut self) {
        let before = answers(&self.read).len();
        if self.socket.write_all(&PINGREQ).is_err() {
            return;
        }
        while !self.closed {
            let found = answers(&self.read);
            if let Some(at) = found.last().filter(|_| found.len() > before) {
                self.read.drain(*at..at + PINGRESP.len());
                return;
            }
            assert!(self.read(), "no PINGRESP");
        }
    }
}

/// Where the whole packets begin that are a PINGRESP.
fn answers(bytes: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(len) = packet_len(&bytes[at..]).filter(|len| at + len <= bytes.len()) {
        if bytes[at..at + len] == PINGRESP {
            found.push(at);
        }
        at += len;
    }
    found
}

fn packet_len(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    let mut header = 1;
    loop {
        let byte = *bytes.get(header)?;
        len |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte < 0x80 {
            return Some(header + len);
        }
    }
}

impl Socket {
    pub fn start(engine: Engine, script: &Script) -> Self {
        let folder = Folder::new("conversation");
        engine.choose(&folder);
        let path = folder.path().display().to_string();
        for (name, content) in &script.files {
            folder.write(name, content.replace("{folder}", &path));
        }
        let mut command = Command::new(darner());
        // So that a PINGRESP says of a message that came through the router, too, that it has come.
        command.env("DARNER_TEST_ROUTER_AWAITED", "1");
        Self { broker: Broker::start_with(command, folder, &script.conf), clients: HashMap::new() }
    }

    /// Everything that was sent to the broker has had its effects.
    fn settle(&mut self, client: &str) {
        self.stream(client).settle();
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
        // A broker that has closed is found out by what is expected next.
        if self.stream(client).socket.write_all(bytes).is_ok() && settle {
            self.settle(client);
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
        self.settle(client);
        std::mem::take(&mut self.stream(client).read)
    }

    fn wait(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn log(&self) -> String {
        self.broker.log()
    }
}
