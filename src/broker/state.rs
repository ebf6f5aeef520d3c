//! All durable state of a broker as a plain value: what its records add up to, and what it is built from after a restart.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Broker;
use super::in_flight::Awaiting;
use super::interface::Time;
use super::message::{Delivery, Identity, Message};
use super::post::Post;
use super::record::{Record, SessionRecord, awaited};
use super::retained::Retained;
use super::will::Will;
use crate::mqtt::{PacketId, ProtocolVersion, Qos, SubscriptionOptions};

/// Sessions and retained messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub sessions: BTreeMap<Box<str>, StoredSession>,
    pub retained: Retained,
    /// Letters to and from other shards.
    pub post: Post,
}

/// How far [`State::records_from`] has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Behind the retained message of this topic; `None`: at the beginning.
    Topic(Option<Box<str>>),
    /// Behind this client's session.
    Client(Option<Box<str>>),
    End,
}

impl Default for Place {
    fn default() -> Self {
        Self::Topic(None)
    }
}

/// A session that outlives its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    pub client: Arc<Identity>,
    pub version: ProtocolVersion,
    /// Seconds, `u32::MAX` never.
    pub expiry_secs: u32,
    pub mount_point: Option<Box<str>>,
    pub max_qos: Qos,
    pub presence: Presence,
    /// With the time when it is due, for a client that has left.
    pub will: Option<(Arc<Will>, Option<Time>)>,
    pub subscriptions: BTreeMap<Box<str>, (SubscriptionOptions, u32)>,
    /// What waits for the client, by number, which is the order of arrival.
    pub deliveries: BTreeMap<u64, StoredDelivery>,
    /// QoS 2 messages that wait for their PUBREL.
    pub received: BTreeMap<PacketId, Arc<Message>>,
    /// The Packet Identifier given out last.
    pub last_packet_id: Option<PacketId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDelivery {
    pub delivery: Delivery,
    /// `None`: not sent yet.
    pub flight: Option<(PacketId, Awaiting)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Connected,
    /// `None`: the session waits for ever.
    Left {
        expires_at: Option<Time>,
    },
}

impl State {
    /// Makes one change again. A record about a session that is not there changes nothing.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Session(session) => self.apply_session(*session),
            Record::SessionEnded { client } => drop(self.sessions.remove(&client.client_id)),
            Record::Retained { message } => self.retained.store(message),
            Record::RetainedCleared { topic } => drop(self.retained.remove(&topic)),
            Record::RetainedExpired { topic, at } => self.retained.expire(&topic, at),
            record @ (Record::Posted { .. } | Record::PostTaken { .. } | Record::PostRead { .. }) => self.post.apply(record),
            other => {
                let Some(client) = other.client() else { return };
                if let Some(session) = self.sessions.get_mut(&client.client_id) {
                    session.apply(other);
                }
            }
        }
    }

    /// Bytes of its records, roughly.
    pub fn weight(&self) -> u64 {
        const RECORD_BYTES: u64 = 32;
        let of_message = |message: &Message| (message.topic.len() + message.payload.len()) as u64 + RECORD_BYTES;
        let of_session = |session: &StoredSession| {
            let waiting: u64 = session.deliveries.values().map(|stored| of_message(&stored.delivery.message)).sum();
            let received: u64 = session.received.values().map(|message| of_message(message)).sum();
            let filters: u64 = session.subscriptions.keys().map(|filter| filter.len() as u64 + RECORD_BYTES).sum();
            waiting + received + filters + 3 * RECORD_BYTES
        };
        let retained = self.retained.bytes() + self.retained.len() as u64 * RECORD_BYTES;
        retained + self.sessions.values().map(of_session).sum::<u64>()
    }

    /// Records that add up to it.
    pub fn each_record(&self, mut give: impl FnMut(Record)) {
        self.records_from(&mut Place::default(), |record| {
            give(record);
            true
        });
    }

    /// Records that add up to it, a piece at a time: `place` moves on until `give` wants no more, or to its end.
    ///
    /// The state may change between the pieces. Whoever applies the pieces and, in their order among them, the records of those changes
    /// gets the same state: a change of what stands before the place finds it there; what stands behind it comes as it is by then.
    pub fn records_from(&self, place: &mut Place, mut give: impl FnMut(Record) -> bool) {
        if let Place::Topic(topic) = place {
            let full = self.retained.behind(topic.as_deref()).find(|message| !give(Record::Retained { message: Arc::clone(message) }));
            *place = full.map_or(Place::Client(None), |message| Place::Topic(Some(message.topic.clone())));
        }
        if let Place::Client(client) = place {
            let from = client.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let full = self.sessions.range::<str, _>((from, Bound::Unbounded)).find(|(_, session)| {
                let mut wants_more = true;
                session.each_record(&mut |record| wants_more = give(record));
                !wants_more
            });
            *place = full.map_or(Place::End, |(name, _)| Place::Client(Some(name.clone())));
            if *place == Place::End {
                self.post.each_record(|record| {
                    give(record);
                });
            }
        }
    }

    fn apply_session(&mut self, record: SessionRecord) {
        let SessionRecord { client, version, expiry_secs, mount_point, max_qos, will, last_packet_id } = record;
        let old = self.sessions.remove(&client.client_id);
        let (subscriptions, deliveries, received) =
            old.map(|session| (session.subscriptions, session.deliveries, session.received)).unwrap_or_default();
        let will = will.map(|will| (will, None));
        let client_id = client.client_id.clone();
        let presence = Presence::Connected;
        let session = StoredSession {
            client,
            version,
            expiry_secs,
            mount_point,
            max_qos,
            presence,
            will,
            subscriptions,
            deliveries,
            received,
            last_packet_id,
        };
        self.sessions.insert(client_id, session);
    }
}

impl StoredSession {
    fn each_record(&self, give: &mut impl FnMut(Record)) {
        let client = &self.client;
        let session = || {
            Record::Session(Box::new(SessionRecord {
                client: Arc::clone(client),
                version: self.version,
                expiry_secs: self.expiry_secs,
                mount_point: self.mount_point.clone(),
                max_qos: self.max_qos,
                will: self.will.as_ref().map(|(will, _)| Arc::clone(will)),
                last_packet_id: self.last_packet_id,
            }))
        };
        give(session());
        for (filter, (options, identifier)) in &self.subscriptions {
            let (client, filter) = (Arc::clone(client), filter.clone());
            give(Record::Subscribed { client, filter, options: *options, identifier: *identifier });
        }
        for (number, stored) in &self.deliveries {
            let packet_id = stored.flight.map(|(packet_id, _)| packet_id);
            give(Record::Queued { client: Arc::clone(client), delivery: stored.delivery.clone(), packet_id });
            if stored.flight.is_some_and(|(_, awaiting)| awaiting == Awaiting::Pubcomp) {
                give(Record::Released { client: Arc::clone(client), number: *number });
            }
        }
        if !self.deliveries.is_empty() {
            // They changed the last Packet Identifier.
            give(session());
        }
        for (packet_id, message) in &self.received {
            give(Record::Received { client: Arc::clone(client), packet_id: *packet_id, message: Arc::clone(message) });
        }
        if let Presence::Left { expires_at } = self.presence {
            let will_at = self.will.as_ref().and_then(|(_, at)| *at);
            give(Record::Left { client: Arc::clone(client), expires_at, will_at });
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Left { expires_at, will_at, .. } => {
                self.presence = Presence::Left { expires_at };
                self.will = self.will.take().filter(|_| will_at.is_some()).map(|(will, _)| (will, will_at));
            }
            Record::WillGone { .. } => self.will = None,
            Record::Subscribed { filter, options, identifier, .. } => drop(self.subscriptions.insert(filter, (options, identifier))),
            Record::Unsubscribed { filter, .. } => drop(self.subscriptions.remove(&filter)),
            Record::Queued { delivery, packet_id, .. } => {
                self.last_packet_id = packet_id.or(delivery.packet_id).or(self.last_packet_id);
                let flight = packet_id.map(|packet_id| (packet_id, awaited(delivery.qos)));
                self.deliveries.insert(delivery.number, StoredDelivery { delivery, flight });
            }
            Record::Sent { number, packet_id, .. } => {
                self.last_packet_id = Some(packet_id);
                if let Some(stored) = self.deliveries.get_mut(&number) {
                    stored.flight = Some((packet_id, awaited(stored.delivery.qos)));
                }
            }
            Record::Released { number, .. } => {
                if let Some((_, awaiting)) = self.deliveries.get_mut(&number).and_then(|stored| stored.flight.as_mut()) {
                    *awaiting = Awaiting::Pubcomp;
                }
            }
            Record::Done { number, .. } => drop(self.deliveries.remove(&number)),
            Record::Received { packet_id, message, .. } => drop(self.received.insert(packet_id, message)),
            Record::ReceivedReleased { packet_id, .. } => drop(self.received.remove(&packet_id)),
            // About the whole state.
            Record::Session(_)
            | Record::SessionEnded { .. }
            | Record::Retained { .. }
            | Record::RetainedCleared { .. }
            | Record::RetainedExpired { .. }
            | Record::Posted { .. }
            | Record::PostTaken { .. }
            | Record::PostRead { .. } => {}
        }
    }
}

impl Broker {
    /// The machine's own view of its durable state: the same that its records add up to. Messages are shared, not copied.
    pub fn durable_state(&self) -> State {
        let mut state = State { sessions: BTreeMap::new(), retained: self.retained.durable(), post: self.post.clone() };
        for (_, session) in self.sessions.iter().filter(|(_, session)| session.is_recorded) {
            let outgoing = &session.outgoing;
            let flying = outgoing.in_flight.iter().map(|entry| {
                let flight = Some((entry.packet_id, entry.awaiting));
                StoredDelivery { delivery: entry.delivery.clone(), flight }
            });
            let waiting = outgoing.queue.iter().map(|delivery| StoredDelivery { delivery: delivery.clone(), flight: None });
            let stored = StoredSession {
                client: Arc::clone(&session.identity),
                version: session.version,
                expiry_secs: session.expiry_secs,
                mount_point: session.mount_point.clone(),
                max_qos: session.max_qos,
                presence: match session.wire {
                    Some(_) => Presence::Connected,
                    None => Presence::Left { expires_at: session.expires_at },
                },
                will: session.will.as_ref().map(|will| (Arc::clone(will), session.will_at)),
                subscriptions: session
                    .subscriptions
                    .iter()
                    .map(|(filter, held)| (filter.clone(), (held.options, held.identifier)))
                    .collect(),
                deliveries: flying
                    .chain(waiting)
                    .filter(|stored| stored.delivery.number != 0)
                    .map(|stored| (stored.delivery.number, stored))
                    .collect(),
                last_packet_id: outgoing.recorded_packet_id,
                received: session.incoming.iter().filter_map(|(id, message)| Some((PacketId::new(*id)?, Arc::clone(message)))).collect(),
            };
            state.sessions.insert(session.identity.client_id.clone(), stored);
        }
        state
    }
}
