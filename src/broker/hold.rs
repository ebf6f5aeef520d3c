//! What may leave only when its records are safe: an acknowledgement is a promise, and so is every step of a QoS 2 flow.

use super::Broker;
use super::interface::{ConnectionId, Effect, Outbox, Record};
use crate::mqtt::codec::{Kind, kind};

/// Its packet type. One without Session Present also says that an older session has ended.
const CONNACK: u8 = 2;

impl Broker {
    /// Numbers the records among the effects from `before` on, and puts an `Effect::Hold` before every packet that depends on one that
    /// is not stored yet:
    ///
    /// * an acknowledgement (CONNACK, SUBACK, UNSUBACK, PUBACK, PUBREC, PUBCOMP) on the records that the same input made;
    /// * it, PUBREL and a PUBLISH at QoS 2 on the last record about its session: what is repeated is no safer than what it repeats.
    ///
    /// While the store fails, only promises wait, so that clients are served who ask for none.
    ///
    /// A PUBLISH at QoS 0 or 1 depends on nothing: it may come again after a crash. So a message can be delivered and acknowledged
    /// before its record is written, which then need not be.
    pub(super) fn hold_back(&mut self, before: usize, out: &mut Outbox) {
        if !self.persists {
            return;
        }
        let mut caused = None;
        // Where holds belong; the last one serves a row of packets.
        let mut holds: Vec<(usize, ConnectionId, u64)> = Vec::new();
        for (at, effect) in out.effects.iter().enumerate().skip(before) {
            match effect {
                Effect::Persist(record) => {
                    self.records += 1;
                    caused = Some(self.records);
                    self.pouch.note(record, self.records);
                    if matches!(record, Record::SessionEnded { .. }) {
                        self.last_session_ended = self.records;
                    }
                    if let Some(client) = record.client()
                        && let Some(key) = self.by_client_id.get(&*client.client_id).copied()
                        && let Some(session) = self.sessions.get_mut(key)
                    {
                        session.last_record = self.records;
                    }
                }
                Effect::Send { connection, start, end, .. } => {
                    let connection = *connection;
                    let packet_type = out.bytes(*start, *end).first().map_or(0, |first| first >> 4);
                    let caused = match kind(out.bytes(*start, *end)) {
                        Kind::Promise => caused,
                        Kind::Session if !self.refuses_to_keep => caused,
                        Kind::ExactlyOnce if !self.refuses_to_keep => None,
                        Kind::Session | Kind::ExactlyOnce | Kind::Other => continue,
                    };
                    let of_session = self.session_key(connection).and_then(|key| self.sessions.get(key)).map(|session| session.last_record);
                    let ended = (packet_type == CONNACK).then_some(self.last_session_ended);
                    if let Some(until) = caused.max(of_session).max(ended).filter(|until| *until > self.stored)
                        && holds.last().is_none_or(|(_, held, last)| (*held, *last) != (connection, until))
                    {
                        holds.push((at, connection, until));
                    }
                }
                _ => {}
            }
        }
        put_in(holds, &mut out.effects);
    }
}

/// Puts each hold before the effect that stands at its place.
fn put_in(holds: Vec<(usize, ConnectionId, u64)>, effects: &mut Vec<Effect>) {
    let Some((first, ..)) = holds.first().copied() else { return };
    let behind = effects.split_off(first);
    let mut holds = holds.into_iter().peekable();
    for (at, effect) in (first..).zip(behind) {
        if let Some((_, connection, until)) = holds.next_if(|(place, ..)| *place == at) {
            effects.push(Effect::Hold { connection, until });
        }
        effects.push(effect);
    }
}
