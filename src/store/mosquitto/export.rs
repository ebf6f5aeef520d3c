//! A state → a database of version 6, as mosquitto 1.6.11 to 2.1 read it on a 64-bit machine.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::{MAGIC, Terms, waiting};
use crate::broker::Time;
use crate::broker::in_flight::Awaiting;
use crate::broker::message::Message;
use crate::broker::state::{Presence, State, StoredDelivery, StoredSession};
use crate::mqtt::codec;
use crate::mqtt::{PacketId, Property, Qos, RetainHandling, SubscriptionOptions};

const VERSION: u32 = 6;

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    pub retained: usize,
    pub sessions: usize,
    pub subscriptions: usize,
    pub queued: usize,
    /// Wills that wait: mosquitto's database has no place for them.
    pub wills: usize,
}

struct Writing<'a, W> {
    out: W,
    terms: &'a Terms,
    /// Numbers of messages, by where they are: those that are shared are written once.
    numbers: HashMap<*const Message, u64>,
    exported: Exported,
}

/// A text as mosquitto reads it: none in a file is longer than its two bytes of length say.
fn len16(text: &str) -> u16 {
    u16::try_from(text.len()).unwrap_or(u16::MAX)
}

fn cut(text: &str) -> &[u8] {
    text.as_bytes().get(..len16(text).into()).unwrap_or_default()
}

/// Sessions and retained messages that have ended are left out.
pub fn export(state: &State, terms: &Terms, out: impl Write) -> io::Result<Exported> {
    let mut writing = Writing { out, terms, numbers: HashMap::new(), exported: Exported::default() };
    let sessions = || state.sessions.values().filter(|session| !is_over(session));
    let retained = || state.retained.iter().filter(|message| !message.is_expired(Time(0)));
    let messages = retained().chain(sessions().flat_map(messages));
    let messages: Vec<&Arc<Message>> = messages.filter(|message| writing.number(message)).collect();
    writing.file()?;
    for message in messages {
        writing.message(message)?;
    }
    for session in sessions() {
        writing.session(session)?;
    }
    for message in retained() {
        let number = writing.number_of(message);
        writing.chunk(4, &[&number.to_le_bytes()])?;
        writing.exported.retained += 1;
    }
    writing.out.flush()?;
    Ok(writing.exported)
}

fn is_over(session: &StoredSession) -> bool {
    matches!(session.presence, Presence::Left { expires_at: Some(Time(0)) })
}

fn messages(session: &StoredSession) -> impl Iterator<Item = &Arc<Message>> {
    session.deliveries.values().map(|stored| &stored.delivery.message).chain(session.received.values())
}

impl<W: Write> Writing<'_, W> {
    /// Gives it a number; true when it had none.
    fn number(&mut self, message: &Arc<Message>) -> bool {
        let next = self.numbers.len() as u64 + 1;
        *self.numbers.entry(Arc::as_ptr(message)).or_insert(next) == next
    }

    fn number_of(&self, message: &Arc<Message>) -> u64 {
        self.numbers.get(&Arc::as_ptr(message)).copied().unwrap_or_default()
    }

    /// Seconds since 1970, rounded up, never 0, which would be never.
    fn wall(&self, time: Time) -> i64 {
        let ms = self.terms.zero.saturating_add_unsigned(time.0);
        ms.saturating_add(999).div_euclid(1000).max(1)
    }

    fn port(&self, security: usize) -> u16 {
        // Without `per_listener_settings` there is one set of them, which says nothing about the listener.
        let is_told = self.terms.listeners.iter().any(|listener| listener.security != 0);
        let listener = self.terms.listeners.iter().find(|listener| is_told && listener.security == security);
        listener.map_or(0, |listener| listener.port)
    }

    fn chunk(&mut self, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.out.write_all(&kind.to_be_bytes())?;
        self.out.write_all(&len.to_be_bytes())?;
        parts.iter().try_for_each(|part| self.out.write_all(part))
    }

    fn file(&mut self) -> io::Result<()> {
        self.out.write_all(MAGIC)?;
        self.out.write_all(&[0; 4])?;
        self.out.write_all(&VERSION.to_be_bytes())?;
        let last = self.numbers.len() as u64;
        // It ended well, and numbers of messages have 8 bytes.
        self.chunk(1, &[&last.to_le_bytes(), &[1, 8], &[0; 6]])
    }

    fn message(&mut self, message: &Arc<Message>) -> io::Result<()> {
        let number = self.number_of(message);
        let expires = message.expires_at.map_or(0, |at| self.wall(at));
        let (publisher, username, port) = match &message.publisher {
            Some(publisher) => (&*publisher.client_id, publisher.username.as_deref().unwrap_or_default(), self.port(publisher.security)),
            None => ("", "", 0),
        };
        let payload_len = u32::try_from(message.payload.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut fixed = Vec::with_capacity(32);
        fixed.extend_from_slice(&number.to_le_bytes());
        fixed.extend_from_slice(&expires.to_le_bytes());
        fixed.extend_from_slice(&payload_len.to_be_bytes());
        for value in [0, len16(publisher), len16(username), len16(&message.topic), port] {
            fixed.extend_from_slice(&value.to_be_bytes());
        }
        fixed.extend_from_slice(&[message.qos as u8, message.retain.into()]);
        let mut properties = Vec::new();
        if !message.properties.is_empty() {
            codec::encode_properties(&message.properties, &mut properties);
        }
        self.chunk(2, &[&fixed, cut(publisher), cut(username), cut(&message.topic), &message.payload, &properties])
    }

    fn session(&mut self, session: &StoredSession) -> io::Result<()> {
        let id = &*session.client.client_id;
        let username = session.client.username.as_deref().unwrap_or_default();
        let expires = match session.presence {
            Presence::Left { expires_at } => expires_at.map_or(0, |at| self.wall(at)),
            Presence::Connected if session.expiry_secs == u32::MAX => 0,
            Presence::Connected => self.wall(Time(u64::from(session.expiry_secs) * 1000)),
        };
        let mut fixed = Vec::with_capacity(24);
        fixed.extend_from_slice(&expires.to_le_bytes());
        fixed.extend_from_slice(&session.expiry_secs.to_be_bytes());
        let last_packet_id = session.last_packet_id.map_or(0, PacketId::get);
        for value in [last_packet_id, len16(id), self.port(session.client.security), len16(username), 0, 0] {
            fixed.extend_from_slice(&value.to_be_bytes());
        }
        self.chunk(6, &[&fixed, cut(id), cut(username)])?;
        for (packet_id, message) in &session.received {
            self.held(id, (self.number_of(message), packet_id.get(), 0), [Qos::ExactlyOnce as u8, waiting::FOR_PUBREL, 0, 0])?;
        }
        let (flying, queued): (Vec<_>, Vec<_>) = session.deliveries.values().partition(|stored| stored.flight.is_some());
        for stored in flying.into_iter().chain(queued) {
            self.delivery(id, stored)?;
        }
        for (filter, (options, identifier)) in &session.subscriptions {
            self.subscription(id, filter, *options, *identifier)?;
        }
        self.exported.sessions += 1;
        self.exported.wills += usize::from(session.will.is_some());
        Ok(())
    }

    fn delivery(&mut self, client: &str, stored: &StoredDelivery) -> io::Result<()> {
        let StoredDelivery { delivery, flight } = stored;
        let waits = match flight {
            Some((_, Awaiting::Puback)) => waiting::FOR_PUBACK,
            Some((_, Awaiting::Pubrec)) => waiting::FOR_PUBREC,
            Some((_, Awaiting::Pubcomp)) => waiting::FOR_PUBCOMP,
            None => waiting::IN_QUEUE,
        };
        let packet_id = flight.map(|(packet_id, _)| packet_id).or(delivery.packet_id).map_or(0, PacketId::get);
        let names = (self.number_of(&delivery.message), packet_id, delivery.subscription_identifier);
        // RETAIN and DUP; the last: from the broker to the client.
        let flags = u8::from(delivery.retain) << 4 | u8::from(flight.is_some());
        self.held(client, names, [delivery.qos as u8, waits, flags, 1])
    }

    fn held(&mut self, client: &str, (message, packet_id, identifier): (u64, u16, u32), bytes: [u8; 4]) -> io::Result<()> {
        let mut properties = Vec::new();
        if identifier != 0 {
            codec::encode_properties(&[Property::SubscriptionIdentifier(identifier)], &mut properties);
        }
        let (packet_id, len) = (packet_id.to_be_bytes(), len16(client).to_be_bytes());
        self.exported.queued += 1;
        self.chunk(3, &[&message.to_le_bytes(), &packet_id, &len, &bytes, cut(client), &properties])
    }

    fn subscription(&mut self, client: &str, filter: &str, options: SubscriptionOptions, identifier: u32) -> io::Result<()> {
        let retain_handling = match options.retain_handling {
            RetainHandling::SendAtSubscribe => 0,
            RetainHandling::SendIfNew => 0x10,
            RetainHandling::DoNotSend => 0x20,
        };
        let bits = retain_handling | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3;
        let lens = [len16(client).to_be_bytes(), len16(filter).to_be_bytes()].concat();
        self.exported.subscriptions += 1;
        self.chunk(5, &[&identifier.to_be_bytes(), &lens, &[options.qos as u8, bits, 0, 0], cut(client), cut(filter)])
    }
}
