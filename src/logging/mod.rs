//! Log lines as mosquitto writes them: destinations, types, timestamps. Plain threads, no tokio: PID 1 uses it too.

mod destination;
mod escape;
mod timestamp;

pub use escape::escape;

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::conf::LogConf;
use crate::notice::Notice;
use destination::Destinations;
use timestamp::Clock;

/// mosquitto's log types (`log_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogType {
    Error,
    Warning,
    Notice,
    Information,
    Debug,
    Subscribe,
    Unsubscribe,
    Websockets,
    Internal,
}

impl LogType {
    /// The word of `log_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Information => "information",
            Self::Debug => "debug",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Websockets => "websockets",
            Self::Internal => "internal",
        }
    }

    /// Where `log_dest topic` publishes it. `None` for the types that would report their own publication.
    fn topic(self) -> Option<&'static str> {
        match self {
            Self::Error => Some("$SYS/broker/log/E"),
            Self::Warning => Some("$SYS/broker/log/W"),
            Self::Notice => Some("$SYS/broker/log/N"),
            Self::Information => Some("$SYS/broker/log/I"),
            Self::Subscribe => Some("$SYS/broker/log/M/subscribe"),
            Self::Unsubscribe => Some("$SYS/broker/log/M/unsubscribe"),
            Self::Websockets => Some("$SYS/broker/log/WS"),
            Self::Debug | Self::Internal => None,
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Receives (Topic Name, line) of `log_dest topic`. Called outside the logger's lock, from any thread; it must not block.
pub type TopicSink = Box<dyn Fn(&'static str, &str) + Send + Sync>;

/// Writes log lines. One event is one line is one write(2); nothing here blocks, panics, or ends the process when a destination
/// is full, closed or gone.
pub struct Logger {
    /// Types that are wanted, as bits; 0 with `log_dest none`.
    types: AtomicU16,
    state: Mutex<State>,
    topic: OnceLock<TopicSink>,
}

struct State {
    clock: Clock,
    destinations: Destinations,
    to_topic: bool,
    json: bool,
    /// What was wrong with `TZ` and the format at the last configuration: a reload need not repeat it.
    complained: Vec<String>,
}

impl Logger {
    /// Opens the destinations, in the time zone of `TZ`. What is wrong with them is said in the log itself.
    pub fn new(conf: &LogConf) -> Self {
        let logger = Self {
            types: AtomicU16::new(0),
            state: Mutex::new(State {
                clock: Clock::new(&LogConf::default(), &timestamp::Zone::utc()),
                destinations: Destinations::default(),
                to_topic: false,
                json: false,
                complained: Vec::new(),
            }),
            topic: OnceLock::new(),
        };
        logger.reconfigure(conf);
        logger
    }

    /// Follows a changed configuration (SIGHUP): types, format and destinations; files are opened anew.
    pub fn reconfigure(&self, conf: &LogConf) {
        use crate::conf::LogDestination as Destination;
        let silent = conf.destinations.is_empty() || conf.destinations.contains(&Destination::None);
        let types = if silent { 0 } else { conf.types.iter().fold(0, |bits, log_type| bits | log_type.bit()) };
        let zone = timestamp::Zone::from_environment();
        let clock = Clock::new(conf, &zone);
        let warnings: Vec<String> = zone.complaint.iter().chain(&clock.complaint).cloned().collect();
        let mut complaints: Vec<(LogType, String)> = Vec::new();
        {
            let mut state = self.lock();
            complaints.extend(warnings.iter().filter(|text| !state.complained.contains(text)).map(|text| (LogType::Warning, text.clone())));
            state.complained = warnings;
            state.clock = clock;
            state.json = conf.json;
            state.to_topic = !silent && conf.destinations.contains(&Destination::Topic);
            let troubles = state.destinations.replace(if silent { &[] } else { &conf.destinations }, conf.facility, conf.json);
            complaints.extend(troubles.into_iter().map(|text| (LogType::Error, text)));
            self.types.store(types, Ordering::Relaxed);
        }
        for (log_type, text) in complaints {
            self.log(log_type, &text);
        }
    }

    /// Closes and opens the log files again (after a rotation: SIGHUP, SIGRTMIN).
    pub fn reopen(&self) {
        let troubles = self.lock().destinations.reopen();
        for text in troubles {
            self.log(LogType::Error, &text);
        }
    }

    /// Where the lines of `log_dest topic` go. Only the first call counts.
    pub fn set_topic_sink(&self, sink: TopicSink) {
        let _ = self.topic.set(sink);
    }

    /// Whether a line of this type would be written anywhere: ask before formatting a costly one.
    pub fn enabled(&self, log_type: LogType) -> bool {
        self.types.load(Ordering::Relaxed) & log_type.bit() != 0
    }

    /// Writes one line. Control characters in `message` are escaped.
    pub fn log(&self, log_type: LogType, message: &str) {
        if !self.enabled(log_type) {
            return;
        }
        let mut state = self.lock();
        let State { clock, destinations, to_topic, json, .. } = &mut *state;
        let message = escape(message);
        let mut line = String::with_capacity(message.len() + 32);
        if *json {
            #[derive(serde::Serialize)]
            struct Line<'a> {
                time: &'a str,
                r#type: &'static str,
                message: &'a str,
            }
            line = serde_json::to_string(&Line { time: &clock.rfc3339(), r#type: log_type.name(), message: &message }).unwrap_or_default();
        } else {
            line.push_str(clock.prefix());
            line.push_str(&message);
        }
        line.push('\n');
        destinations.write(log_type, &line, clock);
        let topic = log_type.topic().filter(|_| *to_topic);
        drop(state);
        if let (Some(topic), Some(sink)) = (topic, self.topic.get()) {
            sink(topic, line.trim_end_matches('\n'));
        }
    }

    /// Writes one of the lines of [`Notice`].
    pub fn notice(&self, notice: &Notice) {
        if self.enabled(notice.log_type()) {
            self.log(notice.log_type(), &notice.to_string());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Logger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logger").field("types", &self.types).finish_non_exhaustive()
    }
}
