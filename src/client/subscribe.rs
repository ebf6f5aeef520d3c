//! `mosquitto_sub`.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::event::{Event, SessionError, Wake};
use super::flows::{Flows, Message, Outgoing};
use super::format::{self, Clock};
use super::outcome::{Outcome, open};
use super::session::Session;
use super::settings::Settings;
use crate::exit_code::ExitCode;
use crate::mqtt::{Connect, ProtocolVersion, Qos, ReasonCode, SubscriptionRequest, topic_filter};

/// Pause before connecting again after a lost connection.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// How long the broker may take nothing at all while the last packets are sent.
const LAST_WRITE_PATIENCE: Duration = Duration::from_secs(5);

struct Subscriber<'a> {
    settings: &'a Settings,
    until: Option<Instant>,
    /// SIGINT and SIGTERM, to leave in order.
    signals: Option<SignalFd>,
    /// A CONNACK came, once.
    was_answered: bool,
    printed: u32,
    /// Nothing more is printed: the tool leaves when `clearing` is empty.
    is_leaving: bool,
    /// Publishes of `--remove-retained` that are not acknowledged.
    clearing: Vec<u16>,
    clock: Clock,
}

/// Subscribes and prints.
pub(super) fn run(settings: &Settings) -> Outcome {
    if settings.no_retained && settings.retained_only {
        return Outcome::failure("\nError: Combining '-R' and '--retained-only' makes no sense.");
    }
    let connect = match settings.connect() {
        Ok(connect) => connect,
        Err(text) => return Outcome::failure(text),
    };
    let subscriber = Subscriber {
        settings,
        until: settings.timeout.map(|timeout| Instant::now() + timeout),
        signals: stop_signals(),
        was_answered: false,
        printed: 0,
        is_leaving: false,
        clearing: Vec::new(),
        clock: Clock::new(),
    };
    subscriber.run(&connect)
}

/// Without a signalfd, the signals end the tool at once, as they do any program.
fn stop_signals() -> Option<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).ok()?;
    set.thread_block().ok()?;
    Some(signals)
}

enum Next {
    GoOn,
    /// DISCONNECT with this reason, then end.
    Leave(ReasonCode, Outcome),
}

impl Subscriber<'_> {
    fn run(mut self, connect: &Connect) -> Outcome {
        let mut flows = Flows::new(self.settings.in_flight_max);
        let mut has_connected = false;
        loop {
            match open(self.settings, connect, flows) {
                Ok(session) => {
                    has_connected = true;
                    match self.converse(session) {
                        Ok(outcome) => return outcome,
                        Err((error @ SessionError::Ended(_), _)) if !error.is_passing() => {
                            return Outcome { code: ExitCode::Ok, ..Outcome::of_session(&error) };
                        }
                        Err((error @ (SessionError::Protocol(_) | SessionError::Refused(_)), _)) => return Outcome::of_session(&error),
                        Err((_, left)) => flows = left,
                    }
                }
                Err((_, left)) if has_connected => flows = left,
                Err((error, _)) => return Outcome::of_dial(&error),
            }
            if let Some(outcome) = self.pause() {
                return outcome;
            }
        }
    }

    /// Waits before the next attempt, unless time or a signal ends the tool.
    fn pause(&self) -> Option<Outcome> {
        let end = Instant::now() + RECONNECT_DELAY;
        let end = self.until.map_or(end, |until| until.min(end));
        let mut wanted: Vec<_> =
            self.signals.iter().map(|signals| nix::poll::PollFd::new(signals.as_fd(), nix::poll::PollFlags::POLLIN)).collect();
        let left = end.saturating_duration_since(Instant::now());
        let timeout = nix::poll::PollTimeout::try_from(left).unwrap_or(nix::poll::PollTimeout::MAX);
        let signalled = matches!(nix::poll::poll(&mut wanted, timeout), Ok(1..));
        let timed_out = self.until.is_some_and(|until| Instant::now() >= until);
        match (signalled, timed_out) {
            (true, _) => Some(Outcome::silent(self.stopped_code())),
            (_, true) => Some(self.timed_out()),
            _ => None,
        }
    }

    fn converse(&mut self, mut session: Session) -> Result<Outcome, (SessionError, Flows)> {
        // Taken out for the loop, which lends it while `self` changes.
        let signals = self.signals.take();
        let outcome = loop {
            let next = match session.wait(self.until, signals.as_ref().map(SignalFd::as_fd)) {
                Ok(Wake::Event(event)) => self.handle(&mut session, event),
                Ok(Wake::Deadline) => Next::Leave(ReasonCode::DisconnectWithWillMessage, self.timed_out()),
                Ok(Wake::Readable) => Next::Leave(ReasonCode::DisconnectWithWillMessage, Outcome::silent(self.stopped_code())),
                Err(error) => break Err(error),
            };
            if let Next::Leave(reason, outcome) = next {
                break Ok((reason, outcome));
            }
        };
        self.signals = signals;
        match outcome {
            Ok((reason, outcome)) => {
                session.disconnect(reason, self.settings.properties.disconnect.clone(), LAST_WRITE_PATIENCE);
                Ok(outcome)
            }
            Err(error) => Err((error, session.into_flows())),
        }
    }

    /// Exit code after SIGINT or SIGTERM.
    fn stopped_code(&self) -> ExitCode {
        if self.was_answered { ExitCode::Ok } else { ExitCode::Other(255) }
    }

    fn timed_out(&self) -> Outcome {
        if self.was_answered { Outcome::said(ExitCode::TimedOut, "Timed out") } else { Outcome::silent(ExitCode::Other(255)) }
    }

    fn handle(&mut self, session: &mut Session, event: Event) -> Next {
        let leave = || Next::Leave(ReasonCode::Success, Outcome::silent(ExitCode::Ok));
        match event {
            Event::Connected(connack) => {
                self.was_answered = true;
                if connack.reason.is_error() {
                    return Next::Leave(ReasonCode::Success, Outcome::refused(&connack, self.settings, false));
                }
                self.subscribe(session);
                Next::GoOn
            }
            Event::Subscribed { packet_id, reasons } => self.subscribed(packet_id.get(), &reasons),
            Event::Message(message) => {
                self.message(session, &message);
                if self.is_leaving && self.clearing.is_empty() { leave() } else { Next::GoOn }
            }
            Event::Published { packet_id, .. } => {
                self.clearing.retain(|clearing| *clearing != packet_id);
                if self.is_leaving && self.clearing.is_empty() { leave() } else { Next::GoOn }
            }
            Event::Unsubscribed => Next::GoOn,
        }
    }

    fn subscribe(&self, session: &mut Session) {
        let settings = self.settings;
        let options = settings.subscription_options();
        let subscriptions = settings.topics.iter().map(|filter| SubscriptionRequest { filter: filter.clone(), options }).collect();
        let only_v5 = |properties: &crate::mqtt::Properties| match settings.version {
            ProtocolVersion::V5 => properties.clone(),
            _ => Vec::new(),
        };
        session.subscribe(subscriptions, only_v5(&settings.properties.subscribe));
        for filter in &settings.unsubscribe {
            session.unsubscribe(filter, only_v5(&settings.properties.unsubscribe));
        }
    }

    fn subscribed(&self, packet_id: u16, reasons: &[ReasonCode]) -> Next {
        if self.settings.debug && !self.settings.quiet {
            let granted: Vec<String> = reasons.iter().map(|reason| (*reason as u8).to_string()).collect();
            let _ = writeln!(std::io::stdout().lock(), "Subscribed (mid: {packet_id}): {}", granted.join(", "));
        }
        if reasons.iter().all(|reason| reason.is_error()) {
            self.settings.complain("All subscription requests were denied.");
            return Next::Leave(ReasonCode::Success, Outcome::silent(ExitCode::Ok));
        }
        if self.settings.exit_after_subscribing {
            return Next::Leave(ReasonCode::Success, Outcome::silent(ExitCode::Ok));
        }
        Next::GoOn
    }

    fn message(&mut self, session: &mut Session, message: &Message) {
        let settings = self.settings;
        if self.is_leaving {
            return;
        }
        if settings.retained_only && !message.retain {
            self.is_leaving = true;
            return;
        }
        let filtered = settings.filter_outs.iter().any(|filter| topic_filter::matches(filter, &message.topic));
        if filtered || (message.retain && settings.no_retained) {
            return;
        }
        if settings.remove_retained && message.retain {
            let clear = Outgoing {
                topic: message.topic.as_str().into(),
                payload: [].into(),
                qos: Qos::AtLeastOnce,
                retain: true,
                properties: Vec::new(),
            };
            self.clearing.push(session.publish(clear));
        }
        if !self.print(message) {
            self.is_leaving = true;
        }
        self.printed = self.printed.saturating_add(1);
        if settings.count.is_some_and(|count| self.printed >= count) {
            self.is_leaving = true;
        }
    }

    /// `false` when nobody reads stdout any more.
    fn print(&self, message: &Message) -> bool {
        let settings = self.settings;
        if settings.random_filter < 10_000 {
            let mut bytes = [0; 4];
            let _ = getrandom::fill(&mut bytes);
            if u32::from_le_bytes(bytes) % 10_000 >= settings.random_filter {
                return true;
            }
        }
        let mut out = Vec::new();
        match &settings.format {
            Some(format) => {
                if let Err(text) = format.write(message, &self.clock, settings.pretty, &mut out) {
                    settings.complain(&text);
                }
                if settings.end_of_line {
                    out.push(b'\n');
                }
            }
            None => format::write_plain(message, settings.verbose, settings.end_of_line, &mut out),
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&out).and_then(|()| stdout.flush()).is_ok()
    }
}
