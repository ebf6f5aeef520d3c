//! CONNECT, PUBLISH retained, SUBSCRIBE, and the same message back.

use std::time::{Duration, Instant};

use super::variables::Variables;
use crate::client::dial::{Address, DialError, DialOptions, Stream};
use crate::client::event::{Event, SessionError, Wake};
use crate::client::flows::{Flows, Outgoing};
use crate::client::format::Clock;
use crate::client::reasons;
use crate::client::session::Session;
use crate::mqtt::{Connect, ProtocolVersion, Qos, ReasonCode, SubscriptionOptions, SubscriptionRequest};

/// How long the message may take once the broker has granted the subscription; IOTstack's script gave it as long.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);

/// How long the broker may take nothing while DISCONNECT is sent; the verdict is known by then.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(50);

/// Our broker's word about its store, for whoever may read it: PID 1 knows more, where there is one.
const STORE_FAILING: &str = "$SYS/broker/persistence/failing";

/// Why the message did not come back.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: String,
    /// A healthy broker may be configured to do this.
    pub(super) may_be_by_configuration: bool,
}

impl Failure {
    fn by_configuration(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), may_be_by_configuration: true }
    }

    fn broken(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), may_be_by_configuration: false }
    }
}

/// Connects to the port on this machine; no name is looked up.
pub(super) fn dial_loopback(port: u16, until: Instant) -> Result<Stream, Failure> {
    let options = DialOptions { until: Some(until), no_delay: true, ..DialOptions::default() };
    let dial = |host: &str| Stream::dial(&Address::Tcp { host: host.to_owned(), port }, &options);
    // The first answer is the telling one: many containers have no IPv6 at all.
    dial("127.0.0.1").or_else(|error| dial("::1").map_err(|_| error)).map_err(|error| match &error {
        DialError::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => Failure::broken(format!("{error}")),
        _ => Failure::by_configuration(format!("{error}")),
    })
}

/// What a broker that brought the message back said of itself.
pub(super) struct Said {
    pub(super) store_failing: bool,
}

/// Sends the date through the broker and waits for it, at the latest until `until`.
pub(super) fn round_trip(stream: Stream, variables: &Variables, until: Instant) -> Result<Said, Failure> {
    // The private socket needs no credentials and does not look at them.
    let connect = Connect {
        version: ProtocolVersion::V311,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        properties: Vec::new(),
        client_id: String::new(),
        will: None,
        username: variables.user.clone().or(variables.password.is_some().then(String::new)),
        password: variables.password.as_ref().map(|password| password.clone().into_bytes()),
    };
    let payload = Clock::new().now().strftime("%a %b %e %H:%M:%S %Z %Y").to_string();
    let mut session = Session::start(stream, connect, Flows::new(20), false).map_err(|(error, _)| Failure::broken(error.to_string()))?;
    let outcome = converse(&mut session, variables, payload.as_bytes(), until);
    session.disconnect(ReasonCode::Success, Vec::new(), GOODBYE_PATIENCE);
    outcome
}

fn converse(session: &mut Session, variables: &Variables, payload: &[u8], until: Instant) -> Result<Said, Failure> {
    let topic = &variables.topic;
    let mut stage = "CONNACK";
    let mut wait_until = until;
    let mut other_payload = false;
    let mut store_failing = false;
    loop {
        let event = match session.wait(Some(wait_until), None) {
            Ok(Wake::Event(event)) => event,
            Ok(Wake::Deadline | Wake::Readable) if stage == "the message" => {
                let what = if other_payload { "only another message came back on" } else { "nothing came back on" };
                let hint = "does the ACL let this user write and read it?";
                return Err(Failure::by_configuration(format!("{what} topic {topic}: {hint}")));
            }
            Ok(Wake::Deadline | Wake::Readable) => {
                return Err(Failure::broken(format!("the broker does not answer: no {stage} came in time")));
            }
            // A listener for TLS or WebSockets hangs up on a CONNECT.
            Err(SessionError::Lost) if stage == "CONNACK" => {
                return Err(Failure::by_configuration("the broker closed the connection before it answered"));
            }
            Err(SessionError::Protocol(detail)) if stage == "CONNACK" => {
                return Err(Failure::by_configuration(format!("whoever listens there does not speak MQTT: {detail}")));
            }
            Err(error) => return Err(Failure::broken(error.to_string())),
        };
        match event {
            Event::Connected(connack) if connack.reason.is_error() => {
                let text = reasons::connack_text(connack.reason, ProtocolVersion::V311);
                return Err(Failure::by_configuration(text));
            }
            Event::Connected(_) => {
                stage = "SUBACK";
                ask(session, topic, payload);
            }
            // It may be that `$SYS` is not for this user.
            Event::Subscribed { reasons, .. } if reasons.last().is_none_or(|reason| reason.is_error()) => {
                return Err(Failure::by_configuration(format!("the broker refused the subscription to {topic}")));
            }
            Event::Subscribed { .. } => {
                stage = "the message";
                wait_until = until.min(Instant::now() + RETURN_PATIENCE);
            }
            Event::Message(message) if message.topic == STORE_FAILING => store_failing = message.payload == b"1",
            Event::Message(message) if message.topic == *topic && message.payload == payload => return Ok(Said { store_failing }),
            Event::Message(_) => other_payload = true,
            Event::Published { .. } | Event::Unsubscribed => {}
        }
    }
}

/// Publishes first: what comes back has been in the broker's store of retained messages, or is there by routing alone.
fn ask(session: &mut Session, topic: &str, payload: &[u8]) {
    let message = Outgoing { topic: topic.into(), payload: payload.into(), qos: Qos::AtMostOnce, retain: true, properties: Vec::new() };
    session.publish(message);
    // In this order, so that the word about the store comes before the message.
    let subscription = |filter: &str| SubscriptionRequest { filter: filter.to_owned(), options: SubscriptionOptions::default() };
    session.subscribe(vec![subscription(STORE_FAILING), subscription(topic)], Vec::new());
}
