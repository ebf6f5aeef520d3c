//! `mosquitto_pub` and `mosquitto_sub`: blocking MQTT clients.

use std::ffi::OsString;

use crate::exit_code::ExitCode;

/// `mosquitto_pub` with its arguments (without the program's name).
pub fn pub_command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}

/// `mosquitto_sub` with its arguments (without the program's name).
pub fn sub_command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}
