//! What the listeners really serve, after each change and once an hour: a worker looks, as a client.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::worker::Worker;
use super::{Certificates, voice};
use crate::acme::exchange::{Mode, Request, Target};
use crate::conf::{Listener, Protocol, SocketDomain};
use crate::logging::LogType;
use crate::supervisor::machine::Millis;
use crate::supervisor::voice::Voice;
use crate::tls::leaf::Leaf;

/// A broker that is ready takes connections a moment later.
const SOON: Millis = 1_000;
const HOURLY: Millis = 3_600_000;
/// The worker's own patience for each listener is shorter.
const LIMIT: Millis = 600_000;
/// The broker is made to use it again so often; then it is only said.
const MISTRUSTED_MAX: u32 = 3;

/// What a listener is to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    target: Target,
    certfile: PathBuf,
    leaf: String,
    /// Whoever comes without a certificate, or without asking for a WebSocket, is an error in the log, which need not be there every hour.
    is_quiet: bool,
}

impl Expected {
    pub(super) fn of(listener: &Listener, certfile: &Path, bytes: Option<Vec<u8>>) -> Option<Self> {
        let leaf = Leaf::of_chain(&bytes?).ok()?;
        let loopback = if listener.socket_domain == SocketDomain::Ipv6 { "::1" } else { "127.0.0.1" };
        let host = match listener.host.as_deref().map(|host| (host, host.parse::<IpAddr>())) {
            None => loopback,
            Some((_, Ok(address))) if address.is_unspecified() => {
                if address.is_ipv6() {
                    "::1"
                } else {
                    "127.0.0.1"
                }
            }
            Some((host, _)) => host,
        };
        // The addresses of an interface are the kernel's business.
        let is_reachable = listener.bind_interface.is_none() && listener.port != 0;
        is_reachable.then(|| Self {
            target: Target { host: host.to_owned(), port: listener.port, is_proxied: listener.proxy.is_some() },
            certfile: certfile.to_owned(),
            leaf: leaf.fingerprint(),
            is_quiet: !listener.tls.require_certificate && listener.protocol == Protocol::Mqtt,
        })
    }
}

#[derive(Default)]
pub(super) struct Probe {
    listeners: Vec<Expected>,
    /// Those that a worker looks at.
    asked: Vec<Expected>,
    /// The broker was given something since the last look.
    is_fresh: bool,
    at: Option<Millis>,
    mistrusted: u32,
    wrong: Option<String>,
}

impl Probe {
    pub(super) fn follow(&mut self, listeners: Vec<Expected>) {
        self.is_fresh = !listeners.is_empty();
        self.listeners = listeners;
        self.at = None;
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.at
    }

    /// Whether it is time to look; `is_ready`: the broker is.
    fn is_due(&mut self, now: Millis, is_ready: bool) -> bool {
        if !is_ready {
            // What begins now is looked at when it is there.
            self.is_fresh |= self.at.take().is_some();
        } else if std::mem::take(&mut self.is_fresh) {
            self.asked.clone_from(&self.listeners);
            self.at = Some(now + SOON);
        }
        let is_due = self.at.is_some_and(|at| at <= now);
        if is_due {
            self.at = Some(now + HOURLY);
        }
        is_due
    }

    /// What a worker is to look at now: after a change all of them, and otherwise those whom it disturbs little.
    fn ask(&mut self) -> Vec<Target> {
        if self.asked.is_empty() {
            self.asked = self.listeners.iter().filter(|expected| expected.is_quiet).cloned().collect();
        }
        self.asked.iter().map(|expected| expected.target.clone()).collect()
    }

    /// No worker has looked, or it ended without a word: the next one is not sent to all of them for that.
    pub(super) fn unanswered(&mut self) {
        self.asked.clear();
    }

    /// Compares; `None`: those that answered serve what they are to. Otherwise what is wrong.
    fn compare(&mut self, leaves: &[Option<String>]) -> Option<String> {
        let asked = std::mem::take(&mut self.asked);
        let wrong = asked.iter().zip(leaves).filter(|(expected, leaf)| leaf.as_ref().is_some_and(|leaf| *leaf != expected.leaf));
        let lines: Vec<_> = wrong
            .map(|(expected, _)| {
                format!("the listener on port {} serves another certificate than {}", expected.target.port, expected.certfile.display())
            })
            .collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

impl Certificates {
    /// Has the listeners looked at, if it is time and nothing else is under way.
    pub(super) fn look_at_listeners(&mut self, now: Millis, is_ready: bool, voice: &Voice) {
        if self.worker.is_some() || !self.in_use.is_settled() || !self.probe.is_due(now, is_ready) {
            return;
        }
        let targets = self.probe.ask();
        if targets.is_empty() {
            return;
        }
        match Worker::start(Request::probe(targets), &[], now + LIMIT) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => {
                self.probe.unanswered();
                voice.say(LogType::Warning, &format!("Warning: what the listeners serve cannot be looked at: {error}."));
            }
        }
    }

    /// What a worker has seen.
    pub(super) fn probed(&mut self, now: Millis, leaves: &[Option<String>], voice: &Voice) {
        if self.probe.is_fresh {
            // The broker was given something else meanwhile.
            self.probe.unanswered();
            return;
        }
        let former = self.probe.wrong.take();
        self.probe.wrong = self.probe.compare(leaves);
        match (&self.probe.wrong, former) {
            (Some(text), former) => {
                self.probe.mistrusted = self.probe.mistrusted.saturating_add(1);
                if self.probe.mistrusted <= MISTRUSTED_MAX {
                    voice.say(LogType::Warning, &format!("Warning: {text}; the broker is made to use it again."));
                    self.in_use.mistrusted(now, self.probe.mistrusted);
                } else if former.is_none() || self.probe.mistrusted == MISTRUSTED_MAX + 1 {
                    let text = format!("Error: {text}, whatever is done: does something else listen there? Start the container again.");
                    voice.say(LogType::Error, &text);
                }
            }
            (None, Some(_)) => {
                self.probe.mistrusted = 0;
                voice::print("The listeners serve the certificates that they are to serve.");
            }
            (None, None) => self.probe.mistrusted = 0,
        }
        if self.settings.is_some() && self.state.not_served != self.probe.wrong {
            self.state.not_served.clone_from(&self.probe.wrong);
            self.keep_state(voice);
        }
    }
}

impl Request {
    fn probe(targets: Vec<Target>) -> Self {
        Self { mode: Mode::Probe, targets, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(port: u16, is_quiet: bool) -> Expected {
        let target = Target { host: "127.0.0.1".into(), port, is_proxied: false };
        Expected { target, certfile: PathBuf::from("/a.pem"), leaf: "a".into(), is_quiet }
    }

    #[test]
    fn a_look_is_due_a_second_after_a_change_and_then_each_hour_while_the_broker_is_ready() {
        let mut probe = Probe::default();
        assert!(!probe.is_due(0, true) && probe.next().is_none(), "without a TLS listener never");
        probe.follow(vec![expected(1, true), expected(2, false)]);
        assert!(!probe.is_due(0, false), "the broker only begins");
        let due: Vec<_> = (0..9_000).filter(|second| probe.is_due(second * 1_000, *second >= 10)).collect();
        assert_eq!(due, [11, 3_611, 7_211]);
        // A restart in between is a change.
        assert!(!probe.is_due(9_000_000, false));
        assert!(!probe.is_due(9_010_000, true) && probe.is_due(9_011_000, true));
    }

    #[test]
    fn a_look_that_came_to_nothing_is_not_made_up_for_where_it_would_be_an_error_in_the_log() {
        let mut probe = Probe::default();
        let ports = |targets: Vec<Target>| targets.iter().map(|target| target.port).collect::<Vec<_>>();
        probe.follow(vec![expected(1, true), expected(2, false)]);
        assert!(!probe.is_due(0, true) && probe.is_due(1_000, true));
        assert_eq!(ports(probe.ask()), [1, 2]);
        probe.unanswered();
        for hour in 1..3 {
            assert!(probe.is_due(1_000 + hour * HOURLY, true));
            assert_eq!(ports(probe.ask()), [1]);
            probe.unanswered();
        }
        // After a change all are looked at again.
        probe.follow(vec![expected(2, false)]);
        assert!(!probe.is_due(20_000_000, true) && probe.is_due(20_001_000, true));
        assert_eq!(ports(probe.ask()), [2]);
        assert_eq!(probe.compare(&[Some("a".into())]), None);
        assert!(probe.is_due(20_001_000 + HOURLY, true) && probe.ask().is_empty());
    }

    #[test]
    fn what_nobody_answers_is_not_wrong() {
        let mut probe = Probe::default();
        for (leaves, wrong) in
            [([Some("a"), Some("a")], 0), ([None, Some("a")], 0), ([None, None], 0), ([Some("b"), None], 1), ([Some("b"), Some("c")], 2)]
        {
            probe.asked = vec![expected(1, true), expected(2, true)];
            let text = probe.compare(&leaves.map(|leaf| leaf.map(str::to_owned))).unwrap_or_default();
            assert_eq!(text.matches("serves another certificate than /a.pem").count(), wrong, "{text}");
        }
    }

    #[test]
    fn a_listener_is_looked_at_where_it_can_be_reached() {
        let pem = rcgen::generate_simple_self_signed(vec!["a.test".into()]).expect("a certificate").cert.pem().into_bytes();
        let mut conf = crate::conf::Conf::default();
        let mut listener = conf.listeners.pop().expect("a listener by default");
        listener.port = 8883;
        let host =
            |listener: &Listener| Expected::of(listener, Path::new("/a.pem"), Some(pem.clone())).map(|expected| expected.target.host);
        for (given, reached) in [
            (None, "127.0.0.1"),
            (Some("0.0.0.0"), "127.0.0.1"),
            (Some("::"), "::1"),
            (Some("192.0.2.7"), "192.0.2.7"),
            (Some("a.test"), "a.test"),
        ] {
            listener.host = given.map(str::to_owned);
            assert_eq!(host(&listener).as_deref(), Some(reached), "{given:?}");
        }
        listener.bind_interface = Some("eth0".into());
        assert_eq!(host(&listener), None);
    }
}
