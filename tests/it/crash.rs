//! `kill -9` of the real broker under load, restarts by the supervisor, and the journals of a publisher and a subscriber, which must agree
//! with what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use darner::mqtt::codec::{Decoded, decode, encode};
use darner::mqtt::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions, SubscriptionRequest,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::process::{Folder, darner, free_port, wait_until};

/// Crashes under one supervisor, which would wait longer and longer before each restart.
const CRASHES_PER_SUPERVISOR: usize = 2;
const FLIGHTS_MAX: usize = 8;
const RETAINED_TOPICS: u64 = 4;

struct Wire {
    socket: TcpStream,
    incoming: Vec<u8>,
}

/// The connection is gone.
struct Gone;

impl Wire {
    fn connect(port: u16, client_id: &str, clean_start: bool) -> Result<(Self, bool), Gone> {
        let socket = TcpStream::connect(("127.0.0.1", port)).map_err(|_| Gone)?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(|_| Gone)?;
        let mut wire = Self { socket, incoming: Vec::new() };
        wire.send(&Packet::Connect(Box::new(Connect {
            version: ProtocolVersion::V311,
            bridge: false,
            clean_start,
            keep_alive: 0,
            properties: Vec::new(),
            client_id: client_id.to_owned(),
            will: None,
            username: None,
            password: None,
        })))?;
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if let Some(bytes) = wire.receive()? {
                return Ok((wire, bytes.get(2) == Some(&1)));
            }
        }
        Err(Gone)
    }

    fn send(&mut self, packet: &Packet<'_>) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        encode(packet, ProtocolVersion::V311, &mut bytes);
        self.socket.write_all(&bytes).map_err(|_| Gone)
    }

    /// `None`: nothing came for a moment.
    fn receive(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        let mut buffer = [0; 4096];
        loop {
            if let Ok(Decoded::Packet { len, .. }) = decode(&self.incoming, ProtocolVersion::V311, u32::MAX) {
                return Ok(Some(self.incoming.drain(..len).collect()));
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Gone),
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => return Ok(None),
                Err(_) => return Err(Gone),
            }
        }
    }

    fn subscribe(&mut self, filter: &str, qos: Qos) -> Result<(), Gone> {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let subscriptions = vec![SubscriptionRequest { filter: filter.to_owned(), options }];
        self.send(&Packet::Subscribe(Subscribe { packet_id: PacketId::MIN, properties: Vec::new(), subscriptions }))
    }
}

fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: Vec::new() }
}

/// What both sides have seen. Messages are numbered; every fifth is retained, the others go at QoS 1 and 2 in turn.
#[derive(Default)]
struct Journal {
    acknowledged: BTreeSet<u64>,
    retained: BTreeMap<String, u64>,
    /// Handed to the application: number → times.
    received: BTreeMap<u64, u32>,
    complaints: Vec<String>,
}

struct Flight {
    packet_id: PacketId,
    number: u64,
    released: bool,
}

fn topic_and_qos(number: u64) -> (String, Qos, bool) {
    if number.is_multiple_of(5) {
        (format!("r/{}", number / 5 % RETAINED_TOPICS), Qos::AtLeastOnce, true)
    } else if number.is_multiple_of(2) {
        ("q/2".to_owned(), Qos::ExactlyOnce, false)
    } else {
        ("q/1".to_owned(), Qos::AtLeastOnce, false)
    }
}

fn publish_one(wire: &mut Wire, flight: &Flight, dup: bool) -> Result<(), Gone> {
    if flight.released {
        return wire.send(&Packet::Pubrel(ack(flight.packet_id)));
    }
    let (topic, qos, retain) = topic_and_qos(flight.number);
    let payload = flight.number.to_string();
    let packet_id = Some(flight.packet_id);
    wire.send(&Packet::Publish(Publish { dup, qos, retain, topic: &topic, packet_id, properties: Vec::new(), payload: payload.as_bytes() }))
}

/// Publishes until told to stop and everything is acknowledged.
fn publisher(port: u16, journal: &Mutex<Journal>, stop: &AtomicBool) {
    let (mut flights, mut number): (VecDeque<Flight>, u64) = (VecDeque::new(), 0);
    while !(stop.load(Ordering::Relaxed) && flights.is_empty()) {
        let Ok((mut wire, _)) = Wire::connect(port, "publisher", false) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let _ = publish_on(&mut wire, &mut flights, &mut number, journal, stop);
    }
}

fn publish_on(
    wire: &mut Wire,
    flights: &mut VecDeque<Flight>,
    number: &mut u64,
    journal: &Mutex<Journal>,
    stop: &AtomicBool,
) -> Result<(), Gone> {
    for flight in flights.iter() {
        publish_one(wire, flight, true)?;
    }
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        while flights.len() < FLIGHTS_MAX && !stopping {
            *number += 1;
            let packet_id = PacketId::new((*number % 60_000) as u16 + 1).expect("not zero");
            let flight = Flight { packet_id, number: *number, released: false };
            let sent = publish_one(wire, &flight, false);
            flights.push_back(flight);
            sent?;
        }
        if flights.is_empty() {
            return Ok(());
        }
        let Some(bytes) = wire.receive()? else { continue };
        match decode(&bytes, ProtocolVersion::V311, u32::MAX) {
            Ok(Decoded::Packet { packet: Packet::Puback(ack) | Packet::Pubcomp(ack), .. }) => {
                if let Some(at) = flights.iter().position(|flight| flight.packet_id == ack.packet_id)
                    && let Some(flight) = flights.remove(at)
                {
                    let (topic, _, retain) = topic_and_qos(flight.number);
                    let mut journal = journal.lock().expect("a journal");
                    journal.acknowledged.insert(flight.number);
                    if retain {
                        journal.retained.insert(topic, flight.number);
                    }
                }
            }
            Ok(Decoded::Packet { packet: Packet::Pubrec(received), .. }) => {
                if let Some(flight) = flights.iter_mut().find(|flight| flight.packet_id == received.packet_id) {
                    flight.released = true;
                }
                wire.send(&Packet::Pubrel(ack(received.packet_id)))?;
            }
            _ => {}
        }
    }
}

/// Receives until told that it has everything.
fn subscriber(port: u16, journal: &Mutex<Journal>, done: &AtomicBool) {
    let mut unreleased = BTreeSet::new();
    while !done.load(Ordering::Relaxed) {
        let Ok((mut wire, present)) = Wire::connect(port, "subscriber", false) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        if !present {
            journal.lock().expect("a journal").complaints.push("the subscriber's session is lost".to_owned());
        }
        while !done.load(Ordering::Relaxed) && receive_on(&mut wire, &mut unreleased, journal).is_ok() {}
    }
}

fn receive_on(wire: &mut Wire, unreleased: &mut BTreeSet<PacketId>, journal: &Mutex<Journal>) -> Result<(), Gone> {
    let Some(bytes) = wire.receive()? else { return Ok(()) };
    match decode(&bytes, ProtocolVersion::V311, u32::MAX) {
        Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) => {
            let Some(packet_id) = publish.packet_id else { return Ok(()) };
            let is_exactly_once = publish.qos == Qos::ExactlyOnce;
            if !is_exactly_once || unreleased.insert(packet_id) {
                let number = number_of(publish.payload);
                *journal.lock().expect("a journal").received.entry(number).or_default() += 1;
            }
            wire.send(&if is_exactly_once { Packet::Pubrec(ack(packet_id)) } else { Packet::Puback(ack(packet_id)) })
        }
        Ok(Decoded::Packet { packet: Packet::Pubrel(released), .. }) => {
            unreleased.remove(&released.packet_id);
            wire.send(&Packet::Pubcomp(ack(released.packet_id)))
        }
        _ => Ok(()),
    }
}

fn number_of(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// No retained value is older than the last that was acknowledged before it was asked for.
fn check_retained(port: u16, journal: &Mutex<Journal>) -> Result<(), Gone> {
    let floor = journal.lock().expect("a journal").retained.clone();
    let (mut wire, _) = Wire::connect(port, "onlooker", true)?;
    wire.subscribe("r/#", Qos::AtMostOnce)?;
    wire.send(&Packet::Pingreq)?;
    let mut values = BTreeMap::new();
    loop {
        let Some(bytes) = wire.receive()? else { continue };
        match decode(&bytes, ProtocolVersion::V311, u32::MAX) {
            Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) => {
                values.entry(publish.topic.to_owned()).or_insert(number_of(publish.payload));
            }
            Ok(Decoded::Packet { packet: Packet::Pingresp, .. }) => break,
            _ => {}
        }
    }
    for (topic, number) in floor {
        let value = values.get(&topic).copied().unwrap_or(0);
        if value < number {
            let complaint = format!("{topic} has {value}, and {number} was acknowledged");
            journal.lock().expect("a journal").complaints.push(complaint);
        }
    }
    Ok(())
}

struct Supervisor(Child);

impl Supervisor {
    fn start(folder: &Folder, port: u16) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.path().join("log")).expect("a log");
        let mut command = Command::new(darner());
        command.arg("supervise").arg("-c").arg(folder.path().join("mosquitto.conf")).env("DARNER_RUN_DIR", folder.path().join("run"));
        let supervisor = Self(command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts"));
        wait_until("the broker", || Wire::connect(port, "first", true).is_ok());
        supervisor
    }

    fn broker(&self) -> Option<Pid> {
        let pid = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_ascii_whitespace().next()?.parse().ok().map(Pid::from_raw)
    }

    fn crash(&self) {
        let old = self.broker().expect("a broker");
        kill(old, Signal::SIGKILL).expect("it is there");
        wait_until("another broker", || self.broker().is_some_and(|new| new != old));
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Crashes the broker so many times; (acknowledged messages, complaints).
fn crash_rounds(rounds: usize) -> (usize, Vec<String>) {
    let folder = Folder::new("crash");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("permissions");
    let port = free_port();
    let location = folder.path().display();
    let conf = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {location}/\nmax_queued_messages 0\n"
    );
    folder.write("mosquitto.conf", conf);
    let (journal, stop, done) = (Mutex::new(Journal::default()), AtomicBool::new(false), AtomicBool::new(false));
    let mut supervisor = Supervisor::start(&folder, port);
    let Ok((mut wire, _)) = Wire::connect(port, "subscriber", false) else { panic!("no connection") };
    let subscribed = wire.subscribe("q/#", Qos::ExactlyOnce).and_then(|()| wire.receive());
    assert!(matches!(subscribed, Ok(Some(_))), "SUBACK");
    drop(wire);
    std::thread::scope(|scope| {
        scope.spawn(|| publisher(port, &journal, &stop));
        scope.spawn(|| subscriber(port, &journal, &done));
        for round in 0..rounds {
            // Not a wait for anything: the moment of the crash.
            std::thread::sleep(Duration::from_micros(5_000 + (round as u64 * 7_919) % 60_000));
            if round > 0 && round.is_multiple_of(CRASHES_PER_SUPERVISOR) {
                drop(std::mem::replace(&mut supervisor, Supervisor(Command::new("true").spawn().expect("a child"))));
                supervisor = Supervisor::start(&folder, port);
            }
            supervisor.crash();
            wait_until("an answer about retained messages", || check_retained(port, &journal).is_ok());
        }
        stop.store(true, Ordering::Relaxed);
        let end = Instant::now() + Duration::from_secs(20);
        let is_complete = || {
            let journal = journal.lock().expect("a journal");
            journal.acknowledged.iter().all(|number| number.is_multiple_of(5) || journal.received.contains_key(number))
        };
        let mut calm = 0;
        while Instant::now() < end && calm < 5 {
            std::thread::sleep(Duration::from_millis(100));
            calm = if is_complete() { calm + 1 } else { 0 };
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut journal = journal.into_inner().expect("a journal");
    for number in journal.acknowledged.iter().filter(|number| !number.is_multiple_of(5)) {
        if !journal.received.contains_key(number) {
            journal.complaints.push(format!("message {number} was acknowledged and never came"));
        }
    }
    for (number, times) in &journal.received {
        if topic_and_qos(*number).1 == Qos::ExactlyOnce && *times > 1 {
            journal.complaints.push(format!("message {number} of QoS 2 came {times} times"));
        }
    }
    (journal.acknowledged.len(), journal.complaints)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    // `make crash-proof` says 1,000.
    let rounds = std::env::var("CRASHES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(50);
    let began = Instant::now();
    let (acknowledged, complaints) = crash_rounds(rounds);
    println!("{rounds} crashes, {acknowledged} messages acknowledged, {} complaints, {:.0?}", complaints.len(), began.elapsed());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(acknowledged > rounds, "there was load: {acknowledged}");
}
