//! The listening sockets: bound once by PID 1 (also ports that the broker may not bind) and kept open while the broker restarts, so
//! that connections wait in the backlog instead of being refused.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use socket2::{Domain, Protocol, Socket, Type};

use crate::conf::{Conf, Listener, SocketDomain};
use crate::os;
use crate::os::spawn::Identity;

/// Connections that may wait while the broker restarts; the kernel's own limit (`somaxconn`) caps it.
const BACKLOG: i32 = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a listener could not be opened: one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BindError(String);

#[derive(Default)]
pub(super) struct Listeners {
    bound: Vec<(Place, OwnedFd)>,
}

impl Listeners {
    /// Binds what the configuration wants and is not bound yet, then closes what it wants no more. On error nothing changes.
    pub(super) fn follow(&mut self, conf: &Conf, owner: Option<Identity>) -> Result<(), BindError> {
        let mut fresh = Vec::new();
        let mut kept = Vec::new();
        for listener in &conf.listeners {
            let places = places(listener, conf.local_only)?;
            let mut any = false;
            let mut missing = None;
            for place in &places {
                let old = self.bound.iter().position(|(known, _)| known == place);
                if let Some(index) = old.filter(|index| !kept.contains(index)) {
                    kept.push(index);
                    fresh.push((place.clone(), None));
                    any = true;
                    continue;
                }
                match bind(place, owner) {
                    Ok(fd) => {
                        fresh.push((place.clone(), Some(fd)));
                        any = true;
                    }
                    // A machine without IPv6 (or IPv4) is no error while the other family works.
                    Err(error) if is_family_missing(&error) => missing = Some(refusal(place, &error)),
                    Err(error) => return Err(refusal(place, &error)),
                }
            }
            if let (false, Some(error)) = (any, missing) {
                return Err(error);
            }
        }
        let mut old = std::mem::take(&mut self.bound);
        self.bound = fresh
            .into_iter()
            .filter_map(|(place, fd)| match fd {
                Some(fd) => Some((place, fd)),
                None => old.iter().position(|(known, _)| *known == place).map(|index| old.swap_remove(index)),
            })
            .collect();
        Ok(())
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.bound.iter().map(|(_, fd)| fd.as_fd())
    }

    /// Addresses and paths, for `darner status`.
    pub(super) fn places(&self) -> Vec<String> {
        self.bound.iter().map(|(place, _)| place.to_string()).collect()
    }
}

fn is_family_missing(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL, Errno::EPROTONOSUPPORT].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn refusal(place: &Place, error: &io::Error) -> BindError {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => " Another program listens there: stop it, or change the port in the configuration.",
        io::ErrorKind::PermissionDenied => " Ports below 1024 need root or CAP_NET_BIND_SERVICE; a folder for a socket must be writable.",
        _ => "",
    };
    let reason = error.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default();
    BindError(format!("Error: {reason} (listener {place}).{advice}"))
}

/// Where a listener wants to be, IPv4 first as mosquitto logs it.
fn places(listener: &Listener, local_only: bool) -> Result<Vec<Place>, BindError> {
    if let Some(path) = &listener.unix_path {
        return Ok(vec![Place::Unix(path.clone())]);
    }
    let port = listener.port;
    let addresses: Vec<IpAddr> = match (&listener.host, &listener.bind_interface) {
        (_, Some(interface)) => interface_addresses(interface)?,
        (Some(host), None) => resolve(host, port)?,
        (None, None) if local_only => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        (None, None) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let mut addresses: Vec<_> = addresses
        .into_iter()
        .filter(|address| match listener.socket_domain {
            SocketDomain::Both => true,
            SocketDomain::Ipv4 => address.is_ipv4(),
            SocketDomain::Ipv6 => address.is_ipv6(),
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(BindError(format!("Error: the listener on port {port} has no address in its socket_domain.")));
    }
    Ok(addresses.into_iter().map(|address| Place::Tcp(SocketAddr::new(address, port))).collect())
}

fn resolve(host: &str, port: u16) -> Result<Vec<IpAddr>, BindError> {
    let found = (host, port).to_socket_addrs();
    found.map(|addresses| addresses.map(|address| address.ip()).collect()).map_err(|error| {
        BindError(format!("Error: Unable to open listen socket on port {port}: the address \"{host}\" cannot be resolved ({error})."))
    })
}

fn interface_addresses(interface: &str) -> Result<Vec<IpAddr>, BindError> {
    let all = nix::ifaddrs::getifaddrs().map_err(|error| BindError(format!("Error: the network interfaces cannot be listed: {error}.")))?;
    let found: Vec<_> = all
        .filter(|entry| entry.interface_name == interface)
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            // A link-local address would need the interface's number in it.
            v4.or_else(|| {
                address.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip).filter(|ip| !ip.is_unicast_link_local()).map(IpAddr::from)
            })
        })
        .collect();
    if found.is_empty() {
        return Err(BindError(format!("Error: Interface {interface} does not exist or has no address (bind_interface).")));
    }
    Ok(found)
}

fn bind(place: &Place, owner: Option<Identity>) -> io::Result<OwnedFd> {
    match place {
        Place::Tcp(address) => {
            let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        }
        Place::Unix(path) => {
            os::local_socket::remove_stale(path)?;
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            if let Some(Identity { uid, gid }) = owner {
                // As if the broker had made it.
                let _ = std::os::unix::fs::lchown(path, Some(uid), Some(gid));
            }
            Ok(listener.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_unless_only_this_machine_is_meant() {
        let text = |listener: &Listener, local| places(listener, local).map(|p| p.iter().map(ToString::to_string).collect::<Vec<_>>());
        let any = Listener { port: 1, ..Listener::default() };
        assert_eq!(text(&any, false).ok(), Some(vec!["0.0.0.0:1".to_owned(), "[::]:1".to_owned()]));
        assert_eq!(text(&any, true).ok(), Some(vec!["127.0.0.1:1".to_owned(), "[::1]:1".to_owned()]));
        let v6 = Listener { port: 1, socket_domain: SocketDomain::Ipv6, ..Listener::default() };
        assert_eq!(text(&v6, false).ok(), Some(vec!["[::]:1".to_owned()]));
        let impossible = Listener { host: Some("127.0.0.1".into()), socket_domain: SocketDomain::Ipv6, ..Listener::default() };
        assert!(text(&impossible, false).is_err());
    }

    #[test]
    fn a_listener_that_stays_keeps_its_socket() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let conf = Conf {
            listeners: vec![Listener { port: free, host: Some("127.0.0.1".into()), ..Listener::default() }],
            local_only: false,
            ..Conf::default()
        };
        let mut listeners = Listeners::default();
        listeners.follow(&conf, None).expect("bound");
        let before = os::process::number(&listeners.fds().next().expect("one"));
        listeners.follow(&conf, None).expect("still bound");
        assert_eq!(listeners.fds().map(|fd| os::process::number(&fd)).collect::<Vec<_>>(), [before]);
        listeners.follow(&Conf { listeners: vec![], ..conf }, None).expect("closed");
        assert!(listeners.places().is_empty());
    }
}
