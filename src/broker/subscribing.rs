//! Subscriptions in the tree, what other shards must know of them, and the SUBACK that waits until they do.

use std::sync::Arc;

use super::Broker;
use super::interface::{ConnectionId, Effect, Outbox, ShardId, ShardMessage, Time};
use super::message::{Message, Publication};
use super::reply;
use super::session::Held;
use super::shard::Interest;
use super::subscriptions::Subscriber;
use crate::access::Access;
use crate::mqtt::{Packet, PacketId, ProtocolVersion, ReasonCode, Suback, topic_filter};

/// Retained messages to send for one new Subscription.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) filter: Box<str>,
    pub(super) held: Held,
}

/// A SUBSCRIBE whose subscriptions stand, but which is not answered yet.
#[derive(Debug)]
pub(super) struct Requested {
    connection: ConnectionId,
    packet_id: PacketId,
    version: ProtocolVersion,
    pub(super) reasons: Vec<ReasonCode>,
    pub(super) replays: Vec<Replay>,
    /// Filters that other shards were not told of before.
    news: Vec<Interest>,
}

impl Requested {
    pub(super) fn new(connection: ConnectionId, packet_id: PacketId, version: ProtocolVersion) -> Self {
        Self { connection, packet_id, version, reasons: Vec::new(), replays: Vec::new(), news: Vec::new() }
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
    pub(super) fn add_subscription(&mut self, key: u32, filter: &str, held: Held, requested: &mut Requested, _out: &mut Outbox) {
        let interest = interest_of(filter);
        let share_name = interest.share_name.as_deref();
        let Some(stand) = self.local.entry(&interest.filter) else { return };
        let was_wanted = stand.wants(share_name);
        let is_new =
            stand.put(share_name, &interest.filter, Subscriber { session: key, options: held.options, identifier: held.identifier });
        if is_new {
            if share_name.is_some() {
                self.counters.shared_subscriptions += 1;
            } else {
                self.counters.subscriptions += 1;
            }
        }
        if !was_wanted && self.shards > 1 {
            requested.news.push(interest);
        }
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
        if unwanted {
            for to in self.other_shards() {
                out.effects.push(Effect::ToShard { to, message: ShardMessage::NotInterested { interest: interest.clone() } });
            }
        }
    }

    /// Answers at once where no other shard needs to know, else when all do.
    pub(super) fn answer_when_known(&mut self, key: u32, mut requested: Requested, now: Time, out: &mut Outbox) {
        let news = std::mem::take(&mut requested.news);
        let missing = news.len() * usize::from(self.shards.saturating_sub(1));
        if missing == 0 {
            return self.answer(key, &requested, now, out);
        }
        let token = self.next_token;
        self.next_token += 1;
        self.awaited_subacks.insert(token, AwaitedSuback { requested, missing });
        for to in self.other_shards() {
            for interest in &news {
                out.effects.push(Effect::ToShard { to, message: ShardMessage::Interested { interest: interest.clone(), token } });
            }
        }
    }

    /// SUBACK, then the retained messages.
    fn answer(&mut self, key: u32, requested: &Requested, now: Time, out: &mut Outbox) {
        let suback = Suback { packet_id: requested.packet_id, properties: Vec::new(), reasons: requested.reasons.clone() };
        reply::packet(requested.connection, requested.version, &Packet::Suback(suback), out);
        for replay in &requested.replays {
            self.replay(key, replay, now, out);
        }
    }

    /// Sends the retained messages that match, with RETAIN set `[MQTT-3.3.1-8]`.
    fn replay(&mut self, key: u32, replay: &Replay, now: Time, out: &mut Outbox) {
        let to = Subscriber { session: key, options: replay.held.options, identifier: replay.held.identifier };
        let messages: Vec<Arc<Message>> = self.retained.matching(&replay.filter, now).cloned().collect();
        let extra = self.retained.len();
        for (count, message) in messages.iter().enumerate() {
            if !self.source_may_still(message) {
                continue;
            }
            self.offer(&mut Publication::of(message), to, true, extra, now, out);
            // The rest waits in the queue until the socket has taken what was sent.
            if count % 64 == 63 && out.arena.len() > REPLAY_BYTES_MAX {
                self.wait_for_drain(key, out);
            }
        }
    }

    fn wait_for_drain(&mut self, key: u32, out: &mut Outbox) {
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

    pub(super) fn hear_shard(&mut self, from: ShardId, message: ShardMessage, now: Time, out: &mut Outbox) {
        match message {
            ShardMessage::Interested { interest, token } => {
                let filter = interest.filter.clone();
                if let Some(stand) = self.remote.entry(&filter) {
                    stand.add(interest, from);
                }
                out.effects.push(Effect::ToShard { to: from, message: ShardMessage::InterestKnown { token } });
            }
            ShardMessage::NotInterested { interest } => {
                self.remote.change(&interest.filter, |stand| stand.remove(&interest, from));
            }
            ShardMessage::InterestKnown { token } => {
                let Some(awaited) = self.awaited_subacks.get_mut(&token) else { return };
                awaited.missing = awaited.missing.saturating_sub(1);
                if awaited.missing == 0
                    && let Some(awaited) = self.awaited_subacks.remove(&token)
                    && let Some(key) = self.session_key(awaited.requested.connection)
                {
                    self.answer(key, &awaited.requested, now, out);
                }
            }
            ShardMessage::Publish { message, plain, shares } => self.route_from_shard(&message, plain, &shares, now, out),
            ShardMessage::Retained { message } => self.retained.store(message),
        }
    }
}

/// Bytes of retained messages that one SUBSCRIBE lays out at once.
const REPLAY_BYTES_MAX: usize = 256 << 10;
