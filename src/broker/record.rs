//! What must survive a restart, as data. An effect `Persist` stands before the acknowledgement that depends on it.

use std::sync::Arc;

use super::in_flight::Awaiting;
use super::message::{Delivery, Message};
use crate::mqtt::{PacketId, SubscriptionOptions};

/// One change of durable state. `client_id` names the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A session that outlives its connection began or changed its Session Expiry Interval (seconds, `u32::MAX` never).
    Session {
        client_id: Box<str>,
        expiry_secs: u32,
    },
    SessionEnded {
        client_id: Box<str>,
    },
    /// `filter` as subscribed, with `$share/NAME/`.
    Subscribed {
        client_id: Box<str>,
        filter: Box<str>,
        options: SubscriptionOptions,
        identifier: u32,
    },
    Unsubscribed {
        client_id: Box<str>,
        filter: Box<str>,
    },
    /// An empty payload removes it.
    Retained {
        message: Arc<Message>,
    },
    /// A QoS 1 or 2 message waits for the client.
    Queued {
        client_id: Box<str>,
        delivery: Delivery,
    },
    /// The oldest queued message is in flight.
    Sent {
        client_id: Box<str>,
        packet_id: PacketId,
        awaiting: Awaiting,
    },
    /// The flight reached another state, or ended (`None`).
    Acknowledged {
        client_id: Box<str>,
        packet_id: PacketId,
        awaiting: Option<Awaiting>,
    },
    /// A QoS 2 message from the client waits for its PUBREL.
    Received {
        client_id: Box<str>,
        packet_id: PacketId,
        message: Arc<Message>,
    },
    Released {
        client_id: Box<str>,
        packet_id: PacketId,
    },
}
