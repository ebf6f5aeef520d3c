//! The supervisor's own log lines, on stdout, with the timestamps that the configuration asks for.

use crate::conf::LogConf;
use crate::logging::LogType;
use crate::os;

/// A full log pipe must not stop PID 1, so a line is at most this long, which fits what `poll` promised.
const LINE_BYTES_MAX: usize = 4000;

pub(super) struct Voice {
    timestamp: bool,
    format: Option<String>,
    types: Vec<LogType>,
}

impl Default for Voice {
    fn default() -> Self {
        Self::new(&LogConf::default())
    }
}

impl Voice {
    pub(super) fn new(log: &LogConf) -> Self {
        Self { timestamp: log.timestamp, format: log.timestamp_format.clone(), types: log.types.clone() }
    }

    pub(super) fn say(&self, log_type: LogType, text: &str) {
        if log_type != LogType::Error && !self.types.contains(&log_type) {
            return;
        }
        self.print(text);
    }

    /// Without timestamps.
    pub(super) fn bare() -> Self {
        Self { timestamp: false, ..Self::default() }
    }

    pub(super) fn say_to_stderr(&self, log_type: LogType, text: &str) {
        if log_type == LogType::Error || self.types.contains(&log_type) {
            write(std::io::stderr(), self.line(text));
        }
    }

    /// A line whatever `log_type` says.
    pub(super) fn print(&self, text: &str) {
        write(std::io::stdout(), self.line(text));
    }

    /// A line that is whole already.
    pub(super) fn print_bare(&self, text: &str) {
        write(std::io::stdout(), text.to_owned());
    }

    fn line(&self, text: &str) -> String {
        let mut line = self.stamp();
        line.push_str(text);
        line
    }

    fn stamp(&self) -> String {
        if !self.timestamp {
            return String::new();
        }
        let now = jiff::ZonedDateTime::now();
        match &self.format {
            Some(format) => match jiff::fmt::strtime::format(format, &now) {
                Ok(text) => format!("{text}: "),
                Err(_) => format!("{}: ", now.timestamp().as_second()),
            },
            None => format!("{}: ", now.timestamp().as_second()),
        }
    }
}

fn write(mut out: impl std::io::Write + std::os::fd::AsFd, mut line: String) {
    line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
    line.push('\n');
    if os::process::can_write(&out) {
        // A closed log is no reason to stop.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}
