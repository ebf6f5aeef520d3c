//! The HTTP request that makes a connection a WebSocket, and its answer.

use std::mem::MaybeUninit;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use httparse::{Header, ParserConfig, Request, Status};
use sha1::{Digest as _, Sha1};

/// More header fields than browsers and proxies send.
const FIELDS_MAX: usize = 100;
/// RFC 6455, 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Names of MQTT `[MQTT-6.0.0-3]`; the second is that of MQTT 3.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What a listener takes.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// `websockets_origin`; empty permits all.
    pub origins: &'a [String],
    /// Bytes of the whole request.
    pub bytes_max: usize,
}

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// More is needed.
    Incomplete,
    /// The first `len` bytes were the request.
    Accepted { answer: String, len: usize },
    /// `reason` is for the log. A page of a foreign origin gets no answer, as from mosquitto.
    Refused { answer: String, reason: String },
}

fn refused(status: &str, extra: &str, reason: impl Into<String>) -> Upgrade {
    let reason = reason.into();
    let body = format!("This port speaks MQTT over WebSockets. {reason}.\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    Upgrade::Refused { answer, reason }
}

/// Judges the bytes of a connection from its first one. `known` of them were judged before and were `Incomplete`.
pub fn judge(bytes: &[u8], known: usize, rules: Rules<'_>) -> Upgrade {
    // Parsed at the first bytes, which tell nonsense, and then only at what may be the end: a request that drips in byte by byte is not
    // parsed anew for each.
    let news = bytes.get(known.saturating_sub(3)..).unwrap_or_default();
    let may_be_whole = news.windows(2).any(|pair| pair == b"\n\n") || news.windows(3).any(|three| three == b"\n\r\n");
    if known == 0 || may_be_whole {
        let mut fields = [MaybeUninit::<Header<'_>>::uninit(); FIELDS_MAX];
        let mut request = Request::new(&mut []);
        match ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, &mut fields) {
            Ok(Status::Complete(len)) if len <= rules.bytes_max => return answer(&request, len, rules),
            Ok(_) => {}
            Err(error) => return refused("400 Bad Request", "", format!("The request is no HTTP: {error}")),
        }
    }
    if bytes.len() >= rules.bytes_max {
        let reason = format!("The request has more than {} bytes, see websockets_headers_size", rules.bytes_max);
        return refused("431 Request Header Fields Too Large", "", reason);
    }
    Upgrade::Incomplete
}

/// The values of a header field, of all its lines.
fn values<'a>(request: &'a Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let fields = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    fields.map(|field| std::str::from_utf8(field.value).unwrap_or_default().trim())
}

/// The words of a list in a header field.
fn words<'a>(request: &'a Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    values(request, name).flat_map(|value| value.split(',')).map(str::trim)
}

fn answer(request: &Request<'_, '_>, len: usize, rules: Rules<'_>) -> Upgrade {
    if request.method != Some("GET") {
        return refused("405 Method Not Allowed", "Allow: GET\r\n", "The request is no GET");
    }
    // RFC 6455, 4.2.1: HTTP/1.1 or higher. A proxy that goes on in 1.0 would not pass the upgrade on.
    if request.version == Some(0) {
        return refused("400 Bad Request", "", "The request is one of HTTP/1.0, and an upgrade needs HTTP/1.1");
    }
    let has = |name, wanted: &str| words(request, name).any(|word| word.eq_ignore_ascii_case(wanted));
    if !has("Upgrade", "websocket") || !has("Connection", "upgrade") {
        return refused("426 Upgrade Required", "Upgrade: websocket\r\n", "The request asks for no upgrade to a WebSocket");
    }
    if !values(request, "Sec-WebSocket-Version").eq(["13"]) {
        return refused("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", "Only version 13 of WebSockets is spoken");
    }
    let mut keys = values(request, "Sec-WebSocket-Key");
    let (Some(key), None) = (keys.next().filter(|key| is_key(key)), keys.next()) else {
        return refused("400 Bad Request", "", "The request has no valid Sec-WebSocket-Key");
    };
    let subprotocol = words(request, "Sec-WebSocket-Protocol").find_map(|word| SUBPROTOCOLS.into_iter().find(|known| *known == word));
    let Some(subprotocol) = subprotocol else {
        return refused("400 Bad Request", "", "The request does not name the subprotocol mqtt");
    };
    // A client that is no browser sends no origin, as with mosquitto.
    if let Some(origin) = values(request, "Origin").find(|origin| !rules.origins.is_empty() && !rules.origins.iter().any(|o| o == origin)) {
        return Upgrade::Refused {
            answer: String::new(),
            reason: format!("The origin {origin:?} is not among those of websockets_origin"),
        };
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
        accept(key)
    );
    Upgrade::Accepted { answer, len }
}

/// 16 bytes in base64.
fn is_key(key: &str) -> bool {
    BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

fn accept(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    BASE64_STANDARD.encode(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules<'_> = Rules { origins: &[], bytes_max: 1024 };
    const GOOD: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, mqtt\r\nOrigin: https://a\r\n\r\n";

    fn status(request: &str, rules: Rules<'_>) -> String {
        match judge(request.as_bytes(), 0, rules) {
            Upgrade::Refused { answer, .. } => answer.split(' ').nth(1).unwrap_or_default().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_browsers_request_is_answered_as_rfc_6455_computes_it() {
        let Upgrade::Accepted { answer, len } = judge(format!("{GOOD}rest").as_bytes(), 0, RULES) else { panic!("refused") };
        assert_eq!(len, GOOD.len());
        assert_eq!(
            answer,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
    }

    #[test]
    fn a_request_may_come_in_single_bytes() {
        let bytes = GOOD.as_bytes();
        for end in 1..bytes.len() {
            assert_eq!(judge(&bytes[..end], end - 1, RULES), Upgrade::Incomplete, "{end}");
        }
        assert!(matches!(judge(bytes, bytes.len() - 1, RULES), Upgrade::Accepted { .. }));
    }

    #[test]
    fn what_is_missing_is_refused_with_its_status() {
        for (from, to, expected) in [
            ("GET", "POST", "405"),
            ("Upgrade: websocket", "Upgrade: h2c", "426"),
            ("keep-alive, Upgrade", "keep-alive", "426"),
            ("Version: 13", "Version: 8", "426"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", "400"),
            ("Sec-WebSocket-Key: ", "X: ", "400"),
            ("chat, mqtt", "chat", "400"),
            ("chat, mqtt", "mqttv", "400"),
            (" HTTP/1.1", "", "400"),
            ("HTTP/1.1", "HTTP/1.0", "400"),
            ("HTTP/1.1", "HTTP/0.9", "400"),
            ("HTTP/1.1", "HTTP/2.0", "400"),
        ] {
            assert_eq!(status(&GOOD.replace(from, to), RULES), expected, "{from} → {to}");
        }
        assert!(
            matches!(judge(GOOD.replace("chat, mqtt", "mqttv3.1").as_bytes(), 0, RULES), Upgrade::Accepted { answer, .. } if answer.contains("mqttv3.1"))
        );
    }

    #[test]
    fn an_origin_is_compared_whole() {
        let origins = ["https://b".to_owned(), "https://a".to_owned()];
        let accepted =
            |text: &str, origins: &[String]| matches!(judge(text.as_bytes(), 0, Rules { origins, ..RULES }), Upgrade::Accepted { .. });
        assert!(accepted(GOOD, &origins));
        assert!(accepted(&GOOD.replace("Origin: https://a\r\n", ""), &origins[..1]), "no browser, no origin");
        assert_eq!(status(GOOD, Rules { origins: &origins[..1], ..RULES }), "");
        assert_eq!(status(&GOOD.replace("https://a", "https://"), Rules { origins: &origins, ..RULES }), "", "no prefix");
    }

    #[test]
    fn endless_headers_end_at_the_limit() {
        let endless = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(1000));
        assert_eq!(status(&endless, RULES), "400", "too many fields");
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(2000)), RULES), "431");
        assert_eq!(status(&GOOD.replace("Host: a", &format!("Host: {}", "a".repeat(2000))), RULES), "431");
    }

    #[test]
    fn any_bytes_are_survived() {
        for byte in 0..=255_u8 {
            let bytes = [byte; 300];
            for end in 0..bytes.len() {
                let _ = judge(&bytes[..end], 0, RULES);
            }
        }
    }
}
