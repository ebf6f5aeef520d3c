//! What must survive a restart, as data. A record says what changed, and carries what it takes to make the change again: replaying
//! all records of a broker in their order over an empty [`State`](super::State) gives its durable state.
//!
//! Times are the machine's own; the store writes them as the time of day, since they must mean something to the next process.

use std::sync::Arc;

use super::in_flight::Awaiting;
use super::interface::Time;
use super::message::{Delivery, Identity, Message};
use super::post::Letter;
use super::shard::ShardId;
use super::will::Will;
use crate::mqtt::{PacketId, ProtocolVersion, Qos, SubscriptionOptions};

/// One change of durable state. `client` names the session by its Client Identifier.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Record {
    /// A session that outlives its connection began, or its client came back. What waits in it stays.
    Session(Box<SessionRecord>),
    /// The connection is gone. `expires_at`: when the session ends by itself; `will_at`: when its will is due, which is forgotten
    /// without it.
    Left {
        client: Arc<Identity>,
        expires_at: Option<Time>,
        will_at: Option<Time>,
    },
    /// The will was published or given up.
    WillGone {
        client: Arc<Identity>,
    },
    /// The session ended, with all that is in it.
    SessionEnded {
        client: Arc<Identity>,
    },
    /// `filter` as subscribed, with `$share/NAME/`.
    Subscribed {
        client: Arc<Identity>,
        filter: Box<str>,
        options: SubscriptionOptions,
        identifier: u32,
    },
    Unsubscribed {
        client: Arc<Identity>,
        filter: Box<str>,
    },
    /// Takes the place of what its topic had.
    Retained {
        message: Arc<Message>,
    },
    /// Removed by a client.
    RetainedCleared {
        topic: Box<str>,
    },
    /// Removed by the broker, unless another message that lasts beyond `at` has taken the topic meanwhile.
    RetainedExpired {
        topic: Box<str>,
        at: Time,
    },
    /// A message waits for the client under `delivery.number`; with `packet_id` it was sent at once.
    Queued {
        client: Arc<Identity>,
        delivery: Delivery,
        packet_id: Option<PacketId>,
    },
    /// A queued message is in flight.
    Sent {
        client: Arc<Identity>,
        number: u64,
        packet_id: PacketId,
    },
    /// A QoS 2 message reached the client, which was told to release it: it waits for PUBCOMP.
    Released {
        client: Arc<Identity>,
        number: u64,
    },
    /// A message has been delivered, or dropped.
    Done {
        client: Arc<Identity>,
        number: u64,
    },
    /// A QoS 2 message from the client waits for its PUBREL.
    Received {
        client: Arc<Identity>,
        packet_id: PacketId,
        message: Arc<Message>,
    },
    /// The PUBREL came.
    ReceivedReleased {
        client: Arc<Identity>,
        packet_id: PacketId,
    },
    /// A letter to another shard.
    Posted {
        to: ShardId,
        number: u64,
        letter: Letter,
    },
    /// Letters up to this one were read there.
    PostTaken {
        to: ShardId,
        number: u64,
    },
    /// A letter from another shard was read here.
    PostRead {
        from: ShardId,
        number: u64,
    },
}

/// All of a session but what it holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SessionRecord {
    pub client: Arc<Identity>,
    pub version: ProtocolVersion,
    /// Session Expiry Interval in seconds, `u32::MAX` never.
    pub expiry_secs: u32,
    pub mount_point: Option<Box<str>>,
    pub max_qos: Qos,
    pub will: Option<Arc<Will>>,
    /// The Packet Identifier given out last: numbers go on from there.
    pub last_packet_id: Option<PacketId>,
}

impl Record {
    /// Moves its times by so many milliseconds, from another process's clock to ours; what is past is due at once.
    pub fn shift(&mut self, by: i64) {
        let shift = |time: &mut Time| time.0 = time.0.saturating_add_signed(by);
        let of_message = |message: &mut Arc<Message>| {
            if message.expires_at.is_some()
                && let Some(at) = &mut Arc::make_mut(message).expires_at
            {
                shift(at);
            }
        };
        match self {
            Self::Left { expires_at, will_at, .. } => expires_at.iter_mut().chain(will_at).for_each(shift),
            Self::Retained { message } | Self::Received { message, .. } => of_message(message),
            Self::Queued { delivery, .. } => of_message(&mut delivery.message),
            Self::RetainedExpired { at, .. } => shift(at),
            Self::Posted { letter, .. } => of_message(letter.message_mut()),
            _ => {}
        }
    }

    /// The session that it is about; `None` for retained messages.
    pub fn client(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Session(session) => Some(&session.client),
            Self::Left { client, .. }
            | Self::WillGone { client }
            | Self::SessionEnded { client }
            | Self::Subscribed { client, .. }
            | Self::Unsubscribed { client, .. }
            | Self::Queued { client, .. }
            | Self::Sent { client, .. }
            | Self::Released { client, .. }
            | Self::Done { client, .. }
            | Self::Received { client, .. }
            | Self::ReceivedReleased { client, .. } => Some(client),
            Self::Retained { .. } | Self::RetainedCleared { .. } | Self::RetainedExpired { .. } => None,
            Self::Posted { .. } | Self::PostTaken { .. } | Self::PostRead { .. } => None,
        }
    }
}

/// What a delivery in flight waits for, as far as a record says it.
pub(super) fn awaited(qos: Qos) -> Awaiting {
    if qos == Qos::ExactlyOnce { Awaiting::Pubrec } else { Awaiting::Puback }
}
