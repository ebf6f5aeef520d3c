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
    /// That somebody else has it for IPv6.
    is_said: bool,
}

impl ChallengePort {
    /// Binds both families; what does not work is said and tried again at the next order.
    pub(super) fn bind(&mut self, port: u16, voice: &Voice) {
        self.port = port;
        if let Err(text) = self.occupy(false, voice) {
            voice.say(LogType::Error, &format!("Error: {text}. Until then no certificate can be obtained or renewed."));
        }
    }

    /// Sockets are made anew each time: connections to one that was shut down and listens again would begin at their end.
    fn occupy(&mut self, listens: bool, voice: &Voice) -> Result<(), String> {
        let port = self.port;
        self.sockets.clear();
        let mut result = Ok(());
        for address in [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)] {
            let error = match socket(SocketAddr::new(address, port), listens) {
                Ok(socket) => {
                    self.sockets.push(socket);
                    continue;
                }
                Err(error) => error,
            };
            let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another program has it: stop it, or set ACME_CHALLENGE",
                std::io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
                _ => "set ACME_HTTP_PORT or ACME_CHALLENGE",
            };
            if result.is_err() || (address.is_ipv6() && !is_taken && !self.sockets.is_empty()) {
                // Said of the other family, or there is no IPv6 here.
            } else if address.is_ipv6() {
                let text = format!(
                    "Warning: port {port} cannot be bound for http-01 over IPv6 ({error}): {advice}, if the name has an AAAA record; the CA goes there first."
                );
                if !std::mem::replace(&mut self.is_said, true) {
                    voice.say(LogType::Warning, &text);
                }
            } else {
                result = Err(format!("port {port} cannot be bound for http-01 ({error}): {advice}"));
            }
        }
        result
    }

    /// Listens.
    ///
    /// # Errors
    /// Why nobody would be answered, as a sentence without its end.
    pub(super) fn open(&mut self, voice: &Voice) -> Result<(), String> {
        if self.port == 0 { Ok(()) } else { self.occupy(true, voice) }
    }

    /// What the worker is to have.
    pub(super) fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.as_fd()).collect()
    }

    /// Refuses whoever knocks; the port stays ours. What does not work is said at the next order.
    pub(super) fn close(&mut self, voice: &Voice) {
        if self.port != 0 {
            let _ = self.occupy(false, voice);
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
            ours.open(&voice).expect("ours");
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
        assert!(unlucky.open(&voice).is_err_and(|text| text.contains("another program has it")));
        drop(other);
        unlucky.open(&voice).expect("freed");
    }

    #[test]
    fn a_port_that_is_taken_for_ipv6_only_is_good_enough_for_ipv4() {
        let other = socket("[::]:0".parse().expect("an address"), true).expect("a port");
        let port = other.local_addr().ok().and_then(|address| address.as_socket()).expect("an address").port();
        let mut ours = ChallengePort::default();
        ours.bind(port, &Voice::default());
        ours.open(&Voice::default()).expect("IPv4 is free");
        assert_eq!(ours.sockets().len(), 1);
        std::net::TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    }
}
