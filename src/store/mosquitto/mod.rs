//! mosquitto's own database, `mosquitto.db`: read into a [`State`](super::State), and written from one so that people can go back.
//!
//! # The format
//!
//! | bytes | what |
//! |---|---|
//! | 15 | `00 B5 00` and "mosquitto db" |
//! | 4 | a checksum that nobody ever set: 0 |
//! | 4 | the version of the format, big-endian |
//!
//! Then come chunks: a kind, the length of what follows, and that. 1 is about the file itself, 2 a message, 3 a client's hold on a message,
//! 4 a topic's hold on one, 5 a subscription, 6 a client. Messages come first, and have numbers by which others name them.
//!
//! | version | written by | kind and length | what differs |
//! |---|---|---|---|
//! | 2, 3 | up to 1.2, 1.3 to 1.5.5 | 2 + 4 bytes | field after field without gaps; since 3 a client's last field is when it left, a `time_t` |
//! | 4 | 1.5.6 to 1.5.11 | 2 + 4 bytes | a message has its publisher's user name and port; 1.5.6 and 1.5.7 count the publisher's identifier twice in the length |
//! | 5 | 1.6 to 1.6.10 | 4 + 4 bytes | structs as they lie in memory; expiry, properties, subscription options and identifiers |
//! | 6 | 1.6.11 to 2.1 | 4 + 4 bytes | a client has its user name and port |
//!
//! Lengths and counts are big-endian everywhere; the numbers of messages and the times are in the byte order of the machine that wrote.
//! What a 32-bit machine writes differs in `time_t`, of 4 bytes up to version 4, and in the gaps at the end of structs: where 64-bit numbers
//! are aligned to 4 bytes (i386) the first chunk has 12 bytes and not 16, and a client in version 6 has 20 and not 24. ARM aligns them to 8.
//! In versions 5 and 6 times have 8 bytes everywhere.
//!
//! mosquitto 2.0 gives a client without a user name that of the client before it, with its length in swapped bytes: a name of 3 bytes becomes
//! 768 bytes of whatever stood behind it in memory.

mod chunks;
mod export;
mod import;

pub use export::{Exported, export};
pub use import::{Damage, Listener, Report, Terms, Unreadable, import};

/// How the file begins.
pub(super) const MAGIC: &[u8] = b"\x00\xb5\x00mosquitto db";

/// What a session waits for with a message, in a file; the others are steps that a restart takes anew.
mod waiting {
    pub(super) const FOR_PUBACK: u8 = 3;
    pub(super) const FOR_PUBREC: u8 = 5;
    pub(super) const TO_RESEND_PUBREL: u8 = 6;
    pub(super) const FOR_PUBREL: u8 = 7;
    pub(super) const FOR_PUBCOMP: u8 = 9;
    pub(super) const IN_QUEUE: u8 = 11;
}
