//! The time in front of a line: epoch seconds or strftime in the zone of `TZ`, formatted once a second.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;

use crate::conf::LogConf;

/// The local time zone and, once, what is wrong with `TZ`.
pub(super) struct Zone {
    zone: TimeZone,
    pub(super) complaint: Option<String>,
}

impl Zone {
    pub(super) fn utc() -> Self {
        Self { zone: TimeZone::UTC, complaint: None }
    }

    /// `TZ`, else /etc/localtime, else UTC.
    pub(super) fn from_environment() -> Self {
        if let Some(name) = std::env::var_os("TZ") {
            return Self::named(&name.to_string_lossy());
        }
        let bytes = std::fs::read("/etc/localtime").unwrap_or_default();
        Self { zone: TimeZone::tzif("Local", &bytes).unwrap_or(TimeZone::UTC), complaint: None }
    }

    /// As tzset(3) reads it: a name of the tz database, a path, or a rule such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    fn named(name: &str) -> Self {
        let bare = name.strip_prefix(':').unwrap_or(name);
        if bare.is_empty() {
            return Self::utc();
        }
        let found = if bare.starts_with('/') {
            std::fs::read(bare).ok().and_then(|bytes| TimeZone::tzif("Local", &bytes).ok())
        } else {
            TimeZone::get(bare).or_else(|_| TimeZone::posix(bare)).ok()
        };
        if let Some(zone) = found {
            return Self { zone, complaint: None };
        }
        let name = name.escape_debug();
        let complaint = format!("Warning: Unknown time zone TZ=\"{name}\"; log lines are in UTC. Use a name such as Europe/Berlin.");
        Self { complaint: Some(complaint), ..Self::utc() }
    }
}

enum Style {
    None,
    EpochSeconds,
    Strftime(String),
}

/// Formats the present.
pub(super) struct Clock {
    zone: TimeZone,
    style: Style,
    cached_second: i64,
    cached: String,
    pub(super) complaint: Option<String>,
}

impl Clock {
    pub(super) fn new(conf: &LogConf, zone: &Zone) -> Self {
        let mut complaint = None;
        let style = match &conf.timestamp_format {
            _ if !conf.timestamp => Style::None,
            None => Style::EpochSeconds,
            Some(format) => match strtime::format(format, &Timestamp::UNIX_EPOCH.to_zoned_datetime(zone.zone.clone())) {
                Ok(_) => Style::Strftime(format.clone()),
                Err(reason) => {
                    let format = format.escape_debug();
                    complaint =
                        Some(format!("Warning: log_timestamp_format \"{format}\" is not usable ({reason}); epoch seconds are used."));
                    Style::EpochSeconds
                }
            },
        };
        Self { zone: zone.zone.clone(), style, cached_second: i64::MIN, cached: String::new(), complaint }
    }

    /// What comes before the message: `1700000000: `, or nothing.
    pub(super) fn prefix(&mut self) -> &str {
        self.prefix_at(Timestamp::now())
    }

    fn prefix_at(&mut self, now: Timestamp) -> &str {
        let second = now.as_second();
        if self.cached_second != second {
            self.cached_second = second;
            self.cached = match &self.style {
                Style::None => String::new(),
                Style::EpochSeconds => format!("{second}: "),
                Style::Strftime(format) => match strtime::format(format, &now.to_zoned_datetime(self.zone.clone())) {
                    Ok(text) => format!("{}: ", super::escape(&text)),
                    Err(_) => format!("{second}: "),
                },
            };
        }
        &self.cached
    }

    /// With milliseconds and offset.
    pub(super) fn rfc3339(&self) -> String {
        self.now("%Y-%m-%dT%H:%M:%S%.3f%:z")
    }

    /// As the syslog protocol of BSD wants it.
    pub(super) fn syslog(&self) -> String {
        self.now("%b %e %H:%M:%S")
    }

    fn now(&self, format: &str) -> String {
        strtime::format(format, &Timestamp::now().to_zoned_datetime(self.zone.clone())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(format: Option<&str>, zone: &str, second: i64) -> String {
        let conf = LogConf { timestamp_format: format.map(str::to_owned), ..LogConf::default() };
        Clock::new(&conf, &Zone::named(zone)).prefix_at(Timestamp::from_second(second).unwrap()).to_owned()
    }

    #[test]
    fn epoch_seconds_or_local_time() {
        assert_eq!(prefix(None, "Europe/Berlin", 1700000000), "1700000000: ");
        let iso = Some("%Y-%m-%dT%H:%M:%S");
        assert_eq!(prefix(iso, "Europe/Berlin", 1700000000), "2023-11-14T23:13:20: ");
        assert_eq!(prefix(iso, "Etc/UTC", 1700000000), "2023-11-14T22:13:20: ");
        assert_eq!(prefix(iso, "", 1700000000), "2023-11-14T22:13:20: ");
        assert_eq!(prefix(iso, ":America/New_York", 1689000000), "2023-07-10T10:40:00: ");
        assert_eq!(prefix(iso, "CET-1CEST,M3.5.0,M10.5.0/3", 1689000000), "2023-07-10T16:40:00: ");
        assert_eq!(prefix(Some("[%d/%b %H:%M %Z]"), "Asia/Kolkata", 0), "[01/Jan 05:30 IST]: ");
    }

    #[test]
    fn an_unknown_zone_is_said_and_utc_used() {
        let zone = Zone::named("Berlin/Europe");
        assert_eq!(zone.zone, TimeZone::UTC);
        assert!(zone.complaint.unwrap().contains("TZ=\"Berlin/Europe\""));
    }

    #[test]
    fn a_format_that_cannot_be_used_is_said() {
        let conf = LogConf { timestamp_format: Some("%!".into()), ..LogConf::default() };
        let mut clock = Clock::new(&conf, &Zone::utc());
        assert!(clock.complaint.is_some());
        assert_eq!(clock.prefix_at(Timestamp::from_second(5).unwrap()), "5: ");
    }
}
