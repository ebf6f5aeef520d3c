//! The side of the service manager: `NOTIFY_SOCKET` and the watchdog as systemd defines them, and the control socket of `darner`'s own
//! PID 1, over which files come as one generation.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, SockType, getsockopt, send, sockopt};

use super::connections::register;
use crate::conf::files::Generation;
use crate::os::inherited;
use crate::os::local_socket::ILL;

/// Where to say how the service is; says nothing where nobody asked.
pub(super) struct Notify(Option<UnixDatagram>);

impl Notify {
    pub(super) fn from_environment() -> Self {
        let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return Self(None) };
        let connect = || -> io::Result<UnixDatagram> {
            let address = match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&name)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            // A service manager that does not read must not stop the broker.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Self(connect().ok())
    }

    pub(super) fn say(&self, state: &str) {
        if let Some(socket) = &self.0 {
            let _ = socket.send(state.as_bytes());
        }
    }

    /// Tells that the broker is ill, and what with; an empty `text` is the end of that.
    pub(super) fn ill(&self, text: &str) {
        self.say(&format!("STATUS={text}\n{ILL}={text}"));
    }

    pub(super) fn try_clone(&self) -> Self {
        Self(self.0.as_ref().and_then(|socket| socket.try_clone().ok()))
    }

    /// How often to say `WATCHDOG=1`: twice in the time after which silence means that the broker is stuck.
    pub(super) fn watchdog_interval(&self) -> Option<Duration> {
        self.0.as_ref()?;
        let for_us = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (for_us && micros > 0).then(|| Duration::from_micros(micros / 2))
    }
}

/// The socket to PID 1.
pub(super) struct Control(OwnedFd);

/// A message from PID 1.
pub(super) struct Order {
    pub(super) word: String,
    pub(super) files: Generation,
}

impl Control {
    /// From `DARNER_CONTROL_FD`; `None` without a supervisor.
    pub(super) fn from_environment() -> Option<Result<Self, String>> {
        let text = std::env::var("DARNER_CONTROL_FD").ok()?;
        let fd = text.parse().ok().and_then(inherited::take);
        let fd = fd.filter(|fd| getsockopt(fd, sockopt::SockType) == Ok(SockType::SeqPacket));
        Some(fd.map(Self).ok_or_else(|| {
            format!(
                "Error: DARNER_CONTROL_FD is {text}, which is not an open socket of kind SOCK_SEQPACKET; only darner's own PID 1 sets it."
            )
        }))
    }

    /// The generation that was sent before we were started. Empty when there is none: then the disk is read.
    pub(super) fn first(&self) -> io::Result<Generation> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(order) => Ok(order.ok_or(io::ErrorKind::UnexpectedEof)?.files),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Generation::default()),
            Err(error) => Err(error),
        }
    }

    /// `None`: PID 1 has gone.
    fn receive(&self, flags: MsgFlags) -> io::Result<Option<Order>> {
        let mut buffer = [0; 256];
        let (len, file) = inherited::receive(&self.0, &mut buffer, flags)?;
        if len == 0 {
            return Ok(None);
        }
        let word = String::from_utf8_lossy(buffer.get(..len).unwrap_or_default()).into_owned();
        let mut bytes = Vec::new();
        if let Some(file) = file {
            File::from(file).read_to_end(&mut bytes)?;
        }
        let files = Generation::from_bytes(&bytes).ok_or_else(|| io::Error::other("the archive of files is damaged"))?;
        Ok(Some(Order { word, files }))
    }

    pub(super) fn answer(&self, line: &str) {
        let _ = send(self.0.as_raw_fd(), line.as_bytes(), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    }

    /// Calls `obey` for each order until PID 1 closes its end. Answers are sent by `obey`'s result.
    pub(super) async fn obey_forever(self, obey: impl Fn(Order) -> Result<(), String>) {
        let Ok(Ok(socket)) = self.0.try_clone().map(register) else { return };
        loop {
            let Ok(mut ready) = socket.readable().await else { return };
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Ok(Some(order)) => match obey(order) {
                    Ok(()) => self.answer("OK"),
                    Err(line) => self.answer(&format!("REFUSED {line}")),
                },
                Ok(None) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => self.answer(&format!("REFUSED {error}")),
            }
        }
    }
}
