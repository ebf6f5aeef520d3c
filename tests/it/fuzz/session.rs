//! Four clients and a broker, told what to do by bytes: raw chunks, whole packets, closed connections, time. Whatever they do,
//! the machine says nothing to a connection that is gone, and everything that it sends is a packet.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use darner::broker::{Broker, ConnectionId, Effect, Input, Origin, Outbox, SecurityTables, Settings, ShardId, Time};
use darner::conf::files::Generation;
use darner::conf::{CommandLine, Conf};
use darner::mqtt::codec::{Decoded, decode, decode_from_client, encode};
use darner::mqtt::*;

const CLIENTS: usize = 4;

/// What the first byte chooses from.
const CONFIGURATIONS: &[&str] = &[
    "listener 1883\nallow_anonymous true\n",
    "listener 1883\nallow_anonymous true\nmax_inflight_messages 1\nmax_queued_messages 2\nmax_packet_size 200\nmax_keepalive 9\nmax_topic_alias 2\npersistence true\n",
    "listener 1883\nallow_anonymous true\nacl_file /acl\ncheck_retain_source true\nmount_point m/\nqueue_qos0_messages true\nlog_type all\n",
    "listener 1883\npassword_file /pw\nallow_anonymous false\nupgrade_outgoing_qos true\nretain_available false\nmax_qos 1\nallow_duplicate_messages false\n",
];

const TOPICS: &[&str] = &["a", "a/b", "a/b/c", "$SYS/x", "$CONTROL/x", "/", "a//b", "b"];
const FILTERS: &[&str] = &["a", "a/+", "#", "$share/g/a/#", "+/b", "$SYS/#", "/", "$share/g/#", "a/b/c", "$share//a"];

fn settings(choice: u8) -> Settings {
    static ALL: OnceLock<Vec<Settings>> = OnceLock::new();
    let all = ALL.get_or_init(|| CONFIGURATIONS.iter().map(|text| load(text)).collect());
    all[usize::from(choice) % all.len()].clone()
}

fn load(text: &str) -> Settings {
    let mut files = Generation::default();
    files.insert("/mosquitto.conf".into(), text.into());
    files.insert("/acl".into(), b"topic a/#\npattern write %c/x\nuser u\ntopic readwrite #\n".to_vec());
    files.insert("/pw".into(), b"u:p\n".to_vec());
    let conf = Conf::load(&files, Some(Path::new("/mosquitto.conf")), &CommandLine::default(), &[]).expect("a sound configuration");
    let (tables, _) = darner::access::load(&files, &conf).expect("sound files");
    let tables = tables.into_iter().map(|(passwords, acl)| SecurityTables { passwords: passwords.map(Arc::new), acl: acl.map(Arc::new) });
    Settings { conf: Arc::new(conf), security: tables.collect() }
}

/// Takes values from the bytes; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::from(self.byte()) % list.len()]
    }

    fn chunk(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte()).min(self.0.len());
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head.to_vec()
    }

    fn packet_id(&mut self) -> PacketId {
        PacketId::new(u16::from(self.byte() % 4) + 1).expect("not 0")
    }

    fn qos(&mut self) -> Qos {
        self.of(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
    }
}

struct Client {
    id: ConnectionId,
    open: bool,
    /// Said by its first CONNECT.
    version: ProtocolVersion,
    connected: bool,
    incoming: Vec<u8>,
}

struct World {
    broker: Broker,
    settings: Settings,
    now: Time,
    clients: Vec<Client>,
    opened: u32,
}

impl World {
    fn input(&mut self, input: Input<'_>) {
        let mut out = Outbox::default();
        self.broker.handle(self.now, input, &mut out);
        let mut answers = Vec::new();
        for effect in &out.effects {
            match effect {
                Effect::Send { connection, start, end, packet_id } => {
                    let client = self.clients.iter().find(|client| client.id == *connection).expect("sent to a connection that is known");
                    assert!(client.open, "sent to a connection that is closed: {:?} {:02x?}", out.effects, out.arena);
                    let mut bytes = out.bytes(*start, *end).to_vec();
                    if let Some((at, id)) = packet_id {
                        bytes[*at as usize..][..2].copy_from_slice(&id.get().to_be_bytes());
                    }
                    all_packets(&bytes, client.version);
                }
                Effect::Close { connection } => {
                    let client = self.clients.iter_mut().find(|client| client.id == *connection).expect("closed one that is known");
                    assert!(std::mem::replace(&mut client.open, false), "closed twice");
                }
                Effect::Authenticate { connection, security, username, password } => {
                    let passwords = self.settings.security[*security].passwords.as_ref();
                    let permitted = passwords.is_none_or(|passwords| passwords.verify(username, password));
                    answers.push(Input::Authenticated { connection: *connection, permitted });
                }
                Effect::WhenDrained { connection } => answers.push(Input::Drained { connection: *connection }),
                Effect::Hold { .. } | Effect::Note(_) | Effect::Persist(_) | Effect::ToShard { .. } | Effect::Route(_) => {}
            }
        }
        for answer in answers {
            let (Input::Authenticated { connection, .. } | Input::Drained { connection }) = &answer else { continue };
            if self.clients.iter().any(|client| client.id == *connection && client.open) {
                self.input(answer);
            }
        }
    }

    /// The client's slot has an open connection afterwards.
    fn connect(&mut self, slot: usize) {
        if self.clients[slot].open {
            return;
        }
        self.opened += 1;
        let id = ConnectionId::new(slot as u32, self.opened);
        self.clients[slot] = Client { id, open: true, version: ProtocolVersion::V311, connected: false, incoming: Vec::new() };
        self.input(Input::Opened {
            connection: id,
            origin: Origin::Listener(0),
            peer: format!("127.0.0.1:{slot}"),
            certificate_user: None,
        });
    }

    /// As the driver: decode what is whole, and hand it in.
    fn receive(&mut self, slot: usize, chunk: &[u8]) {
        self.connect(slot);
        self.clients[slot].incoming.extend(chunk);
        loop {
            let client = &mut self.clients[slot];
            if !client.open {
                return;
            }
            let (id, bytes) = (client.id, std::mem::take(&mut client.incoming));
            let packet_size_max = self.settings.conf.limits.packet_size.unwrap_or(u32::MAX);
            match decode_from_client(&bytes, client.version, packet_size_max) {
                Ok(Decoded::Packet { packet, len }) => {
                    if let Packet::Connect(connect) = &packet
                        && !std::mem::replace(&mut client.connected, true)
                    {
                        client.version = connect.version;
                    }
                    client.incoming = bytes[len..].to_vec();
                    self.input(Input::Packet { connection: id, packet, len });
                }
                Ok(Decoded::Incomplete { .. }) => {
                    client.incoming = bytes;
                    return;
                }
                Err(error) => {
                    // A CONNECT of version 5 is refused in its own words.
                    if error.in_connect_v5 && !client.connected {
                        client.version = ProtocolVersion::V5;
                    }
                    return self.input(Input::Malformed { connection: id, error });
                }
            }
        }
    }

    fn send(&mut self, slot: usize, packet: &Packet<'_>) {
        let version = if let Packet::Connect(connect) = packet { connect.version } else { self.clients[slot].version };
        let mut bytes = Vec::new();
        encode(packet, version, &mut bytes);
        self.receive(slot, &bytes);
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let action = choices.byte();
        let slot = usize::from(action >> 4) % CLIENTS;
        match action & 0xf {
            0 => {
                let chunk = choices.chunk();
                self.receive(slot, &chunk);
            }
            1 if self.clients[slot].open => {
                self.clients[slot].open = false;
                let connection = self.clients[slot].id;
                self.input(Input::Closed { connection, error: None });
            }
            2 => {
                self.now = Time(self.now.0 + [1, 500, 9_000, 100_000, 10_000_000][usize::from(choices.byte()) % 5]);
                self.input(Input::DeadlineReached);
            }
            3 if self.clients[slot].open => self.input(Input::Congested { connection: self.clients[slot].id }),
            4 if self.clients[slot].open => self.input(Input::Drained { connection: self.clients[slot].id }),
            5 => {
                self.settings = settings(choices.byte());
                self.input(Input::Reconfigured { settings: self.settings.clone() });
            }
            6 => self.input(Input::DumpSubscriptions),
            7 | 8 => self.send(slot, &connect(slot, choices)),
            9 => self.send(slot, &subscribe(choices)),
            10 => {
                let unsubscribe = Unsubscribe {
                    packet_id: choices.packet_id(),
                    properties: Properties::default(),
                    filters: vec![choices.of(FILTERS).into()],
                };
                self.send(slot, &Packet::Unsubscribe(unsubscribe));
            }
            11 | 12 => publish(self, slot, choices),
            13 => {
                let reason = choices.of(&[ReasonCode::Success, ReasonCode::Success, ReasonCode::UnspecifiedError]);
                let ack = Ack { packet_id: choices.packet_id(), reason, properties: Properties::default() };
                let kind = choices.of(&[Packet::Puback, Packet::Pubrec, Packet::Pubrel, Packet::Pubcomp]);
                self.send(slot, &kind(ack));
            }
            14 => self.send(slot, &Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Properties::default() })),
            _ => self.send(slot, &Packet::Pingreq),
        }
    }
}

fn connect(slot: usize, choices: &mut Choices<'_>) -> Packet<'static> {
    let (version, flags) = (choices.of(&[ProtocolVersion::V5, ProtocolVersion::V311, ProtocolVersion::V31]), choices.byte());
    let mut properties = Vec::new();
    if version == ProtocolVersion::V5 {
        properties.push(Property::SessionExpiryInterval(u32::from(flags & 8) * 100));
        properties.push(Property::ReceiveMaximum(u16::from(flags & 3) + 1));
        properties.push(Property::TopicAliasMaximum(u16::from(flags & 4)));
    }
    let will = (flags & 16 != 0).then(|| Will {
        topic: choices.of(TOPICS).into(),
        payload: b"w".to_vec(),
        qos: choices.qos(),
        retain: flags & 32 != 0,
        properties: if version == ProtocolVersion::V5 { vec![Property::WillDelayInterval(2)] } else { Properties::default() },
    });
    let login = flags & 64 != 0;
    Packet::Connect(Box::new(Connect {
        version,
        bridge: false,
        clean_start: flags & 128 != 0,
        keep_alive: u16::from(flags & 7),
        properties,
        client_id: if flags == 0xff { String::new() } else { format!("c{}", slot / 2) },
        will,
        username: login.then(|| "u".into()),
        password: login.then(|| b"p".to_vec()),
    }))
}

fn subscribe(choices: &mut Choices<'_>) -> Packet<'static> {
    let count = choices.byte() % 3 + 1;
    let mut request = || {
        let flags = choices.byte();
        let retain_handling =
            [RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend][usize::from(flags % 3)];
        let (no_local, retain_as_published) = (flags & 8 != 0, flags & 16 != 0);
        let options = SubscriptionOptions { qos: choices.qos(), no_local, retain_as_published, retain_handling };
        SubscriptionRequest { filter: choices.of(FILTERS).into(), options }
    };
    let subscriptions = (0..count).map(|_| request()).collect();
    Packet::Subscribe(Subscribe { packet_id: choices.packet_id(), properties: Properties::default(), subscriptions })
}

fn publish(world: &mut World, slot: usize, choices: &mut Choices<'_>) {
    let (qos, flags) = (choices.qos(), choices.byte());
    let mut properties = Vec::new();
    if world.clients[slot].version == ProtocolVersion::V5 {
        if flags & 4 != 0 {
            properties.push(Property::MessageExpiryInterval(u32::from(flags >> 4)));
        }
        if flags & 8 != 0 {
            properties.push(Property::TopicAlias(u16::from(flags >> 5)));
        }
    }
    let topic = if flags & 8 != 0 && flags & 16 != 0 { "" } else { choices.of(TOPICS) };
    let payload = choices.chunk();
    let publish = Publish {
        dup: flags & 1 != 0 && qos != Qos::AtMostOnce,
        qos,
        retain: flags & 2 != 0,
        topic,
        packet_id: (qos != Qos::AtMostOnce).then(|| choices.packet_id()),
        properties,
        payload: &payload,
    };
    world.send(slot, &Packet::Publish(publish));
}

/// Everything sent at once is whole packets of the client's version.
fn all_packets(mut bytes: &[u8], version: ProtocolVersion) {
    assert!(!bytes.is_empty(), "an empty send");
    while !bytes.is_empty() {
        match decode(bytes, version, u32::MAX) {
            Ok(Decoded::Packet { len, .. }) => bytes = &bytes[len..],
            other => panic!("the broker sent {bytes:02x?}: {other:?}"),
        }
    }
}

fn world(choice: u8) -> World {
    let settings = settings(choice);
    let broker = Broker::new(ShardId(0), 1, settings.clone(), 1);
    let client = |slot| Client {
        id: ConnectionId::new(slot, 0),
        open: false,
        version: ProtocolVersion::V311,
        connected: false,
        incoming: Vec::new(),
    };
    let clients = (0..CLIENTS as u32).map(client).collect();
    let mut world = World { broker, settings, now: Time(0), clients, opened: 0 };
    world.input(Input::DeadlineReached);
    world
}

/// One client who sends these bytes, as another subscribes to everything.
pub fn stream(choice: u8, pieces: &[&[u8]]) {
    let mut world = world(choice);
    world.send(1, &connect(1, &mut Choices(&[0, 64 | 128])));
    world.send(1, &subscribe(&mut Choices(&[0, 0, 2, 2])));
    for piece in pieces {
        // A connection that was closed is not opened anew.
        if world.opened < 2 || world.clients[0].open {
            world.receive(0, piece);
        }
    }
    world.now = Time(world.now.0 + 100_000);
    world.input(Input::DeadlineReached);
    world.input(Input::Shutdown);
}

pub fn session(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let mut world = world(choices.byte());
    let mut steps = 0;
    while !choices.0.is_empty() && steps < 2_000 {
        world.step(&mut choices);
        assert!(world.broker.next_deadline().is_some(), "nothing would ever be due");
        steps += 1;
    }
    world.input(Input::Shutdown);
}
