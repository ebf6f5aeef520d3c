//! The health check: one MQTT round trip with a deadline of its own, and no child process.
//!
//! It publishes the date, retained, and reads it back, as IOTstack's script does. Where nothing was set up for it and the broker wants
//! a password (or listens elsewhere, or its ACL keeps the topic), the round trip goes through the private socket instead.

mod round_trip;
mod variables;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::client::dial::{Stream, plain};
use crate::exit_code::ExitCode;
use crate::os::local_socket::{self, Kind};
use round_trip::{Failure, Said, round_trip};
use variables::Variables;

/// The whole check ends by then, whatever the broker does.
const DEADLINE: Duration = Duration::from_secs(5);

/// The conversation ends a little earlier, so that the reason is told before [`DEADLINE`].
const CONVERSATION: Duration = Duration::from_millis(4750);

/// PID 1 answers at once, or not at all.
const SUPERVISOR: Duration = Duration::from_millis(200);

/// Docker keeps no more than this of what a health check prints.
const OUTPUT_BYTES_MAX: usize = 4096;

/// `darner healthcheck` (also `iotstack_healthcheck.sh`) with its arguments, of which there are none: exit code 0 when a message came
/// back, else 1 and one line that says why.
pub fn command(arguments: &[OsString]) -> ExitCode {
    if let Some(argument) = arguments.first() {
        let name = argument.to_string_lossy();
        return report(Err(format!(
            "'{name}' is not understood: the health check takes no arguments, only {} from the environment",
            variables::NAMES.join(", ")
        )));
    }
    let variables = match Variables::read(|name| std::env::var_os(name)) {
        Ok(variables) => variables,
        Err(reason) => return report(Err(reason)),
    };
    let (sender, receiver) = mpsc::channel();
    // In a thread, as connecting to a frozen broker's unix socket cannot be given a deadline.
    let spawned = std::thread::Builder::new().spawn(move || sender.send(check(&variables, Instant::now() + CONVERSATION)));
    if let Err(error) = spawned {
        return report(Err(format!("no thread for the check: {error}")));
    }
    report(receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| Err(format!("no answer from the broker within {} s", DEADLINE.as_secs()))))
}

/// Prints one line and turns the verdict into the exit code.
fn report(verdict: Result<String, String>) -> ExitCode {
    let (code, line) = match verdict {
        Ok(how) => (ExitCode::Ok, format!("healthy: {how}")),
        Err(reason) => (ExitCode::Failure, format!("unhealthy: {reason}")),
    };
    // A topic may hold anything; the line stays one line.
    let mut line: String =
        line.chars().flat_map(|letter| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] }).collect();
    while line.len() >= OUTPUT_BYTES_MAX {
        line.pop();
    }
    let _ = writeln!(io::stdout().lock(), "{line}");
    code
}

fn check(variables: &Variables, until: Instant) -> Result<String, String> {
    let port = variables.port;
    let place = format!("port {port}");
    let failure = match over_tcp(variables, until) {
        Ok(said) => return with_supervisor(format!("round trip through {place}"), &said),
        Err(failure) => failure,
    };
    let reason = format!("{place}: {}", failure.reason);
    if variables.is_explicit || !failure.may_be_by_configuration {
        return Err(reason);
    }
    // Nothing was set up for the check, and the broker answered in a way that a healthy broker may.
    let stream = local_socket::find(Kind::Health).map_err(|error| {
        let hint = "set HEALTHCHECK_PORT, HEALTHCHECK_USER and HEALTHCHECK_PASSWORD";
        format!("{reason}; and no private socket of this container answers ({}): {hint}", plain(&error))
    })?;
    match round_trip(Stream::Unix(stream), variables, until) {
        Ok(said) => with_supervisor("round trip through the private socket".to_owned(), &said),
        Err(private) => Err(format!("{reason}; private socket: {}", private.reason)),
    }
}

/// What PID 1 says: a broker that cannot keep anything is ill, and so is an expired certificate; one that expires soon is told. Without a
/// PID 1 of ours only the broker's `$SYS` tells, if the user may read it.
fn with_supervisor(how: String, said: &Said) -> Result<String, String> {
    let ask = || -> io::Result<String> {
        let mut stream = local_socket::find(Kind::Control)?;
        stream.set_read_timeout(Some(SUPERVISOR))?;
        stream.write_all(format!("{}\n", local_socket::ASK_HEALTH).as_bytes())?;
        let mut text = String::new();
        stream.take(OUTPUT_BYTES_MAX as u64).read_to_string(&mut text)?;
        Ok(text)
    };
    let answer = ask().unwrap_or_default();
    match answer.split_once('\n').map(|(code, text)| (code, text.trim())) {
        Some(("1", text)) if !text.is_empty() => Err(text.to_owned()),
        Some(("0", text)) if !text.is_empty() && !said.store_failing => Ok(format!("{how}; {text}")),
        _ if said.store_failing => Err("nothing can be kept: the broker's log says why".to_owned()),
        _ => Ok(how),
    }
}

fn over_tcp(variables: &Variables, until: Instant) -> Result<Said, Failure> {
    let stream = round_trip::dial_loopback(variables.port, until)?;
    round_trip(stream, variables, until)
}
