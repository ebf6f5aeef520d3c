//! What each signal to the supervisor means: one table for the broker, one for any other command.

use nix::sys::signal::Signal;

use crate::os;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Stop,
    /// Stop fast, and log what we were doing.
    Quit,
    Reload,
    ToChild,
    /// A child ended.
    Child,
    Ignored,
}

/// Over the broker. Signals that are not listed are ignored.
const BROKER: &[(Signal, Meaning)] = &[
    (Signal::SIGTERM, Meaning::Stop),
    (Signal::SIGINT, Meaning::Stop),
    (Signal::SIGPWR, Meaning::Stop),
    (Signal::SIGQUIT, Meaning::Quit),
    (Signal::SIGHUP, Meaning::Reload),
    (Signal::SIGUSR1, Meaning::ToChild),
    (Signal::SIGUSR2, Meaning::ToChild),
    (Signal::SIGCHLD, Meaning::Child),
];

/// Over any command. Signals that are not listed are forwarded.
const COMMAND: &[(Signal, Meaning)] = &[
    (Signal::SIGTERM, Meaning::Stop),
    (Signal::SIGINT, Meaning::Stop),
    (Signal::SIGPWR, Meaning::Stop),
    (Signal::SIGCHLD, Meaning::Child),
    // Job control of the terminal that started us is not the command's, which has a session of its own.
    (Signal::SIGTSTP, Meaning::Ignored),
    (Signal::SIGTTIN, Meaning::Ignored),
    (Signal::SIGTTOU, Meaning::Ignored),
];

pub(super) fn over_broker(signal: i32) -> Meaning {
    if signal == os::signals::rtmin() {
        return Meaning::ToChild;
    }
    // systemd's "halt", which container engines send to machines that run it.
    if signal == os::signals::rtmin() + 3 {
        return Meaning::Stop;
    }
    find(BROKER, signal).unwrap_or(Meaning::Ignored)
}

pub(super) fn over_command(signal: i32) -> Meaning {
    find(COMMAND, signal).unwrap_or(Meaning::ToChild)
}

fn find(table: &[(Signal, Meaning)], signal: i32) -> Option<Meaning> {
    table.iter().find(|(known, _)| *known as i32 == signal).map(|(_, meaning)| *meaning)
}
