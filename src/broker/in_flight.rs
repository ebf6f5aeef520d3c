//! What waits for a receiver: messages in flight with their Packet Identifiers, and the queue behind them.

use std::collections::VecDeque;

use super::message::Delivery;
use crate::mqtt::{PacketId, Qos};

/// What the sender of a QoS 1 or 2 message waits for (4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaiting {
    Puback,
    Pubrec,
    Pubcomp,
}

/// A message on its way to a receiver.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) packet_id: PacketId,
    pub(super) awaiting: Awaiting,
    /// To be sent again, since the client has come back; waits for the window.
    pub(super) is_due_again: bool,
    pub(super) delivery: Delivery,
}

/// One less than there are identifiers, so that one is always free.
const WINDOW_MAX: u16 = u16::MAX - 1;

/// The sending side of a session.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// In the order of sending, which is the order of resending `[MQTT-4.6.0-1]`.
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) queue: VecDeque<Delivery>,
    /// QoS 0 messages for a connected client whose socket is full: they need no window, so they do not stand behind those that do.
    pub(super) queue_qos0: VecDeque<Delivery>,
    /// How many may be in flight: the smaller of `max_inflight_messages` and the client's Receive Maximum.
    pub(super) window: u16,
    pub(super) queued_bytes: u64,
    pub(super) in_flight_bytes: u64,
    /// Some of what is in flight may be due again.
    pub(super) resends: bool,
    last_packet_id: u16,
    /// Of the delivery that records were last made of.
    last_number: u64,
    /// The Packet Identifier that the last such record gave out.
    pub(super) recorded_packet_id: Option<PacketId>,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            in_flight: VecDeque::new(),
            queue: VecDeque::new(),
            queue_qos0: VecDeque::new(),
            window: 20,
            queued_bytes: 0,
            in_flight_bytes: 0,
            resends: false,
            last_packet_id: 0,
            last_number: 0,
            recorded_packet_id: None,
        }
    }
}

impl Outgoing {
    /// Whether one more QoS 1 or 2 message may be sent. `bytes_max` is `max_inflight_bytes`.
    pub(super) fn has_window(&self, bytes_max: Option<u64>) -> bool {
        self.in_flight.len() < usize::from(self.window.min(WINDOW_MAX)) && bytes_max.is_none_or(|max| self.in_flight_bytes < max)
    }

    /// The next Packet Identifier that is not in use; `None`: all are.
    pub(super) fn next_packet_id(&mut self) -> Option<PacketId> {
        let following = PacketId::new(self.last_packet_id.wrapping_add(1)).unwrap_or(PacketId::MIN);
        let next = if self.is_in_use(following) { self.search(following)? } else { following };
        self.last_packet_id = next.get();
        Some(next)
    }

    /// The first that is not in use from `following` on. Each is looked at once, however many are in flight: an import, or a client that
    /// acknowledges out of order, may leave tens of thousands in a row.
    fn search(&self, following: PacketId) -> Option<PacketId> {
        let mut is_used = vec![false; 1 << 16];
        for entry in &self.in_flight {
            if let Some(is_used) = is_used.get_mut(usize::from(entry.packet_id.get())) {
                *is_used = true;
            }
        }
        let mut all = (following.get()..=u16::MAX).chain(1..following.get());
        all.find(|candidate| is_used.get(usize::from(*candidate)) == Some(&false)).and_then(PacketId::new)
    }

    /// The next number for a delivery that records are made of.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// What an earlier process gave out is not given out again.
    pub(super) fn restore_numbers(&mut self, number: u64, packet_id: Option<PacketId>) {
        self.last_number = self.last_number.max(number);
        if let Some(packet_id) = packet_id {
            self.last_packet_id = packet_id.get();
            self.recorded_packet_id = Some(packet_id);
        }
    }

    fn is_in_use(&self, packet_id: PacketId) -> bool {
        self.in_flight.iter().any(|entry| entry.packet_id == packet_id)
    }

    /// Puts a QoS 1 or 2 message in flight, under an identifier that is not in use.
    pub(super) fn send(&mut self, delivery: Delivery, packet_id: PacketId) {
        let awaiting = if delivery.qos == Qos::ExactlyOnce { Awaiting::Pubrec } else { Awaiting::Puback };
        self.in_flight_bytes += delivery.message.bytes();
        self.in_flight.push_back(InFlight { packet_id, awaiting, is_due_again: false, delivery });
    }

    pub(super) fn find(&mut self, packet_id: PacketId) -> Option<&mut InFlight> {
        self.in_flight.iter_mut().find(|entry| entry.packet_id == packet_id)
    }

    /// Ends a flight, if it waits for `awaiting`; gives what was delivered.
    pub(super) fn complete(&mut self, packet_id: PacketId, awaiting: Awaiting) -> Option<Delivery> {
        let found = self.in_flight.iter().position(|entry| entry.packet_id == packet_id && entry.awaiting == awaiting);
        let entry = found.and_then(|at| self.in_flight.remove(at))?;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(entry.delivery.message.bytes());
        Some(entry.delivery)
    }

    /// Messages that wait without being in flight.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.queue_qos0.len()
    }

    pub(super) fn enqueue(&mut self, delivery: Delivery, connected: bool) {
        self.queued_bytes += delivery.message.bytes();
        if connected && delivery.qos == Qos::AtMostOnce {
            self.queue_qos0.push_back(delivery);
        } else {
            self.queue.push_back(delivery);
        }
    }

    /// What may be sent next: QoS 0 at once, the rest as far as the window goes, with the identifier set aside for it unless an older
    /// message still has it.
    pub(super) fn dequeue(&mut self, bytes_max: Option<u64>) -> Option<(Delivery, Option<PacketId>)> {
        let (delivery, packet_id) = self.dequeue_first(bytes_max).or_else(|| Some((self.queue_qos0.pop_front()?, None)))?;
        self.queued_bytes = self.queued_bytes.saturating_sub(delivery.message.bytes());
        if self.queue.is_empty() && self.queue_qos0.is_empty() {
            // An absent reader may have left room for a thousand.
            self.queue.shrink_to(8);
            self.queue_qos0.shrink_to(8);
        }
        Some((delivery, packet_id))
    }

    fn dequeue_first(&mut self, bytes_max: Option<u64>) -> Option<(Delivery, Option<PacketId>)> {
        let first = self.queue.front()?;
        if first.qos == Qos::AtMostOnce {
            return Some((self.queue.pop_front()?, None));
        }
        if !self.has_window(bytes_max) {
            return None;
        }
        let set_aside = first.packet_id.filter(|packet_id| !self.is_in_use(*packet_id));
        let packet_id = set_aside.or_else(|| self.next_packet_id())?;
        Some((self.queue.pop_front()?, Some(packet_id)))
    }

    /// The connection is gone, and with it what was only for it.
    pub(super) fn disconnected(&mut self) {
        for delivery in std::mem::take(&mut self.queue_qos0) {
            self.queued_bytes = self.queued_bytes.saturating_sub(delivery.message.bytes());
        }
    }

    /// Keeps only the messages in flight that pass. Those that the receiver has already got, and that wait for its PUBCOMP, always do.
    pub(super) fn retain_in_flight(&mut self, keep: &dyn Fn(&Delivery) -> bool) {
        self.in_flight.retain(|entry| entry.awaiting == Awaiting::Pubcomp || keep(&entry.delivery));
        self.in_flight_bytes = self.in_flight.iter().map(|entry| entry.delivery.message.bytes()).sum();
    }

    /// Keeps only the queued messages that pass.
    pub(super) fn retain_queue(&mut self, keep: &dyn Fn(&Delivery) -> bool) {
        self.queue.retain(|delivery| keep(delivery));
        self.queue_qos0.retain(|delivery| keep(delivery));
        self.queued_bytes = self.queue.iter().chain(&self.queue_qos0).map(|delivery| delivery.message.bytes()).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::message::Message;
    use super::*;

    fn delivery() -> Delivery {
        let message = Message::new("t", *b"p", Qos::AtLeastOnce);
        Delivery {
            message: Arc::new(message),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_identifier: 0,
            packet_id: None,
            number: 0,
        }
    }

    #[test]
    fn a_packet_identifier_in_use_is_never_given_out_again() {
        let mut out = Outgoing { window: u16::MAX, ..Outgoing::default() };
        let send = |out: &mut Outgoing| {
            let id = out.next_packet_id().expect("few are in use");
            out.send(delivery(), id);
            id
        };
        let stuck = [send(&mut out), send(&mut out)];
        for _ in 0..140_000 {
            let id = send(&mut out);
            assert!(!stuck.contains(&id));
            assert!(out.complete(id, Awaiting::Puback).is_some());
        }
        assert_eq!(out.in_flight.len(), 2);
        assert_eq!(out.in_flight_bytes, 2);
        assert!(out.complete(stuck[0], Awaiting::Pubcomp).is_none(), "a PUBCOMP does not end a QoS 1 flight");
    }

    #[test]
    fn where_all_packet_identifiers_are_in_use_a_message_waits_for_one() {
        let mut out = Outgoing { window: u16::MAX, ..Outgoing::default() };
        (1..=u16::MAX).filter_map(PacketId::new).for_each(|id| out.send(delivery(), id));
        assert_eq!(out.next_packet_id(), None);
        out.enqueue(delivery(), true);
        out.enqueue(Delivery { qos: Qos::AtMostOnce, ..delivery() }, true);
        assert!(matches!(out.dequeue(None), Some((_, None))), "QoS 0 needs none");
        assert!(out.dequeue(None).is_none());
        let ids = [40_000, 7].map(|id| PacketId::new(id).expect("not zero"));
        for id in ids {
            assert!(out.complete(id, Awaiting::Puback).is_some());
        }
        assert!(matches!(out.dequeue(None), Some((_, Some(id))) if id == ids[1]), "the first that is free");
    }
}
