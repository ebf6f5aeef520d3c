//! Going through a SOCKS5 proxy (RFC 1928), with a user name or without (RFC 1929).

use std::io::{self, Read, Write};

/// Where the proxy is and who asks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// User name and password.
    pub user: Option<(String, String)>,
}

/// Port of a proxy whose URL names none.
const DEFAULT_PORT: u16 = 1080;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_NAME: u8 = 2;

impl Proxy {
    /// `socks5h://[user[:password]@]host[:port]`; `%25`, `%3A` and `%40` in the user's part stand for `%`, `:` and `@`. `Err` is what the
    /// tool says.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("socks5h://").ok_or_else(|| format!("Error: Unsupported proxy protocol: {url}"))?;
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let (host, port) = place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)));
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("Error: Invalid proxy port {port}"))?,
        };
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (decoded(name), decoded(password))
        });
        let fits = |text: &str| (1..=255).contains(&text.len());
        if !fits(host) || user.as_ref().is_some_and(|(name, password)| !fits(name) || password.len() > 255) {
            return Err("Error: Invalid proxy.".to_owned());
        }
        Ok(Self { host: host.to_owned(), port, user })
    }

    /// Asks the proxy behind `stream` for a way to the broker; the stream is the broker's from then on.
    pub(super) fn ask(&self, stream: &mut (impl Read + Write), host: &str, port: u16) -> io::Result<()> {
        let method = if self.user.is_some() { USER_NAME } else { NO_AUTHENTICATION };
        stream.write_all(&[VERSION, 1, method])?;
        if read::<2>(stream)? != [VERSION, method] {
            return Err(refused("it wants another authentication"));
        }
        if let Some((name, password)) = &self.user {
            let mut request = vec![1];
            for text in [name, password] {
                request.push(text.len() as u8);
                request.extend_from_slice(text.as_bytes());
            }
            stream.write_all(&request)?;
            if read::<2>(stream)?[1] != 0 {
                return Err(refused("it does not accept this user"));
            }
        }
        let len = u8::try_from(host.len()).map_err(|_| refused("the broker's name is too long"))?;
        // CONNECT to a name: the proxy looks it up.
        let mut request = vec![VERSION, 1, 0, 3, len];
        request.extend_from_slice(host.as_bytes());
        request.extend_from_slice(&port.to_be_bytes());
        stream.write_all(&request)?;
        let [_, reply, _, kind] = read::<4>(stream)?;
        if reply != 0 {
            return Err(io::Error::from_raw_os_error(errno(reply)));
        }
        // The address that the proxy connects from, and its port.
        let len = match kind {
            1 => 4,
            4 => 16,
            _ => read::<1>(stream)?[0].into(),
        };
        stream.read_exact(&mut vec![0; len + 2])
    }
}

fn read<const LEN: usize>(stream: &mut impl Read) -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn refused(why: &str) -> io::Error {
    io::Error::other(format!("the proxy refuses: {why}"))
}

/// What the proxy met, as if we had met it ourselves (RFC 1928, section 6).
fn errno(reply: u8) -> i32 {
    match reply {
        2 => libc::EACCES,
        3 => libc::ENETUNREACH,
        4 => libc::EHOSTUNREACH,
        5 => libc::ECONNREFUSED,
        6 => libc::ETIMEDOUT,
        7 | 8 => libc::EOPNOTSUPP,
        _ => libc::EPROTO,
    }
}

fn decoded(text: &str) -> String {
    text.replace("%40", "@").replace("%3A", ":").replace("%3a", ":").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_the_proxy_and_the_user() {
        let proxy = |host: &str, port, user: Option<(&str, &str)>| Proxy {
            host: host.into(),
            port,
            user: user.map(|(name, password)| (name.into(), password.into())),
        };
        for (url, expected) in [
            ("socks5h://host", proxy("host", 1080, None)),
            ("socks5h://host:99", proxy("host", 99, None)),
            ("socks5h://user@host", proxy("host", 1080, Some(("user", "")))),
            ("socks5h://u%40x:p%3Aq%25@host:99", proxy("host", 99, Some(("u@x", "p:q%")))),
        ] {
            assert_eq!(Proxy::parse(url), Ok(expected), "{url}");
        }
        for url in ["http://host", "socks5h://", "socks5h://host:0", "socks5h://host:x", "socks5h://@host"] {
            assert!(Proxy::parse(url).is_err(), "{url}");
        }
    }
}
