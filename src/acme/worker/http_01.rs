//! http-01: answers the CA on the sockets that PID 1 bound, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::acme::exchange::HTTP_01_SOCKET;
use crate::os::inherited;

/// A request's head; what is longer is nobody's challenge.
const HEAD_MAX: usize = 4096;
const DEADLINE: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 64;
const PREFIX: &str = "/.well-known/acme-challenge/";

/// Token → key authorization.
pub(super) type Answers = Arc<Mutex<BTreeMap<String, String>>>;

/// Starts to answer; `Err` when PID 1 gave no socket.
pub(super) fn serve(answers: &Answers) -> Result<(), String> {
    let sockets = sockets();
    if sockets.is_empty() {
        return Err(
            "http-01 needs port 80, and it could not be opened: stop the program that listens there, or use tls-alpn-01 or dns-01".into()
        );
    }
    for socket in sockets {
        let listener = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket)).map_err(|error| error.to_string())?;
        tokio::spawn(accept(listener, Arc::clone(answers)));
    }
    Ok(())
}

fn sockets() -> Vec<std::net::TcpListener> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let last = 3 + number("LISTEN_FDS").unwrap_or(0).min(64) as i32;
    let named = (3..last).zip(names.split(':')).filter(|(_, name)| *name == HTTP_01_SOCKET);
    named.filter_map(|(fd, _)| inherited::take(fd).map(Into::into)).collect()
}

async fn accept(listener: TcpListener, answers: Answers) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(DEADLINE, answer(stream, &answers)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while head.len() < HEAD_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part).await? {
            0 => break,
            count => head.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
    let found = path(&head).and_then(|path| path.strip_prefix(PREFIX)).and_then(|token| {
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(token).cloned()
    });
    let (status, body) = found.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
    let text =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// The path of a GET request.
fn path(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    (words.next()? == "GET").then_some(())?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_has_a_path() {
        assert_eq!(path(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"), Some("/a"));
        assert_eq!(path(b"POST /a HTTP/1.1\r\n\r\n"), None);
        assert_eq!(path(b"\xff\xfe"), None);
    }
}
