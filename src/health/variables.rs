//! The environment variables of IOTstack's health check.

use std::ffi::OsString;

use crate::mqtt::topic_name;

/// Everything the check reads from the environment.
pub(super) const NAMES: [&str; 4] = ["HEALTHCHECK_PORT", "HEALTHCHECK_USER", "HEALTHCHECK_PASSWORD", "HEALTHCHECK_TOPIC"];

const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TOPIC: &str = "iotstack/mosquitto/healthcheck";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variables {
    pub(super) port: u16,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) topic: String,
    /// The user said how to reach the broker, so that failing there is failing.
    pub(super) is_explicit: bool,
}

impl Variables {
    /// Reads them; an empty one is as good as none. `Err` names the variable that is off.
    pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let [port, user, password, topic] = NAMES.map(|name| -> Result<Option<String>, String> {
            let Some(value) = variable(name) else { return Ok(None) };
            let value = value.into_string().map_err(|_| format!("{name} is not UTF-8"))?;
            Ok(Some(unquoted(&value).to_owned()).filter(|value| !value.is_empty()))
        });
        let (port, user, password, topic) = (port?, user?, password?, topic?);
        let is_explicit = port.is_some() || user.is_some() || password.is_some();
        let port = match port {
            None => DEFAULT_PORT,
            Some(text) => text.trim().parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                format!("HEALTHCHECK_PORT={text} is not a port: set a number from 1 to 65535, or leave it out for {DEFAULT_PORT}")
            })?,
        };
        let topic = topic.unwrap_or_else(|| DEFAULT_TOPIC.to_owned());
        if !topic_name::is_valid(&topic) {
            return Err(format!("HEALTHCHECK_TOPIC={topic} cannot be published to: leave out '+' and '#'"));
        }
        Ok(Self { port, user, password, topic, is_explicit })
    }
}

/// `KEY="value"` in a compose file's list form keeps its quotes; IOTstack's script let the shell take one pair off.
fn unquoted(value: &str) -> &str {
    let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Variables, String> {
        Variables::read(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
    }

    #[test]
    fn nothing_set_is_iotstacks_defaults() {
        let expected =
            Variables { port: 1883, user: None, password: None, topic: "iotstack/mosquitto/healthcheck".into(), is_explicit: false };
        assert_eq!(read(&[]), Ok(expected));
        assert_eq!(read(&[("HEALTHCHECK_PORT", ""), ("HEALTHCHECK_USER", "\"\"")]), read(&[]));
    }

    #[test]
    fn one_pair_of_quotes_is_taken_off_and_nothing_is_evaluated() {
        let set = [("HEALTHCHECK_USER", "\"a  b\""), ("HEALTHCHECK_PASSWORD", "'\"$(reboot)`x`;*\"'"), ("HEALTHCHECK_TOPIC", "\"t")];
        let variables = read(&set).expect("fine");
        assert_eq!(variables.user.as_deref(), Some("a  b"));
        assert_eq!(variables.password.as_deref(), Some("\"$(reboot)`x`;*\""));
        assert_eq!(variables.topic, "\"t");
        assert!(variables.is_explicit);
    }

    #[test]
    fn a_port_or_topic_that_cannot_be_is_named() {
        for (name, value) in
            [("HEALTHCHECK_PORT", "mqtt"), ("HEALTHCHECK_PORT", "0"), ("HEALTHCHECK_PORT", "65536"), ("HEALTHCHECK_TOPIC", "a/#")]
        {
            let reason = read(&[(name, value)]).expect_err("refused");
            assert!(reason.starts_with(&format!("{name}={value} ")), "{reason}");
        }
    }
}
