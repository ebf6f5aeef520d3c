//! `darner.toml` beside mosquitto.conf (or where `DARNER_CONFIG` points) and the `DARNER_*` environment, which goes before it.

use std::io;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};
use super::files::ReadFiles;
use super::near::near;
use super::{Conf, Durability, Engine};

/// Keys of darner.toml.
const KEYS: &[&str] = &["log_format", "durability", "engine", "rumqttd", "shards"];

/// A longer table is full of unknown keys: the first ones say enough.
const TOML_KEYS_MAX: usize = 50;

fn error(file: Option<&Path>, line: Option<usize>, message: String, hint: Option<String>) -> Diagnostic {
    Diagnostic { severity: Severity::Error, file: file.map(Path::to_owned), line, message, hint }
}

/// Reads both into `conf`.
pub(super) fn apply(
    files: &dyn ReadFiles,
    source: Option<&Path>,
    environment: &[(String, String)],
    conf: &mut Conf,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let variable =
        |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty());
    let named = variable("DARNER_CONFIG").map(PathBuf::from);
    let beside = source.and_then(Path::parent).map(|folder| folder.join("darner.toml"));
    if let Some(path) = named.as_deref().or(beside.as_deref()) {
        match files.read(path) {
            Ok(bytes) => toml(path, &bytes, conf, diagnostics),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(reason) => {
                let hint = named.is_some().then(|| "DARNER_CONFIG names it.".to_owned());
                diagnostics.push(error(None, None, format!("Unable to open config file {} ({reason}).", path.display()), hint));
            }
        }
    }
    if let Some(word) = variable("DARNER_DURABILITY") {
        if let Some(level) = Durability::from_word(word) {
            conf.persistence.durability = level;
        } else {
            let message = format!("Invalid DARNER_DURABILITY value ({}).", word.escape_debug());
            diagnostics.push(error(None, None, message, Some("Write process, power or snapshot.".into())));
        }
    }
    if let Some(word) = variable("DARNER_ENGINE") {
        if let Some(engine) = Engine::from_word(word) {
            conf.engine = engine;
        } else {
            let message = format!("Invalid DARNER_ENGINE value ({}).", word.escape_debug());
            diagnostics.push(error(None, None, message, Some(engines(word, Engine::WORDS))));
        }
    }
    match variable("DARNER_LOG_FORMAT") {
        None => {}
        Some("json") => conf.log.json = true,
        Some("text") => conf.log.json = false,
        Some(other) => {
            let message = format!("Invalid DARNER_LOG_FORMAT value ({}).", other.escape_debug());
            diagnostics.push(error(None, None, message, Some("Write text or json.".into())));
        }
    }
}

/// What to do about an engine that is not there.
fn engines(word: &str, built: &[&str]) -> String {
    let known = built.join(", ");
    if word == Engine::Rumqttd.word() {
        return format!("This darner was built without its cargo feature \"rumqttd\", which is there by default. It has: {known}.");
    }
    format!("This darner has: {known}.")
}

fn toml(path: &Path, bytes: &[u8], conf: &mut Conf, diagnostics: &mut Vec<Diagnostic>) {
    let text = String::from_utf8_lossy(bytes);
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(reason) => {
            let line = reason.span().map(|span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
            diagnostics.push(error(Some(path), line, reason.message().to_owned(), None));
            return;
        }
    };
    for (key, value) in table.iter().take(TOML_KEYS_MAX) {
        let line =
            text.lines().position(|line| line.trim_start().trim_start_matches(['"', '[']).starts_with(key.as_str())).map(|index| index + 1);
        let fault = match (key.as_str(), value) {
            ("log_format", toml::Value::String(word)) if word == "json" || word == "text" => {
                conf.log.json = word == "json";
                continue;
            }
            ("durability", toml::Value::String(word)) if Durability::from_word(word).is_some() => {
                conf.persistence.durability = Durability::from_word(word).unwrap_or_default();
                continue;
            }
            ("durability", _) => {
                (format!("Invalid durability value ({value})."), Some("Write \"process\", \"power\" or \"snapshot\".".into()))
            }
            ("log_format", _) => (format!("Invalid log_format value ({value})."), Some("Write \"text\" or \"json\".".into())),
            ("engine", toml::Value::String(word)) if Engine::from_word(word).is_some() => {
                conf.engine = Engine::from_word(word).unwrap_or_default();
                continue;
            }
            ("engine", _) => (format!("Invalid engine value ({value})."), Some(engines(value.as_str().unwrap_or_default(), Engine::WORDS))),
            ("rumqttd", toml::Value::Table(table)) if table.iter().all(|(key, value)| key == "accept_limits" && value.is_bool()) => {
                conf.accepts_limits = table.values().any(|value| value.as_bool() == Some(true));
                continue;
            }
            ("rumqttd", _) => ("Invalid rumqttd table.".into(), Some("It has one key: accept_limits, true or false.".into())),
            ("shards", toml::Value::Integer(1)) => continue,
            ("shards", _) => (format!("Invalid shards value ({value})."), Some("This version of darner runs 1 shard.".into())),
            _ => {
                let hint = near(key, KEYS.iter().copied()).map_or_else(
                    || format!("Known keys: {}. Broker options belong in mosquitto.conf.", KEYS.join(", ")),
                    |name| format!("Did you mean `{name}`?"),
                );
                (format!("Unknown key \"{}\".", key.escape_debug()), Some(hint))
            }
        };
        diagnostics.push(error(Some(path), line, fault.0, fault.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_was_left_out_of_the_build_is_told_from_one_that_is_none() {
        assert_eq!(engines("rumqtt", &["core", "rumqttd"]), "This darner has: core, rumqttd.");
        assert!(engines("rumqttd", &["core"]).contains("built without its cargo feature \"rumqttd\""));
        assert_eq!(engines("other", &["core"]), "This darner has: core.");
    }
}
