//! Chunks → a state: who holds what, with what has ended meanwhile left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::State;
use super::chunks::{self, Chunk, Chunks, Passed};
use super::{MAGIC, waiting};
use crate::broker::Time;
use crate::broker::message::{Delivery, Identity, Message};
use crate::broker::record::{Record, SessionRecord};
use crate::conf::Conf;
use crate::mqtt::{PacketId, Property, ProtocolVersion, Qos, SubscriptionOptions, topic_filter, topic_name};

/// What a listener of the configuration means for the sessions that came through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    /// Index into `Conf::security`.
    pub security: usize,
    pub mount_point: Option<Box<str>>,
    pub max_qos: Qos,
}

/// What is not in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The time of day at the machine's `Time(0)`, in milliseconds since 1970; now.
    pub zero: i64,
    pub listeners: Vec<Listener>,
    /// `persistent_client_expiration`
    pub client_expiration_secs: Option<u64>,
}

impl Terms {
    pub fn of(conf: &Conf, zero: i64) -> Self {
        let listener = |listener: &crate::conf::Listener| Listener {
            port: listener.port,
            security: listener.security,
            mount_point: listener.mount_point.as_deref().map(Into::into),
            max_qos: listener.max_qos,
        };
        let listeners = conf.listeners.iter().filter(|listener| listener.port != 0).map(listener).collect();
        Self { zero, listeners, client_expiration_secs: conf.persistence.client_expiration_secs }
    }

    fn listener(&self, port: u16) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.port == port && port != 0)
    }

    /// A time of day in the file, on the machine's clock: what is past is due at once.
    fn time(&self, secs: i64) -> Time {
        Time(u64::try_from(secs.saturating_mul(1000).saturating_sub(self.zero)).unwrap_or(0))
    }
}

/// What could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// Places.
    pub places: u64,
    /// The first, and what is wrong there.
    pub at: u64,
    pub why: &'static str,
    /// Passed over in all.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The version of the format.
    pub version: u32,
    pub retained: usize,
    pub sessions: usize,
    pub subscriptions: usize,
    /// Messages that wait for their receivers, and messages of clients that wait for their PUBREL.
    pub queued: usize,
    /// Messages and sessions that had ended.
    pub expired: usize,
    /// Of the broker itself, which makes them anew.
    pub own: usize,
    /// What names a message that is not there, or says something that MQTT does not permit.
    pub senseless: usize,
    pub damage: Damage,
    /// The version is none that is known; it was read as the last one.
    pub is_doubtful: bool,
}

impl Report {
    /// Nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.damage.places == 0 && self.senseless == 0 && !self.is_doubtful
    }

    fn note(&mut self, passed: &Passed) {
        let damage = &mut self.damage;
        if damage.places == 0 {
            (damage.at, damage.why) = (passed.at, passed.why);
        }
        damage.places += 1;
        damage.bytes += passed.bytes;
    }
}

/// It is no database that can be read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not a database of mosquitto's")]
    Foreign,
    #[error("it ends before it says its version")]
    CutOff,
    #[error("version {0} of the format is not known")]
    Version(u32),
}

#[derive(Default)]
struct Client<'a> {
    said: Option<chunks::Client<'a>>,
    subscriptions: Vec<chunks::Subscription<'a>>,
    held: Vec<chunks::Held<'a>>,
}

struct Reading<'a> {
    terms: &'a Terms,
    report: Report,
    identities: HashMap<(&'a str, &'a str, u16), Arc<Identity>>,
    messages: HashMap<u64, Arc<Message>>,
    clients: BTreeMap<&'a str, Client<'a>>,
    state: State,
}

/// Reads what can be read of a database; whatever its bytes are, this ends, and takes no more memory than a multiple of them.
pub fn import(bytes: &[u8], terms: &Terms) -> Result<(State, Report), Unreadable> {
    if !bytes.starts_with(MAGIC) {
        return Err(Unreadable::Foreign);
    }
    let Some(mut chunks) = Chunks::new(bytes) else {
        let version = bytes.get(MAGIC.len() + 4..).and_then(|rest| rest.first_chunk()).copied();
        return Err(version.map_or(Unreadable::CutOff, |version| Unreadable::Version(u32::from_be_bytes(version))));
    };
    let report = Report { version: chunks.said, is_doubtful: chunks.is_doubtful(), ..Report::default() };
    let mut reading =
        Reading { terms, report, identities: HashMap::new(), messages: HashMap::new(), clients: BTreeMap::new(), state: State::default() };
    let mut retained = Vec::new();
    while let Some(next) = chunks.next() {
        match next {
            Ok(Chunk::File { .. }) => {}
            Ok(Chunk::Message(message)) => reading.message(*message),
            Ok(Chunk::Retained { message }) => retained.push(message),
            Ok(Chunk::Held(held)) => reading.client(held.client).held.push(held),
            Ok(Chunk::Subscription(subscription)) => reading.client(subscription.client).subscriptions.push(subscription),
            Ok(Chunk::Client(client)) => {
                let id = client.id;
                reading.client(id).said = Some(client);
            }
            Err(passed) => reading.report.note(&passed),
        }
    }
    for message in retained {
        reading.retain(message);
    }
    for (id, client) in std::mem::take(&mut reading.clients) {
        reading.session(id, client);
    }
    reading.report.retained = reading.state.retained.len();
    Ok((reading.state, reading.report))
}

impl<'a> Reading<'a> {
    fn client(&mut self, id: &'a str) -> &mut Client<'a> {
        self.clients.entry(id).or_default()
    }

    fn identity(&mut self, client_id: &'a str, username: &'a str, port: u16) -> Arc<Identity> {
        let security = self.terms.listener(port).map_or(0, |listener| listener.security);
        let make = || {
            let username = (!username.is_empty()).then(|| username.into());
            Arc::new(Identity { client_id: client_id.into(), username, security, trusted: false })
        };
        Arc::clone(self.identities.entry((client_id, username, port)).or_insert_with(make))
    }

    fn message(&mut self, said: chunks::Message<'a>) {
        if !topic_name::is_valid(said.topic) {
            self.report.senseless += 1;
            return;
        }
        let publisher = (!said.publisher.is_empty()).then(|| self.identity(said.publisher, said.username, said.port));
        let passes = |property: &Property| {
            !matches!(property, Property::TopicAlias(_) | Property::SubscriptionIdentifier(_) | Property::MessageExpiryInterval(_))
        };
        let message = Message {
            topic: said.topic.into(),
            payload: said.payload.into(),
            qos: said.qos,
            retain: said.retain,
            properties: said.properties.into_iter().filter(passes).collect(),
            expires_at: (said.expires > 0).then(|| self.terms.time(said.expires)),
            publisher,
        };
        self.messages.insert(said.id, Arc::new(message));
    }

    fn retain(&mut self, id: u64) {
        match self.messages.get(&id) {
            None => self.report.senseless += 1,
            Some(message) if message.topic.starts_with('$') => self.report.own += 1,
            Some(message) if message.is_expired(Time(0)) => self.report.expired += 1,
            Some(message) => self.state.apply(Record::Retained { message: Arc::clone(message) }),
        }
    }

    /// When the session of a client that is away ends; `Err`: it has ended.
    fn end(&self, said: &chunks::Client<'_>) -> Result<Option<Time>, ()> {
        let most = self.terms.client_expiration_secs.and_then(|secs| i64::try_from(secs).ok());
        let now = self.terms.zero / 1000;
        let own = (said.expiry_secs != u32::MAX).then_some(i64::from(said.expiry_secs));
        let end = match (said.expires, own) {
            (1.., _) => Some(said.expires),
            // It would end with its connection.
            (_, Some(0)) => return Err(()),
            // Its client was connected when the file was written: it begins to expire now.
            (_, Some(own)) => Some(now.saturating_add(most.map_or(own, |most| own.min(most)))),
            (_, None) => most.map(|most| most.saturating_add(if said.left > 0 { said.left } else { now })),
        };
        match end {
            Some(end) if end <= now => Err(()),
            end => Ok(end.map(|end| self.terms.time(end))),
        }
    }

    fn session(&mut self, id: &'a str, client: Client<'a>) {
        if id.is_empty() {
            self.report.senseless += 1;
            return;
        }
        let Client { said, subscriptions, held } = client;
        // What is said of a client that is not there was written when it was: the rest of it is damaged.
        let unknown = chunks::Client { id, username: "", port: 0, last_packet_id: 0, expiry_secs: u32::MAX, expires: 0, left: 0 };
        let said = said.unwrap_or(unknown);
        let Ok(expires_at) = self.end(&said) else {
            self.report.expired += 1;
            return;
        };
        let client = self.identity(id, said.username, said.port);
        let listener = self.terms.listener(said.port);
        let is_v5 = |subscription: &chunks::Subscription<'_>| {
            subscription.identifier != 0
                || subscription.options != SubscriptionOptions { qos: subscription.options.qos, ..Default::default() }
        };
        // The file does not say; the client will.
        let is_v5 = said.expiry_secs != u32::MAX || subscriptions.iter().any(is_v5);
        let record = SessionRecord {
            client: Arc::clone(&client),
            version: if is_v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 },
            expiry_secs: said.expiry_secs,
            mount_point: listener.and_then(|listener| listener.mount_point.clone()),
            max_qos: listener.map_or(Qos::ExactlyOnce, |listener| listener.max_qos),
            will: None,
            last_packet_id: PacketId::new(said.last_packet_id),
        };
        self.state.apply(Record::Session(Box::new(record.clone())));
        self.report.sessions += 1;
        for subscription in subscriptions {
            self.subscription(&client, subscription);
        }
        let mut flying = HashSet::new();
        let mut number = 1;
        for held in held {
            number += u64::from(self.held(&client, &held, number, &mut flying));
        }
        // What waits changed the last Packet Identifier.
        self.state.apply(Record::Session(Box::new(record)));
        self.state.apply(Record::Left { client, expires_at, will_at: None });
    }

    fn subscription(&mut self, client: &Arc<Identity>, said: chunks::Subscription<'_>) {
        if topic_filter::parse(said.filter).is_none() {
            self.report.senseless += 1;
            return;
        }
        let chunks::Subscription { filter, options, identifier, .. } = said;
        let (client, filter, identifier) = (Arc::clone(client), filter.into(), identifier & 0x0fff_ffff);
        self.state.apply(Record::Subscribed { client, filter, options, identifier });
        self.report.subscriptions += 1;
    }

    /// True when a delivery has taken `number`.
    fn held(&mut self, client: &Arc<Identity>, held: &chunks::Held<'_>, number: u64, flying: &mut HashSet<PacketId>) -> bool {
        let Some(message) = self.messages.get(&held.message).map(Arc::clone) else {
            self.report.senseless += 1;
            return false;
        };
        let packet_id = PacketId::new(held.packet_id);
        if !held.is_outgoing {
            match packet_id {
                Some(packet_id) if held.qos == Qos::ExactlyOnce => {
                    self.state.apply(Record::Received { client: Arc::clone(client), packet_id, message });
                    self.report.queued += 1;
                }
                _ => self.report.senseless += 1,
            }
            return false;
        }
        let packet_id = packet_id.filter(|_| held.qos != Qos::AtMostOnce);
        let flight = packet_id.filter(|packet_id| held.waits != waiting::IN_QUEUE && !flying.contains(packet_id));
        if flight.is_none() && message.is_expired(Time(0)) {
            self.report.expired += 1;
            return false;
        }
        flying.extend(flight);
        let (qos, retain, subscription_identifier) = (held.qos, held.retain, held.subscription_identifier);
        let delivery = Delivery { message, qos, retain, subscription_identifier, packet_id, number };
        self.state.apply(Record::Queued { client: Arc::clone(client), delivery, packet_id: flight });
        if flight.is_some() && qos == Qos::ExactlyOnce && matches!(held.waits, waiting::FOR_PUBCOMP | waiting::TO_RESEND_PUBREL) {
            self.state.apply(Record::Released { client: Arc::clone(client), number });
        }
        self.report.queued += 1;
        true
    }
}
