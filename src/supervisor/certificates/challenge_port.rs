//! The sockets on which http-01 is answered. They are bound at the start, so that trouble shows on the first day, and listen only while
//! the worker runs: in between, whoever knocks is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::super::voice::Voice;
use crate::logging::LogType;

const BACKLOG: i32 = 64;

#[derive(Default)]
pub(super) struct ChallengePort {
    port: u16,
    sockets: Vec<Socket>,
}

impl ChallengePort {
    /// Binds both families; what does not work is said and tried again at the next order.
    pub(super) fn bind(&mut self, port: u16, voice: &Voice) {
        self.port = port;
        self.occupy(false, voice);
    }

    /// Sockets are made anew each time: connections to one that was shut down and listens again would begin at their end.
    fn occupy(&mut self, listens: bool, voice: &Voice) {
        let port = self.port;
        self.sockets.clear();
        for address in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
            match socket(SocketAddr::new(address, port), listens) {
                Ok(socket) => self.sockets.push(socket),
                Err(error) if address.is_ipv6() && error.kind() != std::io::ErrorKind::AddrInUse && !self.sockets.is_empty() => {}
                Err(error) => {
                    let advice = match error.kind() {
                        std::io::ErrorKind::AddrInUse => "another program has it: stop it, or set ACME_CHALLENGE",
                        std::io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
                        _ => "set ACME_HTTP_PORT or ACME_CHALLENGE",
                    };
                    let text = format!(
                        "Error: port {port} cannot be bound for http-01 ({error}): {advice}. Until then no certificate can be obtained or renewed."
                    );
                    voice.say(LogType::Error, &text);
                }
            }
        }
    }

    /// Listens, and returns what the worker is to have.
    pub(super) fn open(&mut self, voice: &Voice) -> Vec<BorrowedFd<'_>> {
        if self.port != 0 {
            self.occupy(true, voice);
        }
        self.sockets.iter().map(|socket| socket.as_fd()).collect()
    }

    /// Refuses whoever knocks; the port stays ours.
    pub(super) fn close(&mut self, voice: &Voice) {
        if !self.sockets.is_empty() {
            self.occupy(false, voice);
        }
    }
}

fn socket(address: SocketAddr, listens: bool) -> std::io::Result<Socket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Two that only bind do not collide; two that listen do.
    socket.listen(BACKLOG)?;
    if !listens {
        socket.shutdown(Shutdown::Read)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_kept_refuses_and_opens_again() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let voice = Voice::default();
        let mut ours = ChallengePort::default();
        ours.bind(port, &voice);
        let knock = || std::net::TcpStream::connect(("127.0.0.1", port));
        for _ in 0..2 {
            assert!(knock().is_err());
            assert!(!ours.open(&voice).is_empty());
            let mut knocking = knock().expect("it listens");
            // Who connects has time to speak.
            let heard = ours.sockets.first().and_then(|socket| socket.accept().ok()).expect("a connection").0;
            heard.set_nonblocking(true).expect("a socket");
            let mut part = [std::mem::MaybeUninit::uninit(); 4];
            assert!(heard.recv(&mut part).is_err(), "not at its end yet");
            std::io::Write::write_all(&mut knocking, b"GET").expect("sent");
            ours.close(&voice);
        }
        assert!(knock().is_err());
        // Taken by somebody else: said, and nothing worse.
        let other = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
        let mut unlucky = ChallengePort::default();
        unlucky.bind(other.local_addr().expect("an address").port(), &voice);
        assert!(unlucky.open(&voice).len() < 2);
    }
}
