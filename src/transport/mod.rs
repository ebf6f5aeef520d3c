//! The broker process: listeners, connections, timers, reloads. It performs the machine's effects, and is the only room with tokio.

use std::ffi::OsString;

use crate::exit_code::ExitCode;

/// `mosquitto …` and `darner broker …` with their arguments: the broker alone, with or without a supervisor above it.
pub fn command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}
