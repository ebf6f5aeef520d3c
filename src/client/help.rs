//! `--help`, from the option table.

use std::fmt::Write as _;

use super::options::{For, OPTIONS, Takes};
use super::settings::Tool;
use crate::broker::MOSQUITTO_VERSION;

/// Columns that an option's names and value take before its text.
const NAMES_WIDTH: usize = 34;
const TEXT_WIDTH: usize = 90;

/// What `--help` prints.
pub(super) fn text(tool: Tool) -> String {
    let name = tool.name();
    let (what, usage) = match tool {
        Tool::Pub => ("publishes MQTT messages", "-t TOPIC {-m MESSAGE | -f FILE | -l | -s | -n}"),
        Tool::Sub => ("subscribes to MQTT topics and prints the messages that come", "-t TOPIC"),
    };
    let mut text =
        format!("{name} {what}.\n{}\n\nUsage: {name} [-h HOST] [-p PORT] [-u USER] [-P PASSWORD] {usage} [OPTION...]\n\n", version(tool));
    let known = |choice: For| choice == For::Both || choice == if tool == Tool::Pub { For::Pub } else { For::Sub };
    for (names, _, takes, doc) in OPTIONS.iter().filter(|(_, choice, ..)| known(*choice)) {
        let value = match takes {
            Takes::Flag(_) => String::new(),
            Takes::Value(noun, _) => format!(" {}", noun.to_uppercase().replace(' ', "-")),
            Takes::Property => " ...".to_owned(),
            Takes::Refused(_) => continue,
        };
        let _ = write!(text, " {:<NAMES_WIDTH$}", names.join(", ") + &value);
        let mut column = 0;
        for word in doc.split(' ') {
            if column + word.chars().count() > TEXT_WIDTH {
                let _ = write!(text, "\n {:<NAMES_WIDTH$}", "");
                column = 0;
            }
            let _ = write!(text, " {word}");
            column += word.chars().count() + 1;
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\nDefaults, one option a line, are read from ~/.config/{name}.");
    text
}

/// What `--version` prints.
pub(super) fn version(tool: Tool) -> String {
    format!("{} version {MOSQUITTO_VERSION} running on darner {}.", tool.name(), env!("CARGO_PKG_VERSION"))
}
