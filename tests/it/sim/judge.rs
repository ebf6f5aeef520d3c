//! What was seen at the broker's door, told to the model.

use darner::mqtt::codec::{self, Decoded};
use darner::mqtt::{Packet, Property, Qos};

use super::client::number_of;
use super::ledger::Number;
use super::run::Run;
use super::sessions::{Asked, Present};
use super::world::{Seen, session_expiry};

impl Run {
    pub fn judge(&mut self) {
        let seen = std::mem::take(&mut self.world.seen);
        for (now, seen) in seen {
            self.sessions.pass_to(now, &mut self.ledger);
            match seen {
                Seen::Read { link, packet, message } => self.read(link, &packet, message, now),
                Seen::Told { link } => self.ended(link, now),
                Seen::Sent { link, bytes } => self.sent(link, &bytes, now),
                Seen::Left { is_error: true, .. } => {}
                Seen::Left { link, first, packet_id, is_error: false } => self.left(link, first, packet_id),
                Seen::Closed { link } => self.closed(link, now),
            }
        }
        let now = self.world.now;
        self.sessions.pass_to(now, &mut self.ledger);
        if let Some(notes) = &mut self.world.notes {
            for note in std::mem::take(notes) {
                self.say(|| format!("    {note}"));
            }
        }
    }

    fn ended(&mut self, link: u32, now: u64) {
        if let Some(client) = self.world.links.get(&link).map(|link| link.client) {
            self.sessions.lost(client, link, now, &mut self.ledger);
        }
    }

    fn read(&mut self, link: u32, packet: &Packet<'_>, message: Option<(String, Vec<u8>)>, now: u64) {
        let Some(client) = self.world.links.get(&link).map(|link| link.client) else { return };
        match packet {
            Packet::Connect(connect) => {
                let of = &self.clients[client];
                let expiry_secs = of.expiry_of(connect.clean_start, &connect.properties);
                let will = connect.will.as_ref().and_then(|will| {
                    let delay =
                        will.properties.iter().find_map(|p| if let Property::WillDelayInterval(secs) = p { Some(*secs) } else { None });
                    Some((number_of(&will.payload)?, delay.unwrap_or(0)))
                });
                let asked = Asked { clean: connect.clean_start, expiry_secs, will };
                let present = self.sessions.connect(client, link, &asked, now, &mut self.ledger);
                self.expected_present.insert(link, present);
            }
            Packet::Disconnect(disconnect) => {
                let expiry = session_expiry(&disconnect.properties);
                self.sessions.disconnect(client, link, expiry, &mut self.ledger);
            }
            Packet::Publish(publish) => {
                let Some((_, payload)) = message else { return };
                let id = publish.packet_id.map(darner::mqtt::PacketId::get);
                let number = number_of(&payload).or_else(|| self.number_in_flight(client, id?));
                let Some(number) = number else { return };
                let step = self.ledger.step;
                let crashed = self.ledger.crashed;
                // What was read before a crash may have been lost with it, and with a session that ended what was not released.
                let began = self.session_began.get(&client).copied().unwrap_or_default();
                let message = &mut self.ledger.messages[number];
                // And while the store fails it may be refused.
                let was_kept = !std::mem::replace(&mut message.is_unsure, self.world.is_failing);
                let is_kept = was_kept && message.read.last().is_some_and(|(step, _)| *step > crashed && *step >= began);
                let is_repeated = publish.qos == Qos::ExactlyOnce && is_kept;
                if !is_repeated {
                    self.ledger.messages[number].read.push((step, now));
                }
                self.note_read(link, id, number);
            }
            Packet::Pubrel(ack) => {
                let id = ack.packet_id.get();
                if let Some(number) = self.number_in_flight(client, id) {
                    self.note_read(link, Some(id), number);
                }
            }
            _ => {}
        }
    }

    fn number_in_flight(&self, client: usize, packet_id: u16) -> Option<Number> {
        self.clients[client].flights.iter().find(|flight| flight.packet_id == packet_id).map(|flight| flight.number)
    }

    fn note_read(&mut self, link: u32, packet_id: Option<u16>, number: Number) {
        if let (Some(link), Some(packet_id)) = (self.world.links.get_mut(&link), packet_id) {
            link.read.insert(packet_id, number);
        }
    }

    fn sent(&mut self, link: u32, bytes: &[u8], now: u64) {
        let Some(version) = self.world.links.get(&link).map(|link| link.version) else { return };
        let Ok(Decoded::Packet { packet, .. }) = codec::decode(bytes, version, u32::MAX) else {
            return self.ledger.blame(format!("the broker sends what is no packet: {bytes:02x?}"));
        };
        match packet {
            Packet::Publish(publish) if !publish.dup => {
                let said =
                    publish.properties.iter().find_map(|p| if let Property::MessageExpiryInterval(secs) = p { Some(*secs) } else { None });
                if let Some(number) = number_of(publish.payload) {
                    self.ledger.check_expiry(number, now, said, version == darner::mqtt::ProtocolVersion::V5);
                }
            }
            Packet::Connack(connack) if connack.reason.is_error() => {
                self.expected_present.remove(&link);
                if let Some(client) = self.world.links.get(&link).map(|link| link.client) {
                    self.sessions.refused(client, link, &mut self.ledger);
                }
            }
            Packet::Connack(connack) => {
                if let Some(client) = self.world.links.get(&link).map(|link| link.client) {
                    let client = &mut self.clients[client];
                    client.ended_unkept |= self.world.is_failing && (client.ends_with_connection || !connack.session_present);
                }
                // Should this CONNACK be lost, the client cannot know that its session is a new one, and nothing is owed for the old one.
                if !connack.session_present
                    && let Some(client) = self.world.links.get(&link).map(|link| link.client)
                {
                    self.clients[client].told_of_new_session();
                    self.session_began.insert(client, self.ledger.step);
                    for number in self.clients[client].released() {
                        self.ledger.messages[number].is_void = true;
                    }
                }
                let expected = self.expected_present.remove(&link);
                let (present, absent) = (Some(Present::Yes), Some(Present::No));
                if connack.session_present && expected == absent || !connack.session_present && expected == present {
                    self.ledger.blame(format!("session: link {link} expects {expected:?} and gets {}", connack.session_present));
                }
            }
            _ => {}
        }
    }

    /// An acknowledgement is a promise once it has left.
    fn left(&mut self, link: u32, first: u8, packet_id: u16) {
        if first >> 4 == 2
            && !self.world.is_failing
            && let Some(client) = self.world.links.get(&link).map(|link| link.client)
        {
            self.sessions.promised(client, link);
        }
        // PUBACK, PUBCOMP
        if matches!(first >> 4, 4 | 7)
            && let Some(number) = self.world.links.get(&link).and_then(|link| link.read.get(&packet_id))
        {
            let message = &mut self.ledger.messages[*number];
            message.acknowledged = (!message.is_void).then_some(self.ledger.step);
        }
    }

    /// A broker closes nobody who keeps to the rules.
    fn closed(&mut self, link: u32, now: u64) {
        self.ended(link, now);
        let Some(of) = self.world.links.get(&link) else { return };
        if self.world.is_failing {
            return;
        }
        let is_silent = of.keep_alive_ms > 0 && now >= of.last_read + of.keep_alive_ms;
        let is_late = now >= of.opened + 10_000;
        let is_taken_over = self.world.links.iter().any(|(other, known)| *other > link && known.client == of.client);
        if !is_silent && !is_late && !is_taken_over && !of.said_disconnect {
            self.ledger.blame(format!("link {link}: the broker closes the connection of c{}, which has done no wrong", of.client));
        }
    }
}
