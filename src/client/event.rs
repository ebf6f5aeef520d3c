//! What comes of waiting for the broker.

use super::dial::DialError;
use super::flows::Message;
use super::reasons::reason_text;
use crate::mqtt::{Connack, PacketId, ReasonCode};

/// What the broker did.
#[derive(Debug)]
pub enum Event {
    Connected(Connack),
    Message(Message),
    /// A PUBLISH went its whole way: written at QoS 0, acknowledged at QoS 1, completed (or refused) at QoS 2.
    Published {
        packet_id: u16,
        reason: ReasonCode,
        reason_string: Option<Box<str>>,
    },
    Subscribed {
        packet_id: PacketId,
        reasons: Vec<ReasonCode>,
    },
    Unsubscribed,
}

/// Why [`super::session::Session::wait`] came back.
#[derive(Debug)]
pub enum Wake {
    Event(Event),
    Deadline,
    /// The other descriptor became readable.
    Readable,
}

/// Why a session ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection was lost")]
    Lost,
    /// DISCONNECT from the broker (version 5).
    #[error("the broker ended the connection: {}", reason_text(*.0))]
    Ended(ReasonCode),
    /// CONNACK of version 3 with a return code that the specification does not have.
    #[error("the broker refused with the unknown return code {0}")]
    Refused(u8),
    #[error("the broker sent what is not MQTT: {0}")]
    Protocol(&'static str),
    #[error("the broker did not answer within the keep alive time")]
    KeepAlive,
}

impl SessionError {
    /// Whether a client that lives on connects again. Whoever came back to a session that another client took over would take it from
    /// that one, and so on for ever.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Lost | Self::KeepAlive => true,
            Self::Ended(reason) => *reason != ReasonCode::SessionTakenOver,
            Self::Dial(_) | Self::Refused(_) | Self::Protocol(_) => false,
        }
    }
}
