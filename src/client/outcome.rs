//! How a tool ends: mosquitto's sentences on stderr and its exit codes.

use std::io::Write as _;

use super::dial::{DialError, DialOptions, Stream};
use super::event::SessionError;
use super::flows::Flows;
use super::reasons;
use super::session::Session;
use super::settings::Settings;
use crate::exit_code::ExitCode;
use crate::mqtt::{Connack, Connect, ProtocolVersion};

/// Exit code and what to say on stderr before it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub code: ExitCode,
    pub text: Option<String>,
}

impl Outcome {
    pub(super) fn silent(code: ExitCode) -> Self {
        Self { code, text: None }
    }

    pub(super) fn said(code: ExitCode, text: impl Into<String>) -> Self {
        Self { code, text: Some(text.into()) }
    }

    pub(super) fn failure(text: impl Into<String>) -> Self {
        Self::said(ExitCode::Failure, text)
    }

    pub(super) fn of_dial(error: &DialError) -> Self {
        match error {
            DialError::Lookup(_) => Self::failure("Unable to connect (Lookup error.)."),
            DialError::TlsOptions(reason) => Self::failure(format!("Error: Problem setting TLS options: {reason}.")),
            DialError::Tls(reason) => Self::failure(format!("Unable to connect (A TLS error occurred.): {reason}.")),
            DialError::Io(_) => Self::failure(format!("Error: {error}")),
        }
    }

    /// mosquitto's numbers for what ended the conversation.
    pub(super) fn of_session(error: &SessionError) -> Self {
        match error {
            SessionError::Dial(error) => Self::of_dial(error),
            SessionError::Lost => Self::said(ExitCode::Other(7), "Error: The connection was lost."),
            // mosquitto's says only that it is not connected.
            SessionError::Ended(reason) => {
                Self::said(ExitCode::Other(4), format!("Error: The broker ended the connection: {}.", reasons::reason_text(*reason)))
            }
            SessionError::Refused(code) => Self::said(ExitCode::Other(*code), format!("Connection error: {}", reasons::UNKNOWN_REFUSAL)),
            SessionError::Protocol(_) => {
                Self::said(ExitCode::Other(2), "Error: A network protocol error occurred when communicating with the broker.")
            }
            SessionError::KeepAlive => Self::said(ExitCode::Other(19), format!("Error: {error}.")),
        }
    }

    /// CONNACK with a refusal: its number is the exit code. mosquitto_pub says a second line.
    pub(super) fn refused(connack: &Connack, settings: &Settings, second_line: bool) -> Self {
        let code = reasons::connack_code(connack.reason, settings.version);
        let mut text = format!("Connection error: {}", reasons::connack_text(connack.reason, settings.version));
        if second_line {
            text += match settings.version {
                ProtocolVersion::V5 => "\nError: A network protocol error occurred when communicating with the broker.",
                _ => "\nError: The connection was refused.",
            };
        }
        Self::said(ExitCode::Other(code), text)
    }
}

/// Connects and sends CONNECT; gives the flows back where that fails.
pub(super) fn open(settings: &Settings, connect: &Connect, flows: Flows) -> Result<Session, (DialError, Flows)> {
    let tls = settings.tls.is_wanted().then(|| settings.tls.config()).transpose();
    let tls = match tls {
        Ok(tls) => tls,
        Err(reason) => return Err((DialError::TlsOptions(reason.into()), flows)),
    };
    let options = DialOptions { bind: settings.bind.clone(), no_delay: settings.no_delay, proxy: settings.proxy.clone(), tls, until: None };
    match Stream::dial(&settings.address(), &options) {
        Ok(stream) => Session::start(stream, connect.clone(), flows, settings.debug),
        Err(error) => Err((error, flows)),
    }
}

impl Settings {
    /// Says what went wrong, unless `--quiet`.
    pub(super) fn complain(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }
}
