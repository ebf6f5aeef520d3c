//! `darner acme`: one attempt to get a certificate, as a process of its own that PID 1 starts without privileges.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};

use super::exchange::{Failure, LINE_MAX, Report, Request, Step};
use crate::exit_code::ExitCode;

/// Reads a [`Request`] from stdin and writes [`Report`]s to stdout.
pub fn command(_: &[OsString]) -> ExitCode {
    let outcome = match read_request() {
        Ok(_) => failed("this build cannot talk to a CA yet"),
        Err(reason) => failed(&reason),
    };
    let succeeded = !matches!(outcome, Report::Failed(_));
    say(&outcome);
    if succeeded { ExitCode::Ok } else { ExitCode::Failure }
}

fn read_request() -> Result<Request, String> {
    let mut text = String::new();
    std::io::stdin().take(LINE_MAX as u64).read_to_string(&mut text).map_err(|error| format!("the request cannot be read: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("darner acme takes a request from PID 1, and this is none: {error}"))
}

fn say(report: &Report) {
    if let Ok(line) = serde_json::to_string(report) {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

fn failed(text: &str) -> Report {
    Report::Failed(Failure {
        step: Step::Request,
        problem: None,
        status: None,
        text: text.to_owned(),
        retry_after_secs: None,
        identifiers: Vec::new(),
        is_clock_error: false,
        counted: false,
    })
}
