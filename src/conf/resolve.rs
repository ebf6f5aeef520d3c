//! Files → draft: every directive looked up in the table, checked, and written where its scope says. All faults are collected.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::bridges::Bridge;
use super::diagnostic::{Diagnostic, FINDINGS_MAX, Severity, cut};
use super::draft::{Draft, ListenerDraft, SecurityDraft};
use super::files::ReadFiles;
use super::near::near;
use super::options::{self, Kind, Row, Scope, Set, Support};
use super::plugins::Plugins;
use super::syntax::{self, Directive, Line};
use super::value::{self, Fault};

/// Of mosquitto.conf and all that it includes. PID 1 reads it, and may not be the one who wrote it.
const BYTES_MAX: usize = 4 << 20;
const INCLUDED_MAX: usize = 1_000;

/// Reads a file and what it includes.
pub(super) struct Reader<'a> {
    files: &'a dyn ReadFiles,
    pub(super) draft: Draft,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// String options that were set, by name and place: a second time is fatal in mosquitto.
    said: BTreeSet<(&'static str, Option<usize>)>,
    pub(super) plugins: Plugins,
    pub(super) bridge: Option<Bridge>,
    /// A security option was seen: too late for `per_listener_settings`.
    security_seen: bool,
    /// Bytes that were read, and files and folders that were included.
    bytes: usize,
    included: usize,
    pub(super) here: Here,
}

/// The line being read and the lines above it that it belongs to.
#[derive(Debug, Clone, Default)]
pub(super) struct Here {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    /// 0 in the main file.
    level: usize,
    /// Index of the listener above; `None` is the default listener.
    pub(super) listener: Option<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(files: &'a dyn ReadFiles) -> Self {
        Self {
            files,
            draft: Draft::new(),
            diagnostics: Vec::new(),
            said: BTreeSet::new(),
            plugins: Plugins::default(),
            bridge: None,
            security_seen: false,
            bytes: 0,
            included: 0,
            here: Here::default(),
        }
    }

    /// Reads one file at the place where the reader is.
    pub(super) fn file(&mut self, path: &Path) {
        if self.diagnostics.len() > FINDINGS_MAX {
            return;
        }
        let bytes = match self.files.read(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.unreadable(path, &error),
        };
        path.clone_into(&mut self.here.file);
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > BYTES_MAX {
            return self
                .error("The configuration is longer than 4 MiB with all that it includes.", Some("Is this a mosquitto.conf?".into()));
        }
        for line in syntax::lines(&bytes) {
            if self.diagnostics.len() >= FINDINGS_MAX {
                self.here.line = 0;
                self.error("Too many errors; the rest of the configuration was not read.", Some("Is this a mosquitto.conf?".into()));
                return;
            }
            match line {
                Line::Directive(directive) => {
                    self.here.line = directive.line;
                    if let Err(fault) = self.directive(&directive) {
                        self.error(fault.message, fault.hint);
                    }
                }
                Line::NotText(line) => {
                    self.here.line = line;
                    self.error("Malformed UTF-8 in configuration.", None);
                }
            }
        }
        self.plugin_done();
        self.bridge_done();
        self.here.line = 0;
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let (message, hint) = if error.kind() == io::ErrorKind::IsADirectory {
            (
                format!("Config file '{}' is a directory.", path.display()),
                Some("Docker makes a folder where the mounted file was missing on the host: remove that folder, put the file there, and start again.".into()),
            )
        } else {
            let hint = (error.kind() != io::ErrorKind::NotFound).then(|| format!("({error})"));
            (format!("Unable to open config file '{}'.", path.display()), hint)
        };
        self.diagnostics.push(Diagnostic { severity: Severity::Error, file: None, line: None, message, hint });
    }

    pub(super) fn error(&mut self, message: impl Into<String>, hint: Option<String>) {
        self.found(Severity::Error, message.into(), hint);
    }

    pub(super) fn warning(&mut self, message: impl Into<String>) {
        self.found(Severity::Warning, message.into(), None);
    }

    fn found(&mut self, severity: Severity, message: String, hint: Option<String>) {
        let line = (self.here.line > 0).then_some(self.here.line);
        self.diagnostics.push(Diagnostic { severity, file: Some(self.here.file.clone()), line, message: cut(message), hint });
    }

    fn directive(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        let Some(row) = options::find(directive.key) else {
            return Err(unknown(directive.key));
        };
        match row.scope {
            Scope::Bridge => return self.bridge_line(row, directive),
            Scope::Security if directive.key != "global_plugin" => self.security_seen = true,
            _ => {}
        }
        match row.support {
            Support::Obsolete(sentence) => self.found(Severity::Notice, sentence.into(), None),
            Support::Ignored(why) => {
                if let Kind::Number(range, _) = &row.kind {
                    let (number, _) = value::number(directive.key, directive.rest)?;
                    if !range.contains(&number) {
                        return Err(out_of_range(directive.key, number, range));
                    }
                }
                let whole = why.contains(row.name);
                self.warning(if whole { why.to_owned() } else { format!("{} is accepted and ignored: {why}", directive.key) });
                return Ok(());
            }
            Support::Refused(what) => return Err(refused(directive.key, what, row.scope)),
            Support::Honoured => {}
        }
        self.note_default_listener(row, directive);
        self.write(row, directive)
    }

    fn write(&mut self, row: &'static Row, directive: &Directive<'_>) -> Result<(), Fault> {
        let (name, rest) = (directive.key, directive.rest);
        match &row.kind {
            Kind::Switch(set) => self.set(set, value::switch(name, rest)?),
            Kind::Number(range, set) => {
                let (number, tail) = value::number(name, rest)?;
                if !range.contains(&number) {
                    return Err(out_of_range(name, number, range));
                }
                if let Some(tail) = tail {
                    self.warning(format!("{name} takes a plain number: {number} was read and `{tail}` ignored."));
                }
                self.set(set, number);
            }
            Kind::Duration(set) => self.set(set, value::duration(name, rest)?),
            Kind::Text(set) => {
                let text = value::text(name, rest)?;
                self.once(row)?;
                self.set(set, text);
            }
            Kind::Path(set) => {
                let path = value::path(name, rest)?;
                self.once(row)?;
                self.set(set, path);
                if rest.contains(" #") {
                    self.warning(format!("{name} takes the whole line: ` #` and what follows belong to its path."));
                }
            }
            Kind::Special(special) => return self.special(*special, row, directive),
            Kind::Unread => {}
        }
        Ok(())
    }

    /// A string option may be set once in its place.
    pub(super) fn once(&mut self, row: &'static Row) -> Result<(), Fault> {
        let place = match row.scope {
            Scope::Listener => Some(self.here.listener.map_or(0, |index| index + 1)),
            Scope::Security if self.draft.conf.per_listener_settings => Some(self.here.listener.map_or(0, |index| index + 1)),
            _ => None,
        };
        if self.said.insert((row.name, place)) {
            Ok(())
        } else {
            Err(Fault::new(format!("Duplicate '{}' value in configuration.", row.name)))
        }
    }

    fn set<V>(&mut self, set: &Set<V>, value: V) {
        match set {
            Set::Conf(write) => write(&mut self.draft.conf, value),
            Set::Listener(write) => write(&mut self.listener().listener, value),
            Set::Security(write) => write(self.security(), value),
        }
    }

    /// The listener above this line.
    pub(super) fn listener(&mut self) -> &mut ListenerDraft {
        match self.here.listener.and_then(|index| self.draft.listeners.get_mut(index)) {
            Some(listener) => listener,
            None => &mut self.draft.default_listener,
        }
    }

    /// The security options that this line speaks of.
    pub(super) fn security(&mut self) -> &mut SecurityDraft {
        if self.draft.conf.per_listener_settings { &mut self.listener().security } else { &mut self.draft.security }
    }

    /// mosquitto opens the default listener as soon as an option speaks of it, `port` or not.
    fn note_default_listener(&mut self, row: &'static Row, directive: &Directive<'_>) {
        if self.here.listener.is_some() {
            return;
        }
        let place = || (directive.key.to_owned(), self.here.file.clone(), directive.line);
        let per_listener = row.scope == Scope::Security && self.draft.conf.per_listener_settings;
        if per_listener && !matches!(row.name, "password_file" | "allow_zero_length_clientid") {
            let place = place();
            self.draft.default_security.push(place);
            return;
        }
        let says_nothing = ["listener", "port", "bind_address", "protocol"].contains(&row.name);
        if per_listener || (row.scope == Scope::Listener && !says_nothing) {
            let place = place();
            self.draft.default_opened_by.get_or_insert(place);
        }
    }

    pub(super) fn per_listener_settings(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        let on = value::switch(directive.key, directive.rest)?;
        if on != self.draft.conf.per_listener_settings && self.security_seen {
            return Err(Fault::new("per_listener_settings must be set before any other security settings."));
        }
        self.draft.conf.per_listener_settings = on;
        Ok(())
    }

    /// The *.conf files of a folder, as mosquitto sorts them: by letter, the capital before the small one.
    pub(super) fn include_dir(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        if self.here.level > 0 {
            self.warning("include_dir is read only in the main file, and ignored here.");
            return Ok(());
        }
        let folder = value::path(directive.key, directive.rest)?;
        let mut paths = self
            .files
            .list(&folder)
            .map_err(|error| Fault::new(format!("Unable to open include_dir '{}'.", folder.display())).hint(format!("({error})")))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        paths.sort_by_cached_key(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.chars().map(|c| (c.to_ascii_lowercase(), c)).collect::<Vec<_>>()
        });
        self.included = self.included.saturating_add(1 + paths.len());
        if self.included > INCLUDED_MAX {
            return Err(Fault::new(format!("More than {INCLUDED_MAX} files and folders are included.")));
        }
        let main = self.here.clone();
        self.plugin_done();
        self.bridge_done();
        for path in paths {
            self.here = Here { level: 1, ..Here::default() };
            self.file(&path);
        }
        self.here = main;
        Ok(())
    }
}

/// An option is known but this version of darner lacks what it asks for. A listener without it would be a different, perhaps a
/// more open one, so the advice is never to drop only the line.
pub(super) fn refused(key: &str, what: &str, scope: Scope) -> Fault {
    let part = match scope {
        Scope::Listener => "this listener",
        Scope::Bridge => "this bridge",
        Scope::Global | Scope::Security | Scope::Plugin => "the line",
    };
    Fault::new(format!("`{key}` is not supported yet by this version of darner: {what}; remove {part} or keep mosquitto for it."))
}

fn unknown(key: &str) -> Fault {
    let fault = Fault::new(format!("Unknown configuration variable '{}'.", key.escape_debug()));
    if let Some(head) = key.split(['=', ':']).next().filter(|head| head.len() < key.len() && options::find(head).is_some()) {
        return fault.hint(format!("An option and its value are parted by a space: write `{head} …`."));
    }
    match near(key, options::names()) {
        Some(name) => fault.hint(format!("Did you mean `{name}`?")),
        None => fault,
    }
}

fn out_of_range(name: &str, number: i64, range: &std::ops::RangeInclusive<i64>) -> Fault {
    match name {
        "enable_proxy_protocol" => Fault::new("enable_proxy_protocol must be 1 or 2."),
        "max_qos" | "maximum_qos" => Fault::new("'max_qos' must be between 0 and 2 inclusive."),
        "max_inflight_messages" => Fault::new("'max_inflight_messages' must be <= 65535."),
        "max_packet_size" => Fault::new("'max_packet_size' must be >= 20."),
        "websockets_headers_size" => Fault::new("Packet buffer size must be between 0 and 65535 inclusive."),
        "max_topic_alias" | "max_topic_alias_broker" => {
            Fault::new(format!("Invalid '{name}' value in configuration.")).hint("Write a number from 0 to 65535.")
        }
        _ => Fault::new(format!("Invalid '{name}' value ({number}).")).hint(match range.start() {
            &i64::MIN => format!("Write a number of at most {}.", range.end()),
            start => format!("Write a number from {start} to {}.", range.end()),
        }),
    }
}
