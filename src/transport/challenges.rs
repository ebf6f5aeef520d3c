//! A CA that checks a name by tls-alpn-01 knocks at a TLS listener: it is recognised before a byte of it is taken, so that nobody else notices.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use nix::sys::socket::{MsgFlags, recv};
use rustls::ServerConfig;
use tokio::io::Interest;

use super::connections::Socket;
use crate::tls::CHALLENGES_VARIABLE;
use crate::tls::challenge::{self, Hello, RECORD_BYTES_MAX};

/// Where the ACME worker leaves `NAME.pem`; only with `ACME_CHALLENGE=tls-alpn-01` is there such a folder.
static FOLDER: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os(CHALLENGES_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from));

/// A certificate and a key take some 1 KB.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// What the CA is to be shown; `None` for everybody else.
///
/// # Errors
/// The connection has ended.
pub(super) async fn asked(socket: &Socket) -> io::Result<Option<Arc<ServerConfig>>> {
    let Some(folder) = FOLDER.as_deref() else { return Ok(None) };
    let mut buffer = vec![0; 2048];
    let mut seen = 0;
    loop {
        match peek(socket, &mut buffer, seen) {
            Ok(count) => seen = count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                drop(socket.readable().await?);
                continue;
            }
            Err(error) => return Err(error),
        }
        match challenge::hello(buffer.get(..seen).unwrap_or_default()) {
            Hello::Incomplete if seen == buffer.len() && seen < RECORD_BYTES_MAX => buffer.resize(RECORD_BYTES_MAX, 0),
            Hello::Incomplete => {}
            Hello::Client => return Ok(None),
            Hello::Challenge(name) => return Ok(certificate(folder.join(file(&name))).and_then(|pem| challenge::server(&pem))),
        }
    }
}

/// A stranger's word as a file's name.
fn file(name: &str) -> OsString {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let plain: String = name.chars().filter(|c| is_plain(*c)).collect();
    format!("{}.pem", plain.trim_start_matches('.')).into()
}

fn certificate(path: PathBuf) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// What the socket holds, if it is more than `seen`.
fn peek(socket: &Socket, buffer: &mut [u8], seen: usize) -> io::Result<usize> {
    socket.try_io(Interest::READABLE, |fd| match recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        // The loop wakes us when there is more.
        count if count <= seen && seen < buffer.len() => Err(io::ErrorKind::WouldBlock.into()),
        count => Ok(count),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(file("a.test"), "a.test.pem");
        assert_eq!(file("../../etc/passwd"), "etcpasswd.pem");
    }
}
