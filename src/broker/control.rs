//! `$CONTROL`: commands to the broker (`enable_control_api`), as mosquitto 2.1 answers them.

use serde_json::{Value, json};

use super::Broker;
use super::interface::{Outbox, Time};
use super::message::Publication;
use super::session::Terms;
use crate::conf::{Listener, Protocol};
use crate::notice::Notice;

/// What begins so is a command, and never passed on.
pub(super) const CONTROL: &str = "$CONTROL/";
const BROKER: &str = "$CONTROL/broker/v1";

/// Commands of one message that are looked at; an answer is longer than its command.
const COMMANDS_MAX: usize = 100;

impl Broker {
    /// A message under `$CONTROL` that its sender was permitted to publish.
    pub(super) fn control(&mut self, key: u32, topic: &str, payload: &[u8], now: Time, out: &mut Outbox) {
        if !self.settings.conf.control_api || topic != BROKER {
            return self.no_endpoint(key, topic, now, out);
        }
        let responses = match serde_json::from_slice::<Value>(payload) {
            Err(_) => vec![refusal("Unknown command", "Payload not valid JSON", None)],
            Ok(tree) => match tree.get("commands").and_then(Value::as_array) {
                None => vec![refusal("Unknown command", "Invalid/missing commands", None)],
                Some(commands) => self.obey_all(key, commands, out),
            },
        };
        let text = json!({ "responses": responses }).to_string();
        let topic = format!("{BROKER}/response");
        self.route(&mut Publication::new(&topic, text.as_bytes(), &[]), None, now, out);
    }

    /// In their order, up to the first that is no command.
    fn obey_all(&self, key: u32, commands: &[Value], out: &mut Outbox) -> Vec<Value> {
        let mut responses = Vec::new();
        for command in commands.iter().take(COMMANDS_MAX) {
            match self.obey(key, command, out) {
                Ok(response) => responses.push(response),
                Err(response) => {
                    responses.push(response);
                    break;
                }
            }
        }
        responses
    }

    fn obey(&self, key: u32, command: &Value, out: &mut Outbox) -> Result<Value, Value> {
        let Some(fields) = command.as_object() else {
            return Err(refusal("Unknown command", "Command not an object", None));
        };
        let Some(name) = fields.get("command").and_then(Value::as_str) else {
            return Err(refusal("Unknown command", "Missing command", None));
        };
        let correlation = fields.get("correlationData");
        if correlation.is_some_and(|data| !data.is_string()) {
            return Err(refusal(name, "Invalid correlationData data type.", None));
        }
        let (name, data) = if name.eq_ignore_ascii_case("listListeners") {
            let listeners: Vec<Value> = self.settings.conf.listeners.iter().map(describe).collect();
            ("listListeners", json!({ "listeners": listeners }))
        } else if name.eq_ignore_ascii_case("listPlugins") {
            // What is built in is no plugin, and has no endpoint.
            ("listPlugins", json!({ "plugins": [] }))
        } else {
            return Ok(refusal(name, "Unknown command", correlation));
        };
        if let Some(session) = self.sessions.get(key) {
            let username = session.identity.username.as_deref().unwrap_or("(null)").to_owned();
            out.note(Notice::BrokerCommand { client_id: session.identity.client_id.to_string(), username, command: name });
        }
        let mut response = json!({ "command": name, "data": data });
        if let (Some(data), Some(fields)) = (correlation, response.as_object_mut()) {
            fields.insert("correlationData".into(), data.clone());
        }
        Ok(response)
    }

    /// Nobody obeys under this topic: its sender alone is told, subscribed or not.
    fn no_endpoint(&mut self, key: u32, topic: &str, now: Time, out: &mut Outbox) {
        let conf = &*self.settings.conf;
        let Some(session) = self.sessions.get_mut(key) else { return };
        let topic = topic.strip_prefix(session.mount_point.as_deref().unwrap_or_default()).unwrap_or(topic);
        let topic = format!("{topic}/response");
        let mut answer = Publication::new(&topic, br#"{"error": "endpoint not available"}"#, &[]);
        let terms = Terms { limits: &conf.limits, queue_qos0: false, extra: 0 };
        session.offer(&mut answer, (crate::mqtt::Qos::AtMostOnce, false, 0), terms, now, out);
    }
}

fn refusal(command: &str, error: &str, correlation: Option<&Value>) -> Value {
    let mut response = json!({ "command": command, "error": error });
    if let (Some(data), Some(fields)) = (correlation, response.as_object_mut()) {
        fields.insert("correlationData".into(), data.clone());
    }
    response
}

fn describe(listener: &Listener) -> Value {
    let protocol = match listener.protocol {
        Protocol::Mqtt => "mqtt",
        Protocol::Websockets => "mqtt+websockets",
    };
    let mut described = json!({ "port": listener.port, "protocol": protocol, "tls": listener.tls_files().is_some() });
    if let Some(fields) = described.as_object_mut() {
        if let Some(host) = &listener.host {
            fields.insert("bind-address".into(), host.as_str().into());
        }
        if let Some(path) = &listener.unix_path {
            fields.insert("socket-path".into(), path.display().to_string().into());
        }
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_what_the_command_came_with() {
        assert_eq!(
            refusal("x", "Unknown command", Some(&json!("7"))),
            json!({"command": "x", "error": "Unknown command", "correlationData": "7"})
        );
    }

    #[test]
    fn a_listener_is_described_as_mosquitto_does() {
        let listener = Listener { port: 0, unix_path: Some("/s".into()), host: None, ..Listener::default() };
        assert_eq!(describe(&listener), json!({"port": 0, "protocol": "mqtt", "tls": false, "socket-path": "/s"}));
    }
}
