//! `darner init [--no-restart] -- CMD…`: PID 1 over any command.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::machine::{Policy, Restart};
use super::run::{Service, supervise};
use super::signal_table::{self, Meaning};
use super::voice;
use crate::exit_code::ExitCode;
use crate::logging::LogType;
use crate::os;
use crate::os::spawn::{Child, SpawnError};

const USAGE: &str = "Usage: darner init [--no-restart] [--] COMMAND [ARGUMENT…]";

struct Command {
    argv: Vec<CString>,
}

impl Service for Command {
    fn meaning(&self, signal: i32) -> Meaning {
        signal_table::over_command(signal)
    }

    fn say(&self, _log_type: LogType, text: &str) {
        // stdout is the command's.
        voice::complain(&format!("darner init: {text}"));
    }

    fn say_of_child(&self, _log_type: LogType, text: &str) {
        voice::complain(&format!("darner init: {} {text}", self.name()));
    }

    fn spawn(&mut self) -> Result<i32, SpawnError> {
        os::spawn::spawn(&Child {
            programs: self.argv.first().map(|name| os::spawn::candidates(name)).unwrap_or_default(),
            argv: self.argv.clone(),
            env: os::spawn::environment(),
            fds: Vec::new(),
            listen_pid: false,
            identity: None,
            null_stdin: false,
            stdio: None,
            no_new_privs: false,
            oom_score_adj: None,
            mask: os::signals::inherited(),
            keep_dispositions: true,
            parent_death_signal: Some(nix::sys::signal::Signal::SIGTERM as i32),
        })
    }
}

impl Command {
    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.argv.first().map_or("".into(), |name| name.to_string_lossy())
    }
}

pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    let mut restart = Restart::OnFailure;
    let mut rest = arguments;
    while let Some((first, after)) = rest.split_first() {
        match first.to_str() {
            Some("--no-restart") => restart = Restart::Never,
            Some("--") => {
                rest = after;
                break;
            }
            Some("-h" | "--help") => {
                println!("{USAGE}");
                return ExitCode::Ok;
            }
            Some(option) if option.starts_with('-') => {
                eprintln!("darner init: unknown option {option}\n{USAGE}");
                return ExitCode::Usage;
            }
            _ => break,
        }
        rest = after;
    }
    let argv: Vec<_> = rest.iter().filter_map(|argument| CString::new(argument.as_bytes()).ok()).collect();
    if argv.is_empty() {
        eprintln!("darner init: no command\n{USAGE}");
        return ExitCode::Usage;
    }
    let policy = Policy {
        restart,
        readiness: false,
        orderly_is_success: false,
        stop_signal: None,
        watchdog: None,
        stop_grace: super::stop_grace(),
        sweep_grace: 1_000,
    };
    supervise(&mut Command { argv }, policy)
}

/// Runs a command in this very process, as `exec` does.
pub(super) fn replace(program: &OsString, argv: &[OsString]) -> ExitCode {
    let c_string = |word: &OsString| CString::new(word.as_bytes()).unwrap_or_default();
    let argv: Vec<_> = argv.iter().map(c_string).collect();
    let error = os::process::replace(&c_string(program), &argv);
    eprintln!("darner: {}: {error}", program.to_string_lossy());
    if error.kind() == std::io::ErrorKind::NotFound { ExitCode::NotFound } else { ExitCode::NotExecutable }
}
