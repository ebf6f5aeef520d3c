//! `mosquitto_pub` and `mosquitto_sub`: blocking MQTT clients, and the session that the health check shares with them.

pub mod dial;
pub mod event;
pub mod flows;
pub mod format;
pub mod proxy;
pub mod reasons;
pub mod session;
pub mod tls;

mod help;
mod json;
mod options;
mod outcome;
mod property_arguments;
mod publish;
mod settings;
mod subscribe;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

use crate::exit_code::ExitCode;
use outcome::Outcome;
use settings::{Settings, Stop, Tool};

/// `mosquitto_pub` with its arguments (without the program's name).
pub fn pub_command(arguments: &[OsString]) -> ExitCode {
    command(Tool::Pub, arguments)
}

/// `mosquitto_sub` with its arguments (without the program's name).
pub fn sub_command(arguments: &[OsString]) -> ExitCode {
    command(Tool::Sub, arguments)
}

fn command(tool: Tool, arguments: &[OsString]) -> ExitCode {
    let say = |text: &str| {
        let _ = write!(std::io::stderr().lock(), "{text}");
    };
    let print = |text: &str| {
        let _ = write!(std::io::stdout().lock(), "{text}");
    };
    let settings = match defaults(tool, arguments).and_then(|defaults| Settings::load(tool, &defaults, arguments)) {
        Ok(settings) => settings,
        Err(stop) => {
            match stop {
                Stop::Help => print(&help::text(tool)),
                Stop::Version => print(&(help::version(tool) + "\n")),
                Stop::Refused(text) => say(&format!("{text}\nUse '{} --help' to see usage.\n", tool.name())),
            }
            // mosquitto's tools end with 1 even after --help; scripts that ask for help have been told so for ever.
            return ExitCode::Failure;
        }
    };
    let Outcome { code, text } = match tool {
        Tool::Pub => publish::run(&settings),
        Tool::Sub => subscribe::run(&settings),
    };
    if let Some(text) = text {
        settings.complain(&text);
    }
    code
}

/// What the file of `-o` says, which must be there; else the user's own, which may be absent.
fn defaults(tool: Tool, arguments: &[OsString]) -> Result<String, Stop> {
    match options::options_files(tool, arguments).as_slice() {
        [] => Ok(defaults_path(tool).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()),
        [path] => std::fs::read_to_string(path)
            .map_err(|error| settings::refused(format!("Error: Unable to read options file \"{}\": {error}.", path.to_string_lossy()))),
        _ => Err(settings::refused_spaced("Error: Duplicate -o argument given.")),
    }
}

/// `$XDG_CONFIG_HOME/mosquitto_pub`, else `~/.config/mosquitto_pub`.
fn defaults_path(tool: Tool) -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    config.map(|config| config.join(tool.name()))
}
