//! The machine's records and its durable state: what they add up to, what is made of it after a restart, and what is held back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use darner::broker::{Broker, ConnectionId, Effect, Input, Origin, Outbox, Place, Record, SecurityTables, Settings, ShardId, State, Time};
use darner::conf::Conf;
use darner::mqtt::codec::{self, Decoded};
use darner::mqtt::{
    Ack, Connect, Disconnect, Packet, PacketId, Properties, Property, ProtocolVersion, Publish, Qos, ReasonCode, Subscribe,
    SubscriptionOptions, SubscriptionRequest, Unsubscribe, Will,
};

use darner::store::{Journal, Level, Options, Store as _};

use crate::support::process::Folder;
use crate::support::random::Random;

fn qos(random: &mut Random) -> Qos {
    *random.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

/// One packet that the machine sent, and the record it waits for.
struct Sent {
    client: usize,
    packet: Vec<u8>,
}

/// A machine, and the state that its records add up to.
struct Bench {
    settings: Settings,
    broker: Broker,
    state: State,
    now: Time,
    records: u64,
    /// Records since somebody took them.
    batch: Vec<Record>,
    /// A second state that is made of pieces of the first and of what changes meanwhile, and how far it is.
    copy: State,
    place: Place,
    sent: Vec<Sent>,
    /// Client → connection and version.
    connected: Vec<Option<(ConnectionId, ProtocolVersion)>>,
    connections: u32,
}

const CLIENTS: usize = 4;

fn settings() -> Settings {
    let mut conf = Conf::default();
    conf.persistence.enabled = true;
    conf.queue_qos0_messages = true;
    conf.sys_interval_secs = 0;
    conf.limits.inflight_messages = Some(3);
    let listener = darner::conf::Listener { max_topic_alias: 0, ..darner::conf::Listener::default() };
    conf.listeners = vec![listener];
    conf.security = vec![darner::conf::Security { allow_anonymous: true, ..darner::conf::Security::default() }];
    Settings { conf: Arc::new(conf), security: Arc::new([SecurityTables::default()]) }
}

fn id(value: u64) -> PacketId {
    PacketId::new(value as u16).expect("not zero")
}

impl Bench {
    fn new() -> Self {
        let settings = settings();
        let broker = Broker::new(ShardId(0), 1, settings.clone(), 1);
        let state = State::default();
        Self {
            settings,
            broker,
            state,
            now: Time(1),
            records: 0,
            batch: Vec::new(),
            copy: State::default(),
            place: Place::default(),
            sent: Vec::new(),
            connected: vec![None; CLIENTS],
            connections: 0,
        }
    }

    fn perform(&mut self, out: &Outbox) {
        for effect in &out.effects {
            match effect {
                Effect::Persist(record) => {
                    self.records += 1;
                    self.state.apply(record.clone());
                    self.batch.push(record.clone());
                    self.copy.apply(record.clone());
                }
                Effect::Send { connection, start, end, packet_id } => {
                    let mut packet = out.bytes(*start, *end).to_vec();
                    if let Some((at, id)) = packet_id {
                        packet[*at as usize..*at as usize + 2].copy_from_slice(&id.get().to_be_bytes());
                    }
                    let of = |entry: &Option<(ConnectionId, ProtocolVersion)>| entry.is_some_and(|(id, _)| id == *connection);
                    if let Some(client) = self.connected.iter().position(of) {
                        self.sent.push(Sent { client, packet });
                    }
                }
                Effect::Close { connection } => {
                    for entry in &mut self.connected {
                        *entry = entry.filter(|(id, _)| id != connection);
                    }
                }
                _ => {}
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let mut out = Outbox::default();
        self.broker.handle(self.now, input, &mut out);
        self.perform(&out);
    }

    fn packet(&mut self, client: usize, packet: Packet<'_>) {
        if let Some((connection, _)) = self.connected[client] {
            self.input(Input::Packet { connection, packet, len: 0 });
        }
    }

    fn open(&mut self, client: usize, version: ProtocolVersion) -> ConnectionId {
        let connection = ConnectionId::new(self.connections, 1);
        self.connections += 1;
        self.input(Input::Opened { connection, origin: Origin::Listener(0), peer: String::new(), certificate_user: None });
        // A connection that is taken over gets its `Close` only afterwards, by its own number.
        self.connected[client] = Some((connection, version));
        connection
    }

    fn connect(&mut self, client: usize, clean_start: bool, expiry: u32, will: Option<Will>) {
        let version = if client.is_multiple_of(2) { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        self.open(client, version);
        let v5 = version == ProtocolVersion::V5;
        let properties = if v5 && expiry > 0 { vec![Property::SessionExpiryInterval(expiry)] } else { Properties::new() };
        let connect = Connect {
            version,
            bridge: false,
            clean_start,
            keep_alive: 0,
            properties,
            client_id: format!("client{client}"),
            will,
            username: None,
            password: None,
        };
        self.packet(client, Packet::Connect(Box::new(connect)));
    }

    fn subscribe(&mut self, client: usize, filter: &str, qos: Qos) {
        let request =
            SubscriptionRequest { filter: filter.to_owned(), options: SubscriptionOptions { qos, ..SubscriptionOptions::default() } };
        self.packet(client, Packet::Subscribe(Subscribe { packet_id: id(1), properties: Properties::new(), subscriptions: vec![request] }));
    }

    fn publish(&mut self, client: usize, (topic, payload): (&str, &str), qos: Qos, retain: bool, packet_id: u64, properties: Properties) {
        let publish = Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id: (qos != Qos::AtMostOnce).then(|| id(packet_id)),
            properties,
            payload: payload.as_bytes(),
        };
        self.packet(client, Packet::Publish(publish));
    }

    /// A client answers one packet of those it got.
    fn answer(&mut self, random: &mut Random) {
        if self.sent.is_empty() {
            return;
        }
        let Sent { client, packet } = self.sent.swap_remove(random.below(self.sent.len()));
        let Some((_, version)) = self.connected[client] else { return };
        let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: Properties::new() };
        let answer = match codec::decode(&packet, version, u32::MAX) {
            Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) => match (publish.qos, publish.packet_id) {
                (Qos::AtLeastOnce, Some(id)) => Packet::Puback(ack(id)),
                (Qos::ExactlyOnce, Some(id)) => Packet::Pubrec(ack(id)),
                _ => return,
            },
            Ok(Decoded::Packet { packet: Packet::Pubrel(release), .. }) => Packet::Pubcomp(ack(release.packet_id)),
            Ok(Decoded::Packet { packet: Packet::Pubrec(received), .. }) => Packet::Pubrel(ack(received.packet_id)),
            _ => return,
        };
        self.packet(client, answer);
    }

    fn step(&mut self, random: &mut Random, n: u64) {
        let client = random.below(CLIENTS);
        let topic = ["a", "b", "a/c", "will"][random.below(4)];
        match random.below(20) {
            0 | 1 => {
                let delay = random.below(3) as u32 * 50;
                let properties = if client.is_multiple_of(2) { vec![Property::WillDelayInterval(delay)] } else { Vec::new() };
                let will = Will { topic: "will".into(), payload: b"gone".to_vec(), qos: qos(random), retain: random.one_in(2), properties };
                let expiry = [0, 60, u32::MAX][random.below(3)];
                self.connect(client, random.one_in(3), expiry, random.one_in(2).then_some(will));
            }
            2 => {
                if let Some((connection, _)) = self.connected[client].take() {
                    self.input(Input::Closed { connection, error: None });
                }
            }
            3 => {
                let v5 = client.is_multiple_of(2);
                let properties = if v5 && random.one_in(3) { vec![Property::SessionExpiryInterval(0)] } else { Vec::new() };
                self.packet(client, Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties }));
            }
            4..=6 => self.subscribe(client, ["a", "a/#", "+", "$share/s/b"][random.below(4)], qos(random)),
            7 => {
                let unsubscribe = Unsubscribe { packet_id: id(2), properties: Vec::new(), filters: vec!["a".into()] };
                self.packet(client, Packet::Unsubscribe(unsubscribe));
            }
            8..=13 => {
                let expiry = client.is_multiple_of(2) && random.one_in(4);
                let properties = if expiry { vec![Property::MessageExpiryInterval(20)] } else { Vec::new() };
                let payload = if random.one_in(8) { String::new() } else { n.to_string() };
                self.publish(client, (topic, &payload), qos(random), random.one_in(3), 10 + random.below(5) as u64, properties);
            }
            14 => {
                self.now = Time(self.now.0 + random.below(40_000) as u64);
                while self.broker.next_deadline().is_some_and(|at| at <= self.now) {
                    self.input(Input::DeadlineReached);
                }
            }
            _ => self.answer(random),
        }
    }

    /// The process ends, and the next one begins with what was kept.
    fn restart(&mut self) {
        let mut out = Outbox::default();
        let mut state = State::default();
        self.state.each_record(|record| state.apply(record));
        assert!(state == self.state, "a state's own records add up to it");
        self.connected = vec![None; CLIENTS];
        self.sent.clear();
        self.broker = Broker::restore((ShardId(0), 1), self.settings.clone(), 1, state, self.now, &mut out);
        self.records = 0;
        self.perform(&out);
    }

    fn check(&self, seed: u64, n: u64) {
        let own = self.broker.durable_state();
        for (name, session) in &own.sessions {
            assert_eq!(self.state.sessions.get(name), Some(session), "seed {seed}, step {n}: the session of {name}");
        }
        assert!(self.state == own, "seed {seed}, step {n}: records say {:#?}, the machine says {own:#?}", self.state);
    }
}

#[test]
fn a_copy_in_pieces_is_whole_though_the_state_changes_between_them() {
    let mut whole = 0;
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut bench = Bench::new();
        for n in 0..400 {
            bench.step(&mut random, n);
            if bench.place != Place::End && random.one_in(4) {
                let (mut left, copy) = (random.below(3), &mut bench.copy);
                bench.state.records_from(&mut bench.place, |record| {
                    copy.apply(record);
                    left = left.saturating_sub(1);
                    left > 0
                });
            }
            if bench.place == Place::End {
                assert!(bench.copy == bench.state, "seed {seed}, step {n}: {:#?}, copied {:#?}", bench.state, bench.copy);
            }
            if bench.place == Place::End && random.one_in(10) {
                (bench.copy, bench.place) = (State::default(), Place::default());
                whole += 1;
            }
        }
    }
    assert!(whole > 300, "{whole} copies came to their end");
}

#[test]
fn records_add_up_to_the_machines_own_durable_state_across_restarts() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut bench = Bench::new();
        for n in 0..400 {
            bench.step(&mut random, n);
            bench.check(seed, n);
            if random.one_in(40) {
                bench.restart();
                bench.check(seed, n);
            }
        }
    }
}

/// A folder in memory where there is one: thousands of files are written.
fn folder() -> Folder {
    let in_memory = Path::new("/dev/shm");
    if !in_memory.is_dir() {
        return Folder::new("durable");
    }
    let path = in_memory.join(format!("darner-durable-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&path).expect("a folder");
    Folder(path)
}

/// The broker's own store, and word of its progress.
fn open(path: PathBuf) -> (Journal, State, Receiver<()>) {
    let (bell, heard) = channel();
    let options = Options { path, level: Level::Process, autosave_interval_secs: 0, autosave_on_changes: false, zero: 0, import: None };
    let (journal, state) = Journal::open(options, Box::new(|_| ()), Box::new(move || bell.send(()).unwrap_or_default()));
    (journal, state, heard)
}

/// Makes what the machine recorded a batch of its own, and waits for it.
fn keep(bench: &mut Bench, journal: &mut Journal, heard: &Receiver<()>, count: &mut u64) {
    for record in std::mem::take(&mut bench.batch) {
        journal.append(record);
        *count += 1;
    }
    journal.commit(true);
    while journal.progress().stored < *count {
        heard.recv_timeout(Duration::from_secs(10)).expect("the store gets on");
    }
}

/// Without the Packet Identifier given out last: those of messages that came and were done with in one batch are free again, and are not
/// written.
fn sans_last_ids(state: &State) -> State {
    let mut state = state.clone();
    for session in state.sessions.values_mut() {
        session.last_packet_id = None;
    }
    state
}

#[test]
fn what_is_written_of_the_machines_records_adds_up_to_the_same() {
    let folder = folder();
    for seed in 0..60 {
        let path = folder.path().join(format!("store-{seed}"));
        let mut random = Random::new(seed);
        let mut bench = Bench::new();
        for part in 0..3 {
            let (mut journal, state, heard) = open(path.clone());
            assert!(sans_last_ids(&state) == sans_last_ids(&bench.state), "seed {seed}, part {part}");
            let mut count = 0;
            for n in 0..150 {
                bench.step(&mut random, n);
                if random.one_in(10) {
                    keep(&mut bench, &mut journal, &heard, &mut count);
                }
            }
            keep(&mut bench, &mut journal, &heard, &mut count);
            journal.close();
        }
        let (mut journal, state, _) = open(path);
        assert!(sans_last_ids(&state) == sans_last_ids(&bench.state), "seed {seed}: {state:#?} instead of {:#?}", bench.state);
        journal.close();
    }
}

#[test]
fn a_file_that_is_cut_off_or_blank_from_any_byte_on_is_what_its_whole_batches_add_up_to() {
    let folder = folder();
    let path = folder.path().join("store");
    let mut random = Random::new(7);
    let mut bench = Bench::new();
    let (mut journal, _, heard) = open(path.clone());
    let len = || std::fs::metadata(&path).expect("a store").len() as usize;
    let (mut count, mut ends) = (0, vec![(0, State::default())]);
    for n in 0..150 {
        bench.step(&mut random, n);
        if random.one_in(4) {
            keep(&mut bench, &mut journal, &heard, &mut count);
            ends.push((len(), sans_last_ids(&bench.state)));
        }
    }
    journal.close();
    let bytes = std::fs::read(&path).expect("a store");
    assert!(ends.len() > 20 && bytes.len() > 1_000, "{} batches, {} bytes", ends.len(), bytes.len());
    for cut in 1..bytes.len() {
        // What is zero anyway is not missing.
        let seen = cut + bytes[cut..].iter().take_while(|byte| **byte == 0).count();
        let blank = [&bytes[..cut], vec![0; bytes.len() - cut].as_slice()].concat();
        for (what, bytes, end) in [("cut off", &bytes[..cut], cut), ("blank", &blank, seen)] {
            let (_, expected) = ends.iter().rev().find(|(of, _)| *of <= end).expect("an empty one");
            let place = folder.path().join("cut");
            std::fs::create_dir_all(&place).expect("a folder");
            std::fs::write(place.join("store"), bytes).expect("written");
            let (mut journal, state, _) = open(place.join("store"));
            journal.close();
            assert!(sans_last_ids(&state) == *expected, "{what} at {cut}");
            std::fs::remove_dir_all(place).expect("ours");
        }
    }
}

/// The bench with a durable subscriber (client 0) at QoS 2 and a publisher (client 2), both of version 5.
fn subscriber_and_publisher() -> Bench {
    let mut bench = Bench::new();
    bench.connect(0, true, u32::MAX, None);
    bench.subscribe(0, "a", Qos::ExactlyOnce);
    bench.connect(2, true, 0, None);
    bench
}

fn take(bench: &mut Bench, client: usize) -> Vec<Vec<u8>> {
    let (own, others) = std::mem::take(&mut bench.sent).into_iter().partition(|sent: &Sent| sent.client == client);
    bench.sent = others;
    own.into_iter().map(|sent: Sent| sent.packet).collect()
}

#[test]
fn what_was_in_flight_is_sent_again_with_its_number_and_dup() {
    let mut bench = subscriber_and_publisher();
    take(&mut bench, 0);
    bench.publish(2, ("a", "one"), Qos::ExactlyOnce, false, 7, Vec::new());
    let ack = Ack { packet_id: id(7), reason: ReasonCode::Success, properties: Vec::new() };
    bench.packet(2, Packet::Pubrel(ack));
    let first = take(&mut bench, 0);
    assert_eq!(first.len(), 1);
    bench.restart();
    bench.connect(0, false, u32::MAX, None);
    let again = take(&mut bench, 0);
    let Ok(Decoded::Packet { packet: Packet::Connack(connack), .. }) = codec::decode(&again[0], ProtocolVersion::V5, u32::MAX) else {
        panic!("CONNACK comes first");
    };
    assert!(connack.session_present);
    let decode = |bytes| match codec::decode(bytes, ProtocolVersion::V5, u32::MAX) {
        Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) => (publish.packet_id, publish.dup, publish.payload.to_vec()),
        other => panic!("not a PUBLISH: {other:?}"),
    };
    let (before, after) = (decode(&first[0]), decode(&again[1]));
    assert_eq!((before.0, before.1, &*before.2), (after.0, false, b"one".as_slice()));
    assert!(after.1, "DUP is set");
}

#[test]
fn a_will_that_was_due_while_nothing_ran_is_published_at_the_first_deadline() {
    let mut bench = subscriber_and_publisher();
    let will = Will {
        topic: "a".into(),
        payload: b"gone".to_vec(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: vec![Property::WillDelayInterval(30)],
    };
    bench.connect(2, true, 100, Some(will));
    let (connection, _) = bench.connected[2].take().expect("connected");
    bench.input(Input::Closed { connection, error: None });
    assert_eq!(bench.state.retained.len(), 0);
    bench.now = Time(bench.now.0 + 50_000);
    bench.restart();
    bench.input(Input::DeadlineReached);
    assert_eq!(bench.state.retained.iter().map(|message| message.payload.to_vec()).collect::<Vec<_>>(), [b"gone".to_vec()]);
}

/// What an input made the machine do, in short.
fn effects(bench: &mut Bench, client: usize, packet: Packet<'_>) -> Vec<String> {
    let mut out = Outbox::default();
    let (connection, _) = bench.connected[client].expect("connected");
    bench.broker.handle(bench.now, Input::Packet { connection, packet, len: 0 }, &mut out);
    let seen = out.effects.iter().filter_map(|effect| match effect {
        Effect::Persist(_) => Some("record".to_owned()),
        Effect::Hold { connection: of, until } => Some(format!("hold {} until {until}", if *of == connection { "own" } else { "other" })),
        Effect::Send { connection: of, start, .. } => {
            Some(format!("send {} {}", if *of == connection { "own" } else { "other" }, out.arena[*start as usize] >> 4))
        }
        _ => None,
    });
    let seen = seen.collect();
    bench.perform(&out);
    seen
}

fn publish(topic: &str, qos: Qos) -> Packet<'_> {
    Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id: Some(id(9)), properties: Vec::new(), payload: b"x" })
}

#[test]
fn an_acknowledgement_waits_for_its_record_and_a_delivery_at_qos_1_does_not() {
    let mut bench = subscriber_and_publisher();
    bench.subscribe(0, "b", Qos::AtLeastOnce);
    let stored = bench.records;
    let seen = effects(&mut bench, 2, publish("b", Qos::AtLeastOnce));
    // The subscriber's session has records that are not stored, which a delivery at QoS 1 does not depend on.
    assert_eq!(seen, ["record", "send other 3", &format!("hold own until {}", stored + 1), "send own 4"]);
    bench.input(Input::Stored { count: stored + 1 });
    // Nobody keeps it: there is nothing to wait for.
    assert_eq!(effects(&mut bench, 2, publish("c", Qos::AtLeastOnce)), ["send own 4"]);
}

#[test]
fn each_step_at_qos_2_waits_for_the_session_s_last_record() {
    let mut bench = subscriber_and_publisher();
    bench.input(Input::Stored { count: bench.records });
    let stored = bench.records;
    let seen = effects(&mut bench, 2, publish("a", Qos::AtLeastOnce));
    assert_eq!(seen, ["record", "send other 3", &format!("hold own until {}", stored + 1), "send own 4"], "delivered at QoS 1");
    effects(&mut bench, 2, publish("a", Qos::ExactlyOnce));
    let release = Packet::Pubrel(Ack { packet_id: id(9), reason: ReasonCode::Success, properties: Vec::new() });
    let seen = effects(&mut bench, 2, release);
    let until = stored + 2;
    assert_eq!(
        seen,
        ["record", &format!("hold other until {until}"), "send other 3", &format!("hold own until {until}"), "send own 7"],
        "delivered at QoS 2"
    );
}

#[test]
fn while_the_store_fails_what_would_be_kept_is_refused_and_the_rest_is_served() {
    let mut bench = subscriber_and_publisher();
    bench.input(Input::Stored { count: bench.records });
    bench.input(Input::StoreFailing { failing: true });
    take(&mut bench, 2);
    let reason = |bench: &mut Bench| match codec::decode(&take(bench, 2)[0], ProtocolVersion::V5, u32::MAX) {
        Ok(Decoded::Packet { packet: Packet::Puback(ack), .. }) => ack.reason,
        other => panic!("not a PUBACK: {other:?}"),
    };
    assert_eq!(effects(&mut bench, 2, publish("a", Qos::AtLeastOnce)), ["send own 4"]);
    assert_eq!(reason(&mut bench), ReasonCode::QuotaExceeded);
    assert_eq!(effects(&mut bench, 2, publish("c", Qos::AtLeastOnce)), ["send own 4"]);
    assert_eq!(reason(&mut bench), ReasonCode::NoMatchingSubscribers);
    bench.input(Input::StoreFailing { failing: false });
    assert_eq!(effects(&mut bench, 2, publish("a", Qos::AtLeastOnce))[0], "record");
}

/// 4.9: what was received on an earlier connection and is still not released does not count.
#[test]
fn the_receive_maximum_is_that_of_a_connection() {
    let mut bench = Bench::new();
    for first in [10, 20] {
        bench.connect(0, false, u32::MAX, None);
        for number in first..first + 3 {
            bench.publish(0, ("a", "x"), Qos::ExactlyOnce, false, number, Vec::new());
            assert!(bench.connected[0].is_some(), "{number}");
        }
    }
    bench.publish(0, ("a", "x"), Qos::ExactlyOnce, false, 23, Vec::new());
    assert!(bench.connected[0].is_none(), "a fourth at once");
}
