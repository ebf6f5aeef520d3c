//! One client's end of the protocol on a blocking socket: packets out and in, QoS 1 and 2 both ways, keep alive, every wait with a
//! deadline.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::dial::{DialError, Stream};
use super::event::{Event, SessionError, Wake};
use super::flows::{Aliases, Flows, Message, Outgoing};
use crate::mqtt::codec::{self, Decoded};
use crate::mqtt::{
    Ack, Connack, Connect, Disconnect, Packet, PacketId, Properties, Property, ProtocolVersion, Publish, ReasonCode, Subscribe,
    SubscriptionRequest, Unsubscribe,
};

/// Largest packet taken from a broker: the protocol's own limit.
const PACKET_SIZE_MAX: u32 = 268_435_460;

/// Unsent bytes beyond which [`Session::is_busy`] says to wait before publishing more.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// Where the conversation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitingConnack,
    Active,
}

/// A connected client.
#[derive(Debug)]
pub struct Session {
    stream: Stream,
    state: State,
    version: ProtocolVersion,
    /// For the debug lines; the broker may assign it.
    client_id: Option<String>,
    debug: bool,
    incoming: Vec<u8>,
    consumed: usize,
    outgoing: Vec<u8>,
    sent: usize,
    keep_alive: Duration,
    last_out: Instant,
    last_in: Instant,
    ping_sent: bool,
    events: VecDeque<Event>,
    /// The broker said DISCONNECT.
    ended: Option<ReasonCode>,
    aliases: Aliases,
    flows: Flows,
}

impl Session {
    /// Sends CONNECT on a fresh connection. `flows` is what an earlier connection of the same client left, or `Flows::new`.
    pub fn start(stream: Stream, connect: Connect, flows: Flows, debug: bool) -> Result<Self, (DialError, Flows)> {
        if let Err(error) = stream.set_nonblocking() {
            return Err((DialError::Io(error), flows));
        }
        let now = Instant::now();
        let mut session = Self {
            stream,
            state: State::AwaitingConnack,
            version: connect.version,
            client_id: Some(connect.client_id.clone()).filter(|id| !id.is_empty()),
            debug,
            incoming: Vec::new(),
            consumed: 0,
            outgoing: Vec::new(),
            sent: 0,
            keep_alive: Duration::from_secs(connect.keep_alive.into()),
            last_out: now,
            last_in: now,
            ping_sent: false,
            events: VecDeque::new(),
            ended: None,
            aliases: Aliases::new(&connect.properties),
            flows,
        };
        session.say("sending CONNECT");
        session.send(&Packet::Connect(Box::new(connect)));
        Ok(session)
    }

    /// Gives back what the next connection of this client goes on from.
    pub fn into_flows(self) -> Flows {
        self.flows
    }

    /// Whether the caller should let answers come in before it publishes more.
    pub fn is_busy(&self) -> bool {
        self.outgoing.len() - self.sent > UNSENT_BYTES_MAX || self.flows.is_full()
    }

    /// Publishes; returns the number that [`Event::Published`] will carry. QoS 1 and 2 wait their turn in the in-flight window.
    pub fn publish(&mut self, message: Outgoing) -> u16 {
        let packet_id = self.flows.queue(message);
        self.send_due();
        packet_id.get()
    }

    pub fn subscribe(&mut self, subscriptions: Vec<SubscriptionRequest>, properties: Properties) -> PacketId {
        let packet_id = self.flows.next_packet_id();
        for subscription in &subscriptions {
            let SubscriptionRequest { filter, options } = subscription;
            let bits = u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3 | (options.retain_handling as u8) << 4;
            self.say(&format!("sending SUBSCRIBE (Mid: {packet_id}, Topic: {filter}, QoS: {}, Options: 0x{bits:02x})", options.qos as u8));
        }
        self.send(&Packet::Subscribe(Subscribe { packet_id, properties, subscriptions }));
        packet_id
    }

    pub fn unsubscribe(&mut self, filter: &str, properties: Properties) {
        let packet_id = self.flows.next_packet_id();
        self.say(&format!("sending UNSUBSCRIBE (Mid: {packet_id}, Topic: {filter})"));
        self.send(&Packet::Unsubscribe(Unsubscribe { packet_id, properties, filters: vec![filter.to_owned()] }));
    }

    /// Sends DISCONNECT and everything before it, then closes. Gives up when the broker takes nothing for `patience`.
    pub fn disconnect(mut self, reason: ReasonCode, properties: Properties, patience: Duration) {
        if self.state == State::Active {
            self.say("sending DISCONNECT");
            self.send(&Packet::Disconnect(Disconnect { reason, properties }));
        }
        while self.sent < self.outgoing.len() || self.stream.wants_write() {
            let flags = PollFlags::POLLOUT;
            let mut wanted = [PollFd::new(self.stream.as_fd(), flags)];
            let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
            if !matches!(nix::poll::poll(&mut wanted, timeout), Ok(1..)) || self.flush().is_err() {
                return;
            }
        }
        self.stream.finish();
    }

    /// Waits for the broker, until `until`, or until `other` is readable.
    pub fn wait(&mut self, until: Option<Instant>, other: Option<BorrowedFd<'_>>) -> Result<Wake, SessionError> {
        loop {
            self.flush()?;
            if let Some(event) = self.events.pop_front() {
                return Ok(Wake::Event(event));
            }
            if let Some(reason) = self.ended {
                return Err(SessionError::Ended(reason));
            }
            if self.take_packet()? {
                continue;
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return Ok(Wake::Deadline);
            }
            let keep_alive_due = self.check_keep_alive(now)?;
            let next = [until, keep_alive_due].into_iter().flatten().min();
            if self.poll(next, other)? {
                return Ok(Wake::Readable);
            }
        }
    }

    /// Sleeps until something can be read, written, or is due. Says whether `other` is readable.
    fn poll(&mut self, next: Option<Instant>, other: Option<BorrowedFd<'_>>) -> Result<bool, SessionError> {
        let timeout = match next {
            // Rounded up, so as not to spin through the last millisecond.
            Some(next) => {
                let left = next.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, self.sent < self.outgoing.len() || self.stream.wants_write());
        let (socket_ready, other_ready) = {
            let mut wanted = vec![PollFd::new(self.stream.as_fd(), flags)];
            wanted.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
            match nix::poll::poll(&mut wanted, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(SessionError::Dial(DialError::Io(error.into()))),
            }
            let ready = |index: usize| wanted.get(index).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
            (ready(0), ready(1))
        };
        if socket_ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.read()?;
        }
        Ok(!other_ready.is_empty())
    }

    fn read(&mut self) -> Result<(), SessionError> {
        let mut buffer = [0; 16 * 1024];
        let mut came = false;
        loop {
            match self.stream.read(&mut buffer) {
                // What came before the end is handled first; the end is still there at the next read.
                Ok(0) if came => return Ok(()),
                Ok(0) => return Err(SessionError::Lost),
                Ok(len) => {
                    self.incoming.drain(..self.consumed);
                    self.consumed = 0;
                    self.incoming.extend_from_slice(buffer.get(..len).unwrap_or_default());
                    self.last_in = Instant::now();
                    came = true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
                Err(_) if came => return Ok(()),
                Err(_) => return Err(SessionError::Lost),
            }
            if !self.stream.may_hold_bytes() {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> Result<(), SessionError> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the broker said before it closed is still to be read.
                Err(_) => {
                    self.sent = self.outgoing.len();
                    self.read()?;
                    return Ok(());
                }
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        match self.stream.flush() {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => self.read(),
            _ => Ok(()),
        }
    }

    /// Pings when nothing was sent for the keep alive time; gives when to look again.
    fn check_keep_alive(&mut self, now: Instant) -> Result<Option<Instant>, SessionError> {
        if self.keep_alive.is_zero() {
            return Ok(None);
        }
        let due = self.last_out.min(self.last_in) + self.keep_alive;
        if now < due {
            return Ok(Some(due));
        }
        if self.ping_sent || self.state != State::Active {
            return Err(SessionError::KeepAlive);
        }
        self.say("sending PINGREQ");
        self.send(&Packet::Pingreq);
        self.ping_sent = true;
        self.last_in = now;
        self.flush()?;
        Ok(Some(now + self.keep_alive))
    }

    /// Handles the first packet of the read buffer; `false` when there is no whole one.
    fn take_packet(&mut self) -> Result<bool, SessionError> {
        let buffer = std::mem::take(&mut self.incoming);
        let rest = buffer.get(self.consumed..).unwrap_or_default();
        let outcome = match codec::decode(rest, self.version, PACKET_SIZE_MAX) {
            Ok(Decoded::Incomplete { .. }) => Ok(false),
            Ok(Decoded::Packet { packet, len }) => {
                self.consumed += len;
                self.handle(packet).map(|()| true)
            }
            Err(error) => Err(match rest {
                [0x20, 2, _, code, ..] if self.state == State::AwaitingConnack && self.version != ProtocolVersion::V5 => {
                    SessionError::Refused(*code)
                }
                _ => SessionError::Protocol(error.detail),
            }),
        };
        self.incoming = buffer;
        outcome
    }

    fn handle(&mut self, packet: Packet<'_>) -> Result<(), SessionError> {
        if self.state == State::AwaitingConnack && !matches!(packet, Packet::Connack(_) | Packet::Disconnect(_)) {
            return Err(SessionError::Protocol("a packet before CONNACK"));
        }
        match packet {
            Packet::Connack(connack) => self.handle_connack(connack),
            Packet::Publish(publish) => return self.handle_publish(publish),
            Packet::Puback(ack) => {
                self.say(&format!("received PUBACK (Mid: {}, RC:{})", ack.packet_id, ack.reason as u8));
                self.complete(ack);
            }
            Packet::Pubcomp(ack) => {
                self.say(&format!("received PUBCOMP (Mid: {}, RC:{})", ack.packet_id, ack.reason as u8));
                self.complete(ack);
            }
            Packet::Pubrec(ack) => self.handle_pubrec(ack),
            Packet::Pubrel(ack) => self.handle_pubrel(&ack),
            Packet::Suback(suback) => {
                self.say("received SUBACK");
                self.events.push_back(Event::Subscribed { packet_id: suback.packet_id, reasons: suback.reasons });
            }
            Packet::Unsuback(_) => {
                self.say("received UNSUBACK");
                self.events.push_back(Event::Unsubscribed);
            }
            Packet::Pingresp => {
                self.say("received PINGRESP");
                self.ping_sent = false;
            }
            Packet::Disconnect(disconnect) => {
                if self.debug {
                    debug_line(&format!("Received DISCONNECT ({})", disconnect.reason as u8));
                }
                self.ended = Some(disconnect.reason);
            }
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq | Packet::Auth(_) => {
                return Err(SessionError::Protocol("a packet that a broker does not send"));
            }
        }
        Ok(())
    }

    fn handle_connack(&mut self, connack: Connack) {
        for property in &connack.properties {
            match property {
                Property::AssignedClientIdentifier(id) => self.client_id = Some(id.to_string()),
                Property::ServerKeepAlive(secs) => self.keep_alive = Duration::from_secs((*secs).into()),
                Property::ReceiveMaximum(max) => self.flows.limit_in_flight(*max),
                _ => {}
            }
        }
        self.say(&format!("received CONNACK ({})", super::reasons::connack_code(connack.reason, self.version)));
        if !connack.reason.is_error() {
            self.state = State::Active;
            self.flows.reconnected(connack.session_present);
        }
        self.events.push_back(Event::Connected(connack));
        if self.state == State::Active {
            self.send_due();
        }
    }

    fn handle_publish(&mut self, publish: Publish<'_>) -> Result<(), SessionError> {
        let topic = self.aliases.topic_of(&publish).map_err(SessionError::Protocol)?;
        self.say(&format!(
            "received PUBLISH (d{}, q{}, r{}, m{}, '{topic}', ... ({} bytes))",
            u8::from(publish.dup),
            publish.qos as u8,
            u8::from(publish.retain),
            publish.packet_id.map_or(0, PacketId::get),
            publish.payload.len()
        ));
        let message = Message {
            topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            properties: publish.properties,
        };
        match (message.qos as u8, message.packet_id) {
            (1, Some(packet_id)) => {
                self.say(&format!("sending PUBACK (m{packet_id}, rc0)"));
                self.send(&Packet::Puback(ack(packet_id)));
                self.events.push_back(Event::Message(message));
            }
            (2, Some(packet_id)) => {
                self.say(&format!("sending PUBREC (m{packet_id}, rc0)"));
                self.send(&Packet::Pubrec(ack(packet_id)));
                self.flows.hold(packet_id, message).map_err(SessionError::Protocol)?;
            }
            _ => self.events.push_back(Event::Message(message)),
        }
        Ok(())
    }

    fn handle_pubrec(&mut self, received: Ack) {
        self.say(&format!("received PUBREC (Mid: {})", received.packet_id));
        if received.reason.is_error() {
            self.complete(received);
            return;
        }
        self.flows.released(received.packet_id);
        self.say(&format!("sending PUBREL (m{})", received.packet_id));
        self.send(&Packet::Pubrel(ack(received.packet_id)));
    }

    fn handle_pubrel(&mut self, received: &Ack) {
        let packet_id = received.packet_id;
        self.say(&format!("received PUBREL (Mid: {packet_id})"));
        self.say(&format!("sending PUBCOMP (m{packet_id})"));
        self.send(&Packet::Pubcomp(ack(packet_id)));
        if let Some(message) = self.flows.take_held(packet_id) {
            self.events.push_back(Event::Message(message));
        }
    }

    fn complete(&mut self, ack: Ack) {
        if !self.flows.complete(ack.packet_id) {
            return;
        }
        let reason_string = ack.properties.into_iter().find_map(|property| match property {
            Property::ReasonString(text) => Some(text),
            _ => None,
        });
        self.events.push_back(Event::Published { packet_id: ack.packet_id.get(), reason: ack.reason, reason_string });
        self.send_due();
    }

    /// Sends what the in-flight window has room for.
    fn send_due(&mut self) {
        if self.state != State::Active {
            return;
        }
        while let Some(due) = self.flows.next_due() {
            if due.release {
                self.say(&format!("sending PUBREL (m{})", due.packet_id));
                self.send(&Packet::Pubrel(ack(due.packet_id)));
                continue;
            }
            let message = due.message;
            self.say(&format!(
                "sending PUBLISH (d{}, q{}, r{}, m{}, '{}', ... ({} bytes))",
                u8::from(due.dup),
                message.qos as u8,
                u8::from(message.retain),
                due.packet_id,
                if message.topic.is_empty() { "(null)" } else { &message.topic },
                message.payload.len()
            ));
            let acknowledged = message.qos as u8 > 0;
            self.send(&Packet::Publish(Publish {
                dup: due.dup,
                qos: message.qos,
                retain: message.retain,
                topic: &message.topic,
                packet_id: acknowledged.then_some(due.packet_id),
                properties: message.properties.clone(),
                payload: &message.payload,
            }));
            if !acknowledged {
                let packet_id = due.packet_id.get();
                self.events.push_back(Event::Published { packet_id, reason: ReasonCode::Success, reason_string: None });
            }
        }
    }

    fn send(&mut self, packet: &Packet<'_>) {
        codec::encode(packet, self.version, &mut self.outgoing);
        self.last_out = Instant::now();
    }

    fn say(&self, what: &str) {
        if self.debug {
            debug_line(&format!("Client {} {what}", self.client_id.as_deref().unwrap_or("(null)")));
        }
    }
}

/// A debug line goes where mosquitto's goes: to stdout, among the messages.
fn debug_line(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: Properties::new() }
}
