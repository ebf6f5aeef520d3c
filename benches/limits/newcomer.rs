//! A client that comes to the attacked port while the attack lasts, again and again, from another address than the attacker's.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

use crate::bystander::{ATTACKED, CALM, Latency, STOP, go_before_the_attacker};
use crate::hostile::{Case, TLS, WEBSOCKETS};

const PACE: Duration = Duration::from_millis(20);
/// Who was not let in by then gives up.
const PATIENCE: Duration = Duration::from_secs(5);
const SOURCE: [u8; 4] = [127, 0, 0, 2];
/// CONNECT of MQTT 3.1.1 as `n`, and its CONNACK.
const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01n";
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

/// How long it took from the first SYN to CONNACK, and how often in vain.
pub struct Entries {
    pub latency: Latency,
    pub times: usize,
    pub failures: usize,
}

#[derive(Default)]
struct Tally {
    times: Vec<Duration>,
    failures: usize,
}

impl From<Tally> for Entries {
    fn from(tally: Tally) -> Self {
        let times = tally.times.len();
        let latency = Latency::of(if times == 0 { vec![PATIENCE] } else { tally.times });
        Self { latency, times, failures: tally.failures }
    }
}

pub struct Newcomer {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<[Tally; 2]>,
}

impl Newcomer {
    /// `certificate`: of the attacked listener, where it speaks TLS.
    pub fn start(case: &'static Case, port: u16, certificate: PathBuf) -> Self {
        let phase = Arc::new(AtomicU8::new(CALM));
        let shared = Arc::clone(&phase);
        Self { phase, thread: std::thread::spawn(move || come(case, port, &certificate, &shared)) }
    }

    pub fn attack_begins(&self) {
        self.phase.store(ATTACKED, Ordering::Relaxed);
    }

    /// Before the attack, and during it.
    pub fn stop(self) -> [Entries; 2] {
        self.phase.store(STOP, Ordering::Relaxed);
        self.thread.join().expect("it ran").map(Entries::from)
    }
}

fn come(case: &Case, port: u16, certificate: &PathBuf, phase: &AtomicU8) -> [Tally; 2] {
    go_before_the_attacker();
    let tls = (case.listener == TLS).then(|| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).expect("a certificate")).expect("a certificate");
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    });
    let mut tallies = [Tally::default(), Tally::default()];
    loop {
        let now = phase.load(Ordering::Relaxed);
        if now == STOP {
            return tallies;
        }
        let began = Instant::now();
        let tally = &mut tallies[usize::from(now)];
        match enter(port, tls.as_ref(), case.listener == WEBSOCKETS) {
            Ok(()) => tally.times.push(began.elapsed()),
            Err(_) => tally.failures += 1,
        }
        std::thread::sleep(PACE);
    }
}

fn enter(port: u16, tls: Option<&Arc<ClientConfig>>, is_websocket: bool) -> std::io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((SOURCE, 0)).into())?;
    socket.connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)).into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    if let Some(config) = tls {
        let client = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").expect("a name"));
        return greet(&mut StreamOwned::new(client.map_err(std::io::Error::other)?, stream));
    }
    if !is_websocket {
        return greet(&mut stream);
    }
    stream.write_all(UPGRADE)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    // A mask of zeros leaves the payload as it is.
    stream.write_all(&[&[0x82, 0x80 | CONNECT.len() as u8, 0, 0, 0, 0][..], CONNECT].concat())?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer)?;
    expect(answer[2..] == CONNACK)
}

fn greet(stream: &mut (impl std::io::Read + std::io::Write)) -> std::io::Result<()> {
    stream.write_all(CONNECT)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    expect(answer == CONNACK)
}

fn expect(is_in: bool) -> std::io::Result<()> {
    if is_in { Ok(()) } else { Err(std::io::Error::other("refused")) }
}
