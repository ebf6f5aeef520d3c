//! What a client remembers of messages under way, in both directions; it outlives a connection.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::mqtt::{PacketId, Properties, Property, Publish, Qos};

/// An Application Message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: Qos,
    pub retain: bool,
    pub packet_id: Option<PacketId>,
    pub properties: Properties,
}

/// An Application Message to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Empty where a Topic Alias in `properties` stands for it.
    pub topic: Rc<str>,
    pub payload: Rc<[u8]>,
    pub qos: Qos,
    pub retain: bool,
    pub properties: Properties,
}

/// QoS 2 messages that may wait for their PUBREL; brokers keep 20 in flight unless told otherwise.
const HELD_MAX: usize = 10_000;

/// Their bytes in all; a single message may be larger.
const HELD_BYTES_MAX: usize = 1 << 28;

/// Messages waiting for the in-flight window beyond which [`Flows::is_full`].
const WAITING_MAX: usize = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not sent on this connection yet.
    Waiting,
    Sent,
    /// PUBREC came: only PUBREL may be sent again.
    Released,
    /// Released, and PUBREL not sent on this connection yet.
    ReleaseWaiting,
}

#[derive(Debug)]
struct UnderWay {
    packet_id: PacketId,
    message: Outgoing,
    stage: Stage,
    dup: bool,
}

/// What is to be sent next.
#[derive(Debug)]
pub struct Due {
    pub packet_id: PacketId,
    pub message: Outgoing,
    pub dup: bool,
    /// PUBREL instead of the PUBLISH.
    pub release: bool,
}

/// Topic Aliases that the broker set on this connection.
#[derive(Debug)]
pub(super) struct Aliases {
    /// Topic Alias Maximum that CONNECT carried.
    max: u16,
    topics: HashMap<u16, String>,
}

impl Aliases {
    pub(super) fn new(connect_properties: &Properties) -> Self {
        let max = connect_properties.iter().find_map(|property| match property {
            Property::TopicAliasMaximum(max) => Some(*max),
            _ => None,
        });
        Self { max: max.unwrap_or(0), topics: HashMap::new() }
    }

    /// The topic that a PUBLISH is for `[MQTT-3.3.2-11]`; `Err` says what is wrong with it.
    pub(super) fn topic_of(&mut self, publish: &Publish<'_>) -> Result<String, &'static str> {
        let alias = publish.properties.iter().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(*alias),
            _ => None,
        });
        match alias {
            None => Ok(publish.topic.to_owned()),
            Some(alias) if alias > self.max => Err("a Topic Alias that it was not allowed"),
            Some(alias) if publish.topic.is_empty() => self.topics.get(&alias).cloned().ok_or("a Topic Alias that was not set"),
            Some(alias) => {
                self.topics.insert(alias, publish.topic.to_owned());
                Ok(publish.topic.to_owned())
            }
        }
    }
}

/// State of the flows of one client.
#[derive(Debug)]
pub struct Flows {
    last_packet_id: u16,
    in_flight_max: usize,
    sending: VecDeque<UnderWay>,
    /// QoS 2 messages whose PUBREL has not come.
    held: HashMap<PacketId, Message>,
}

impl Flows {
    /// `in_flight_max` messages of QoS 1 and 2 may be unacknowledged at a time.
    pub fn new(in_flight_max: u16) -> Self {
        Self { last_packet_id: 0, in_flight_max: in_flight_max.into(), sending: VecDeque::new(), held: HashMap::new() }
    }

    pub fn limit_in_flight(&mut self, max: u16) {
        self.in_flight_max = self.in_flight_max.min(max.into());
    }

    pub fn is_full(&self) -> bool {
        self.sending.len() >= WAITING_MAX
    }

    /// A Packet Identifier that is in no flow.
    pub fn next_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            // At most WAITING_MAX and a few are in use, so a free one is near.
            if let Some(packet_id) = PacketId::new(self.last_packet_id)
                && self.sending.iter().all(|under_way| under_way.packet_id != packet_id)
            {
                return packet_id;
            }
        }
    }

    pub fn queue(&mut self, message: Outgoing) -> PacketId {
        let packet_id = self.next_packet_id();
        self.sending.push_back(UnderWay { packet_id, message, stage: Stage::Waiting, dup: false });
        packet_id
    }

    /// The next thing that the window lets out. A QoS 0 message is forgotten as soon as it is given.
    pub fn next_due(&mut self) -> Option<Due> {
        let in_flight = self.sending.iter().filter(|under_way| under_way.stage != Stage::Waiting).count();
        let index = self.sending.iter().position(|under_way| match under_way.stage {
            Stage::ReleaseWaiting => true,
            Stage::Waiting => under_way.message.qos == Qos::AtMostOnce || in_flight < self.in_flight_max,
            Stage::Sent | Stage::Released => false,
        })?;
        let under_way = self.sending.get_mut(index)?;
        let release = under_way.stage == Stage::ReleaseWaiting;
        under_way.stage = if release { Stage::Released } else { Stage::Sent };
        let due = Due { packet_id: under_way.packet_id, message: under_way.message.clone(), dup: under_way.dup, release };
        under_way.dup = true;
        if due.message.qos == Qos::AtMostOnce {
            self.sending.remove(index);
        }
        Some(due)
    }

    /// PUBREC came.
    pub fn released(&mut self, packet_id: PacketId) {
        if let Some(under_way) = self.sending.iter_mut().find(|under_way| under_way.packet_id == packet_id) {
            under_way.stage = Stage::Released;
        }
    }

    /// The last acknowledgement came; `false` when nothing waited for it.
    pub fn complete(&mut self, packet_id: PacketId) -> bool {
        let index = self.sending.iter().position(|under_way| under_way.packet_id == packet_id);
        index.and_then(|index| self.sending.remove(index)).is_some()
    }

    /// Keeps a QoS 2 message until its PUBREL; one that is sent again replaces itself.
    /// `Err` says what is wrong with a broker that sends without end and releases nothing.
    pub fn hold(&mut self, packet_id: PacketId, message: Message) -> Result<(), &'static str> {
        let bytes = self.held.values().map(|held| held.payload.len()).sum::<usize>() + message.payload.len();
        if self.held.len() >= HELD_MAX || (bytes > HELD_BYTES_MAX && !self.held.is_empty()) {
            return Err("more QoS 2 messages than it released");
        }
        self.held.insert(packet_id, message);
        Ok(())
    }

    pub fn take_held(&mut self, packet_id: PacketId) -> Option<Message> {
        self.held.remove(&packet_id)
    }

    /// A new connection stands: what was sent on the old one is due again `[MQTT-4.4.0-1]`.
    pub fn reconnected(&mut self, session_present: bool) {
        if !session_present {
            self.held.clear();
        }
        for under_way in &mut self.sending {
            under_way.stage = match under_way.stage {
                Stage::Waiting | Stage::Sent => Stage::Waiting,
                Stage::Released | Stage::ReleaseWaiting => Stage::ReleaseWaiting,
            };
        }
    }
}
