//! A client that blocks, for tests: one packet out, one packet in.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use darner::mqtt::codec::{Decoded, decode, encode};
use darner::mqtt::{
    Connect, Packet, PacketId, Property, ProtocolVersion, Publish, Qos, Subscribe, SubscriptionOptions, SubscriptionRequest, Unsubscribe,
};

pub struct Client {
    pub socket: TcpStream,
    pub version: ProtocolVersion,
    incoming: Vec<u8>,
}

/// What came instead of a packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended;

impl Client {
    /// A connection without CONNECT.
    pub fn silent(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        Self { socket, version: ProtocolVersion::V311, incoming: Vec::new() }
    }

    pub fn connect(port: u16, client_id: &str) -> Self {
        let (client, code) = Self::log_in(port, client_id, None, ProtocolVersion::V311);
        assert_eq!(code, Some(0), "{client_id} is let in");
        client
    }

    /// `clean_start` false: with a session that outlives the connection.
    pub fn connect_with(port: u16, client_id: &str, clean_start: bool) -> Self {
        let mut client = Self::silent(port);
        assert_eq!(client.introduce(client_id, None, clean_start), Some(0), "{client_id} is let in");
        client
    }

    /// The client, and the return code of its CONNACK.
    pub fn log_in(port: u16, client_id: &str, login: Option<(&str, &str)>, version: ProtocolVersion) -> (Self, Option<u8>) {
        let mut client = Self { version, ..Self::silent(port) };
        let code = client.introduce(client_id, login, true);
        (client, code)
    }

    /// A client of version 5 without a Client Identifier, and the one that it is assigned.
    pub fn without_id(port: u16) -> (Self, String) {
        let mut client = Self { version: ProtocolVersion::V5, ..Self::silent(port) };
        client.hail("", None, true);
        let bytes = client.receive_bytes().expect("CONNACK");
        let Ok(Decoded::Packet { packet: Packet::Connack(connack), .. }) = decode(&bytes, client.version, u32::MAX) else {
            panic!("no CONNACK: {bytes:02x?}");
        };
        let assigned = |property| if let Property::AssignedClientIdentifier(id) = property { Some(id.into()) } else { None };
        (client, connack.properties.into_iter().find_map(assigned).expect("an Assigned Client Identifier"))
    }

    /// A client of a session that outlives the connection, for `expiry_secs` in version 5; whether it was there already.
    pub fn resume(port: u16, client_id: &str, version: ProtocolVersion, expiry_secs: u32) -> (Self, bool) {
        let mut client = Self { version, ..Self::silent(port) };
        let v5 = version == ProtocolVersion::V5;
        let properties = if v5 { vec![Property::SessionExpiryInterval(expiry_secs)] } else { Vec::new() };
        client.send(&Packet::Connect(Box::new(Connect {
            version,
            bridge: false,
            clean_start: false,
            keep_alive: 60,
            properties,
            client_id: client_id.to_owned(),
            will: None,
            username: None,
            password: None,
        })));
        match client.receive() {
            Packet::Connack(connack) => (client, connack.session_present),
            other => panic!("not a CONNACK: {other:?}"),
        }
    }

    /// The next packet; what it borrows is kept for good.
    pub fn receive(&mut self) -> Packet<'static> {
        let bytes: &'static [u8] = self.receive_bytes().expect("a packet").leak();
        match decode(bytes, self.version, u32::MAX) {
            Ok(Decoded::Packet { packet, .. }) => packet,
            other => panic!("no packet: {other:?}"),
        }
    }

    /// One whose session outlives the connection, in any version.
    pub fn lasting(port: u16, client_id: &str, version: ProtocolVersion) -> (Self, Option<u8>) {
        let mut client = Self { version, ..Self::silent(port) };
        let code = client.introduce(client_id, None, false);
        (client, code)
    }

    /// CONNECT to a session that should be there; Session Present of its CONNACK.
    pub fn come_back(&mut self, client_id: &str) -> Option<bool> {
        self.hail(client_id, None, false);
        Some(self.receive_bytes().ok()?.get(2)? & 1 == 1)
    }

    /// CONNECT, and the return code of its CONNACK.
    fn introduce(&mut self, client_id: &str, login: Option<(&str, &str)>, clean_start: bool) -> Option<u8> {
        self.hail(client_id, login, clean_start);
        self.receive_bytes().ok()?.get(3).copied()
    }

    fn hail(&mut self, client_id: &str, login: Option<(&str, &str)>, clean_start: bool) {
        let lasts = self.version == ProtocolVersion::V5 && !clean_start;
        let properties = if lasts { vec![Property::SessionExpiryInterval(600)] } else { Vec::new() };
        self.send(&Packet::Connect(Box::new(Connect {
            version: self.version,
            bridge: false,
            clean_start,
            keep_alive: 60,
            properties,
            client_id: client_id.to_owned(),
            will: None,
            username: login.map(|(name, _)| name.to_owned()),
            password: login.map(|(_, password)| password.as_bytes().to_vec()),
        })));
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, self.version, &mut bytes);
        self.socket.write_all(&bytes).expect("the broker reads");
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: Vec::new(),
            payload,
        }));
    }

    /// SUBSCRIBE at QoS 0, and its SUBACK.
    pub fn subscribe(&mut self, filter: &str) {
        self.subscribe_at(filter, Qos::AtMostOnce);
    }

    /// SUBSCRIBE, and its SUBACK.
    pub fn subscribe_at(&mut self, filter: &str, qos: Qos) {
        assert!(self.ask(filter, qos).is_ok_and(|code| code < 0x80), "SUBACK");
    }

    /// SUBSCRIBE, and the code of its SUBACK.
    pub fn ask(&mut self, filter: &str, qos: Qos) -> Result<u8, Ended> {
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            properties: Vec::new(),
            subscriptions: vec![SubscriptionRequest { filter: filter.to_owned(), options }],
        }));
        self.receive_bytes().map(|bytes| {
            assert_eq!(bytes[0], 0x90, "SUBACK");
            bytes.last().copied().unwrap_or_default()
        })
    }

    /// UNSUBSCRIBE, and its UNSUBACK.
    pub fn unsubscribe(&mut self, filter: &str) -> Result<(), Ended> {
        let unsubscribe = Unsubscribe { packet_id: PacketId::MIN, properties: Vec::new(), filters: vec![filter.to_owned()] };
        self.send(&Packet::Unsubscribe(unsubscribe));
        self.receive_bytes().map(|bytes| assert_eq!(bytes[0], 0xb0, "UNSUBACK"))
    }

    /// PINGREQ, and waits for its PINGRESP: everything sent before has been handled.
    pub fn ping(&mut self) {
        self.send(&Packet::Pingreq);
        assert_eq!(self.receive_bytes(), Ok(vec![0xd0, 0]), "PINGRESP");
    }

    /// The next packet's bytes.
    pub fn receive_bytes(&mut self) -> Result<Vec<u8>, Ended> {
        let mut buffer = [0; 4096];
        loop {
            if let Ok(Decoded::Packet { len, .. }) = decode(&self.incoming, self.version, u32::MAX) {
                return Ok(self.incoming.drain(..len).collect());
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Ended),
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(Ended),
                Err(error) => panic!("no packet came: {error}"),
            }
        }
    }

    /// Payload of the next packet, which is a PUBLISH.
    pub fn receive_payload(&mut self) -> Vec<u8> {
        let bytes = self.receive_bytes().expect("a packet");
        match decode(&bytes, self.version, u32::MAX) {
            Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) => publish.payload.to_vec(),
            other => panic!("not a PUBLISH: {other:?}"),
        }
    }

    /// Reads until the broker closes.
    pub fn wait_for_end(&mut self) {
        while self.receive_bytes().is_ok() {}
    }

    /// In version 5, with a will, a session that may outlive the connection, or both.
    pub fn connect_as(port: u16, client_id: &str, clean_start: bool, expiry_secs: u32, will: Option<darner::mqtt::Will>) -> Self {
        let mut client = Self { version: ProtocolVersion::V5, ..Self::silent(port) };
        client.send(&Packet::Connect(Box::new(Connect {
            version: ProtocolVersion::V5,
            bridge: false,
            clean_start,
            keep_alive: 60,
            properties: vec![Property::SessionExpiryInterval(expiry_secs)],
            client_id: client_id.to_owned(),
            will,
            username: None,
            password: None,
        })));
        assert_eq!(client.receive_bytes().ok().and_then(|connack| connack.get(3).copied()), Some(0), "{client_id} is let in");
        client
    }
}
