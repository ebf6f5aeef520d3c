//! The language: vocabulary and bytes of MQTT 3.1, 3.1.1 and 5. Pure: knows no session and no socket.

pub mod codec;
pub mod packet;
pub mod property;
pub mod reason_code;
pub mod topic_filter;
pub mod topic_name;

pub use packet::*;
pub use property::{Properties, Property};
pub use reason_code::ReasonCode;

use std::num::NonZeroU16;

/// Protocol Version (3.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum ProtocolVersion {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

/// Quality of Service (4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Qos {
    #[default]
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl Qos {
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Packet Identifier: never 0 `[MQTT-2.2.1-3]`.
pub type PacketId = NonZeroU16;
