//! Where lines go. A destination that is full, closed or gone loses lines (and says so when it can again); it never blocks the
//! process or silences the others.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::LogType;
use super::timestamp::Clock;
use crate::conf::LogDestination;

/// A pipe that poll(2) calls writable takes 4096 bytes (PIPE_BUF) at once without blocking; 128 of them are for the report of losses.
const STREAM_LINE_BYTES_MAX: usize = 4096 - 128;
const SYSLOG_SOCKET: &str = "/dev/log";
const FACILITY_DAEMON: u8 = 3;
const FACILITY_LOCAL0: u8 = 16;

#[derive(Default)]
pub(super) struct Destinations {
    stdout: Option<Losses>,
    stderr: Option<Losses>,
    syslog: Option<Syslog>,
    files: Vec<LogFile>,
    /// Nothing else is left to hear the log: a file that could not be opened was the only destination.
    fallback: Option<Losses>,
    json: bool,
}

/// Lines that a destination did not take, and whether it holds the beginning of one.
#[derive(Default)]
struct Losses {
    lines: u64,
    in_the_middle: bool,
}

struct LogFile {
    path: PathBuf,
    file: Option<File>,
    losses: Losses,
}

struct Syslog {
    facility: u8,
    socket: Option<UnixDatagram>,
}

impl Destinations {
    /// Closes what was open and opens `wanted`. Returns a sentence for each that failed.
    pub(super) fn replace(&mut self, wanted: &[LogDestination], facility: Option<u8>, json: bool) -> Vec<String> {
        *self = Self { json, ..Self::default() };
        for destination in wanted {
            match destination {
                LogDestination::Stdout => self.stdout = Some(Losses::default()),
                LogDestination::Stderr => self.stderr = Some(Losses::default()),
                LogDestination::File(path) => match standard_stream(path) {
                    // Opening these anew fails for another user than the one who made the pipe.
                    Some(1) => self.stdout = Some(Losses::default()),
                    Some(_) => self.stderr = Some(Losses::default()),
                    None => self.files.push(LogFile { path: path.clone(), file: None, losses: Losses::default() }),
                },
                LogDestination::Syslog => {
                    let facility = facility.map_or(FACILITY_DAEMON, |local| FACILITY_LOCAL0 + local.min(7));
                    self.syslog = Some(Syslog { facility, socket: None });
                }
                LogDestination::Topic | LogDestination::None => {}
            }
        }
        let mut troubles = self.open_files();
        if self.syslog.as_ref().is_some_and(|_| !Path::new(SYSLOG_SOCKET).exists()) {
            troubles.push(format!(
                "Error: Unable to reach syslog: {SYSLOG_SOCKET} is missing. Mount the host's socket there, or log elsewhere."
            ));
        }
        let heard = self.stdout.is_some() || self.stderr.is_some() || self.files.iter().any(|log| log.file.is_some());
        self.fallback = (!heard && !troubles.is_empty()).then(Losses::default);
        troubles
    }

    /// Opens the files again. Returns a sentence for each that failed.
    pub(super) fn reopen(&mut self) -> Vec<String> {
        for log in &mut self.files {
            log.file = None;
        }
        let troubles = self.open_files();
        let heard = self.stdout.is_some() || self.stderr.is_some() || self.files.iter().any(|log| log.file.is_some());
        self.fallback = (!heard && !troubles.is_empty()).then(Losses::default);
        troubles
    }

    fn open_files(&mut self) -> Vec<String> {
        let mut troubles = Vec::new();
        for log in &mut self.files {
            match open(&log.path) {
                Ok(file) => log.file = Some(file),
                Err(reason) => troubles.push(format!(
                    "Error: Unable to open log file {} for writing. {reason}; the other log destinations go on. Let the broker's user write there.",
                    log.path.display()
                )),
            }
        }
        troubles
    }

    /// `line` ends with its newline.
    pub(super) fn write(&mut self, log_type: LogType, line: &str, clock: &Clock) {
        if let Some(losses) = &mut self.stdout {
            write_stream(io::stdout().as_fd(), losses, line, self.json);
        }
        for losses in [&mut self.stderr, &mut self.fallback].into_iter().flatten() {
            write_stream(io::stderr().as_fd(), losses, line, self.json);
        }
        for log in &mut self.files {
            if let Some(file) = &log.file {
                write_once(file.as_fd(), &mut log.losses, line, self.json);
            }
        }
        if let Some(syslog) = &mut self.syslog {
            syslog.send(log_type, line.trim_end_matches('\n'), clock);
        }
    }
}

/// The descriptor that a path of /dev or /proc stands for.
fn standard_stream(path: &Path) -> Option<i32> {
    match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(1),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(2),
        _ => None,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // O_NONBLOCK: a FIFO without a reader is an error, not a wait.
    options.append(true).create(true).mode(0o600).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits());
    options.open(path)
}

/// To a descriptor that may block and is shared with others, so O_NONBLOCK is not ours to set.
fn write_stream(fd: BorrowedFd<'_>, losses: &mut Losses, line: &str, json: bool) {
    let mut ready = [PollFd::new(fd, PollFlags::POLLOUT)];
    let writable = nix::poll::poll(&mut ready, PollTimeout::ZERO).is_ok()
        && ready.iter().any(|poll| poll.revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)));
    if !writable {
        losses.lines += 1;
        return;
    }
    if line.len() <= STREAM_LINE_BYTES_MAX {
        return write_once(fd, losses, line, json);
    }
    // Half an object is worse than a complaint.
    let end = (0..STREAM_LINE_BYTES_MAX - 32).rev().find(|&index| line.is_char_boundary(index)).unwrap_or(0);
    let shortened = match line.get(..end) {
        Some(head) if !json => format!("{head}… ({} bytes)\n", line.len()),
        _ => warning(&format!("a log line of {} bytes is too long for this destination.", line.len()), json),
    };
    write_once(fd, losses, &shortened, json);
}

fn warning(text: &str, json: bool) -> String {
    if json { format!("{{\"type\":\"warning\",\"message\":\"Warning: {text}\"}}\n") } else { format!("Warning: {text}\n") }
}

/// One write(2), with the report of what was lost before in front.
fn write_once(fd: BorrowedFd<'_>, losses: &mut Losses, line: &str, json: bool) {
    let lost = losses.lines;
    let text = if lost == 0 {
        Cow::Borrowed(line)
    } else {
        let newline = if losses.in_the_middle { "\n" } else { "" };
        let report = warning(&format!("{lost} log lines were lost because they could not be written here."), json);
        Cow::Owned(format!("{newline}{report}{line}"))
    };
    match attempt(fd, &text) {
        Some(written) if written == text.len() => *losses = Losses::default(),
        Some(written) => *losses = Losses { lines: lost + 1, in_the_middle: losses.in_the_middle || written > 0 },
        None => losses.lines += 1,
    }
}

/// Bytes written, or `None` when the destination takes nothing now.
fn attempt(fd: BorrowedFd<'_>, text: &str) -> Option<usize> {
    loop {
        match nix::unistd::write(fd, text.as_bytes()) {
            Ok(written) => return Some(written),
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

impl Syslog {
    fn send(&mut self, log_type: LogType, line: &str, clock: &Clock) {
        let severity = match log_type {
            LogType::Error => 3,
            LogType::Warning => 4,
            LogType::Notice | LogType::Subscribe | LogType::Unsubscribe => 5,
            LogType::Information => 6,
            LogType::Debug | LogType::Websockets | LogType::Internal => 7,
        };
        let priority = u16::from(self.facility) * 8 + severity;
        let record = format!("<{priority}>{} mosquitto: {line}", clock.syslog());
        // syslogd may have been restarted: one fresh attempt, and then the line is lost.
        for _ in 0..2 {
            let socket = self.socket.take().or_else(connect_syslog);
            let Some(socket) = socket else { return };
            match socket.send(record.as_bytes()) {
                Err(reason) if reason.kind() != io::ErrorKind::WouldBlock => {}
                _ => {
                    self.socket = Some(socket);
                    return;
                }
            }
        }
    }
}

fn connect_syslog() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(SYSLOG_SOCKET).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_blocking_pipe_that_nobody_reads_does_not_block() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut losses = Losses::default();
        let line = format!("{}\n", "x".repeat(99));
        for _ in 0..2000 {
            write_stream(writer.as_fd(), &mut losses, &line, false);
        }
        let lost = losses.lines;
        assert!(lost > 0);
        let mut seen = vec![0; (2000 - lost as usize) * line.len()];
        reader.read_exact(&mut seen).unwrap();
        write_stream(writer.as_fd(), &mut losses, "again\n", false);
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("Warning: {lost} log lines were lost because they could not be written here.\nagain\n"));
    }

    #[test]
    fn a_reader_who_is_gone_ends_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut losses = Losses::default();
        for _ in 0..3 {
            write_stream(writer.as_fd(), &mut losses, "x\n", false);
        }
        assert_eq!(losses.lines, 3);
    }

    #[test]
    fn a_line_longer_than_a_pipe_takes_at_once_is_shortened() {
        let (mut reader, writer) = io::pipe().unwrap();
        let line = format!("{}\n", "ü".repeat(5000));
        write_stream(writer.as_fd(), &mut Losses::default(), &line, false);
        write_stream(writer.as_fd(), &mut Losses::default(), &line, true);
        drop(writer);
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        let lines: Vec<&str> = seen.lines().collect();
        assert!(lines.len() == 2 && lines[0].ends_with("ü… (10001 bytes)") && lines[0].len() < STREAM_LINE_BYTES_MAX);
        assert_eq!(lines[1], r#"{"type":"warning","message":"Warning: a log line of 10001 bytes is too long for this destination."}"#);
    }
}
