//! The HTTP client behind instant-acme: deadlines, bundled and given roots, capped bodies, and what the crate would drop.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LINK, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// For one request, from the name's resolution to the last byte.
const REQUEST: Duration = Duration::from_secs(30);
/// How long one address has before the next is tried, too.
const HEAD_START: Duration = Duration::from_millis(500);
/// No answer of a CA is larger.
const BODY_MAX: usize = 1024 * 1024;
/// Times that a request which changes nothing is sent.
const TRIES: u32 = 3;

use super::given_account::GivenAccount;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the last answer said beside its body.
#[derive(Debug, Clone, Default)]
pub(super) struct Last {
    pub(super) status: Option<u16>,
    pub(super) retry_after_secs: Option<u64>,
    pub(super) alternates: Vec<String>,
    pub(super) is_clock_error: bool,
}

impl Last {
    /// How long the CA wants to be left alone. An answer that is good says only when the next poll is worth while.
    pub(super) fn back_off(&self) -> Option<u64> {
        self.retry_after_secs.filter(|_| self.status.is_none_or(|status| status >= 400))
    }
}

#[derive(Clone)]
pub(super) struct Client {
    tls: TlsConnector,
    last: Arc<Mutex<Last>>,
    account: Arc<Mutex<Option<Arc<GivenAccount>>>>,
}

impl Client {
    /// `ca_file`: PEM of roots to trust beside the bundled ones. What is posted is signed by `account`.
    pub(super) fn new(ca_file: Option<&Path>, account: Option<GivenAccount>) -> Result<Self, String> {
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca_file {
            let bad = |reason: String| format!("the CA's root certificates {} (ACME_CA_FILE) cannot be used: {reason}", path.display());
            let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
            let given: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
            if given.is_empty() {
                return Err(bad("no certificate in PEM form is in it".into()));
            }
            for root in given {
                roots.add(root).map_err(|error| bad(error.to_string()))?;
            }
        }
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), last: Arc::default(), account: Arc::new(Mutex::new(account.map(Arc::new))) })
    }

    pub(super) fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn given_account(&self) -> Option<Arc<GivenAccount>> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on the worker's own account is used; false where it was so before.
    pub(super) fn forget_account(&self) -> bool {
        self.account.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    fn remember(&self, last: Last) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// One request; what only reads is sent again when the CA or the network stumbles.
    pub(super) async fn send(
        &self,
        method: Method,
        address: &str,
        headers: &[(http::HeaderName, String)],
        body: Vec<u8>,
    ) -> Result<Response<Bytes>, BoxError> {
        let mut tries = if method == Method::POST { 1 } else { TRIES };
        let signed = self.given_account().filter(|_| method == Method::POST).and_then(|account| account.sign_anew(&body));
        let body = signed.unwrap_or(body);
        loop {
            tries -= 1;
            let attempt = tokio::time::timeout(REQUEST, self.attempt(&method, address, headers, &body)).await;
            let result = attempt.unwrap_or_else(|_| Err(format!("{address} did not answer within {} seconds", REQUEST.as_secs()).into()));
            match result {
                Ok(answer) if tries == 0 || !answer.status().is_server_error() || answer.headers().contains_key(RETRY_AFTER) => {
                    return Ok(self.noted(answer));
                }
                Ok(_) => {}
                Err(error) => {
                    let text = super::fault::causes(&*error);
                    let is_clock_error = text.contains("certificate not valid yet") || text.contains("certificate expired");
                    self.remember(Last { is_clock_error, ..Last::default() });
                    if tries == 0 || is_clock_error {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn noted(&self, answer: Response<Bytes>) -> Response<Bytes> {
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().trim().to_owned();
        let retry_after_secs = answer.headers().get(RETRY_AFTER).map(text).and_then(|value| seconds_until(&value));
        let alternates = answer.headers().get_all(LINK).iter().map(text).filter_map(|link| alternate(&link)).collect();
        let status = answer.status();
        self.remember(Last { status: Some(status.as_u16()), retry_after_secs, alternates, is_clock_error: false });
        answer
    }

    async fn attempt(
        &self,
        method: &Method,
        address: &str,
        headers: &[(http::HeaderName, String)],
        body: &[u8],
    ) -> Result<Response<Bytes>, BoxError> {
        let uri: http::Uri = address.parse()?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format!("{address} is no https address").into());
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.to_owned())?;
        let addresses = tokio::net::lookup_host((host, port)).await.map(Iterator::collect);
        let stream = match addresses {
            Ok(addresses) => connect(addresses).await,
            Err(error) => Err(error),
        };
        let stream = stream.map_err(|error| format!("{host} port {port}: {error}"))?;
        let stream = self.tls.connect(name, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::builder().method(method).uri(path).header(HOST, authority.as_str());
        for (header, value) in headers {
            request = request.header(header, value);
        }
        let broken = |error: BoxError| broken_off(address, error);
        let answer = sender.send_request(request.body(Full::new(Bytes::copy_from_slice(body)))?).await;
        let (parts, body) = answer.map_err(|error| broken(error.into()))?.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(broken)?.to_bytes();
        connection.abort();
        Ok(Response::from_parts(parts, body))
    }
}

/// Whichever of a name's addresses answers: each has [`HEAD_START`] before the next is tried beside it (RFC 8305).
async fn connect(addresses: Vec<SocketAddr>) -> std::io::Result<TcpStream> {
    let (first, other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| addresses.first().is_some_and(|first| first.is_ipv6() == address.is_ipv6()));
    let mut in_turn = Vec::new();
    for at in 0..addresses.len() {
        in_turn.extend(first.get(at).into_iter().chain(other.get(at)).copied());
    }
    let mut tries = JoinSet::new();
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in in_turn {
        tries.spawn(TcpStream::connect(address));
        match tokio::time::timeout(HEAD_START, tries.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            _ => {}
        }
    }
    while let Some(result) = tries.join_next().await {
        match result {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
    }
    Err(last)
}

/// The words of three crates for one thing.
fn broken_off(address: &str, error: BoxError) -> BoxError {
    let text = super::fault::causes(&*error);
    let is_broken_off = ["close_notify", "before message", "reset by peer", "Broken pipe"].iter().any(|words| text.contains(words));
    if is_broken_off { format!("{address} broke off the connection before its answer was whole").into() } else { error }
}

/// `Retry-After`: seconds or a date.
fn seconds_until(value: &str) -> Option<u64> {
    if let Ok(seconds) = value.parse() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).map_or(0, |left| left.as_secs()))
}

/// The address in `<…>;rel="alternate"`.
fn alternate(link: &str) -> Option<String> {
    let (address, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"alternate\"").then(|| address.to_owned())
}

/// An error page becomes a problem document, so that its status and its cause are not hidden by a parser's complaint.
fn as_problem(answer: Response<Bytes>) -> Response<Bytes> {
    let is_json = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("json")));
    if answer.status().is_success() || (is_json && serde_json::from_slice::<serde_json::Value>(answer.body()).is_ok()) {
        return answer;
    }
    let status = answer.status();
    let (parts, _) = answer.into_parts();
    let problem = serde_json::json!({ "type": "urn:ietf:params:acme:error:serverInternal", "detail": format!("the CA answered HTTP {status}"), "status": status.as_u16() });
    Response::from_parts(parts, Bytes::from(problem.to_string()))
}

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await.map(|body| body.to_bytes().to_vec());
            let headers: Vec<_> =
                parts.headers.iter().map(|(name, value)| (name.clone(), value.to_str().unwrap_or_default().to_owned())).collect();
            let answer = client.send(parts.method.clone(), &parts.uri.to_string(), &headers, body).await.map_err(Error::Other)?;
            if parts.method == Method::GET && !answer.status().is_success() {
                return Err(Error::Other(format!("{} answered HTTP {}", parts.uri, answer.status()).into()));
            }
            Ok(as_problem(answer).map(Full::new).into())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(seconds_until("7200"), Some(7200));
        assert_eq!(seconds_until("Fri, 31 Dec 1999 23:59:59 GMT"), Some(0));
        assert_eq!(seconds_until("soon"), None);
    }

    #[test]
    fn a_good_answer_s_retry_after_is_no_back_off() {
        let last = |status| Last { status: Some(status), retry_after_secs: Some(86_400), ..Last::default() };
        assert_eq!((last(200).back_off(), last(429).back_off(), last(503).back_off()), (None, Some(86_400), Some(86_400)));
    }

    /// A socket whose queue is full: whoever connects hears nothing.
    fn black_hole() -> (socket2::Socket, SocketAddr, Vec<std::net::TcpStream>) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        socket.bind(&any.into()).expect("bound");
        socket.listen(0).expect("it listens");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        let fill = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let full: Vec<_> = std::iter::repeat_with(fill).take_while(Option::is_some).flatten().collect();
        (socket, address, full)
    }

    #[test]
    fn an_address_where_nobody_answers_does_not_hide_the_next() {
        let (_socket, hole, _full) = black_hole();
        let closed: SocketAddr = "127.0.0.1:1".parse().expect("an address");
        let good = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let good = good.local_addr().expect("an address");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let began = std::time::Instant::now();
        runtime.block_on(async {
            assert_eq!(connect(vec![hole, closed, hole, good]).await.and_then(|stream| stream.peer_addr()).expect("a connection"), good);
            assert!(connect(vec![closed]).await.is_err() && connect(Vec::new()).await.is_err());
        });
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn only_alternates_are_followed() {
        assert_eq!(alternate("<https://ca/alt/1>;rel=\"alternate\"").as_deref(), Some("https://ca/alt/1"));
        assert_eq!(alternate("<https://ca/dir>;rel=\"index\""), None);
    }
}
