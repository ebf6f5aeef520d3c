//! Lines of bridges. This version has none, so a `connection` is refused; what is wrong with it besides is said all the same.

use super::options::{Row, Scope};
use super::resolve::{Reader, refused};
use super::syntax::Directive;
use super::value::{self, Fault};

/// The `connection` that the lines below it belong to.
#[derive(Debug, Default)]
pub(super) struct Bridge {
    line: usize,
    has_address: bool,
    has_topic: bool,
    has_identity: bool,
    has_key: bool,
}

impl Bridge {
    /// mosquitto's words for what is missing.
    fn missing(&self) -> Option<&'static str> {
        match self {
            Self { has_address: false, .. } => Some("no remote addresses defined"),
            Self { has_topic: false, .. } => Some("no topics defined"),
            Self { has_key: true, has_identity: false, .. } => Some("missing bridge_identity"),
            Self { has_identity: true, has_key: false, .. } => Some("missing bridge_psk"),
            _ => None,
        }
    }
}

impl Reader<'_> {
    /// The lines of a bridge end: at the next bridge or listener, and at the end of its file.
    pub(super) fn bridge_done(&mut self) {
        let Some(bridge) = self.bridge.take() else { return };
        if let Some(missing) = bridge.missing() {
            let here = std::mem::replace(&mut self.here.line, bridge.line);
            self.error(format!("Invalid bridge configuration: {missing}."), None);
            self.here.line = here;
        }
    }

    pub(super) fn bridge_line(&mut self, row: &'static Row, directive: &Directive<'_>) -> Result<(), Fault> {
        if row.name == "connection" {
            self.bridge_done();
            let name = value::text(row.name, directive.rest)?;
            self.bridge = Some(Bridge { line: directive.line, ..Bridge::default() });
            return Err(refused(&format!("connection {name}"), "bridges to other brokers", Scope::Bridge));
        }
        let Some(bridge) = &mut self.bridge else {
            let message = format!("The '{}' option requires a bridge to be defined first.", directive.key);
            return Err(Fault::new(message).hint(format!("It belongs below a `connection` line.{}", not_a_bridge(row.name))));
        };
        // What stands below a refused bridge is refused with it, once.
        let rest = value::text(directive.key, directive.rest)?;
        match row.name {
            "address" => bridge.has_address = true,
            "topic" => {
                if let Some(open) = rest.strip_prefix('"').filter(|rest| !rest.contains('"')) {
                    let last = open.split_once(' ').map_or("", |(_, last)| last);
                    return Err(Fault::new(format!("Missing closing quote in topic value ({last}).")));
                }
                bridge.has_topic = true;
            }
            "bridge_identity" => bridge.has_identity = true,
            "bridge_psk" => bridge.has_key = true,
            _ => {}
        }
        Ok(())
    }
}

/// Where an option of bridges is easily taken for one of the broker.
fn not_a_bridge(name: &str) -> &'static str {
    match name {
        "username" | "password" => " Users of this broker stand in the file that `password_file` names.",
        "keepalive_interval" => " For clients there is `max_keepalive`.",
        "topic" => " What users may read and write stands in the file that `acl_file` names.",
        "clientid" => " For clients there are `clientid_prefixes` and `auto_id_prefix`.",
        _ => "",
    }
}
