//! PID 1.

use std::ffi::OsString;

use crate::exit_code::ExitCode;

/// The supervisor over the broker (the image's entrypoint given `mosquitto …`, or plain `darner`). `arguments` are mosquitto's.
pub fn command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}

/// `darner init [--no-restart] -- CMD…`
pub fn init_command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}

/// `darner reload`: asks the running supervisor, prints the verdict.
pub fn reload_command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}

/// `darner status`
pub fn status_command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}
