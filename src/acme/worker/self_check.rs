//! Before the CA is asked to look at a name over http-01, we look ourselves: where its records lead, and whether our own answer comes back.
//! What only a network that does not lead its public address back inside (no hairpin NAT) could cause is a warning, and the order is made.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::fault::{Fault, fault};
use super::{Attempt, say};
use crate::acme::exchange::{Level, Report, SelfCheck, Step};

const LOOKUP: Duration = Duration::from_secs(5);
const FETCH: Duration = Duration::from_secs(5);
const ADDRESSES_MAX: usize = 4;
const ANSWER_MAX: u64 = 4096;
/// What the C libraries call a name without an address; any other failure is the name server's.
const NO_ADDRESS: [&str; 4] = ["Name or service not known", "Name does not resolve", "No address associated", "no usable address"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Met {
    Ourselves,
    /// Another server, with this status.
    Other(String),
    Refused,
    Silence,
    NoRoute,
}

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    text: String,
    /// It looks the same from everywhere.
    is_certain: bool,
}

impl Attempt {
    /// # Errors
    /// What the CA would find too: its answer is not worth an order.
    pub(super) async fn check_ourselves(&self) -> Result<(), Fault> {
        let Some(check) = self.request.self_check else { return Ok(()) };
        let random = || format!("{:016x}{:016x}", getrandom::u64().unwrap_or(0), getrandom::u64().unwrap_or(0));
        let (token, answer) = (format!("darner-{}", random()), random());
        self.offer(&token, &answer);
        let mut tasks = JoinSet::new();
        for name in self.request.domains.clone() {
            tasks.spawn(look(name, check, token.clone(), answer.clone()));
        }
        let mut found = Vec::new();
        while let Some(result) = tasks.join_next().await {
            found.extend(result.unwrap_or_default());
        }
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
        found.sort_by(|a, b| (b.is_certain, &a.text).cmp(&(a.is_certain, &b.text)));
        match found.first() {
            Some(first) if first.is_certain => {
                let certain: Vec<_> = found.iter().filter(|finding| finding.is_certain).map(|finding| finding.text.as_str()).collect();
                Err(fault(Step::Challenge, format!("{}. Nothing was asked of the CA, which would find the same.", certain.join("; "))))
            }
            _ => {
                for Finding { text, .. } in found {
                    say(&Report::Event { level: Level::Warning, text: format!("{text}.") });
                }
                Ok(())
            }
        }
    }
}

async fn look(name: String, check: SelfCheck, token: String, answer: String) -> Vec<Finding> {
    let addresses = match name.parse() {
        Ok(address) => vec![address],
        Err(_) => match resolve(&name, check).await {
            Ok(addresses) => addresses,
            Err(finding) => return vec![finding],
        },
    };
    let mut tasks = JoinSet::new();
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        let (name, token, answer) = (name.clone(), token.clone(), answer.clone());
        tasks.spawn(async move {
            let met = tokio::time::timeout(FETCH, fetch(SocketAddr::new(address, check.port), &name, &token, &answer)).await;
            finding(&name, SocketAddr::new(address, check.port), &met.unwrap_or(Met::Silence))
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

async fn resolve(name: &str, check: SelfCheck) -> Result<Vec<IpAddr>, Finding> {
    let result = tokio::time::timeout(LOOKUP, tokio::net::lookup_host((name, check.port))).await;
    let reason = match result.map(|result| result.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())) {
        Ok(Ok(mut addresses)) => {
            addresses.sort();
            addresses.dedup();
            return Ok(addresses);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} seconds", LOOKUP.as_secs()),
    };
    Err(unresolved(name, &reason, check))
}

fn unresolved(name: &str, reason: &str, check: SelfCheck) -> Finding {
    if NO_ADDRESS.iter().any(|words| reason.contains(words)) {
        // A CA of one's own may see another DNS.
        let text =
            format!("{name} has no address in the DNS as seen from here: make an A record (and AAAA, if this machine has IPv6) point here");
        return Finding { text, is_certain: check.is_public };
    }
    Finding {
        text: format!("the DNS cannot be asked about {name} from here ({reason}): look at this machine's name server"),
        is_certain: false,
    }
}

async fn fetch(address: SocketAddr, name: &str, token: &str, answer: &str) -> Met {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::TimedOut => Met::Silence,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable => Met::NoRoute,
        _ => Met::Refused,
    };
    let mut stream = match TcpStream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => return failed(error),
    };
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: darner (its own check)\r\nConnection: close\r\n\r\n"
    );
    if let Err(error) = stream.write_all(request.as_bytes()).await {
        return failed(error);
    }
    let mut bytes = Vec::new();
    if let Err(error) = stream.take(ANSWER_MAX).read_to_end(&mut bytes).await
        && bytes.is_empty()
    {
        return failed(error);
    }
    let text = String::from_utf8_lossy(&bytes);
    if text.contains(answer) {
        return Met::Ourselves;
    }
    let status: String =
        text.lines().next().unwrap_or_default().chars().filter(char::is_ascii_graphic).skip("HTTP/1.1".len()).take(3).collect();
    Met::Other(if status.parse::<u16>().is_ok() { format!("HTTP {status}") } else { "no HTTP".into() })
}

/// In words that say what to do.
fn finding(name: &str, address: SocketAddr, met: &Met) -> Option<Finding> {
    let (ip, port) = (address.ip(), address.port());
    let record = match (name.parse::<IpAddr>(), ip) {
        (Ok(_), _) => ip.to_string(),
        (_, IpAddr::V4(_)) => format!("{name}'s A record leads to {ip}"),
        (_, IpAddr::V6(_)) => format!("{name}'s AAAA record leads to {ip}"),
    };
    let hairpin = "where a router does not lead its own address back inside, this says nothing";
    let uncertain = |text: String| Some(Finding { text, is_certain: false });
    match (met, ip) {
        (Met::Ourselves, _) => None,
        // The CA follows redirections.
        (Met::Other(status), _) if status.starts_with("HTTP 3") => {
            uncertain(format!("{record}, where port {port} redirects ({status}): it must lead to this machine in the end"))
        }
        // Nobody translates addresses of IPv6.
        (Met::Other(status), IpAddr::V6(ip)) if ip.segments().first().is_some_and(|first| first & 0xe000 == 0x2000) => Some(Finding {
            text: format!("{record}, where another server answered on port {port} ({status}): remove the record, or make it lead here"),
            is_certain: true,
        }),
        (Met::Other(status), _) => {
            uncertain(format!("{record}, where another server answered on port {port} ({status}): make it lead here; {hairpin}"))
        }
        (Met::Refused, _) => uncertain(format!("{record}, where port {port} is closed: open it, and lead it to this machine; {hairpin}")),
        (Met::Silence, _) => uncertain(format!(
            "{record}, where nothing answers on port {port}: look for a firewall, and lead the port to this machine; {hairpin}"
        )),
        (Met::NoRoute, IpAddr::V6(_)) => uncertain(format!(
            "{record}, and this machine has no way there: the CA goes to IPv6 first, so remove the record if IPv6 does not lead here"
        )),
        (Met::NoRoute, _) => uncertain(format!("{record}, and this machine has no way there: look at its network")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: SelfCheck = SelfCheck { port: 80, is_public: true };

    fn about(name: &str, ip: &str, met: &Met) -> (String, bool) {
        let finding = finding(name, SocketAddr::new(ip.parse().expect("an address"), 80), met).expect("something");
        (finding.text, finding.is_certain)
    }

    #[test]
    fn a_record_that_leads_elsewhere_is_certain_where_nobody_translates_addresses() {
        let other = Met::Other("HTTP 404".into());
        let (text, is_certain) = about("a.test", "2001:db8::1", &other);
        assert!(text.contains("AAAA record leads to 2001:db8::1") && text.contains("remove the record") && is_certain, "{text}");
        for (ip, met) in [
            ("192.0.2.1", &other),
            ("fd00::1", &other),
            ("192.0.2.1", &Met::Refused),
            ("2001:db8::1", &Met::Silence),
            ("2001:db8::1", &Met::Other("HTTP 301".into())),
            ("2001:db8::1", &Met::NoRoute),
            ("192.0.2.1", &Met::NoRoute),
        ] {
            let (text, is_certain) = about("a.test", ip, met);
            assert!(!is_certain && text.contains(ip) && text.contains(": "), "{text}");
        }
        assert_eq!(finding("a.test", "[::1]:80".parse().expect("an address"), &Met::Ourselves), None);
    }

    #[test]
    fn a_name_without_an_address_is_certain_for_a_public_ca() {
        for reason in ["failed to lookup address information: Name does not resolve", "…: Name or service not known"] {
            assert!(unresolved("a.test", reason, PUBLIC).is_certain);
            assert!(!unresolved("a.test", reason, SelfCheck { is_public: false, ..PUBLIC }).is_certain);
        }
        let finding = unresolved("a.test", "Temporary failure in name resolution", PUBLIC);
        assert!(!finding.is_certain && finding.text.contains("name server"), "{}", finding.text);
    }
}
