//! A client for load: blocking while it connects, then driven by a poll loop.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use darner::mqtt::codec::{Decoded, PublishParts, decode, encode, encode_publish};
use darner::mqtt::{Ack, Connect, Packet, PacketId, ProtocolVersion, Qos, ReasonCode, Subscribe, SubscriptionOptions, SubscriptionRequest};

const VERSION: ProtocolVersion = ProtocolVersion::V311;

pub struct Client {
    pub socket: TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    next_packet_id: u16,
}

fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: Vec::new() }
}

/// What came in.
pub enum Event<'a> {
    Message(&'a [u8]),
    Acknowledged,
    Other,
}

impl Client {
    pub fn connect(port: u16, client_id: &str) -> Self {
        Self::connect_with(port, client_id, true)
    }

    /// `clean_start` false: a session that outlives the connection.
    pub fn connect_with(port: u16, client_id: &str, clean_start: bool) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
        socket.set_nodelay(true).expect("a TCP socket");
        let mut client = Self { socket, incoming: Vec::new(), outgoing: Vec::new(), next_packet_id: 0 };
        client.request(&Packet::Connect(Box::new(Connect {
            version: VERSION,
            bridge: false,
            clean_start,
            keep_alive: 0,
            properties: Vec::new(),
            client_id: client_id.to_owned(),
            will: None,
            username: None,
            password: None,
        })));
        client
    }

    /// Sends a packet and waits for one.
    fn request(&mut self, packet: &Packet<'_>) {
        encode(packet, VERSION, &mut self.outgoing);
        self.socket.write_all(&self.outgoing).expect("the broker reads");
        self.outgoing.clear();
        let mut buffer = [0; 256];
        loop {
            let count = self.socket.read(&mut buffer).expect("the broker answers");
            assert!(count > 0, "the broker closed the connection");
            self.incoming.extend_from_slice(&buffer[..count]);
            if let Ok(Decoded::Packet { len, .. }) = decode(&self.incoming, VERSION, u32::MAX) {
                self.incoming.drain(..len);
                return;
            }
        }
    }

    fn packet_id(&mut self) -> PacketId {
        self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_packet_id).expect("never 0")
    }

    pub fn subscribe(&mut self, filter: &str, qos: Qos) {
        let packet_id = self.packet_id();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let subscriptions = vec![SubscriptionRequest { filter: filter.to_owned(), options }];
        self.request(&Packet::Subscribe(Subscribe { packet_id, properties: Vec::new(), subscriptions }));
    }

    pub fn publish(&mut self, topic: &str, qos: Qos, payload: &[u8]) {
        self.put(topic, qos, false, payload);
    }

    pub fn publish_retained(&mut self, topic: &str, qos: Qos, payload: &[u8]) {
        self.put(topic, qos, true, payload);
    }

    fn put(&mut self, topic: &str, qos: Qos, retain: bool, payload: &[u8]) {
        let packet_id = (qos != Qos::AtMostOnce).then(|| self.packet_id());
        let parts = PublishParts {
            dup: false,
            qos,
            retain,
            topic,
            packet_id,
            properties: &[],
            topic_alias: None,
            message_expiry_interval: None,
            subscription_identifiers: &[],
            payload,
        };
        encode_publish(&parts, VERSION, &mut self.outgoing);
    }

    pub fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub fn write(&mut self) {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the broker went away: {error}"),
            }
        }
    }

    /// Reads once, calls `each` for what came, acknowledges messages.
    pub fn read(&mut self, scratch: &mut [u8], mut each: impl FnMut(Event<'_>)) {
        match self.socket.read(scratch) {
            Ok(0) => panic!("the broker closed the connection"),
            Ok(count) => self.incoming.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("the broker went away: {error}"),
        }
        let mut used = 0;
        while let Ok(Decoded::Packet { packet, len }) = decode(&self.incoming[used..], VERSION, u32::MAX) {
            used += len;
            match packet {
                Packet::Publish(publish) => {
                    if let Some(packet_id) = publish.packet_id {
                        let ack = ack(packet_id);
                        let answer = if publish.qos == Qos::ExactlyOnce { Packet::Pubrec(ack) } else { Packet::Puback(ack) };
                        encode(&answer, VERSION, &mut self.outgoing);
                    }
                    each(Event::Message(publish.payload));
                }
                Packet::Pubrel(release) => encode(&Packet::Pubcomp(ack(release.packet_id)), VERSION, &mut self.outgoing),
                Packet::Pubrec(received) => encode(&Packet::Pubrel(ack(received.packet_id)), VERSION, &mut self.outgoing),
                Packet::Puback(_) | Packet::Pubcomp(_) => each(Event::Acknowledged),
                _ => each(Event::Other),
            }
        }
        self.incoming.drain(..used);
        self.write();
    }
}
