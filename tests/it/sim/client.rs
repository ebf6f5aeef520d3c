//! A simulated client: a correct one, with the state that a client keeps over its connections (4.1).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use darner::mqtt::codec::{self, Decoded};
use darner::mqtt::{
    Ack, Connack, Connect, Disconnect, Packet, PacketId, Properties, Property, ProtocolVersion, Publish, Qos, ReasonCode, Subscribe,
    SubscriptionOptions, SubscriptionRequest, Unsubscribe, Will,
};

use super::ledger::{Ledger, Number, Received, Subscription, matches};
use super::sessions::NEVER;
use super::world::session_expiry;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    Puback,
    Pubrec,
    Pubcomp,
}

/// A message that this client is publishing.
#[derive(Debug, Clone)]
pub struct Flight {
    pub packet_id: u16,
    pub number: Number,
    pub awaits: Awaits,
}

enum Asked {
    Subscribe(String),
    Unsubscribe,
}

pub struct Client {
    pub index: usize,
    pub name: String,
    pub shard: usize,
    pub version: ProtocolVersion,
    pub no_local: bool,
    pub link: Option<u32>,
    pub is_online: bool,
    incoming: Vec<u8>,
    pub outgoing: Vec<u8>,
    /// Its state is gone, and the broker may still have its side.
    pub must_clean: bool,
    /// Its session, or the one before it, ended while nothing could be kept: a crash brings it back.
    pub ended_unkept: bool,
    /// So it did, and a CONNACK of before may still arrive.
    pub is_undone: bool,
    /// Its state ends with the connection.
    pub ends_with_connection: bool,
    pub flights: VecDeque<Flight>,
    next_packet_id: u16,
    /// QoS 2 messages that were received and not released.
    unreleased: BTreeSet<u16>,
    /// Acknowledgements that it has yet to send, in their order.
    pub owed: VecDeque<(Packet<'static>, u16)>,
    pub subscriptions: BTreeMap<String, Subscription>,
    /// All filters of this session.
    filters_ever: BTreeSet<String>,
    /// Shares of all its sessions.
    pub shares_ever: BTreeSet<String>,
    asked: BTreeMap<u16, Asked>,
    receive_maximum: usize,
    /// Received on this connection and not yet acknowledged to the end.
    unacknowledged: BTreeSet<u16>,
    /// The newest message by Packet Identifier, in this session.
    by_packet_id: BTreeMap<u16, Number>,
    pub received: Received,
    /// With RETAIN 1, or after that: topic → newest value.
    pub retained: BTreeMap<String, Number>,
}

/// What a client wants of its next connection.
pub struct Wish {
    pub clean: bool,
    pub expiry_secs: u32,
    pub receive_maximum: Option<u16>,
    pub keep_alive: u16,
    pub will: Option<(Will, Number, u32)>,
}

impl Client {
    pub fn new(index: usize, shard: usize, version: ProtocolVersion) -> Self {
        Self {
            index,
            name: format!("c{index}"),
            shard,
            version,
            no_local: false,
            link: None,
            is_online: false,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            must_clean: false,
            ended_unkept: false,
            is_undone: false,
            ends_with_connection: false,
            flights: VecDeque::new(),
            next_packet_id: 0,
            unreleased: BTreeSet::new(),
            owed: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            filters_ever: BTreeSet::new(),
            shares_ever: BTreeSet::new(),
            asked: BTreeMap::new(),
            receive_maximum: usize::MAX,
            unacknowledged: BTreeSet::new(),
            by_packet_id: BTreeMap::new(),
            received: Received::default(),
            retained: BTreeMap::new(),
        }
    }

    pub fn is_v5(&self) -> bool {
        self.version == ProtocolVersion::V5
    }

    fn send(&mut self, packet: &Packet<'_>) {
        codec::encode(packet, self.version, &mut self.outgoing);
    }

    fn packet_id(&mut self) -> PacketId {
        loop {
            self.next_packet_id = self.next_packet_id % 200 + 1;
            let candidate = self.next_packet_id;
            if !self.flights.iter().any(|flight| flight.packet_id == candidate) && !self.asked.contains_key(&candidate) {
                return PacketId::new(candidate).expect("not zero");
            }
        }
    }

    /// Session State is gone on this side.
    fn forget(&mut self) {
        self.flights.clear();
        self.unreleased.clear();
        self.subscriptions.clear();
        self.filters_ever.clear();
        self.by_packet_id.clear();
        self.received.newest.clear();
        self.retained.clear();
    }

    /// Whether it heard that or not: of the old session nothing is owed, and its Packet Identifiers mean other messages from now on.
    pub fn told_of_new_session(&mut self) {
        self.subscriptions.clear();
        self.unreleased.clear();
    }

    pub fn connect(&mut self, link: u32, wish: Wish) {
        let clean = wish.clean || self.must_clean || std::mem::take(&mut self.is_undone);
        if clean {
            self.forget();
            self.must_clean = true;
        }
        self.link = Some(link);
        self.is_online = false;
        self.incoming.clear();
        self.outgoing.clear();
        self.unacknowledged.clear();
        let mut properties = Properties::new();
        self.receive_maximum = usize::MAX;
        if self.is_v5() {
            properties.push(Property::SessionExpiryInterval(wish.expiry_secs));
            if let Some(count) = wish.receive_maximum {
                properties.push(Property::ReceiveMaximum(count));
                self.receive_maximum = count.into();
            }
        }
        self.ends_with_connection = self.expiry_of(clean, &properties) == 0;
        let connect = Connect {
            version: self.version,
            bridge: false,
            clean_start: clean,
            keep_alive: wish.keep_alive,
            properties,
            client_id: self.name.clone(),
            will: wish.will.map(|(will, ..)| will),
            username: None,
            password: None,
        };
        self.send(&Packet::Connect(Box::new(connect)));
    }

    /// As if it had said a smaller Receive Maximum than the broker keeps to.
    pub fn expect_fewer(&mut self) {
        self.receive_maximum = self.receive_maximum.min(4);
    }

    /// Session Expiry Interval that a CONNECT asks for.
    pub fn expiry_of(&self, clean: bool, properties: &Properties) -> u32 {
        match self.version {
            ProtocolVersion::V5 => session_expiry(properties).unwrap_or(0),
            _ if clean => 0,
            _ => NEVER,
        }
    }

    /// The connection is gone, by whomever.
    pub fn lose(&mut self) {
        if self.ends_with_connection {
            self.forget();
            // Where CONNECT may not have arrived, the broker may still have an older session.
            self.must_clean |= !self.is_online;
        }
        self.link = None;
        self.is_online = false;
        self.owed.clear();
        self.asked.clear();
        // Nobody knows whether it was still made.
        let asked_for = |subscription: &mut Subscription| subscription.since.is_some();
        self.subscriptions.retain(|_, subscription| asked_for(subscription));
    }

    pub fn publish(&mut self, number: Number, ledger: &Ledger, dup: bool) {
        let message = &ledger.messages[number];
        let qos = Qos::from_u8(message.qos).expect("0 to 2");
        let known = self.flights.iter().find(|flight| flight.number == number).map(|flight| flight.packet_id);
        let packet_id = match known {
            Some(packet_id) => PacketId::new(packet_id),
            None if message.qos == 0 => None,
            None => {
                let packet_id = self.packet_id();
                let awaits = if message.qos == 1 { Awaits::Puback } else { Awaits::Pubrec };
                self.flights.push_back(Flight { packet_id: packet_id.get(), number, awaits });
                Some(packet_id)
            }
        };
        let mut properties = Properties::new();
        if let (true, Some(secs)) = (self.is_v5(), message.expiry_secs) {
            properties.push(Property::MessageExpiryInterval(secs));
        }
        let payload = if message.empty { String::new() } else { payload(number) };
        let publish =
            Publish { dup, qos, retain: message.retain, topic: &message.topic, packet_id, properties, payload: payload.as_bytes() };
        self.send(&Packet::Publish(publish));
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let packet_id = self.packet_id();
        self.asked.insert(packet_id.get(), Asked::Subscribe(filter.to_owned()));
        self.subscriptions.entry(filter.to_owned()).or_insert(Subscription { qos, since: None });
        self.filters_ever.insert(filter.to_owned());
        if filter.starts_with("$share/") {
            self.shares_ever.insert(filter.to_owned());
        }
        let no_local = self.no_local && self.is_v5() && !filter.starts_with("$share/");
        let options = SubscriptionOptions { qos: Qos::from_u8(qos).expect("0 to 2"), no_local, ..SubscriptionOptions::default() };
        let subscriptions = vec![SubscriptionRequest { filter: filter.to_owned(), options }];
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::new(), subscriptions }));
    }

    pub fn unsubscribe(&mut self, filter: &str) {
        // A SUBACK that is still to come is of the subscription that ends here, not of the next to the same filter.
        for asked in self.asked.values_mut() {
            if matches!(asked, Asked::Subscribe(of) if of == filter) {
                *asked = Asked::Unsubscribe;
            }
        }
        let packet_id = self.packet_id();
        self.asked.insert(packet_id.get(), Asked::Unsubscribe);
        self.subscriptions.remove(filter);
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties: Properties::new(), filters: vec![filter.to_owned()] }));
    }

    pub fn disconnect(&mut self, reason: ReasonCode, properties: Properties) {
        if let Some(secs) = session_expiry(&properties) {
            self.ends_with_connection = secs == 0;
            self.must_clean |= secs == 0; // it may not arrive
        }
        self.send(&Packet::Disconnect(Disconnect { reason, properties }));
    }

    /// Messages whose PUBREL it sends, or will.
    pub fn released(&self) -> Vec<Number> {
        self.flights.iter().filter(|flight| flight.awaits == Awaits::Pubcomp).map(|flight| flight.number).collect()
    }

    pub fn ping(&mut self) {
        self.send(&Packet::Pingreq);
    }

    /// Sends the oldest acknowledgement that it owes.
    pub fn acknowledge(&mut self) {
        let Some((packet, packet_id)) = self.owed.pop_front() else { return };
        if !matches!(packet, Packet::Pubrec(_)) {
            self.unacknowledged.remove(&packet_id);
        }
        self.send(&packet);
    }

    /// Bytes from the broker.
    pub fn receive(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        self.incoming.extend_from_slice(bytes);
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = incoming.as_slice();
        loop {
            match codec::decode(rest, self.version, u32::MAX) {
                Ok(Decoded::Packet { packet, len }) => {
                    self.packet(packet, ledger);
                    rest = &rest[len..];
                }
                Ok(Decoded::Incomplete { .. }) => break,
                Err(error) => return ledger.blame(format!("{} got bytes that are no packet: {error}", self.name)),
            }
        }
        self.incoming = rest.to_vec();
    }

    fn packet(&mut self, packet: Packet<'_>, ledger: &mut Ledger) {
        match packet {
            Packet::Connack(connack) => self.connack(&connack, ledger),
            Packet::Publish(publish) => self.published(&publish, ledger),
            Packet::Puback(ack) => self.flight_ends(ack.packet_id.get(), Awaits::Puback),
            Packet::Pubcomp(ack) => self.flight_ends(ack.packet_id.get(), Awaits::Pubcomp),
            Packet::Pubrec(ack) => {
                let id = ack.packet_id.get();
                if ack.reason.is_error() {
                    return self.flight_ends(id, Awaits::Pubrec);
                }
                if let Some(flight) = self.flights.iter_mut().find(|flight| flight.packet_id == id) {
                    if flight.awaits == Awaits::Pubrec {
                        flight.awaits = Awaits::Pubcomp;
                    }
                    self.owe(Packet::Pubrel(answer(ack.packet_id)), id);
                }
            }
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id.get());
                self.owe(Packet::Pubcomp(answer(ack.packet_id)), ack.packet_id.get());
            }
            Packet::Suback(suback) => {
                let is_refused = suback.reasons.iter().any(|reason| reason.is_error());
                if is_refused && ledger.has_failed {
                    if let Some(Asked::Subscribe(filter)) = self.asked.remove(&suback.packet_id.get()) {
                        self.subscriptions.remove(&filter);
                    }
                    return;
                }
                if is_refused {
                    ledger.blame(format!("{} may not subscribe: {:?}", self.name, suback.reasons));
                }
                if let Some(Asked::Subscribe(filter)) = self.asked.remove(&suback.packet_id.get())
                    && let Some(subscription) = self.subscriptions.get_mut(&filter)
                {
                    subscription.since.get_or_insert(ledger.step);
                }
            }
            Packet::Unsuback(unsuback) => {
                self.asked.remove(&unsuback.packet_id.get());
            }
            Packet::Pingresp | Packet::Disconnect(_) => {}
            other => ledger.blame(format!("{} got {other:?}", self.name)),
        }
    }

    fn owe(&mut self, packet: Packet<'static>, packet_id: u16) {
        self.owed.push_back((packet, packet_id));
    }

    fn flight_ends(&mut self, packet_id: u16, awaits: Awaits) {
        self.flights.retain(|flight| flight.packet_id != packet_id || flight.awaits != awaits);
    }

    /// What was in flight goes again, in its order `[MQTT-4.4.0-1]`.
    fn connack(&mut self, connack: &Connack, ledger: &mut Ledger) {
        if connack.reason != ReasonCode::Success && ledger.has_failed {
            return; // the broker closes
        }
        if connack.reason != ReasonCode::Success {
            return ledger.blame(format!("{} is refused: {:?}", self.name, connack.reason));
        }
        self.is_online = true;
        self.must_clean = false;
        if !connack.session_present {
            self.forget();
        }
        for flight in self.flights.clone() {
            if flight.awaits == Awaits::Pubcomp {
                let packet_id = PacketId::new(flight.packet_id).expect("not zero");
                self.send(&Packet::Pubrel(answer(packet_id)));
            } else {
                self.publish(flight.number, ledger, true);
            }
        }
    }

    fn published(&mut self, publish: &Publish<'_>, ledger: &mut Ledger) {
        let number = number_of(publish.payload);
        if let (Some(packet_id), Some(number)) = (publish.packet_id, number) {
            let id = packet_id.get();
            let before = self.by_packet_id.insert(id, number);
            // After a crash nobody may know any more that it was sent.
            if ledger.crashes == 0 && before == Some(number) && !publish.dup && !publish.retain && ledger.messages[number].read.len() == 1 {
                ledger.blame(format!("{} got message {number} under {id} again, without DUP", self.name));
            }
        }
        let mut is_new = true;
        if let Some(packet_id) = publish.packet_id {
            let id = packet_id.get();
            self.unacknowledged.insert(id);
            if self.unacknowledged.len() > self.receive_maximum {
                ledger.blame(format!("{} got more than its Receive Maximum of {}", self.name, self.receive_maximum));
            }
            if publish.qos == Qos::ExactlyOnce {
                is_new = self.unreleased.insert(id);
                self.owe(Packet::Pubrec(answer(packet_id)), id);
            } else {
                self.owe(Packet::Puback(answer(packet_id)), id);
            }
        }
        let Some(number) = number.filter(|_| is_new) else { return };
        if publish.topic.starts_with("r/") {
            self.retained.insert(publish.topic.to_owned(), number);
        }
        if !publish.retain {
            self.hand_over(number, publish, ledger);
        }
    }

    /// A live message reaches the application.
    fn hand_over(&mut self, number: Number, publish: &Publish<'_>, ledger: &mut Ledger) {
        let qos = publish.qos as u8;
        let Some(message) = ledger.messages.get(number).cloned() else {
            return ledger.blame(format!("{} got message {number}, which nobody sent", self.name));
        };
        ledger.check_order(&mut self.received, number, qos, &self.name);
        let times = self.received.times.entry((number, qos)).or_default();
        *times += 1;
        let times = *times;
        let filters = self.filters_ever.iter().filter(|filter| matches(filter, &message.topic)).count();
        if filters == 0 || message.topic != publish.topic {
            ledger.blame(format!("{} got message {number} of {}, to which it has not subscribed", self.name, message.topic));
        }
        let most = if self.is_v5() { filters } else { 1 };
        let shared = self.filters_ever.iter().filter(|filter| filter.starts_with("$share/") && matches(filter, &message.topic)).count();
        // A delivery at QoS 0 waits for no record: a crash may undo that a will was published, which then comes once more.
        let again = if qos == 0 && message.fate != super::ledger::Fate::Published { ledger.crashes } else { 0 };
        let again = if qos == 2 { again + ledger.crashes_failing } else { again };
        if times > most.max(shared + 1) + again && (qos == 2 || qos == 0 && message.qos == 0) {
            ledger.blame(format!("QoS {qos}: {} got message {number} {times} times", self.name));
        }
        if qos > message.qos {
            ledger.blame(format!("{} got message {number} with QoS {qos} instead of {}", self.name, message.qos));
        }
        if self.no_local && self.is_v5() && message.by == self.index && message.fate == super::ledger::Fate::Published && shared == 0 {
            ledger.blame(format!("{} got its own message {number} in spite of No Local", self.name));
        }
        ledger.check_will(number, &self.name);
    }
}

fn answer(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::new() }
}

/// The number, and as many dots as make sizes differ.
pub fn payload(number: Number) -> String {
    format!("{number}{}", ".".repeat(number * 7 % 50))
}

pub fn number_of(payload: &[u8]) -> Option<Number> {
    std::str::from_utf8(payload).ok()?.trim_end_matches('.').parse().ok()
}
