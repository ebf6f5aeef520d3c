//! The health check: one MQTT round trip with a deadline of its own.

use std::ffi::OsString;

use crate::exit_code::ExitCode;

/// `darner healthcheck` (also `iotstack_healthcheck.sh`) with its arguments.
pub fn command(_arguments: &[OsString]) -> ExitCode {
    todo!()
}
