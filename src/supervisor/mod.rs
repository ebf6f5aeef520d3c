//! PID 1: supervises the broker, or any command.
//!
//! `phase` names what it can be doing, `machine` is the table (phase × event) → phase and actions, `run` the loop that performs them
//! for a [`run::Service`]: `init` is that of any command, `broker` that of the broker, with its `account`, `generation` of files,
//! `listeners`, `notify` and `control` sockets. `entry` and `first_run` decide what to run; `ask` is the other end of `control`.

mod account;
mod arguments;
mod ask;
mod broker;
mod certbot_image;
mod certificates;
mod control;
mod entry;
mod first_run;
mod generation;
mod init;
mod listeners;
mod machine;
mod notify;
mod oom;
mod patience;
mod phase;
mod run;
mod signal_table;
mod status;
mod voice;

use std::ffi::OsString;

use crate::exit_code::ExitCode;

/// The supervisor over the broker. `arguments` are mosquitto's.
pub fn command(arguments: &[OsString]) -> ExitCode {
    entry::mosquitto(arguments)
}

/// The image's entrypoint: `mosquitto …` is supervised, any other command is run as it is, no command is the image's default.
pub fn entrypoint_command(words: &[OsString]) -> ExitCode {
    entry::entrypoint(words)
}

/// `darner` without a word: the image's default as PID 1, else a broker with its files in `./darner-data`.
pub fn plain_command(_arguments: &[OsString]) -> ExitCode {
    entry::plain()
}

/// `darner init [--no-restart] -- CMD…`
pub fn init_command(arguments: &[OsString]) -> ExitCode {
    init::run(arguments)
}

/// `darner reload`: asks the running supervisor, prints the verdict.
pub fn reload_command(_arguments: &[OsString]) -> ExitCode {
    ask::ask(control::Request::Reload)
}

/// `darner restart` and `/restart.sh`: a new broker under the same supervisor.
pub fn restart_command(_arguments: &[OsString]) -> ExitCode {
    ask::ask(control::Request::Restart)
}

/// `darner status`
pub fn status_command(_arguments: &[OsString]) -> ExitCode {
    ask::ask(control::Request::Status)
}

/// `darner cert`
pub fn cert_command(arguments: &[OsString]) -> ExitCode {
    certificates::command(arguments)
}

/// How long a child may take to end before it is killed: `DARNER_STOP_SECS`, else 8 s, inside Docker's 10.
fn stop_grace() -> machine::Millis {
    seconds("DARNER_STOP_SECS").unwrap_or(8) * 1000
}

fn seconds(name: &str) -> Option<machine::Millis> {
    std::env::var(name).ok()?.parse::<u32>().ok().map(machine::Millis::from)
}
