//! Listening sockets: our own, or those that a supervisor bound and left open for us.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::broker::Origin;
use crate::conf::{Conf, Listener, SocketDomain};
use crate::notice::Notice;
use crate::os::inherited;

/// Connections that the kernel keeps until we accept them.
const BACKLOG: i32 = 1024;

pub(super) struct Listening {
    pub(super) socket: OwnedFd,
    pub(super) origin: Origin,
}

/// What is open, and what to say about it. Kept apart because sockets are bound before the log is.
#[derive(Default)]
pub(super) struct Bound {
    pub(super) listening: Vec<Listening>,
    pub(super) notices: Vec<Notice>,
}

/// Opens every listener: inherited where there is a socket for it, else bound here.
pub(super) fn open(conf: &Conf, mut inherited: Vec<Inherited>) -> (Bound, Result<(), String>) {
    let mut bound = Bound::default();
    for socket in inherited.extract_if(.., |socket| socket.name == "health") {
        bound.listening.push(Listening { socket: socket.fd, origin: Origin::Private });
    }
    for (index, listener) in conf.listeners.iter().enumerate() {
        let mine: Vec<_> = inherited.extract_if(.., |socket| socket.is_for(listener, conf.local_only)).collect();
        let result = match &listener.unix_path {
            _ if !mine.is_empty() => {
                for socket in mine {
                    bound.notices.push(socket.notice(listener));
                    bound.listening.push(Listening { socket: socket.fd, origin: Origin::Listener(index) });
                }
                Ok(())
            }
            Some(path) => bind_unix(path, index, &mut bound),
            None => bind_tcp(listener, conf.local_only, index, &mut bound),
        };
        if let Err(reason) = result {
            return (bound, Err(reason));
        }
    }
    (bound, Ok(()))
}

fn bind_unix(path: &Path, index: usize, bound: &mut Bound) -> Result<(), String> {
    bound.notices.push(Notice::OpeningUnixListener { path: path.display().to_string() });
    // Only a socket is removed; any other file in its place is somebody's data.
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        let _ = std::fs::remove_file(path);
    }
    let open = || -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        listen(socket)
    };
    let socket = open().map_err(|error| format!("Error: Unable to listen on unix socket {}: {error}.", path.display()))?;
    bound.listening.push(Listening { socket, origin: Origin::Listener(index) });
    Ok(())
}

fn bind_tcp(listener: &Listener, local_only: bool, index: usize, bound: &mut Bound) -> Result<(), String> {
    let port = listener.port;
    let addresses = addresses(listener, local_only).map_err(|error| {
        format!("Error: Unable to resolve {} of listener {port}: {error}.", listener.host.as_deref().unwrap_or_default())
    })?;
    let mut last = None;
    let mut opened = false;
    for address in addresses {
        let family = family(address);
        match bind_one(listener, address) {
            Ok(socket) => {
                opened = true;
                bound.notices.push(Notice::OpeningListener { family, port });
                bound.listening.push(Listening { socket, origin: Origin::Listener(index) });
            }
            // A machine without IPv6 is none of the user's faults.
            Err(error) if address.is_ipv6() && is_absent(&error) => last = last.or(Some((address, error))),
            Err(error) => {
                bound.notices.push(Notice::OpeningListener { family, port });
                return Err(refused(listener, address, &error));
            }
        }
    }
    match (opened, last) {
        (true, _) => Ok(()),
        (false, Some((address, error))) => Err(refused(listener, address, &error)),
        (false, None) => Err(format!("Error: No address of listener {port} is of the family that socket_domain asks for.")),
    }
}

fn refused(listener: &Listener, address: SocketAddr, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or the capability NET_BIND_SERVICE".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address".to_owned(),
        _ => listener
            .bind_interface
            .as_ref()
            .map_or_else(|| "see the option listener".to_owned(), |name| format!("bind_interface is {name}")),
    };
    let reason = error.raw_os_error().map_or_else(|| error.to_string(), |errno| nix::errno::Errno::from_raw(errno).desc().to_owned());
    format!("Error: {reason} ({address}: {hint}).")
}

fn is_absent(error: &io::Error) -> bool {
    use nix::errno::Errno;
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EPROTONOSUPPORT))
}

fn family(address: SocketAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

fn addresses(listener: &Listener, local_only: bool) -> io::Result<Vec<SocketAddr>> {
    let port = listener.port;
    let mut addresses = match &listener.host {
        None if local_only => vec![(IpAddr::from(Ipv4Addr::LOCALHOST), port).into(), (IpAddr::from(Ipv6Addr::LOCALHOST), port).into()],
        None => vec![(IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into(), (IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into()],
        Some(host) => (host.as_str(), port).to_socket_addrs()?.collect(),
    };
    addresses.retain(|address: &SocketAddr| match listener.socket_domain {
        SocketDomain::Both => true,
        SocketDomain::Ipv4 => address.is_ipv4(),
        SocketDomain::Ipv6 => address.is_ipv6(),
    });
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    Ok(addresses)
}

fn bind_one(listener: &Listener, address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(interface) = &listener.bind_interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    listen(socket)
}

fn listen(socket: Socket) -> io::Result<OwnedFd> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A socket from `LISTEN_FDS`.
pub(super) struct Inherited {
    fd: OwnedFd,
    name: String,
    address: Option<SockAddr>,
}

impl Inherited {
    /// All that are meant for this process; `LISTEN_PID` says whether.
    pub(super) fn all() -> Vec<Self> {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Vec::new();
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        // The protocol's first descriptor is 3. More than a thousand listeners is nobody's configuration.
        let last = 3 + number("LISTEN_FDS").unwrap_or(0).min(1024) as i32;
        let taken = (3..last).filter_map(|fd| {
            let name = names.next().unwrap_or_default().to_owned();
            let fd = inherited::take(fd)?;
            let flags = fcntl(&fd, FcntlArg::F_GETFL).ok()?;
            fcntl(&fd, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK)).ok()?;
            let address = SockRef::from(&fd).local_addr().ok();
            Some(Self { fd, name, address })
        });
        taken.collect()
    }

    fn is_for(&self, listener: &Listener, local_only: bool) -> bool {
        let Some(address) = &self.address else { return false };
        match (&listener.unix_path, address.as_socket()) {
            (Some(path), None) => address.as_pathname() == Some(path),
            // The supervisor binds the addresses that the interface had when it looked.
            (None, Some(address)) if listener.bind_interface.is_some() => address.port() == listener.port,
            (None, Some(address)) => addresses(listener, local_only).is_ok_and(|wanted| wanted.contains(&address)),
            _ => false,
        }
    }

    fn notice(&self, listener: &Listener) -> Notice {
        match self.address.as_ref().and_then(SockAddr::as_socket) {
            Some(address) => Notice::OpeningListener { family: family(address), port: address.port() },
            None => {
                Notice::OpeningUnixListener { path: listener.unix_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default() }
            }
        }
    }
}

/// Who is at the other end, as logged.
pub(super) fn peer_name(socket: &OwnedFd, conf: &Conf, origin: &Origin) -> String {
    match SockRef::from(socket).peer_addr().ok().and_then(|address| address.as_socket()) {
        Some(address) => format!("{}:{}", address.ip().to_canonical(), address.port()),
        None => match origin {
            Origin::Listener(index) => {
                let path = conf.listeners.get(*index).and_then(|listener| listener.unix_path.as_ref());
                path.map(|path| path.display().to_string()).unwrap_or_default()
            }
            Origin::Private => String::new(),
        },
    }
}

/// A new connection's socket, ready for the loop: closed on exec, not blocking, without Nagle's delay (the driver writes once a turn).
pub(super) fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let (socket, _) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    // Fails on a unix socket, which has no such delay.
    let _ = socket.set_tcp_nodelay(true);
    Ok(socket.into())
}
