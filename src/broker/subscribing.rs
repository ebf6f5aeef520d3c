//! Subscriptions in the tree, what other shards must know of them, and the SUBACK that waits until they do.

use std::collections::{HashSet, VecDeque};

use super::Broker;
use super::deadlines::Timer;
use super::interface::{ConnectionId, Effect, Outbox, ShardId, ShardMessage, Time};
use super::message::{Message, Publication};
use super::session::Held;
use super::shard::Interest;
use super::subscriptions::Subscriber;
use crate::access::Access;
use crate::mqtt::{Packet, PacketId, ReasonCode, Suback, topic_filter};

/// Retained messages to send for one new Subscription.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) filter: Box<str>,
}

/// A SUBSCRIBE whose subscriptions stand, but which is not answered yet.
#[derive(Debug)]
pub(super) struct Requested {
    connection: ConnectionId,
    packet_id: PacketId,
    pub(super) reasons: Vec<ReasonCode>,
    pub(super) replays: Vec<Replay>,
    /// Filters that other shards were not told of before.
    news: Vec<Interest>,
}

impl Requested {
    pub(super) fn new(connection: ConnectionId, packet_id: PacketId) -> Self {
        Self { connection, packet_id, reasons: Vec::new(), replays: Vec::new(), news: Vec::new() }
    }
}

/// A SUBACK that waits for this many answers of other shards.
#[derive(Debug)]
pub(super) struct AwaitedSuback {
    requested: Requested,
    missing: usize,
}

fn interest_of(filter: &str) -> Interest {
    match topic_filter::parse(filter) {
        Some(parsed) => Interest { share_name: parsed.share_name.map(Into::into), filter: parsed.filter.into() },
        None => Interest { share_name: None, filter: filter.into() },
    }
}

impl Broker {
    pub(super) fn add_subscription(&mut self, key: u32, filter: &str, held: Held, requested: &mut Requested, out: &mut Outbox) {
        requested.news.extend(self.stand(key, filter, held, out));
    }

    /// Puts a Subscription into the tree; gives what the other shards were not told of before.
    pub(super) fn stand(&mut self, key: u32, filter: &str, held: Held, out: &mut Outbox) -> Option<Interest> {
        let interest = interest_of(filter);
        let share_name = interest.share_name.as_deref();
        let routed = if share_name.is_none() { self.subscribe_outside(key, filter, out) } else { 0 };
        let stand = self.local.entry(&interest.filter)?;
        let was_wanted = stand.wants(share_name);
        let subscriber = Subscriber { session: key, options: held.options, identifier: held.identifier, routed };
        let is_new = stand.put(share_name, &interest.filter, subscriber);
        if is_new {
            if share_name.is_some() {
                self.counters.shared_subscriptions += 1;
            } else {
                self.counters.subscriptions += 1;
            }
        }
        // Told is not yet known: whoever comes second waits, too.
        let is_known = was_wanted && !self.awaited_subacks.values().any(|awaited| awaited.requested.news.contains(&interest));
        (!is_known && self.shards > 1).then_some(interest)
    }

    pub(super) fn remove_subscription(&mut self, key: u32, filter: &str, out: &mut Outbox) {
        let interest = interest_of(filter);
        let share_name = interest.share_name.as_deref();
        let changed = self.local.change(&interest.filter, |stand| {
            let removed = stand.remove(share_name, &interest.filter, key);
            (removed, removed && !stand.wants(share_name))
        });
        let (removed, unwanted) = changed.unwrap_or_default();
        if removed {
            let count = if share_name.is_some() { &mut self.counters.shared_subscriptions } else { &mut self.counters.subscriptions };
            *count = count.saturating_sub(1);
        }
        self.unsubscribe_outside(key, filter, out);
        if unwanted {
            for to in self.other_shards() {
                self.tell(to, ShardMessage::NotInterested { interest: interest.clone() }, out);
            }
        }
    }

    /// Answers at once where no other shard needs to know, else when all do.
    pub(super) fn answer_when_known(&mut self, key: u32, requested: Requested, now: Time, out: &mut Outbox) {
        let missing = requested.news.len() * usize::from(self.shards.saturating_sub(1));
        if missing == 0 {
            return self.answer(key, &requested, now, out);
        }
        let token = self.next_token;
        self.next_token += 1;
        let news = requested.news.clone();
        self.awaited_subacks.insert(token, AwaitedSuback { requested, missing });
        for to in self.other_shards() {
            for interest in &news {
                self.tell(to, ShardMessage::Interested { interest: interest.clone(), token }, out);
            }
        }
    }

    /// SUBACK, then the retained messages.
    fn answer(&mut self, key: u32, requested: &Requested, now: Time, out: &mut Outbox) {
        let suback = Suback { packet_id: requested.packet_id, properties: Vec::new(), reasons: requested.reasons.clone() };
        self.reply(requested.connection, &Packet::Suback(suback), out);
        if requested.replays.is_empty() {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.replays.extend(requested.replays.iter().map(|replay| replay.filter.clone()));
        if session.replays.len() > 2 * session.subscriptions.len() + REPLAYS_SPARE {
            // The same filters again and again.
            let mut seen = HashSet::new();
            session.replays.retain(|filter| seen.insert(filter.clone()));
        }
        let others_wait = !self.replaying.is_empty();
        if !self.replaying.contains(&key) {
            self.replaying.push_back(key);
        }
        if !others_wait {
            self.replay_some(now, out);
        }
    }

    /// Sends retained messages for new subscriptions. Thousands of filters times thousands of retained messages are many seconds of
    /// work: some is done now, and the rest after others had their turn.
    pub(super) fn replay_some(&mut self, now: Time, out: &mut Outbox) {
        let mut looks = 0;
        while let Some(key) = self.replaying.pop_front() {
            while let Some((filter, held)) = self.next_replay(key) {
                if let Some(held) = held {
                    self.replay(key, &filter, held, &mut looks, now, out);
                }
                looks += 1;
                if looks > LOOKS_MAX {
                    self.replaying.push_back(key);
                    self.deadlines.set(Time(now.0 + 1), Timer::Replay);
                    return;
                }
            }
        }
    }

    /// The next filter whose retained messages a session waits for, and its Subscription unless that has ended meanwhile.
    fn next_replay(&mut self, key: u32) -> Option<(Box<str>, Option<Held>)> {
        let session = self.sessions.get_mut(key)?;
        let Some(filter) = session.replays.pop_front() else {
            session.replays = VecDeque::new();
            return None;
        };
        let held = session.subscriptions.get(&filter).copied();
        Some((filter, held))
    }

    /// Sends the retained messages that match, with RETAIN set `[MQTT-3.3.1-8]`.
    fn replay(&mut self, key: u32, filter: &str, held: Held, looks: &mut usize, now: Time, out: &mut Outbox) {
        let to = Subscriber { session: key, options: held.options, identifier: held.identifier, routed: 0 };
        let messages = self.retained.matching(filter, now, looks);
        let extra = self.retained.len();
        for message in &messages {
            if !self.source_may_still(message) {
                continue;
            }
            self.offer(&mut Publication::of(message), to, true, extra, now, out);
            // The rest waits in the queue until the socket has taken what was sent.
            if out.arena.len() > REPLAY_BYTES_MAX {
                self.wait_for_drain(key, out);
            }
        }
    }

    pub(super) fn wait_for_drain(&mut self, key: u32, out: &mut Outbox) {
        if let Some(wire) = self.sessions.get_mut(key).and_then(|session| session.wire.as_mut())
            && !wire.congested
        {
            wire.congested = true;
            out.effects.push(Effect::WhenDrained { connection: wire.connection });
        }
    }

    /// `check_retain_source`: whoever published it must be permitted to today.
    fn source_may_still(&self, message: &Message) -> bool {
        let Some(publisher) = message.publisher.as_ref().filter(|_| self.settings.conf.check_retain_source && self.has_acl) else {
            return true;
        };
        self.permits(publisher, &message.topic, Access::Write)
    }

    /// One answer more for a SUBACK that waits.
    pub(super) fn interest_known(&mut self, token: u64, now: Time, out: &mut Outbox) {
        let Some(awaited) = self.awaited_subacks.get_mut(&token) else { return };
        awaited.missing = awaited.missing.saturating_sub(1);
        if awaited.missing == 0
            && let Some(awaited) = self.awaited_subacks.remove(&token)
            && let Some(key) = self.session_key(awaited.requested.connection)
        {
            self.answer(key, &awaited.requested, now, out);
        }
    }

    pub(super) fn hear_shard(&mut self, from: ShardId, message: ShardMessage, now: Time, out: &mut Outbox) {
        match message {
            ShardMessage::Interested { interest, token } => {
                let filter = interest.filter.clone();
                if let Some(stand) = self.remote.entry(&filter) {
                    stand.add(interest, from);
                }
                self.tell(from, ShardMessage::InterestKnown { token }, out);
            }
            ShardMessage::NotInterested { interest } => {
                self.remote.change(&interest.filter, |stand| stand.remove(&interest, from));
            }
            ShardMessage::InterestKnown { token } => self.interest_known(token, now, out),
            ShardMessage::Letter { number, letter } => self.read_letter(from, number, letter, now, out),
            ShardMessage::LettersRead { number } => self.letters_read(from, number, out),
        }
    }
}

/// Retained messages that are compared with filters before others have their turn.
const LOOKS_MAX: usize = 50_000;

/// Filters that may wait twice for their retained messages.
const REPLAYS_SPARE: usize = 1024;

/// Bytes of retained messages that one SUBSCRIBE lays out at once.
const REPLAY_BYTES_MAX: usize = 256 << 10;
