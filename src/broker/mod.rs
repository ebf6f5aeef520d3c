//! The machine: sessions, routing, retained messages, wills, `$SYS`. Sans-IO: no clock, socket, file, tokio or randomness in here.
//! One [`Broker`] is one shard. `handle(now, input, out)` changes it and appends effects, which the driver performs in order.
#![warn(clippy::unwrap_used)]

mod connection;
mod control;
mod deadlines;
mod handle;
mod hold;
pub mod in_flight;
pub mod interface;
pub mod message;
pub mod outside;
pub mod post;
mod reconfigure;
pub mod record;
mod reply;
mod restore;
pub mod retained;
mod route;
mod session;
pub mod shard;
pub mod state;
mod subscribing;
mod subscriptions;
mod sys_topics;
mod trace;
pub mod will;
mod wire;

pub use interface::*;
pub use state::{Place, State};

use std::collections::VecDeque;
use std::sync::Arc;

use connection::{Connection, Slots, State as ConnectionState};
use deadlines::{Deadlines, Timer};
use hashbrown::HashMap;
use message::Identity;
use outside::Ledger;
use post::{Post, Pouch};
use retained::Retained;
use route::Scratch;
use session::Session;
use shard::RemoteStand;
use subscribing::AwaitedSuback;
use subscriptions::{FilterTree, LocalStand};
use sys_topics::{Counters, SysTopics};

use crate::conf::Engine;
use crate::logging::LogType;
use crate::mqtt::ReasonCode;
use crate::notice::Notice;

/// mosquitto's version whose behaviour on the wire is the reference; printed where mosquitto prints its own.
pub const MOSQUITTO_VERSION: &str = "2.1.2";

/// Milliseconds that a connection may take to send its CONNECT.
const CONNECT_TIMEOUT_MS: u64 = 10_000;

/// What a session costs besides its messages, roughly, in bytes.
const SESSION_BYTES: u64 = 1024;

/// What a subscription costs, roughly, in bytes.
const SUBSCRIPTION_BYTES: u64 = 512;

/// Seconds between looks at expired retained messages.
const HOUSEKEEPING_SECS: u64 = 60;

/// One shard's state.
pub struct Broker {
    shard: ShardId,
    shards: u16,
    settings: Settings,
    /// Some `acl_file` is set.
    has_acl: bool,
    /// Records are wanted: `persistence true`.
    persists: bool,
    /// Records made since the beginning, and how many of them are safe.
    records: u64,
    /// The last record that a session has ended.
    last_session_ended: u64,
    stored: u64,
    /// The store keeps nothing more for now: what cannot be kept is refused.
    store_failing: bool,
    /// So what would have to be kept is refused: the level of durability promises it.
    refuses_to_keep: bool,
    /// `log_type debug`
    traces: bool,
    connections: Slots<Connection>,
    sessions: Slots<Session>,
    by_client_id: HashMap<Box<str>, u32>,
    local: FilterTree<LocalStand>,
    remote: FilterTree<RemoteStand>,
    /// What a router outside carries, where there is one.
    outside: Option<Ledger>,
    retained: Retained,
    /// Letters to and from other shards.
    post: Post,
    pouch: Pouch,
    deadlines: Deadlines,
    awaited_subacks: HashMap<u64, AwaitedSuback>,
    /// Sessions that wait for retained messages, in turn.
    replaying: VecDeque<u32>,
    next_token: u64,
    share_turn: usize,
    counters: Counters,
    sys_topics: SysTopics,
    random: u64,
    scratch: Scratch,
    started: bool,
    /// More is kept than `memory_limit` allows: nothing new is taken until it is less.
    memory_full: bool,
}

impl Broker {
    /// `seed` feeds the made-up Client Identifiers.
    pub fn new(shard: ShardId, shards: u16, settings: Settings, seed: u64) -> Self {
        let mut broker = Self {
            shard,
            shards,
            has_acl: false,
            persists: false,
            records: 0,
            last_session_ended: 0,
            stored: 0,
            store_failing: false,
            refuses_to_keep: false,
            traces: false,
            connections: Slots::default(),
            sessions: Slots::default(),
            by_client_id: HashMap::new(),
            local: FilterTree::default(),
            remote: FilterTree::default(),
            outside: (settings.conf.engine == Engine::Rumqttd).then(Ledger::default),
            retained: Retained::default(),
            post: Post::default(),
            pouch: Pouch::default(),
            deadlines: Deadlines::default(),
            awaited_subacks: HashMap::new(),
            replaying: VecDeque::new(),
            next_token: 0,
            share_turn: 0,
            counters: Counters::default(),
            sys_topics: SysTopics::default(),
            random: seed,
            scratch: Scratch::default(),
            started: false,
            memory_full: false,
            settings,
        };
        broker.derive_from_settings();
        // Due at once: the first DeadlineReached publishes `$SYS` and starts its interval.
        broker.deadlines.set(Time(0), Timer::SysTopics);
        broker.deadlines.set(Time(0).plus_secs(HOUSEKEEPING_SECS), Timer::Housekeeping);
        broker.deadlines.set(Time(0), Timer::MemoryCheck);
        broker
    }

    fn derive_from_settings(&mut self) {
        self.has_acl = self.settings.security.iter().any(|tables| tables.acl.is_some());
        self.persists = self.settings.conf.persistence.enabled;
        self.traces = self.settings.conf.log.types.contains(&LogType::Debug);
    }

    /// Takes one input, appends effects to `out`.
    pub fn handle(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        let before = out.effects.len();
        // A line about a line that is published would make the next one.
        let traces = self.traces && !matches!(input, Input::Log { .. });
        match input {
            Input::Packet { connection, packet, len } => {
                if traces {
                    self.trace_received(connection, &packet, out);
                }
                self.counters.packets_received += 1;
                self.counters.bytes_received += len as u64;
                self.packet(connection, packet, now, out);
            }
            Input::Opened { connection, origin, peer, certificate_user } => {
                self.opened(connection, origin, (peer, certificate_user), now, out);
            }
            Input::Malformed { connection, error } => self.malformed(connection, error, now, out),
            Input::Closed { connection, error } => self.closed(connection, error, now, out),
            Input::Congested { connection } => {
                if let Some(wire) = self.session_of(connection).and_then(|session| session.wire.as_mut()) {
                    wire.congested = true;
                }
            }
            Input::Drained { connection } => {
                if let Some(wire) = self.session_of(connection).and_then(|session| session.wire.as_mut()) {
                    wire.congested = false;
                }
                if let Some(key) = self.session_key(connection) {
                    self.pump(key, now, out);
                }
            }
            Input::Authenticated { connection, permitted } => self.authenticated(connection, permitted, now, out),
            Input::Reconfigured { settings } => self.reconfigured(settings, now, out),
            Input::Stored { count } => {
                self.stored = self.stored.max(count);
                self.post_stored(out);
            }
            Input::NotStored { connection } => self.abort(connection, ReasonCode::QuotaExceeded, now, out),
            Input::StoreFailing { failing } => self.store_is_failing(failing, now, out),
            Input::FromShard { from, message } => self.hear_shard(from, message, now, out),
            Input::FromRouter { answer } => self.hear_router(answer, now, out),
            Input::DeadlineReached => self.deadline_reached(now, out),
            Input::Log { letter, line } => self.publish_log_line(letter, line, now, out),
            Input::DumpSubscriptions => self.dump_subscriptions(out),
            Input::Shutdown => self.shutdown(out),
        }
        self.publish_deferred(now, out);
        self.counters.count_sends(out.effects.get(before..).unwrap_or_default());
        self.hold_back(before, out);
        if traces {
            self.trace_sent(before, out);
        }
    }

    /// When `Input::DeadlineReached` is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.next()
    }

    fn deadline_reached(&mut self, now: Time, out: &mut Outbox) {
        while let Some(timer) = self.deadlines.pop_due(now) {
            match timer {
                Timer::ConnectTimeout(connection) => self.connect_timed_out(connection, out),
                Timer::KeepAlive(connection) => self.keep_alive_due(connection, now, out),
                Timer::SessionExpiry(key) => self.session_expired(key, now, out),
                Timer::WillDelay(key) => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.will_at = None;
                        self.publish_will(key, now, out);
                    }
                }
                Timer::SysTopics => self.sys_topics_due(now, out),
                Timer::Replay => self.replay_some(now, out),
                Timer::MemoryCheck => self.check_memory(now, out),
                Timer::Housekeeping => {
                    self.expire_retained(now, out);
                    self.deadlines.set(now.plus_secs(HOUSEKEEPING_SECS), Timer::Housekeeping);
                }
            }
        }
    }

    fn expire_retained(&mut self, now: Time, out: &mut Outbox) {
        let topics = self.retained.remove_expired(now);
        let lasting = topics.into_iter().filter(|topic| self.persists && !topic.starts_with('$'));
        out.effects.extend(lasting.map(|topic| Effect::Persist(Record::RetainedExpired { topic, at: now })));
    }

    /// `memory_limit`: reckoned once a second from what is retained, queued and in flight, and from the number of sessions.
    fn check_memory(&mut self, now: Time, out: &mut Outbox) {
        let was_full = std::mem::take(&mut self.memory_full);
        // Looked at rarely where there is no limit, so that a reload can set one.
        let next_secs = if self.settings.conf.limits.memory_bytes.is_some() { 1 } else { HOUSEKEEPING_SECS };
        self.deadlines.set(now.plus_secs(next_secs), Timer::MemoryCheck);
        let Some(most) = self.settings.conf.limits.memory_bytes else { return };
        let unreleased = |session: &Session| session.incoming.values().map(|message| message.bytes()).sum::<u64>();
        let waiting = |session: &Session| session.outgoing.queued_bytes + session.outgoing.in_flight_bytes + unreleased(session);
        let held = |session: &Session| session.subscriptions.len() as u64 * SUBSCRIPTION_BYTES;
        let sessions: u64 = self.sessions.iter().map(|(_, session)| waiting(session) + held(session) + SESSION_BYTES).sum();
        self.memory_full = sessions + self.retained.bytes() > most;
        if self.memory_full != was_full {
            out.note(if self.memory_full { Notice::MemoryFull { most } } else { Notice::MemoryFree {} });
        }
    }

    fn other_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.shard;
        (0..self.shards).map(ShardId).filter(move |shard| *shard != own)
    }

    fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.slot() as u32).filter(|connection| connection.id == id)
    }

    fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.slot() as u32).filter(|connection| connection.id == id)
    }

    fn session_key(&self, id: ConnectionId) -> Option<u32> {
        match &self.connection(id)?.state {
            ConnectionState::Established { session } => Some(*session),
            ConnectionState::AwaitingConnect { .. } | ConnectionState::Authenticating { .. } => None,
        }
    }

    fn session_of(&mut self, id: ConnectionId) -> Option<&mut Session> {
        let key = self.session_key(id)?;
        self.sessions.get_mut(key)
    }

    fn pump(&mut self, key: u32, now: Time, out: &mut Outbox) {
        let inflight_bytes = self.settings.conf.limits.inflight_bytes;
        if let Some(session) = self.sessions.get_mut(key) {
            let sent = session.pump(inflight_bytes, now, out);
            self.counters.publish_sent += sent;
        }
    }

    fn identity_of(&self, key: u32) -> Option<Arc<Identity>> {
        self.sessions.get(key).map(|session| Arc::clone(&session.identity))
    }

    /// SplitMix64: for names only, never for secrets.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
