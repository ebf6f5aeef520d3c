//! argv → command. No logic: each room has its own command function.

use std::ffi::OsString;

use crate::exit_code::ExitCode;
use crate::{client, health, os, passwd, repair, supervisor, transport};

type Command = fn(&[OsString]) -> ExitCode;

/// Subcommands of `darner` and the names that the binary is also installed under: word, whether it runs with signals still blocked
/// (those that read a signalfd), command.
const COMMANDS: &[(&str, bool, Command)] = &[
    ("broker", true, transport::command),
    ("mosquitto", true, transport::command),
    ("init", true, supervisor::init_command),
    ("supervise", true, supervisor::command),
    ("reload", false, supervisor::reload_command),
    ("status", false, supervisor::status_command),
    ("repair", false, repair::command),
    ("healthcheck", false, health::command),
    ("iotstack_healthcheck.sh", false, health::command),
    ("mosquitto_passwd", false, passwd::command),
    ("mosquitto_pub", false, client::pub_command),
    ("mosquitto_sub", false, client::sub_command),
];

/// Runs what `argv` asks for, by the name it was called under, and returns how the process ends.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let name = argv.first().map(|name| std::path::Path::new(name).file_name().unwrap_or_default().to_owned()).unwrap_or_default();
    let by_name = COMMANDS.iter().find(|(word, ..)| name == *word).map(|command| (command, 1));
    let by_word = argv.get(1).and_then(|word| COMMANDS.iter().find(|(name, ..)| word == name)).map(|command| (command, 2));
    match by_name.or(by_word) {
        Some(((_, blocked, command), skip)) => {
            if !blocked {
                os::signals::unblock_all();
            }
            command(argv.get(skip..).unwrap_or_default())
        }
        None => ExitCode::Usage,
    }
}
