//! Opening the Network Connection: TCP with or without TLS, or a unix socket, blocking, perhaps with a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::proxy::Proxy;
use super::tls::TlsStream;
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("the host name {0:?} has no address")]
    Lookup(String),
    #[error("{}", plain(.0))]
    Io(#[from] io::Error),
    /// Half a sentence.
    #[error("{0}")]
    Tls(Box<str>),
    /// Half a sentence: an option or file for TLS is wrong.
    #[error("{0}")]
    TlsOptions(Box<str>),
}

/// The operating system's words alone, without Rust's `(os error N)`.
pub fn plain(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| nix::errno::Errno::from_raw(code).desc().to_owned())
}

/// A connected socket of any kind.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
    Unix(UnixStream),
}

/// How to connect.
#[derive(Debug, Clone, Default)]
pub struct DialOptions {
    /// Local host name or address to connect from.
    pub bind: Option<String>,
    pub no_delay: bool,
    pub proxy: Option<Proxy>,
    /// TLS is spoken on TCP connections.
    pub tls: Option<Arc<ClientConfig>>,
    /// The connection must stand by then; `None` leaves it to the operating system.
    pub until: Option<Instant>,
}

impl Stream {
    /// Connects to the first address of the host that answers.
    pub fn dial(address: &Address, options: &DialOptions) -> Result<Self, DialError> {
        match address {
            Address::Unix(path) => Ok(Self::Unix(UnixStream::connect(path)?)),
            Address::Tcp { host, port } => {
                if let Some(config) = &options.tls {
                    let plain = Self::dial(address, &DialOptions { tls: None, ..options.clone() })?;
                    let Self::Tcp(tcp) = plain else { return Ok(plain) };
                    let started = TlsStream::start(Arc::clone(config), host, tcp, options.until);
                    return started.map(|stream| Self::Tls(Box::new(stream))).map_err(|reason| DialError::Tls(reason.into()));
                }
                if let Some(proxy) = &options.proxy {
                    let direct = DialOptions { proxy: None, ..options.clone() };
                    let mut stream = Self::dial(&Address::Tcp { host: proxy.host.clone(), port: proxy.port }, &direct)?;
                    proxy.ask(&mut stream, host, *port)?;
                    return Ok(stream);
                }
                let lookup = |name: &str, port| -> Result<Vec<SocketAddr>, DialError> {
                    (name, port).to_socket_addrs().map(Iterator::collect).map_err(|_| DialError::Lookup(name.to_owned()))
                };
                let from = options.bind.as_deref().map(|name| lookup(name, 0)).transpose()?;
                let mut last = DialError::Lookup(host.clone());
                for to in lookup(host, *port)? {
                    match connect(to, from.as_deref(), options) {
                        Ok(stream) => return Ok(Self::Tcp(stream)),
                        Err(error) => last = DialError::Io(error),
                    }
                }
                Err(last)
            }
        }
    }

    pub fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Tls(stream) => stream.tcp.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// Whether bytes that were written wait for the socket to take them.
    pub fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.wants_write())
    }

    /// Whether a read may have left bytes behind that `poll` does not see: those of a TLS record.
    pub fn may_hold_bytes(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Tls(stream) => {
                stream.finish();
                stream.tcp.shutdown(std::net::Shutdown::Write)
            }
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
    }
}

fn connect(to: SocketAddr, from: Option<&[SocketAddr]>, options: &DialOptions) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        let mut bound = Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        for local in from.iter().filter(|local| local.is_ipv4() == to.is_ipv4()) {
            bound = socket.bind(&(*local).into());
            if bound.is_ok() {
                break;
            }
        }
        bound?;
    }
    if options.no_delay {
        socket.set_tcp_nodelay(true)?;
    }
    match options.until {
        Some(until) => {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            socket.connect_timeout(&to.into(), left)?;
        }
        None => socket.connect(&to.into())?,
    }
    Ok(socket.into())
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush(),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.tcp.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
