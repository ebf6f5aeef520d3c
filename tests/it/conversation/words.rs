//! Packets as words: `publish qos1 id=7 topic=x payload=hi`. The same words are sent and expected.
//!
//! * Reason Codes by their names with dashes (`not-authorized`); Success need not be said.
//! * Properties by their names with dashes (`session-expiry-interval=60`, `user-property=name:value`); those of a Will begin with `will-`.
//! * Acknowledgements and requests begin with their Packet Identifier: `puback 7`, `subscribe 1 filter=a/# qos1 filter=b`.
//! * `payload-size=N` is a payload of N times `x`.

use std::collections::HashMap;

use darner::mqtt::*;

/// A packet that owns its payload.
pub struct Owned {
    packet: Packet<'static>,
    topic: String,
    payload: Vec<u8>,
}

impl Owned {
    pub fn as_packet(&self) -> Packet<'_> {
        match self.packet.clone() {
            Packet::Publish(publish) => Packet::Publish(Publish { topic: &self.topic, payload: &self.payload, ..publish }),
            other => other,
        }
    }
}

pub fn hex(words: &[String]) -> Result<Vec<u8>, String> {
    let digits = words.concat();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| format!("not hex: {digits}"));
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn kebab(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn reason_word(reason: ReasonCode) -> String {
    reason.text().to_lowercase().replace(' ', "-")
}

fn reason(word: &str) -> Option<ReasonCode> {
    ReasonCode::ALL.iter().copied().find(|&reason| reason_word(reason) == word)
}

/// A property from its name and value.
fn property(name: &str, value: &str) -> Option<Property> {
    let text = || Box::<str>::from(value);
    let bytes = || Box::<[u8]>::from(value.as_bytes());
    Some(match name {
        "payload-format-indicator" => Property::PayloadFormatIndicator(value.parse().ok()?),
        "message-expiry-interval" => Property::MessageExpiryInterval(value.parse().ok()?),
        "content-type" => Property::ContentType(text()),
        "response-topic" => Property::ResponseTopic(text()),
        "correlation-data" => Property::CorrelationData(bytes()),
        "subscription-identifier" => Property::SubscriptionIdentifier(value.parse().ok()?),
        "session-expiry-interval" => Property::SessionExpiryInterval(value.parse().ok()?),
        "assigned-client-identifier" => Property::AssignedClientIdentifier(text()),
        "server-keep-alive" => Property::ServerKeepAlive(value.parse().ok()?),
        "authentication-method" => Property::AuthenticationMethod(text()),
        "authentication-data" => Property::AuthenticationData(bytes()),
        "request-problem-information" => Property::RequestProblemInformation(value.parse().ok()?),
        "will-delay-interval" => Property::WillDelayInterval(value.parse().ok()?),
        "request-response-information" => Property::RequestResponseInformation(value.parse().ok()?),
        "response-information" => Property::ResponseInformation(text()),
        "server-reference" => Property::ServerReference(text()),
        "reason-string" => Property::ReasonString(text()),
        "receive-maximum" => Property::ReceiveMaximum(value.parse().ok()?),
        "topic-alias-maximum" => Property::TopicAliasMaximum(value.parse().ok()?),
        "topic-alias" => Property::TopicAlias(value.parse().ok()?),
        "maximum-qos" => Property::MaximumQos(value.parse().ok()?),
        "retain-available" => Property::RetainAvailable(value.parse().ok()?),
        "user-property" => value.split_once(':').map(|(name, value)| Property::UserProperty(name.into(), value.into()))?,
        "maximum-packet-size" => Property::MaximumPacketSize(value.parse().ok()?),
        "wildcard-subscription-available" => Property::WildcardSubscriptionAvailable(value.parse().ok()?),
        "subscription-identifier-available" => Property::SubscriptionIdentifierAvailable(value.parse().ok()?),
        "shared-subscription-available" => Property::SharedSubscriptionAvailable(value.parse().ok()?),
        _ => return None,
    })
}

fn property_word(property: &Property) -> String {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = match property {
        Property::UserProperty(name, value) => format!("{name}:{value}"),
        Property::CorrelationData(bytes) | Property::AuthenticationData(bytes) => lossy(bytes),
        // Every other variant has one field, which Debug prints between parentheses.
        other => {
            let text = format!("{other:?}");
            let value = text.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
            value.trim_matches('"').to_owned()
        }
    };
    format!("{}={value}", kebab(property.name()))
}

/// What is being parsed: words taken one by one.
struct Words<'a> {
    rest: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn flag(&mut self, word: &str) -> bool {
        let at = self.rest.iter().position(|w| *w == word);
        at.map(|at| self.rest.remove(at)).is_some()
    }

    fn value(&mut self, key: &str) -> Option<&'a str> {
        let value = |word: &&'a str| word.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        let at = self.rest.iter().position(|word| value(word).is_some())?;
        value(&self.rest.remove(at))
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        self.value(key).map(|value| value.parse().map_err(|_| format!("{key}={value} is no number"))).transpose()
    }

    fn first_id(&mut self) -> Result<PacketId, String> {
        let word = if self.rest.is_empty() { "" } else { self.rest.remove(0) };
        word.parse().map_err(|_| format!("{word:?} is no Packet Identifier"))
    }

    fn qos(&mut self, prefix: &str) -> Qos {
        let mut qos = |number| self.flag(&format!("{prefix}qos{number}"));
        if qos(2) {
            Qos::ExactlyOnce
        } else if qos(1) {
            Qos::AtLeastOnce
        } else {
            qos(0);
            Qos::AtMostOnce
        }
    }

    fn reason(&mut self) -> ReasonCode {
        let found = self.rest.iter().enumerate().find_map(|(at, word)| reason(word).map(|reason| (at, reason)));
        found.map_or(ReasonCode::Success, |(at, reason)| {
            self.rest.remove(at);
            reason
        })
    }

    /// All words that are properties, in order.
    fn properties(&mut self, prefix: &str) -> Properties {
        let mut properties = Properties::new();
        self.rest.retain(|word| {
            let found = word.strip_prefix(prefix).and_then(|word| word.split_once('=')).and_then(|(name, value)| property(name, value));
            let keep = found.is_none();
            properties.extend(found);
            keep
        });
        properties
    }

    fn payload(&mut self, prefix: &str) -> Result<Vec<u8>, String> {
        if let Some(size) = self.number(&format!("{prefix}payload-size"))? {
            return Ok(vec![b'x'; size]);
        }
        Ok(self.value(&format!("{prefix}payload")).unwrap_or_default().as_bytes().to_vec())
    }
}

pub fn parse(words: &[String]) -> Result<Owned, String> {
    let mut w = Words { rest: words.iter().skip(1).map(String::as_str).collect() };
    let (mut topic, mut payload) = (String::new(), Vec::new());
    let kind = words.first().map_or("", String::as_str);
    let packet = match kind {
        "connect" => Packet::Connect(Box::new(connect(&mut w)?)),
        "publish" => {
            w.value("topic").unwrap_or_default().clone_into(&mut topic);
            payload = w.payload("")?;
            let (qos, packet_id) = (w.qos(""), w.number("id")?);
            let (dup, retain) = (w.flag("dup"), w.flag("retain"));
            Packet::Publish(Publish { dup, qos, retain, topic: "", packet_id, properties: w.properties(""), payload: b"" })
        }
        "puback" => Packet::Puback(ack(&mut w)?),
        "pubrec" => Packet::Pubrec(ack(&mut w)?),
        "pubrel" => Packet::Pubrel(ack(&mut w)?),
        "pubcomp" => Packet::Pubcomp(ack(&mut w)?),
        "subscribe" => Packet::Subscribe(subscribe(&mut w)?),
        "unsubscribe" => {
            let packet_id = w.first_id()?;
            let filters = std::iter::from_fn(|| w.value("filter").map(str::to_owned)).collect();
            Packet::Unsubscribe(Unsubscribe { packet_id, properties: w.properties(""), filters })
        }
        "pingreq" => Packet::Pingreq,
        "pingresp" => Packet::Pingresp,
        "disconnect" => Packet::Disconnect(Disconnect { reason: w.reason(), properties: w.properties("") }),
        "auth" => Packet::Auth(Auth { reason: w.reason(), properties: w.properties("") }),
        // A server's packets, for a client that misbehaves.
        "connack" => Packet::Connack(Connack { session_present: false, reason: w.reason(), properties: w.properties("") }),
        "suback" => {
            let packet_id = w.first_id()?;
            Packet::Suback(Suback { packet_id, reasons: vec![w.reason()], properties: w.properties("") })
        }
        _ => return Err(format!("no packet: {kind}")),
    };
    if w.rest.is_empty() { Ok(Owned { packet, topic, payload }) } else { Err(format!("not understood: {}", w.rest.join(" "))) }
}

fn connect(w: &mut Words<'_>) -> Result<Connect, String> {
    let (v31, v311, v5) = (w.flag("v31"), w.flag("v311"), w.flag("v5"));
    let version = match (v31, v311, v5) {
        (true, false, false) => ProtocolVersion::V31,
        (false, true, false) => ProtocolVersion::V311,
        (false, false, true) => ProtocolVersion::V5,
        _ => return Err("connect v31, v311 or v5".to_owned()),
    };
    let will = match w.value("will") {
        Some(topic) => Some(Will {
            topic: topic.to_owned(),
            payload: w.payload("will-")?,
            qos: w.qos("will-"),
            retain: w.flag("will-retain"),
            properties: {
                // Will Delay Interval has its prefix already.
                let delay = w.number("will-delay-interval")?.map(Property::WillDelayInterval);
                delay.into_iter().chain(w.properties("will-")).collect()
            },
        }),
        None => None,
    };
    Ok(Connect {
        version,
        bridge: w.flag("bridge"),
        clean_start: w.flag("clean"),
        keep_alive: w.number("keepalive")?.unwrap_or(0),
        client_id: w.value("id").unwrap_or_default().to_owned(),
        will,
        username: w.value("user").map(str::to_owned),
        password: w.value("password").map(|password| password.as_bytes().to_vec()),
        properties: w.properties(""),
    })
}

fn ack(w: &mut Words<'_>) -> Result<Ack, String> {
    Ok(Ack { packet_id: w.first_id()?, reason: w.reason(), properties: w.properties("") })
}

fn subscribe(w: &mut Words<'_>) -> Result<Subscribe, String> {
    let packet_id = w.first_id()?;
    let properties = w.properties("");
    let mut subscriptions: Vec<SubscriptionRequest> = Vec::new();
    for word in w.rest.drain(..) {
        if let Some(filter) = word.strip_prefix("filter=") {
            subscriptions.push(SubscriptionRequest { filter: filter.to_owned(), options: SubscriptionOptions::default() });
            continue;
        }
        let options = &mut subscriptions.last_mut().ok_or("options before their filter")?.options;
        match word {
            "qos0" => options.qos = Qos::AtMostOnce,
            "qos1" => options.qos = Qos::AtLeastOnce,
            "qos2" => options.qos = Qos::ExactlyOnce,
            "no-local" => options.no_local = true,
            "retain-as-published" => options.retain_as_published = true,
            "retain-if-new" => options.retain_handling = RetainHandling::SendIfNew,
            "retain-not" => options.retain_handling = RetainHandling::DoNotSend,
            _ => return Err(format!("no subscription option: {word}")),
        }
    }
    Ok(Subscribe { packet_id, properties, subscriptions })
}

/// A packet from the broker in words; what has its default is left out.
pub fn describe(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<String> {
    let mut words = Vec::new();
    let reason_unless_success = |reason: &ReasonCode| (*reason != ReasonCode::Success).then(|| reason_word(*reason));
    let list = |reasons: &[ReasonCode]| reasons.iter().map(|&reason| reason_word(reason)).collect::<Vec<_>>();
    let mut say = |word: &str| words.push(word.to_owned());
    let properties = match packet {
        Packet::Publish(publish) => {
            say("publish");
            match publish.qos {
                Qos::AtMostOnce => {}
                qos => say(&format!("qos{}", qos as u8)),
            }
            if publish.dup {
                say("dup");
            }
            if publish.retain {
                say("retain");
            }
            if let Some(id) = publish.packet_id {
                say(&format!("id={id}"));
            }
            say(&format!("topic={}", publish.topic));
            match publish.payload {
                b"" => {}
                long if long.len() > 60 => say(&format!("payload-size={}", long.len())),
                payload => say(&format!("payload={}", String::from_utf8_lossy(payload))),
            }
            &publish.properties[..]
        }
        Packet::Connack(connack) => {
            say("connack");
            say(&reason_word(connack.reason));
            if connack.session_present {
                say("session-present");
            }
            &connack.properties
        }
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            say(match packet {
                Packet::Puback(_) => "puback",
                Packet::Pubrec(_) => "pubrec",
                Packet::Pubrel(_) => "pubrel",
                _ => "pubcomp",
            });
            say(&ack.packet_id.to_string());
            words.extend(reason_unless_success(&ack.reason));
            &ack.properties
        }
        Packet::Suback(suback) => {
            say("suback");
            say(&suback.packet_id.to_string());
            words.extend(list(&suback.reasons));
            &suback.properties
        }
        Packet::Unsuback(unsuback) => {
            say("unsuback");
            say(&unsuback.packet_id.to_string());
            words.extend(list(&unsuback.reasons));
            &unsuback.properties
        }
        Packet::Disconnect(disconnect) => {
            say("disconnect");
            if version != ProtocolVersion::V5 {
                say("(sent-in-version-3)");
            }
            words.extend(reason_unless_success(&disconnect.reason));
            &disconnect.properties
        }
        Packet::Auth(auth) => {
            say("auth");
            words.extend(reason_unless_success(&auth.reason));
            &auth.properties
        }
        Packet::Pingresp => {
            say("pingresp");
            &[]
        }
        other => {
            say(&format!("{other:?}"));
            &[]
        }
    };
    words.extend(properties.iter().map(property_word));
    words
}

/// Whether what was got is what was expected; captures `key=$name`.
pub fn matches(expected: &[String], got: &[String], captured: &mut HashMap<String, String>) -> Result<(), String> {
    let ignores_rest = expected.iter().any(|word| word == "...");
    let mut rest: Vec<&String> = got.iter().collect();
    let mut captures = Vec::new();
    // Words without `=` must come in this order (Reason Codes of a SUBACK do).
    let bare = |words: &[String]| words.iter().filter(|word| !word.contains('=') && *word != "...").cloned().collect::<Vec<_>>();
    let (wanted, had) = (bare(expected), bare(got));
    if wanted != had && !(ignores_rest && wanted.iter().all(|word| had.contains(word))) {
        return Err(format!("expected {}", wanted.join(" ")));
    }
    for word in expected.iter().filter(|word| word.contains('=')) {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if let Some(name) = value.strip_prefix('!') {
            let other = captured.get(name).ok_or_else(|| format!("{name} was never captured"))?;
            let at = rest.iter().position(|got| got.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')));
            let found = rest.remove(at.ok_or_else(|| format!("no {key}"))?);
            if found[key.len() + 1..] == **other {
                return Err(format!("{key} is {other} again"));
            }
            continue;
        }
        let known = value.strip_prefix('$').map(|name| (name, captured.get(name).cloned()));
        let wanted = match &known {
            Some((_, Some(value))) => format!("{key}={value}"),
            _ => word.clone(),
        };
        let any = value == "?" || matches!(known, Some((_, None)));
        let fits = |got: &&String| if any { got.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')) } else { **got == wanted };
        let at = rest.iter().position(fits).ok_or_else(|| format!("no {wanted}"))?;
        let found = rest.remove(at);
        if let Some((name, None)) = known {
            captures.push((name.to_owned(), found[key.len() + 1..].to_owned()));
        }
    }
    let connack = got.first().is_some_and(|word| word == "connack");
    rest.retain(|word| word.contains('='));
    if rest.is_empty() || connack || ignores_rest {
        captured.extend(captures);
        return Ok(());
    }
    Err(format!("not expected: {}", rest.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ")))
}
