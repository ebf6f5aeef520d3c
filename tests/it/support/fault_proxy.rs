//! A proxy before Pebble that does what Pebble lacks: renewal information and `replaces` (RFC 9773), rate limits, and answers that go wrong.
//! It speaks TLS to both sides, one request on a connection, and keeps `Host`, of which Pebble makes its addresses.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The CA never hears of it; this is the answer: status, headers, body.
    Instead(u16, Vec<(&'static str, String)>, String),
    /// The CA never hears of it, and the connection is closed.
    Refused,
    /// The CA has done it, and the connection is closed without an answer.
    Unanswered,
    /// Its answer ends after so many bytes of the body.
    Truncated(usize),
    /// Its answer comes byte by byte, with so much time between.
    Dripping(Duration),
    /// Its answer has this body instead.
    Body(String),
    /// Its answer lacks this field of its JSON.
    Without(&'static str),
    /// There is never an answer.
    Silent,
    /// The nonce is refused.
    BadNonce,
}

impl Fault {
    /// The CA's problem document of this type, with `Retry-After`.
    pub fn problem(status: u16, kind: &str, detail: &str, retry_after: Option<&str>) -> Self {
        let mut headers = vec![("Content-Type", "application/problem+json".to_owned())];
        headers.extend(retry_after.map(|value| ("Retry-After", value.to_owned())));
        let body = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status });
        Self::Instead(status, headers, body.to_string())
    }

    /// What a load balancer says.
    pub fn page(status: u16, retry_after: Option<&str>) -> Self {
        let mut headers = vec![("Content-Type", "text/html".to_owned())];
        headers.extend(retry_after.map(|value| ("Retry-After", value.to_owned())));
        Self::Instead(status, headers, "<html><h1>Service busy; retry later.</h1></html>".to_owned())
    }
}

/// What somebody asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    /// Of its JWS.
    pub payload: Value,
}

/// What renewal information says: the window in seconds since 1970, and `Retry-After`.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub window: (i64, i64),
    pub retry_after: Option<String>,
}

#[derive(Default)]
struct State {
    /// Path's beginning, times left, what happens.
    faults: Vec<(&'static str, usize, Fault)>,
    asked: Vec<Asked>,
    wish: Option<Wish>,
    replaced: Vec<String>,
}

pub struct FaultProxy {
    port: u16,
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
}

struct Upstream {
    port: u16,
    tls: Arc<ClientConfig>,
}

struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl FaultProxy {
    /// In front of the CA on `port`; `folder` holds the `server.pem`, `server.key` and `ca.pem` of both.
    pub fn start(folder: &Path, port: u16) -> Self {
        let read = |name| std::fs::read(folder.join(name)).expect("a file of the CA");
        let chain = CertificateDer::pem_slice_iter(&read("server.pem")).map(|each| each.expect("a certificate")).collect();
        let key = PrivateKeyDer::from_pem_slice(&read("server.key")).expect("a key");
        let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions");
        let server = Arc::new(versions.with_no_client_auth().with_single_cert(chain, key).expect("a pair"));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&read("ca.pem")).expect("a root")).expect("added");
        let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("versions");
        let upstream = Arc::new(Upstream { port, tls: Arc::new(versions.with_root_certificates(roots).with_no_client_auth()) });

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Self { port: listener.local_addr().expect("an address").port(), state: Arc::default(), ended: Arc::default() };
        let (state, ended) = (Arc::clone(&proxy.state), Arc::clone(&proxy.ended));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !ended.load(Ordering::Relaxed)) {
                let (state, server, upstream) = (Arc::clone(&state), Arc::clone(&server), Arc::clone(&upstream));
                std::thread::spawn(move || {
                    let Ok(session) = ServerConnection::new(server) else { return };
                    let mut client = StreamOwned::new(session, stream);
                    // A client that goes away is no matter.
                    let _ = serve(&mut client, &state, &upstream);
                });
            }
        });
        proxy
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// The next `times` requests to paths that begin so meet with a fault. Those that were said first come first.
    pub fn spoil(&self, path: &'static str, times: usize, fault: Fault) {
        lock(&self.state).faults.push((path, times, fault));
    }

    /// From now on everything is as the CA does it.
    pub fn heal(&self) {
        lock(&self.state).faults.clear();
    }

    /// From now on the directory names renewal information.
    pub fn wish(&self, window: (i64, i64), retry_after: Option<&str>) {
        lock(&self.state).wish = Some(Wish { window, retry_after: retry_after.map(str::to_owned) });
    }

    /// What was asked of paths that begin so.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        lock(&self.state).asked.iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

type Client = StreamOwned<ServerConnection, TcpStream>;

fn serve(client: &mut Client, state: &Mutex<State>, upstream: &Upstream) -> std::io::Result<()> {
    let (head, body) = message(client)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let payload = payload(&body);
    lock(state).asked.push(Asked { path: path.clone(), payload: payload.clone() });
    let fault = next_fault(state, &path);
    match fault {
        Some(Fault::Instead(status, headers, body)) => {
            let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            return send(client, &Answer { status: status.to_string(), headers, body: body.into_bytes() }, None);
        }
        Some(Fault::Refused) => return Ok(()),
        Some(Fault::Silent) => {
            // Until the client has had enough.
            let _ = client.read(&mut [0]);
            return Ok(());
        }
        Some(Fault::BadNonce) => return send(client, &bad_nonce(upstream, &head)?, None),
        _ => {}
    }
    let answer = match own_answer(state, &path, &payload) {
        Some(answer) => answer,
        None => amended(state, &path, &payload, ask(upstream, &method, &path, &head, &body)?),
    };
    match fault {
        Some(Fault::Unanswered) => Ok(()),
        Some(Fault::Body(body)) => send(client, &Answer { body: body.into_bytes(), ..answer }, None),
        Some(Fault::Without(field)) => {
            let mut json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            json.as_object_mut().and_then(|object| object.remove(field));
            send(client, &Answer { body: json.to_string().into_bytes(), ..answer }, None)
        }
        fault => send(client, &answer, fault),
    }
}

fn next_fault(state: &Mutex<State>, path: &str) -> Option<Fault> {
    let mut state = lock(state);
    let (_, left, fault) = state.faults.iter_mut().find(|(start, left, _)| path.starts_with(start) && *left > 0)?;
    *left -= 1;
    Some(fault.clone())
}

/// What the CA itself cannot answer.
fn own_answer(state: &Mutex<State>, path: &str, payload: &Value) -> Option<Answer> {
    let state = lock(state);
    let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    if path.starts_with("/renewal-info/") {
        let wish = state.wish.clone()?;
        headers.extend(wish.retry_after.map(|value| ("Retry-After".to_owned(), value)));
        let time = |at| jiff::Timestamp::from_second(at).expect("a time").to_string();
        let body = json!({ "suggestedWindow": { "start": time(wish.window.0), "end": time(wish.window.1) } });
        return Some(Answer { status: "200".to_owned(), headers, body: body.to_string().into_bytes() });
    }
    let replaces = payload["replaces"].as_str()?;
    state.replaced.iter().any(|known| known == replaces).then(|| {
        let body = json!({ "type": "urn:ietf:params:acme:error:alreadyReplaced", "detail": "it has been replaced", "status": 409 });
        Answer { status: "409".to_owned(), headers, body: body.to_string().into_bytes() }
    })
}

/// Adds what the CA itself does not say.
fn amended(state: &Mutex<State>, path: &str, payload: &Value, answer: Answer) -> Answer {
    let mut state = lock(state);
    let Ok(mut json) = serde_json::from_slice::<Value>(&answer.body) else { return answer };
    if path == "/dir" && state.wish.is_some() {
        let other = json["newOrder"].as_str().unwrap_or_default().replace("/order-plz", "/renewal-info");
        json["renewalInfo"] = json!(other);
    } else if let (true, Some(replaces)) = (answer.status.starts_with("201"), payload["replaces"].as_str()) {
        json["replaces"] = json!(replaces);
        state.replaced.push(replaces.to_owned());
    } else {
        return answer;
    }
    Answer { body: json.to_string().into_bytes(), ..answer }
}

/// The first line and the headers, and the body of whatever has a Content-Length.
fn message(stream: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut body = vec![0; header(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
}

fn payload(body: &[u8]) -> Value {
    let jws: Value = serde_json::from_slice(body).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(jws["payload"].as_str().unwrap_or_default()).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Asks in HTTP/1.0, so that the answer comes in one piece.
fn ask(upstream: &Upstream, method: &str, path: &str, head: &str, body: &[u8]) -> std::io::Result<Answer> {
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::clone(&upstream.tls), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(session, TcpStream::connect(("127.0.0.1", upstream.port))?);
    let mut request = format!("{method} {path} HTTP/1.0\r\n");
    for line in head.lines().skip(1).filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("connection:")) {
        request += &format!("{line}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    let at = bytes.windows(4).position(|end| end == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)? + 4;
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let status = head.lines().next().and_then(|line| line.split_once(' ')).map(|(_, status)| status.to_owned()).unwrap_or_default();
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Answer { status, headers, body: bytes[at..].to_vec() })
}

/// A refusal with a nonce that would do.
fn bad_nonce(upstream: &Upstream, head: &str) -> std::io::Result<Answer> {
    let host = format!("HEAD\r\nHost: {}\r\n", header(head, "host").unwrap_or_default());
    let fresh = ask(upstream, "HEAD", "/nonce-plz", &host, &[])?;
    let mut headers: Vec<_> = fresh.headers.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("replay-nonce")).collect();
    headers.push(("Content-Type".to_owned(), "application/problem+json".to_owned()));
    let body = json!({ "type": "urn:ietf:params:acme:error:badNonce", "detail": "another one, please", "status": 400 });
    Ok(Answer { status: "400".to_owned(), headers, body: body.to_string().into_bytes() })
}

fn send(client: &mut Client, answer: &Answer, fault: Option<Fault>) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n", answer.status, answer.body.len());
    let ours = ["content-length", "connection"];
    for (name, value) in answer.headers.iter().filter(|(name, _)| !ours.contains(&name.to_ascii_lowercase().as_str())) {
        head += &format!("{name}: {value}\r\n");
    }
    client.write_all(format!("{head}\r\n").as_bytes())?;
    match fault {
        Some(Fault::Truncated(len)) => client.write_all(&answer.body[..len.min(answer.body.len())])?,
        Some(Fault::Dripping(pause)) => {
            for byte in &answer.body {
                client.write_all(&[*byte])?;
                std::thread::sleep(pause);
            }
        }
        _ => client.write_all(&answer.body)?,
    }
    client.conn.send_close_notify();
    client.flush()?;
    // Whoever still has bytes to send would take the answer with him.
    client.sock.shutdown(std::net::Shutdown::Write)?;
    let _ = client.sock.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = client.sock.read(&mut [0; 512]);
    Ok(())
}
