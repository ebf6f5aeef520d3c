//! A state as a list: for people, and as JSON.

use std::io::{self, Write};

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::broker::Time;
use crate::broker::in_flight::Awaiting;
use crate::broker::message::{Identity, Message};
use crate::broker::state::{Presence, State, StoredDelivery, StoredSession};
use crate::mqtt::{Property, ProtocolVersion, Qos, RetainHandling, SubscriptionOptions};

/// Characters of a payload that are shown.
const SHOWN_MAX: usize = 80;

/// A time of the machine's as the time of day.
fn date(zero: i64, time: Time) -> String {
    let ms = zero.saturating_add_unsigned(time.0);
    jiff::Timestamp::from_millisecond(ms)
        .map_or_else(|_| "a time beyond all dates".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Without control characters, which would speak to the terminal.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c == '\'' || c == '"' { vec![c] } else { c.escape_debug().collect() }).collect()
}

fn payload(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        let hex: String = bytes.iter().take(SHOWN_MAX / 4).map(|byte| format!("{byte:02x}")).collect();
        return format!("{} bytes 0x{hex}{}", bytes.len(), if bytes.len() > SHOWN_MAX / 4 { "…" } else { "" });
    };
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    format!("{} bytes \"{}\"{}", bytes.len(), plain(&cut), if cut.len() < text.len() { "…" } else { "" })
}

fn from(publisher: &Identity) -> String {
    let username = publisher.username.as_deref().map(|username| format!(" (user {})", plain(username)));
    format!("from {}{}", plain(&publisher.client_id), username.unwrap_or_default())
}

/// What a message has besides topic and payload.
fn traits(message: &Message, zero: i64) -> String {
    let expires = message.expires_at.map(|at| format!("expires {}", date(zero, at)));
    let publisher = message.publisher.as_deref().map(from);
    let properties = message.properties.iter().map(property);
    expires.into_iter().chain(publisher).chain(properties).map(|word| format!(", {word}")).collect()
}

fn property(property: &Property) -> String {
    match property {
        Property::UserProperty(name, value) => format!("{}={}", plain(name), plain(value)),
        other => plain(&format!("{other:?}")),
    }
}

fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V31 => "MQTT 3.1",
        ProtocolVersion::V311 => "MQTT 3.1.1",
        ProtocolVersion::V5 => "MQTT 5",
    }
}

fn waits_for(stored: &StoredDelivery) -> &'static str {
    match stored.flight {
        None => "queued",
        Some((_, Awaiting::Puback)) => "waits for PUBACK",
        Some((_, Awaiting::Pubrec)) => "waits for PUBREC",
        Some((_, Awaiting::Pubcomp)) => "waits for PUBCOMP",
    }
}

fn options(options: SubscriptionOptions) -> String {
    let handling = match options.retain_handling {
        RetainHandling::SendAtSubscribe => "",
        RetainHandling::SendIfNew => ", retained if new",
        RetainHandling::DoNotSend => ", nothing retained",
    };
    let flags = [(options.no_local, ", no local"), (options.retain_as_published, ", retain as published")];
    let flags: String = flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word).collect();
    format!("QoS {}{flags}{handling}", options.qos as u8)
}

fn presence(session: &StoredSession, zero: i64) -> String {
    match session.presence {
        Presence::Connected => "connected".into(),
        Presence::Left { expires_at: Some(at) } => format!("away, ends {}", date(zero, at)),
        Presence::Left { expires_at: None } => "away, never ends".into(),
    }
}

pub(super) fn text(state: &State, (path, kind): (&str, &str), zero: i64, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{path}: {kind}")?;
    writeln!(out, "{} retained messages", state.retained.len())?;
    for message in state.retained.iter() {
        let (topic, payload, traits) = (plain(&message.topic), payload(&message.payload), traits(message, zero));
        writeln!(out, "  {topic}: {payload}, QoS {}{traits}", message.qos as u8)?;
    }
    writeln!(out, "{} sessions", state.sessions.len())?;
    for session in state.sessions.values() {
        let user = session.client.username.as_deref().map(|user| format!(", user {}", plain(user))).unwrap_or_default();
        let (id, version) = (plain(&session.client.client_id), version(session.version));
        writeln!(out, "  {id}: {version}{user}, {}", presence(session, zero))?;
        for (filter, (held, identifier)) in &session.subscriptions {
            let identifier = if *identifier == 0 { String::new() } else { format!(", identifier {identifier}") };
            writeln!(out, "    subscribes {}: {}{identifier}", plain(filter), options(*held))?;
        }
        for stored in session.deliveries.values() {
            let (message, qos) = (&stored.delivery.message, stored.delivery.qos);
            message_line(out, waits_for(stored), stored.flight.map(|(id, _)| id.get()), qos, message, zero)?;
        }
        for (packet_id, message) in &session.received {
            message_line(out, "from it, waits for PUBREL", Some(packet_id.get()), Qos::ExactlyOnce, message, zero)?;
        }
        if let Some((will, at)) = &session.will {
            let at = at.map(|at| format!(", due {}", date(zero, at))).unwrap_or_default();
            writeln!(out, "    will {}: {}{at}", plain(&will.message.topic), payload(&will.message.payload))?;
        }
    }
    out.flush()
}

fn message_line(out: &mut impl Write, what: &str, packet_id: Option<u16>, qos: Qos, message: &Message, zero: i64) -> io::Result<()> {
    let id = packet_id.map(|id| format!(" (packet {id})")).unwrap_or_default();
    let (topic, payload, traits) = (plain(&message.topic), payload(&message.payload), traits(message, zero));
    writeln!(out, "    {what}{id} {topic}: {payload}, QoS {}{traits}", qos as u8)
}

fn object(kind: &str, entries: &[(&str, Value)]) -> Map<String, Value> {
    let entries = entries.iter().filter(|(_, value)| !value.is_null());
    std::iter::once(("kind".into(), kind.into())).chain(entries.map(|(name, value)| ((*name).into(), value.clone()))).collect()
}

/// `payload`, or `payload_base64` where it is no text.
fn put_message(object: &mut Map<String, Value>, message: &Message, qos: Qos, zero: i64) {
    object.insert("topic".into(), (&*message.topic).into());
    match std::str::from_utf8(&message.payload) {
        Ok(text) => object.insert("payload".into(), text.into()),
        Err(_) => object.insert("payload_base64".into(), base64::engine::general_purpose::STANDARD.encode(&message.payload).into()),
    };
    object.insert("qos".into(), (qos as u8).into());
    if let Some(at) = message.expires_at {
        object.insert("expires".into(), date(zero, at).into());
    }
    if let Some(publisher) = &message.publisher {
        object.insert("publisher".into(), json!({ "client_id": publisher.client_id, "username": publisher.username }));
    }
    if !message.properties.is_empty() {
        object.insert("properties".into(), serde_json::to_value(&message.properties).unwrap_or_default());
    }
}

pub(super) fn json(state: &State, zero: i64, out: &mut impl Write) -> io::Result<()> {
    let mut line = |object: Map<String, Value>| writeln!(out, "{}", Value::Object(object));
    for message in state.retained.iter() {
        let mut entry = object("retained", &[]);
        put_message(&mut entry, message, message.qos, zero);
        line(entry)?;
    }
    for session in state.sessions.values() {
        let client = &*session.client.client_id;
        let ends = if let Presence::Left { expires_at: Some(at) } = session.presence { date(zero, at).into() } else { Value::Null };
        let entries = [
            ("client_id", client.into()),
            ("username", session.client.username.as_deref().into()),
            ("version", version(session.version).into()),
            ("connected", (session.presence == Presence::Connected).into()),
            ("ends", ends),
        ];
        line(object("session", &entries))?;
        for (filter, (options, identifier)) in &session.subscriptions {
            let identifier = if *identifier == 0 { Value::Null } else { (*identifier).into() };
            let entries = [
                ("client_id", client.into()),
                ("filter", (&**filter).into()),
                ("qos", (options.qos as u8).into()),
                ("no_local", options.no_local.into()),
                ("retain_as_published", options.retain_as_published.into()),
                ("retain_handling", (options.retain_handling as u8).into()),
                ("identifier", identifier),
            ];
            line(object("subscription", &entries))?;
        }
        for stored in session.deliveries.values() {
            let packet_id = stored.flight.map_or(Value::Null, |(id, _)| id.get().into());
            let entries = [("client_id", client.into()), ("state", waits_for(stored).into()), ("packet_id", packet_id)];
            let mut entry = object("queued", &entries);
            put_message(&mut entry, &stored.delivery.message, stored.delivery.qos, zero);
            line(entry)?;
        }
        for (packet_id, message) in &session.received {
            let entries = [("client_id", client.into()), ("state", "waits for PUBREL".into()), ("packet_id", packet_id.get().into())];
            let mut entry = object("received", &entries);
            put_message(&mut entry, message, Qos::ExactlyOnce, zero);
            line(entry)?;
        }
    }
    out.flush()
}
