//! The control socket: `darner reload`, `restart` and `status` ask, PID 1 answers.
//!
//! One word and a newline go in; out come the asker's exit code, a newline, and text until the end.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::machine::Millis;
use crate::exit_code::ExitCode;
use crate::os;

const REQUEST_BYTES_MAX: usize = 64;
/// Askers that may wait at once; more are refused.
const ASKERS_MAX: usize = 16;
/// A word must arrive within this time.
const REQUEST_LIMIT: Millis = 2_000;
/// An answer that takes longer than this is given up.
const ANSWER_LIMIT: Millis = 15_000;
/// A CA takes longer; its worker is killed before this.
pub(super) const CERTIFICATE_LIMIT: Millis = 660_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Reload,
    Restart,
    Status,
    /// Does the broker keep what it is given, and are the certificates that are served good?
    Health,
    Renew(Renew),
}

/// What `darner cert renew` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renew {
    IfDue,
    Force,
    /// From the CA's test server where there is one; nothing is switched.
    DryRun,
}

/// The words, once for both ends.
pub(super) const WORDS: &[(&str, Request)] = &[
    ("reload", Request::Reload),
    ("restart", Request::Restart),
    ("status", Request::Status),
    (os::local_socket::ASK_HEALTH, Request::Health),
    ("renew", Request::Renew(Renew::IfDue)),
    ("renew-force", Request::Renew(Renew::Force)),
    ("renew-dry-run", Request::Renew(Renew::DryRun)),
];

/// What an asker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    Word,
    /// The verdict of the reload with this number, or a later one.
    Verdict(u64),
    /// A child that was started after the one with this pid, and is ready.
    ReadyAfter(Option<i32>),
    /// The outcome of the attempt to get a certificate.
    Certificate,
}

impl Waits {
    fn limit(self) -> Millis {
        match self {
            Self::Word => REQUEST_LIMIT,
            Self::Verdict(_) | Self::ReadyAfter(_) => ANSWER_LIMIT,
            Self::Certificate => CERTIFICATE_LIMIT,
        }
    }
}

struct Asker {
    stream: UnixStream,
    word: Vec<u8>,
    waits: Waits,
    since: Millis,
}

pub(super) struct Control {
    listener: UnixListener,
    name: String,
    askers: Vec<Asker>,
}

impl Control {
    pub(super) fn new() -> io::Result<Self> {
        let (listener, name) = os::local_socket::listen(os::local_socket::Kind::Control)?;
        Ok(Self { listener, name, askers: Vec::new() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let words = self.askers.iter().filter(|asker| asker.waits == Waits::Word).map(|asker| asker.stream.as_fd());
        [self.listener.as_fd()].into_iter().chain(words)
    }

    /// Handles input on one of [`Self::fds`]; a whole word comes back with the number to answer it by.
    pub(super) fn readable(&mut self, fd: RawFd, now: Millis, permitted: impl Fn(u32) -> bool) -> Option<(usize, Request)> {
        if fd == os::process::number(&self.listener) {
            while let Ok((stream, _)) = self.listener.accept() {
                self.welcome(stream, now, &permitted);
            }
            return None;
        }
        let index = self.askers.iter().position(|asker| os::process::number(&asker.stream) == fd && asker.waits == Waits::Word)?;
        match self.askers.get_mut(index)?.read() {
            Ok(Some(word)) => match WORDS.iter().find(|(known, _)| *known == word) {
                Some((_, request)) => return Some((index, *request)),
                None => self.answer(index, ExitCode::Usage, "unknown request"),
            },
            Ok(None) => {}
            Err(_) => drop(self.askers.remove(index)),
        }
        None
    }

    /// Only processes of this container (the kernel shows no pid for others), and only root, ourselves and the broker's user.
    fn welcome(&mut self, stream: UnixStream, now: Millis, permitted: &impl Fn(u32) -> bool) {
        let known = os::process::peer(&stream).is_ok_and(|peer| peer.pid != 0 && permitted(peer.uid));
        if known && self.askers.len() < ASKERS_MAX && stream.set_nonblocking(true).is_ok() {
            self.askers.push(Asker { stream, word: Vec::new(), waits: Waits::Word, since: now });
        }
    }

    /// Lets an asker wait for something.
    pub(super) fn wait(&mut self, index: usize, waits: Waits, now: Millis) {
        if let Some(asker) = self.askers.get_mut(index) {
            asker.waits = waits;
            asker.since = now;
        }
    }

    /// Answers and forgets one asker.
    pub(super) fn answer(&mut self, index: usize, code: ExitCode, text: &str) {
        if index < self.askers.len() {
            let mut asker = self.askers.remove(index);
            // An answer fits into the socket's buffer; an asker that is gone does not matter.
            let _ = asker.stream.write_all(format!("{}\n{text}\n", code.code()).as_bytes());
        }
    }

    /// Answers everybody whose wait `is_over`.
    pub(super) fn answer_all(&mut self, code: ExitCode, text: &str, is_over: impl Fn(Waits) -> bool) {
        while let Some(index) = self.askers.iter().position(|asker| asker.waits != Waits::Word && is_over(asker.waits)) {
            self.answer(index, code, text);
        }
    }

    /// Drops those who do not say their word, and answers those who waited too long.
    pub(super) fn expire(&mut self, now: Millis) {
        self.askers.retain(|asker| asker.waits != Waits::Word || now.saturating_sub(asker.since) < REQUEST_LIMIT);
        while let Some(index) = self.askers.iter().position(|asker| now.saturating_sub(asker.since) >= asker.waits.limit()) {
            self.answer(index, ExitCode::Failure, "no answer in time; see the log");
        }
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.askers.iter().map(|asker| asker.since + asker.waits.limit()).min()
    }
}

impl Asker {
    fn read(&mut self) -> io::Result<Option<String>> {
        let mut buffer = [0; REQUEST_BYTES_MAX];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => self.word.extend(buffer.iter().take(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        if self.word.len() > REQUEST_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let word = self.word.strip_suffix(b"\n");
        Ok(word.map(|word| String::from_utf8_lossy(word).into_owned()))
    }
}
