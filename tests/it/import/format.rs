//! mosquitto's database as its writers of all ages wrote it, on machines of all kinds. None of the old ones is at hand in a test, so this is
//! made from the description of the format in `src/store/mosquitto/mod.rs`: it shows that the reader and the description agree. Tested beside
//! this: what Debian's mosquitto 2.0 writes during the test, and small files that older ones wrote (`written`).

/// What a machine does to structs and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub name: &'static str,
    /// Bytes of a `time_t`.
    pub time_bytes: usize,
    /// Alignment of 64-bit numbers.
    pub align: usize,
    pub is_big: bool,
}

pub const MACHINES: [Machine; 4] = [
    Machine { name: "x86_64 and aarch64", time_bytes: 8, align: 8, is_big: false },
    Machine { name: "32-bit ARM", time_bytes: 4, align: 8, is_big: false },
    Machine { name: "i386", time_bytes: 4, align: 4, is_big: false },
    Machine { name: "s390x", time_bytes: 8, align: 8, is_big: true },
];

pub struct Database {
    pub bytes: Vec<u8>,
    /// Where chunks begin.
    pub starts: Vec<usize>,
    version: u32,
    machine: Machine,
    /// 1.5.6 and 1.5.7: the publisher's identifier counts twice in the length.
    pub counts_twice: bool,
}

pub struct Message<'a> {
    pub id: u64,
    pub expires: i64,
    pub publisher: &'a str,
    pub username: &'a str,
    pub port: u16,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    /// With their length; only since version 5.
    pub properties: &'a [u8],
}

impl Default for Message<'_> {
    fn default() -> Self {
        Self { id: 1, expires: 0, publisher: "", username: "", port: 0, topic: "t", payload: b"p", qos: 0, retain: false, properties: &[] }
    }
}

pub struct Held<'a> {
    pub client: &'a str,
    pub message: u64,
    pub packet_id: u16,
    pub qos: u8,
    pub retain: bool,
    pub is_outgoing: bool,
    pub waits: u8,
    /// With their length; only since version 5.
    pub properties: &'a [u8],
}

pub struct Client<'a> {
    pub id: &'a str,
    pub username: &'a str,
    pub port: u16,
    pub last_packet_id: u16,
    /// Only since version 5.
    pub expiry_secs: u32,
    pub expires: i64,
    /// Only in versions 3 and 4.
    pub left: i64,
}

fn be16(value: usize) -> [u8; 2] {
    (value as u16).to_be_bytes()
}

fn string(text: &str) -> Vec<u8> {
    [&be16(text.len())[..], text.as_bytes()].concat()
}

impl Database {
    pub fn new(version: u32, machine: Machine) -> Self {
        let mut bytes = b"\x00\xb5\x00mosquitto db\0\0\0\0".to_vec();
        bytes.extend_from_slice(&version.to_be_bytes());
        let mut database = Self { bytes, starts: Vec::new(), version, machine, counts_twice: false };
        let last = database.number(77);
        if database.is_packed() {
            database.chunk(1, &[&[1, 8], &last[..]].concat(), 0);
        } else {
            let gap = if machine.align == 8 { 6 } else { 2 };
            database.chunk(1, &[&last[..], &[1, 8], &[0xee; 6][..gap]].concat(), 0);
        }
        database
    }

    pub fn is_packed(&self) -> bool {
        self.version < 5
    }

    /// A 64-bit number as it lies in memory.
    fn number(&self, value: u64) -> [u8; 8] {
        if self.machine.is_big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn time(&self, value: i64) -> Vec<u8> {
        match (self.machine.time_bytes, self.machine.is_big) {
            (4, false) => (value as i32).to_le_bytes().to_vec(),
            (4, true) => (value as i32).to_be_bytes().to_vec(),
            _ => self.number(value as u64).to_vec(),
        }
    }

    /// `beyond`: bytes that the length counts and the chunk has not.
    pub fn chunk(&mut self, kind: u32, body: &[u8], beyond: usize) {
        self.starts.push(self.bytes.len());
        if self.is_packed() {
            self.bytes.extend_from_slice(&be16(kind as usize));
        } else {
            self.bytes.extend_from_slice(&kind.to_be_bytes());
        }
        self.bytes.extend_from_slice(&((body.len() + beyond) as u32).to_be_bytes());
        self.bytes.extend_from_slice(body);
    }

    pub fn message(&mut self, message: &Message<'_>) {
        let Message { id, expires, publisher, username, port, topic, payload, qos, retain, properties } = *message;
        let len = (payload.len() as u32).to_be_bytes();
        if self.is_packed() {
            let mut body = [&self.number(id)[..], &string(publisher)].concat();
            if self.version == 4 {
                body.extend([string(username), be16(port.into()).to_vec()].concat());
            }
            body.extend_from_slice(&[0, 9, 0, 9]);
            body.extend([string(topic), vec![qos, retain.into()], len.to_vec(), payload.to_vec()].concat());
            let beyond = if self.counts_twice { publisher.len() } else { 0 };
            self.chunk(2, &body, beyond);
        } else {
            let mut body = [self.number(id), self.number(expires as u64)].concat();
            body.extend_from_slice(&len);
            for value in [9, publisher.len(), username.len(), topic.len(), port.into()] {
                body.extend_from_slice(&be16(value));
            }
            body.extend_from_slice(&[qos, retain.into()]);
            body.extend([publisher.as_bytes(), username.as_bytes(), topic.as_bytes(), payload, properties].concat());
            self.chunk(2, &body, 0);
        }
    }

    pub fn held(&mut self, held: &Held<'_>) {
        let Held { client, message, packet_id, qos, retain, is_outgoing, waits, properties } = *held;
        let (message, packet_id) = (self.number(message), packet_id.to_be_bytes());
        let body = if self.is_packed() {
            [&string(client), &message[..], &packet_id, &[qos, retain.into(), is_outgoing.into(), waits, 0]].concat()
        } else {
            let bytes = [qos, waits, u8::from(retain) << 4, is_outgoing.into()];
            [&message[..], &packet_id, &be16(client.len()), &bytes, client.as_bytes(), properties].concat()
        };
        self.chunk(3, &body, 0);
    }

    pub fn retained(&mut self, message: u64) {
        let message = self.number(message);
        self.chunk(4, &message, 0);
    }

    /// `options`: all but the QoS, only since version 5.
    pub fn subscription(&mut self, client: &str, filter: &str, qos: u8, options: u8, identifier: u32) {
        let body = if self.is_packed() {
            [string(client), string(filter), vec![qos]].concat()
        } else {
            let lens = [be16(client.len()), be16(filter.len())].concat();
            [&identifier.to_be_bytes()[..], &lens, &[qos, options, 0xee, 0xee], client.as_bytes(), filter.as_bytes()].concat()
        };
        self.chunk(5, &body, 0);
    }

    pub fn client(&mut self, client: &Client<'_>) {
        let Client { id, username, port, last_packet_id, expiry_secs, expires, left } = *client;
        let mut body = Vec::new();
        if self.is_packed() {
            body.extend([string(id), last_packet_id.to_be_bytes().to_vec()].concat());
            if self.version >= 3 {
                body.extend(self.time(left));
            }
        } else {
            body.extend_from_slice(&self.number(expires as u64));
            body.extend_from_slice(&expiry_secs.to_be_bytes());
            body.extend([last_packet_id.to_be_bytes(), be16(id.len())].concat());
            if self.version == 6 {
                body.extend([port.to_be_bytes(), be16(username.len())].concat());
                body.extend_from_slice(&[0xee; 4][..if self.machine.align == 8 { 4 } else { 0 }]);
            }
            body.extend_from_slice(id.as_bytes());
            body.extend_from_slice(if self.version == 6 { username.as_bytes() } else { &[] });
        }
        self.chunk(6, &body, 0);
    }
}
