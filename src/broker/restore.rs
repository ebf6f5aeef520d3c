//! A machine from the durable state of the one before it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Broker;
use super::deadlines::Timer;
use super::in_flight::{InFlight, Outgoing};
use super::interface::{Effect, Outbox, Settings, ShardId, ShardMessage, Time};
use super::record::Record;
use super::session::{Held, Session};
use super::state::{Presence, State, StoredSession};

/// Seconds that a client which was connected when the broker ended has to come back before its will is published, whatever its Will
/// Delay Interval says: the broker left, not the client.
const WILL_GRACE_SECS: u32 = 60;

impl Broker {
    /// Like [`Broker::new`], with what was kept. `out` gets records of what has ended meanwhile, and what the other shards must
    /// know of its interests before anything else happens to them. Sessions whose client was connected begin to expire now; wills that are due are published at the first deadline.
    pub fn restore((shard, shards): (ShardId, u16), settings: Settings, seed: u64, state: State, now: Time, out: &mut Outbox) -> Self {
        let mut broker = Self::new(shard, shards, settings, seed);
        let before = out.effects.len();
        let State { sessions, retained, post } = state;
        broker.retained = retained;
        broker.expire_retained(now, out);
        for (_, stored) in sessions {
            broker.restore_session(stored, now, out);
        }
        broker.restore_post(post, out);
        broker.hold_back(before, out);
        broker
    }

    fn restore_session(&mut self, stored: StoredSession, now: Time, out: &mut Outbox) {
        let was_connected = stored.presence == Presence::Connected;
        let subscriptions: Vec<(Box<str>, Held)> = stored
            .subscriptions
            .iter()
            .map(|(filter, (options, identifier))| (filter.clone(), Held { options: *options, identifier: *identifier }))
            .collect();
        let mut session = Session {
            identity: stored.client,
            version: stored.version,
            wire: None,
            expiry_secs: stored.expiry_secs,
            expires_at: None,
            subscriptions: subscriptions.iter().cloned().collect(),
            replays: VecDeque::new(),
            outgoing: Outgoing::default(),
            incoming: BTreeMap::new(),
            will: None,
            will_at: None,
            mount_point: stored.mount_point,
            max_qos: stored.max_qos,
            is_dropping: false,
            is_recorded: true,
            last_record: 0,
        };
        for (number, stored) in stored.deliveries {
            let outgoing = &mut session.outgoing;
            outgoing.restore_numbers(number, stored.flight.map(|(packet_id, _)| packet_id).or(stored.delivery.packet_id));
            match stored.flight {
                Some((packet_id, awaiting)) => {
                    outgoing.in_flight_bytes += stored.delivery.message.bytes();
                    outgoing.in_flight.push_back(InFlight { packet_id, awaiting, is_due_again: false, delivery: stored.delivery });
                }
                None if stored.delivery.message.is_expired(now) => {
                    let client = Arc::clone(&session.identity);
                    out.effects.push(Effect::Persist(Record::Done { client, number }));
                }
                None => outgoing.enqueue(stored.delivery, false),
            }
        }
        session.outgoing.restore_numbers(0, stored.last_packet_id);
        session.incoming = stored.received.into_iter().map(|(packet_id, message)| (packet_id.get(), message)).collect();
        let (will, will_at) = stored.will.unzip();
        let grace = |delay: u32| now.plus_secs(delay.max(WILL_GRACE_SECS).into());
        session.will_at = will.as_ref().and_then(|will| will_at.flatten().or_else(|| Some(grace(will.delay_secs))));
        session.will = will;
        self.place_restored(session, subscriptions, (was_connected, stored.presence), now, out);
    }

    fn place_restored(
        &mut self,
        session: Session,
        subscriptions: Vec<(Box<str>, Held)>,
        (was_connected, presence): (bool, Presence),
        now: Time,
        out: &mut Outbox,
    ) {
        let client = Arc::clone(&session.identity);
        let will_at = session.will_at;
        let key = self.sessions.insert(session);
        self.by_client_id.insert(client.client_id.clone(), key);
        self.join_router(key, out);
        for (filter, held) in subscriptions {
            if let Some(interest) = self.stand(key, &filter, held, out) {
                for to in self.other_shards() {
                    let message = ShardMessage::Interested { interest: interest.clone(), token: u64::MAX };
                    out.effects.push(Effect::ToShard { to, message });
                }
            }
        }
        let expires_at = match presence {
            Presence::Connected => self.session_end(key, now),
            Presence::Left { expires_at } => expires_at,
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.expires_at = expires_at;
        }
        if let Some(at) = expires_at {
            self.deadlines.set(at, Timer::SessionExpiry(key));
        }
        if let Some(at) = will_at {
            self.deadlines.set(at, Timer::WillDelay(key));
        }
        if was_connected {
            out.effects.push(Effect::Persist(Record::Left { client, expires_at, will_at }));
        }
    }
}
