//! `mosquitto_pub`.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::event::{Event, SessionError, Wake};
use super::flows::{Flows, Outgoing};
use super::outcome::{Outcome, open};
use super::reasons;
use super::session::Session;
use super::settings::{Settings, Source};
use crate::exit_code::ExitCode;
use crate::mqtt::codec::PublishParts;
use crate::mqtt::{Connack, Connect, PacketId, Property, ProtocolVersion, Qos, ReasonCode, codec};

/// Largest payload that a PUBLISH carries.
const PAYLOAD_MAX: usize = 268_435_455;

/// How long the broker may take nothing at all while the last packets are sent.
const LAST_WRITE_PATIENCE: Duration = Duration::from_mins(1);

/// Pause before `-l` connects again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

struct Publisher<'a> {
    settings: &'a Settings,
    payload: Rc<[u8]>,
    topic: Rc<str>,
    published: u32,
    acknowledged: u32,
    repeat_at: Option<Instant>,
    alias_is_set: bool,
    lines: Option<Lines>,
}

/// What of stdin has not become messages yet.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
    finished: bool,
}

/// Publishes as asked.
pub(super) fn run(settings: &Settings) -> Outcome {
    let (Some(source), Some(topic)) = (&settings.source, settings.topics.first()) else {
        let text = "Error: Both topic and message must be supplied.\n".to_owned() + &super::help::text(settings.tool);
        return Outcome::failure(text);
    };
    let has_alias = settings.properties.publish.iter().any(|property| matches!(property, Property::TopicAlias(_)));
    if topic.is_empty() && !has_alias {
        return Outcome::failure("Error: Invalid input. Does your topic contain '+' or '#'?");
    }
    let payload = match load(source) {
        Ok(payload) => payload,
        Err(text) => return Outcome::failure(text),
    };
    if payload.len() > PAYLOAD_MAX {
        return Outcome::failure(format!("Error: Message length must be less than {PAYLOAD_MAX} bytes.\n"));
    }
    let connect = match settings.connect() {
        Ok(connect) => connect,
        Err(text) => return Outcome::failure(text),
    };
    let publisher = Publisher {
        settings,
        payload: payload.into(),
        topic: topic.as_str().into(),
        published: 0,
        acknowledged: 0,
        repeat_at: None,
        alias_is_set: false,
        lines: (*source == Source::StdinLines).then(Lines::default),
    };
    publisher.run(&connect)
}

fn load(source: &Source) -> Result<Vec<u8>, String> {
    match source {
        Source::Argument(payload) => Ok(payload.clone()),
        Source::Nothing | Source::StdinLines => Ok(Vec::new()),
        Source::File(path) => std::fs::read(path).map_err(|_| {
            let path = path.display();
            format!("Error: Unable to open file \"{path}\".\nError loading input file \"{path}\".")
        }),
        Source::Stdin => {
            let mut payload = Vec::new();
            match std::io::stdin().lock().take(PAYLOAD_MAX as u64 + 1).read_to_end(&mut payload) {
                Ok(1..) => Ok(payload),
                _ => Err("Error: Zero length input.\nError loading input from stdin.".to_owned()),
            }
        }
    }
}

/// Whether the conversation goes on.
enum Next {
    GoOn,
    /// Everything was acknowledged.
    Done,
    Stop(Outcome),
}

impl Publisher<'_> {
    fn run(mut self, connect: &Connect) -> Outcome {
        let mut flows = Flows::new(self.settings.in_flight_max);
        let mut has_connected = false;
        loop {
            match open(self.settings, connect, flows) {
                Ok(session) => match self.converse(session, &mut has_connected) {
                    Ok(outcome) => return outcome,
                    // Only -l lives long enough to try again, and only after it was let in once.
                    Err((error, left)) if error.is_passing() && self.lines.is_some() && has_connected => {
                        if let SessionError::Ended(_) = error {
                            self.settings.complain(&Outcome::of_session(&error).text.unwrap_or_default());
                        }
                        flows = left;
                    }
                    Err((error @ SessionError::Refused(_), _)) => {
                        let refused = Outcome::of_session(&error);
                        self.settings.complain(&refused.text.unwrap_or_default());
                        let second = "Error: A network protocol error occurred when communicating with the broker.";
                        return Outcome::said(refused.code, second);
                    }
                    Err((error, _)) => return Outcome::of_session(&error),
                },
                Err((_, left)) if has_connected => flows = left,
                Err((error, _)) => return Outcome::of_dial(&error),
            }
            std::thread::sleep(RECONNECT_DELAY);
        }
    }

    fn converse(&mut self, mut session: Session, has_connected: &mut bool) -> Result<Outcome, (SessionError, Flows)> {
        let stdin = std::io::stdin();
        self.alias_is_set = false;
        let mut connected = false;
        loop {
            let reads_lines = connected && self.lines.as_ref().is_some_and(|lines| !lines.finished) && !session.is_busy();
            let other = reads_lines.then(|| stdin.as_fd());
            let next = match session.wait(self.repeat_at, other) {
                Ok(Wake::Event(event)) => {
                    if let Event::Connected(connack) = &event {
                        connected = !connack.reason.is_error();
                        *has_connected |= connected;
                    }
                    self.handle(&mut session, event)
                }
                Ok(Wake::Deadline) => {
                    self.repeat_at = None;
                    self.publish(&mut session, Rc::clone(&self.payload));
                    Next::GoOn
                }
                Ok(Wake::Readable) => self.read_lines(&mut session),
                Err(error) => return Err((error, session.into_flows())),
            };
            match next {
                Next::GoOn => {}
                Next::Done => {
                    session.disconnect(ReasonCode::Success, self.settings.properties.disconnect.clone(), LAST_WRITE_PATIENCE);
                    return Ok(Outcome::silent(ExitCode::Ok));
                }
                Next::Stop(outcome) => {
                    session.disconnect(ReasonCode::Success, self.settings.properties.disconnect.clone(), LAST_WRITE_PATIENCE);
                    return Ok(outcome);
                }
            }
        }
    }

    fn handle(&mut self, session: &mut Session, event: Event) -> Next {
        match event {
            Event::Connected(connack) if connack.reason.is_error() => Next::Stop(Outcome::refused(&connack, self.settings, true)),
            Event::Connected(connack) => {
                if let Some(text) = self.refused_by(&connack) {
                    return Next::Stop(Outcome::failure(text));
                }
                if self.lines.is_none() && self.published == 0 {
                    self.publish(session, Rc::clone(&self.payload));
                }
                Next::GoOn
            }
            Event::Published { packet_id, reason, reason_string } => {
                if reason.is_error() {
                    self.settings.complain(&format!("Warning: Publish {packet_id} failed: {}.", reasons::reason_text(reason)));
                    if let Some(text) = reason_string {
                        self.settings.complain(&text);
                    }
                }
                self.acknowledged += 1;
                if self.lines.is_none() && self.acknowledged < self.settings.repeat {
                    self.repeat_at = Some(Instant::now() + self.settings.repeat_delay);
                    return Next::GoOn;
                }
                self.done_if_all_acknowledged()
            }
            Event::Message(_) | Event::Subscribed { .. } | Event::Unsubscribed => Next::GoOn,
        }
    }

    /// What the broker said at CONNACK that it will not take.
    fn refused_by(&self, connack: &Connack) -> Option<&'static str> {
        connack.properties.iter().find_map(|property| match property {
            Property::MaximumQos(max) if *max < self.settings.qos as u8 => {
                Some("Error: Message QoS not supported on broker, try a lower QoS.")
            }
            Property::MaximumPacketSize(max) if codec::publish_len(&self.parts(), self.settings.version) > *max as usize => {
                Some("Error: Message payload is too large.")
            }
            _ => None,
        })
    }

    fn parts(&self) -> PublishParts<'_> {
        PublishParts {
            dup: false,
            qos: self.settings.qos,
            retain: self.settings.retain,
            topic: &self.topic,
            packet_id: (self.settings.qos != Qos::AtMostOnce).then_some(PacketId::MIN),
            properties: &self.settings.properties.publish,
            topic_alias: None,
            message_expiry_interval: None,
            subscription_identifiers: &[],
            payload: &self.payload,
        }
    }

    fn publish(&mut self, session: &mut Session, payload: Rc<[u8]>) {
        let has_alias = self.settings.properties.publish.iter().any(|property| matches!(property, Property::TopicAlias(_)));
        // The alias stands for the topic once it was sent with it.
        let topic = if has_alias && self.alias_is_set { "".into() } else { Rc::clone(&self.topic) };
        self.alias_is_set = true;
        self.published += 1;
        let properties = match self.settings.version {
            ProtocolVersion::V5 => self.settings.properties.publish.clone(),
            _ => Vec::new(),
        };
        session.publish(Outgoing { topic, payload, qos: self.settings.qos, retain: self.settings.retain, properties });
    }

    fn read_lines(&mut self, session: &mut Session) -> Next {
        let Some(mut lines) = self.lines.take() else { return Next::GoOn };
        let mut chunk = [0; 16 * 1024];
        // Not through std's buffer, which `poll` would not see.
        match nix::unistd::read(std::io::stdin(), &mut chunk) {
            Ok(0) => {
                lines.finished = true;
                if !lines.buffer.is_empty() {
                    self.publish(session, lines.buffer.split_off(0).into());
                }
            }
            Ok(len) => {
                lines.buffer.extend_from_slice(chunk.get(..len).unwrap_or_default());
                let whole = memchr::memrchr(b'\n', &lines.buffer).map_or(0, |end| end + 1);
                let rest = lines.buffer.split_off(whole);
                for line in lines.buffer.split(|byte| *byte == b'\n').take(memchr::memchr_iter(b'\n', &lines.buffer).count()) {
                    self.publish(session, line.into());
                }
                lines.buffer = rest;
            }
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
            Err(_) => lines.finished = true,
        }
        let too_long = lines.buffer.len() > PAYLOAD_MAX;
        self.lines = Some(lines);
        if too_long {
            return Next::Stop(Outcome::failure(format!("Error: Message length must be less than {PAYLOAD_MAX} bytes.\n")));
        }
        self.done_if_all_acknowledged()
    }

    fn done_if_all_acknowledged(&self) -> Next {
        let wants_more = match &self.lines {
            Some(lines) => !lines.finished,
            None => self.published < self.settings.repeat,
        };
        if wants_more || self.acknowledged < self.published { Next::GoOn } else { Next::Done }
    }
}
