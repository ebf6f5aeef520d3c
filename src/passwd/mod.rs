//! Password hashes and the `mosquitto_passwd` command.

use std::ffi::OsString;

use crate::exit_code::ExitCode;

/// `mosquitto_passwd` with its arguments (without the program's name).
pub fn command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}
