//! Runner A: the pure core, in virtual time.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use darner::broker::{
    Broker, ConnectionId, Effect, Input, Origin, Outbox, RouterAnswer, RouterOrder, SecurityTables, Settings, ShardId, Time,
};
use darner::conf::files::Generation;
use darner::conf::{CommandLine, Conf};
use darner::mqtt::codec::{Decoded, decode};
use darner::mqtt::{ProtocolVersion, topic_filter};

use super::play::{Received, Runner};
use super::script::Script;
use crate::support::process::Engine;

pub struct Core {
    broker: Broker,
    settings: Settings,
    now: Time,
    next_slot: u32,
    clients: HashMap<String, ConnectionId>,
    connections: HashMap<ConnectionId, Connection>,
    notes: Vec<String>,
    router: Router,
}

/// A router outside of the machine that answers at once, in place of rumqttd's.
#[derive(Default)]
struct Router {
    joined: BTreeSet<u32>,
    /// Session, number and filter.
    subscriptions: Vec<(u32, u32, Box<str>)>,
}

impl Router {
    fn order(&mut self, order: &RouterOrder) -> Vec<RouterAnswer> {
        match order {
            RouterOrder::Join { session, .. } => assert!(self.joined.insert(*session), "{session} joins twice"),
            RouterOrder::Leave { session } => {
                assert!(self.joined.remove(session), "{session} leaves twice");
                assert!(!self.subscriptions.iter().any(|(of, ..)| of == session), "{session} leaves with subscriptions");
            }
            RouterOrder::Subscribe { session, number, filter } => {
                assert!(self.joined.contains(session), "{session} has not joined");
                self.subscriptions.push((*session, *number, filter.clone()));
                return vec![RouterAnswer::Subscribed { number: *number }];
            }
            RouterOrder::Unsubscribe { session, number, filter } => {
                let at = self.subscriptions.iter().position(|known| *known == (*session, *number, filter.clone()));
                self.subscriptions.remove(at.expect("a subscription that was ordered"));
            }
            RouterOrder::Publish { from, client, serial, message } => {
                assert!(from.is_none_or(|session| self.joined.contains(&session)), "{from:?} has not joined");
                let matching = self.subscriptions.iter().filter(|(.., filter)| topic_filter::matches(filter, &message.topic));
                let answer = |number| RouterAnswer::Message { number, serial: *serial, client: *client, message: Arc::clone(message) };
                return matching.map(|(_, number, _)| answer(*number)).collect();
            }
        }
        Vec::new()
    }
}

struct Connection {
    version: ProtocolVersion,
    /// Sent by the client, not yet a whole packet.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    closed: bool,
}

impl Core {
    pub fn start(engine: Engine, script: &Script) -> Self {
        let fill = |text: &str| text.replace("{port}", "1883").replace("{folder}", "/folder");
        let mut files = Generation::default();
        files.insert("/folder/mosquitto.conf".into(), fill(&script.conf).into_bytes());
        for (name, content) in &script.files {
            files.insert(Path::new("/folder").join(name), fill(content).into_bytes());
        }
        files.insert("/folder/darner.toml".into(), engine.toml().into());
        let conf = Conf::load(&files, Some(Path::new("/folder/mosquitto.conf")), &CommandLine::default(), &[])
            .unwrap_or_else(|diagnostics| panic!("{}: {diagnostics:?}", script.name));
        let (tables, _) = darner::access::load(&files, &conf).unwrap_or_else(|error| panic!("{}: {error:?}", script.name));
        let tables =
            tables.into_iter().map(|(passwords, acl)| SecurityTables { passwords: passwords.map(Arc::new), acl: acl.map(Arc::new) });
        let settings = Settings { conf: Arc::new(conf), security: tables.collect() };
        let broker = Broker::new(ShardId(0), 1, settings.clone(), 1);
        let mut core = Self {
            broker,
            settings,
            now: Time(0),
            next_slot: 0,
            clients: HashMap::new(),
            connections: HashMap::new(),
            notes: Vec::new(),
            router: Router::default(),
        };
        core.wait(Duration::from_millis(1));
        core
    }

    /// One input and everything that its effects cause.
    fn input(&mut self, input: Input<'_>) {
        let mut out = Outbox::default();
        self.broker.handle(self.now, input, &mut out);
        let mut answers = Vec::new();
        for effect in &out.effects {
            match effect {
                Effect::Send { connection, start, end, packet_id } => {
                    let mut bytes = out.bytes(*start, *end).to_vec();
                    assert!(!bytes.is_empty(), "an empty send");
                    if let Some((at, id)) = packet_id {
                        bytes[*at as usize..][..2].copy_from_slice(&id.get().to_be_bytes());
                    }
                    let connection = self.connections.get_mut(connection).expect("a send to a connection that was opened");
                    assert!(!connection.closed, "a send after a close");
                    connection.outgoing.extend(bytes);
                }
                Effect::Close { connection } => {
                    self.connections.get_mut(connection).expect("a close of a connection that was opened").closed = true;
                }
                Effect::Authenticate { connection, security, username, password } => {
                    let passwords = self.settings.security[*security].passwords.as_ref();
                    let permitted = passwords.is_none_or(|passwords| passwords.verify(username, password));
                    answers.push(Input::Authenticated { connection: *connection, permitted });
                }
                Effect::WhenDrained { connection } => answers.push(Input::Drained { connection: *connection }),
                Effect::Note(notice) => self.notes.push(format!("{notice:?}")),
                Effect::Persist(_) | Effect::Hold { .. } | Effect::ToShard { .. } => {}
                Effect::Route(order) => answers.extend(self.router.order(order).into_iter().map(|answer| Input::FromRouter { answer })),
            }
        }
        for answer in answers {
            self.input(answer);
        }
    }

    /// What was handed over has come back.
    fn settled(&self) {
        assert_eq!(self.broker.router_outstanding(), 0, "nothing is left outside");
    }

    /// Decodes and feeds what `connection` has received, as the driver does.
    fn feed(&mut self, id: ConnectionId) {
        loop {
            let connection = self.connections.get_mut(&id).expect("an open connection");
            if connection.closed {
                return;
            }
            let bytes = std::mem::take(&mut connection.incoming);
            let packet_size_max = self.settings.conf.limits.packet_size.unwrap_or(u32::MAX);
            match decode(&bytes, connection.version, packet_size_max) {
                Ok(Decoded::Packet { packet, len }) => {
                    if let darner::mqtt::Packet::Connect(connect) = &packet {
                        connection.version = connect.version;
                    }
                    connection.incoming = bytes[len..].to_vec();
                    self.input(Input::Packet { connection: id, packet, len });
                }
                Ok(Decoded::Incomplete { .. }) => {
                    connection.incoming = bytes;
                    return;
                }
                Err(error) => return self.input(Input::Malformed { connection: id, error }),
            }
        }
    }
}

impl Runner for Core {
    fn open(&mut self, client: &str) {
        self.next_slot += 1;
        let id = ConnectionId::new(self.next_slot, 1);
        let connection = Connection { version: ProtocolVersion::V311, incoming: Vec::new(), outgoing: Vec::new(), closed: false };
        self.connections.insert(id, connection);
        self.clients.insert(client.to_owned(), id);
        self.input(Input::Opened {
            connection: id,
            origin: Origin::Listener(0),
            peer: format!("127.0.0.1:{}", 40_000 + self.next_slot),
            certificate_user: None,
        });
    }

    fn send(&mut self, client: &str, bytes: &[u8], _settle: bool) {
        let id = self.clients[client];
        self.connections.get_mut(&id).expect("an open connection").incoming.extend(bytes);
        self.feed(id);
        self.settled();
    }

    fn close(&mut self, client: &str) {
        let id = self.clients[client];
        let connection = self.connections.get_mut(&id).expect("an open connection");
        if !std::mem::replace(&mut connection.closed, true) {
            self.input(Input::Closed { connection: id, error: None });
        }
    }

    fn receive(&mut self, client: &str) -> Received {
        let connection = self.connections.get_mut(&self.clients[client]).expect("an open connection");
        match (connection.outgoing.is_empty(), connection.closed) {
            (false, _) => Received::Bytes(std::mem::take(&mut connection.outgoing)),
            (true, true) => Received::Closed,
            (true, false) => Received::Nothing,
        }
    }

    fn receive_rest(&mut self, client: &str) -> Vec<u8> {
        std::mem::take(&mut self.connections.get_mut(&self.clients[client]).expect("an open connection").outgoing)
    }

    fn wait(&mut self, time: Duration) {
        let end = Time(self.now.0 + time.as_millis() as u64);
        let mut deadlines = 0; // due at one and the same time
        while let Some(due) = self.broker.next_deadline().filter(|due| *due <= end) {
            deadlines = if due > self.now { 0 } else { deadlines };
            self.now = self.now.max(due);
            self.input(Input::DeadlineReached);
            deadlines += 1;
            assert!(deadlines < 1_000, "deadlines without end");
        }
        self.now = end;
    }

    fn log(&self) -> String {
        self.notes.join("\n")
    }
}
