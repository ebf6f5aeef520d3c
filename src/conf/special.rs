//! The options whose meaning depends on the lines around them.

use super::draft::ListenerDraft;
use super::options::{Row, Scope, Special};
use super::resolve::{Reader, refused};
use super::syntax::Directive;
use super::value::{self, Fault, LOG_TYPES};
use super::{LogDestination, Protocol};

impl Reader<'_> {
    pub(super) fn special(&mut self, special: Special, row: &'static Row, directive: &Directive<'_>) -> Result<(), Fault> {
        match special {
            Special::AcceptProtocolVersions => {
                if self.here.listener.is_none() {
                    return Err(needs_listener(directive));
                }
                self.listener().listener.accept_protocol_versions = value::protocol_versions(directive.rest)?;
            }
            Special::BindAddress => return self.bind_address(row, directive),
            // Bridges are refused before they get here.
            Special::Connection => {}
            Special::IncludeDir => return self.include_dir(directive),
            Special::Listener => return self.open(directive),
            Special::ListenerAllowAnonymous => {
                self.listener().own.allow_anonymous = Some(value::switch(directive.key, directive.rest)?);
            }
            Special::ListenerAutoIdPrefix => {
                let prefix = value::text(directive.key, directive.rest)?;
                if prefix.len() > ID_PREFIX_MAX {
                    return Err(Fault::new(format!("'{}' length must be <= {ID_PREFIX_MAX}.", row.name)));
                }
                self.once(row)?;
                self.listener().own.auto_id_prefix = Some(prefix);
            }
            Special::LogDest => return self.log_dest(directive),
            Special::LogType => return self.log_type(directive),
            Special::MountPoint => return self.mount_point(row, directive),
            Special::PerListenerSettings => return self.per_listener_settings(directive),
            Special::Plugin => return self.plugin(directive),
            Special::PluginLoad => return self.plugin_load(directive),
            Special::PluginOption => return self.plugin_option(directive),
            Special::PluginUse => return self.plugin_use(directive),
            Special::Port => return self.port(directive),
            Special::Protocol => self.listener().listener.protocol = protocol(directive)?,
            Special::SocketDomain => self.listener().listener.socket_domain = value::socket_domain(directive.rest)?,
            Special::WebsocketsOrigin => self.listener().listener.websockets_origins.push(value::text(directive.key, directive.rest)?),
        }
        Ok(())
    }

    fn open(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        if self.draft.listeners.len() >= LISTENERS_MAX {
            return Err(Fault::new(format!("More than {LISTENERS_MAX} listeners.")));
        }
        let mut draft = ListenerDraft { at: Some((self.here.file.clone(), directive.line)), ..ListenerDraft::default() };
        let words = address(directive);
        if let Ok((port, address)) = &words {
            draft.listener.port = *port;
            match (*port, address) {
                (0, Some(path)) => draft.listener.unix_path = Some(path.into()),
                (_, host) => draft.listener.host.clone_from(host),
            }
        } else {
            // Opened all the same, so that the lines below it are judged as its own.
            draft.at = None;
        }
        self.here.listener = Some(self.draft.listeners.len());
        self.bridge_done();
        self.draft.listeners.push(draft);
        words.map(drop)
    }

    fn port(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        if self.draft.default_is_open && self.draft.default_listener.at.is_some() {
            self.warning("Default listener port specified multiple times. Only the latest will be used.");
        }
        self.draft.default_is_open = true;
        let (number, _) = value::number(directive.key, directive.rest)?;
        let Some(port) = u16::try_from(number).ok().filter(|port| *port > 0) else {
            return Err(Fault::new(format!("Invalid 'port' value ({number}).")));
        };
        self.draft.default_listener.listener.port = port;
        self.draft.default_listener.at = Some((self.here.file.clone(), directive.line));
        Ok(())
    }

    fn bind_address(&mut self, row: &'static Row, directive: &Directive<'_>) -> Result<(), Fault> {
        self.draft.default_is_open = true;
        let host = value::text("default listener bind_address", directive.rest)?;
        self.once(row)?;
        self.draft.default_listener.listener.host = Some(host);
        Ok(())
    }

    fn mount_point(&mut self, row: &'static Row, directive: &Directive<'_>) -> Result<(), Fault> {
        if self.here.listener.is_none() {
            return Err(needs_listener(directive));
        }
        let prefix = value::text(directive.key, directive.rest)?;
        self.once(row)?;
        if prefix.contains(['+', '#']) {
            return Err(Fault::new(format!("Invalid 'mount_point' value ({prefix}). Does it contain a wildcard character?")));
        }
        self.listener().listener.mount_point = Some(prefix);
        Ok(())
    }

    fn log_dest(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        let word = value::word(directive.key, directive.rest)?;
        let destinations = &mut self.draft.log_destinations;
        let destination = match word {
            "none" => {
                *destinations = Some(vec![LogDestination::None]);
                return Ok(());
            }
            "stdout" => LogDestination::Stdout,
            "stderr" => LogDestination::Stderr,
            "syslog" => LogDestination::Syslog,
            "topic" => LogDestination::Topic,
            "file" => {
                let path = directive.rest.strip_prefix("file").unwrap_or_default();
                let path = value::path("\"log_dest file\"", path)?;
                if destinations.iter().flatten().any(|known| matches!(known, LogDestination::File(_))) {
                    return Err(Fault::new("Duplicate \"log_dest file\" value."));
                }
                LogDestination::File(path)
            }
            "dlt" | "android" => {
                self.warning(format!("log_dest {word} is accepted and ignored: this version has no such log."));
                return Ok(());
            }
            other => {
                let hint = super::near::near(other, ["none", "stdout", "stderr", "syslog", "topic", "file"].into_iter());
                let hint = hint.map(|word| format!("Did you mean `{word}`?"));
                return Err(Fault { hint, ..Fault::invalid(directive.key, other) });
            }
        };
        let destinations = destinations.get_or_insert_default();
        destinations.retain(|known| *known != LogDestination::None && *known != destination);
        destinations.push(destination);
        Ok(())
    }

    fn log_type(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        let word = value::word(directive.key, directive.rest)?;
        let types = &mut self.draft.log_types;
        match (word, LOG_TYPES.iter().find(|(name, _)| *name == word)) {
            ("none", _) => *types = Some(Vec::new()),
            ("all", _) => *types = Some(LOG_TYPES.iter().map(|(_, log_type)| *log_type).collect()),
            (_, Some((_, log_type))) => {
                let types = types.get_or_insert_default();
                if !types.contains(log_type) {
                    types.push(*log_type);
                }
            }
            (other, None) => {
                let known = LOG_TYPES.iter().map(|(name, _)| *name).chain(["all", "none"]);
                let hint = super::near::near(other, known).map(|word| format!("Did you mean `{word}`?"));
                return Err(Fault { hint, ..Fault::invalid(directive.key, other) });
            }
        }
        Ok(())
    }
}

/// Nobody listens in so many places; each costs memory and a look at the others.
const LISTENERS_MAX: usize = 1_000;

/// Longest `listener_auto_id_prefix` in bytes, as in mosquitto.
const ID_PREFIX_MAX: usize = 50;

fn needs_listener(directive: &Directive<'_>) -> Fault {
    Fault::new(format!("The '{}' option requires a listener to be defined first.", directive.key))
}

fn protocol(directive: &Directive<'_>) -> Result<Protocol, Fault> {
    match value::word(directive.key, directive.rest)? {
        "mqtt" => Ok(Protocol::Mqtt),
        "websockets" => Ok(Protocol::Websockets),
        "http_api" => Err(refused("protocol http_api", "the HTTP interface of mosquitto 2.1", Scope::Listener)),
        other => Err(Fault::invalid(directive.key, other).hint("Write mqtt or websockets.")),
    }
}

/// `PORT [ADDRESS]` or `0 /path`.
fn address(directive: &Directive<'_>) -> Result<(u16, Option<String>), Fault> {
    let (number, _) = value::number("listener port", directive.rest).map_err(|fault| fault.hint("Write `listener PORT [ADDRESS]`."))?;
    let Ok(port) = u16::try_from(number) else {
        return Err(Fault::new(format!("Invalid 'port' value ({number}).")).hint("Write a port from 1 to 65535."));
    };
    let address = directive.rest.split([' ', '\t']).filter(|word| !word.is_empty()).nth(1).filter(|word| !word.starts_with('#'));
    if port == 0 && address.is_none() {
        return Err(Fault::new("A listener with port 0 must provide a Unix socket path."));
    }
    Ok((port, address.map(str::to_owned)))
}
