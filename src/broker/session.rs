//! Session State (4.1) and what is offered to a session's client.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::in_flight::{Awaiting, Outgoing};
use super::interface::{Effect, Outbox, Time};
use super::message::{Delivery, Form, Identity, Message, Publication};
use super::record::Record;
use super::will::Will;
use super::wire::Wire;
use crate::conf::Limits;
use crate::mqtt::{PacketId, ProtocolVersion, Qos, SubscriptionOptions};

/// A session that never expires (3.1.2.11.2).
pub(super) const NEVER: u32 = u32::MAX;

/// A Subscription of this session, under its filter as sent (with `$share/…` and mount point).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: u32,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) identity: Arc<Identity>,
    pub(super) version: ProtocolVersion,
    pub(super) wire: Option<Wire>,
    /// Seconds that the session outlives its connection; 0 ends with it.
    pub(super) expiry_secs: u32,
    /// Set while nobody is connected and the session will end by itself.
    pub(super) expires_at: Option<Time>,
    pub(super) subscriptions: BTreeMap<Box<str>, Held>,
    /// Filters whose retained messages the connected client still waits for.
    pub(super) replays: VecDeque<Box<str>>,
    pub(super) outgoing: Outgoing,
    /// QoS 2 messages that wait for their PUBREL, by Packet Identifier.
    pub(super) incoming: BTreeMap<u16, Arc<Message>>,
    pub(super) will: Option<Arc<Will>>,
    /// Set while a will waits for its Will Delay Interval.
    pub(super) will_at: Option<Time>,
    /// Part of the listener's `mount_point` that is taken off topics sent to this client.
    pub(super) mount_point: Option<Box<str>>,
    pub(super) max_qos: Qos,
    /// Messages were dropped since the client connected; said once.
    pub(super) is_dropping: bool,
    /// Its records are kept: it is durable, and something keeps records.
    pub(super) is_recorded: bool,
    /// The number of the last record about it.
    pub(super) last_record: u64,
}

/// What became of an offered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Sent,
    Queued,
    /// Too large for this client, or a QoS 0 message for an absent one: as if delivered.
    Discarded,
    /// A limit was reached.
    Dropped,
}

/// What decides about an offer besides session and message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) limits: &'a Limits,
    pub(super) queue_qos0: bool,
    /// Messages that may wait beyond `max_queued_messages`, for a replay of retained messages.
    pub(super) extra: usize,
}

impl Session {
    /// A durable session outlives its connection.
    pub(super) fn is_durable(&self) -> bool {
        self.expiry_secs > 0
    }

    /// Makes a record of a change, if this session's records are kept.
    pub(super) fn record(&self, out: &mut Outbox, make: impl FnOnce(Arc<Identity>) -> Record) {
        if self.is_recorded {
            out.effects.push(Effect::Persist(make(Arc::clone(&self.identity))));
        }
    }

    /// A message has been delivered, or dropped.
    pub(super) fn record_done(&self, number: u64, out: &mut Outbox) {
        if number != 0 {
            self.record(out, |client| Record::Done { client, number });
        }
    }

    fn has_room(&self, terms: Terms<'_>) -> bool {
        let window = if self.wire.is_some() { usize::from(self.outgoing.window) } else { 0 };
        let messages = terms.limits.queued_messages.is_none_or(|max| self.outgoing.waiting() < max as usize + window + terms.extra);
        messages && terms.limits.queued_bytes.is_none_or(|max| self.outgoing.queued_bytes < max)
    }

    /// Sends, queues or drops one message for this session.
    pub(super) fn offer(
        &mut self,
        publication: &mut Publication<'_>,
        (qos, retain, subscription_identifier): (Qos, bool, u32),
        terms: Terms<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> Offer {
        let qos = qos.min(self.max_qos);
        let can_send = match &self.wire {
            None => {
                if qos == Qos::AtMostOnce && !terms.queue_qos0 {
                    return Offer::Discarded;
                }
                false
            }
            Some(wire) => !wire.congested,
        };
        if can_send && qos == Qos::AtMostOnce && self.outgoing.queue_qos0.is_empty() {
            let Some(wire) = &mut self.wire else { return Offer::Discarded };
            let delivered = Form { v5: wire.v5, dup: false, qos, retain, subscription_identifier, topic_alias: 0, alias_is_known: false };
            let Some(encoded) = wire.encode(publication, delivered, now, out) else { return Offer::Discarded };
            wire.send(encoded, None, out);
            return Offer::Sent;
        }
        let packet_id = if qos == Qos::AtMostOnce { None } else { self.outgoing.next_packet_id() };
        let may_fly = can_send && self.outgoing.queue.is_empty() && self.outgoing.has_window(terms.limits.inflight_bytes);
        if let Some(flight) = packet_id.filter(|_| may_fly) {
            let number = if self.is_recorded { self.outgoing.next_number() } else { 0 };
            let delivery = Delivery { message: publication.keep(), qos, retain, subscription_identifier, packet_id, number };
            return self.launch(publication, (delivery, flight), true, now, out);
        }
        if !self.has_room(terms) {
            return Offer::Dropped;
        }
        // A QoS 0 message for a connected client waits only for its socket.
        let lasts = self.is_recorded && (qos != Qos::AtMostOnce || self.wire.is_none());
        let number = if lasts { self.outgoing.next_number() } else { 0 };
        let delivery = Delivery { message: publication.keep(), qos, retain, subscription_identifier, packet_id, number };
        if lasts {
            self.outgoing.recorded_packet_id = packet_id.or(self.outgoing.recorded_packet_id);
            self.record(out, |client| Record::Queued { client, delivery: delivery.clone(), packet_id: None });
        }
        self.outgoing.enqueue(delivery, self.wire.is_some());
        Offer::Queued
    }

    /// Puts a QoS 1 or 2 message in flight and sends it. `is_new`: it has not been in the queue.
    fn launch(
        &mut self,
        publication: &mut Publication<'_>,
        (delivery, packet_id): (Delivery, PacketId),
        is_new: bool,
        now: Time,
        out: &mut Outbox,
    ) -> Offer {
        let Some(wire) = &mut self.wire else { return Offer::Discarded };
        let form = Form::of(&delivery, wire.v5, false);
        let Some(encoded) = wire.encode(publication, form, now, out) else {
            // Not sent, and treated as if it had been completed [MQTT-3.1.2-25].
            if !is_new {
                self.record_done(delivery.number, out);
            }
            return Offer::Discarded;
        };
        let (number, new) = (delivery.number, (is_new && self.is_recorded).then(|| delivery.clone()));
        self.outgoing.send(delivery, packet_id);
        if self.is_recorded {
            self.outgoing.recorded_packet_id = Some(packet_id);
        }
        self.record(out, |client| match new {
            Some(delivery) => Record::Queued { client, delivery, packet_id: Some(packet_id) },
            None => Record::Sent { client, number, packet_id },
        });
        if let Some(wire) = &self.wire {
            wire.send(encoded, Some(packet_id), out);
        }
        Offer::Sent
    }

    /// Sends what waits, as far as window and socket allow. Gives the number of messages sent.
    pub(super) fn pump(&mut self, inflight_bytes: Option<u64>, now: Time, out: &mut Outbox) -> u64 {
        let mut sent = 0;
        self.resend_due(now, out);
        while self.wire.as_ref().is_some_and(|wire| !wire.congested) {
            let Some((delivery, packet_id)) = self.outgoing.dequeue(inflight_bytes) else { break };
            let number = delivery.number;
            if delivery.message.is_expired(now) {
                self.record_done(number, out);
                continue;
            }
            let message = Arc::clone(&delivery.message);
            let mut publication = Publication::of(&message);
            let outcome = if let Some(packet_id) = packet_id {
                self.launch(&mut publication, (delivery, packet_id), false, now, out)
            } else {
                let Some(wire) = &mut self.wire else { break };
                let form = Form::of(&delivery, wire.v5, false);
                let encoded = wire.encode(&mut publication, form, now, out);
                self.record_done(number, out);
                match (encoded, &self.wire) {
                    (Some(encoded), Some(wire)) => {
                        wire.send(encoded, None, out);
                        Offer::Sent
                    }
                    _ => Offer::Discarded,
                }
            };
            sent += u64::from(outcome == Offer::Sent);
            if out.arena.len() > PUMP_BYTES_MAX {
                // The driver says `Drained` when it wants more.
                if let Some(wire) = &mut self.wire {
                    wire.congested = true;
                    out.effects.push(Effect::WhenDrained { connection: wire.connection });
                }
            }
        }
        sent
    }

    /// After a reconnect: everything in flight again, in its order, with its Packet Identifiers and DUP set `[MQTT-4.4.0-1]`.
    pub(super) fn resend(&mut self, now: Time, out: &mut Outbox) {
        for entry in &mut self.outgoing.in_flight {
            entry.is_due_again = true;
        }
        self.outgoing.resends = true;
        self.resend_due(now, out);
    }

    /// The client may have come back with a smaller Receive Maximum `[MQTT-3.3.4-9]`: what is beyond it follows as others complete.
    fn resend_due(&mut self, now: Time, out: &mut Outbox) {
        let Some(wire) = &mut self.wire else { return };
        if !self.outgoing.resends {
            return;
        }
        let mut room = usize::from(self.outgoing.window).saturating_sub(self.outgoing.in_flight.iter().filter(|e| !e.is_due_again).count());
        let mut too_large = Vec::new();
        for entry in self.outgoing.in_flight.iter_mut().filter(|entry| entry.is_due_again) {
            if entry.awaiting == Awaiting::Pubcomp {
                super::reply::pubrel(wire, entry.packet_id, out);
            } else if room == 0 {
                break;
            } else {
                let form = Form::of(&entry.delivery, wire.v5, true);
                let message = Arc::clone(&entry.delivery.message);
                let Some(encoded) = wire.encode(&mut Publication::of(&message), form, now, out) else {
                    too_large.push((entry.packet_id, entry.awaiting));
                    continue;
                };
                wire.send(encoded, Some(entry.packet_id), out);
            }
            entry.is_due_again = false;
            room = room.saturating_sub(1);
        }
        // For the client that came back. Not sent, and treated as if it had been completed [MQTT-3.1.2-25].
        for (packet_id, awaiting) in too_large {
            if let Some(delivery) = self.outgoing.complete(packet_id, awaiting) {
                self.record_done(delivery.number, out);
            }
        }
        self.outgoing.resends = self.outgoing.in_flight.iter().any(|entry| entry.is_due_again);
    }
}

/// Bytes that one pump may lay into the arena before it lets the driver write them.
const PUMP_BYTES_MAX: usize = 256 << 10;
