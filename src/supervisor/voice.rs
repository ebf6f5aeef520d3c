//! The supervisor's own log lines: on the container's output, in the form that the configuration asks for.

use crate::conf::{LogConf, LogDestination};
use crate::logging::{LogType, Logger};
use crate::os;

/// What `poll` promises to take without blocking.
const LINE_BYTES_MAX: usize = 4000;

pub(super) struct Voice {
    logger: Logger,
}

impl Default for Voice {
    fn default() -> Self {
        Self::new(&LogConf::default())
    }
}

impl Voice {
    pub(super) fn new(log: &LogConf) -> Self {
        Self { logger: Logger::new(&own(log)) }
    }

    pub(super) fn reconfigure(&self, log: &LogConf) {
        self.logger.reconfigure(&own(log));
    }

    pub(super) fn say(&self, log_type: LogType, text: &str) {
        self.logger.log(log_type, text);
    }
}

/// The broker owns its files, topic and syslog; ours is what `docker logs` shows, also for who logs elsewhere.
fn own(log: &LogConf) -> LogConf {
    let silent = log.destinations.contains(&LogDestination::None);
    let output = if log.destinations.contains(&LogDestination::Stderr) { LogDestination::Stderr } else { LogDestination::Stdout };
    let mut types = log.types.clone();
    if !types.contains(&LogType::Error) {
        types.push(LogType::Error);
    }
    LogConf { destinations: vec![if silent { LogDestination::None } else { output }], types, ..log.clone() }
}

/// A line as it is, on stdout.
pub(super) fn print(text: &str) {
    write(std::io::stdout(), text);
}

/// A line as it is, on stderr.
pub(super) fn complain(text: &str) {
    write(std::io::stderr(), text);
}

fn write(mut out: impl std::io::Write + std::os::fd::AsFd, text: &str) {
    let text = text.get(..text.floor_char_boundary(LINE_BYTES_MAX)).unwrap_or_default();
    if os::process::can_write(&out) {
        // A closed log is no reason to stop.
        let _ = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
    }
}
