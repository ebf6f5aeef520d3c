//! Bytes → chunks. Everything borrows the file's bytes; lengths are looked at before they are believed.

use memchr::memmem;

use super::MAGIC;
use crate::mqtt::codec;
use crate::mqtt::{Properties, Qos, RetainHandling, SubscriptionOptions};

/// Versions of the format.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=6;
/// The first version of structs with gaps.
const STRUCTS: u32 = 5;
/// After damage so many places are tried, and then the rest is given up.
const TRIES_MAX: u64 = 10_000;

/// What a chunk says.
#[derive(Debug, PartialEq)]
pub(super) enum Chunk<'a> {
    /// About the file itself.
    File {
        id_bytes: u8,
    },
    Message(Box<Message<'a>>),
    Held(Held<'a>),
    Retained {
        message: u64,
    },
    Subscription(Subscription<'a>),
    Client(Client<'a>),
}

#[derive(Debug, PartialEq)]
pub(super) struct Message<'a> {
    pub(super) id: u64,
    /// Seconds since 1970; 0 is never.
    pub(super) expires: i64,
    pub(super) publisher: &'a str,
    pub(super) username: &'a str,
    pub(super) port: u16,
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) properties: Properties,
}

/// A client's hold on a message.
#[derive(Debug, PartialEq)]
pub(super) struct Held<'a> {
    pub(super) client: &'a str,
    pub(super) message: u64,
    pub(super) packet_id: u16,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    /// From the broker to the client.
    pub(super) is_outgoing: bool,
    pub(super) waits: u8,
    pub(super) subscription_identifier: u32,
}

#[derive(Debug, PartialEq)]
pub(super) struct Subscription<'a> {
    pub(super) client: &'a str,
    pub(super) filter: &'a str,
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: u32,
}

#[derive(Debug, PartialEq)]
pub(super) struct Client<'a> {
    pub(super) id: &'a str,
    pub(super) username: &'a str,
    pub(super) port: u16,
    pub(super) last_packet_id: u16,
    /// Session Expiry Interval, `u32::MAX` never.
    pub(super) expiry_secs: u32,
    /// When the session ends, in seconds since 1970; 0 is not said.
    pub(super) expires: i64,
    /// When the client left; 0 is not said.
    pub(super) left: i64,
}

type Parsed<T> = Result<T, &'static str>;

/// What is left of a chunk.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Parsed<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len).ok_or("a part is shorter than what it says is in it")?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        Ok(self.take(N)?.try_into().unwrap_or([0; N]))
    }

    fn u8(&mut self) -> Parsed<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Parsed<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A message's number, which means nothing but itself.
    fn id(&mut self, bytes: u8) -> Parsed<u64> {
        if bytes == 4 { self.array().map(u32::from_le_bytes).map(u64::from) } else { self.array().map(u64::from_le_bytes) }
    }

    /// Seconds since 1970 in the byte order of the machine that wrote: the other order is far beyond every date.
    fn time(&mut self) -> Parsed<i64> {
        const FAR: i64 = 1 << 40;
        let bytes = self.array()?;
        let (little, big) = (i64::from_le_bytes(bytes), i64::from_be_bytes(bytes));
        Ok([little, big].into_iter().find(|time| (0..FAR).contains(time)).unwrap_or(0))
    }

    fn time32(&mut self) -> Parsed<i64> {
        // No such file is older than 2009 or younger than 2038: the first byte of the number is 0x49 or more.
        let bytes = self.array()?;
        let (little, big) = (i32::from_le_bytes(bytes), i32::from_be_bytes(bytes));
        Ok([little, big].into_iter().find(|time| *time >= 0x4900_0000).unwrap_or(0).into())
    }

    fn text(&mut self, len: u16) -> Parsed<&'a str> {
        codec::text(self.take(len.into())?).map_err(|_| "a text is not one that MQTT permits")
    }

    /// A text behind its length.
    fn string(&mut self) -> Parsed<&'a str> {
        let len = self.u16()?;
        self.text(len)
    }

    fn qos(&mut self) -> Parsed<Qos> {
        Qos::from_u8(self.u8()?).ok_or("a QoS is none")
    }

    fn properties(&mut self) -> Parsed<Properties> {
        let rest = self.take(self.0.len())?;
        if rest.is_empty() { Ok(Properties::new()) } else { codec::decode_publish_properties(rest).map_err(|_| "properties are none") }
    }

    fn end(self) -> Parsed<()> {
        if self.0.is_empty() { Ok(()) } else { Err("a part is longer than what is in it") }
    }
}

/// The file, chunk after chunk.
pub(super) struct Chunks<'a> {
    bytes: &'a [u8],
    at: usize,
    /// As the chunks are read; what the file says is `said`.
    version: u32,
    pub(super) said: u32,
    id_bytes: u8,
    /// 64-bit numbers are aligned to 4 bytes, as i386 does.
    is_narrow: bool,
    /// How many more places that look like chunks are tried after damage.
    tries: u64,
}

/// A place that cannot be read, and how much was passed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) at: u64,
    pub(super) bytes: u64,
    pub(super) why: &'static str,
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

impl<'a> Chunks<'a> {
    /// `None`: the version is none of those known, and the first chunk does not look like one.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let said = number(bytes, MAGIC.len() + 4)?;
        let at = MAGIC.len() + 8;
        let looks_struct = number(bytes, at) == Some(1);
        let looks_packed = number(bytes, at) == Some(0x0001_0000);
        // A later version is read as the last one that is known: what does not fit is passed over. So is one that a flipped bit made.
        let version = match said {
            said if VERSIONS.contains(&said) && !(looks_struct && said < STRUCTS) && !(looks_packed && said >= STRUCTS) => said,
            _ if looks_struct => 6,
            _ if looks_packed => 4,
            _ => return None,
        };
        let is_narrow = number(bytes, at + 4) == Some(12);
        Some(Self { bytes, at, version, said, id_bytes: 8, is_narrow, tries: TRIES_MAX })
    }

    /// The version that it says is not the one it was read as.
    pub(super) fn is_doubtful(&self) -> bool {
        self.said != self.version
    }

    pub(super) fn next(&mut self) -> Option<Result<Chunk<'a>, Passed>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        match self.chunk(self.at) {
            Ok((chunk, end)) => {
                if let Chunk::File { id_bytes } = chunk {
                    self.id_bytes = id_bytes;
                }
                self.at = end;
                Some(Ok(chunk))
            }
            Err(why) => Some(Err(self.pass_over(why))),
        }
    }

    /// On to the next chunk that can be read.
    fn pass_over(&mut self, why: &'static str) -> Passed {
        let at = self.at;
        self.at = self.next_readable(at);
        Passed { at: at as u64, bytes: (self.at - at) as u64, why }
    }

    fn next_readable(&mut self, at: usize) -> usize {
        // Where only the contents are damaged, the length still leads to the next.
        if let Some((_, body, len)) = self.head(at)
            && self.may_begin(body + len)
        {
            return body + len;
        }
        let zeros: &[u8] = if self.version >= STRUCTS { &[0, 0, 0] } else { &[0] };
        let mut from = at + 1;
        while let Some(found) = self.bytes.get(from..).and_then(|rest| memmem::find(rest, zeros)).filter(|_| self.tries > 0) {
            let place = from + found;
            if self.may_begin(place) {
                self.tries -= 1;
                if self.chunk(place).is_ok_and(|(_, end)| self.may_begin(end)) {
                    return place;
                }
            }
            from = place + 1;
        }
        self.bytes.len()
    }

    /// A chunk may stand here, or the file ends.
    fn may_begin(&self, at: usize) -> bool {
        at == self.bytes.len() || self.head(at).is_some_and(|(kind, _, _)| (1..=6).contains(&kind))
    }

    /// Kind, where the contents begin, and their length, which the file has.
    fn head(&self, at: usize) -> Option<(u32, usize, usize)> {
        let (kind, len_at) = if self.version >= STRUCTS {
            (number(self.bytes, at)?, at + 4)
        } else {
            (u32::from(u16::from_be_bytes(*self.bytes.get(at..)?.first_chunk()?)), at + 2)
        };
        let len = number(self.bytes, len_at)? as usize;
        let body = len_at + 4;
        // In version 4 a length may be too large by that of the publisher's identifier.
        let slack = if self.version == 4 && kind == 2 { usize::from(u16::MAX) } else { 0 };
        (len <= (self.bytes.len() - body).saturating_add(slack)).then_some((kind, body, len))
    }

    /// The chunk that begins here, and where it ends.
    fn chunk(&self, at: usize) -> Parsed<(Chunk<'a>, usize)> {
        let Some((kind, body, len)) = self.head(at) else { return Err("the file is cut off, or a length in it is wrong") };
        let end = (body + len).min(self.bytes.len());
        let mut fields = Fields(self.bytes.get(body..end).unwrap_or_default());
        let fields = &mut fields;
        if self.version < STRUCTS {
            let chunk = self.packed(kind, fields)?;
            let left = fields.0.len() + (body + len - end);
            let twice = if let (4, Chunk::Message(message)) = (self.version, &chunk) { message.publisher.len() } else { 0 };
            return if left == 0 || left == twice { Ok((chunk, end - fields.0.len())) } else { Err("a part is longer than what is in it") };
        }
        let chunk = match kind {
            1 => self.struct_file(fields),
            2 => struct_message(fields),
            3 => struct_held(fields),
            4 => fields.id(8).map(|message| Chunk::Retained { message }),
            5 => struct_subscription(fields),
            6 => self.struct_client(fields),
            _ => Err("a part is of a kind that is not known"),
        }?;
        fields.end()?;
        Ok((chunk, end))
    }

    fn packed(&self, kind: u32, fields: &mut Fields<'a>) -> Parsed<Chunk<'a>> {
        match kind {
            1 => {
                fields.u8()?;
                let id_bytes = id_bytes(fields.u8()?)?;
                fields.id(id_bytes)?;
                Ok(Chunk::File { id_bytes })
            }
            2 => self.packed_message(fields),
            3 => {
                let (client, message, packet_id) = (fields.string()?, fields.id(self.id_bytes)?, fields.u16()?);
                let (qos, retain, is_outgoing, waits) = (fields.qos()?, fields.u8()? != 0, fields.u8()? != 0, fields.u8()?);
                fields.u8()?;
                Ok(Chunk::Held(Held { client, message, packet_id, qos, retain, is_outgoing, waits, subscription_identifier: 0 }))
            }
            4 => Ok(Chunk::Retained { message: fields.id(self.id_bytes)? }),
            5 => {
                let (client, filter) = (fields.string()?, fields.string()?);
                let options = SubscriptionOptions { qos: fields.qos()?, ..SubscriptionOptions::default() };
                Ok(Chunk::Subscription(Subscription { client, filter, options, identifier: 0 }))
            }
            6 => {
                let (id, last_packet_id) = (fields.string()?, fields.u16()?);
                let left = match fields.0.len() {
                    0 => 0,
                    4 => fields.time32()?,
                    _ => fields.time()?,
                };
                Ok(Chunk::Client(Client { id, username: "", port: 0, last_packet_id, expiry_secs: u32::MAX, expires: 0, left }))
            }
            _ => Err("a part is of a kind that is not known"),
        }
    }

    fn packed_message(&self, fields: &mut Fields<'a>) -> Parsed<Chunk<'a>> {
        let (id, publisher) = (fields.id(self.id_bytes)?, fields.string()?);
        let (username, port) = if self.version == 4 { (fields.string()?, fields.u16()?) } else { ("", 0) };
        // The Packet Identifiers that it had once.
        fields.take(4)?;
        let (topic, qos, retain) = (fields.string()?, fields.qos()?, fields.u8()? != 0);
        let len = fields.u32()?;
        let payload = fields.take(len as usize)?;
        let properties = Properties::new();
        Ok(Chunk::Message(Box::new(Message { id, expires: 0, publisher, username, port, topic, payload, qos, retain, properties })))
    }

    fn struct_file(&self, fields: &mut Fields<'a>) -> Parsed<Chunk<'a>> {
        fields.take(8 + 1)?;
        let id_bytes = id_bytes(fields.u8()?)?;
        fields.take(if self.is_narrow { 2 } else { 6 })?;
        if id_bytes == 8 { Ok(Chunk::File { id_bytes }) } else { Err("the numbers of messages are not of 8 bytes") }
    }

    fn struct_client(&self, fields: &mut Fields<'a>) -> Parsed<Chunk<'a>> {
        let (expires, expiry_secs, last_packet_id, id_len) = (fields.time()?, fields.u32()?, fields.u16()?, fields.u16()?);
        let (mut port, mut username_len) = (0, 0);
        if self.version >= 6 {
            (port, username_len) = (fields.u16()?, fields.u16()?);
            let texts = usize::from(id_len) + usize::from(username_len);
            let gap = match fields.0.len().checked_sub(texts) {
                Some(gap @ (0 | 4)) => gap,
                _ if self.is_narrow => 0,
                _ => 4,
            };
            fields.take(gap)?;
        }
        let id = fields.text(id_len)?;
        // With mosquitto 2.0's slip it is none of its own, and mostly no text.
        let username = fields.take(username_len.into()).ok().and_then(|name| codec::text(name).ok()).unwrap_or_default();
        Ok(Chunk::Client(Client { id, username, port, last_packet_id, expiry_secs, expires, left: 0 }))
    }
}

fn id_bytes(value: u8) -> Parsed<u8> {
    if matches!(value, 4 | 8) { Ok(value) } else { Err("the numbers of messages are of no size that is known") }
}

fn struct_message<'a>(fields: &mut Fields<'a>) -> Parsed<Chunk<'a>> {
    let (id, expires, payload_len) = (fields.id(8)?, fields.time()?, fields.u32()?);
    fields.u16()?;
    let (publisher_len, username_len, topic_len, port) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?);
    let (qos, retain) = (fields.qos()?, fields.u8()? != 0);
    let (publisher, username, topic) = (fields.text(publisher_len)?, fields.text(username_len)?, fields.text(topic_len)?);
    let payload = fields.take(payload_len as usize)?;
    let properties = fields.properties()?;
    Ok(Chunk::Message(Box::new(Message { id, expires, publisher, username, port, topic, payload, qos, retain, properties })))
}

fn struct_held<'a>(fields: &mut Fields<'a>) -> Parsed<Chunk<'a>> {
    let (message, packet_id, client_len) = (fields.id(8)?, fields.u16()?, fields.u16()?);
    let (qos, waits, flags, is_outgoing) = (fields.qos()?, fields.u8()?, fields.u8()?, fields.u8()? != 0);
    let client = fields.text(client_len)?;
    let identifier = fields.properties()?.into_iter().find_map(|property| match property {
        crate::mqtt::Property::SubscriptionIdentifier(identifier) => Some(identifier),
        _ => None,
    });
    let subscription_identifier = identifier.unwrap_or(0);
    Ok(Chunk::Held(Held { client, message, packet_id, qos, retain: flags >> 4 != 0, is_outgoing, waits, subscription_identifier }))
}

fn struct_subscription<'a>(fields: &mut Fields<'a>) -> Parsed<Chunk<'a>> {
    let (identifier, client_len, filter_len) = (fields.u32()?, fields.u16()?, fields.u16()?);
    let (qos, bits) = (fields.qos()?, fields.u8()?);
    fields.take(2)?;
    let (client, filter) = (fields.text(client_len)?, fields.text(filter_len)?);
    let retain_handling = match bits & 0x30 {
        0x10 => RetainHandling::SendIfNew,
        0x20 => RetainHandling::DoNotSend,
        _ => RetainHandling::SendAtSubscribe,
    };
    let options = SubscriptionOptions { qos, no_local: bits & 4 != 0, retain_as_published: bits & 8 != 0, retain_handling };
    Ok(Chunk::Subscription(Subscription { client, filter, options, identifier }))
}
