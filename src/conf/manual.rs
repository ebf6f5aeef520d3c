//! The table in words: one option for `darner explain`, all of them for docs/mosquitto.conf.md.

use std::fmt::Write as _;

use super::near::near;
use super::options::{self, Effect, Kind, OPTIONS, Row, Scope, Special, Support};

const SECTIONS: &[(Scope, &str, &str)] = &[
    (Scope::Global, "Global options", "They hold for the whole broker and may stand anywhere."),
    (Scope::Listener, "Listeners", "They belong to the `listener` line above them, or to the default listener where there is none."),
    (
        Scope::Security,
        "Security",
        "They hold for every listener; under `per_listener_settings true` each belongs to the `listener` line above it.",
    ),
    (Scope::Plugin, "Plugin options", "They belong to the plugin line above them."),
    (Scope::Bridge, "Bridges", "They belong to the `connection` line above them."),
];

fn value(kind: &Kind) -> String {
    match kind {
        Kind::Switch(_) => "true or false".into(),
        Kind::Number(range, _) if *range.start() == i64::MIN => "number".into(),
        Kind::Number(range, _) => format!("number from {} to {}", range.start(), range.end()),
        Kind::Duration(_) => "duration".into(),
        Kind::Text(_) => "text".into(),
        Kind::Path(_) => "path".into(),
        Kind::Unread => "not read".into(),
        Kind::Special(special) => match special {
            Special::AcceptProtocolVersions => "list of 3, 4, 5",
            Special::BindAddress => "address",
            Special::Connection => "name",
            Special::IncludeDir => "folder",
            Special::Listener => "port [address], or 0 path",
            Special::ListenerAllowAnonymous | Special::PerListenerSettings => "true or false",
            Special::ListenerAutoIdPrefix | Special::MountPoint => "text",
            Special::LogDest => "stdout, stderr, syslog, topic, file path, none",
            Special::LogType => "type, all, none",
            Special::Plugin | Special::PluginOption => "path",
            Special::PluginLoad => "name path",
            Special::PluginUse => "name",
            Special::Port => "number from 1 to 65535",
            Special::Protocol => "mqtt or websockets",
            Special::WebsocketsOrigin => "text",
            Special::SocketDomain => "ipv4 or ipv6",
        }
        .into(),
    }
}

fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::OnReload => "at a reload",
        Effect::OnRestart => "at a restart",
    }
}

fn support(support: Support) -> String {
    match support {
        Support::Honoured => "honoured".into(),
        Support::Obsolete(_) => "honoured; obsolete in mosquitto".into(),
        Support::Ignored(why) => format!("accepted and ignored, with a warning: {why}"),
        Support::Refused(what) => format!("refused: not supported yet ({what})"),
    }
}

/// What the table says of one option, for a terminal. `Err` is the near miss, if any.
pub fn explain(name: &str) -> Result<String, Option<&'static str>> {
    let Some(row) = options::find(name) else {
        return Err(near(name, options::names()));
    };
    let mut text = format!("{}\n    {}\n", row.name, row.doc);
    let place = SECTIONS.iter().find(|(scope, ..)| *scope == row.scope).map_or("", |(.., place)| *place);
    let aliases = if row.aliases.is_empty() { String::new() } else { row.aliases.join(", ") };
    let fields = [
        ("also called", aliases),
        ("value", value(&row.kind)),
        ("default", row.default.into()),
        ("a change takes effect", effect(row.effect).into()),
        ("in darner", support(row.support)),
        ("place", place.into()),
    ];
    for (field, words) in fields.iter().filter(|(_, words)| !words.is_empty()) {
        let _ = writeln!(text, "    {field}: {words}");
    }
    Ok(text)
}

fn markdown_row(text: &mut String, row: &Row) {
    let cell = |words: &str| words.replace('|', "\\|").replace('<', "&lt;");
    let names: Vec<_> = std::iter::once(&row.name).chain(row.aliases).map(|name| format!("`{name}`")).collect();
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} |",
        names.join(", "),
        cell(&value(&row.kind)),
        cell(row.default),
        effect(row.effect),
        cell(&support(row.support)),
        cell(row.doc)
    );
}

/// docs/mosquitto.conf.md, whole.
pub fn markdown() -> String {
    let mut text = String::from(
        "# mosquitto.conf\n\n\
         Every option of mosquitto 2.0 and 2.1, and what darner does with it. This page is made from the table that the program itself\n\
         reads (`src/conf/options.rs`); `darner explain OPTION` prints one row, `darner check -c FILE` judges a file.\n\n\
         A line is an option, a space and a value. A `#` at the start of a line makes it a remark. Numbers, `true` and `false` may be\n\
         followed by a remark; texts and paths take the whole rest of their line.\n",
    );
    for (scope, title, place) in SECTIONS {
        let _ = write!(
            text,
            "\n## {title}\n\n{place}\n\n| option | value | default | a change takes effect | in darner | meaning |\n|---|---|---|---|---|---|\n"
        );
        for row in OPTIONS.iter().filter(|row| row.scope == *scope) {
            markdown_row(&mut text, row);
        }
    }
    text.push_str(
        "\n## darner.toml and the environment\n\n\
         What mosquitto.conf has no word for stands in `darner.toml` beside it, or where `DARNER_CONFIG` points. Every key is optional, and\n\
         an unknown one is an error.\n\n\
         | key | value | default | environment | meaning |\n|---|---|---|---|---|\n\
         | `log_format` | \"text\" or \"json\" | \"text\" | `DARNER_LOG_FORMAT` | JSON writes one object a line. |\n\
         | `engine` | \"core\" or \"rumqttd\" | \"core\" | `DARNER_ENGINE` | The broker's engine (docs/engines.md); a change takes effect at a restart. |\n\
         | `rumqttd.accept_limits` | true or false | false | | Whether that engine may run where it loses what the configuration promises to keep. |\n\
         | `shards` | 1 | 1 | | Parts that the broker's work is divided into. |\n",
    );
    text
}
