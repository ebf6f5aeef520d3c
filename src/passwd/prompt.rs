//! Asking for a password twice, without showing it.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::Failure;
use super::arguments::check_password;
use crate::exit_code::ExitCode;

/// Asks twice; `on_stderr` keeps stdout free for the entry.
pub(super) fn new_password(on_stderr: bool) -> Result<Vec<u8>, Failure> {
    let first = ask("Password: ", on_stderr)?;
    if first.is_empty() {
        return Err(Failure::new("Error: Empty password."));
    }
    if ask("Reenter password: ", on_stderr)? != first {
        return Err(Failure { message: "Error: Passwords do not match.".into(), exit_code: ExitCode::Differ });
    }
    Ok(first)
}

fn ask(prompt: &str, on_stderr: bool) -> Result<Vec<u8>, Failure> {
    show(prompt, on_stderr);
    let answer = read_hidden_line();
    show("\n", on_stderr);
    check_password(std::os::unix::ffi::OsStrExt::from_bytes(answer?.as_slice()))
}

fn show(text: &str, on_stderr: bool) {
    let _ = if on_stderr { io::stderr().write_all(text.as_bytes()) } else { io::stdout().write_all(text.as_bytes()) };
    let _ = io::stdout().flush();
}

fn read_hidden_line() -> Result<Vec<u8>, Failure> {
    // Nothing is left without echo when the user gives up with ^C.
    let stdin = io::stdin();
    let hidden = if stdin.is_terminal() { tcgetattr(stdin.as_fd()).ok() } else { None };
    let Some(before) = hidden else { return read_line() };
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        ends.add(signal);
    }
    let _ = ends.thread_block();
    let mut without_echo: Termios = before.clone();
    without_echo.local_flags.remove(LocalFlags::ECHO);
    let _ = tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &without_echo);
    let answer = wait_for_line(&ends).and_then(|()| read_line());
    let _ = tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &before);
    let _ = ends.thread_unblock();
    answer
}

/// Returns when a line can be read. `Err` when one of the signals came first.
fn wait_for_line(ends: &SigSet) -> Result<(), Failure> {
    let Ok(signals) = SignalFd::new(ends) else { return Ok(()) };
    let stdin = io::stdin();
    loop {
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut ready, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return Ok(()),
        }
        let [line, signal] = ready.map(|poll| poll.any().unwrap_or(true));
        if signal && let Ok(Some(signal)) = signals.read_signal() {
            return Err(Failure { message: String::new(), exit_code: ExitCode::Other(128 + signal.ssi_signo as u8) });
        }
        if line {
            return Ok(());
        }
    }
}

fn read_line() -> Result<Vec<u8>, Failure> {
    /// More than a password may have.
    const BYTES_MAX: u64 = 1 << 17;
    let mut line = Vec::new();
    let mut stdin = io::Read::take(io::stdin().lock(), BYTES_MAX);
    stdin.read_until(b'\n', &mut line).map_err(|reason| Failure::new(format!("Error: Unable to read the password. {reason}.")))?;
    while line.ends_with(b"\n") || line.ends_with(b"\r") {
        line.pop();
    }
    Ok(line)
}
