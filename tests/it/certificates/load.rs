//! A renewal while 200 clients publish over TLS: what it costs each of them.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::Running;
use super::tls_alpn_01::session;
use crate::acme_worker::pebble::Pebble;
use crate::support::process::free_port;

const CLIENTS: usize = 200;
/// Between two messages of a client.
const PAUSE: Duration = Duration::from_millis(150);
/// How long messages flow before the renewal, and after it.
const AROUND: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Counts {
    refused: AtomicUsize,
    /// Connections that ended before they were ready, and those that ended later.
    cut: AtomicUsize,
    ended: AtomicUsize,
    without_session: AtomicUsize,
    dialled: AtomicUsize,
    connected: AtomicUsize,
}

struct World {
    port: u16,
    counts: Counts,
    stop: AtomicBool,
    /// The end of the subscriber.
    hang_up: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
    received: Mutex<BTreeSet<String>>,
}

impl World {
    fn count(&self, of: impl Fn(&Counts) -> &AtomicUsize) -> usize {
        of(&self.counts).load(Ordering::SeqCst)
    }

    fn note(&self, of: impl Fn(&Counts) -> &AtomicUsize) {
        of(&self.counts).fetch_add(1, Ordering::SeqCst);
    }

    /// A connection over which TLS is ready; again until there is one.
    fn dial(&self) -> StreamOwned<ClientConnection, TcpStream> {
        loop {
            let mut tcp = match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(tcp) => tcp,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
                    self.note(|counts| &counts.refused);
                    continue;
                }
            };
            tcp.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
            tcp.set_nodelay(true).expect("no delay");
            let mut session = session(&["mqtt"]);
            while session.is_handshaking() {
                if session.complete_io(&mut tcp).is_err() {
                    break;
                }
            }
            if session.is_handshaking() {
                self.note(|counts| &counts.cut);
                continue;
            }
            return StreamOwned::new(session, tcp);
        }
    }
}

struct Client<'a> {
    world: &'a World,
    name: String,
    stream: StreamOwned<ClientConnection, TcpStream>,
    unread: Vec<u8>,
}

impl<'a> Client<'a> {
    /// With a session that outlives the connection; `is_known`: it is there.
    fn connect(world: &'a World, name: &str, is_known: bool) -> Self {
        loop {
            let mut client = Self { world, name: name.to_owned(), stream: world.dial(), unread: Vec::new() };
            let mut hello = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 60, 0, name.len() as u8];
            hello.extend(name.as_bytes());
            let answer = client.send(0x10, &hello).and_then(|()| client.packet());
            match answer {
                Ok(Some((0x20, body))) => {
                    assert_eq!(body.get(1), Some(&0), "{name} is let in");
                    if is_known && body.first() != Some(&1) {
                        world.note(|counts| &counts.without_session);
                    }
                    world.note(|counts| &counts.connected);
                    return client;
                }
                Ok(other) => panic!("{name}: {other:?}"),
                Err(_) => world.note(|counts| &counts.cut),
            }
        }
    }

    fn again(&mut self) {
        self.world.note(|counts| &counts.ended);
        let name = std::mem::take(&mut self.name);
        *self = Self::connect(self.world, &name, true);
    }

    fn send(&mut self, first: u8, body: &[u8]) -> std::io::Result<()> {
        let mut packet = vec![first];
        let mut left = body.len();
        while left > 127 {
            packet.push((left % 128) as u8 | 128);
            left /= 128;
        }
        packet.push(left as u8);
        packet.extend(body);
        self.stream.write_all(&packet)?;
        self.stream.flush()
    }

    /// The next packet; `None` when its time is over.
    fn packet(&mut self) -> std::io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some(packet) = self.whole() {
                return Ok(Some(packet));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.unread.extend(&buffer[..len]),
                Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn whole(&mut self) -> Option<(u8, Vec<u8>)> {
        let (mut len, mut at) = (0, 1);
        loop {
            let byte = *self.unread.get(at)?;
            len |= usize::from(byte & 127) << (7 * (at - 1));
            at += 1;
            if byte < 128 {
                break;
            }
        }
        (self.unread.len() >= at + len).then(|| {
            let packet: Vec<_> = self.unread.drain(..at + len).collect();
            (packet[0], packet[at..].to_vec())
        })
    }

    /// Sends a message until it is acknowledged.
    fn publish(&mut self, topic: &str, text: &str) {
        for attempt in 0.. {
            let mut body = vec![0, topic.len() as u8];
            body.extend(topic.as_bytes());
            body.extend([0, 1]);
            body.extend(text.as_bytes());
            let sent = self.send(if attempt == 0 { 0x32 } else { 0x3a }, &body);
            match sent.and_then(|()| self.packet()) {
                Ok(Some((0x40, _))) => return,
                Ok(other) => panic!("{}: {other:?}", self.name),
                Err(_) => self.again(),
            }
        }
    }
}

fn publish(world: &World, nth: usize) {
    let mut client = Client::connect(world, &format!("publisher-{nth}"), false);
    let topic = format!("load/{nth}");
    let mut number = 0;
    while !world.stop.load(Ordering::SeqCst) {
        let text = format!("{nth}:{number}");
        client.publish(&topic, &text);
        world.acknowledged.lock().expect("the numbers").insert(text);
        number += 1;
        std::thread::sleep(PAUSE);
    }
}

fn subscribe(world: &World, is_ready: &AtomicBool) {
    let mut client = Client::connect(world, "subscriber", false);
    client.send(0x82, &[0, 1, 0, 6, b'l', b'o', b'a', b'd', b'/', b'#', 1]).expect("sent");
    assert_eq!(client.packet().expect("SUBACK"), Some((0x90, vec![0, 1, 1])));
    is_ready.store(true, Ordering::SeqCst);
    let short = |client: &Client<'_>| client.stream.sock.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    short(&client);
    while !world.hang_up.load(Ordering::SeqCst) {
        let packet = match client.packet() {
            Ok(None) => continue,
            Ok(Some(packet)) => packet,
            Err(_) => {
                client.again();
                short(&client);
                continue;
            }
        };
        assert_eq!(packet.0 & 0xf6, 0x32, "a message of QoS 1");
        let len = usize::from(packet.1[0]) << 8 | usize::from(packet.1[1]);
        let id = [packet.1[2 + len], packet.1[3 + len]];
        world.received.lock().expect("the numbers").insert(String::from_utf8_lossy(&packet.1[4 + len..]).into_owned());
        if client.send(0x40, &id).is_err() {
            client.again();
            short(&client);
        }
    }
}

/// Somebody new, again and again.
fn knock(world: &World) {
    while !world.stop.load(Ordering::SeqCst) {
        drop(world.dial());
        world.note(|counts| &counts.dialled);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the load, renews in the middle of it, and waits until all that was acknowledged has arrived.
fn renew_under_load(renewal: &'static str) -> (Arc<World>, Running) {
    let ca = Pebble::start(&serde_json::json!({}), &[]);
    let environment = ca.environment();
    let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.push(("RENEWAL", renewal));
    more.push(("DOMAIN", "mqtt.test"));
    let mut running = Running::on(free_port(), &more);
    let conf = std::fs::read_to_string(running.folder.path().join("mosquitto.conf")).expect("the configuration");
    let data = running.folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    running.folder.write(
        "mosquitto.conf",
        format!(
            "persistence true\npersistence_location {}/\nmax_queued_messages 0\nlog_type error\nlog_type notice\n{conf}",
            data.display()
        ),
    );
    running.start();
    running.wait_for("the certificate's use", |running| {
        let chain = std::fs::read(running.live("fullchain.pem")).unwrap_or_default();
        !chain.is_empty() && running.serves(&darner::acme::lineage::Pair { privkey: Vec::new(), fullchain: chain })
    });
    running.wait_for("readiness", |running| running.darner(&["status"]).1.contains("ready     for"));
    let before = running.served();
    let world = Arc::new(World {
        port: running.tls_port,
        counts: Counts::default(),
        stop: AtomicBool::new(false),
        hang_up: AtomicBool::new(false),
        acknowledged: Mutex::default(),
        received: Mutex::default(),
    });
    let is_ready = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| subscribe(&world, &is_ready));
        running.wait_for("the subscriber", |_| is_ready.load(Ordering::SeqCst));
        let publish = |nth| {
            let world = &world;
            scope.spawn(move || publish(world, nth))
        };
        let publishers: Vec<_> = (0..CLIENTS).map(publish).collect();
        running.wait_for("all clients", |_| world.count(|counts| &counts.connected) > CLIENTS);
        scope.spawn(|| knock(&world));
        std::thread::sleep(AROUND);
        let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        running.wait_for("the new certificate", |running| ![String::new(), before.clone()].contains(&running.served()));
        std::thread::sleep(AROUND);
        world.stop.store(true, Ordering::SeqCst);
        for publisher in publishers {
            publisher.join().expect("it ends well");
        }
        let end = Instant::now() + Duration::from_secs(20);
        let is_complete = || {
            let (acknowledged, received) = (world.acknowledged.lock().expect("numbers"), world.received.lock().expect("numbers"));
            acknowledged.is_subset(&received) && acknowledged.len() >= CLIENTS
        };
        while Instant::now() < end && !is_complete() {
            std::thread::sleep(Duration::from_millis(100));
        }
        world.hang_up.store(true, Ordering::SeqCst);
    });
    let (acknowledged, received) = (world.acknowledged.lock().expect("numbers").clone(), world.received.lock().expect("numbers").clone());
    let lost: Vec<_> = acknowledged.difference(&received).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {:?}", lost.len(), acknowledged.len(), lost.iter().take(5).collect::<Vec<_>>());
    assert!(acknowledged.len() > CLIENTS * 5, "{} messages", acknowledged.len());
    assert!(world.count(|counts| &counts.dialled) > 10);
    (world, running)
}

#[test]
fn a_renewal_by_restart_refuses_nobody_and_loses_nothing() {
    let (world, running) = renew_under_load("restart");
    assert_eq!(world.count(|counts| &counts.refused), 0, "{}", running.log());
    assert_eq!(world.count(|counts| &counts.without_session), 0, "{}", running.log());
    assert_eq!(world.count(|counts| &counts.ended), CLIENTS + 1, "each connection ends once: {}", running.log());
}

#[test]
fn a_renewal_by_reload_ends_no_connection() {
    let (world, running) = renew_under_load("reload");
    let counts = [
        world.count(|counts| &counts.refused),
        world.count(|counts| &counts.cut),
        world.count(|counts| &counts.ended),
        world.count(|counts| &counts.connected),
    ];
    assert_eq!(counts, [0, 0, 0, CLIENTS + 1], "{}", running.log());
}
