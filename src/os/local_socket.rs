//! The two private sockets of a running supervisor: how they are named, bound and found again by the container's other commands.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::process;

/// What the health check asks over the control socket: the answer is an exit code, a newline and text.
pub const ASK_HEALTH: &str = "health";

/// What the broker says over the notification socket when it is ill: a sentence, or nothing when that is over.
pub const ILL: &str = "X_DARNER_ILL";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `darner reload`, `restart`, `status` talk to PID 1.
    Control,
    /// The broker's private MQTT listener, for the health check.
    Health,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Health => "health",
        }
    }
}

/// Where the sockets are files because we are not PID 1 of a container: `$DARNER_RUN_DIR`, else `./darner-data`.
pub fn run_folder() -> PathBuf {
    std::env::var_os("DARNER_RUN_DIR").filter(|folder| !folder.is_empty()).map_or_else(|| PathBuf::from("darner-data"), PathBuf::from)
}

/// `darner-control-4026531836`: abstract, so that a read-only container has it, and keyed by the pid namespace, so that containers
/// which share a network do not meet.
fn abstract_address(kind: Kind) -> io::Result<SocketAddr> {
    let link = std::fs::read_link("/proc/self/ns/pid")?;
    let digits: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    SocketAddr::from_abstract_name(format!("darner-{}-{digits}", kind.name()))
}

fn path(kind: Kind) -> PathBuf {
    run_folder().join(format!("{}.sock", kind.name()))
}

/// Binds one of the sockets and says where: `@name`, or a path.
pub fn listen(kind: Kind) -> io::Result<(UnixListener, String)> {
    if process::is_pid_1() {
        return listen_abstract(kind);
    }
    match listen_path(&path(kind)) {
        Ok(listener) => Ok((listener, path(kind).display().to_string())),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // No folder to write in: a container with an init of its own and a read-only root.
        Err(_) => listen_abstract(kind),
    }
}

fn listen_abstract(kind: Kind) -> io::Result<(UnixListener, String)> {
    let address = abstract_address(kind)?;
    let listener = UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    let name = address.as_abstract_name().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    Ok((listener, format!("@{name}")))
}

fn listen_path(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes a socket file that nobody listens on any more. `AddrInUse` when somebody does, or when it is not a socket.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.file_type().is_socket() && UnixStream::connect(path).is_err() => std::fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Connects to a running supervisor's socket: that of our pid namespace, else that of the run folder.
pub fn find(kind: Kind) -> io::Result<UnixStream> {
    if let Ok(stream) = abstract_address(kind).and_then(|address| UnixStream::connect_addr(&address)) {
        // Somebody outside of the container may sit on the name where the network is the host's; he has no pid here.
        if process::peer(&stream)?.pid != 0 {
            return Ok(stream);
        }
    }
    UnixStream::connect(path(kind))
}

/// Removes the socket's file, if it is one.
pub fn forget(kind: Kind) {
    if !process::is_pid_1() {
        let _ = std::fs::remove_file(path(kind));
    }
}
