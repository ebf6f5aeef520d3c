//! The world around the real machine: shards with their mailboxes, connections that cut anywhere, and a clock that jumps.

use std::collections::{BTreeMap, VecDeque};

use darner::broker::{Broker, ConnectionId, Effect, Input, Origin, Outbox, Settings, ShardId, ShardMessage, Time};
use darner::mqtt::codec::{self, Decoded};
use darner::mqtt::{Packet, Property, ProtocolVersion, Publish};

use super::disk::Disk;
use super::fault::Fault;
use super::ledger::Number;
use super::router::Router;
use crate::support::random::Random;

/// More than this on the way to a client, and the driver calls it congested.
const CONGESTED_BYTES: usize = 400;

pub struct Shard {
    pub broker: Broker,
    pub disk: Disk,
    links: BTreeMap<ConnectionId, u32>,
}

/// Leaves when the records before it are safe.
struct Waiting {
    after: u64,
    /// `None` closes.
    bytes: Option<Vec<u8>>,
}

/// What the driver tells the machine after an input's effects.
#[derive(Default)]
struct Answers {
    drains: Vec<u32>,
    not_stored: Vec<u32>,
}

/// A Network Connection, both ends.
pub struct Link {
    pub shard: usize,
    pub client: usize,
    pub id: ConnectionId,
    pub version: ProtocolVersion,
    /// On the way to the broker.
    pub up: VecDeque<u8>,
    /// At the broker, and not a whole packet yet.
    received: Vec<u8>,
    waiting: VecDeque<Waiting>,
    /// What is sent from here on waits for this record.
    hold: u64,
    /// On the way to the client.
    pub down: VecDeque<u8>,
    pub client_is_there: bool,
    /// The broker has neither closed it nor been told that it is closed.
    pub broker_is_there: bool,
    congested: bool,
    drain_wanted: bool,
    pub opened: u64,
    pub last_read: u64,
    /// The broker has read the CONNECT.
    said_connect: bool,
    /// The broker has read a DISCONNECT.
    pub said_disconnect: bool,
    pub keep_alive_ms: u64,
    /// Messages that the broker has read here, by Packet Identifier.
    pub read: BTreeMap<u16, Number>,
}

/// What the world saw at the broker's door, for the model.
pub enum Seen {
    /// The broker reads a packet.
    Read { link: u32, packet: Packet<'static>, message: Option<(String, Vec<u8>)> },
    /// The broker was told that the connection is gone.
    Told { link: u32 },
    /// A packet was laid out for a client, at this time.
    Sent { link: u32, bytes: Vec<u8> },
    /// A packet left the broker.
    Left { link: u32, first: u8, packet_id: u16, is_error: bool },
    /// The broker closed the connection.
    Closed { link: u32 },
}

pub struct World {
    pub now: u64,
    /// When the broker's process began.
    pub booted: u64,
    pub settings: Settings,
    pub shards: Vec<Shard>,
    pub mailboxes: BTreeMap<(u16, u16), VecDeque<ShardMessage>>,
    /// Where the machine has one.
    pub router: Router,
    pub links: BTreeMap<u32, Link>,
    next_link: u32,
    /// With the time at which it was seen, in ms.
    pub seen: Vec<(u64, Seen)>,
    /// For the trace.
    pub notes: Option<Vec<String>>,
    /// Effects until the process dies amid the next ones.
    pub dies_in: Option<usize>,
    pub is_dead: bool,
    /// No store takes anything.
    pub is_failing: bool,
    pub congests: bool,
    pub fault: Option<Fault>,
}

impl World {
    pub fn new(settings: Settings, shards: u16, congests: bool) -> Self {
        let mut world = Self {
            now: 1_000,
            booted: 1_000,
            shards: Vec::new(),
            mailboxes: BTreeMap::new(),
            router: Router::default(),
            links: BTreeMap::new(),
            next_link: 0,
            seen: Vec::new(),
            notes: None,
            dies_in: None,
            is_dead: false,
            is_failing: false,
            congests,
            fault: None,
            settings,
        };
        for shard in 0..shards {
            let broker = Broker::new(ShardId(shard), shards, world.settings.clone(), u64::from(shard));
            world.shards.push(Shard { broker, disk: Disk::default(), links: BTreeMap::new() });
        }
        world
    }

    fn see(&mut self, seen: Seen) {
        self.seen.push((self.now, seen));
    }

    fn time(&self) -> Time {
        Time(self.now - self.booted)
    }

    pub fn open(&mut self, client: usize, shard: usize) -> u32 {
        let link = self.next_link;
        self.next_link += 1;
        // An older CONNECT that came after a newer one would take over the newer connection, and no client could make sense of that.
        for older in self.links.values_mut().filter(|older| older.client == client && !older.said_connect) {
            older.up.clear();
            older.received.clear();
        }
        // Slots are used again, generations are not.
        let mut slot = 0;
        while self.links.values().any(|other| other.shard == shard && other.broker_is_there && other.id.slot() == slot) {
            slot += 1;
        }
        let id = ConnectionId::new(slot as u32, link);
        let opened = Link {
            shard,
            client,
            id,
            version: ProtocolVersion::V311,
            up: VecDeque::new(),
            received: Vec::new(),
            waiting: VecDeque::new(),
            hold: 0,
            down: VecDeque::new(),
            client_is_there: true,
            broker_is_there: true,
            congested: false,
            drain_wanted: false,
            opened: self.now,
            last_read: self.now,
            said_connect: false,
            said_disconnect: false,
            keep_alive_ms: 0,
            read: BTreeMap::new(),
        };
        self.links.insert(link, opened);
        self.shards[shard].links.insert(id, link);
        let peer = format!("127.0.0.1:{}", 1024 + link);
        self.input(shard, Input::Opened { connection: id, origin: Origin::Listener(0), peer, certificate_user: None });
        link
    }

    /// One input to one machine; its effects are performed in their order, as far as the process lives.
    pub fn input(&mut self, shard: usize, input: Input<'_>) {
        if self.is_dead {
            return;
        }
        let mut out = Outbox::default();
        let time = self.time();
        self.shards[shard].broker.handle(time, input, &mut out);
        let mut answers = Answers::default();
        let Outbox { arena, effects } = out;
        for effect in effects {
            if let Some(left) = &mut self.dies_in {
                if *left == 0 {
                    self.is_dead = true;
                    return;
                }
                *left -= 1;
            }
            self.perform(shard, effect, &arena, &mut answers);
        }
        self.shards[shard].disk.end_input();
        self.release(shard);
        for link in answers.drains {
            self.drain(link);
        }
        for link in answers.not_stored {
            self.not_stored(link);
        }
    }

    fn perform(&mut self, shard: usize, effect: Effect, arena: &[u8], answers: &mut Answers) {
        match effect {
            Effect::Send { connection, start, end, packet_id } => {
                let packet = &arena[start as usize..end as usize];
                let link = self.shards[shard].links.get(&connection);
                let link = *link.unwrap_or_else(|| panic!("a send to a connection that is not open: {connection:?} {packet:02x?}"));
                let mut bytes = arena[start as usize..end as usize].to_vec();
                assert!(!bytes.is_empty(), "an empty send");
                if let Some((at, id)) = packet_id {
                    bytes[at as usize..][..2].copy_from_slice(&id.get().to_be_bytes());
                }
                if let Some(fault) = self.fault {
                    let Some(changed) = fault.bytes(bytes) else { return };
                    bytes = changed;
                }
                self.see(Seen::Sent { link, bytes: bytes.clone() });
                self.wait(link, Some(bytes));
            }
            Effect::Close { connection } => {
                let link = self.shards[shard].links.remove(&connection).expect("a close of a connection that is open");
                self.see(Seen::Closed { link });
                if let Some(closed) = self.links.get_mut(&link) {
                    closed.up.clear();
                    closed.received.clear();
                }
                self.wait(link, None);
            }
            Effect::WhenDrained { connection } => {
                if let Some(link) = self.shards[shard].links.get(&connection) {
                    answers.drains.push(*link);
                }
            }
            Effect::Hold { connection, until } => {
                let Some(link) = self.shards[shard].links.get(&connection).copied() else { return };
                let is_ignored = match self.fault {
                    Some(Fault::AcknowledgedBeforeCommit) => true,
                    Some(Fault::AcknowledgedWhileFailing) => self.is_failing,
                    _ => false,
                };
                if let Some(on) = self.links.get_mut(&link).filter(|_| !is_ignored) {
                    on.hold = on.hold.max(until);
                    answers.not_stored.extend(Some(link).filter(|_| self.is_failing && until > self.shards[shard].disk.committed()));
                }
            }
            Effect::Authenticate { .. } => panic!("nobody has a password"),
            Effect::Persist(record) => {
                let disk = &mut self.shards[shard].disk;
                disk.append(match self.fault {
                    Some(fault) => fault.record(record),
                    None => Some(record),
                });
                if self.fault == Some(Fault::CommitTornAmidAnInput) {
                    disk.end_input();
                }
            }
            Effect::ToShard { to, message } => self.mailboxes.entry((shard as u16, to.0)).or_default().push_back(message),
            Effect::Route(order) => self.router.order(order),
            Effect::Note(notice) => {
                if let Some(notes) = &mut self.notes {
                    notes.push(format!("{notice:?}"));
                }
            }
        }
    }

    fn wait(&mut self, link: u32, bytes: Option<Vec<u8>>) {
        if let Some(on) = self.links.get_mut(&link) {
            on.waiting.push_back(Waiting { after: on.hold, bytes });
        }
    }

    /// Lets go what no longer waits for a commit.
    pub fn release(&mut self, shard: usize) {
        let committed = self.shards[shard].disk.committed();
        let links: Vec<u32> =
            self.links.iter().filter(|(_, on)| on.shard == shard && !on.waiting.is_empty()).map(|(link, _)| *link).collect();
        for link in links {
            while let Some(on) = self.links.get_mut(&link).filter(|on| on.waiting.front().is_some_and(|first| first.after <= committed)) {
                let Some(Waiting { bytes: Some(bytes), .. }) = on.waiting.pop_front() else {
                    on.broker_is_there = false;
                    continue;
                };
                let is_error = matches!(bytes[0] >> 4, 4 | 5 | 7) && bytes.get(4).is_some_and(|reason| *reason >= 0x80);
                let (first, id) = (bytes[0], [bytes.get(2).copied().unwrap_or(0), bytes.get(3).copied().unwrap_or(0)]);
                on.down.extend(bytes);
                self.see(Seen::Left { link, first, packet_id: u16::from_be_bytes(id), is_error });
                self.congest(link);
            }
        }
    }

    /// The process is killed, and another begins with what the disks hold.
    pub fn crash(&mut self, random: &mut Random) {
        self.is_dead = false;
        self.is_failing = false;
        self.dies_in = None;
        self.mailboxes.clear();
        for link in self.links.values_mut() {
            link.broker_is_there = false;
            link.up.clear();
            link.waiting.clear();
        }
        let count = self.shards.len() as u16;
        let mut effects = Vec::new();
        for number in 0..count {
            let time = self.time();
            let state = self.shards[usize::from(number)].disk.crash(random);
            let mut out = Outbox::default();
            let broker = Broker::restore((ShardId(number), count), self.settings.clone(), u64::from(number), state, time, &mut out);
            let shard = &mut self.shards[usize::from(number)];
            shard.broker = broker;
            shard.links.clear();
            effects.push(out);
        }
        for (number, out) in effects.into_iter().enumerate() {
            for effect in out.effects {
                self.perform(number, effect, &out.arena, &mut Answers::default());
            }
            self.shards[number].disk.end_input();
        }
        // Interests reach the others before anything else does.
        for ((from, to), mailbox) in std::mem::take(&mut self.mailboxes) {
            for message in mailbox {
                self.input(usize::from(to), Input::FromShard { from: ShardId(from), message });
            }
        }
    }

    fn congest(&mut self, link: u32) {
        let Some(to) = self.links.get_mut(&link).filter(|to| !to.congested && to.down.len() > CONGESTED_BYTES) else { return };
        let (shard, connection) = (to.shard, to.id);
        if self.congests && self.shards[shard].links.contains_key(&connection) {
            to.congested = true;
            self.input(shard, Input::Congested { connection });
        }
    }

    /// The socket has taken what was sent.
    fn drain(&mut self, link: u32) {
        let Some(of) = self.links.get_mut(&link) else { return };
        if of.down.len() > CONGESTED_BYTES / 4 {
            of.drain_wanted = true;
            return;
        }
        of.congested = false;
        of.drain_wanted = false;
        let (shard, connection) = (of.shard, of.id);
        if self.shards[shard].links.contains_key(&connection) {
            self.input(shard, Input::Drained { connection });
        }
    }

    /// `count` bytes reach the broker; where there are none left and the client is gone, the broker learns it.
    pub fn carry_up(&mut self, link: u32, count: usize) {
        let Some(on) = self.links.get_mut(&link) else { return };
        let (shard, connection) = (on.shard, on.id);
        if !self.shards[shard].links.contains_key(&connection) {
            return; // closed by the broker
        }
        if on.up.is_empty() && !on.client_is_there {
            on.broker_is_there = false;
            self.shards[shard].links.remove(&connection);
            self.see(Seen::Told { link });
            return self.input(shard, Input::Closed { connection, error: None });
        }
        let count = count.min(on.up.len());
        on.received.extend(on.up.drain(..count));
        self.feed(link);
    }

    /// Whole packets go in, as in the driver.
    fn feed(&mut self, link: u32) {
        while !self.is_dead {
            let now = self.now;
            let Some(on) = self.links.get_mut(&link) else { return };
            let (shard, connection) = (on.shard, on.id);
            if !self.shards[shard].links.contains_key(&connection) {
                return;
            }
            let bytes = std::mem::take(&mut on.received);
            match codec::decode_from_client(&bytes, on.version, u32::MAX) {
                Ok(Decoded::Packet { packet, len }) => {
                    if let Packet::Connect(connect) = &packet {
                        on.said_connect = true;
                        on.version = connect.version;
                        on.keep_alive_ms = u64::from(connect.keep_alive) * 1500;
                    }
                    on.said_disconnect |= matches!(packet, Packet::Disconnect(_));
                    on.last_read = now;
                    on.received = bytes[len..].to_vec();
                    let seen = seen_of(link, &packet);
                    self.see(seen);
                    self.input(shard, Input::Packet { connection, packet, len });
                }
                Ok(Decoded::Incomplete { .. }) => {
                    on.received = bytes;
                    return;
                }
                Err(error) => panic!("a client sent what the codec refuses: {error}"),
            }
        }
    }

    /// Takes `count` bytes off the way to the client.
    pub fn carry_down(&mut self, link: u32, count: usize) -> Vec<u8> {
        let Some(on) = self.links.get_mut(&link) else { return Vec::new() };
        let count = count.min(on.down.len());
        let bytes = on.down.drain(..count).collect();
        if (on.congested || on.drain_wanted) && on.down.len() <= CONGESTED_BYTES / 4 {
            self.drain(link);
        }
        bytes
    }

    pub fn mail(&mut self, random: &mut Random) -> bool {
        let full: Vec<(u16, u16)> = self.mailboxes.iter().filter(|(_, mailbox)| !mailbox.is_empty()).map(|(pair, _)| *pair).collect();
        if full.is_empty() {
            return self.routes(random);
        }
        let (from, to) = *random.pick(&full);
        let Some(mailbox) = self.mailboxes.get_mut(&(from, to)) else { return false };
        let message = if self.fault == Some(Fault::MailboxReordered) { mailbox.pop_back() } else { mailbox.pop_front() };
        let is_lost = self.fault == Some(Fault::MailboxLossy) && random.one_in(10);
        if let Some(message) = message.filter(|_| !is_lost) {
            self.input(usize::from(to), Input::FromShard { from: ShardId(from), message });
        }
        true
    }

    /// The router outside does one thing.
    fn routes(&mut self, random: &mut Random) -> bool {
        let Some(said) = self.router.turn(random) else { return false };
        if let Some(answer) = said {
            self.input(0, Input::FromRouter { answer });
        }
        true
    }

    /// Every store begins to fail: who waits for it waits in vain, and is closed.
    pub fn fail(&mut self) {
        self.is_failing = true;
        for shard in 0..self.shards.len() {
            self.input(shard, Input::StoreFailing { failing: true });
        }
        let waiting: Vec<u32> = self.links.iter().filter(|(_, on)| !on.waiting.is_empty()).map(|(link, _)| *link).collect();
        for link in waiting {
            self.not_stored(link);
        }
    }

    /// Everything until now is stored.
    pub fn recover(&mut self) {
        self.is_failing = false;
        for shard in 0..self.shards.len() {
            self.input(shard, Input::StoreFailing { failing: false });
            self.commit(shard);
        }
    }

    /// What waits for the store is taken back, and its connection closed.
    fn not_stored(&mut self, link: u32) {
        let Some(on) = self.links.get_mut(&link).filter(|_| !self.is_dead) else { return };
        on.hold = 0;
        let closes = std::mem::take(&mut on.waiting).iter().any(|waiting| waiting.bytes.is_none());
        on.broker_is_there &= !closes;
        let (shard, connection) = (on.shard, on.id);
        if self.shards[shard].links.contains_key(&connection) {
            self.input(shard, Input::NotStored { connection });
        }
    }

    pub fn commit(&mut self, shard: usize) {
        if self.is_failing {
            return;
        }
        self.router.committed();
        if let Some(count) = self.shards[shard].disk.commit() {
            self.input(shard, Input::Stored { count });
            self.release(shard);
        }
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.shards.iter().filter_map(|shard| shard.broker.next_deadline()).min().map(|due| due.0 + self.booted)
    }

    /// Time passes to `end`, deadline by deadline.
    pub fn pass_to(&mut self, end: u64) {
        let mut idle = 0;
        while let Some(due) = self.next_deadline().filter(|due| *due <= end && !self.is_dead) {
            idle = if due > self.now { 0 } else { idle + 1 };
            assert!(idle < 1_000, "deadlines without end");
            self.now = self.now.max(due);
            for shard in 0..self.shards.len() {
                let is_due = self.shards[shard].broker.next_deadline().is_some_and(|at| at <= self.time());
                if is_due {
                    self.input(shard, Input::DeadlineReached);
                }
            }
        }
        if !self.is_dead {
            self.now = self.now.max(end);
        }
    }

    /// Forgets links that nobody has.
    pub fn sweep(&mut self) {
        self.links.retain(|_, link| link.client_is_there || link.broker_is_there);
    }
}

/// What the model must know of a packet.
fn seen_of(link: u32, packet: &Packet<'_>) -> Seen {
    let (message, packet) = match packet {
        Packet::Publish(publish) => {
            let Publish { dup, qos, retain, packet_id, .. } = *publish;
            let bare = Publish { dup, qos, retain, packet_id, topic: "", payload: b"", properties: Vec::new() };
            (Some((publish.topic.to_owned(), publish.payload.to_vec())), Packet::Publish(bare))
        }
        Packet::Connect(connect) => (None, Packet::Connect(connect.clone())),
        Packet::Disconnect(disconnect) => (None, Packet::Disconnect(disconnect.clone())),
        Packet::Pubrel(ack) => (None, Packet::Pubrel(ack.clone())),
        _ => (None, Packet::Pingreq),
    };
    Seen::Read { link, packet, message }
}

/// The property that sets a session's life, if it is said.
pub fn session_expiry(properties: &[Property]) -> Option<u32> {
    properties.iter().find_map(|property| if let Property::SessionExpiryInterval(secs) = property { Some(*secs) } else { None })
}
