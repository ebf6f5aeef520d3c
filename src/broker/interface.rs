//! What goes into the machine and what comes out: closed enums on both sides.

use std::sync::Arc;

use crate::access::{Acl, Passwords};
use crate::conf::Conf;
use crate::mqtt::codec::DecodeError;
use crate::mqtt::{Packet, PacketId};
use crate::notice::Notice;

pub use super::outside::{RouterAnswer, RouterOrder};
pub use super::record::Record;
pub use super::shard::{ShardId, ShardMessage};

/// Monotonic milliseconds since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Time(pub u64);

impl Time {
    pub fn plus_secs(self, secs: u64) -> Self {
        Self(self.0.saturating_add(secs.saturating_mul(1000)))
    }
}

/// A Network Connection. Chosen by the driver and never reused: low 32 bits are a slot, high 32 bits count its uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    pub fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    pub fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }
}

/// Configuration and the loaded security files: one consistent generation.
#[derive(Debug, Clone)]
pub struct Settings {
    pub conf: Arc<Conf>,
    /// One for each of `conf.security`.
    pub security: Arc<[SecurityTables]>,
}

#[derive(Debug, Clone, Default)]
pub struct SecurityTables {
    /// `None`: no `password_file`, any credentials pass.
    pub passwords: Option<Arc<Passwords>>,
    /// `None`: no `acl_file`, everything is permitted.
    pub acl: Option<Arc<Acl>>,
}

/// Where a connection came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Index into `conf.listeners`.
    Listener(usize),
    /// The private socket of the container's own processes: needs no credentials, is not logged, may do anything.
    Private,
}

#[derive(Debug)]
pub enum Input<'a> {
    Opened {
        connection: ConnectionId,
        origin: Origin,
        /// As logged: `127.0.0.1:40872`, or the path of a unix socket.
        peer: String,
        /// The name in the client's verified certificate, where the listener takes it for the user name.
        certificate_user: Option<String>,
    },
    /// `len` is the packet's length on the wire.
    Packet {
        connection: ConnectionId,
        packet: Packet<'a>,
        len: usize,
    },
    Malformed {
        connection: ConnectionId,
        error: DecodeError,
    },
    /// The peer closed, or the socket failed (`error` says how). Not sent after `Effect::Close`.
    Closed {
        connection: ConnectionId,
        error: Option<String>,
    },
    /// More than the driver wants to hold is waiting for this connection's socket: send nothing but acknowledgements until
    /// `Drained`.
    Congested {
        connection: ConnectionId,
    },
    Drained {
        connection: ConnectionId,
    },
    /// Answer to `Effect::Authenticate`. Packets that come before it are kept by the machine.
    Authenticated {
        connection: ConnectionId,
        permitted: bool,
    },
    Reconfigured {
        settings: Settings,
    },
    /// Every record up to this number of `Persist` effects is safe.
    Stored {
        count: u64,
    },
    /// The store can keep nothing for now, or can again. What would have to be kept is refused meanwhile, but at the level `snapshot`,
    /// which promises none of it.
    StoreFailing {
        failing: bool,
    },
    /// What was held back for this connection was not stored, and was not sent: the connection ends.
    NotStored {
        connection: ConnectionId,
    },
    FromShard {
        from: ShardId,
        message: ShardMessage,
    },
    FromRouter {
        answer: RouterAnswer,
    },
    DeadlineReached,
    /// A log line to publish under `$SYS/broker/log/LETTER` (`log_dest topic`). The driver must not log what this causes.
    Log {
        letter: char,
        line: &'a str,
    },
    /// SIGUSR2: log the subscription tree.
    DumpSubscriptions,
    Shutdown,
}

#[derive(Debug)]
pub enum Effect {
    /// Bytes `start..end` of `Outbox::arena`; several receivers may share them. `packet_id` overwrites the two bytes at this offset
    /// from `start`.
    Send {
        connection: ConnectionId,
        start: u32,
        end: u32,
        packet_id: Option<(u32, PacketId)>,
    },
    /// The machine has more for this connection than it wants to lay out at once: say `Input::Drained` once the socket has taken
    /// what was sent (even where `Congested` was never said).
    WhenDrained {
        connection: ConnectionId,
    },
    /// Close after everything sent before has been flushed (with a deadline of the driver's own).
    Close {
        connection: ConnectionId,
    },
    /// What is sent to this connection from here on leaves only after `Input::Stored` with this count (order is kept: so does
    /// everything behind it).
    Hold {
        connection: ConnectionId,
        until: u64,
    },
    /// Check off the shard's thread: `settings.security[security].passwords`.
    Authenticate {
        connection: ConnectionId,
        security: usize,
        username: String,
        password: Vec<u8>,
    },
    /// Keep this. Records are numbered from 1, in the order of these effects.
    Persist(Record),
    ToShard {
        to: ShardId,
        message: ShardMessage,
    },
    /// To the router outside, where there is one.
    Route(RouterOrder),
    Note(Notice),
}

/// Effects in the order to perform them, and the bytes that they send. The driver clears it after performing.
#[derive(Debug, Default)]
pub struct Outbox {
    pub arena: Vec<u8>,
    pub effects: Vec<Effect>,
}

impl Outbox {
    pub fn clear(&mut self) {
        self.arena.clear();
        self.effects.clear();
    }

    pub fn note(&mut self, notice: Notice) {
        self.effects.push(Effect::Note(notice));
    }

    pub fn close(&mut self, connection: ConnectionId) {
        self.effects.push(Effect::Close { connection });
    }

    /// Bytes that `Effect::Send` with this range means.
    pub fn bytes(&self, start: u32, end: u32) -> &[u8] {
        self.arena.get(start as usize..end as usize).unwrap_or_default()
    }
}
