//! WebSockets (RFC 6455) as MQTT uses them: the upgrade that a client asks for, and frames ↔ the bytes of packets.

pub mod frames;
pub mod upgrade;
