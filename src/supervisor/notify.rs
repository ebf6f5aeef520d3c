//! The notification socket (systemd's sd_notify protocol): the broker says that it is ready and alive.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::os;
use crate::os::local_socket;

/// The longest datagram looked at.
const MESSAGE_BYTES_MAX: usize = 1024;
const STATUS_CHARS_MAX: usize = 400;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Ready,
    Alive,
    Status(String),
    /// Empty when all is well again.
    Ill(String),
}

pub(super) struct Notify {
    socket: UnixDatagram,
    name: String,
}

impl Notify {
    /// An abstract name, which needs no writable folder. The network may be the host's, so senders are checked by their pid.
    pub(super) fn new() -> io::Result<Self> {
        let own = std::process::id();
        let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let space: String = space.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for attempt in 0..16 {
            let name = format!("darner-notify-{space}-{own}-{attempt}");
            match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
                Ok(socket) => {
                    socket.set_nonblocking(true)?;
                    os::fd_passing::tell_sender(&socket)?;
                    return Ok(Self { socket, name: format!("@{name}") });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// For `NOTIFY_SOCKET`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next datagram's messages, if `child` sent it; `None` when none waits.
    pub(super) fn receive(&self, child: Option<i32>) -> Option<Vec<Message>> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let (len, sender) = os::fd_passing::receive_with_sender(&self.socket, &mut buffer).ok()?;
        if child != Some(sender) {
            return Some(Vec::new());
        }
        Some(parse(buffer.get(..len).unwrap_or_default()))
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(STATUS_CHARS_MAX).collect()
}

fn parse(bytes: &[u8]) -> Vec<Message> {
    String::from_utf8_lossy(bytes)
        .lines()
        .filter_map(|line| match line.split_once('=')? {
            ("READY", "1") => Some(Message::Ready),
            ("WATCHDOG", "1") => Some(Message::Alive),
            ("STATUS", text) => Some(Message::Status(shown(text))),
            (local_socket::ILL, text) => Some(Message::Ill(shown(text))),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_lines_count() {
        assert_eq!(parse(b"READY=1\nSTATUS=at\x07 work\nX=1\nWATCHDOG=trigger"), [Message::Ready, Message::Status("at work".into())]);
        assert_eq!(parse(b"WATCHDOG=1"), [Message::Alive]);
        assert_eq!(parse(b"\xff\xfe"), []);
    }

    #[test]
    fn strangers_are_not_heard() {
        let notify = Notify::new().expect("a socket");
        let sender = UnixDatagram::unbound().expect("a socket");
        let address = SocketAddr::from_abstract_name(notify.name().trim_start_matches('@')).expect("a name");
        for _ in 0..2 {
            sender.send_to_addr(b"READY=1", &address).expect("sent");
        }
        assert_eq!(notify.receive(Some(1)), Some(vec![]));
        assert_eq!(notify.receive(Some(std::process::id() as i32)), Some(vec![Message::Ready]));
        assert_eq!(notify.receive(None), None);
    }
}
