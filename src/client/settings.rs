//! What one run of a tool was asked to do, checked.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::dial::Address;
use super::format::Format;
use super::options;
use super::property_arguments::PropertyLists;
use super::proxy::Proxy;
use super::tls::TlsOptions;
use crate::mqtt::{Connect, Property, ProtocolVersion, Qos, RetainHandling, Will};

/// The two tools; they share one table of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Pub,
    Sub,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pub => "mosquitto_pub",
            Self::Sub => "mosquitto_sub",
        }
    }
}

/// Where the messages to publish come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Argument(Vec<u8>),
    File(PathBuf),
    Nothing,
    Stdin,
    StdinLines,
}

/// Why a tool does not run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Help,
    Version,
    /// What is wrong with the command line, with its line ends.
    Refused(String),
}

/// A refusal followed by an empty line, as most of mosquitto's are.
pub(super) fn refused_spaced(text: impl Into<String>) -> Stop {
    Stop::Refused(text.into() + "\n\n")
}

pub(super) fn refused(text: impl Into<String>) -> Stop {
    Stop::Refused(text.into() + "\n")
}

/// Options as given, with mosquitto's defaults.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) tool: Tool,
    pub(super) host: Option<String>,
    /// 0 makes `host` the path of a unix socket.
    pub(super) port: Option<u16>,
    pub(super) bind: Option<String>,
    pub(super) no_delay: bool,
    pub(super) proxy: Option<Proxy>,
    pub(super) tls: TlsOptions,
    /// Without TLS, whatever else is given.
    pub(super) no_tls: bool,
    pub(super) version: ProtocolVersion,
    pub(super) client_id: Option<String>,
    pub(super) client_id_prefix: Option<String>,
    pub(super) keep_alive_secs: u16,
    pub(super) clean: bool,
    /// Seconds; `None` when not given.
    pub(super) session_expiry: Option<u32>,
    pub(super) username: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) will_topic: Option<String>,
    pub(super) will_payload: Option<Vec<u8>>,
    pub(super) will_qos: Qos,
    pub(super) will_retain: bool,
    pub(super) properties: PropertyLists,
    pub(super) qos: Qos,
    pub(super) in_flight_max: u16,
    pub(super) debug: bool,
    pub(super) quiet: bool,
    /// One for mosquitto_pub, any number for mosquitto_sub.
    pub(super) topics: Vec<String>,
    // mosquitto_pub
    pub(super) source: Option<Source>,
    pub(super) retain: bool,
    pub(super) repeat: u32,
    pub(super) repeat_delay: Duration,
    // mosquitto_sub
    pub(super) filter_outs: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
    pub(super) count: Option<u32>,
    pub(super) timeout: Option<Duration>,
    pub(super) exit_after_subscribing: bool,
    pub(super) no_retained: bool,
    pub(super) retain_handling: RetainHandling,
    pub(super) retained_only: bool,
    pub(super) remove_retained: bool,
    pub(super) retain_as_published: bool,
    pub(super) verbose: bool,
    pub(super) end_of_line: bool,
    pub(super) pretty: bool,
    pub(super) format: Option<Format>,
    /// Tenths of a per mille: 10,000 prints every message.
    pub(super) random_filter: u32,
}

impl Settings {
    fn new(tool: Tool) -> Self {
        Self {
            tool,
            host: None,
            port: None,
            bind: None,
            no_delay: false,
            proxy: None,
            tls: TlsOptions::default(),
            no_tls: false,
            version: ProtocolVersion::V311,
            client_id: None,
            client_id_prefix: None,
            keep_alive_secs: 60,
            clean: true,
            session_expiry: None,
            username: None,
            password: None,
            will_topic: None,
            will_payload: None,
            will_qos: Qos::AtMostOnce,
            will_retain: false,
            properties: PropertyLists::default(),
            qos: Qos::AtMostOnce,
            in_flight_max: 20,
            debug: false,
            quiet: false,
            topics: Vec::new(),
            source: None,
            retain: false,
            repeat: 1,
            repeat_delay: Duration::ZERO,
            filter_outs: Vec::new(),
            unsubscribe: Vec::new(),
            count: None,
            timeout: None,
            exit_after_subscribing: false,
            no_retained: false,
            retain_handling: RetainHandling::SendAtSubscribe,
            retained_only: false,
            remove_retained: false,
            retain_as_published: false,
            verbose: false,
            end_of_line: true,
            pretty: false,
            format: None,
            random_filter: 10_000,
        }
    }

    /// Reads the user's own defaults (one option a line), then the command line.
    pub(super) fn load(tool: Tool, defaults: &str, arguments: &[OsString]) -> Result<Self, Stop> {
        let mut settings = Self::new(tool);
        for line in defaults.lines().filter(|line| !line.starts_with('#')) {
            options::apply_line(&mut settings, line)?;
        }
        options::apply(&mut settings, arguments)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&mut self) -> Result<(), Stop> {
        if self.will_topic.is_none() {
            if self.will_payload.is_some() {
                return Err(refused("Error: Will payload given, but no will topic given."));
            }
            if self.will_retain {
                return Err(refused("Error: Will retain given, but no will topic given."));
            }
        }
        let fixed_client_id = self.client_id.is_some() && self.client_id_prefix.is_none();
        if self.version == ProtocolVersion::V5 {
            if !self.clean {
                self.session_expiry.get_or_insert(u32::MAX);
            }
            if self.session_expiry == Some(u32::MAX) && !fixed_client_id {
                let text = "Error: You must provide a client id if you are using an infinite session expiry interval.";
                return Err(refused(text));
            }
            if let Some(secs) = self.session_expiry.filter(|secs| *secs > 0) {
                self.properties.connect.push(Property::SessionExpiryInterval(secs));
            }
        } else if !self.clean && !fixed_client_id {
            return Err(refused("Error: You must provide a client id if you are using the -c option."));
        }
        if self.tool == Tool::Sub && self.topics.is_empty() {
            return Err(refused("Error: You must specify a topic to subscribe to."));
        }
        if self.no_tls {
            self.tls = TlsOptions::default();
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(refused("Error: Both certfile and keyfile must be provided if one of them is set."));
        }
        // As mosquitto: the port for TLS means TLS, with the system's authorities unless others are named.
        if self.port == Some(8883) && !self.no_tls && !self.tls.is_wanted() {
            self.tls.system_authorities = true;
        }
        self.properties.check().map_err(refused)
    }

    pub(super) fn address(&self) -> Address {
        let host = self.host.clone().unwrap_or_else(|| "localhost".to_owned());
        match self.port.unwrap_or(if self.tls.is_wanted() { 8883 } else { 1883 }) {
            0 => Address::Unix(PathBuf::from(host)),
            port => Address::Tcp { host, port },
        }
    }

    pub(super) fn subscription_options(&self) -> crate::mqtt::SubscriptionOptions {
        crate::mqtt::SubscriptionOptions {
            qos: self.qos,
            no_local: false,
            retain_as_published: self.retain_as_published,
            retain_handling: self.retain_handling,
        }
    }

    /// CONNECT as mosquitto's clients send it; `Err` is what they print when the options do not go together.
    pub(super) fn connect(&self) -> Result<Connect, &'static str> {
        let is_v5 = self.version == ProtocolVersion::V5;
        if !is_v5 && !self.properties.will.is_empty() {
            return Err("Error: Problem setting will.");
        }
        if !is_v5 && self.password.is_some() && self.username.is_none() {
            return Err("Error: Problem setting username and/or password.");
        }
        if !is_v5 && !self.properties.connect.is_empty() {
            return Err("Unable to connect (This feature is not supported.).");
        }
        let will = self.will_topic.as_ref().map(|topic| Will {
            topic: topic.clone(),
            payload: self.will_payload.clone().unwrap_or_default(),
            qos: self.will_qos,
            retain: self.will_retain,
            properties: self.properties.will.clone(),
        });
        let mut properties = self.properties.connect.clone();
        if is_v5 && !properties.iter().any(|property| matches!(property, Property::ReceiveMaximum(_))) {
            // With -C, no more than that many may come before the tool leaves.
            let count = self.count.and_then(|count| u16::try_from(count).ok());
            properties.push(Property::ReceiveMaximum(count.unwrap_or(20).min(20)));
        }
        Ok(Connect {
            version: self.version,
            bridge: false,
            clean_start: self.clean,
            keep_alive: self.keep_alive_secs,
            properties,
            client_id: self.connect_client_id(),
            will,
            username: self.username.clone(),
            password: self.password.clone(),
        })
    }

    fn connect_client_id(&self) -> String {
        match (&self.client_id, &self.client_id_prefix) {
            (_, Some(prefix)) => format!("{prefix}{}", std::process::id()),
            (Some(id), None) => id.clone(),
            // Version 3.1 knows no empty Client Identifier.
            (None, None) if self.version == ProtocolVersion::V31 => random_client_id(),
            (None, None) => String::new(),
        }
    }
}

fn random_client_id() -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = [0_u8; 18];
    // Without randomness every client would be called the same; the process id still tells them apart on this machine.
    if getrandom::fill(&mut bytes).is_err() {
        return format!("mosq-{}", std::process::id());
    }
    let letters = bytes.iter().filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()));
    "mosq-".chars().chain(letters.map(|letter| char::from(*letter))).collect()
}
