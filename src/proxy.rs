//! The header that a proxy puts before a connection to say whose it is (the PROXY protocol of HAProxy, versions 1 and 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::conf::ProxyVersion;

/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;
/// What follows the fixed part of version 2 may be this long; addresses and what is said about TLS need a quarter of it.
const REST_BYTES_MAX: usize = 500;
const FIXED_BYTES: usize = 16;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// What the proxy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The proxy itself speaks, to see whether somebody is there.
    Local,
    /// Nothing about the client.
    Unknown,
    Client {
        /// As logged: `192.0.2.5:6275`, or a unix socket's path and `:0`.
        peer: String,
        tls: Option<ProxyTls>,
    },
}

/// What the proxy says about the TLS that it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyTls {
    /// The client has shown a certificate in this session, and the proxy has verified it.
    pub certified: bool,
    pub version: Option<String>,
    pub cipher: Option<String>,
    pub common_name: Option<String>,
}

/// The bytes are no header. `peer` is as far as they got.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Corrupt {
    pub peer: Option<String>,
}

/// How many of the bytes that come after `held` still belong to the header: what is behind it is others' to read.
pub fn share(version: ProxyVersion, held: &[u8], next: &[u8]) -> usize {
    let wanted = match version {
        ProxyVersion::V1 => {
            let end = next.iter().position(|byte| *byte == b'\n').map_or(usize::MAX, |end| end + 1);
            end.min(LINE_BYTES_MAX.saturating_sub(held.len()).max(1))
        }
        ProxyVersion::V2 => whole(held).saturating_sub(held.len()),
    };
    wanted.min(next.len())
}

/// Bytes of a header of version 2, as far as known.
fn whole(held: &[u8]) -> usize {
    match held.get(14..FIXED_BYTES) {
        Some([high, low]) => FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low])),
        _ => FIXED_BYTES,
    }
}

/// Reads what is held; `None` when it is not whole.
pub fn parse(version: ProxyVersion, held: &[u8]) -> Result<Option<Said>, Corrupt> {
    match version {
        ProxyVersion::V1 => line(held),
        ProxyVersion::V2 => binary(held),
    }
}

fn line(held: &[u8]) -> Result<Option<Said>, Corrupt> {
    const START: &[u8] = b"PROXY ";
    let corrupt = Corrupt::default;
    if !held.iter().zip(START).all(|(byte, expected)| byte == expected) {
        return Err(corrupt());
    }
    let Some(text) = held.strip_suffix(b"\r\n") else {
        return if held.ends_with(b"\n") || held.len() >= LINE_BYTES_MAX { Err(corrupt()) } else { Ok(None) };
    };
    let text = std::str::from_utf8(text).map_err(|_| corrupt())?;
    let words: Vec<_> = text.split(' ').skip(1).collect();
    let [family, source, destination, from, to] = *words.as_slice() else {
        return if words.first() == Some(&"UNKNOWN") { Ok(Some(Said::Unknown)) } else { Err(corrupt()) };
    };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    // Digits and nothing else: Rust reads +80 as a number, too.
    let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let port = |text: &str| Some(text).filter(is_number)?.parse::<u16>().ok().filter(|port| *port > 0);
    match (family, address(source), address(destination), port(from), port(to)) {
        ("UNKNOWN", ..) => Ok(Some(Said::Unknown)),
        (_, Some(source), Some(_), Some(port), Some(_)) => Ok(Some(Said::Client { peer: peer(source, port), tls: None })),
        _ => Err(corrupt()),
    }
}

fn peer(address: IpAddr, port: u16) -> String {
    format!("{}:{port}", address.to_canonical())
}

fn binary(held: &[u8]) -> Result<Option<Said>, Corrupt> {
    let corrupt = || Corrupt { peer: None };
    if !held.iter().zip(SIGNATURE).all(|(byte, expected)| *byte == expected) {
        return Err(corrupt());
    }
    let Some((fixed, rest)) = held.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let (version_command, family) = (fixed[12], fixed[13]);
    let length = whole(held) - FIXED_BYTES;
    if length > REST_BYTES_MAX {
        return Err(corrupt());
    }
    let addresses = match (version_command, family) {
        (0x20, _) => 0,
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        // Paths that fill less than they may come without the rest, too.
        (0x21, 0x31) => length.min(216),
        _ => return Err(corrupt()),
    };
    if length < addresses || (version_command == 0x21 && length == 0) {
        return Err(corrupt());
    }
    if rest.len() < length {
        return Ok(None);
    }
    if version_command == 0x20 {
        return Ok(Some(Said::Local));
    }
    let (addresses, values) = rest.split_at_checked(addresses).ok_or_else(corrupt)?;
    let peer = source(family, addresses).ok_or_else(corrupt)?;
    let Some(tls) = about_tls(values) else { return Err(Corrupt { peer: Some(peer) }) };
    Ok(Some(Said::Client { peer, tls }))
}

fn source(family: u8, addresses: &[u8]) -> Option<String> {
    let port = |at: usize| Some(u16::from_be_bytes(addresses.get(at..at + 2)?.try_into().ok()?));
    match (family, addresses.len()) {
        (0x11, 12) => Some(peer(addresses.first_chunk::<4>().copied()?.into(), port(8)?)),
        (0x21, 36) => Some(peer(addresses.first_chunk::<16>().copied()?.into(), port(32)?)),
        _ => {
            let path = addresses.get(..108).unwrap_or(addresses).split(|byte| *byte == 0).next()?;
            Some(format!("{}:0", String::from_utf8_lossy(path)))
        }
    }
}

/// Type, value and the rest of a list of type-length-values.
fn value(list: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, high, low], rest) = list.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
    Some((*kind, value, rest))
}

/// `Some(None)` where nothing is said; `None` where the list makes no sense.
fn about_tls(mut list: &[u8]) -> Option<Option<ProxyTls>> {
    let mut found = None;
    while !list.is_empty() {
        let (kind, content, rest) = value(list)?;
        list = rest;
        // PP2_TYPE_SSL
        if kind == 0x20 {
            found = Some(tls(content)?);
        }
    }
    Some(found)
}

fn tls(content: &[u8]) -> Option<ProxyTls> {
    let ([client, verify @ ..], mut list) = content.split_first_chunk::<5>()?;
    // PP2_CLIENT_SSL and PP2_CLIENT_CERT_SESS.
    let mut tls = ProxyTls { certified: client & 0x05 == 0x05 && *verify == [0; 4], ..ProxyTls::default() };
    while !list.is_empty() {
        let (kind, content, rest) = value(list)?;
        list = rest;
        let text = || std::str::from_utf8(content).ok().map(str::to_owned);
        match kind {
            0x21 => tls.version = Some(text()?),
            0x22 => tls.common_name = Some(text()?),
            0x23 => tls.cipher = Some(text()?),
            _ => {}
        }
    }
    Some(tls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProxyVersion::{V1, V2};

    fn client(peer: &str) -> Said {
        Said::Client { peer: peer.into(), tls: None }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 5, 127, 0, 0, 1, 0x18, 0x83, 0, 80];

    #[test]
    fn a_line_names_the_client() {
        for (line, said) in [
            ("PROXY TCP4 192.0.2.5 127.0.0.1 6275 1234\r\n", client("192.0.2.5:6275")),
            ("PROXY TCP6 2001:db8::1 ::1 6275 1234\r\n", client("2001:db8::1:6275")),
            ("PROXY UNKNOWN\r\n", Said::Unknown),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Said::Unknown),
        ] {
            let bytes = line.as_bytes();
            for end in 0..bytes.len() {
                assert_eq!(parse(V1, &bytes[..end]), Ok(None), "{line} up to {end}");
            }
            assert_eq!(parse(V1, bytes), Ok(Some(said)));
            assert_eq!(share(V1, &bytes[..9], &[&bytes[9..], b"\x10\x0a"].concat()), bytes.len() - 9, "what follows is left");
        }
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 6275 1234\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 6275\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 0 1234\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 6275 65536\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 +80 1234\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 6275 +80\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 -80 1234\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 \t80 1234\r\n",
            "PROXY TCP4 ::1 127.0.0.1 6275 1234\r\n",
            "PROXY TCP6 192.0.2.5 ::1 6275 1234\r\n",
            "PROXY TCP4 192.0.2.5  127.0.0.1 6275 1234\r\n",
            "PROXY TCP4 192.0.2.5 127.0.0.1 6275 1234 \r\n",
        ] {
            assert_eq!(parse(V1, line.as_bytes()), Err(Corrupt::default()), "{line}");
        }
        assert_eq!(parse(V1, &[b"PROXY ".to_vec(), vec![b'x'; LINE_BYTES_MAX]].concat()), Err(Corrupt::default()));
        let longest = |bytes: usize| [&b"PROXY UNKNOWN "[..], &vec![b'x'; bytes - 16], b"\r\n"].concat();
        assert_eq!(parse(V1, &longest(LINE_BYTES_MAX)), Ok(Some(Said::Unknown)));
        // In one piece as byte by byte.
        let too_long = longest(LINE_BYTES_MAX + 1);
        assert_eq!(share(V1, &[], &too_long), LINE_BYTES_MAX);
        assert_eq!(parse(V1, &too_long[..LINE_BYTES_MAX]), Err(Corrupt::default()));
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let six = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0x18, 0x83, 0, 80]].concat();
        let mut unix = vec![0; 216];
        unix[..4].copy_from_slice(b"/a/b");
        for (bytes, said) in [
            (v2(0x21, 0x11, &FOUR), client("192.0.2.5:6275")),
            (v2(0x21, 0x21, &six), client("::1:6275")),
            (v2(0x21, 0x31, &unix), client("/a/b:0")),
            (v2(0x21, 0x31, b"/path"), client("/path:0")),
            (v2(0x20, 0, &[]), Said::Local),
            (v2(0x20, 0x11, &FOUR), Said::Local),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(parse(V2, &bytes[..end]), Ok(None));
                let mut followed = bytes[end..].to_vec();
                followed.extend([0x10; 40]);
                assert!(share(V2, &bytes[..end], &followed) <= bytes.len() - end);
            }
            assert_eq!(parse(V2, &bytes), Ok(Some(said)));
        }
    }

    #[test]
    fn what_the_proxy_says_about_tls_is_read() {
        let tlv = |kind: u8, value: &[u8]| [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat();
        let said = |client: u8, verify: u8| {
            let names = [tlv(0x21, b"TLSv1.3"), tlv(0x22, b"anna"), tlv(0x23, b"AES")].concat();
            let tls = tlv(0x20, &[&[client, 0, 0, 0, verify][..], &names].concat());
            let bytes = v2(0x21, 0x11, &[&FOUR[..], &tlv(0x04, b"noop"), &tls].concat());
            match parse(V2, &bytes) {
                Ok(Some(Said::Client { tls: Some(tls), .. })) => tls,
                other => panic!("{other:?}"),
            }
        };
        let text = |text: &str| Some(text.to_owned());
        let all = ProxyTls { certified: true, version: text("TLSv1.3"), cipher: text("AES"), common_name: text("anna") };
        assert_eq!(said(5, 0), all);
        for (client, verify) in [(1, 0), (5, 1), (4, 0)] {
            assert!(!said(client, verify).certified);
        }
    }

    #[test]
    fn a_binary_header_that_is_none_is_refused() {
        let with = |rest: &[u8]| v2(0x21, 0x11, &[&FOUR, rest].concat());
        let nobody = Corrupt::default();
        let somebody = Corrupt { peer: Some("192.0.2.5:6275".into()) };
        for (bytes, error) in [
            (v2(0x31, 0x11, &FOUR), &nobody),
            (v2(0x23, 0x11, &FOUR), &nobody),
            (v2(0x21, 0, &FOUR), &nobody),
            (v2(0x21, 0x12, &FOUR), &nobody),
            (v2(0x21, 0x11, &FOUR[1..]), &nobody),
            (v2(0x21, 0x11, &[0; 501]), &nobody),
            (with(&[0x20]), &somebody),
            (with(&[0x20, 0, 9]), &somebody),
            (with(&[0x20, 0, 1, 5]), &somebody),
            (with(&[0x20, 0, 8, 5, 0, 0, 0, 0, 0x21, 0, 9]), &somebody),
        ] {
            assert_eq!(parse(V2, &bytes).as_ref(), Err(error), "{bytes:x?}");
        }
    }
}
